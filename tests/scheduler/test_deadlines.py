"""One heap of deadlines: what is due comes in order, what has moved is found, what has ended leaves nothing behind."""

from __future__ import annotations

import random

import pytest

from holdfast.cluster.scheduler.tasks import deadlines as module
from holdfast.cluster.scheduler.tasks.deadlines import Deadlines, Timed


class Thing(Timed):
    """Something that notes when it expires, and is due again after a while, if at all."""

    def __init__(self, log, due=None, *, again=None):
        super().__init__()
        self.log = log
        self.moment = due
        self.again = again

    @property
    def due(self):
        return self.moment

    def expire(self, now):
        self.log.append(self)
        self.moment = None if self.again is None else now + self.again


@pytest.fixture
def log():
    return []


def watched(deadlines, things):
    for thing in things:
        deadlines.watch(thing)
    return things


def test_nothing_is_due_where_nothing_is_waited_for(log):
    deadlines = Deadlines()
    deadlines.watch(Thing(log))
    assert deadlines.next is None
    deadlines.expire(1e9)
    assert log == []


def test_what_is_due_expires_in_the_order_of_deadlines_and_equal_ones_as_they_came(log):
    deadlines = Deadlines()
    late, first, second, early = watched(deadlines, [Thing(log, due) for due in (3.0, 2.0, 2.0, 1.0)])
    assert deadlines.next == 1.0
    deadlines.expire(2.0)
    assert log == [early, first, second]
    assert deadlines.next == 3.0
    deadlines.expire(3.0)
    assert log[-1] is late
    assert deadlines.next is None


def test_a_deadline_that_moves_to_a_later_time_or_goes_away_needs_no_call(log):
    deadlines = Deadlines()
    moved, gone, kept = watched(deadlines, [Thing(log, 1.0), Thing(log, 2.0), Thing(log, 3.0)])
    moved.moment = 5.0
    gone.moment = None
    assert deadlines.next == 3.0
    deadlines.expire(4.0)
    assert log == [kept]
    assert deadlines.next == 5.0


def test_a_deadline_that_moves_to_an_earlier_time_is_watched_anew(log):
    deadlines = Deadlines()
    (thing,) = watched(deadlines, [Thing(log, 5.0)])
    thing.moment = 1.0
    deadlines.watch(thing)
    assert deadlines.next == 1.0
    deadlines.expire(10.0)
    assert log == [thing], "only once"
    assert deadlines.next is None


def test_what_is_due_again_expires_once_each_time(log):
    deadlines = Deadlines()
    (thing,) = watched(deadlines, [Thing(log, 1.0, again=0.0)])
    deadlines.expire(1.0)
    assert log == [thing]
    assert deadlines.next == 1.0
    deadlines.expire(1.0)
    assert log == [thing, thing]


def test_one_that_ends_another_one_keeps_it_from_expiring(log):
    deadlines = Deadlines()
    (other,) = watched(deadlines, [Thing(log, 2.0)])

    class Ender(Thing):
        def expire(self, now):
            super().expire(now)
            other.moment = None
            deadlines.forget(other)

    (ender,) = watched(deadlines, [Ender(log, 1.0)])
    deadlines.expire(3.0)
    assert log == [ender]


def test_a_failure_of_one_leaves_all_of_them_to_be_tried_again(log):
    deadlines = Deadlines()

    class Failing(Thing):
        def expire(self, now):
            raise KeyError("a fault of our own")

    failing, after = watched(deadlines, [Failing(log, 1.0), Thing(log, 2.0)])
    with pytest.raises(KeyError):
        deadlines.expire(2.0)
    assert deadlines.next == 1.0
    failing.moment = None
    deadlines.expire(2.0)
    assert log == [after]


def test_what_has_ended_leaves_no_entries_behind(log, monkeypatch):
    monkeypatch.setattr(module, "_MIN_STALE", 8)
    deadlines = Deadlines()
    kept = watched(deadlines, [Thing(log, 1e6 + number) for number in range(10)])
    for number in range(10_000):
        thing = Thing(log, 1e3 + number)
        deadlines.watch(thing)
        thing.moment = None
        deadlines.forget(thing)
        assert len(deadlines) == 10
        assert len(deadlines._heap) <= 30
    deadlines.check(kept)
    deadlines.expire(1e7)
    assert log == kept


@pytest.mark.parametrize("seed", range(20))
def test_any_history_expires_what_a_list_would_have_expired(seed, log):
    chance = random.Random(seed)
    deadlines = Deadlines()
    now = 0.0
    alive = []
    for _ in range(1_000):
        action = chance.random()
        if action < 0.5 or not alive:
            thing = Thing(log, now + chance.choice([0.0, 1.0, 1.0, 5.0, 100.0]))
            deadlines.watch(thing)
            alive.append(thing)
        elif action < 0.7:
            thing = alive.pop(chance.randrange(len(alive)))
            thing.moment = None
            deadlines.forget(thing)
        elif action < 0.8:
            thing = chance.choice(alive)
            thing.moment = now + chance.choice([0.0, 2.0, 50.0])
            deadlines.watch(thing)
        else:
            now += chance.choice([0.5, 1.0, 3.0])
            due = [thing for thing in alive if thing.moment <= now]
            expected = sorted({thing.moment for thing in due})
            moments = {thing: thing.moment for thing in due}
            del log[:]
            deadlines.expire(now)
            assert set(log) == set(due)
            assert len(log) == len(due)
            assert sorted(moments[thing] for thing in log) == [moments[thing] for thing in log]
            assert sorted({moments[thing] for thing in log}) == expected
            alive = [thing for thing in alive if thing not in moments]
        assert deadlines.next == min((thing.moment for thing in alive), default=None)
        deadlines.check(alive)
