"""Free extents by size and by place: pure bookkeeping, the same for every side of the arena.

Free extents hang in bins by size, each power of two cut into sixteen, and an integer used as a bitmap says which bins
hold anything, so that finding the smallest bin that surely fits is a shift and a mask (segregated fits). Two
dictionaries, extents by their start and by their end, make coalescing on `join` a matter of two lookups. Nothing
depends on how many extents there are.

Two choices are made for the pages behind the numbers. The smallest fitting extent wins, and of equal
ones the one freed last: pages that were written a moment ago are handed out again before the untouched
rest of the arena, whose first touch costs ten times a warm copy. And what is carved is taken from the
low end, so that the untouched rest stays one piece.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

ALIGNMENT = 64
PAGE = 4096
LARGE_NBYTES = 1 << 20  # from here on objects own whole pages, so that those can be given back
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


class FreeExtents:
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
