"""Several processes read what others push out of memory: every byte is held against a checksum, and some are killed."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from holdfast.objectstore import Store, StoreServer

MIB = 1 << 20
CAPACITY = 16 * MIB
KILLS = int(40 * float(os.environ.get("HOLDFAST_KILLS", "1")))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    with StoreServer(CAPACITY, spill_directory=tmp_path) as server:
        yield server
    assert not list(tmp_path.iterdir()), "the store left files behind"


def test_readers_race_with_spilling_and_never_see_another_objects_bytes(
    server: StoreServer,
    store: Store,
    child: Callable[..., subprocess.Popen[str]],
    check: Callable[[], None],
    wait_until: Callable[..., Any],
) -> None:
    """Ten times the capacity is put. Bytes that are freed are written over at once, and slots are used again."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    readers = [child("read_at_random", server.socket_path, seed + number) for number in range(3)]
    put = 0
    ids = []
    while put < 10 * CAPACITY:
        value = rng.integers(0, 256, rng.choice([5_000, 60_000, 100_000, 300_000]), "u1")
        ids.append(store.put(value))
        put += value.nbytes
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.write(f"{ids[-1]} {xxhash.xxh3_64_intdigest(value)}\n")
            reader.stdin.flush()
        if len(ids) % 100 == 0:
            check()
    for reader in readers:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.close()
        in_arena, in_files = map(int, reader.stdout.readline().split())
        print(f"{in_arena} reads in the arena, {in_files} in files")
        assert in_arena
        assert in_files
        assert reader.wait(20) == 0
    stats = server.stats()
    assert stats["spilled_total_nbytes"] > 8 * CAPACITY
    assert stats["spill_error"] is None
    wait_until(lambda: server.stats()["pins"] == 0)
    check()
    store.delete(ids)
    wait_until(lambda: server.stats()["spill_file_nbytes"] == 0)
    check()


def test_kills_under_pressure_cost_nobody_else_anything(
    server: StoreServer,
    store: Store,
    child: Callable[..., Any],
    check: Callable[[], None],
    wait_until: Callable[..., Any],
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    mine = {store.put(np.full(2 * MIB, number, "u1")): number for number in range(16)}
    viewed = [store.get(object_id) for object_id in list(mine)[-2:]]
    nursery = child("nursery", server.socket_path)
    for _ in range(KILLS // 4):
        pids = []
        for _ in range(4):
            nursery.stdin.write(f"{rng.randrange(1 << 32)}\n")
            nursery.stdin.flush()
            pids.append(int(nursery.stdout.readline()))
        for object_id in rng.sample(list(mine), 8):  # which takes some time, while they work
            assert (store.get(object_id) == mine[object_id]).all()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.stats()["clients"] == 1, "all victims are gone")
        check()
        store.delete([meta.object_id for meta in server.inventory() if meta.object_id not in mine])
        gc.collect()
        wait_until(lambda: server.stats()["pins"] == len(viewed), "the victims' pins are gone")
        assert {meta.object_id for meta in server.inventory()} == set(mine)
    stats = server.stats()
    assert stats["spilled_total_nbytes"] > CAPACITY
    assert (stats["waiting_creates"], stats["waiting_gets"], stats["reserved"], stats["quarantined"]) == (0, 0, 0, 0)
    assert [int(view[-1]) for view in viewed] == [14, 15]
    for object_id, number in mine.items():
        assert (store.get(object_id) == number).all()
