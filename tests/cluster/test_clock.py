"""Time in which a process listened."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cluster.clock import ListeningClock, Rounds
from holdfast.cluster.comm.loops import run


class Time:
    """A system's clock that a test sets."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def system():
    return Time()


def test_it_goes_with_the_systems_clock_as_long_as_somebody_ticks(system):
    clock = ListeningClock(2.0, system)
    for _ in range(100):
        system.now += 0.7
        clock.tick()
    system.now += 0.25
    assert clock.time() == pytest.approx(70.25)


@pytest.mark.parametrize("looks_before_it_ticks", [False, True])
def test_a_stop_of_any_length_counts_for_one_step(system, looks_before_it_ticks):
    clock = ListeningClock(2.0, system)
    system.now += 1.0
    clock.tick()
    system.now += 1e6
    if looks_before_it_ticks:
        assert clock.time() == 3.0
    clock.tick()
    assert clock.time() == 3.0
    system.now += 0.5
    assert clock.time() == 3.5


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans())))
def test_it_never_goes_back_and_never_faster_than_the_systems(history):
    system = Time()
    clock = ListeningClock(2.0, system)
    before = clock.time()
    for passed, ticks in history:
        system.now += passed
        if ticks:
            clock.tick()
        now = clock.time()
        assert before <= now <= before + passed + 1e-6
        before = now


def test_an_alarm_waits_for_the_clock_and_not_for_the_systems(eventually):
    async def main():
        clock = ListeningClock(0.02)
        rounds = Rounds(clock)
        rung = []
        due = clock.time() + 0.2
        rounds.call_later(0.2, lambda: rung.append(clock.time()))
        rounds.call_later(0.1, rung.append, "cancelled").cancel()
        time.sleep(0.5)  # nobody goes round the loop meanwhile: as if the process were stopped
        await asyncio.sleep(0)
        assert not rung
        while not rung:
            await asyncio.sleep(0.01)
        assert rung[0] >= due
        rounds.cancel()

    run(main())
