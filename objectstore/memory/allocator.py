"""Which bytes of the arena are free: pure bookkeeping.

A segregated-fit allocator. Free extents hang in bins by size, each power of two cut into sixteen, and
an integer used as a bitmap says which bins hold anything, so that finding the smallest bin that
surely fits is a shift and a mask. Two dictionaries, extents by their start and by their end, make
coalescing on ``free`` a matter of two lookups. Nothing depends on how many extents there are.

Two choices are made for the pages behind the numbers. The smallest fitting extent wins, and of equal
ones the one freed last: pages that were written a moment ago are handed out again before the untouched
rest of the arena, whose first touch costs ten times a warm copy. And what is carved is taken from the
low end, so that the untouched rest stays one piece.

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

import itertools
from collections.abc import Iterator

ALIGNMENT = 64
PAGE = 4096
LARGE_NBYTES = 1 << 20  # from here on objects own whole pages, so that those can be given back
SMALL_NBYTES = 256 << 10  # up to here objects are small: they lie apart, and asking for room costs more than copying
FRONTIER_NBYTES = 16 << 20  # as much as is made ready for small objects,
_APART_ALIGNMENT = 2 << 20  # a huge page
FRONTIER_SHARE = 16  # or such a part of a small arena
_SUBDIVISIONS_LOG2 = 4
_SUBDIVISIONS = 1 << _SUBDIVISIONS_LOG2
_EXACT_TRIES = 8
_SCAN_LIMIT = 1024  # extents of one bin that are looked at when the store is nearly full


def footprint(nbytes: int) -> int:
    """The bytes that an object of ``nbytes`` takes up: whole cache lines, and whole pages if large."""
    unit = PAGE if nbytes >= LARGE_NBYTES else ALIGNMENT
    return -(-max(nbytes, 1) // unit) * unit


def alignment(nbytes: int) -> int:
    """Of which number the offset of an object of ``nbytes`` is a multiple."""
    return PAGE if nbytes >= LARGE_NBYTES else ALIGNMENT


def _floor_bin(units: int) -> int:
    """The bin in which a free extent of ``units`` alignments hangs."""
    if units < _SUBDIVISIONS:
        return units
    exponent = units.bit_length() - 1 - _SUBDIVISIONS_LOG2
    return (exponent << _SUBDIVISIONS_LOG2) + (units >> exponent)


def _ceil_bin(units: int) -> int:
    """The first bin in which every extent has at least ``units`` alignments."""
    if units < _SUBDIVISIONS:
        return units
    exponent = units.bit_length() - 1 - _SUBDIVISIONS_LOG2
    return _floor_bin(units + (1 << exponent) - 1)


class _Holes:
    """The free extents of one side."""

    __slots__ = ("_bins", "_occupied", "nbytes_at", "start_before")

    def __init__(self, capacity: int) -> None:
        self.nbytes_at: dict[int, int] = {}  # start of a free extent -> its size
        self.start_before: dict[int, int] = {}  # end of a free extent -> its start
        self._bins: list[dict[int, None]] = [{} for _ in range(_floor_bin(capacity // ALIGNMENT) + 1)]
        self._occupied = 0  # bit b is set while bin b holds an extent

    def take(self, size: int, align: int) -> int | None:
        """The start of ``size`` bytes that aren't free any more, or None without a hole for them."""
        offset = self._find(size, align)
        if offset is None:
            return None
        start = -(-offset // align) * align
        self.carve(offset, start, size)
        return start

    def carve(self, offset: int, start: int, size: int) -> None:
        """Takes ``size`` bytes at ``start`` out of the free extent at ``offset``."""
        end = offset + self.remove(offset)
        if start > offset:
            self.insert(offset, start - offset)
        if end > start + size:
            self.insert(start + size, end - start - size)

    def join(self, offset: int, nbytes: int) -> int:
        """Inserts what has become free, as one extent with its free neighbours; the start of that."""
        end = offset + nbytes
        assert offset not in self.nbytes_at, ("freed twice", offset, nbytes)
        assert end not in self.start_before, ("freed twice", offset, nbytes)
        before = self.start_before.get(offset)
        if before is not None:
            self.remove(before)
            offset = before
        if end in self.nbytes_at:
            end += self.remove(end)
        self.insert(offset, end - offset)
        return offset

    def insert(self, start: int, nbytes: int) -> None:
        """A free extent, whose neighbours aren't free."""
        index = _floor_bin(nbytes // ALIGNMENT)
        self.nbytes_at[start] = nbytes
        self.start_before[start + nbytes] = start
        self._bins[index][start] = None
        self._occupied |= 1 << index

    def remove(self, start: int) -> int:
        """The free extent at ``start`` isn't one any more; its size."""
        nbytes = self.nbytes_at.pop(start)
        index = _floor_bin(nbytes // ALIGNMENT)
        del self.start_before[start + nbytes]
        bin_ = self._bins[index]
        del bin_[start]
        if not bin_:
            self._occupied &= ~(1 << index)
        return nbytes

    def largest_nbytes(self) -> int:
        """The size of the largest free extent."""
        if not self._occupied:
            return 0
        top = self._bins[self._occupied.bit_length() - 1]
        return max(self.nbytes_at[start] for start in top)

    def largest(self, count: int) -> list[tuple[int, int]]:
        """The ``count`` largest free extents, roughly: largest first, to within a sixteenth of their size."""
        found: list[tuple[int, int]] = []
        occupied = self._occupied
        while occupied and len(found) < count:
            index = occupied.bit_length() - 1
            occupied ^= 1 << index
            starts = itertools.islice(reversed(self._bins[index]), count - len(found))
            found += [(start, self.nbytes_at[start]) for start in starts]
        return found

    def _find(self, size: int, align: int) -> int | None:
        """The start of a free extent that holds an aligned piece of ``size`` bytes."""
        units = size // ALIGNMENT
        # Extents that fit exactly hang in a bin that doesn't fit surely; a few of the last freed are tried.
        for start in self._last_freed(_floor_bin(units)):
            if self._fits(start, size, align):
                return start
        index = self._next_occupied(_ceil_bin(units))
        while index is not None and align > ALIGNMENT:
            for start in self._last_freed(index):
                if self._fits(start, size, align):
                    return start
            if index >= _ceil_bin((size + align - ALIGNMENT) // ALIGNMENT):
                break
            index = self._next_occupied(index + 1)
        if index is not None:
            return next(reversed(self._bins[index]))
        # Without room in the bins that surely fit, the whole of the one below decides: a store that is
        # nearly full must not turn away what would fit.
        limit = _ceil_bin((size + align - ALIGNMENT) // ALIGNMENT)
        index = self._next_occupied(_floor_bin(units))
        while index is not None and index <= limit:
            for start in itertools.islice(self._bins[index], _SCAN_LIMIT):
                if self._fits(start, size, align):
                    return start
            index = self._next_occupied(index + 1)
        return None

    def _last_freed(self, index: int) -> Iterator[int]:
        if index >= len(self._bins):
            return
        for tries, start in enumerate(reversed(self._bins[index])):
            if tries == _EXACT_TRIES:
                return
            yield start

    def _fits(self, start: int, size: int, align: int) -> bool:
        return -(-start // align) * align + size <= start + self.nbytes_at[start]

    def _next_occupied(self, index: int) -> int | None:
        above = self._occupied >> index
        return index + (above & -above).bit_length() - 1 if above else None


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
        self._large, self._small = _Holes(self.capacity), _Holes(self.capacity)
        self._large.insert(0, self.capacity)
        self.apart = -(-(self.capacity + PAGE) // _APART_ALIGNMENT) * _APART_ALIGNMENT
        self.span = max(self.capacity, span // PAGE * PAGE)
        self._apart = _Holes(self.span)
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

        Then the ``count`` largest free extents for large objects, as ``_Holes.largest`` has them.
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

    def _holes_at(self, offset: int) -> _Holes:
        return self._large if offset < self.border else self._small
