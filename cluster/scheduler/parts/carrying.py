"""Copies of objects that hosts are told to bring: for whoever wants them, a limited number at a time.

An *order* (`Order`) wants copies: `Carrying.bring` names an object and the host that is to have it. Two that want the
same share one *delivery*. A delivery ends when the host has the object, or says that it can't bring it, has left, or
has not answered in `DELIVERY_SECONDS`. Then each of its orders is told, and decides what comes next.

==============  ======================================================================================================
a delivery is … … and what comes next
==============  ======================================================================================================
queued          its host brings fewer than `DELIVERIES_PER_HOST` objects: one of those that have it is its source
parked          every host that has the object gives it to as many others already as the order allows: when there is
                one more copy of it, or one delivery of it less, it is queued again
resting         the object isn't in a store yet, since its worker may keep a small result for a second
under way       the host answers
==============  ======================================================================================================

So what goes to many hosts spreads as a tree: each host that has got it gives it to ``branching`` others at a time.
"""

from __future__ import annotations

import abc
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from typing import TypeAlias, TypeVar

from holdfast.cluster.protocol.durable_copies import DurableCopy
from holdfast.cluster.scheduler.parts.copies import Copies
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.instructions import CopyObjects
from holdfast.cluster.scheduler.tasks.model import Host, Task, TaskError
from holdfast.cluster.scheduler.tasks.names import ObjectId

#: What has an object that can be carried: a task with a result, or an error whose exception lies in stores.
Subject: TypeAlias = Task | TaskError
T = TypeVar("T")

#: So many objects a host brings at a time.
DELIVERIES_PER_HOST = 8
#: A host gives one object to so many others at a time, unless an order says otherwise.
BRANCHING = 2
#: A host that has not answered after this is not waited for.
DELIVERY_SECONDS = 60.0
#: A small result that isn't in a store yet is tried again after this, so many times.
REST_SECONDS = 1.0
MAX_RESTS = 3
#: Of the hosts that have an object, so many are named to the one that is to bring it.
MAX_SOURCES = 8


class Order(abc.ABC):
    """What wants copies. An order has any number of deliveries; it hears of the end of each."""

    #: To how many others a host gives one object at a time.
    branching: int = BRANCHING

    @abc.abstractmethod
    def arrived(self, subject: Subject, host: Host) -> None:
        """A host has a copy."""

    @abc.abstractmethod
    def failed(self, subject: Subject, host: Host, reason: str) -> None:
        """A host can't have one. It may be that nothing has the object any more."""


class _Delivery:
    __slots__ = ("_durable", "deadline", "host", "nbytes", "object_id", "orders", "rests", "source", "subject")

    def __init__(self, subject: Subject, object_id: ObjectId, host: Host, durable: Mapping[Task, DurableCopy]) -> None:
        self._durable = durable
        self.subject = subject
        self.object_id = object_id
        self.host = host
        self.nbytes = subject.nbytes
        self.orders: dict[Order, None] = {}
        self.source: Host | None = None  # None: it isn't under way
        self.deadline = 0.0
        self.rests = 0

    @property
    def is_in_vain(self) -> bool:
        """Whether the object is not that of its subject any more, or nobody has it."""
        return self.subject.object_id != self.object_id or not (self.subject.where or self.durable_source)

    @property
    def durable_source(self) -> str | None:
        """Where the object lies as a file, if no host has it."""
        copy = self._durable.get(self.subject) if isinstance(self.subject, Task) else None
        return None if copy is None else copy.source

    @property
    def may_be_stored_soon(self) -> bool:
        subject = self.subject
        return isinstance(subject, Task) and subject.inline is not None and self.rests < MAX_RESTS


class _Lateness(Timed):
    __slots__ = ("_carrying",)

    def __init__(self, carrying: Carrying) -> None:
        super().__init__()
        self._carrying = carrying

    @property
    def due(self) -> float | None:
        return self._carrying.due

    def expire(self, now: float) -> None:
        self._carrying.time_passed(now)


