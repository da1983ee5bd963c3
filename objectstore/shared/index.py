"""The board: how a client finds and pins an object without a word to the server.

A message there and back costs more than everything else that a small ``get`` does. So the server keeps, in
memory that every client maps read-only, an *index* of its sealed objects; and each client has, in memory that
only it and the server map, a *row* of counters, one for each place in the index. A pin is an addition to one's own
counter, an unpin a subtraction. The server looks at the counters when it wants the bytes back. Beside the counters
are *marks*: an unpin leaves one, so that the server knows what is in use without having been asked.

The index
---------
::

    buckets   u32 x 4 N     by the id's CRC-32: the slot of an object, or 0
    slots     8 u64 x N     id (two words), offset, nbytes, state; of slot 0, the first slot that was never used

An object is OPEN from the moment that a client is given the bytes for it, and SEALED from when the server has read
that they are written. Nobody looks at one that is open but the client that wrote it, once it has sent the seal: a
socket is slower than a program that puts a value and wants it back.

An object is found within ``PROBES`` buckets from where its id hashes to, or isn't in the index: there may
be no free bucket, or no free slot. It's read by message then. Slots are handed out from the low end and the last
freed first, so that as much of the memory is touched as there were objects at one time.

Why it is safe
--------------
A client and the server race for an object: one wants to look at it, the other to free it::

    client                                   server
    1  finds the slot by its id              1  state := DOOMED
    2  counter of the slot += 1              2  fence
    3  fence                                 3  all counters of the slot = 0?
    4  the same id still, and SEALED?           yes: free the bytes   no: wait until told
       yes: pinned    no: counter -= 1

Each writes before it reads, with a fence between, so at least one of them sees what the other has written
(Dekker). If both do, the client gives way, and the object waits for nothing: whoever takes a counter of a DOOMED slot
to zero says so with a LOOK message, with the same two steps the other way round. A slot that has become another
object's meanwhile has another id; a counter of it that was raised for a moment by mistake does no more than
delay the freeing of that object until it's lowered again.

An object that is to go to disk leaves the index in the same way, when it has been copied. If anybody looks at it then,
it's listed again, and the copy was in vain; a client that gave way in between asks by message, and is told then where
the object is.

One that is moved within the arena is doomed for a moment, when it has been copied. If nobody looks at it then, its
offset is changed, and it's listed again: with the state written last, and read first, nobody has the one without the
other. A pin that comes in between gives way, and is asked for by message.

The server waits for views in the way of others by the same steps as well: it marks the slot WANTED, which is
as good as SEALED to those who come, fences, and looks at the counters. If it sees one, whoever takes it to zero
sees WANTED, and sends a LOOK.

The server hangs up on a client in the same way: it writes into the place of slot 0 in the client's row, which is
nobody's counter, and then looks whether there are pins; the client counts its pin, and then looks there.

A forked child has the views that its parent had when it forked it, and no row of its own. So the parent adds one to
each counter that is above zero, for the child: that's what it *lends* (``forks.py``). Pins that end around the fork are
set aside until this is done.

A seal writes the state last, and a reader reads it after the id: on x86, where stores are seen in the order in
which they were made, what it reads next is that object's. The fence there is any locked instruction: taking
a ``threading.Lock``. Processors with a weaker order would need barriers that Python hasn't; clients on them read
by message (``ORDERED``).
"""

from __future__ import annotations

import mmap
import platform
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any

from holdfast.objectstore.shared.ids import ObjectID

ORDERED = platform.machine().lower() in {"x86_64", "amd64", "i686"}
PROBES = 8
_BUCKETS_PER_SLOT = 4
_WORDS = 8
_STATE = 4
_SLOTS_MIN = 1 << 10
_SLOTS_MAX = 1 << 20
_NBYTES_PER_SLOT = 4096
_FREE, _OPEN, _SEALED, _WANTED, _DOOMED = range(5)  # in the last two the server waits for the last unpin
_OWN_MAX = 64
_FENCE_SECONDS = 1.0  # others have it for microseconds
_ID = struct.Struct("<QQ")
_STRETCH = 1 << 10
_ZEROS = bytes(4 * _STRETCH)


