"""``kill -9`` at random points: what the dead held is free again, what is others' is untouched.

``HOLDFAST_KILLS=20`` kills twenty times as often, for campaigns.
"""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from holdfast.objectstore import Store, StoreServer

TIMES = float(os.environ.get("HOLDFAST_KILLS", "1"))
KILLS = int(100 * TIMES)
LONGEST_SECONDS = 0.06


def nap(seconds: float) -> None:
    """Time in which a victim gets somewhere; no condition says where."""
    select.select([], [], [], seconds)


def test_kills_at_random_points_cost_nobody_else_anything(
    server: StoreServer,
    store: Store,
    child: Callable[..., Any],
    wait_until: Callable[..., Any],
    check: Callable[[], None],
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    views = [store.get(store.put(np.full(n, n))) for n in (10, 1000, 50_000)]
    first = store.put(1)
    array, pending = store.create(1000)
    before = server.stats()
    mine = {item["id"] for item in store.list()}
    nursery = child("nursery", server.socket_path)
    doing: dict[str, int] = {}
    kills = stopped_first = 0
    start = time.monotonic()
    while kills < KILLS:
        crowd = rng.choice([1, 1, 2, 4])
        pids = []
        for _ in range(crowd):
            nursery.stdin.write(f"{rng.randrange(1 << 32)}\n")
            nursery.stdin.flush()
            pids.append(int(nursery.stdout.readline()))
        nap(rng.uniform(0.0, LONGEST_SECONDS))
        for pid in pids:
            if rng.random() < 0.3:
                os.kill(pid, signal.SIGSTOP)
                stopped_first += 1
                assert store.get(first) == 1, "a stopped process stalls others"
            for name, count in held_by_victims(server).items():
                doing[name] = doing.get(name, 0) + bool(count)
            os.kill(pid, signal.SIGKILL)
            nap(rng.choice([0.0, 0.0, 0.003]))
        kills += crowd
        wait_until(lambda: server.stats()["clients"] == 1, "all victims are gone")
        check()
        store.delete([meta.object_id for meta in server.inventory() if meta.object_id.hex() not in mine])
        wait_until(lambda: server.stats()["pins"] == before["pins"], "the victims' pins are gone")
        after = server.stats()
        assert (after["reserved"], after["quarantined"]) == (1, 0)
        assert after["waiting_gets"] == after["waiting_creates"] == 0
        on_disk = 64 * after["spilled"]  # only ``first`` can be there, and that has one cache line
        free = before["free"] + before["leased_nbytes"] + on_disk
        assert after["free"] + after["leased_nbytes"] == free, "bytes were lost"
        assert {item["id"] for item in store.list()} == mine
        assert all((view == view.size).all() for view in views)
    print(f"{kills} kills in {time.monotonic() - start:.1f} s, {stopped_first} while stopped; some held {doing}")
    array[:] = 5
    assert (store.get(pending.seal()) == 5).all()


def held_by_victims(server: StoreServer) -> dict[str, int]:
    stats = server.stats()
    return {
        "pins": stats["pins"] - 3,
        "reservations": stats["reserved"] - 1,
        "waits": stats["waiting_gets"] + stats["waiting_creates"],
    }
