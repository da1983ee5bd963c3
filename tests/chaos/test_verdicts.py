"""Which errors are explained by what was done, and which are failures."""

from __future__ import annotations

import dataclasses

import pytest

from tests.chaos.holders import TooMany
from tests.chaos.operations import OPERATIONS
from tests.chaos.timeline import Answer, Deed, Timeline
from tests.chaos.verdicts import ALLOWED, judge
from tests.chaos.victims import VICTIMS

SILENCE_SECONDS = 6.0


#: What a scheduler says to a client that it has given up.
FORGOTTEN = "does not know the client Client-1 any more"
#: Where hosts listen.
HERE, THERE = "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"


def answer(
    operation: str, error: str, text: str = "", fragile: tuple[str, ...] = (), places: tuple[str, ...] = ()
) -> Answer:
    return Answer(0, operation, 1.0, 9.0, error, text, fragile, places)


def killed(kind: str, count: int = 1, when: float = 5.0) -> list[Deed]:
    return [Deed(when, "killed", kind, 100 + number) for number in range(count)]


@pytest.mark.parametrize(
    ("what", "deeds", "explained"),
    [
        (answer("scattered", "ObjectLostError", "the data 'k' is lost", ("k",)), killed("agent"), True),
        (answer("scattered", "ObjectLostError", "the data 'k' is lost", ("k",)), killed("worker", 9), False),
        (answer("scattered", "ObjectLostError", "something is lost", ("k",)), killed("agent"), False),
        (answer("keep", "ObjectLostError", "the data 'k' is lost"), killed("agent", 9), False),
        (answer("tasks", "KilledWorker"), killed("worker", 3), True),
        (answer("tasks", "KilledWorker"), killed("worker", 2), False),
        (answer("tasks", "KilledWorker"), killed("page maker", 9), False),
        (answer("actor", "ActorLostError"), killed("worker"), True),
        (answer("actor", "ActorLostError"), killed("client"), False),
        (answer("tasks", "ActorLostError"), killed("worker"), False),
        (answer("beside_scheduler", "ConnectError"), killed("assistant"), True),
        (answer("tasks", "ConnectError"), killed("assistant"), False),
        (answer("beside_hosts", "ConnectError", "the scheduler was started again"), killed("scheduler"), True),
        (answer("beside_hosts", "ConnectError", "the connection was lost"), killed("scheduler"), False),
        (answer("beside_hosts", "ConnectError", f"started again, and {FORGOTTEN}"), killed("scheduler"), False),
        (answer("keep", "ConnectError", "the scheduler was started again"), killed("scheduler"), False),
        (answer("tasks", "TimeoutError"), killed("worker", 99), False),
        (answer("tasks", "Wrong"), killed("worker", 99), False),
    ],
)
def test_an_error_has_to_be_explained(what: Answer, deeds: list[Deed], explained: bool) -> None:
    assert (judge(what, deeds, SILENCE_SECONDS) is not None) is explained


def test_a_host_that_stood_still_for_long_may_be_given_up() -> None:
    lost = answer("scattered", "ObjectLostError", "k", ("k",))
    assert judge(lost, [Deed(5.0, "stopped", "agent", 7, SILENCE_SECONDS)], SILENCE_SECONDS)
    assert not judge(lost, [Deed(5.0, "stopped", "agent", 7, 0.1)], SILENCE_SECONDS)


@pytest.mark.parametrize(
    ("deed", "explained"),
    [
        (Deed(5.0, "killed", "agent", 7, addresses=(HERE,)), True),
        (Deed(5.0, "killed", "agent", 7, addresses=(THERE,)), False),
        (Deed(5.0, "killed", "agent", 7), True),
        (Deed(5.0, "stopped", "agent", 7, SILENCE_SECONDS, (HERE,)), True),
        (Deed(5.0, "stopped", "agent", 7, SILENCE_SECONDS, (THERE,)), False),
        (Deed(5.0, "killed", "scheduler", 7), False),
    ],
)
def test_only_the_death_of_its_host_explains_that_an_object_is_lost(deed: Deed, explained: bool) -> None:
    lost = answer("scattered", "ObjectLostError", "the data 'k' is lost", ("k",), (HERE,))
    assert (judge(lost, [deed], SILENCE_SECONDS) is not None) is explained


@pytest.mark.parametrize(("pid", "seconds", "explained"), [(7, 9.0, True), (7, 0.1, False), (70, 9.0, False)])
def test_a_lock_has_two_holders_only_if_the_first_one_stood_still(pid: int, seconds: float, explained: bool) -> None:
    twice = answer("exclusive", "TooMany", str(TooMany("lock", [(7, 1.0)])))
    deed = Deed(5.0, "stopped", "client", pid, seconds)
    assert (judge(twice, [deed], SILENCE_SECONDS) is not None) is explained


@pytest.mark.parametrize(("pid", "seconds", "explained"), [(7, 9.0, True), (7, 0.1, False), (8, 9.0, False)])
def test_a_client_is_given_up_only_if_it_stood_still(pid: int, seconds: float, explained: bool) -> None:
    given_up = dataclasses.replace(answer("keep", "ConnectError", "refused: the session has ended"), pid=7)
    deed = Deed(5.0, "stopped", "client", pid, seconds)
    assert (judge(given_up, [deed], SILENCE_SECONDS) is not None) is explained


def test_only_deeds_of_its_time_explain_an_error() -> None:
    timeline = Timeline(began=0.0)
    for deed in (*killed("agent", when=0.5), *killed("agent", when=9.5)):
        timeline.add(deed.when, deed)
    assert not list(timeline.deeds(1.0, 9.0))
    assert len(list(timeline.deeds(0.0, 10.0))) == 2


def test_the_tables_name_what_there_is() -> None:
    operations = {operation.__name__ for operation in OPERATIONS}
    assert all(set(allowed.operations) <= operations for allowed in ALLOWED)
    assert len({victim.module for victim in VICTIMS}) == len(VICTIMS)


def test_the_timeline_is_in_order() -> None:
    timeline = Timeline(began=0.0)
    timeline.add(2.0, "second")
    timeline.add(1.0, Deed(1.0, "killed", "worker", 7))
    assert timeline.lines() == ["    1.000  killed worker 7", "    2.000  second"]
    assert timeline.lines(1) == ["    2.000  second"]
