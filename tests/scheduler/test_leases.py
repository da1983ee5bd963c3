"""Which client gets a lease, and what becomes of it: the table of `holdfast.cluster.scheduler.parts.leases`.

The harness looks after every event whether all invariants hold, and whether what has no answer waits.
"""

from __future__ import annotations

import random

import pytest

from holdfast.cluster.protocol.requests import (
    ACQUIRE_LOCKS,
    ACQUIRE_SEMAPHORE,
    CLOSE_SEMAPHORE,
    IS_LOCKED,
    OPEN_SEMAPHORE,
    RELEASE_LOCKS,
    RELEASE_SEMAPHORE,
    SEMAPHORE_VALUE,
)
from holdfast.cluster.scheduler.parts import leases as leases_module
from holdfast.cluster.scheduler.tasks import events
from tests.support.journalled import Journalled


@pytest.fixture
def cluster():
    cluster = Journalled()
    for name in ("a", "b", "c"):
        cluster.add_client(name)
    return cluster


def acquire(cluster, client, number, *names, timeout=None, count=None):
    """Ask for a lease that has the number of its request; what is answered at once."""
    cluster.request(client, number, ACQUIRE_LOCKS(names=names or ("x",), lease=number, timeout=timeout, count=count))
    return answer(cluster, client, number)


def release(cluster, client, number):
    cluster.tell(client, RELEASE_LOCKS(lease=number))


def answer(cluster, client, number):
    reply = cluster.answer_of(client, number)
    return None if reply is None else reply.value


def granted(cluster):
    """Client and number of what was granted, in that order."""
    return [(reply.peer, reply.request) for reply in cluster.replies if reply.value is True]


def locks_of(cluster):
    return next(part for part in cluster.state.parts if part.name == "locks")


def pass_time(cluster, now):
    cluster.now = now
    cluster.handle(events.TimePassed())


def is_locked(cluster, name="x"):
    number = cluster.new_number() + 1000
    cluster.request("a", number, IS_LOCKED(name=name))
    return answer(cluster, "a", number)


class TestOneLock:
    def test_those_that_wait_get_it_in_the_order_in_which_they_came(self, cluster):
        assert acquire(cluster, "a", 1)
        for number, client in enumerate("bcab", 2):
            assert acquire(cluster, client, number) is None
        for client, number in [("a", 1), ("b", 2), ("c", 3), ("a", 4), ("b", 5)]:
            release(cluster, client, number)
        assert granted(cluster) == [("a", 1), ("b", 2), ("c", 3), ("a", 4), ("b", 5)]
        assert not is_locked(cluster)

    def test_time_is_up(self, cluster):
        acquire(cluster, "a", 1)
        acquire(cluster, "b", 2, timeout=2.0)
        acquire(cluster, "c", 3, timeout=1.0)
        pass_time(cluster, 1.0)
        assert answer(cluster, "c", 3) is False
        pass_time(cluster, 2.0)
        assert answer(cluster, "b", 2) is False
        release(cluster, "a", 1)
        assert not is_locked(cluster)

    def test_it_is_not_waited_for(self, cluster):
        assert acquire(cluster, "a", 1, timeout=0.0)
        assert acquire(cluster, "b", 2, timeout=0.0) is False
        assert len(cluster.state.waits) == 0

    def test_one_that_is_given_up_while_it_waits_is_not_granted(self, cluster):
        acquire(cluster, "a", 1)
        acquire(cluster, "b", 2)
        acquire(cluster, "c", 3)
        release(cluster, "b", 2)
        assert answer(cluster, "b", 2) is False
        release(cluster, "a", 1)
        assert granted(cluster) == [("a", 1), ("c", 3)]

    def test_one_that_is_given_up_as_it_is_granted_is_passed_on(self, cluster):
        """The answer is under way when the client gives up."""
        acquire(cluster, "a", 1)
        acquire(cluster, "b", 2)
        acquire(cluster, "c", 3)
        release(cluster, "a", 1)
        release(cluster, "b", 2)
        assert granted(cluster) == [("a", 1), ("b", 2), ("c", 3)]

    def test_one_whose_time_was_up_as_it_is_given_up_changes_nothing(self, cluster):
        acquire(cluster, "a", 1)
        acquire(cluster, "b", 2, timeout=1.0)
        pass_time(cluster, 1.0)
        release(cluster, "b", 2)
        release(cluster, "b", 77)
        assert is_locked(cluster)

    def test_nobody_releases_what_is_anothers(self, cluster):
        acquire(cluster, "a", 1)
        acquire(cluster, "b", 2)
        release(cluster, "b", 1)
        release(cluster, "c", 2)
        assert is_locked(cluster)
        assert answer(cluster, "b", 2) is None

    def test_a_client_that_leaves_lets_go_of_all_it_has_and_waits_for(self, cluster):
        acquire(cluster, "a", 1)
        acquire(cluster, "a", 2)
        acquire(cluster, "b", 3)
        acquire(cluster, "a", 4, "y")
        acquire(cluster, "c", 5, "y")
        cluster.remove_client("a")
        assert granted(cluster)[-2:] == [("b", 3), ("c", 5)]
        assert set(cluster.state.waits) == set()

    def test_a_number_that_is_in_use_is_refused(self, cluster):
        acquire(cluster, "a", 1)
        cluster.request("a", 2, ACQUIRE_LOCKS(names=("y",), lease=1))
        assert answer(cluster, "a", 2)[0] == "ProtocolError"
        assert not is_locked(cluster, "y")

    def test_there_may_be_so_many(self, cluster, monkeypatch):
        monkeypatch.setattr(leases_module, "MAX_LEASES", 2)
        acquire(cluster, "a", 1)
        acquire(cluster, "b", 2, "y")
        error, text = acquire(cluster, "c", 3, "z")
        assert (error, text) == ("RuntimeError", "2 locks are held or waited for, and no more may be: release some")
        release(cluster, "a", 1)
        assert acquire(cluster, "c", 4, "z")


