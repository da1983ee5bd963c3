"""Futures that users have pickled by hand: leases, which keep results while nobody knows where their futures are.

A client says that it has pickled a future, and a client says that it has unpickled one; either may be any. In between a
*lease* holds the task. When its time is over is noted by the clock of the machine, since the clock by which a scheduler
lives is its own. So the time goes on while there is no scheduler; but another one keeps each lease for `EARLY_SECONDS`
more, in which those may unpickle that could not before.

==========================================  ===========================================================================
what happens                                what comes of it
==========================================  ===========================================================================
a future is pickled                         a lease, for a time; pickled again, it begins anew
a future is unpickled                       its client holds the task, and the lease stays: there may be more pickles
the time is over                            the lease ends, unless the client that has it holds the task itself: then
                                            it is looked at again
that client leaves                          nothing
that client cancels the key                 the lease holds nothing any more, and ends in time
a future is unpickled, and there is no      it is cancelled. But if the lease is to last still, and its client is
lease                                       there, it is on its way: the key is waited for (`EARLY_SECONDS`)
==========================================  ===========================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from holdfast.cluster.journal.tables import Held
from holdfast.cluster.protocol.limits import MAX_PICKLED
from holdfast.cluster.scheduler.parts.expectations import Expectations
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.instructions import Warn
from holdfast.cluster.scheduler.tasks.model import Holder, HolderDescription, Task
from holdfast.cluster.scheduler.tasks.names import Key

#: How long a lease is awaited that is on its way, and for how long there is one at least when a scheduler is back.
EARLY_SECONDS = 30.0
#: A lease that is over is looked at so often while its client holds the task itself.
AGAIN_SECONDS = 60.0


class _Term(Timed):
    """How long a lease lasts."""

    __slots__ = ("ends", "lease", "part")

    def __init__(self, part: Pickled, lease: Lease) -> None:
        super().__init__()
        self.part = part
        self.lease = lease
        self.ends: float | None = None

    @property
    def due(self) -> float | None:
        return self.ends

    def expire(self, now: float) -> None:
        self.part.is_over(self.lease, now)


class Lease(Holder):
    """Holds the task of a future that was pickled by hand.

    Attributes
    ----------
    client, name
        Whose future it was: the id and the name of the client.
    task
        The task.
    term
        When the time is over.
    seconds
        How long it was taken out for.
    until
        When the time is over, in seconds since 1970, as the client has said it, for people.
    ends_at
        The same by the clock of the scheduler's machine.
    call_site
        The line of the user's code that has pickled it.
    """

    __slots__ = ("call_site", "client", "ends_at", "name", "seconds", "task", "term", "until")

    id: str
    kind: ClassVar[str] = "pickled future"

    def __init__(self, part: Pickled, id: str, client: str, name: str, task: Task) -> None:
        super().__init__(id)
        self.term = _Term(part, self)
        self.client = client
        self.name = name
        self.task = task
        self.until = self.ends_at = self.seconds = 0.0
        self.call_site = ""

    def unheld(self, task: Task) -> None:
        self.term.part.note_gone(self.id)

    def yields_to(self, client: Holder, *, force: bool) -> bool:
        return force or client.id == self.client

    def describe(self) -> HolderDescription:
        line = f", by the line {self.call_site:.400}" if self.call_site else ""
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.until))
        return HolderDescription(self.kind, f"until {until}, of the client {self.name:.200}{line}")


class _Early(Timed):
    """A client has unpickled a future, and the lease of that is on its way."""

    __slots__ = ("_part", "client", "ends", "key")

    def __init__(self, part: Pickled, client: Client, key: Key, ends: float) -> None:
        super().__init__()
        self._part = part
        self.client = client
        self.key = key
        self.ends: float | None = ends

    @property
    def due(self) -> float | None:
        return self.ends

    def expire(self, now: float) -> None:
        self._part.did_not_come(self)


class Pickled(Part):
    """Keeps the leases.

    Parameters
    ----------
    shared
        What all parts work with.
    expectations
        Knows which keys clients expect.
    wall_time
        The clock of the machine; that of the events if not given.

    Attributes
    ----------
    leases
        All that there are, by name.
    """

    name: ClassVar[str] = "pickled"

    def __init__(
        self, shared: Shared, expectations: Expectations, *, wall_time: Callable[[], float] | None = None
    ) -> None:
        super().__init__(shared)
        self._wall_time = wall_time or (lambda: shared.now)
        self.events = {events.FuturesPickled: self._pickled, events.FuturesUnpickled: self._unpickled}
        self.leases: dict[str, Lease] = {}
        self._expectations = expectations
        self._early: dict[_Early, None] = {}
        self._warned: dict[str, None] = {}  # clients that were told that there are too many

    def holders(self) -> Iterable[Holder]:
        return self.leases.values()

    def _pickled(self, event: events.FuturesPickled) -> None:
        client = self.shared.clients[event.client]
        life = self.shared.life
        for key, name, seconds in event.futures:
            task = life.generations.tasks.get(key)
            if task is None:
                continue  # it was cancelled meanwhile
            lease = self.leases.get(name)
            if lease is None:
                if len(self.leases) >= MAX_PICKLED:
                    self._warn(client)
                    continue
                lease = self.leases[name] = Lease(self, name, client.id, client.name, task)
            lease.term.ends = self.shared.now + seconds
            lease.seconds, lease.until, lease.call_site = seconds, event.until, event.call_site
            life.holding.hold(lease, lease.task)
            self.shared.deadlines.watch(lease.term)
            lease.ends_at = self._wall_time() + seconds
            said = (lease.client, lease.name, lease.seconds, lease.until, lease.call_site, lease.ends_at)
            self.note(name, said, lease)

    def _warn(self, client: Client) -> None:
        if client.id not in self._warned:
            self._warned[client.id] = None
            text = (
                f"results are kept for {MAX_PICKLED:,} futures that were pickled by hand, and not for more: those that "
                "are pickled now keep nothing. Keep the futures until they are unpickled, or publish the results"
            )
            self.shared.instructions.put(Warn(client.id, text))

    def _unpickled(self, event: events.FuturesUnpickled) -> None:
        client = self.shared.clients[event.client]
        life = self.shared.life
        for key, name, pickler, seconds, left in event.futures:
            lease = self.leases.get(name)
            if lease is not None and lease.holds:
                life.begin(client, lease.task)
            elif lease is not None:
                self._refuse(client, key, _CANCELLED)
            elif left > 0 and seconds > 0 and pickler in self.shared.clients:
                self._await(client, key)
            elif left > 0 and seconds > 0:
                self._refuse(client, key, _GONE)
            else:
                self._refuse(client, key, _over(seconds))

    def _refuse(self, client: Client, key: Key, text: str) -> None:
        self.shared.instructions.cancelled(client.id, key, text)

    def _await(self, client: Client, key: Key) -> None:
        task = self.shared.life.generations.tasks.get(key)
        if task is not None:
            self.shared.life.begin(client, task)
        elif self._expectations.expect(client, key):
            early = _Early(self, client, key, self.shared.now + EARLY_SECONDS)
            self._early[early] = None
            self.shared.deadlines.watch(early)

    def did_not_come(self, early: _Early) -> None:
        """The lease of a future that was unpickled has not come."""
        self._end(early)
        if early.client in self._expectations.table.get(early.key, ()):
            self._expectations.forget(early.client, early.key)
            self._refuse(early.client, early.key, _GONE)

    def _end(self, early: _Early) -> None:
        del self._early[early]
        early.ends = None
        self.shared.deadlines.forget(early)

    def is_over(self, lease: Lease, now: float) -> None:
        """The time of a lease is over."""
        client = self.shared.clients.get(lease.client)
        if client is not None and lease.holds and client in lease.task.holders:
            lease.term.ends = now + min(lease.seconds, AGAIN_SECONDS)
            return
        del self.leases[lease.id]
        lease.term.ends = None
        self.note_gone(lease.id)
        self.shared.life.holding.let_go(lease)

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        for name, noted in entries.items():
            for serial in noted.holds:
                client, client_name, seconds, until, call_site, ends_at = noted.value
                lease = self.leases[name] = Lease(self, name, client, client_name, tasks[serial])
                lease.seconds, lease.until, lease.call_site, lease.ends_at = seconds, until, call_site, ends_at
                self.shared.life.holding.hold(lease, lease.task)

    def recovered(self) -> None:
        now = self._wall_time()
        for lease in self.leases.values():
            left = max(lease.ends_at - now, EARLY_SECONDS)
            lease.term.ends = self.shared.now + min(left, lease.seconds)  # the machine's clock may have been set back
            self.shared.deadlines.watch(lease.term)

    def client_left(self, client: Client) -> None:
        self._warned.pop(client.id, None)
        for early in [early for early in self._early if early.client is client]:
            self._end(early)

    def check(self) -> None:
        assert len(self.leases) <= MAX_PICKLED
        for name, lease in self.leases.items():
            assert lease.id == name
            assert not lease.holds or list(lease.holds) == [lease.task]
        assert all(self.shared.clients.get(early.client.id) is early.client for early in self._early)
        self.shared.deadlines.check([*[lease.term for lease in self.leases.values()], *self._early])


_CANCELLED = "its future was pickled by hand, and the result was cancelled before it was unpickled"
_GONE = (
    "its future was pickled by hand, and nothing keeps the result any more: it was cancelled, or the client that has "
    "pickled it has ended before the scheduler heard of that"
)


def _over(seconds: float) -> str:
    if not seconds:
        return (
            "its future was pickled by hand, and HOLDFAST_PICKLED_LEASE says that nothing is kept for that. Keep the "
            "future until it is unpickled, or publish the result"
        )
    return (
        f"its future was pickled by hand, and the result was kept for {seconds:,g} s after that, which are over. "
        "Unpickle it sooner, set HOLDFAST_PICKLED_LEASE to a longer time where it is pickled, keep the future there, "
        "or publish the result"
    )
