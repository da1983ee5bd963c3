"""Calls that wait for an actor: their order, and those that are put off."""

from __future__ import annotations

import pytest

from holdfast.cluster.worker.actor_calls import WaitingCalls


@pytest.fixture
def waiting():
    return WaitingCalls()


def add(waiting, number, caller="a"):
    waiting.add((number, 1, caller, "method", b"", ()))


def taken(waiting):
    numbers = []
    while (call := waiting.take()) is not None:
        numbers.append(call[0])
    return numbers


def test_calls_are_taken_in_the_order_in_which_they_came(waiting):
    for number, caller in ((1, "a"), (2, "b"), (3, "a")):
        add(waiting, number, caller)
    assert taken(waiting) == [1, 2, 3]
    assert waiting.take() is None


def test_behind_a_call_that_is_put_off_only_others_pass(waiting):
    for number, caller in ((1, "a"), (2, "a"), (3, "b")):
        add(waiting, number, caller)
    waiting.put_off(waiting.take())
    add(waiting, 4, "a")
    add(waiting, 5, "b")
    assert waiting.take()[0] == 3
    add(waiting, 1, "a")
    assert taken(waiting) == [1, 2, 4, 5]


def test_calls_of_two_callers_may_be_put_off(waiting):
    for number, caller in ((1, "a"), (2, "b"), (3, "a"), (4, "b")):
        add(waiting, number, caller)
    waiting.put_off(waiting.take())
    waiting.put_off(waiting.take())
    assert taken(waiting) == []
    add(waiting, 2, "b")
    assert taken(waiting) == [2, 4]
    add(waiting, 1, "a")
    assert taken(waiting) == [1, 3]


def test_calls_go_on_when_the_one_that_they_are_behind_is_dropped(waiting):
    for number in (1, 2, 3):
        add(waiting, number)
    waiting.put_off(waiting.take())
    waiting.drop([2])
    assert taken(waiting) == []
    waiting.drop([1])
    assert taken(waiting) == [3]


def test_dropped_calls_are_not_taken(waiting):
    for number in (1, 2, 3):
        add(waiting, number)
    waiting.drop([2, 7])
    assert taken(waiting) == [1, 3]
