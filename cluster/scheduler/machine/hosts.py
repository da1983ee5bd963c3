"""How hosts come and go, and what they say of themselves and their workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.journal import records
from holdfast.cluster.scheduler.machine.objects import Objects
from holdfast.cluster.scheduler.machine.workers import Workers
from holdfast.cluster.scheduler.parts.copies import Copies
from holdfast.cluster.scheduler.parts.part import EventHandlers, Part, Shared
from holdfast.cluster.scheduler.placing.reconsidering import reconsider_ready, reconsider_unrunnable, spread
from holdfast.cluster.scheduler.placing.revocation import Revocation
from holdfast.cluster.scheduler.placing.suspects import Suspects
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.feed import Joined, Left
from holdfast.cluster.scheduler.tasks.follow_up import Chore
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.model import Host, Task

#: Of so many hosts that are gone it's known which tasks are charged for that, in case they come back and have lived.
MAX_CHARGED_HOSTS = 100


class _Loss(Chore):
    """What a host had is gone with it, one object after the other."""

    host: Host

    def __init__(self, host: Host, life: Lifecycle, copies: Copies) -> None:
        self.host = host
        self._life = life
        self._copies = copies

    def step(self) -> bool:
        if self.host.objects:
            self._copies.lost_copy(self._life.lose_next_copy(self.host))
            return True
        if self.host.errors:
            self._life.errors.lose_next_copy(self.host)
            return True
        return False


class Hosts:
    """Lets hosts come and go.

    Parameters
    ----------
    shared
        The tables.
    parts
        Are told of it.
    workers, objects
        See to what a host has.
    copies
        Sees to second copies of data.
    revocation, suspects
        Judge workers by what their hosts say.
    """

    def __init__(
        self,
        shared: Shared,
        parts: Sequence[Part],
        workers: Workers,
        objects: Objects,
        copies: Copies,
        revocation: Revocation,
        suspects: Suspects,
    ) -> None:
        self.events: EventHandlers = {
            events.HostJoined: self._host_joined,
            events.HostReady: self._host_ready,
            events.PlacesChanged: self._places_changed,
            events.HostReported: self._host_reported,
            events.HostLeft: self._host_left,
        }
        self._shared = shared
        self._hosts = shared.hosts
        self._placement = shared.placement
        self._life = shared.life
        self._feed = shared.feed
        self._parts = parts
        self._workers = workers
        self._objects = objects
        self._copies = copies
        self._revocation = revocation
        self._suspects = suspects
        self._charged: dict[str, tuple[str, list[Task]]] = {}  # with the incarnation, by the host's address

    def _host_joined(self, event: events.HostJoined) -> None:
        if event.address in self._hosts:
            raise ProtocolError(f"there is a node at {event.address} already")
        host = self._hosts[event.address] = Host(event.address, event.description)
        self._life.decisions.note(records.put("hosts", host.address, host.description))
        if self._feed.is_heard:
            self._feed.tell(Joined("host", host.address, str(event.description.get("hostname") or "")))
        incarnation, charged = self._charged.pop(host.address, (None, ()))
        if incarnation == host.incarnation:
            for task in charged:
                task.failures = max(0, task.failures - 1)  # it may have had a result since
        reconsider_unrunnable(self._life, self._placement)
        for part in self._parts:
            part.host_joined(host)

    def _host_ready(self, event: events.HostReady) -> None:
        host = self._hosts.get(event.host)
        if host is None or host.is_ready:
            return
        host.is_ready = True
        for part in self._parts:
            part.host_ready(host)
        restored, host.restored = host.restored, []
        self._life.run_again(restored)

    def _places_changed(self, event: events.PlacesChanged) -> None:
        host = self._hosts.get(event.host)
        if host is None:
            return
        before = host.kept_addresses
        host.keep(event.places)
        description = {**host.description, "places": event.places}
        self._life.decisions.note(records.put("hosts", host.address, description))
        if gone := before - host.kept_addresses:
            for part in self._parts:
                part.places_left(host, gone)
        reconsider_unrunnable(self._life, self._placement)
        reconsider_ready(self._life, self._placement)

    def _host_reported(self, event: events.HostReported) -> None:
        host = self._hosts.get(event.host)
        if host is None:
            return
        host.report = event.report
        for address, vitals in event.report.get("workers", {}).items():
            worker = self._shared.workers.get(address)
            if worker is not None and worker.host is host and _has_condition(vitals):
                self._revocation.seen(worker, vitals["condition"], vitals["seconds"])
                self._revocation.pause(worker, vitals.get("paused", False))
        for part in self._parts:
            part.host_reported(host)

    def _host_left(self, event: events.HostLeft) -> None:
        host = self._hosts.get(event.address)
        if host is None:
            return
        charged = [] if event.may_live else self._suspects.host_died(host.workers)
        self._workers.host_left(host, event.reason)
        if charged and host.incarnation is not None:
            self._charged[host.address] = host.incarnation, charged
            if len(self._charged) > MAX_CHARGED_HOSTS:
                del self._charged[next(iter(self._charged))]
        del self._hosts[host.address]
        self._life.decisions.note(records.remove("hosts", host.address))
        if self._feed.is_heard:
            self._feed.tell(Left("host", host.address, event.reason))
        host.leaving = True  # as long as it is known what it had: nobody relies on that
        for part in self._parts:
            part.host_left(host)
        for object_id in host.deleted:  # it may not have heard that
            self._life.lost.remember(object_id)
        self._life.follow_up.begin(_Loss(host, self._life, self._copies))
        self._objects.host_left(host)
        spread(self._life, self._placement, host)
        reconsider_ready(self._life, self._placement)


def _has_condition(vitals: Mapping[str, Any]) -> bool:
    """Whether a worker is a process of its own, of which its node can say what it is doing."""
    return "condition" in vitals and "seconds" in vitals
