"""Topics: events that clients, tasks and the scheduler itself log, kept for a while, and told to whom it concerns.

A topic keeps its last `kept` events. All topics together keep `MAX_NBYTES`: what is older than that goes first from the
topic that has most. If there are too many topics, the one goes that has been silent for longest and has no subscriber.

A client that is *subscribed* to a topic is told of each event. At most one message of it is under way for each topic:
the next one goes when the client has said that it has handled the one before, and has all that was logged meanwhile. So
events that come fast travel together, and a slow client costs the scheduler nothing: what the client has not got lies
in the topic. What a topic does not keep for so long, the client has missed, and is told how much that is.

The times of events are for people: they come from the clock of the machine (`wall_time`), by which nothing is decided.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from holdfast.cluster.protocol.limits import MAX_TOPICS
from holdfast.cluster.protocol.records import Record, nbytes_of, record_of, tree_of
from holdfast.cluster.protocol.requests import LOG_EVENT, SUBSCRIBE, UNSUBSCRIBE
from holdfast.cluster.scheduler.parts.metadata import tree_or_refusal
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.waits import Refusal
from holdfast.cluster.scheduler.tasks import events, feed
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.instructions import TellEvents
from holdfast.cluster.scheduler.tasks.model import Host, Worker

#: How many events each topic keeps, if nothing else was said.
KEPT = 100_000
#: What may be said: more of them would be too much memory in any case.
MOST_KEPT = 10_000_000
#: How much all of them keep.
MAX_NBYTES = 64 << 20
#: Of an event beside its leaves.
EVENT_NBYTES = 200
#: A message tells of so many events, or of fewer if these take so much.
MAX_TOLD = 500
MAX_TOLD_NBYTES = 256 << 10
#: How many subscriptions a client has at most.
MAX_SUBSCRIPTIONS = 1_000
#: The topic of all that the scheduler logs itself.
ALL = "all"


class Logged(NamedTuple):
    """An event: when it was logged, what it is, and about how much memory it takes."""

    at: float
    record: Record
    nbytes: int


class Subscription:
    """A client that is told of a topic.

    Attributes
    ----------
    told
        The number up to which it was told, or has missed what there was.
    heard
        The number up to which it has said that it has handled what it was told.
    """

    __slots__ = ("heard", "told")

    def __init__(self, number: int) -> None:
        self.told = self.heard = number


class Topic:
    """The events of one topic that are kept: those of the numbers ``first`` to ``next`` - 1."""

    __slots__ = ("events", "first", "nbytes", "next", "subscriptions")

    def __init__(self) -> None:
        self.events: dict[int, Logged] = {}
        self.first = self.next = 1
        self.nbytes = 0
        self.subscriptions: dict[str, Subscription] = {}  # by the client

    def add(self, event: Logged) -> None:
        self.events[self.next] = event
        self.next += 1
        self.nbytes += event.nbytes

    def drop_oldest(self) -> int:
        """Forget the oldest event; how much it took."""
        event = self.events.pop(self.first)
        self.first += 1
        self.nbytes -= event.nbytes
        return event.nbytes

    def part(self, number: int) -> tuple[int, list[Logged]]:
        """What follows the event of this number, as much as one message takes, and the number of the last of it."""
        found: list[Logged] = []
        nbytes = 0
        number = max(number, self.first - 1)
        while number + 1 < self.next and len(found) < MAX_TOLD:
            event = self.events[number + 1]
            nbytes += event.nbytes
            if found and nbytes > MAX_TOLD_NBYTES:
                break
            found.append(event)
            number += 1
        return number, found


class Topics(Part):
    """Keeps events, and tells them.

    Parameters
    ----------
    shared
        What all parts work with.
    kept
        How many events each topic keeps.
    wall_time
        Gives the time of events: seconds since 1970.
    """

    name = "topics"

    def __init__(self, shared: Shared, *, kept: int = KEPT, wall_time: Callable[[], float] | None = None) -> None:
        super().__init__(shared)
        self.events = {events.EventLogged: self._logged, events.EventsHeard: self._heard}
        self.requests = {LOG_EVENT: self._log, SUBSCRIBE: self._subscribe, UNSUBSCRIBE: self._unsubscribe}
        self.topics: OrderedDict[str, Topic] = OrderedDict()  # the one that was silent for longest first
        self.nbytes = 0  # of all events
        self._kept = kept
        self._wall_time = wall_time or (lambda: shared.now)
        self._subscribed: dict[str, dict[str, None]] = {}  # the topics, by the client

    # -- events

    def log(self, topics: Sequence[str], record: Record) -> None:
        """Add an event to topics."""
        event = Logged(self._wall_time(), record, EVENT_NBYTES + nbytes_of(record))
        if self.shared.feed.is_heard:
            self.shared.feed.tell(feed.TopicEvent(tuple(dict.fromkeys(topics)), record, event.nbytes))
        for name in dict.fromkeys(topics):
            topic = self._topic(name)
            topic.add(event)
            self.nbytes += event.nbytes
            if topic.next - topic.first > self._kept:
                self.nbytes -= topic.drop_oldest()
            if self.nbytes > MAX_NBYTES:
                self._make_room()
            for client, subscription in topic.subscriptions.items():
                self._tell(client, name, topic, subscription)

    def _make_room(self) -> None:
        """Forget the older half of the largest topic, until there is not too much."""
        while self.nbytes > MAX_NBYTES:
            name, topic = max(self.topics.items(), key=_nbytes)
            for _ in range((len(topic.events) + 1) // 2):
                self.nbytes -= topic.drop_oldest()
            if not topic.events and not topic.subscriptions:
                del self.topics[name]

    def _topic(self, name: str) -> Topic:
        topic = self.topics.get(name)
        if topic is not None:
            self.topics.move_to_end(name)
            return topic
        if len(self.topics) >= MAX_TOPICS:
            silent = next((each for each, topic in self.topics.items() if not topic.subscriptions), None)
            if silent is not None:
                self.nbytes -= self.topics.pop(silent).nbytes
        topic = self.topics[name] = Topic()
        return topic

    def _logged(self, event: events.EventLogged) -> None:
        tree_of(event.record)  # else no client could read it
        self.log(event.topics, event.record)

    def _log(self, client: Client, request: int, topics: tuple[str, ...], record: Record) -> None:
        tree_or_refusal(record)
        self.log(topics, record)
        self.answer(client, request, None)

    # -- subscriptions

    def _subscribe(self, client: Client, request: int, topic: str) -> None:
        subscribed = self._subscribed.get(client.id, {})
        if topic not in subscribed and len(subscribed) >= MAX_SUBSCRIPTIONS:
            raise Refusal("ValueError", f"this client is subscribed to {MAX_SUBSCRIPTIONS:,} topics: unsubscribe some")
        if topic not in self.topics and len(self.topics) >= MAX_TOPICS and not self._has_silent():
            raise Refusal("ValueError", f"{MAX_TOPICS:,} topics have subscribers, and there may be no more")
        found = self._topic(topic)
        found.subscriptions.setdefault(client.id, Subscription(found.next - 1))
        self._subscribed.setdefault(client.id, subscribed)[topic] = None
        self.answer(client, request, None)

    def _has_silent(self) -> bool:
        return any(not topic.subscriptions for topic in self.topics.values())

    def _unsubscribe(self, client: Client, request: int, topic: str) -> None:
        subscribed = self._subscribed.get(client.id, {})
        if topic in subscribed:
            del subscribed[topic]
            self._leave(client.id, topic)
        if not subscribed:
            self._subscribed.pop(client.id, None)
        self.answer(client, request, None)

    def _leave(self, client: str, topic: str) -> None:
        found = self.topics[topic]
        del found.subscriptions[client]
        if not found.events and not found.subscriptions:
            del self.topics[topic]

    def _heard(self, event: events.EventsHeard) -> None:
        topic = self.topics.get(event.topic)
        subscription = None if topic is None else topic.subscriptions.get(event.client)
        if topic is None or subscription is None:
            return  # it is subscribed no longer
        subscription.heard = min(max(subscription.heard, event.number), subscription.told)
        self._tell(event.client, event.topic, topic, subscription)

    def _tell(self, client: str, name: str, topic: Topic, subscription: Subscription) -> None:
        """Tell a client what it has not been told yet, unless something is under way to it."""
        before = subscription.told
        if subscription.heard < before or before + 1 >= topic.next:
            return
        number, found = topic.part(before)
        subscription.told = number
        missed = number - before - len(found)
        told = [(event.at, event.record) for event in found]
        self.shared.instructions.put(TellEvents(client, name, number, missed, told))

    # -- what happens to others

    def client_joined(self, client: Client) -> None:
        self._note(client.id, {"action": "add-client", "client": client.id, "name": client.name})

    def client_left(self, client: Client) -> None:
        for topic in self._subscribed.pop(client.id, {}):
            self._leave(client.id, topic)
        self._note(client.id, {"action": "remove-client", "client": client.id, "name": client.name})

    def worker_joined(self, worker: Worker) -> None:
        self._note(worker.address, {"action": "add-worker", "worker": worker.address, "name": worker.name})

    def worker_left(self, worker: Worker) -> None:
        self._note(worker.address, {"action": "remove-worker", "worker": worker.address, "name": worker.name})

    def host_joined(self, host: Host) -> None:
        self._note(host.address, {"action": "add-host", "host": host.address})

    def host_left(self, host: Host) -> None:
        self._note(host.address, {"action": "remove-host", "host": host.address})

    def _note(self, peer: str, what: dict[str, Any]) -> None:
        self.log((ALL, peer), record_of(what))

    # -- the rest

    def kept_of(self, name: str) -> Iterator[list[Logged]]:
        """The events of a topic, some at a time; what is logged meanwhile may be among them."""
        topic = self.topics.get(name)
        number = 0
        while topic is not None:
            number, found = topic.part(number)
            if not found:
                return
            yield found

    def check(self) -> None:
        assert self.nbytes == sum(topic.nbytes for topic in self.topics.values())
        assert self.nbytes <= MAX_NBYTES
        subscribed: dict[str, set[str]] = {}
        for name, topic in self.topics.items():
            assert list(topic.events) == list(range(topic.first, topic.next))
            assert len(topic.events) <= self._kept
            assert topic.nbytes == sum(event.nbytes for event in topic.events.values())
            assert topic.events or topic.subscriptions, f"nobody needs the topic {name!r}"
            for client, subscription in topic.subscriptions.items():
                assert client in self.shared.clients
                assert subscription.heard <= subscription.told < topic.next
                assert subscription.heard < subscription.told or subscription.told + 1 == topic.next, (
                    "it waits for none"
                )
                subscribed.setdefault(client, set()).add(name)
        assert subscribed == {client: set(topics) for client, topics in self._subscribed.items()}


def _nbytes(item: tuple[str, Topic]) -> int:
    return item[1].nbytes
