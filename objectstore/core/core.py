"""The store's core: everything it decides, and nothing it does.

Sans-IO. Requests come in as method calls, with the id of the client that made them; what is to be sent
or done comes out of ``drain`` as small tuples. There are no sockets or threads in here, no memory but the object
index's, and time comes from the clock that is handed in, so a test can drive it through anything that could happen.

Whose bytes are whose
---------------------
Every byte of the arena is in exactly one of these, and ``check`` asserts it:

* *free*, in the allocator;
* *reserved*: given to one client for one object, until it seals or aborts it;
* *leased*: a slab given to one client, which lays small objects into it from the front without asking.
  Seals arrive in the order in which they were laid, so a cursor separates what is sealed from what is
  the client's to write. What it skips is freed at once; what it gives back unused too;
* an *object*, from its seal until it is deleted and no client looks at it any more, or until it was spilled:
  copied to a file that is read from then on.
* *shared*: several objects', until the last of them is gone (``sharing.py``);
* *taken*: without an owner, while a piece is made for a request of what was several (``compaction.py``).

A client is believed only about what is its own: a seal has to lie in its lease or be its reservation,
an unpin has to match a pin. Anything else raises ``StoreProtocolError``, and the caller closes that
connection. When a connection goes, its waits go with it; its reservations, leases and pins go when no process is left
that may look at them, or write there (``part_with``): mostly at the same moment.

What it consists of
-------------------
Each part is a file: what clients have to write, and the queue for more (``room.py``); the requests for objects that are
missing (``lookups.py``); the table of objects (``table.py``) and the bytes that they share (``sharing.py``); how a
request that finds no room gets some, by moving objects (``compaction.py``) and by spilling them (``spill_policy.py``);
and what is told of all that (``reporting.py``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from holdfast.objectstore.core.client_state import ClientState, Reservation
from holdfast.objectstore.core.compaction import Compaction
from holdfast.objectstore.core.create_queue import CreateWait
from holdfast.objectstore.core.deadlines import Deadlines
from holdfast.objectstore.core.effects import SERVER, Answer, Drop, Effect, GetWait
from holdfast.objectstore.core.lookups import Lookups
from holdfast.objectstore.core.object_index import ObjectIndex
from holdfast.objectstore.core.objects import ObjectMeta, ObjectRecord, SpillExtent
from holdfast.objectstore.core.reporting import Reporting
from holdfast.objectstore.core.room import Room
from holdfast.objectstore.core.sharing import Sharing
from holdfast.objectstore.core.spill_policy import SpillPolicy
from holdfast.objectstore.core.table import ObjectTable
from holdfast.objectstore.errors import StoreProtocolError
from holdfast.objectstore.memory.allocator import Allocator
from holdfast.objectstore.memory.free_extents import footprint
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.index import slots_for
from holdfast.objectstore.shared.layout import Segment, lay_out
from holdfast.objectstore.shared.protocol import SealItem, Share, Status

TOMBSTONE_LIMIT = 100_000
LIST_PAGE = 5000


class StoreCore:
    """The state of one store.

    Parameters
    ----------
    capacity : int
        Bytes of the arena.
    clock : callable
        Seconds, never going back.
    span : int
        Addresses of the arena, if it has more of them than bytes.
    can_fetch : bool
        Whether ``StartFetch`` may be asked for.
    can_spill : bool
        Whether ``Spill`` may be asked for.
    why_not_spilled : str
        If not, why not: for the errors of a full store.
    index : ObjectIndex, optional
        Where clients find and pin objects by themselves. By default one that no client sees.
    tombstone_limit : int
        How many deleted ids are remembered.
    """

    def __init__(
        self,
        capacity: int,
        *,
        clock: Callable[[], float],
        span: int = 0,
        can_fetch: bool = False,
        can_spill: bool = False,
        why_not_spilled: str = "",
        index: ObjectIndex | None = None,
        tombstone_limit: int = TOMBSTONE_LIMIT,
    ) -> None:
        self.allocator = Allocator(capacity, span)
        self.capacity = self.allocator.capacity
        self.can_fetch = can_fetch
        self._clock = clock
        self.index = ObjectIndex(slots_for(self.capacity)) if index is None else index
        self._sharing = Sharing(self.allocator.span, self._release_bytes)
        self._table = ObjectTable(
            self._release_object, self.index, weigh=self._sharing.weigh, tombstone_limit=tombstone_limit
        )
        self._clients: dict[int, ClientState] = {SERVER: ClientState("store")}
        self._client_ids = itertools.count(SERVER + 1)
        self._deadlines = Deadlines(clock)
        self._outbox: list[Effect] = []
        self._lookups = Lookups(self._clients, self._outbox.append)
        self._spill_policy = SpillPolicy(
            self._table,
            self.allocator,
            free=self._sharing.release,
            do=self._outbox.append,
            clock=clock,
            enabled=can_spill,
        )
        self._compaction = Compaction(
            self._table, self.allocator, self._sharing, self._spill_policy, do=self._outbox.append, clock=clock
        )
        self._room = Room(
            self._clients,
            self.allocator,
            self.index,
            self._compaction,
            self._deadlines,
            free=self._release_bytes,
            explain=self._why_full,
            do=self._outbox.append,
        )
        self._reporting = Reporting(
            clients=self._clients,
            table=self._table,
            allocator=self.allocator,
            sharing=self._sharing,
            queue=self._room.queue,
            lookups=self._lookups,
            spill_policy=self._spill_policy,
            compaction=self._compaction,
            clock=clock,
            why_not_spilled=why_not_spilled,
        )

    # What comes out

    def drain(self) -> list[Effect]:
        """What is to be sent and done because of the calls since the last time."""
        room = self._room
        if room.changed:
            room.changed = False
            room.queue.serve()
        if self._spill_policy.is_filling_up and not self._compaction.busy:
            self._spill_policy.go_ahead()
        if not self._outbox:
            return []
        effects = self._outbox.copy()
        self._outbox.clear()
        return effects

    def next_deadline(self) -> float | None:
        """When ``expire`` has something to do, by the clock."""
        dues = [
            each
            for each in (self._deadlines.next(), self._spill_policy.again_at, self._compaction.again_at)
            if each is not None
        ]
        return min(dues, default=None)

    def expire(self) -> None:
        """Fails what has waited until its deadline."""
        if self._spill_policy.resume():
            self._room.changed = True
        if self._compaction.resume():
            self._room.changed = True
        for wait, seconds in self._deadlines.expired():
            if isinstance(wait, CreateWait):
                self._room.timed_out(wait, seconds)
            else:
                self._lookups.timed_out(wait, seconds)

    # Clients

    def connect(self, name: str) -> int:
        """A client has come; its id."""
        client = next(self._client_ids)
        self._clients[client] = ClientState(name)
        return client

    def rename(self, client: int, name: str) -> None:
        """The client says its name."""
        self._clients[client].name = name

    def disconnect(self, client: int) -> None:
        """No process of the client is left, however that came about. All that was the client's ends."""
        self._forget_requests(client)
        gone = self._clients.pop(client)
        self._room.release(gone)
        self._table.release(client)
        self._room.changed = True  # what it looked at may be spilled now

    def part_with(self, client: int, *, hung_up: bool) -> bool:
        """The server talks to the client no more, but its process may live, or a fork of it. Whether it holds anything.

        ``disconnect`` has to follow, once no process can look at that any more. ``hung_up``: the server ended it.
        """
        self._forget_requests(client)
        state = self._clients[client]
        state.connected = False
        state.name += " (hung up on)" if hung_up else " (disconnected)"
        return bool(state.reserved or state.leases or self._table.has_pins(client))

    def _forget_requests(self, client: int) -> None:
        for get in list(self._clients[client].gets):
            self._lookups.forget(get)
        for wait in self._room.queue.of_client(client):
            self._room.leave(wait)
        self._spill_policy.forget(client)

    def sealed_by(self, client: int) -> list[ObjectID]:
        """The objects that are there because of this client."""
        return [record.object_id for record in self._table.records() if record.sealed_by == client]

    # Room

    def create(self, client: int, request: int, nbytes: int, timeout: float, object_id: ObjectID | None = None) -> None:
        """Room for one object of ``nbytes``. Replied with its offset, or FULL after ``timeout`` seconds.

        With ``object_id``, it's for that object, which is in the index from now on: open.
        """
        self._room.create(client, request, nbytes, timeout, object_id)

    def lease(self, client: int, request: int, nbytes: int, want_nbytes: int, timeout: float, done: list[int]) -> None:
        """A slab of about ``want_nbytes`` for small objects, of at least ``nbytes``.

        Replied with its offset and size. ``done`` are the ends of leases whose rest is given back.
        """
        self._room.lease(client, request, nbytes, want_nbytes, timeout, done)

    def abort(self, client: int, offset: int) -> None:
        """A reservation is given back unsealed."""
        self._room.abort(client, offset)

    def cancel(self, client: int, request: int) -> bool:
        """A request for room isn't wanted any more. False if it was answered already."""
        return self._room.cancel(client, request)

    def _why_full(self, nbytes: int, waited_seconds: float) -> str:
        return self._reporting.full_message(nbytes, waited_seconds)

    def _release_object(self, record: ObjectRecord) -> None:
        if record.in_file is None:
            self._sharing.release(record)
        else:
            self._outbox.append(Drop(record.in_file))

    def _release_bytes(self, offset: int, nbytes: int) -> None:
        self._compaction.free(offset, nbytes)
        self._room.changed = True

    # Moving and spilling

    def continue_search(self) -> None:
        """The next turn of the loop after ``ContinueSearch``."""
        if self._compaction.continue_search():
            self._room.changed = True

    def moved(self, *, done: bool = True) -> None:
        """The copies of a ``MoveObjects`` have ended; not ``done``: they were cut short."""
        self._compaction.moved(done=done)
        self._room.changed = True

    def spill_done(self, extents: list[SpillExtent | None], error: str | None = None) -> None:
        """A batch has ended: where each of its objects is now, None if it isn't in a file, and why."""
        self._spill_policy.done(extents, error)
        self._compaction.spilled()
        self._room.changed = True

    def verified(self, extent: SpillExtent, error: str | None = None, *, lost: bool = False) -> None:
        """A spilled object is as it was, and is shown to all that wait; or can't be read, or is ``lost``."""
        self._spill_policy.verified(extent, error, lost=lost)

    def lose(self, object_id: ObjectID, extent: SpillExtent) -> None:
        """What the object is in a file is damaged: the object isn't here any more, but may come from elsewhere."""
        self._spill_policy.lose(object_id, extent)

    # Seals

    def seal(self, client: int, items: Iterable[SealItem]) -> None:
        """Objects that the client has written. With ``keep`` the client has one pin on it from the start."""
        for item in items:
            if item.keep and self._table.knows(item.object_id):
                raise StoreProtocolError(f"object {item.object_id} was sealed before")
            self._add(client, item, self._room.take_to_seal(client, item))
        self._room.changed = True  # what is sealed may be spilled

    def share(self, client: int, request: int, item: SealItem, nbytes: int, shares: list[Share]) -> None:
        """An object that the client has written but for what it shares with others; ``item`` is about what was written.

        Replied with whether it is sealed: not if one of the others isn't in the arena any more. What was written is the
        client's still then.
        """
        borrowed: list[tuple[ObjectRecord, Segment]] = []
        for share in shares:
            lender = self._table.find(share.lender)
            if lender is None or lender.in_file is not None:
                self._answer(client, request, Status.OK, False)
                return
            offset = lender.locate(share.at, share.nbytes)
            if offset is None:
                raise StoreProtocolError(f"{share.nbytes} bytes at {share.at} are not object {share.lender}'s to share")
            borrowed.append((lender, Segment(share.start, offset, share.nbytes)))
        segments = lay_out(nbytes, item.offset, item.nbytes, [segment for _, segment in borrowed])
        reserved = self._clients[client].reserved.get(item.offset)
        if reserved is not None and reserved.object_id is not None:
            raise StoreProtocolError(f"the bytes at {item.offset} were reserved for the whole of an object")
        if item.keep and self._table.knows(item.object_id):
            raise StoreProtocolError(f"object {item.object_id} was sealed before")
        reservation = self._room.take_to_seal(client, item)
        if not self._table.knows(item.object_id):
            for lender, segment in borrowed:
                self._sharing.borrow(lender, segment)
        self._add(client, item, reservation, nbytes, segments)
        self._answer(client, request, Status.OK, True)

    def _add(
        self,
        client: int,
        item: SealItem,
        reservation: Reservation,
        nbytes: int | None = None,
        segments: tuple[Segment, ...] = (),
    ) -> None:
        object_id = item.object_id
        if self._table.knows(object_id):
            # Brought in twice, and the first one is as good: ids are unique.
            self._room.give_up(item.offset, reservation)
            return
        deleted = self._table.was_deleted(object_id)
        record = ObjectRecord(
            object_id,
            item.offset,
            item.nbytes,
            nbytes=nbytes,
            segments=segments,
            key=item.key,
            owner=item.owner or self._clients[client].name,
            type_name=item.type_name,
            label=item.label,
            references=item.references,
            created=self._clock(),
            sealed_by=client,
        )
        if segments and record.borrowed():
            self._sharing.members[object_id] = record
        self._table.insert(record, reservation.slot)
        if item.keep:
            self._table.pin(record, client)
        if deleted:  # before it was sealed; its maker may look at it all the same
            self._table.delete(object_id)
            return
        self._appeared(record)

    def _appeared(self, record: ObjectRecord) -> None:
        """Answers those that have waited for an object."""
        if record.object_id in self._lookups.waiting:
            for get in self._lookups.sealed(record.object_id):
                if get.pins:
                    self._pin_for(record, get.client, get.request)
                else:
                    self._answer(get.client, get.request, Status.OK, True)

    def adopt(self, object_id: ObjectID, extent: SpillExtent, meta: ObjectMeta) -> bool:
        """An object appears that is in a file of another's. False, and nothing has changed, if nothing here is ever in
        a file."""
        if not self._spill_policy.enabled:
            return False
        if self._table.knows(object_id) or self._table.was_deleted(object_id):
            return True  # as good as brought in twice, or to be deleted as soon as it is here
        record = ObjectRecord(
            object_id,
            0,
            extent.nbytes,
            key=meta.key,
            owner=meta.owner or self._clients[SERVER].name,
            type_name=meta.type_name,
            label=meta.label,
            references=meta.references,
            created=self._clock(),
            sealed_by=SERVER,
        )
        self._table.adopt(record, extent._replace(adopted=object_id))
        self._appeared(record)
        return True

    # Reading

    def get(self, client: int, request: int, object_id: ObjectID, timeout: float | None, sources: list[str]) -> None:
        """Pins an object for the client. Replied with its offset and size, its file's path if it was spilled and its
        segments if it shares; or with NOT_FOUND, FETCH_FAILED or UNREADABLE.

        Without ``timeout`` nothing is waited for but the fetch that ``sources`` ask for.
        """
        record = self._table.get(object_id)
        if record is not None:
            self._pin_for(record, client, request)
            return
        fetching = bool(sources) and self.can_fetch
        if self._table.was_deleted(object_id):
            self._answer(client, request, Status.NOT_FOUND, f"object {object_id} was deleted")
        else:
            get = GetWait(client, request, object_id, sources if fetching else [])
            self._lookups.wait(get)
            if timeout or (fetching and timeout is not None):
                self._deadlines.add(get, timeout)
            elif not fetching:
                self._lookups.ask_others(get)
            if fetching:
                self._lookups.fetch(object_id, sources)

    def ask(self, client: int, request: int, object_id: ObjectID) -> None:
        """Whether the object is there for clients that ask. Replied with that."""
        if object_id in self._table or self._table.was_deleted(object_id):
            self._answer(client, request, Status.OK, object_id in self._table)
            return
        get = GetWait(client, request, object_id, [], pins=False)
        self._lookups.wait(get)
        self._lookups.ask_others(get)

    def others_read(self, get: GetWait) -> None:
        """All that was sent before the request has been read: the object isn't there."""
        self._lookups.others_read(get)

    def fetch_done(
        self,
        object_id: ObjectID,
        error: str | None,
        status: Status = Status.FETCH_FAILED,
        *,
        try_others: bool = True,
    ) -> None:
        """A fetch has ended. The requests that still wait for it fail, unless they know sources that weren't tried."""
        text = error or f"object {object_id} was fetched, but isn't here"
        self._lookups.fetch_done(object_id, text, status, try_others=try_others)

    def pin(self, client: int, object_id: ObjectID) -> ObjectRecord | None:
        """Pins an object that is there."""
        record = self._table.get(object_id)
        if record is not None:
            self._table.pin(record, client)
        return record

    def unpin(self, client: int, object_ids: Iterable[ObjectID]) -> None:
        """One pin less on each of the objects, doomed ones among them."""
        for object_id in object_ids:
            if not self._table.unpin(object_id, client):
                raise StoreProtocolError(f"it has no pin on object {object_id}")
        self._room.changed = True  # what no client looks at may be spilled

    def last_unpins(self, slots: Iterable[int]) -> None:
        """Counters of these slots of the index have gone to zero while the server waited for them."""
        for slot in slots:
            self._table.last_unpin(slot)
        self._room.changed = True  # what no client looks at may be spilled

    def _pin_for(self, record: ObjectRecord, client: int, request: int) -> None:
        if record.in_file is not None:
            self._spill_policy.show(record, client, request)
            return
        self._table.pin(record, client)
        self._answer(client, request, Status.OK, record.offset, record.nbytes, None, record.segments or None)

    # Deleting and looking

    def delete(self, object_ids: Iterable[ObjectID]) -> None:
        """The objects vanish; a seal that comes later than its delete vanishes with it."""
        for object_id in object_ids:
            self._table.delete(object_id)
            if object_id in self._lookups.waiting:
                self._lookups.deleted(object_id)

    def forget(self, object_ids: Iterable[ObjectID]) -> list[ObjectID]:
        """The objects vanish that nobody looks at; they may be brought here again. Those that stay."""
        return [object_id for object_id in object_ids if not self._table.forget(object_id)]

    def contains(self, object_id: ObjectID) -> bool:
        """Whether the object is there for clients that ask."""
        return object_id in self._table

    @property
    def count(self) -> int:
        """How many objects there are."""
        return len(self._table)

    def meta(self, object_id: ObjectID) -> ObjectMeta | None:
        """What is known about an object that is there."""
        record = self._table.get(object_id)
        return None if record is None else record.meta()

    def inventory(self) -> Iterator[ObjectMeta]:
        """Every sealed object, the oldest first."""
        return (record.meta() for record in list(self._table.records()))

    def stats(self) -> dict[str, Any]:
        """The figures of the store, in bytes, counts and seconds."""
        return self._reporting.stats()

    def describe_one(self, object_id: ObjectID) -> dict[str, Any] | None:
        """An object, like `describe`; None if it isn't here."""
        return self._reporting.describe_one(object_id)

    def describe(self, start: int = 0, limit: int | None = None) -> list[dict[str, Any]]:
        """The objects, and the bytes reserved for ones to come, from the ``start``-th on."""
        return self._reporting.describe(start, limit)

    def check(self) -> None:
        """Asserts what must hold between any two events: every byte is in one place, all books agree."""
        self._table.check()
        records = [*self._table.records(), *self._table.doomed()]
        in_arena = [record for record in records if record.in_file is None]
        pieces = [(record.offset, footprint(record.own_nbytes)) for record in in_arena if not record.lent]
        pieces += [(start, end - start) for start, end, _ in self._sharing.stretches()]
        pieces += self._compaction.taken()
        if self.allocator.span > self.capacity:
            gap = min(self.allocator.apart, self.allocator.span) - self.capacity
            pieces += [(self.capacity, gap), *self.allocator.unused_apart()]
        pieces += self.allocator.free_extents()
        for client in self._clients.values():
            pieces += [(offset, footprint(reserved.nbytes)) for offset, reserved in client.reserved.items()]
            pieces += [(lease.cursor, lease.end - lease.cursor) for lease in client.leases if lease.cursor < lease.end]
        at = 0
        for offset, nbytes in sorted(pieces):
            assert offset == at, f"the bytes from {min(at, offset)} to {max(at, offset)} are lost or owned twice"
            at += nbytes
        assert at == self.allocator.span
        assert self._compaction.busy or self.allocator.used_nbytes <= self.capacity
        unused = [*self.allocator.free_extents(), *self.allocator.unused_apart()]
        addresses = self.allocator.span - max(0, min(self.allocator.apart, self.allocator.span) - self.capacity)
        used = addresses - sum(nbytes for _, nbytes in unused)
        assert used == self.allocator.used_nbytes
        slots = [record.slot for record in records]
        slots += [reserved.slot for client in self._clients.values() for reserved in client.reserved.values()]
        listed = [slot for slot in slots if slot]
        assert len(listed) == len(set(listed)), "a slot of the index is two objects'"
        self._spill_policy.check(records)
        self._compaction.check(records)
        self._sharing.check(in_arena)
        self._lookups.check(self.contains)

    def _answer(self, client: int, request: int, status: Status, *payload: Any) -> None:
        self._outbox.append(Answer(client, request, status, payload))
