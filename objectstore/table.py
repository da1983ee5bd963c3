"""The table of objects: which there are, who looks at them, and when their bytes are free again.

An object that somebody looks at outlives its deletion: it is *doomed*, invisible to everybody who asks,
its bytes in place until the last pin goes. There are two kinds of pins: those that were asked for by message
are counted here, by client, those that clients take by themselves on the board (``board.py``). The moves that
exist are data::

    sealed ──delete, pinned──► doomed ──last unpin──► gone
       └─────delete, not pinned───────────────────────► gone

What can be derived isn't stored, with one exception that is needed when every microsecond counts least
and every byte most: the bytes that each owner holds, for the error of a full store. ``_enter`` and
``_leave`` are the only places that change it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Iterator

from holdfast.objectstore.allocator import footprint
from holdfast.objectstore.board import Board
from holdfast.objectstore.ids import ObjectID


class State(enum.Enum):
    """Where an object is in its life, once its bytes are written."""

    SEALED = "sealed"
    DOOMED = "doomed"
    GONE = "gone"


MOVES: dict[State, frozenset[State]] = {
    State.SEALED: frozenset({State.DOOMED, State.GONE}),
    State.DOOMED: frozenset({State.GONE}),
    State.GONE: frozenset(),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMeta:
    """What the store knows about an object besides its bytes.

    Attributes
    ----------
    object_id : ObjectID or None
        Whose it is; not looked at where the id is given apart.
    key : str or None
        The name it goes by outside, such as a task's key.
    owner : str or None
        Who it is counted for; by default the client that put it.
    type_name : str or None
        The value's type, for people.
    nbytes : int
        Size of the flat encoding in bytes.
    created : float
        When it was sealed here, by the store's clock, in seconds.
    """

    object_id: ObjectID | None = None
    key: str | None = None
    owner: str | None = None
    type_name: str | None = None
    nbytes: int = 0
    created: float = 0.0


class ObjectRecord:
    """One object.

    ``pins`` counts per client; the table keeps it in step with the clients' own sets. ``slot`` is its place on the
    board, or 0.
    """

    __slots__ = (
        "created",
        "key",
        "nbytes",
        "object_id",
        "offset",
        "owner",
        "pins",
        "sealed_by",
        "slot",
        "state",
        "type_name",
    )

    def __init__(
        self,
        object_id: ObjectID,
        offset: int,
        nbytes: int,
        *,
        key: str | None,
        owner: str,
        type_name: str | None,
        created: float,
        sealed_by: int,
    ) -> None:
        self.object_id = object_id
        self.offset = offset
        self.nbytes = nbytes
        self.key = key
        self.owner = owner
        self.type_name = type_name
        self.created = created
        self.sealed_by = sealed_by
        self.state = State.SEALED
        self.slot = 0
        self.pins: dict[int, int] = {}

    def meta(self) -> ObjectMeta:
        """The public part."""
        return ObjectMeta(
            object_id=self.object_id,
            key=self.key,
            owner=self.owner,
            type_name=self.type_name,
            nbytes=self.nbytes,
            created=self.created,
        )


class ObjectTable:
    """Every object that takes up bytes, with its pins, and the ids that were deleted.

    Parameters
    ----------
    free : callable
        Called with ``(offset, nbytes)`` when an object's bytes are nobody's any more.
    board : Board
        Where clients find and pin objects by themselves.
    tombstone_limit : int
        How many deleted ids are remembered; the oldest are forgotten first.
    """

    def __init__(self, free: Callable[[int, int], None], board: Board, *, tombstone_limit: int) -> None:
        self._free = free
        self._board = board
        self._tombstone_limit = tombstone_limit
        self._sealed: dict[ObjectID, ObjectRecord] = {}
        self._doomed: dict[ObjectID, ObjectRecord] = {}
        self._doomed_at: dict[int, ObjectRecord] = {}  # by slot, those that are on the board
        self._pinned_by: dict[int, set[ObjectID]] = {}
        self._tombstones: dict[ObjectID, None] = {}
        self.held_by: dict[str, tuple[int, int]] = {}  # owner -> (bytes, objects), doomed ones included

    def __len__(self) -> int:
        return len(self._sealed)

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._sealed

    def get(self, object_id: ObjectID) -> ObjectRecord | None:
        """The object, if it's there for those who ask."""
        return self._sealed.get(object_id)

    def knows(self, object_id: ObjectID) -> bool:
        """Whether there are bytes of an object with this id, doomed ones included."""
        return object_id in self._sealed or object_id in self._doomed

    def was_deleted(self, object_id: ObjectID) -> bool:
        """Whether a delete of this id is remembered."""
        return object_id in self._tombstones

    def insert(self, record: ObjectRecord, slot: int = 0) -> None:
        """A new object appears, which was open at ``slot`` of the board if that isn't 0.

        If its id was deleted already, ``delete`` has to follow.
        """
        assert not self.knows(record.object_id)
        self._sealed[record.object_id] = record
        if slot:
            self._board.seal(slot)
        record.slot = slot or self._board.add(record.object_id, record.offset, record.nbytes)
        self._enter(record)

    def delete(self, object_id: ObjectID) -> bool:
        """The object vanishes, its bytes with its last pin; the id leaves a tombstone. Whether it was there."""
        if object_id not in self._tombstones:
            self._tombstones[object_id] = None
            if len(self._tombstones) > self._tombstone_limit:
                del self._tombstones[next(iter(self._tombstones))]
        record = self._sealed.pop(object_id, None)
        if record is None:
            return False
        viewed = record.slot != 0 and self._board.doom(record.slot)
        if record.pins or viewed:
            self._move(record, State.DOOMED)
            self._doomed[object_id] = record
            if record.slot:
                self._doomed_at[record.slot] = record
        else:
            self._leave(record)
        return True

    def look(self, slot: int) -> None:
        """A counter of the slot has gone to zero: if nobody looks at the deleted object there, it goes."""
        record = self._doomed_at.get(slot)
        if record is not None:
            self._leave_if_unseen(record)

    def pin(self, record: ObjectRecord, client: int) -> None:
        """One more look at the object by ``client``."""
        pins = record.pins
        if client in pins:
            pins[client] += 1
            return
        pins[client] = 1
        self._pinned_by.setdefault(client, set()).add(record.object_id)

    def unpin(self, object_id: ObjectID, client: int) -> bool:
        """One look less. Whether ``client`` had one."""
        record = self._sealed.get(object_id) or self._doomed.get(object_id)
        if record is None or client not in record.pins:
            return False
        record.pins[client] -= 1
        if not record.pins[client]:
            self._pinned_by[client].discard(object_id)
            self._drop_pins(record, client)
        return True

    def has_pins(self, client: int) -> bool:
        """Whether the client, which is hung up on and can take no more pins, looks at anything."""
        on_board = self._board.dismiss(client)
        return on_board or bool(self._pinned_by.get(client))

    def release(self, client: int) -> None:
        """All pins of a client that is no more."""
        self._board.detach(client)
        for record in list(self._doomed_at.values()):
            self._leave_if_unseen(record)
        for object_id in self._pinned_by.pop(client, ()):
            self._drop_pins(self._sealed.get(object_id) or self._doomed[object_id], client)

    def records(self) -> Iterator[ObjectRecord]:
        """Every sealed object, the oldest first."""
        return iter(self._sealed.values())

    def doomed(self) -> Iterator[ObjectRecord]:
        """Every deleted object that somebody still looks at."""
        return iter(self._doomed.values())

    def pin_count(self) -> int:
        """All pins of all clients."""
        pinned = {object_id for ids in self._pinned_by.values() for object_id in ids}
        asked_for = sum(sum((self._sealed.get(i) or self._doomed[i]).pins.values()) for i in pinned)
        return asked_for + sum(sum(pins.values()) for pins in self._board.pins().values())

    def pins_of(self, records: Iterable[ObjectRecord]) -> Iterator[tuple[ObjectRecord, dict[int, int]]]:
        """Each of the records with all of its pins, by client."""
        on_board = self._board.pins()
        for record in records:
            pins = dict(record.pins)
            for client, count in on_board.get(record.slot, {}).items() if record.slot else ():
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
            nbytes, count = held.get(record.owner, (0, 0))
            held[record.owner] = (nbytes + record.nbytes, count + 1)
            assert all(count > 0 for count in record.pins.values())
            for client in record.pins:
                assert record.object_id in self._pinned_by[client]
        assert held == self.held_by
        assert all(record.state is State.SEALED for record in self._sealed.values())
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

    def _leave_if_unseen(self, record: ObjectRecord) -> None:
        """Lets a doomed object go, if nobody has a pin on it."""
        if record.pins or (record.slot and self._board.pinned(record.slot)):
            return
        del self._doomed[record.object_id]
        self._doomed_at.pop(record.slot, None)
        self._leave(record)

    def _enter(self, record: ObjectRecord) -> None:
        nbytes, count = self.held_by.get(record.owner, (0, 0))
        self.held_by[record.owner] = (nbytes + record.nbytes, count + 1)

    def _leave(self, record: ObjectRecord) -> None:
        self._move(record, State.GONE)
        if record.slot:
            self._board.remove(record.slot)
        nbytes, count = self.held_by.pop(record.owner)
        if count > 1:
            self.held_by[record.owner] = (nbytes - record.nbytes, count - 1)
        self._free(record.offset, footprint(record.nbytes))

    @staticmethod
    def _move(record: ObjectRecord, state: State) -> None:
        assert state in MOVES[record.state], (record.state, state)
        record.state = state
