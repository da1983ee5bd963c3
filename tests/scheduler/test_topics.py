"""Events by topic: what is kept, which subscribers are told, and what a slow subscriber costs and misses."""

from __future__ import annotations

import random

import pytest
from scheduler_harness import Cluster

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol import requests
from holdfast.cluster.protocol.limits import MAX_TOPICS
from holdfast.cluster.protocol.records import record_of, value_of
from holdfast.cluster.scheduler.parts import metadata, topics
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.instructions import TellEvents


class Hearing(Cluster):
    """A cluster that notes what clients are told of topics."""

    def __init__(self, *args, **options):
        self.told = []
        super().__init__(*args, **options)

    def _apply(self, instruction):
        if isinstance(instruction, TellEvents):
            self.told.append(instruction)
        super()._apply(instruction)

    def ask(self, asked, client="client"):
        number = self.new_number()
        self.request(client, number, asked)
        return self.answer_of(client, number)

    def log(self, topic, *values, client="client"):
        for value in values:
            assert self.ask(requests.LOG_EVENT(topics=[topic], record=record_of(value)), client).ok

    def subscribe(self, topic, client="client"):
        return self.ask(requests.SUBSCRIBE(topic=topic), client)

    def hear(self):
        """All clients have handled what they were told; what that was, by client."""
        told, self.told = self.told, []
        heard = {}
        for each in told:
            heard.setdefault(each.peer, []).extend(value_of(record) for _, record in each.events)
            self.handle(events.EventsHeard(each.peer, each.topic, each.number))
        return heard

    def kept(self, topic):
        part = self.state.topics
        return [value_of(event.record) for some in part.kept_of(topic) for event in some]


@pytest.fixture
def cluster():
    cluster = Hearing()
    cluster.add_client()
    return cluster


def test_a_subscriber_is_told_what_is_logged_from_then_on(cluster):
    cluster.log("t", 0)
    assert cluster.subscribe("t").ok
    cluster.log("t", 1)
    cluster.log("other", 2)
    assert cluster.hear() == {"client": [1]}
    assert cluster.kept("t") == [0, 1]


def test_one_message_is_under_way_and_the_next_has_all_that_came_meanwhile(cluster):
    cluster.subscribe("t")
    cluster.log("t", *range(10))
    assert [len(each.events) for each in cluster.told] == [1]
    assert cluster.hear() == {"client": [0]}
    assert [len(each.events) for each in cluster.told] == [9]
    assert cluster.hear() == {"client": list(range(1, 10))}
    assert cluster.told == []