class Carrying(Part):
    """Has hosts bring what orders want.

    Parameters
    ----------
    shared
        What all parts work with.
    copies
        Has hosts bring copies as well, of what is published, and is told what they say of these.
    """

    name = "carrying"

    def __init__(self, shared: Shared, copies: Copies) -> None:
        super().__init__(shared)
        self.events = {events.CopiesFailed: self._copies_failed}
        self._copies = copies
        self._deliveries: dict[tuple[Host, ObjectId], _Delivery] = {}
        self._of: dict[Order, dict[_Delivery, None]] = {}
        self._queues: dict[Host, deque[_Delivery]] = {}
        self._parked: dict[Subject, deque[_Delivery]] = {}
        self._resting: OrderedDict[_Delivery, float] = OrderedDict()
        self._under_way: OrderedDict[_Delivery, None] = OrderedDict()  # the earliest deadline first
        self._gives: Counter[tuple[Subject, Host]] = Counter()  # to how many others a host gives an object now
        self._brings: Counter[Host] = Counter()
        self._incoming: Counter[Host] = Counter()  # bytes of all deliveries to a host
        self._to_look_at: dict[Host, None] = {}
        self._lateness = _Lateness(self)

    # -- what orders want

    def bring(self, order: Order, subject: Subject, host: Host) -> None:
        """Have a host bring an object that it does not have. The order hears of the end of it, not within this call."""
        object_id = subject.object_id
        assert object_id is not None
        delivery = self._deliveries.get((host, object_id))
        if delivery is None:
            delivery = self._deliveries[host, object_id] = _Delivery(
                subject, object_id, host, self.shared.life.results.durable
            )
            self._incoming[host] += subject.nbytes
            self._queue(delivery)
        delivery.orders[order] = None
        self._of.setdefault(order, {})[delivery] = None

    def outstanding(self, order: Order) -> int:
        """How many deliveries of an order have not ended."""
        return len(self._of.get(order, ()))

    def withdraw(self, order: Order) -> None:
        """An order wants nothing any more, and hears nothing. What is under way arrives all the same."""
        for delivery in self._of.pop(order, ()):
            del delivery.orders[order]
            if not delivery.orders and delivery.source is None:
                self._forget(delivery)

    def room_in(self, host: Host) -> int:
        """The bytes that are free in a host's store, less those that it is to bring."""
        return host.capacity - host.nbytes - self._incoming[host]

    def is_coming(self, subject: Subject, host: Host) -> bool:
        """Whether a host is to bring an object."""
        return subject.object_id is not None and (host, subject.object_id) in self._deliveries

    # -- what happens

    def found(self, host: Host, object_id: ObjectId) -> None:
        """A host says that it has an object, which is entered already."""
        delivery = self._deliveries.get((host, object_id))
        if delivery is not None:
            if host in delivery.subject.where and delivery.subject.object_id == object_id:
                self._end(delivery, None)
            else:
                self._end(delivery, "it was released meanwhile")

    def _copies_failed(self, event: events.CopiesFailed) -> None:
        host = self.shared.hosts.get(event.host)
        if host is None:
            return
        for object_id, reason in event.failures:
            self._copies.failed(host, object_id, reason)
            delivery = self._deliveries.get((host, object_id))
            if delivery is None or delivery.source is None:
                continue
            if delivery.orders and delivery.may_be_stored_soon:
                self._leave_way(delivery)
                delivery.rests += 1
                self._resting[delivery] = self.shared.now + REST_SECONDS
                self.shared.deadlines.watch(self._lateness)
            else:
                self._end(delivery, f"{host.address}: {reason}")

    def host_left(self, host: Host) -> None:
        for delivery in [delivery for delivery in self._deliveries.values() if delivery.host is host]:
            self._end(delivery, f"{host.address} has left")
        self._queues.pop(host, None)
        self._to_look_at.pop(host, None)

    # -- time

    @property
    def due(self) -> float | None:
        """When `time_passed` is due."""
        deadlines = []
        if self._under_way:
            deadlines.append(next(iter(self._under_way)).deadline)
        if self._resting:
            deadlines.append(next(iter(self._resting.values())))
        return min(deadlines, default=None)

    def time_passed(self, now: float) -> None:
        """Give up those that take too long, and try those again that have rested."""
        while self._under_way and (delivery := next(iter(self._under_way))).deadline <= now:
            self._end(delivery, f"{delivery.host.address}: it has not brought it within {DELIVERY_SECONDS:g} s")
        while self._resting and next(iter(self._resting.values())) <= now:
            self._queue(self._resting.popitem(last=False)[0])

    # -- what is to be done

    def follow_up(self) -> None:
        """Tell hosts to bring what they have room for."""
        while self._to_look_at:
            host, _ = self._to_look_at.popitem()
            queue = self._queues.get(host, deque())
            while queue and self._brings[host] < DELIVERIES_PER_HOST:
                self._begin(queue.popleft())
            if not queue:
                self._queues.pop(host, None)

    def _begin(self, delivery: _Delivery) -> None:
        if not delivery.orders:
            return  # it was withdrawn
        if delivery.is_in_vain:
            self._end(delivery, "no host has it any more")
            return
        subject, host = delivery.subject, delivery.host
        if host in subject.where:
            self._end(delivery, None)
            return
        branching = max(order.branching for order in delivery.orders)
        # No host gives a file: each that brings one counts as its own source.
        source = min(subject.where, key=lambda other: self._gives[subject, other], default=host)
        if self._gives[subject, source] >= branching:
            self._parked.setdefault(subject, deque()).append(delivery)
            return
        delivery.source = source
        delivery.deadline = self.shared.now + DELIVERY_SECONDS
        self._gives[subject, source] += 1
        self._brings[host] += 1
        self._under_way[delivery] = None
        self.shared.deadlines.watch(self._lateness)
        others = [other.address for other in subject.where[: MAX_SOURCES + 1] if other is not source]
        file = delivery.durable_source
        sources = (source.address, *others[: MAX_SOURCES - 1]) if subject.where or file is None else (file,)
        self.shared.instructions.add(CopyObjects, host.address, (delivery.object_id, sources))

    def _queue(self, delivery: _Delivery) -> None:
        self._queues.setdefault(delivery.host, deque()).append(delivery)
        self._look_at(delivery.host)

    def _look_at(self, host: Host) -> None:
        self._to_look_at[host] = None
        self.ask_to_follow_up()

    def _leave_way(self, delivery: _Delivery) -> None:
        """A delivery isn't under way any more: others may be."""
        subject, source, host = delivery.subject, delivery.source, delivery.host
        if source is None:
            return
        delivery.source = None
        del self._under_way[delivery]
        _count_down(self._gives, (subject, source))
        _count_down(self._brings, host)
        if host in self._queues:
            self._look_at(host)

    def _end(self, delivery: _Delivery, failure: str | None) -> None:
        orders = list(delivery.orders)
        self._forget(delivery)
        for order in orders:
            if failure is None:
                order.arrived(delivery.subject, delivery.host)
            else:
                order.failed(delivery.subject, delivery.host, failure)

    def _forget(self, delivery: _Delivery) -> None:
        self._leave_way(delivery)
        del self._deliveries[delivery.host, delivery.object_id]
        _count_down(self._incoming, delivery.host, delivery.nbytes)
        self._resting.pop(delivery, None)
        branching = max((order.branching for order in delivery.orders), default=BRANCHING)
        for order in delivery.orders:
            its = self._of[order]
            del its[delivery]
            if not its:
                del self._of[order]
        delivery.orders = {}  # in a queue it is passed over
        subject = delivery.subject
        if subject in self._parked:
            self._take_out(subject, branching + 1)

    def _take_out(self, subject: Subject, count: int) -> None:
        """Queue some of the deliveries of an object that are parked: there is a place at a source for them."""
        parked = self._parked[subject]
        while parked and count:
            delivery = parked.popleft()
            if delivery.orders:
                self._queue(delivery)
                count -= 1
        if not parked:
            del self._parked[subject]

    def check(self) -> None:
        waiting = Counter(delivery for queue in self._queues.values() for delivery in queue if delivery.orders)
        waiting.update(delivery for queue in self._parked.values() for delivery in queue if delivery.orders)
        waiting.update(iter(self._resting))
        waiting.update(iter(self._under_way))
        assert set(waiting) == set(self._deliveries.values())
        assert all(count == 1 for count in waiting.values())
        incoming: Counter[Host] = Counter()
        for (host, object_id), delivery in self._deliveries.items():
            assert (delivery.host, delivery.object_id) == (host, object_id)
            assert self.shared.hosts.get(host.address) is host
            assert (delivery.source is not None) == (delivery in self._under_way)
            assert delivery.orders or delivery.source is not None
            incoming[host] += delivery.nbytes
        assert incoming == self._incoming
        for order, deliveries in self._of.items():
            assert deliveries
            assert all(order in delivery.orders for delivery in deliveries)
        assert Counter(delivery.host for delivery in self._under_way) == self._brings
        assert Counter((delivery.subject, delivery.source) for delivery in self._under_way) == self._gives
        assert all(count <= DELIVERIES_PER_HOST for count in self._brings.values())
        self.shared.deadlines.check([self._lateness])


def _count_down(counter: Counter[T], entry: T, by: int = 1) -> None:
    counter[entry] -= by
    if not counter[entry]:
        del counter[entry]