def slots_for(capacity: int) -> int:
    """How many slots the index of a store of ``capacity`` bytes has: a power of two."""
    wanted = max(_SLOTS_MIN, min(_SLOTS_MAX, capacity // _NBYTES_PER_SLOT))
    return 1 << (wanted - 1).bit_length()


def index_nbytes(slots: int) -> int:
    """The size of an index."""
    return _buckets_nbytes(slots) + slots * _WORDS * 8


def row_nbytes(slots: int) -> int:
    """The size of a client's row: the counters, then the marks."""
    return slots * 5


def _cut(row: memoryview, slots: int) -> tuple[memoryview, memoryview]:
    """The counters of a row, and its marks."""
    return row[: 4 * slots].cast("I"), row[4 * slots : 5 * slots]


def _above_zero(counters: memoryview, end: int) -> Iterator[tuple[int, int]]:
    """The slots before ``end`` whose counters are, with the counters. Most are not: a stretch of zeros is one look."""
    for start in range(1, end, _STRETCH):
        stretch = counters[start : min(start + _STRETCH, end)].tobytes()
        if stretch != _ZEROS[: len(stretch)]:
            yield from ((slot, n) for slot, n in enumerate(memoryview(stretch).cast("I"), start) if n)


def _buckets_nbytes(slots: int) -> int:
    return (_BUCKETS_PER_SLOT * slots + 2 * PROBES) * 4  # no probe runs over the end


class _Index:
    """The two tables of the index, over one piece of memory."""

    def __init__(self, slots: int, memory: memoryview | None) -> None:
        self.slots = slots
        self._mask = _BUCKETS_PER_SLOT * slots - 1
        self._fence = threading.Lock()
        self.lie_in(memory)

    def lie_in(self, memory: memoryview | None) -> None:
        """Lays the index into other memory, of zeros; None: of this process alone. Nothing is listed there yet."""
        if memory is None:
            memory = memoryview(mmap.mmap(-1, index_nbytes(self.slots)))  # whose zeros cost nothing
        cut = _buckets_nbytes(self.slots)
        self._buckets = memory[:cut].cast("I")
        self._words = memory[cut : index_nbytes(self.slots)].cast("Q")


class Board(_Index):
    """The server's side: writes the index, reads the rows.

    Parameters
    ----------
    slots : int
        From ``slots_for``.
    """

    def __init__(self, slots: int) -> None:
        super().__init__(slots, None)
        self._bucket_of: dict[int, int] = {}
        self._unused = 1  # slots from here on were never used
        self._freed: list[int] = []
        self._rows: dict[int, memoryview] = {}
        self._marks: dict[int, memoryview] = {}

    def add(self, object_id: ObjectID, offset: int, nbytes: int, *, is_open: bool = False) -> int:
        """Lists a sealed object, or one to come; its slot, or 0 if there's no place for it."""
        buckets = self._buckets
        home = zlib.crc32(object_id) & self._mask
        for bucket in range(home, home + PROBES):
            if not buckets[bucket]:
                break
        else:
            return 0
        if self._freed:
            slot = self._freed.pop()
        elif self._unused < self.slots:
            slot = self._unused
            self._unused += 1
            self._words[0] = self._unused
        else:
            return 0
        words, at = self._words, slot * _WORDS
        words[at], words[at + 1] = _ID.unpack(object_id)
        words[at + 2] = offset
        words[at + 3] = nbytes
        words[at + _STATE] = _OPEN if is_open else _SEALED
        buckets[bucket] = slot
        self._bucket_of[slot] = bucket
        return slot

    def seal(self, slot: int) -> None:
        """An open object is there for everybody."""
        self._words[slot * _WORDS + _STATE] = _SEALED

    def doom(self, slot: int) -> bool:
        """Nobody finds the object any more. Whether anybody still looks at it."""
        self._words[slot * _WORDS + _STATE] = _DOOMED
        with self._fence:
            return self.pinned(slot)

    def relist(self, slot: int) -> None:
        """The object is found as it was before it was doomed or wanted."""
        self._words[slot * _WORDS + _STATE] = _SEALED

    def move(self, slot: int, offset: int) -> None:
        """The object, which is doomed and which nobody looks at, is found again, at another place of the arena."""
        self._words[slot * _WORDS + 2] = offset
        self.relist(slot)

    def want(self, slot: int) -> bool:
        """Whether anybody looks at the object; who ceases to says so then. It's listed, doomed before or not."""
        self._words[slot * _WORDS + _STATE] = _WANTED
        with self._fence:
            viewed = self.pinned(slot)
        if not viewed:
            self.relist(slot)
        return viewed

    def was_used(self, slot: int) -> bool:
        """Whether anybody has ceased to look at the object since this was asked last."""
        used = False
        for marks in self._marks.values():
            if marks[slot]:
                marks[slot] = 0
                used = True
        return used

    def pinned(self, slot: int) -> bool:
        """Whether the counter of the slot is above zero in any row."""
        return any(row[slot] for row in self._rows.values())

    def remove(self, slot: int) -> None:
        """The slot may become another object's. To be called when it's doomed, or open, and nobody looks at it."""
        self._buckets[self._bucket_of.pop(slot)] = 0
        self._words[slot * _WORDS + _STATE] = _FREE
        self._freed.append(slot)

    def attach(self, client: int, row: memoryview) -> None:
        """A client's row counts from now on."""
        self._rows[client], self._marks[client] = _cut(row, self.slots)

    def dismiss(self, client: int) -> bool:
        """The client may keep the pins it has, and take no more. Whether it has any."""
        row = self._rows.get(client)
        if row is None:
            return False
        row[0] = 1
        with self._fence:
            return next(_above_zero(row, self._unused), None) is not None

    def detach(self, client: int) -> None:
        """It doesn't any more."""
        self._rows.pop(client, None)
        self._marks.pop(client, None)

    def pins(self) -> dict[int, dict[int, int]]:
        """All counters above zero, by slot and client. For people who want to know."""
        found: dict[int, dict[int, int]] = {}
        for client, row in self._rows.items():
            for slot, counter in _above_zero(row, self._unused):
                found.setdefault(slot, {})[client] = counter
        return found


class BoardView(_Index):
    """A client's side: reads the index, writes its row.

    Parameters
    ----------
    slots : int
        As the server has it.
    index, row : memoryview
        The index, and this client's row.

    Attributes
    ----------
    held : int
        How many pins there are on it.
    dropped : deque
        The slots of pins that have died, one for each; ``unpin`` ends them, but not around a fork. For finalisers to
        add to.
    """

    def __init__(self, slots: int, index: memoryview, row: memoryview) -> None:
        super().__init__(slots, index)
        self._row, self._marks = _cut(row, slots)
        self._own: dict[ObjectID, None] = {}
        self._ended: dict[int, None] = {}  # slots whose counter has gone to zero since the server was told
        self.held = 0
        self.dropped: deque[int] = deque()
        self._ending = self.dropped  # another one, around a fork
        self._near: set[object] = set()  # leases of forks that are about to be
        self._lent: dict[object, Any] = {}  # arrays of slots, by lease

    def sealing(self, object_id: ObjectID) -> None:
        """The object is this client's, nobody else can have made one of this id, and its seal is on the socket."""
        self._own[object_id] = None
        if len(self._own) > _OWN_MAX:
            # Two threads may take the same one, or find that the other has added some.
            self._own.pop(next(iter(self._own.copy())), None)

    def pin(self, object_id: ObjectID, pin: Any) -> tuple[int, int] | None:
        """Pins an object that is in the index, and sets ``pin.slot``: its offset and size. None if it isn't there.

        Returns None as well if the object was deleted at this very moment; ``pin.slot`` is set then
        too, and is to be dropped like any other.
        """
        high, low = _ID.unpack(object_id)
        slot = self._find(object_id, high, low)
        if not slot:
            return None
        with self._fence:
            self._row[slot] += 1
            self.held += 1
            pin.slot = slot
        words, at = self._words, slot * _WORDS
        if words[at + 1] == low and words[at] == high and not self._row[0]:
            state = words[at + _STATE]
            if _SEALED <= state <= _WANTED or (state == _OPEN and object_id in self._own):
                return words[at + 2], words[at + 3]
        return None

    @property
    def pending(self) -> bool:
        """Whether ``unpin`` has anything to do."""
        return bool(self.dropped) or bool(self._ended)

    def unpin(self) -> list[int]:
        """Ends the pins that were dropped. The slots that the server waits for, to be told to look at until ``told``.

        Not to be called by two threads at a time.
        """
        dropped, row, ended = self._ending, self._row, self._ended
        while dropped:
            with self._fence:
                # Nothing is called in here: an interrupt finds the pin dropped, or ended.
                slot = dropped[0]
                del dropped[0]
                left = row[slot] = row[slot] - 1
                self.held -= 1
                self._marks[slot] = 1
                if not left:
                    ended[slot] = None
        return [slot for slot in ended if self._words[slot * _WORDS + _STATE] >= _WANTED]

    def told(self) -> None:
        """The server has been told what ``unpin`` gave."""
        self._ended.clear()

    def disown(self) -> None:
        """This is a forked child: the pins are the parent's. Takes no lock."""
        self.dropped = self._ending = deque()
        self._near.clear()
        self._lent.clear()

    def set_aside(self, lease: object) -> None:
        """A fork is near: what is dropped from now on stays pinned until ``lend``. Twice is no error."""
        self._near.add(lease)
        if self.dropped is self._ending:
            self.dropped = deque()

    def lend(self, lease: object) -> bool:
        """Pins what is pinned once more, until ``take_back``; whether there's anything. Twice is no error."""
        import numpy as np  # here, since the server does without

        fenced: list[bool] = []
        try:
            if lease not in self._lent:
                # One step, for an interrupt. And a signal's handler that forks may have come while this very thread
                # had the lock; no change was half done then.
                fenced.extend(map(self._fence.acquire, (True,), (_FENCE_SECONDS,)))
                # What had died before the fork, and what is lent to others, the child doesn't have.
                alive = np.array(self._row[: self._words[0]], np.int64)
                np.subtract.at(alive, np.fromiter(tuple(self._ending), np.intp), 1)
                for slots in self._lent.values():
                    alive[slots] -= 1
                alive[:1] = 0  # nobody's counter
                slots = np.flatnonzero(alive > 0)
                row = np.asarray(self._row)
                row[slots] += 1
                self.held += len(slots)
                self._lent[lease] = slots
        finally:
            if fenced and fenced[0]:
                self._fence.release()
        self._near.discard(lease)
        if not self._near and self.dropped is not self._ending:
            aside, self.dropped = self.dropped, self._ending
            self._ending.extend(aside)
        return len(self._lent[lease]) > 0

    def take_back(self, lease: object) -> None:
        """What was lent with the lease is dropped."""
        with self._fence:
            self.dropped.extend(self._lent.pop(lease).tolist())

    def contains(self, object_id: ObjectID) -> bool:
        """Whether the object is in the index. False may also mean that the server has to be asked."""
        slot = self._find(object_id, *_ID.unpack(object_id))
        if not slot:
            return False
        state = self._words[slot * _WORDS + _STATE]
        return _SEALED <= state <= _WANTED or (state == _OPEN and object_id in self._own)

    def _find(self, object_id: ObjectID, high: int, low: int) -> int:
        """The slot that has this id, or 0. ``high`` and ``low`` are the id's two words."""
        words, buckets = self._words, self._buckets
        home = zlib.crc32(object_id) & self._mask
        for bucket in range(home, home + PROBES):
            slot = buckets[bucket]
            if slot:
                at = slot * _WORDS
                if words[at + 1] == low and words[at] == high:
                    return slot
        return 0
