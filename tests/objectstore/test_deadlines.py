"""Deadlines: the next one first, without those of requests that are done, however many of these there were."""

from __future__ import annotations

from holdfast.objectstore import ObjectID
from holdfast.objectstore.core.deadlines import Deadlines
from holdfast.objectstore.core.effects import GetWait


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def wait(number: int) -> GetWait:
    return GetWait(1, number, ObjectID(number.to_bytes(16, "big")), [])


def test_those_whose_time_has_come_are_given_once_and_in_order() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    for number, seconds in enumerate([3, 1, 2, 1]):
        deadlines.add(wait(number), seconds)
    assert deadlines.next() == 1
    assert not list(deadlines.expired())
    clock.now = 2
    assert [(get.request, seconds) for get, seconds in deadlines.expired()] == [(1, 1), (3, 1), (2, 2)]
    assert not list(deadlines.expired())
    assert deadlines.next() == 3


def test_what_is_done_does_not_count() -> None:
    deadlines = Deadlines(Clock())
    first, second = wait(1), wait(2)
    deadlines.add(first, 1)
    deadlines.add(second, 2)
    first.done = True
    assert deadlines.next() == 2
    second.done = True
    assert deadlines.next() is None


def test_many_that_are_done_take_up_no_memory() -> None:
    deadlines = Deadlines(Clock())
    lasting = wait(0)
    deadlines.add(lasting, 1000)
    for number in range(1, 10_000):
        get = wait(number)
        deadlines.add(get, 2000)
        get.done = True
    assert len(deadlines._heap) < 200
    assert deadlines.next() == 1000
