"""When a process that has ended may start again, with a pretended clock."""

from __future__ import annotations

import pytest

from holdfast.cluster.processes.restarts import MAX_PAUSE_SECONDS, RUN_WELL_SECONDS, SPACING_SECONDS, Restarts


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(restarts: Restarts, clock: Clock, after: float = 1.0) -> float:
    """A process ends ``after`` so many seconds without having been ready; the pause."""
    restarts.begin()
    clock.now += after
    return restarts.ended("could not start")


def die(restarts: Restarts, clock: Clock, after: float = 1.0) -> float:
    """A process is ready at once, and dies ``after`` so many seconds; the pause."""
    restarts.begin()
    restarts.ready()
    clock.now += after
    return restarts.ended("was killed")


@pytest.mark.parametrize("tasks_may_kill", [True, False])
def test_what_can_not_start_is_tried_for_ever_after_pauses_that_grow_up_to_a_bound(
    tasks_may_kill: bool, clock: Clock
) -> None:
    restarts = Restarts(tasks_may_kill=tasks_may_kill, clock=clock)
    pauses = [fail(restarts, clock) for _ in range(2000)]
    assert pauses[:4] == [0.25, 0.5, 1.0, 2.0]
    assert pauses == sorted(pauses)
    assert set(pauses[6:]) == {MAX_PAUSE_SECONDS}
    assert restarts.deaths == 2000


def test_what_a_task_has_killed_starts_at_once_but_not_all_the_time(clock: Clock) -> None:
    restarts = Restarts(tasks_may_kill=True, clock=clock)
    assert [die(restarts, clock, 1.0) for _ in range(100)] == [0.0] * 100
    assert [die(restarts, clock, 0.0) for _ in range(100)] == [SPACING_SECONDS] * 100
    assert fail(restarts, clock) == 0.25


def test_what_no_task_can_have_killed_pauses_longer_and_longer(clock: Clock) -> None:
    restarts = Restarts(clock=clock)
    assert [die(restarts, clock) for _ in range(3)] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("tasks_may_kill", [True, False])
def test_who_has_run_well_begins_anew(tasks_may_kill: bool, clock: Clock) -> None:
    restarts = Restarts(tasks_may_kill=tasks_may_kill, clock=clock)
    assert [fail(restarts, clock) for _ in range(3)] == [0.25, 0.5, 1.0]
    die(restarts, clock, RUN_WELL_SECONDS - 1)
    assert fail(restarts, clock) > 1.0
    die(restarts, clock, RUN_WELL_SECONDS)
    assert fail(restarts, clock) <= 0.5
    assert restarts.deaths == 7


def test_it_says_how_things_are(clock: Clock) -> None:
    restarts = Restarts(clock=clock)
    assert restarts.describe() == {
        "state": "starting", "deaths": 0, "last_death": None, "last_death_seconds": None, "next_start_seconds": None,
    }  # fmt: skip
    fail(restarts, clock)
    restarts.begin()
    clock.now += 1
    restarts.ended("could not start: no room\n" + "and a log\n" * 1000)
    clock.now += 0.2
    assert restarts.describe() == {
        "state": "down",
        "deaths": 2,
        "last_death": "could not start: no room",
        "last_death_seconds": pytest.approx(0.2),
        "next_start_seconds": pytest.approx(0.3),
    }
    restarts.begin()
    clock.now += 9
    restarts.ready()
    assert restarts.describe() == {
        "state": "running",
        "deaths": 2,
        "last_death": "could not start: no room",
        "last_death_seconds": pytest.approx(9.2),
        "next_start_seconds": None,
    }


def test_what_was_asked_to_end_starts_at_once_and_has_not_died(clock: Clock) -> None:
    restarts = Restarts(tasks_may_kill=True, clock=clock)
    for _ in range(5):
        restarts.begin()
        restarts.ready()
        assert restarts.ended("was ended, since a client wants it", asked=True) == 0.0
    described = restarts.describe()
    assert (described["deaths"], described["last_death"], described["next_start_seconds"]) == (0, None, 0.0)
    assert die(restarts, clock, after=0.0) == SPACING_SECONDS