def test_a_message_has_a_limited_number_of_events_and_of_bytes(cluster):
    cluster.subscribe("t")
    cluster.log("t", *range(topics.MAX_TOLD + 5))
    cluster.hear()
    assert len(cluster.told[0].events) == topics.MAX_TOLD
    while cluster.told:
        cluster.hear()
    cluster.log("t", *["x" * (topics.MAX_TOLD_NBYTES // 3)] * 5, "x" * 2 * topics.MAX_TOLD_NBYTES)
    sizes = []
    while cluster.told:
        sizes.append(len(cluster.told[0].events))
        cluster.hear()
    assert sizes == [1, 2, 2, 1]


def test_one_that_handles_nothing_misses_what_is_not_kept_and_is_told_how_much():
    cluster = Hearing(events_kept=10)
    cluster.add_client()
    cluster.subscribe("t")
    cluster.log("t", *range(100))
    assert len(cluster.state.topics.topics["t"].events) == 10
    assert cluster.hear() == {"client": [0]}
    (told,) = cluster.told
    assert told.missed == 89
    assert cluster.hear() == {"client": list(range(90, 100))}
    cluster.log("t", "more")
    assert cluster.told[0].missed == 0


def test_all_topics_together_keep_a_limited_number_of_bytes(cluster, monkeypatch):
    monkeypatch.setattr(topics, "MAX_NBYTES", 100_000)
    cluster.log("small", "keep")
    cluster.log("large", *["x" * 10_000] * 50)
    assert cluster.state.topics.nbytes <= 100_000
    assert cluster.kept("small") == ["keep"]
    assert 0 < len(cluster.kept("large")) < 10


def test_of_too_many_topics_the_one_goes_that_was_silent_for_longest(cluster, monkeypatch):
    monkeypatch.setattr(topics, "MAX_TOPICS", 5)
    cluster.subscribe("watched")
    cluster.log("watched", 0)
    for name in "abcdefgh":
        cluster.log(name, 1)
    assert "watched" in cluster.state.topics.topics
    assert [name for name in "abcdefgh" if cluster.kept(name)] == ["e", "f", "g", "h"]
    for name in "efgh":
        assert cluster.subscribe(name).ok
    assert cluster.subscribe("one more").value[0] == "ValueError"
    assert MAX_TOPICS > 5


def test_who_has_left_or_unsubscribed_is_told_nothing(cluster):
    cluster.add_client("other")
    for client in ("client", "other"):
        cluster.subscribe("t", client)
    assert cluster.ask(requests.UNSUBSCRIBE(topic="t")).ok
    assert cluster.ask(requests.UNSUBSCRIBE(topic="t")).ok
    cluster.log("t", 1)
    assert {each.peer for each in cluster.told} == {"other"}
    cluster.remove_client("other")
    cluster.handle(events.EventsHeard("other", "t", 1))
    cluster.handle(events.EventsHeard("client", "never was", 1))
    cluster.told.clear()
    cluster.log("t", 2)
    assert cluster.told == []


def test_a_client_has_a_limited_number_of_subscriptions(cluster, monkeypatch):
    monkeypatch.setattr(topics, "MAX_SUBSCRIPTIONS", 3)
    answers = [cluster.subscribe(name) for name in "abca"]
    assert [answer.ok for answer in answers] == [True] * 4
    assert "unsubscribe some" in cluster.subscribe("d").value[1]


def test_a_peer_that_comes_or_goes_is_logged_under_all_and_under_its_own_name():
    cluster = Hearing(hosts=1, workers=1)
    cluster.add_client("c")
    (worker,) = cluster.state.workers
    cluster.remove_worker(worker)
    cluster.remove_host("tcp://host0:1")
    cluster.remove_client("c")
    actions = [event["action"] for event in cluster.kept("all")]
    assert actions == ["add-host", "add-worker", "add-client", "remove-worker", "remove-host", "remove-client"]
    assert [event["action"] for event in cluster.kept(worker)] == ["add-worker", "remove-worker"]


def test_what_is_no_record_is_refused_and_logged_nowhere(cluster):
    bad = ((("a",), 1), (("a", "b"), 2))
    for record in (bad, (), ((("a",), 1), (("a",), 2)), (((), 1), (("a",), 2))):
        assert cluster.ask(requests.LOG_EVENT(topics=["t"], record=record)).value[0] == "ProtocolError"
        assert cluster.ask(requests.SET_METADATA(path=["k"], record=record)).value[0] == "ProtocolError"
        with pytest.raises(ProtocolError):
            cluster.handle(events.EventLogged("worker", ["t"], record))
    assert cluster.kept("t") == []


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_a_subscriber_hears_all_that_it_has_not_missed_in_order(seed):
    chance = random.Random(seed)
    cluster = Hearing(events_kept=chance.choice((3, 20, 1000)))
    cluster.add_client()
    cluster.add_client("logger")
    cluster.subscribe("t")
    logged, heard, missed = 0, [], 0
    for _ in range(300):
        if chance.random() < 0.6:
            cluster.log("t", logged, client="logger")
            logged += 1
        elif cluster.told:
            missed += cluster.told[0].missed
            heard += cluster.hear()["client"]
    while cluster.told:
        missed += cluster.told[0].missed
        heard += cluster.hear()["client"]
    assert heard == sorted(heard)
    assert len(heard) + missed == logged


def test_metadata_is_read_in_steps_and_what_replaces_it_counts_alone(cluster):
    wide = dict.fromkeys(range(5_000), "v")
    for _ in range(10):
        assert cluster.ask(requests.SET_METADATA(path=["wide"], record=record_of(wide))).ok
    assert cluster.state.metadata.size.leaves == 5_000
    for part in range(3):
        assert cluster.ask(requests.SET_METADATA(path=["more", part], record=record_of(wide))).ok
    assert "there may be" in cluster.ask(requests.SET_METADATA(path=["x"], record=record_of(1))).value[1]
    assert cluster.state.metadata.size.leaves == metadata.MAX_LEAVES


def test_metadata_on_the_way_to_what_is_set_gives_place_to_it(cluster):
    def put(*path, value):
        assert cluster.ask(requests.SET_METADATA(path=list(path), record=record_of(value))).ok
        assert cluster.state.metadata.size == metadata.Size.of(cluster.state.metadata.below(()))

    for before in (123, {}, "x" * 1000):
        put("x", value=before)
        put("x", "y", value=1)
        put("x", "w", "z", value=2)
        put("x", "y", "below", value={"a": {}, "b": 3})
        assert dict(cluster.state.metadata.below(("x",))) == {
            ("x", "y", "below", "a"): (),
            ("x", "y", "below", "b"): 3,
            ("x", "w", "z"): 2,
        }
