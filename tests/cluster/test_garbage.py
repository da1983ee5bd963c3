"""When a process that holds much collects its garbage."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from holdfast.cluster.comm.loops import run
from holdfast.cluster.processes import garbage


@pytest.fixture(autouse=True)
def collector():
    """The collector as it was."""
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


class Circle:
    def __init__(self):
        self.itself = self


def old_circle():
    circle = Circle()
    gc.collect()  # now it is among the oldest
    return weakref.ref(circle)


def test_what_is_old_is_left_alone_and_what_is_young_is_not():
    garbage.collect_young_only()
    gone = old_circle()
    young = [weakref.ref(Circle())]
    kept = [[] for _ in range(100_000)]
    assert gone() is not None
    assert young[0]() is None
    assert kept


@pytest.mark.parametrize(
    ("counts", "pause", "wait"),
    [([0], 0.0, 3600.0), ([10**9, 0], 3600.0, 3600.0), ([10**9], 3600.0, 0.0)],
    ids=["while there is little", "when there is little again", "when it has waited for long"],
)
def test_everything_is_collected(monkeypatch, counts, pause, wait):
    monkeypatch.setattr(garbage, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(garbage, "PAUSE_SECONDS", pause)
    monkeypatch.setattr(garbage, "MAX_WAIT_SECONDS", wait)

    async def main():
        garbage.collect_young_only()
        gone = old_circle()
        left = iter(counts)
        garbage.collect_when_few(lambda: next(left, counts[-1]))
        while gone() is not None:
            await asyncio.sleep(0)

    run(main())


def test_nothing_old_is_collected_while_there_is_much(monkeypatch):
    monkeypatch.setattr(garbage, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(garbage, "PAUSE_SECONDS", 0.0)

    async def main():
        garbage.collect_young_only()
        gone = old_circle()
        looks = []
        garbage.collect_when_few(lambda: looks.append(None) or 10**9)
        while len(looks) < 3:
            await asyncio.sleep(0)
        assert gone() is not None

    run(main())
