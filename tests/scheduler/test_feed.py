"""The feed of what happens: batches, limits, ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref

import pytest
from replay import Replay, peers_of, states_of
from scheduler_harness import Cluster
from scheduler_peers import WORKER, Setup

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.feed import SUBSCRIBER_LIMIT, Feed, Joined, Left, Move, Submitted, TopicEvent
from holdfast.cluster.scheduler.watching import feed_log


@pytest.fixture
def cluster():
    cluster = Cluster(hosts=1, workers=1)
    cluster.add_client()
    return cluster


def changes_of(subscription):
    changes = [change for batch in subscription.take().batches for change in batch.changes]
    return [change for change in changes if not isinstance(change, TopicEvent)]


def test_what_one_event_brings_about_is_one_batch_with_its_time(cluster):
    subscription = cluster.state.feed.subscribe()
    cluster.now = 7.0
    cluster.submit("client", {("inc", 1): ()})
    cluster.now = 8.0
    cluster.finish(("inc", 1))
    worker = next(iter(cluster.state.workers))
    assert subscription.take() == (
        0,
        [
            (
                7.0,
                (
                    Submitted("client", None, [(("inc", 1), ())], {}),
                    Move(("inc", 1), None, "released", "", "inc"),
                    Move(("inc", 1), "released", "ready", "", "inc"),
                    Move(("inc", 1), "ready", "processing", worker, "inc"),
                ),
            ),
            (8.0, (Move(("inc", 1), "processing", "memory", "tcp://host0:1", "inc"),)),
        ],
    )
    assert subscription.take() == (0, [])


def test_it_tells_of_peers_that_come_and_go(cluster):
    subscription = cluster.state.feed.subscribe()
    cluster.add_host()
    worker = cluster.add_worker("tcp://host1:1")
    cluster.add_client("other")
    cluster.remove_client("other")
    cluster.remove_worker(worker)
    cluster.remove_host("tcp://host1:1")
    name = worker.rpartition(":")[2]
    assert changes_of(subscription) == [
        Joined("host", "tcp://host1:1", "host1"),
        Joined("worker", worker, name),
        Joined("client", "other", "other"),
        Left("client", "other", ""),
        Left("worker", worker, "killed by signal 9"),
        Left("host", "tcp://host1:1", "killed"),
    ]


def test_what_an_event_has_changed_before_it_was_refused_is_told(cluster):
    replay = Replay(cluster.state)
    tasks = [("x", None, b"", ()), ("y", b"unknown" * 2, b"", ())]
    with pytest.raises(ProtocolError):
        cluster.handle(events.TasksSubmitted("client", tasks, None, {}))
    replay.catch_up()
    assert +replay.tasks == states_of(cluster.state)


def test_a_listener_is_woken_once_until_it_takes(cluster):
    woken = []
    subscription = cluster.state.feed.subscribe(lambda: woken.append(1))
    assert not woken
    cluster.submit("client", {"x": ()})
    cluster.finish("x")
    assert len(woken) == 1
    subscription.take()
    cluster.release("client", "x")
    assert len(woken) == 2


def test_a_slow_listener_keeps_what_came_last_and_knows_how_much_it_has_missed(cluster):
    woken = []
    slow = cluster.state.feed.subscribe(lambda: woken.append(1), limit=6)
    fast = Replay(cluster.state)
    for number in range(10):
        cluster.submit("client", {number: ()})  # appears, is ready, runs
        cluster.finish(number)
        fast.catch_up()
    missed, batches = slow.take()
    assert (missed, [len(batch.changes) for batch in batches]) == (45, [4, 1])
    assert batches[-1].changes[0].key == 9
    assert len(woken) == 1
    assert (fast.missed, +fast.tasks) == (0, states_of(cluster.state))
    assert slow.take() == (0, [])


def test_a_batch_that_is_larger_than_the_limit_is_missed(cluster):
    woken = []
    subscription = cluster.state.feed.subscribe(lambda: woken.append(1), limit=2)
    cluster.submit("client", {"x": ()})
    assert len(woken) == 1
    assert subscription.take() == (4, [])


def test_a_listener_that_comes_later_begins_with_how_things_stand(cluster):
    cluster.submit("client", {"x": (), "y": ["x"]})
    late = Replay(cluster.state)
    cluster.run_all()
    cluster.release("client", "x")
    late.catch_up()
    assert +late.tasks == states_of(cluster.state)
    assert late.peers == peers_of(cluster.state)


def test_nothing_is_kept_when_nobody_listens_any_more(cluster):
    feed = cluster.state.feed

    def wake():
        pass

    one, two = feed.subscribe(wake), feed.subscribe()
    cluster.submit("client", {"x": ()})
    feed.unsubscribe(one)
    assert feed.is_heard
    cluster.finish("x")
    assert len(changes_of(two)) == 5
    feed.unsubscribe(two)
    assert not feed.is_heard
    cluster.release("client", "x")
    listener = weakref.ref(wake)
    del wake, one, two
    gc.collect()
    assert listener() is None
    assert not changes_of(feed.subscribe())


def test_a_scheduler_that_logs_everything_logs_each_move(caplog):
    caplog.set_level(logging.DEBUG, feed_log.logger.name)

    async def scenario():
        async with Setup() as setup:
            setup.submit("x")
            await setup.worker.next("run")
            assert setup.scheduler.state.feed.is_heard
        assert not setup.scheduler.state.feed.is_heard

    asyncio.run(scenario())
    lines = [record.getMessage() for record in caplog.records if record.name == feed_log.logger.name]
    assert f"worker {WORKER} (here-0) has joined" in lines
    assert [line for line in lines if line.startswith("'x'")][:3] == [
        "'x' nothing → released",
        "'x' released → ready",
        f"'x' ready → processing at {WORKER}",
    ]


def test_a_scheduler_that_does_not_log_everything_listens_to_nothing(caplog):
    caplog.set_level(logging.INFO, feed_log.logger.name)

    async def scenario():
        async with Setup() as setup:
            assert not setup.scheduler.state.feed.is_heard

    asyncio.run(scenario())


def test_what_a_log_has_missed_stands_in_it(caplog):
    caplog.set_level(logging.DEBUG, feed_log.logger.name)
    feed = Feed()
    calls = []
    log = feed_log.FeedLog(feed, calls.append)
    for number in range(SUBSCRIBER_LIMIT + 1):
        feed.tell(Joined("client", str(number), "me"))
    feed.publish(0.0)
    (write,) = calls
    write()
    assert caplog.messages == [
        f"{SUBSCRIBER_LIMIT + 1} changes are missing here: they came faster than they were logged"
    ]
    log.close()
    assert not feed.is_heard
