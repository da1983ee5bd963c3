"""What of a process's memory is its own, and how often that is looked at."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from holdfast.cluster.node import memory_watch
from holdfast.cluster.node.memory_watch import INTERVAL_SECONDS_MAX, INTERVAL_SECONDS_MIN, MemoryWatch, private_nbytes

GB = 1 << 30
MIB = 1 << 20
#: In a process of its own: one that has run other tests has free memory of its own, which new arrays take up.
LOOK = """
import os
import numpy as np
from holdfast.cluster.node.memory_watch import private_nbytes
from holdfast.objectstore import StoreServer, connect

nbytes = 200 << 20
with StoreServer(capacity=2 * nbytes) as server, connect(server.socket_path) as store:
    before = private_nbytes(os.getpid())
    array, pending = store.create((nbytes // 8,), "int64")
    array[:] = 7  # in huge pages where there are any
    object_id = pending.seal()
    del array
    assert int(store.get(object_id).sum()) == 7 * nbytes // 8
    print(private_nbytes(os.getpid()) - before)
    copy = store.get(object_id, writable=True)
    copy += 1
    print(private_nbytes(os.getpid()) - before)
    own = np.ones(nbytes // 8)
    print(private_nbytes(os.getpid()) - before)
    del copy, own
"""


def test_pages_of_the_store_are_nobodys_own_until_they_are_copied() -> None:
    looked = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=60, check=True)
    shared, copied, more = (int(line) / (200 * MIB) for line in looked.stdout.split())
    # What the interpreter allocates meanwhile is far less.
    assert shared < 0.2
    assert copied == pytest.approx(1, abs=0.2)
    assert more == pytest.approx(2, abs=0.2)


def test_a_process_that_has_ended_has_no_memory() -> None:
    assert private_nbytes(1 << 30) == 0


def test_it_looks_again_when_a_process_could_have_reached_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    used = {1: 1, 2: 1}
    history = iter([14 * GB, 15 * GB + GB // 2, 16 * GB - 10 * MIB, 16 * GB + 1])
    looks: list[tuple[int, float]] = []
    killed: list[tuple[int, str]] = []
    paused: list[tuple[int, bool]] = []

    def look(pid: int) -> int:
        looks.append((pid, now))
        return used[pid]

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if next_ := [each for each in (next(history, None),) if each is not None]:
            (used[2],) = next_
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(memory_watch, "private_nbytes", look)
    monkeypatch.setattr(memory_watch.asyncio, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(
            MemoryWatch(
                lambda: dict.fromkeys(used, 16 * GB),
                lambda *call: killed.append(call),
                lambda *call: paused.append(call),
                clock=lambda: now,
            ).run()
        )
    of_each = {pid: [when - 100 for looked, when in looks if looked == pid] for pid in used}
    assert of_each[1] == [0, INTERVAL_SECONDS_MAX], "which stays far from it"
    assert of_each[2] == pytest.approx([0, 1, 1.25, 1.3125, 1.3125 + INTERVAL_SECONDS_MIN])
    ((pid, reason),) = killed
    assert pid == 2
    assert reason == "exceeded its memory limit of 17.2 GB"
    assert paused == [(2, True)]
