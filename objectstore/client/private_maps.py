"""Private views: memory that a reader may write to, of which only the written pages are copied.

A *private map* shows a piece of the arena, or of the file of a spilled object. The kernel gives the process a page of
its own as soon as it writes to one; until then the page is shared by all readers, so such a map has a pin too. Each
get has a map of its own, and no get sees what is written through another one.

**What is mapped.** A map costs about ten microseconds, and as much again for its end. A copy costs more than that from
some ten kilobytes on, since its pages have to be made first, and what is mapped and never written takes no memory. So
small pieces are copied, and need no pin then.

**Huge pages.** A huge page is mapped as one only if its address and its offset in the file are equal modulo 2 MiB, and
if the map has all of it. So a map of a larger piece begins and ends with whole huge pages; what lies there beside the
piece isn't shown to any reader. A write to a page takes its huge page apart.

**How many.** The kernel limits the maps of a process (``vm.max_map_count``, 65,530 by default), and a process that has
used them up can't start a thread or get memory. So private maps take a share of that at most, and less where the
process has many others. Beyond it, or where the kernel refuses one, pieces are copied, whatever their size.
"""

from __future__ import annotations

import errno
import mmap
import time
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

import numpy as np

from holdfast.objectstore.client.buffer_map import BufferMap
from holdfast.objectstore.codecs.flat import Buffer, copy_bytes
from holdfast.objectstore.system.file_maps import MAP_NORESERVE
from holdfast.objectstore.system.pages import HUGE_PAGE

COPIED_NBYTES_MAX = 32 << 10
_IN_WHOLE_HUGE_PAGES_NBYTES = 512 << 10  # from here on the faults that are saved cost more than a map that is aligned
_SMALL_NBYTES = 1 << 20
_OWN_SHARE = 1 / 2
_SHARE_WITH_OTHERS = 3 / 4
_FEW_MAPS = 1000
_RECOUNT_SECONDS = 1.0
_MAX_MAP_COUNT = 65_530  # what it is by default


def private_copy(buffer: Buffer) -> memoryview:
    """The bytes, copied to memory of their own."""
    nbytes = buffer.size if hasattr(buffer, "size") else len(buffer)
    if nbytes < _SMALL_NBYTES:
        return memoryview(bytearray(buffer))
    copy = memoryview(np.empty(nbytes, np.uint8))  # type: ignore[arg-type]
    copy_bytes(copy, memoryview(buffer).cast("B"))
    return copy


class _Shown(NamedTuple):
    """What a map shows: where it ends in this process, and of which arena, by its address, and how far from there."""

    end: int
    arena: int
    distance: int


class PrivateMaps:
    """The private maps of this process.

    Maps end in finalisers, which may run in the middle of anything. So what is alive is one dictionary, which is
    changed by single operations without a lock, and looked up in a sorted copy.

    Parameters
    ----------
    max_map_count : int, optional
        The maps that a process may have, of every kind. By default the kernel's limit.
    """

    def __init__(self, max_map_count: int | None = None) -> None:
        self._max_map_count = _kernels_limit() if max_map_count is None else max_map_count
        self._alive: dict[int, _Shown] = {}
        self._is_stale = False
        self._sorted: tuple[list[int], list[_Shown]] = [], []
        self._limit = 0
        self._recount_from = 0
        self._counted_at = 0.0

    def __len__(self) -> int:
        return len(self._alive)

    def map(
        self, fd: int, offset: int, nbytes: int, base: object, *, arena: int = 0, arena_nbytes: int = 0
    ) -> memoryview | None:
        """A piece of a file as writable memory of the caller's own; None if there may be no more maps.

        Parameters
        ----------
        fd, offset, nbytes : int
            The piece. The descriptor may be closed afterwards.
        base : object
            What keeps the piece as it is. Kept as long as the memory.
        arena, arena_nbytes : int
            Where this process maps the arena to read it, and its size, if the file is one.

        Raises
        ------
        OSError
            If the kernel can't map it, for another reason than that there are too many maps or too little memory.
        """
        if not self._has_room():
            return None
        try:
            return _PrivateMap(self, fd, offset, nbytes, base, arena, arena_nbytes).view()
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            return None

    def offset_of(self, address: int, arena: int) -> int | None:
        """The offset in an arena of what a private map shows of it at an address, whether it was written or not."""
        if not self._alive:
            return None
        if self._is_stale:
            self._is_stale = False  # before the copy: what comes after that is seen by the next
            alive = sorted(self._alive.copy().items())
            self._sorted = [start for start, _ in alive], [shown for _, shown in alive]
        starts, shown = self._sorted
        i = bisect_right(starts, address) - 1
        if i < 0 or address >= shown[i].end or shown[i].arena != arena:
            return None
        return address - shown[i].distance - arena

    def _add(self, address: int, shown: _Shown) -> None:
        self._alive[address] = shown
        self._is_stale = True

    def _discard(self, address: int) -> None:
        """Safe in a finaliser."""
        self._alive.pop(address, None)
        self._is_stale = True

    def _has_room(self) -> bool:
        own = len(self._alive)
        if own >= self._recount_from or (own >= _FEW_MAPS and time.monotonic() - self._counted_at >= _RECOUNT_SECONDS):
            self._count(own)
        return own < self._limit

    def _count(self, own: int) -> None:
        """Finds how many there may be, from how many other maps there are. It takes a microsecond for each map."""
        others = max(0, _maps_of_this_process() - own)
        limit = self._max_map_count
        self._limit = int(min(limit * _OWN_SHARE, limit * _SHARE_WITH_OTHERS - others))
        # At the limit the clock says when to look again.
        self._recount_from = own + max(_FEW_MAPS, (self._limit - own) // 4) if own < self._limit else own + _FEW_MAPS
        self._counted_at = time.monotonic()


class _PrivateMap(BufferMap):
    """One private map; of a larger piece of the arena in whole huge pages."""

    def __init__(
        self, maps: PrivateMaps, fd: int, offset: int, nbytes: int, base: object, arena: int, arena_nbytes: int
    ) -> None:
        first, end, alignment = offset, offset + nbytes, mmap.PAGESIZE
        if arena and nbytes >= _IN_WHOLE_HUGE_PAGES_NBYTES:
            first = offset // HUGE_PAGE * HUGE_PAGE
            end = min(-(-end // HUGE_PAGE) * HUGE_PAGE, arena_nbytes)
            alignment = HUGE_PAGE
        flags = mmap.MAP_PRIVATE | MAP_NORESERVE
        super().__init__(fd, first, end - first, flags=flags, writable=True, base=base, alignment=alignment)
        self.address += offset - first
        self.nbytes = nbytes
        self._maps = maps
        maps._add(self.address, _Shown(self.address + nbytes, arena, self.address - arena - offset))

    def __del__(self) -> None:
        # First: once it's unmapped, another thread's map may begin at the same address.
        if hasattr(self, "_maps"):
            self._maps._discard(self.address)
        super().__del__()


def _kernels_limit() -> int:
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError):
        return _MAX_MAP_COUNT


def _maps_of_this_process() -> int:
    """How many maps it has, of every kind; none if that isn't known."""
    try:
        with open("/proc/self/maps", "rb", buffering=0) as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return 0


#: All of this process's, of every store: the kernel's limit is the process's.
MAPS = PrivateMaps()
