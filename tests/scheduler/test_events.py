"""Events and semaphores in the scheduler: what waits for them, and what is left of them."""

from __future__ import annotations

import pytest
from scheduler_harness import Cluster

from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.parts import events as events_module
from holdfast.cluster.scheduler.parts import semaphores as semaphores_module
from holdfast.cluster.scheduler.tasks import events


@pytest.fixture
def cluster():
    cluster = Cluster()
    for name in ("a", "b"):
        cluster.add_client(name)
    return cluster


def ask(cluster, client, asked):
    """Ask; the number of the request, and what is answered at once."""
    number = cluster.new_number()
    cluster.request(client, number, asked)
    return number, answer(cluster, client, number)


def answer(cluster, client, number):
    reply = cluster.answer_of(client, number)
    return None if reply is None else reply.value


def pass_time(cluster, now):
    cluster.now = now
    cluster.handle(events.TimePassed())


def part_of(cluster, name):
    return next(part for part in cluster.state.parts if part.name == name)


class TestEvents:
    def test_all_that_wait_are_answered_when_it_is_set(self, cluster):
        numbers = [
            (client, ask(cluster, client, requests.WAIT_FOR_EVENT(name="e", wait=wait))[0])
            for wait, client in enumerate("abab")
        ]
        ask(cluster, "a", requests.SET_EVENT(name="other"))
        assert [answer(cluster, *key) for key in numbers] == [None] * 4
        ask(cluster, "b", requests.SET_EVENT(name="e"))
        assert [answer(cluster, *key) for key in numbers] == [True] * 4
        assert ask(cluster, "a", requests.WAIT_FOR_EVENT(name="e", wait=9))[1] is True

    def test_time_is_up_or_it_is_not_waited_for(self, cluster):
        number, _ = ask(cluster, "a", requests.WAIT_FOR_EVENT(name="e", wait=1, timeout=1.0))
        assert ask(cluster, "a", requests.WAIT_FOR_EVENT(name="e", wait=2, timeout=0.0))[1] is False
        pass_time(cluster, 1.0)
        assert answer(cluster, "a", number) is False

    def test_a_wait_that_is_given_up_is_over(self, cluster):
        number, _ = ask(cluster, "a", requests.WAIT_FOR_EVENT(name="e", wait=1))
        cluster.tell("b", requests.STOP_WAITING(wait=1))
        assert answer(cluster, "a", number) is None
        cluster.tell("a", requests.STOP_WAITING(wait=1))
        assert answer(cluster, "a", number) is False
        cluster.tell("a", requests.STOP_WAITING(wait=1))

    def test_a_number_that_is_in_use_is_refused(self, cluster):
        ask(cluster, "a", requests.WAIT_FOR_EVENT(name="e", wait=1))
        assert ask(cluster, "a", requests.WAIT_FOR_EVENT(name="f", wait=1))[1][0] == "ProtocolError"

    def test_one_that_is_not_set_takes_no_room(self, cluster, monkeypatch):
        monkeypatch.setattr(events_module, "MAX_EVENTS", 1)
        ask(cluster, "a", requests.SET_EVENT(name="e"))
        assert ask(cluster, "a", requests.SET_EVENT(name="e"))[1] is None
        assert ask(cluster, "a", requests.SET_EVENT(name="f"))[1] == [
            "RuntimeError",
            "1 events are set, and no more may be: clear some",
        ]
        ask(cluster, "b", requests.CLEAR_EVENT(name="e"))
        assert ask(cluster, "a", requests.SET_EVENT(name="f"))[1] is None

    def test_with_its_client_a_wait_has_gone(self, cluster):
        ask(cluster, "a", requests.WAIT_FOR_EVENT(name="e", wait=1))
        cluster.remove_client("a")
        assert len(cluster.state.waits) == 0


class TestSemaphores:
    def test_so_many_at_a_time(self, cluster):
        ask(cluster, "a", requests.OPEN_SEMAPHORE(name="s", max_leases=2))
        first, second, third = [
            ask(cluster, client, requests.ACQUIRE_SEMAPHORE(name="s", lease=lease))
            for lease, client in enumerate("aba")
        ]
        assert (first[1], second[1], third[1]) == (True, True, None)
        assert ask(cluster, "b", requests.SEMAPHORE_VALUE(name="s"))[1] == 2
        cluster.tell("b", requests.RELEASE_SEMAPHORE(lease=1))
        assert answer(cluster, "a", third[0]) is True
        cluster.remove_client("a")
        assert ask(cluster, "b", requests.SEMAPHORE_VALUE(name="s"))[1] == 0

    def test_one_is_closed_once_and_for_all(self, cluster):
        ask(cluster, "a", requests.ACQUIRE_SEMAPHORE(name="s", lease=1, max_leases=1))
        number, _ = ask(cluster, "b", requests.ACQUIRE_SEMAPHORE(name="s", lease=1))
        assert ask(cluster, "b", requests.CLOSE_SEMAPHORE(name="s"))[1] == 1
        assert answer(cluster, "b", number) == ["RuntimeError", "the semaphore 's' was closed"]
        assert ask(cluster, "b", requests.CLOSE_SEMAPHORE(name="s"))[1] == 0
        assert ask(cluster, "b", requests.ACQUIRE_SEMAPHORE(name="s", lease=1))[1][0] == "RuntimeError"
        cluster.tell("a", requests.RELEASE_SEMAPHORE(lease=1))

    def test_there_may_be_so_many(self, cluster, monkeypatch):
        monkeypatch.setattr(semaphores_module, "MAX_SEMAPHORES", 1)
        ask(cluster, "a", requests.OPEN_SEMAPHORE(name="s", max_leases=2))
        assert ask(cluster, "a", requests.OPEN_SEMAPHORE(name="s", max_leases=2))[1] is None
        _, text = ask(cluster, "a", requests.OPEN_SEMAPHORE(name="s", max_leases=1))[1]
        assert text.startswith("Inconsistent max leases: 1, expected: 2")
        assert ask(cluster, "a", requests.OPEN_SEMAPHORE(name="t", max_leases=1))[1][0] == "RuntimeError"
