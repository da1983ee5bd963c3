"""Which bytes of the arena are free, on its two sides and apart: pure bookkeeping (``free_extents.py``).

Small objects, and the slabs for them, lie apart: at the upper end of the arena, from the *border* on. One of them that
lives for long would otherwise split the room for large ones, and seven are enough to leave no eighth of the arena in
one piece::

    0                                   border                capacity
    | large, from the low end up        | small, grown downwards  |

Each side has free extents of its own. The border moves: down, by what a small object needs, when there is no room
above it and what lies below is free; up, as soon as what lies above it is free. So neither side keeps room from the
other. A side that is full takes from the other one, wherever there's a hole.

Addresses cost nothing, unlike bytes. So beyond the capacity there may be more of them, as many as the arena's *span*
says, *apart*: for a request that is walled in (``compaction.py``) although there are bytes enough. All that is
allocated counts, wherever it lies, and never is more than the capacity; as much of what is free below it then has no
pages (``trim.py``).

``free`` takes any sub-extent of what was allocated: a lease is given back piece by piece.

Nothing is moved here, so a store that is nearly full has its free bytes in pieces. How bad that gets without moving is
measured by ``benchmarks/fragmentation.py``, and bounded by a test; ``compaction.py`` makes one piece of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.objectstore.memory.free_extents import ALIGNMENT, LARGE_NBYTES, PAGE, FreeExtents, alignment, footprint

SMALL_NBYTES = 256 << 10  # up to here objects are small: they lie apart, and asking for room costs more than copying
FRONTIER_NBYTES = 16 << 20  # as much as is made ready for small objects,
FRONTIER_SHARE = 16  # or such a part of a small arena
_APART_ALIGNMENT = 2 << 20  # a huge page


class Allocator:
    """Hands out extents of ``[0, capacity)``.

    Parameters
    ----------
    capacity : int
        Bytes; rounded down to whole pages.
    span : int
        Addresses, if there are to be more than bytes.

    Attributes
    ----------
    border : int
        Where the side of small objects begins.
    apart : int
        Where what is apart begins: not right behind the rest, so that no extents of both touch each other.
    apart_nbytes : int
        What is allocated there.
    free_nbytes : int
        What may be allocated, of addresses below the capacity and apart. Less than zero for a moment, perhaps: if
        addresses are taken while others are used apart.
    """

    def __init__(self, capacity: int, span: int = 0) -> None:
        self.capacity = capacity // PAGE * PAGE
        if self.capacity <= 0:
            raise ValueError(f"a capacity of {capacity} bytes is less than one page")
        self.border = self.capacity
        self._large, self._small = FreeExtents(self.capacity), FreeExtents(self.capacity)
        self._large.insert(0, self.capacity)
        self.apart = -(-(self.capacity + PAGE) // _APART_ALIGNMENT) * _APART_ALIGNMENT
        self.span = max(self.capacity, span // PAGE * PAGE)
        self._apart = FreeExtents(self.span)
        if self.span > self.apart:
            self._apart.insert(self.apart, self.span - self.apart)
        self.apart_nbytes = 0
        self.free_nbytes = self.capacity

    @property
    def used_nbytes(self) -> int:
        return self.capacity - self.free_nbytes

    def allocate(self, nbytes: int, *, small: bool = False) -> int | None:
        """The offset of ``footprint(nbytes)`` bytes that are now the caller's, or None without room.

        Offsets are multiples of 64, and of the page size from ``LARGE_NBYTES`` on. ``small``: they are for a small
        object, or for several.
        """
        return None if footprint(nbytes) > self.free_nbytes else self.place(nbytes, small=small)

    def allocate_apart(self, nbytes: int) -> int | None:
        """Like ``allocate``, beyond the capacity."""
        size = footprint(nbytes)
        if size > self.free_nbytes or (offset := self._apart.take(size, alignment(nbytes))) is None:
            return None
        self.free_nbytes -= size
        self.apart_nbytes += size
        return offset

    def has_room_apart(self, nbytes: int) -> bool:
        """Whether ``allocate_apart`` will find addresses, if there are bytes."""
        return self._apart.largest_nbytes() >= footprint(nbytes)

    def place(self, nbytes: int, *, small: bool) -> int | None:
        """Like ``allocate``, for what is about to leave its place."""
        align = PAGE if nbytes >= LARGE_NBYTES else ALIGNMENT
        size = -(-nbytes // align) * align
        first, second = (self._small, self._large) if small else (self._large, self._small)
        offset = first.take(size, align)
        if offset is None and small:
            offset = self._take_at_border(size, align)
        if offset is None:
            offset = second.take(size, align)
        if offset is not None:
            self.free_nbytes -= size
        return offset

    def take(self, offset: int, nbytes: int) -> None:
        """Makes the first ``nbytes`` of the free extent at ``offset`` the caller's."""
        self._holes_at(offset).carve(offset, offset, nbytes)
        self.free_nbytes -= nbytes

    def free(self, offset: int, nbytes: int) -> None:
        """Takes back ``nbytes`` at ``offset``: all or part of what was allocated, whole cache lines of it."""
        end = offset + nbytes
        assert 0 <= offset < end <= self.span, (offset, nbytes)
        assert offset % ALIGNMENT == 0 == nbytes % ALIGNMENT, (offset, nbytes)
        self.free_nbytes += nbytes
        if offset >= self.apart:
            self._apart.join(offset, nbytes)
            self.apart_nbytes -= nbytes
            return
        if offset < self.border < end:
            cut = self.border
            self.free_nbytes -= end - cut
            self.free(cut, end - cut)
            nbytes = cut - offset
        if offset < self.border:
            self._large.join(offset, nbytes)
        elif self._small.join(offset, nbytes) == self.border:
            freed, self.border = self.border, self.border + self._small.remove(self.border)
            self._large.join(freed, self.border - freed)

    def free_at(self, offset: int) -> int:
        """The size of the free extent that begins at ``offset``, below the capacity, or 0."""
        return self._holes_at(offset).nbytes_at.get(offset, 0)

    def free_before(self, end: int) -> int:
        """The size of the free extent that ends at ``end``, or 0."""
        start = self._holes_at(end - 1).start_before.get(end)
        return 0 if start is None else end - start

    def largest_free_nbytes(self) -> int:
        """The size of the largest free extent below the capacity."""
        return max(self._large.largest_nbytes(), self._small.largest_nbytes())

    def unused_apart(self) -> Iterator[tuple[int, int]]:
        """Every extent apart that isn't allocated."""
        return iter(list(self._apart.nbytes_at.items()))

    def free_extents(self) -> Iterator[tuple[int, int]]:
        """Every free extent below the capacity as ``(offset, nbytes)``, in no order."""
        return iter([*self._large.nbytes_at.items(), *self._small.nbytes_at.items()])

    def next_extents(self, count: int) -> list[tuple[int, int]]:
        """Where what comes next will lie: first the room below the border for some leases, as far as it's free.

        Then the ``count`` largest free extents for large objects, as ``FreeExtents.largest`` has them.
        """
        frontier = min(self.free_before(self.border), FRONTIER_NBYTES, self.capacity // FRONTIER_SHARE)
        found = [(self.border - frontier, frontier)] if frontier else []
        for start, nbytes in self._large.largest(count):
            left = nbytes - frontier if start + nbytes == self.border else nbytes
            found += [(start, left)] if left else []
        return found

    def _take_at_border(self, size: int, align: int) -> int | None:
        """Moves the border down by what is taken, if that's free."""
        room = self.free_before(self.border)
        start = (self.border - size) // align * align
        if start < self.border - room:
            return None
        end, self.border = self.border, start
        self._large.carve(end - room, start, end - start)
        if end > start + size:
            self._small.insert(start + size, end - start - size)
        return start

    def _holes_at(self, offset: int) -> FreeExtents:
        return self._large if offset < self.border else self._small
