"""The store's core: everything it decides, and nothing it does.

Sans-IO. Requests come in as method calls, with the id of the client that made them; what is to be sent
or done comes out of ``drain`` as small tuples. There are no sockets, threads or memory in here, and
time comes from the clock that is handed in, so a test can drive it through anything that could happen.

Whose bytes are whose
---------------------
Every byte of the arena is in exactly one of these, and ``check`` asserts it:

* *free*, in the allocator;
* *reserved*: given to one client for one object, until it seals or aborts it;
* *leased*: a slab given to one client, who lays small objects into it from the front without asking.
  Seals arrive in the order in which they were laid, so a cursor separates what is sealed from what is
  the client's to write. What it skips is freed at once; what it gives back unused too;
* an *object*, from its seal until it is deleted and nobody looks at it any more, or until it was spilled:
  copied to a file that is read from then on.
* *shared*: several objects', until the last of them is gone (``sharing.py``);
* *taken*: nobody's, while a piece is made for a request of what was several (``compaction.py``).

A client is believed only about what is its own: a seal has to lie in its lease or be its reservation,
an unpin has to match a pin. Anything else raises ``StoreProtocolError``, and the caller closes that
connection. When a connection goes, its waits go with it; its reservations, leases and pins go when nobody is left
that may look at them, or write there (``part_with``): mostly at the same moment.

What is missing is waited for
-----------------------------
A ``get`` of an object that isn't there waits for its seal, or for a fetch from elsewhere. One runs at a
time however many ask; if it fails, another one tries what only the others know. A request for bytes waits
for room. Both have deadlines: the caller asks for ``next_deadline`` and calls ``expire`` then.

Nobody is told that an object isn't there before everything has been read that was sent before the question. One
client may have sealed the object, and another may know so, while the seal is still in the first one's socket: so the
answer waits for one look at all sockets (``ReadOthers``).

A request that finds no room has objects moved that nobody looks at (``compaction.py``), and some to disk
(``spill_policy.py``).
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from holdfast.objectstore.core.compaction import Compaction
from holdfast.objectstore.core.create_queue import CreateQueue, CreateWait
from holdfast.objectstore.core.effects import SERVER, Drop, Effect, GetWait, ReadOthers, Reply, StartFetch
from holdfast.objectstore.core.object_index import ObjectIndex
from holdfast.objectstore.core.objects import ObjectMeta, ObjectRecord, SpillExtent
from holdfast.objectstore.core.obstacles import EXTENTS_MAX, Obstacle, obstacles
from holdfast.objectstore.core.sharing import Sharing
from holdfast.objectstore.core.spill_policy import SpillPolicy
from holdfast.objectstore.core.table import ObjectTable
from holdfast.objectstore.errors import StoreProtocolError
from holdfast.objectstore.memory.allocator import ALIGNMENT, LARGE_NBYTES, SMALL_NBYTES, Allocator, footprint
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.index import slots_for
from holdfast.objectstore.shared.layout import Segment, lay_out
from holdfast.objectstore.shared.protocol import SealItem, Share, Status
from holdfast.objectstore.sizes import format_size

TOMBSTONE_LIMIT = 100_000
LEASE_NBYTES_MAX = 4 << 20
LEASES_PER_CLIENT = 4
WAITS_PER_CLIENT = 4096
RESERVATIONS_PER_CLIENT = 4096
LIST_PAGE = 5000
_HOLDERS_NAMED = 3
_WALLS_NAMED = 5
_VIEWERS_LISTED = 20


class _Reservation(NamedTuple):
    nbytes: int
    object_id: ObjectID | None  # None if that isn't known yet
    slot: int  # where it is on the index, or 0


@dataclasses.dataclass(slots=True)
class _Lease:
    cursor: int
    end: int


class _Client:
    __slots__ = ("connected", "gets", "leases", "name", "reserved")

    def __init__(self, name: str) -> None:
        self.name = name
        self.connected = True
        self.reserved: dict[int, _Reservation] = {}  # by offset
        self.leases: list[_Lease] = []
        self.gets: set[GetWait] = set()


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
        Where clients find and pin objects by themselves. By default one that nobody else sees.
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
        self._why_not_spilled = why_not_spilled
        self._clock = clock
        self.index = ObjectIndex(slots_for(self.capacity)) if index is None else index
        self._sharing = Sharing(self.allocator.span, self._release_bytes)
        self._table = ObjectTable(
            self._release_object, self.index, weigh=self._sharing.weigh, tombstone_limit=tombstone_limit
        )
        self._queue = CreateQueue(self._grant)
        self._clients: dict[int, _Client] = {SERVER: _Client("store")}
        self._client_ids = itertools.count(SERVER + 1)
        self._gets: dict[ObjectID, list[GetWait]] = {}
        self._fetches: dict[ObjectID, list[str]] = {}  # the sources that are being tried
        self._deadlines: list[tuple[float, int, GetWait | CreateWait, float]] = []
        self._deadline_order = itertools.count()
        self._outbox: list[Effect] = []
        self._freed = False
        self._sealed_count = 0
        self._sealed_nbytes = 0
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

    # What comes out

    def drain(self) -> list[Effect]:
        """What is to be sent and done because of the calls since the last time."""
        if self._freed:
            self._freed = False
            self._queue.serve()
        if self._spill_policy.is_filling_up and not self._compaction.busy:
            self._spill_policy.go_ahead()
        if not self._outbox:
            return []
        effects = self._outbox.copy()
        self._outbox.clear()
        return effects

    def next_deadline(self) -> float | None:
        """When ``expire`` has something to do, by the clock."""
        while self._deadlines and self._deadlines[0][2].done:
            heapq.heappop(self._deadlines)
        due = self._deadlines[0][0] if self._deadlines else None
        dues = [each for each in (due, self._spill_policy.again_at, self._compaction.again_at) if each is not None]
        return min(dues, default=None)

    def expire(self) -> None:
        """Fails what has waited until its deadline."""
        now = self._clock()
        if self._spill_policy.resume():
            self._freed = True
        if self._compaction.resume():
            self._freed = True
        while self._deadlines and (self._deadlines[0][2].done or self._deadlines[0][0] <= now):
            _, _, wait, seconds = heapq.heappop(self._deadlines)
            if wait.done:
                continue
            if isinstance(wait, CreateWait):
                self._leave_queue(wait)
                self._reply(wait.client, wait.request, Status.FULL, self._full_message(wait.nbytes, seconds))
            else:
                self._forget_get(wait)
                text = f"object {wait.object_id} is not in this store, {seconds:g} s after it was asked for"
                self._reply(wait.client, wait.request, Status.NOT_FOUND, text)

    # Clients

    def connect(self, name: str) -> int:
        """A client has come; its id."""
        client = next(self._client_ids)
        self._clients[client] = _Client(name)
        return client

    def rename(self, client: int, name: str) -> None:
        """The client says who it is."""
        self._clients[client].name = name

    def disconnect(self, client: int) -> None:
        """Nobody of the client is left, however that came about: so is all that was its."""
        self._forget_requests(client)
        gone = self._clients.pop(client)
        for offset, reservation in gone.reserved.items():
            self._give_up(offset, reservation)
        for lease in gone.leases:
            self._release_rest(lease)
        self._table.release(client)
        self._freed = True  # what it looked at may be spilled now

    def part_with(self, client: int, *, hung_up: bool) -> bool:
        """Nobody talks to the client any more, but its process may live, or a fork of it. Whether it holds anything.

        ``disconnect`` has to follow, once nobody can look at that any more. ``hung_up``: the server ended it.
        """
        self._forget_requests(client)
        state = self._clients[client]
        state.connected = False
        state.name += " (hung up on)" if hung_up else " (disconnected)"
        return bool(state.reserved or state.leases or self._table.has_pins(client))

    def _forget_requests(self, client: int) -> None:
        for get in list(self._clients[client].gets):
            self._forget_get(get)
        for wait in self._queue.of_client(client):
            self._leave_queue(wait)
        self._spill_policy.forget(client)

    def sealed_by(self, client: int) -> list[ObjectID]:
        """The objects that are there because of this client."""
        return [record.object_id for record in self._table.records() if record.sealed_by == client]

    # Room

    def create(self, client: int, request: int, nbytes: int, timeout: float, object_id: ObjectID | None = None) -> None:
        """Room for one object of ``nbytes``. Replied with its offset, or FULL after ``timeout`` seconds.

        With ``object_id``, it's for that object, which is on the index from now on: open.
        """
        if nbytes < 1 or len(self._clients[client].reserved) >= RESERVATIONS_PER_CLIENT:
            raise StoreProtocolError(f"a reservation of {nbytes} bytes, or one too many")
        self._ask(CreateWait(client, request, nbytes, nbytes, object_id), timeout)

    def lease(self, client: int, request: int, nbytes: int, want_nbytes: int, timeout: float, done: list[int]) -> None:
        """A slab of about ``want_nbytes`` for small objects, of at least ``nbytes``.

        Replied with its offset and size. ``done`` are the ends of leases whose rest is given back.
        """
        state = self._clients[client]
        for end in done:
            lease = next((lease for lease in state.leases if lease.end == end), None)
            if lease is None:
                raise StoreProtocolError(f"no lease of it ends at {end}")
            state.leases.remove(lease)
            self._release_rest(lease)
        if not 1 <= nbytes <= min(want_nbytes, LARGE_NBYTES) or len(state.leases) >= LEASES_PER_CLIENT:
            raise StoreProtocolError(f"a lease of {nbytes} to {want_nbytes} bytes, or one too many")
        share = self.capacity // (16 * len(self._clients))
        want_nbytes = max(nbytes, min(want_nbytes, LEASE_NBYTES_MAX, share))
        self._ask(CreateWait(client, request, nbytes, want_nbytes, lease=True), timeout)

    def abort(self, client: int, offset: int) -> None:
        """A reservation is given back unsealed."""
        reservation = self._clients[client].reserved.pop(offset, None)
        if reservation is None:
            raise StoreProtocolError(f"nothing is reserved for it at {offset}")
        self._give_up(offset, reservation)

    def cancel(self, client: int, request: int) -> bool:
        """A request for room isn't wanted any more. False if it was answered already."""
        for wait in self._queue.of_client(client):
            if wait.request == request:
                self._leave_queue(wait)
                return True
        return False

    def _ask(self, wait: CreateWait, timeout: float) -> None:
        if footprint(wait.nbytes) > self.capacity:
            text = (
                f"{format_size(wait.nbytes)} requested, more than the {format_size(self.capacity)} that the store has"
            )
            self._reply(wait.client, wait.request, Status.FULL, text + self._who_holds())
        elif not self._queue.offer(wait):
            if timeout <= 0:
                self._leave_queue(wait)
                self._reply(wait.client, wait.request, Status.FULL, self._full_message(wait.nbytes, 0))
            elif len(self._queue.of_client(wait.client)) > WAITS_PER_CLIENT:
                raise StoreProtocolError("it waits for room too many times over")
            else:
                self._set_deadline(wait, timeout)

    def _leave_queue(self, wait: CreateWait) -> None:
        self._queue.remove(wait)
        self._freed = True  # the next in line may be smaller

    def _grant(self, wait: CreateWait) -> bool:
        state = self._clients[wait.client]
        placed = self._place(wait.want_nbytes, wait.nbytes, small=wait.lease or wait.nbytes <= SMALL_NBYTES)
        if placed is None:
            return False
        offset, nbytes = placed
        if wait.lease:
            nbytes = footprint(nbytes)
            state.leases.append(_Lease(offset, offset + nbytes))
        else:
            slot = self.index.add(wait.object_id, offset, nbytes, is_open=True) if wait.object_id else 0
            state.reserved[offset] = _Reservation(nbytes, wait.object_id, slot)
        self._reply(wait.client, wait.request, Status.OK, offset, nbytes)
        return True

    def _place(self, want_nbytes: int, nbytes: int, *, small: bool) -> tuple[int, int] | None:
        # The one place where the store finds out that there is no room: what could be given up for
        # the newcomer is decided here, before the request has to wait.
        offset = self.allocator.allocate(want_nbytes, small=small)
        if offset is not None:
            return offset, want_nbytes
        if nbytes < want_nbytes:
            offset = self.allocator.allocate(nbytes, small=small)
            if offset is not None:
                return offset, nbytes
        if self._compaction.make_room(nbytes):
            offset = self.allocator.allocate(nbytes, small=small)
            if offset is None:
                offset = self.allocator.allocate_apart(nbytes)
        return None if offset is None else (offset, nbytes)

    def _release_object(self, record: ObjectRecord) -> None:
        if record.in_file is None:
            self._sharing.release(record)
        else:
            self._outbox.append(Drop(record.in_file))

    def _release_bytes(self, offset: int, nbytes: int) -> None:
        self._compaction.free(offset, nbytes)
        self._freed = True

    def _give_up(self, offset: int, reservation: _Reservation) -> None:
        if reservation.slot:
            self.index.remove(reservation.slot)
        self._release_bytes(offset, footprint(reservation.nbytes))

    def _release_rest(self, lease: _Lease) -> None:
        if lease.cursor < lease.end:
            self._release_bytes(lease.cursor, lease.end - lease.cursor)

    # Moving and spilling

    def continue_search(self) -> None:
        """The next turn of the loop after ``GoOn``."""
        if self._compaction.continue_search():
            self._freed = True

    def moved(self, *, done: bool = True) -> None:
        """The copies of a ``Move`` have ended; not ``done``: they were cut short."""
        self._compaction.moved(done=done)
        self._freed = True

    def spill_done(self, extents: list[SpillExtent | None], error: str | None = None) -> None:
        """A batch has ended: where each of its objects is now, None if it isn't in a file, and why."""
        self._spill_policy.done(extents, error)
        self._compaction.spilled()
        self._freed = True

    def verified(self, extent: SpillExtent, error: str | None = None, *, lost: bool = False) -> None:
        """A spilled object is as it was, and who waits may look; or it can't be read, or is ``lost`` altogether."""
        self._spill_policy.verified(extent, error, lost=lost)

    def lose(self, object_id: ObjectID, extent: SpillExtent) -> None:
        """What the object is in a file is damaged: the object isn't here any more, but may come from elsewhere."""
        self._spill_policy.lose(object_id, extent)

    # Seals

    def seal(self, client: int, items: Iterable[SealItem]) -> None:
        """Objects that the client has written. With ``keep`` the client has one pin on it from the start."""
        for item in items:
            self._add(client, item, self._take_to_seal(client, item))
        self._freed = True  # what is sealed may be spilled

    def share(self, client: int, request: int, item: SealItem, nbytes: int, shares: list[Share]) -> None:
        """An object that the client has written but for what it shares with others; ``item`` is about what was written.

        Replied with whether it is sealed: not if one of the others isn't in the arena any more. What was written is the
        client's still then.
        """
        borrowed: list[tuple[ObjectRecord, Segment]] = []
        for share in shares:
            lender = self._table.find(share.lender)
            if lender is None or lender.in_file is not None:
                self._reply(client, request, Status.OK, False)
                return
            offset = lender.locate(share.at, share.nbytes)
            if offset is None:
                raise StoreProtocolError(f"{share.nbytes} bytes at {share.at} are not object {share.lender}'s to share")
            borrowed.append((lender, Segment(share.start, offset, share.nbytes)))
        segments = lay_out(nbytes, item.offset, item.nbytes, [segment for _, segment in borrowed])
        reserved = self._clients[client].reserved.get(item.offset)
        if reserved is not None and reserved.object_id is not None:
            raise StoreProtocolError(f"the bytes at {item.offset} were reserved for the whole of an object")
        reservation = self._take_to_seal(client, item)
        if not self._table.knows(item.object_id):
            for lender, segment in borrowed:
                self._sharing.borrow(lender, segment)
        self._add(client, item, reservation, nbytes, segments)
        self._reply(client, request, Status.OK, True)

    def _take_to_seal(self, client: int, item: SealItem) -> _Reservation:
        """The bytes that are sealed aren't the client's any more."""
        state = self._clients[client]
        if item.keep and self._table.knows(item.object_id):
            raise StoreProtocolError(f"object {item.object_id} was sealed before")
        reservation = state.reserved.get(item.offset)
        if reservation is None:
            self._seal_in_lease(state, item.offset, item.nbytes)
            return _Reservation(item.nbytes, item.object_id, 0)
        if reservation.nbytes != item.nbytes:
            raise StoreProtocolError(f"{reservation.nbytes} bytes were reserved for an object of {item.nbytes}")
        if reservation.object_id not in (None, item.object_id):
            raise StoreProtocolError(f"the bytes at {item.offset} were reserved for another object")
        del state.reserved[item.offset]
        return reservation

    def _seal_in_lease(self, state: _Client, offset: int, nbytes: int) -> None:
        if offset % ALIGNMENT == 0 and 1 <= nbytes < LARGE_NBYTES:
            end = offset + footprint(nbytes)
            for lease in state.leases:
                if lease.cursor <= offset and end <= lease.end:
                    if lease.cursor < offset:
                        self._release_bytes(lease.cursor, offset - lease.cursor)
                    lease.cursor = end
                    return
        raise StoreProtocolError(f"{nbytes} bytes at {offset} are not its own to seal")

    def _add(
        self,
        client: int,
        item: SealItem,
        reservation: _Reservation,
        nbytes: int | None = None,
        segments: tuple[Segment, ...] = (),
    ) -> None:
        object_id = item.object_id
        if self._table.knows(object_id):
            # Brought in twice, and the first one is as good: ids are unique.
            self._give_up(item.offset, reservation)
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
            created=self._clock(),
            sealed_by=client,
        )
        if segments and record.borrowed():
            self._sharing.members[object_id] = record
        self._table.insert(record, reservation.slot)
        self._sealed_count += 1
        self._sealed_nbytes += item.nbytes
        if item.keep:
            self._table.pin(record, client)
        if deleted:  # before it was sealed; who made it may look at it all the same
            self._table.delete(object_id)
            return
        for get in self._gets.pop(object_id, ()):
            get.done = True
            self._clients[get.client].gets.discard(get)
            if get.pins:
                self._pin_for(record, get.client, get.request)
            else:
                self._reply(get.client, get.request, Status.OK, True)

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
            self._reply(client, request, Status.NOT_FOUND, f"object {object_id} was deleted")
        else:
            get = GetWait(client, request, object_id, sources if fetching else [])
            self._wait_for(get)
            if timeout or (fetching and timeout is not None):
                self._set_deadline(get, timeout)
            elif not fetching:
                self._outbox.append(ReadOthers(get))
            if fetching and object_id not in self._fetches:
                self._start_fetch(object_id, sources)

    def ask(self, client: int, request: int, object_id: ObjectID) -> None:
        """Whether the object is there for those who ask. Replied with that."""
        if object_id in self._table or self._table.was_deleted(object_id):
            self._reply(client, request, Status.OK, object_id in self._table)
            return
        get = GetWait(client, request, object_id, [], pins=False)
        self._wait_for(get)
        self._outbox.append(ReadOthers(get))

    def others_read(self, get: GetWait) -> None:
        """All that was sent before the request has been read: the object isn't there."""
        if get.done:
            return
        self._forget_get(get)
        if get.pins:
            self._reply(get.client, get.request, Status.NOT_FOUND, f"object {get.object_id} is not in this store")
        else:
            self._reply(get.client, get.request, Status.OK, False)

    def _wait_for(self, get: GetWait) -> None:
        waiting = self._clients[get.client].gets
        if len(waiting) >= WAITS_PER_CLIENT:
            raise StoreProtocolError("it waits for too many objects")
        waiting.add(get)
        self._gets.setdefault(get.object_id, []).append(get)

    def _start_fetch(self, object_id: ObjectID, sources: list[str]) -> None:
        self._fetches[object_id] = sources
        self._outbox.append(StartFetch(object_id, sources))

    def fetch_done(
        self,
        object_id: ObjectID,
        error: str | None,
        status: Status = Status.FETCH_FAILED,
        *,
        try_others: bool = True,
    ) -> None:
        """A fetch has ended. Who still waits for it fails, unless they know sources that weren't tried.

        Their sources are tried then, if ``try_others``, those of the first of them first.
        """
        tried = self._fetches.pop(object_id, [])
        text = error or f"object {object_id} was fetched, but isn't here"
        for get in [get for get in self._gets.get(object_id, ()) if get.sources]:
            get.sources = [source for source in get.sources if source not in tried] if try_others else []
            if not get.sources:
                self._forget_get(get)
                self._reply(get.client, get.request, status, text)
            elif object_id not in self._fetches:
                self._start_fetch(object_id, get.sources)

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
        self._freed = True  # what nobody looks at may be spilled

    def last_unpins(self, slots: Iterable[int]) -> None:
        """Counters of these slots of the index have gone to zero while the server waited for them."""
        for slot in slots:
            self._table.last_unpin(slot)
        self._freed = True  # what nobody looks at may be spilled

    def _pin_for(self, record: ObjectRecord, client: int, request: int) -> None:
        if record.in_file is not None:
            self._spill_policy.show(record, client, request)
            return
        self._table.pin(record, client)
        self._reply(client, request, Status.OK, record.offset, record.nbytes, None, record.segments or None)

    def _forget_get(self, get: GetWait) -> None:
        get.done = True
        self._clients[get.client].gets.discard(get)
        waiting = self._gets[get.object_id]
        waiting.remove(get)
        if not waiting:
            del self._gets[get.object_id]

    # Deleting and looking

    def delete(self, object_ids: Iterable[ObjectID]) -> None:
        """The objects vanish; a seal that comes later than its delete vanishes with it."""
        for object_id in object_ids:
            self._table.delete(object_id)
            for get in list(self._gets.get(object_id, ())):
                self._forget_get(get)
                if get.pins:
                    self._reply(get.client, get.request, Status.NOT_FOUND, f"object {object_id} was deleted")
                else:
                    self._reply(get.client, get.request, Status.OK, False)

    def contains(self, object_id: ObjectID) -> bool:
        """Whether the object is there for those who ask."""
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
        doomed = list(self._table.doomed())
        reserved = [each.nbytes for client in self._clients.values() for each in client.reserved.values()]
        return {
            "capacity": self.capacity,
            "used": self.allocator.used_nbytes,
            "free": max(0, self.allocator.free_nbytes),
            "largest_free": self.allocator.largest_free_nbytes(),
            "apart": self.allocator.apart_nbytes,
            "objects": self.count,
            "object_nbytes": sum(nbytes for nbytes, _ in self._table.held_by.values()),
            "sealed": self._sealed_count,  # ever, and the bytes that were written for them
            "sealed_nbytes": self._sealed_nbytes,
            "shared_nbytes": self._sharing.shared_nbytes,
            **self._spill_policy.stats(),
            **self._compaction.stats(),
            "deleted_but_pinned": len(doomed),
            "deleted_but_pinned_nbytes": sum(record.nbytes for record in doomed),
            "deleted_but_pinned_by": self._viewers(doomed)[:_VIEWERS_LISTED],
            "reserved": len(reserved),
            "reserved_nbytes": sum(reserved),
            "leased_nbytes": sum(
                lease.end - lease.cursor for client in self._clients.values() for lease in client.leases
            ),
            "pins": self._table.pin_count(),
            "waiting_creates": len(self._queue),
            "waiting_gets": sum(map(len, self._gets.values())),
            "fetches": len(self._fetches),
            "clients": sum(client.connected for client in self._clients.values()) - 1,
            "quarantined": sum(not client.connected for client in self._clients.values()),
            "tombstones": self._table.tombstone_count(),
            "held_by": {owner: nbytes for owner, (nbytes, _) in self._table.held_by.items()},
        }

    def describe(self, start: int = 0, limit: int | None = None) -> list[dict[str, Any]]:
        """The objects, and the bytes reserved for ones to come, from the ``start``-th on."""
        now = self._clock()
        stop = None if limit is None else start + limit
        return [*itertools.islice(self._descriptions(now), start, stop)]

    def _descriptions(self, now: float) -> Iterator[dict[str, Any]]:
        for record, pins in self._table.pins_of(itertools.chain(self._table.records(), self._table.doomed())):
            yield {
                "id": record.object_id.hex(),
                "key": record.key,
                "owner": record.owner,
                "type": record.type_name,
                "nbytes": record.nbytes,
                "age": now - record.created,
                "pins": sum(pins.values()),
                "pinned_by": [self._clients[client].name for client in pins],
                "state": record.state.value,
            }
        for client in self._clients.values():
            for reservation in client.reserved.values():
                yield {
                    "id": None if reservation.object_id is None else reservation.object_id.hex(),
                    "key": None,
                    "owner": client.name,
                    "type": None,
                    "nbytes": reservation.nbytes,
                    "age": None,
                    "pins": 0,
                    "pinned_by": [],
                    "state": "created",
                }

    def _full_message(self, nbytes: int, waited: float) -> str:
        text = (
            f"{format_size(nbytes)} requested, {format_size(max(0, self.allocator.free_nbytes))} free"
            f" of {format_size(self.capacity)}"
        )
        if nbytes <= self.allocator.free_nbytes:
            text += f", the largest piece {format_size(self.allocator.largest_free_nbytes())}"
        if waited:
            text += f" after {waited:g} s" + self._walled_in_by(nbytes)
        text += self._who_holds()
        if self._spill_policy.error is not None:
            text += f"; spilling to disk failed: {self._spill_policy.error}"
        if self._why_not_spilled:
            text += f"; nothing was moved to disk: {self._why_not_spilled}"
        return text

    def _walled_in_by(self, nbytes: int) -> str:
        """What stands in a request's way, if there would be room enough for it altogether; for an error's text."""
        extents = [Obstacle(offset, offset + size, None) for offset, size in self.allocator.free_extents()]
        extents += [Obstacle(offset, offset + size, None) for offset, size in self._compaction.taken()]
        if self.count + len(extents) > EXTENTS_MAX:
            return ""
        in_arena = (record for record in [*self._table.records(), *self._table.doomed()] if record.in_file is None)
        pins_of: dict[ObjectRecord, dict[int, int]] = {}
        users: dict[int, ObjectRecord] = {}  # of shared stretches, by their starts: one that is looked at
        for record, pins in self._table.pins_of(in_arena):
            if pins:
                pins_of[record] = pins
                users.update((stretch.start, record) for stretch in self._sharing.stretches_of(record))
            if not record.lent:
                end = record.offset + footprint(record.own_nbytes)
                extents.append(Obstacle(record.offset, end, record if pins else None))
        extents += [Obstacle(start, end, users.get(start)) for start, end, _ in self._sharing.stretches()]
        for client in self._clients.values():
            for offset, reserved in client.reserved.items():
                extents.append(Obstacle(offset, offset + footprint(reserved.nbytes), client))
            extents += [
                Obstacle(lease.cursor, lease.end, client) for lease in client.leases if lease.cursor < lease.end
            ]
        may_go = sum(extent.end - extent.start for extent in extents if extent.what is None)
        if footprint(nbytes) > (may_go if self._spill_policy.enabled else self.allocator.free_nbytes):
            return ""  # it's full, whatever lies where
        in_the_way = obstacles(extents, nbytes)
        named = []
        for what, size in in_the_way[:_WALLS_NAMED]:
            if isinstance(what, ObjectRecord):
                viewers = ", ".join(f"'{self._clients[client].name}'" for client in [*pins_of[what]][:_HOLDERS_NAMED])
                named.append(f"{format_size(size)} of '{what.key or what.object_id}' looked at by {viewers}")
            elif isinstance(what, _Client):
                named.append(f"{format_size(size)} not yet sealed by '{what.name}'")
        if not named:
            return ""
        more = f" and {len(in_the_way) - len(named)} more" if len(in_the_way) > len(named) else ""
        return (
            f"; the best place for it is walled in by {', '.join(named)}{more}: it fits as soon as these are let go of"
        )

    def _who_holds(self) -> str:
        """What takes up the space, as the end of an error's text."""
        text = ""
        holders: dict[str, tuple[int, str]] = {
            owner: (held, f"client '{owner}' {format_size(held)} ({count} {'object' if count == 1 else 'objects'})")
            for owner, (held, count) in self._table.held_by.items()
        }
        for client in self._clients.values():
            if client.reserved:
                held = sum(reservation.nbytes for reservation in client.reserved.values())
                holders[f"\0{client.name}"] = held, f"client '{client.name}' {format_size(held)} not yet sealed"
        largest = sorted(holders.values(), reverse=True, key=operator.itemgetter(0))[:_HOLDERS_NAMED]
        if largest:
            text += "; largest holders: " + ", ".join(name for _, name in largest)
            if self._sharing.shared_nbytes:
                text += f"; {format_size(self._sharing.shared_nbytes)} of it are shared, and counted more than once"
        doomed = [record for record in self._table.doomed() if record.in_file is None]
        if doomed:
            named = ", ".join(f"'{name}'" for name in self._viewers(doomed)[:_HOLDERS_NAMED])
            nbytes = sum(record.nbytes for record in doomed)
            text += f"; {format_size(nbytes)} deleted but still viewed by {named}"
        return text + (self._who_looks() if self._spill_policy.enabled else "")

    def _who_looks(self) -> str:
        """What can't be spilled because it's looked at, as the end of an error's text."""
        total = 0
        viewed: dict[str, int] = {}
        for record, pins in self._table.pins_of(self._table.records()):
            if pins and record.in_file is None:
                total += record.nbytes
                for client in pins:
                    name = self._clients[client].name
                    viewed[name] = viewed.get(name, 0) + record.nbytes
        if not total:
            return ""
        largest = sorted(viewed.items(), reverse=True, key=operator.itemgetter(1))[:_HOLDERS_NAMED]
        named = ", ".join(f"'{name}' {format_size(nbytes)}" for name, nbytes in largest)
        return f"; {format_size(total)} can't go to disk while it's looked at, most of it by {named}"

    def _viewers(self, records: Iterable[ObjectRecord]) -> list[str]:
        return sorted({self._clients[client].name for _, pins in self._table.pins_of(records) for client in pins})

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
        assert len(listed) == len(set(listed)), "a place on the index is two objects'"
        self._spill_policy.check(records)
        self._compaction.check(records)
        self._sharing.check(in_arena)
        waits = [get for client in self._clients.values() for get in client.gets]
        assert {get for gets in self._gets.values() for get in gets} == set(waits)
        assert all(object_id not in self._table for object_id in self._gets)
        assert all(get.object_id in self._fetches for get in waits if get.sources)

    # Deadlines and replies

    def _set_deadline(self, wait: GetWait | CreateWait, timeout: float) -> None:
        if len(self._deadlines) > 64 and len(self._deadlines) > 2 * (len(self._queue) + len(self._gets)):
            self._deadlines = [entry for entry in self._deadlines if not entry[2].done]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (self._clock() + timeout, next(self._deadline_order), wait, timeout))

    def _reply(self, client: int, request: int, status: Status, *payload: Any) -> None:
        self._outbox.append(Reply(client, request, status, payload))