class TestSeveralLocks:
    def test_all_of_them_or_none(self, cluster):
        acquire(cluster, "a", 1, "y")
        assert acquire(cluster, "b", 2, "x", "y") is None
        assert acquire(cluster, "c", 3, "x", timeout=0.0) is False, "the one that came first would wait for ever"
        release(cluster, "a", 1)
        assert granted(cluster) == [("a", 1), ("b", 2)]
        release(cluster, "b", 2)
        assert acquire(cluster, "c", 4, "x")
        assert acquire(cluster, "a", 5, "y")

    @pytest.mark.parametrize("names", [("x", "y"), ("y", "x")])
    def test_two_that_want_the_same_do_not_wait_for_each_other(self, cluster, names):
        acquire(cluster, "a", 1, "x")
        acquire(cluster, "a", 2, "y")
        assert acquire(cluster, "b", 3, "x", "y") is None
        assert acquire(cluster, "c", 4, *names) is None
        release(cluster, "a", 2)
        release(cluster, "a", 1)
        assert granted(cluster)[2:] == [("b", 3)]
        release(cluster, "b", 3)
        assert granted(cluster)[3:] == [("c", 4)]

    def test_so_many_of_them(self, cluster):
        acquire(cluster, "a", 1, "x")
        assert acquire(cluster, "b", 2, "x", "y", "z", count=2)
        assert acquire(cluster, "c", 3, "z", timeout=0.0) is False
        assert acquire(cluster, "c", 4, "x", "y", "z", count=1) is None
        release(cluster, "a", 1)
        assert answer(cluster, "c", 4)
        release(cluster, "b", 2)
        assert acquire(cluster, "a", 5, "y", "z")

    def test_one_that_is_given_up_leaves_what_it_had(self, cluster):
        acquire(cluster, "a", 1, "y")
        acquire(cluster, "b", 2, "x", "y")
        acquire(cluster, "c", 3, "x")
        release(cluster, "b", 2)
        assert answer(cluster, "c", 3)

    def test_what_can_not_be_is_refused(self, cluster):
        for number, (names, count) in enumerate([((), None), (("x",), 2), (("x", "x"), None)], 1):
            cluster.request("a", number, ACQUIRE_LOCKS(names=names, lease=number, count=count))
            assert answer(cluster, "a", number)[0] == "ValueError"
        assert not locks_of(cluster).lines


def again(cluster, now=0.0):
    """Another scheduler takes the place of this one, whose clock says something else."""
    cluster.restart(now=now)
    cluster.replies = []
    return cluster


def test_another_scheduler_goes_on_with_them(cluster):
    acquire(cluster, "a", 1, ("x", 1))
    acquire(cluster, "c", 2, ("x", 1))
    acquire(cluster, "a", 3, ("x", 1), timeout=5.0)
    acquire(cluster, "b", 4, ("x", 1), "y")
    other = again(cluster)
    other.handle(events.TimePassed())
    assert other.state.next_deadline == 5.0
    for client, number in [("a", 1), ("c", 2), ("a", 3)]:
        release(other, client, number)
    assert granted(other) == [("c", 2), ("a", 3), ("b", 4)]


