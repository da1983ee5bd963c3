"""The table of objects: which there are, what pins them, and when their bytes are free again.

What can be derived isn't stored, with one exception that is needed when every microsecond counts least
and every byte most: the bytes of the arena that each owner holds, for the error of a full store.
``_enter`` and ``_leave_arena`` are the only places that change it; ``in_files`` counts the others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from holdfast.objectstore.core.address_map import AddressMap
from holdfast.objectstore.core.eviction import Eviction
from holdfast.objectstore.core.object_index import ObjectIndex
from holdfast.objectstore.core.objects import LEAVING, MOVES, VISIBLE, ObjectRecord, SpillExtent, State
from holdfast.objectstore.shared.ids import ObjectID


class ObjectTable:
    """Every object that takes up bytes, with its pins, and the ids that were deleted.

    Parameters
    ----------
    free : callable
        Called with the record when an object's bytes, in the arena or in a file, are no object's any more.
    index : ObjectIndex
        Where clients find and pin objects by themselves.
    weigh : callable
        The bytes of the arena that are an object's.
    tombstone_limit : int
        How many deleted ids are remembered; the oldest are forgotten first.

    Attributes
    ----------
    eviction : Eviction
        Which of them may go.
    addresses : AddressMap
        Where those are that are in the arena.
    sealed_count, sealed_nbytes : int
        The objects that were ever sealed, and the bytes that were written for them.
    """

    def __init__(
        self,
        free: Callable[[ObjectRecord], None],
        index: ObjectIndex,
        *,
        weigh: Callable[[ObjectRecord], int],
        tombstone_limit: int,
    ) -> None:
        self._free = free
        self._index = index
        self._tombstone_limit = tombstone_limit
        self._sealed: dict[ObjectID, ObjectRecord] = {}
        self._doomed: dict[ObjectID, ObjectRecord] = {}
        self._doomed_at: dict[int, ObjectRecord] = {}  # by slot, those that have one
        self._pinned_by: dict[int, set[ObjectID]] = {}
        self.eviction = Eviction(index, weigh)
        self.addresses = AddressMap()
        self._tombstones: OrderedDict[ObjectID, None] = OrderedDict()  # a dictionary's oldest is dear to find
        self.held_by: dict[str, tuple[int, int]] = {}  # owner -> (bytes in the arena, objects there)
        self.in_files = (0, 0)  # bytes, objects
        self.sealed_count = 0
        self.sealed_nbytes = 0

    def __len__(self) -> int:
        return len(self._sealed)

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._sealed

    def get(self, object_id: ObjectID) -> ObjectRecord | None:
        """The object, if it's there for clients that ask."""
        return self._sealed.get(object_id)

    def find(self, object_id: ObjectID) -> ObjectRecord | None:
        """The object, though it may be doomed."""
        return self._sealed.get(object_id) or self._doomed.get(object_id)

    def knows(self, object_id: ObjectID) -> bool:
        """Whether there are bytes of an object with this id, doomed ones included."""
        return object_id in self._sealed or object_id in self._doomed

    def was_deleted(self, object_id: ObjectID) -> bool:
        """Whether a delete of this id is remembered."""
        return object_id in self._tombstones

    def insert(self, record: ObjectRecord, slot: int = 0) -> None:
        """A new object appears, which was open at ``slot`` of the index if that isn't 0.

        If its id was deleted already, ``delete`` has to follow.
        """
        assert not self.knows(record.object_id)
        self._sealed[record.object_id] = record
        if slot:
            self._index.seal(slot)
        elif not record.segments:  # the index has one place for each object
            slot = self._index.add(record.object_id, record.offset, record.nbytes)
        record.slot = slot
        self.sealed_count += 1
        self.sealed_nbytes += record.own_nbytes
        self._enter(record)
        self.eviction.offer(record)

    def adopt(self, record: ObjectRecord, extent: SpillExtent) -> None:
        """A new object appears that is in a file, and never was in the arena.

        If its id was deleted already, ``delete`` has to follow.
        """
        assert not self.knows(record.object_id)
        record.in_file = extent
        record.state = State.SPILLED
        self._sealed[record.object_id] = record
        self.in_files = (self.in_files[0] + record.nbytes, self.in_files[1] + 1)

    def delete(self, object_id: ObjectID) -> bool:
        """The object vanishes, its bytes with its last pin; the id leaves a tombstone. Whether it was there."""
        if object_id not in self._tombstones:
            self._tombstones[object_id] = None
            if len(self._tombstones) > self._tombstone_limit:
                self._tombstones.popitem(last=False)
        return self.lose(object_id)

    def lose(self, object_id: ObjectID) -> bool:
        """The object vanishes like a deleted one, but its id may come again. Whether it was there."""
        record = self._sealed.pop(object_id, None)
        if record is None:
            return False
        self.eviction.forget(record)
        viewed = record.slot != 0 and self._index.withdraw(record.slot)
        if record.pins or viewed:
            self._move(record, State.DOOMED)
            self._doomed[object_id] = record
            if record.slot:
                self._doomed_at[record.slot] = record
        else:
            self._leave(record)
        return True

    def forget(self, object_id: ObjectID) -> bool:
        """The object vanishes if no client looks at it, and its id may come again. Whether it isn't there."""
        record = self._sealed.get(object_id)
        if record is None:
            return True
        if record.pins or (record.slot and self._index.pinned(record.slot)):
            return False
        return self.lose(object_id)

    def last_unpin(self, slot: int) -> None:
        """A counter of the slot has gone to zero: if no client looks at the object there, it goes, or may."""
        self.eviction.last_unpin(slot)
        record = self._doomed_at.get(slot)
        if record is not None:
            self._leave_if_unseen(record)

    def pin(self, record: ObjectRecord, client: int) -> None:
        """One more look at the object by ``client``."""
        pins = record.pins
        if client in pins:
            pins[client] += 1
            return
        if record.state in LEAVING:
            self._move(record, State.SEALED)
        self.eviction.forget(record)
        pins[client] = 1
        self._pinned_by.setdefault(client, set()).add(record.object_id)

    def unpin(self, object_id: ObjectID, client: int) -> bool:
        """One look less. Whether ``client`` had one."""
        record = self.find(object_id)
        if record is None or client not in record.pins:
            return False
        record.pins[client] -= 1
        if not record.pins[client]:
            self._pinned_by[client].discard(object_id)
            self._drop_pins(record, client)
        return True

    def has_pins(self, client: int) -> bool:
        """Whether the client, which is hung up on and can take no more pins, looks at anything."""
        on_index = self._index.refuse_pins(client)
        return on_index or bool(self._pinned_by.get(client))

    def release(self, client: int) -> None:
        """All pins of a client that is no more."""
        self._index.detach(client)
        for record in list(self._doomed_at.values()):
            self._leave_if_unseen(record)
        self.eviction.recheck_all()
        for object_id in self._pinned_by.pop(client, ()):
            self._drop_pins(self._sealed.get(object_id) or self._doomed[object_id], client)

    # SpillPolicy and moving

    def victims(self, nbytes: int) -> list[ObjectRecord]:
        """Objects whose going would free ``nbytes`` of the arena, or all that can go. They're spilling now."""
        victims = self.eviction.victims(nbytes)
        for record in victims:
            self._move(record, State.SPILLING)
        return victims

    def may_go(self, record: ObjectRecord) -> bool:
        """Whether no client looks at an object in the arena. If one has pinned it, the last unpin will be told."""
        if record.state is not State.SEALED or record.pins:
            return False
        return self.eviction.may_go(record)

    def choose(self, record: ObjectRecord, state: State) -> None:
        """An object that may go, and is spilling or moving now."""
        self.eviction.forget(record)
        self._move(record, state)

    def spilled(self, record: ObjectRecord, extent: SpillExtent) -> bool:
        """The object was copied to a file. Whether that's where it is now: not if it is looked at, or deleted.

        Its bytes in the arena are the caller's to free then.
        """
        if record.state is not State.SPILLING or not self._leaves_unseen(record):
            return False
        if record.slot:
            self._index.remove(record.slot)
            record.slot = 0
        self._move(record, State.SPILLED)
        self._leave_arena(record)
        record.in_file = extent
        self.in_files = (self.in_files[0] + record.nbytes, self.in_files[1] + 1)
        return True

    def moved(self, record: ObjectRecord, offset: int) -> bool:
        """The object was copied to ``offset``. Whether that's where it is now: not if it's looked at, lent, or deleted.

        Its bytes at the place where it was before are the caller's to free then.
        """
        if record.state is not State.MOVING:
            return False
        if record.lent:
            self.stay(record)
            return False
        if not self._leaves_unseen(record):
            return False
        self.addresses.remove(record)
        record.offset = offset
        self.addresses.add(record)
        if record.slot:
            self._index.move(record.slot, offset)
        self.stay(record)
        return True

    def _leaves_unseen(self, record: ObjectRecord) -> bool:
        """Whether no client looks at an object that leaves its place, which is withdrawn then. Else it stays."""
        if record.slot and self._index.withdraw(record.slot):
            self._move(record, State.SEALED)
            self.eviction.await_views(record)
            return False
        return True

    def stay(self, record: ObjectRecord) -> None:
        """The object is, or was moved, in the arena: it may be chosen again, after the others."""
        if record.state in LEAVING:
            self._move(record, State.SEALED)
            self.eviction.offer(record)

    # Looking

    def records(self) -> Iterator[ObjectRecord]:
        """Every object that is there for clients that ask, the oldest first."""
        return iter(self._sealed.values())

    def doomed(self) -> Iterator[ObjectRecord]:
        """Every deleted object that a client still looks at."""
        return iter(self._doomed.values())

    def pin_count(self) -> int:
        """All pins of all clients."""
        pinned = {object_id for ids in self._pinned_by.values() for object_id in ids}
        asked_for = sum(sum((self._sealed.get(i) or self._doomed[i]).pins.values()) for i in pinned)
        return asked_for + sum(sum(pins.values()) for pins in self._index.pins().values())

    def pins_of(self, records: Iterable[ObjectRecord]) -> Iterator[tuple[ObjectRecord, dict[int, int]]]:
        """Each of the records with all of its pins, by client."""
        on_index = self._index.pins()
        for record in records:
            pins = dict(record.pins)
            for client, count in on_index.get(record.slot, {}).items() if record.slot else ():
                pins[client] = pins.get(client, 0) + count
            yield record, pins

    def tombstone_count(self) -> int:
        """How many deleted ids are remembered."""
        return len(self._tombstones)

    def check(self) -> None:
        """Asserts what must hold between any two events."""
        everything = [*self._sealed.values(), *self._doomed.values()]
        held: dict[str, tuple[int, int]] = {}
        for record in everything:
            assert (record.in_file is None) or record.state in (State.SPILLED, State.DOOMED)
            evictable = record.state is State.SEALED and not record.pins
            assert (record in self.eviction) == evictable
            if record.in_file is None:
                nbytes, count = held.get(record.owner, (0, 0))
                held[record.owner] = (nbytes + record.nbytes, count + 1)
            assert all(count > 0 for count in record.pins.values())
            for client in record.pins:
                assert record.object_id in self._pinned_by[client]
        assert held == self.held_by
        in_files = [record.nbytes for record in everything if record.in_file is not None]
        assert self.in_files == (sum(in_files), len(in_files))
        assert len(self.eviction) <= len(self._sealed)
        in_arena = {record.offset: record for record in everything if record.in_file is None}
        assert {record.offset: record for record in self.addresses} == in_arena
        assert all(record.state in VISIBLE for record in self._sealed.values())
        assert not any(record.pins for record in self._sealed.values() if record.state in LEAVING)
        assert not any(record.slot for record in everything if record.in_file is not None)
        assert all(record.state is State.DOOMED for record in self._doomed.values())
        # One whose last counter has gone to zero is there until the client's word of it has come.
        assert all(record.pins or record.slot for record in self._doomed.values())
        assert {record.slot for record in self._doomed.values() if record.slot} == self._doomed_at.keys()
        assert not self._sealed.keys() & self._tombstones.keys()
        assert sum(map(len, self._pinned_by.values())) == sum(len(record.pins) for record in everything)
        assert len(self._tombstones) <= self._tombstone_limit

    def _drop_pins(self, record: ObjectRecord, client: int) -> None:
        del record.pins[client]
        if record.state is State.DOOMED:
            self._leave_if_unseen(record)
        elif record.state is State.SEALED and not record.pins:
            self.eviction.offer(record)

    def _leave_if_unseen(self, record: ObjectRecord) -> None:
        """Lets a doomed object go, if no client has a pin on it."""
        if record.pins or (record.slot and self._index.pinned(record.slot)):
            return
        del self._doomed[record.object_id]
        self._doomed_at.pop(record.slot, None)
        self._leave(record)

    def _enter(self, record: ObjectRecord) -> None:
        nbytes, count = self.held_by.get(record.owner, (0, 0))
        self.held_by[record.owner] = (nbytes + record.nbytes, count + 1)
        self.addresses.add(record)

    def _leave(self, record: ObjectRecord) -> None:
        self._move(record, State.GONE)
        if record.slot:
            self._index.remove(record.slot)
        if record.in_file is None:
            self._leave_arena(record)
        else:
            self.in_files = (self.in_files[0] - record.nbytes, self.in_files[1] - 1)
        self._free(record)

    def _leave_arena(self, record: ObjectRecord) -> None:
        self.addresses.remove(record)
        nbytes, count = self.held_by.pop(record.owner)
        if count > 1:
            self.held_by[record.owner] = (nbytes - record.nbytes, count - 1)

    @staticmethod
    def _move(record: ObjectRecord, state: State) -> None:
        assert state in MOVES[record.state], (record.state, state)
        record.state = state
