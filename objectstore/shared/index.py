"""The object index: how a client finds and pins an object without a word to the server.

A message there and back costs more than everything else that a small ``get`` does. So the server keeps, in
memory that every client maps read-only, an *index* of its sealed objects; and each client has, in memory that
only it and the server map, a *row* of pin counters, one for each slot of the index. A pin is an addition to one's own
counter, an unpin a subtraction. The server reads the counters when it wants an object's bytes back. Beside the counters
are *use bits*, as clock algorithms have them: an unpin sets one, so that the server knows what is in use without having
been asked.

The server writes the index (``core/object_index.py``), a client reads it (``client/index_view.py``). Here is what both
have to know: the layout, and why it is safe.

The layout
----------
::

    buckets   u32 x 4 N     by the id's CRC-32: the slot of an object, or 0
    slots     8 u64 x N     id (two words), offset, nbytes, state; of slot 0, the first slot that was never used

    row       u32 x N       pin counters; of slot 0, whether the client may take no more pins
              u8 x N        use bits

An object is OPEN from the moment that a client is given the bytes for it, and SEALED from when the server has read
that they are written. Only the client that wrote it finds one that is open, once it has sent the seal: a
socket is slower than a program that puts a value and wants it back.

An object is found within ``PROBES`` buckets from where its id hashes to, or isn't in the index: there may
be no free bucket, or no free slot. It's read by message then. Slots are handed out from the low end and the last
freed first, so that as much of the memory is touched as there were objects at one time.

Why it is safe
--------------
A client and the server race for an object: one wants to pin it, the other to free it::

    client                                   server
    1  finds the slot by its id              1  state := WITHDRAWN
    2  counter of the slot += 1              2  fence
    3  fence                                 3  all counters of the slot = 0?
    4  the same id still, and SEALED?           yes: free the bytes   no: wait until told
       yes: pinned    no: counter -= 1

Each writes before it reads, with a fence between, so at least one of them sees what the other has written
(Dekker). If both do, the client gives way, and the object waits for nothing: the client that takes a counter of a
WITHDRAWN slot to zero says so with a LAST_UNPIN message, with the same two steps the other way round. A slot that has
become another object's meanwhile has another id; a counter of it that was raised for a moment by mistake does no more
than delay the freeing of that object until it's lowered again.

An object that is to go to disk is withdrawn in the same way, when it has been copied. If a client has pinned it then,
it's published again, and the copy was in vain; a client that gave way in between asks by message, and is told then
where the object is.

One that is moved within the arena is withdrawn for a moment, when it has been copied. If no client has pinned it then,
its offset is changed, and it's published again: with the state written last, and read first, no client has the one
without the other. A pin that comes in between gives way, and is asked for by message.

The server waits for views in the way of others by the same steps as well: it marks the slot WATCHED, which is
as good as SEALED to clients that come, fences, and reads the counters. If one is above zero, the client that takes it
to zero sees WATCHED, and sends a LAST_UNPIN.

The server hangs up on a client in the same way: it writes into the place of slot 0 in the client's row, which is
no client's counter, and then looks whether there are pins; the client counts its pin, and then looks there.

A forked child has the views that its parent had when it forked it, and no row of its own. So the parent adds one to
each counter that is above zero, for the child, and subtracts it when the child has ended (``forks.py``). Pins that end
around the fork are counted down when this is done.

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

ORDERED = platform.machine().lower() in {"x86_64", "amd64", "i686"}
PROBES = 8
_BUCKETS_PER_SLOT = 4
SLOT_WORDS = 8
STATE_WORD = 4  # after the id's two words, the offset and the size
_SLOTS_MIN = 1 << 10
_SLOTS_MAX = 1 << 20
_NBYTES_PER_SLOT = 4096
ID_WORDS = struct.Struct("<QQ")

#: The states of a slot. In the last two the server waits for the last unpin.
FREE, OPEN, SEALED, WATCHED, WITHDRAWN = range(5)


def slots_for(capacity: int) -> int:
    """How many slots the index of a store of ``capacity`` bytes has: a power of two."""
    wanted = max(_SLOTS_MIN, min(_SLOTS_MAX, capacity // _NBYTES_PER_SLOT))
    return 1 << (wanted - 1).bit_length()


def index_nbytes(slots: int) -> int:
    """The size of an index."""
    return _buckets_nbytes(slots) + slots * SLOT_WORDS * 8


def row_nbytes(slots: int) -> int:
    """The size of a client's row: the counters, then the use bits."""
    return slots * 5


def cut_row(row: memoryview, slots: int) -> tuple[memoryview, memoryview]:
    """The pin counters of a row, and its use bits."""
    return row[: 4 * slots].cast("I"), row[4 * slots : 5 * slots]


def _buckets_nbytes(slots: int) -> int:
    return (_BUCKETS_PER_SLOT * slots + 2 * PROBES) * 4  # no probe runs over the end


class IndexTables:
    """The two tables of the index, over one piece of memory: what both sides have in common."""

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