class TestSemaphoresThatAreTakenUpAgain:
    @pytest.fixture
    def other(self, cluster):
        """Two of three have a lease, two wait, one of them for another 5 s; and a semaphore that nobody uses."""
        cluster.request("a", 1, OPEN_SEMAPHORE(name="unused", max_leases=3))
        for number, (client, timeout) in enumerate([("a", None), ("b", None), ("c", 7.0), ("a", None)], 2):
            lease = ACQUIRE_SEMAPHORE(name=("s", 1), lease=number, max_leases=2, timeout=timeout)
            cluster.request(client, number, lease)
        pass_time(cluster, 2.0)
        other = again(cluster, now=100.0)
        pass_time(other, 100.0)
        return other

    def value(self, cluster, name=("s", 1)):
        number = cluster.new_number() + 1000
        cluster.request("a", number, SEMAPHORE_VALUE(name=name))
        return answer(cluster, "a", number)

    def test_the_leases_are_counted(self, other):
        assert self.value(other) == 2
        assert self.value(other, "unused") == 0
        other.request("a", 10, ACQUIRE_SEMAPHORE(name=("s", 1), lease=10, timeout=0.0))
        assert answer(other, "a", 10) is False

    def test_each_has_as_many_as_it_had(self, other):
        for number, (name, size) in enumerate([("unused", 3), (("s", 1), 2)], 10):
            other.request("b", number, OPEN_SEMAPHORE(name=name, max_leases=size))
            assert other.answer_of("b", number).ok
            other.request("b", number + 10, OPEN_SEMAPHORE(name=name, max_leases=9))
            assert answer(other, "b", number + 10)[0] == "ValueError"

    def test_those_that_wait_come_in_their_order(self, other):
        for client, number in [("b", 3), ("a", 2)]:
            other.tell(client, RELEASE_SEMAPHORE(lease=number))
        assert granted(other) == [("c", 4), ("a", 5)]

    def test_a_wait_has_the_time_that_was_left(self, other):
        assert other.state.next_deadline == 105.0
        pass_time(other, 104.9)
        assert answer(other, "c", 4) is None
        pass_time(other, 105.0)
        assert answer(other, "c", 4) is False
        assert answer(other, "a", 5) is None

    def test_with_its_client_a_lease_goes(self, other):
        other.remove_client("b")
        assert answer(other, "c", 4) is True

    def test_closing_tells_those_that_wait(self, other):
        other.request("a", 10, CLOSE_SEMAPHORE(name=("s", 1)))
        assert answer(other, "a", 10) == 2
        assert answer(other, "c", 4)[0] == "RuntimeError"

    def test_it_is_written_as_before(self, other):
        before = other.tables().entries
        assert {"semaphores"} <= before.keys()
        assert again(other, now=0.0).tables().entries == before


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_nobody_waits_for_what_is_free_and_all_get_on_in_the_end(seed):
    chance = random.Random(seed)
    cluster = Journalled()
    for client in "abc":
        cluster.add_client(client)
    asked = {}
    for number in range(1, 150):
        step = chance.random()
        if step < 0.55:
            client = chance.choice("abc")
            names = chance.sample("uvwxyz", chance.randrange(1, 4))
            count = chance.choice([None, 1, len(names)])
            acquire(cluster, client, number, *names, count=count, timeout=chance.choice([None, 0.0, 1.0]))
            asked[number] = client
        elif step < 0.9 and asked:
            released = chance.choice(list(asked))
            release(cluster, asked.pop(released), released)
        elif step < 0.95:
            pass_time(cluster, cluster.now + 0.5)
        else:
            client = chance.choice("abc")
            cluster.remove_client(client)
            cluster.add_client(client)
            asked = {number: of for number, of in asked.items() if of != client}
        if chance.random() < 0.05:
            replies, now = cluster.replies, cluster.now
            cluster = again(cluster)
            cluster.replies, cluster.now = replies, now
    for _ in range(len(asked)):
        for client, number in [key for key in granted(cluster) if asked.get(key[1]) == key[0]]:
            release(cluster, client, number)
            del asked[number]
    waiting = [number for number, client in asked.items() if (client, number) in cluster.open]
    assert waiting == []
    assert len(cluster.state.waits) == 0
