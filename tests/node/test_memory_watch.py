"""What of a process's memory is its own, and how often that is looked at."""

from __future__ import annotations

import asyncio
import os

import numpy as np
import pytest

from holdfast.cluster.node import memory_watch
from holdfast.cluster.node.memory_watch import INTERVAL_SECONDS_MAX, INTERVAL_SECONDS_MIN, private_nbytes, watch
from holdfast.objectstore import StoreServer, connect

GB = 1 << 30
MIB = 1 << 20
#: For what the interpreter allocates meanwhile.
SLACK_NBYTES = 40 * MIB


def test_pages_of_the_store_are_nobodys_own_until_they_are_copied() -> None:
    nbytes = 200 * MIB
    with StoreServer(capacity=400 * MIB) as server, connect(server.socket_path) as store:
        before = private_nbytes(os.getpid())
        array, pending = store.create((nbytes // 8,), "int64")
        array[:] = 7  # in huge pages where there are any
        object_id = pending.seal()
        del array
        assert int(store.get(object_id).sum()) == 7 * nbytes // 8
        assert private_nbytes(os.getpid()) - before < SLACK_NBYTES
        copy = store.get(object_id, writable=True)
        copy += 1
        assert private_nbytes(os.getpid()) - before > nbytes - SLACK_NBYTES
        own = np.ones(nbytes // 8)
        assert private_nbytes(os.getpid()) - before > 2 * nbytes - SLACK_NBYTES
        del copy, own


def test_a_process_that_has_ended_has_no_memory() -> None:
    assert private_nbytes(1 << 30) == 0


def test_it_looks_again_when_a_process_could_have_reached_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    used = {1: 0, 2: 0}
    intervals: list[float] = []
    killed: list[tuple[int, str]] = []
    looks = iter([0, 14 * GB, 15 * GB + GB // 2, 16 * GB - 10 * MIB, 16 * GB + 1])

    async def sleep(seconds: float) -> None:
        intervals.append(seconds)
        used[2] = next(looks)

    monkeypatch.setattr(memory_watch, "private_nbytes", used.__getitem__)
    monkeypatch.setattr(memory_watch.asyncio, "sleep", sleep)
    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(watch(lambda: used, 16 * GB, lambda *call: killed.append(call)))
    expected = [INTERVAL_SECONDS_MIN, INTERVAL_SECONDS_MAX, 0.25, 0.0625, INTERVAL_SECONDS_MIN, INTERVAL_SECONDS_MIN]
    assert intervals == pytest.approx(expected)
    ((pid, reason),) = killed
    assert pid == 2
    assert reason == "exceeded its memory limit of 17.2 GB: 17.2 GB used by itself"
