"""A client's maps of the arena."""

from __future__ import annotations

import ctypes
import mmap
import os

import pyarrow as pa

from holdfast.objectstore.client.buffer_map import BufferMap
from holdfast.objectstore.client.private_maps import COPIED_NBYTES_MAX, MAPS, PrivateMaps, private_copy
from holdfast.objectstore.system.file_maps import FileMap
from holdfast.objectstore.system.page_table import PageTable, is_truthful
from holdfast.objectstore.system.pages import HUGE_PAGE, PAGE, is_hole, is_resident
from holdfast.objectstore.system.sentinel_page import map_sentinel

_ENDS = 2  # pages that some bytes may have in common with others


class ArenaMaps:
    """A process's maps of the whole arena: one to read, one to write.

    Parameters
    ----------
    read_only_fd, writable_fd : int
        Descriptors of the same memory; they become the maps' to close.
    nbytes : int
        The arena's size.
    lifeline_fd : int
        Open as long as anything here may look into the arena, in this process and in its forks: that is how the server
        knows. The maps' to close too.
    sentinel_fd : int
        Of a sentinel page (``sentinel_page.py``), which is mapped as long. The maps' to close too.
    private_maps : PrivateMaps, optional
        By default this process's.

    Attributes
    ----------
    address : int
        Where the read-only map begins in this process.
    writable_address : int
        Where the other one begins.
    """

    def __init__(
        self,
        read_only_fd: int,
        writable_fd: int,
        nbytes: int,
        lifeline_fd: int,
        sentinel_fd: int,
        private_maps: PrivateMaps | None = None,
    ) -> None:
        self.nbytes = nbytes
        self._private_maps = MAPS if private_maps is None else private_maps
        self._fd = read_only_fd
        self._lifeline_fd = lifeline_fd
        self._sentinel: FileMap | None = None
        try:
            self._sentinel = map_sentinel(sentinel_fd)
            self._readable = _whole(read_only_fd, nbytes, writable=False)
            self._writable = _whole(writable_fd, nbytes, writable=True)
        finally:
            os.close(writable_fd)
            os.close(sentinel_fd)
        self.address = self._readable.address
        self.writable_address = self._writable.address
        self.writable_view = self._writable.view()

    def is_resident(self, offset: int, nbytes: int) -> bool:
        """Whether all of an extent takes up memory, mapped here or not."""
        return is_resident(self._fd, offset, nbytes)

    def is_hole(self, offset: int, nbytes: int) -> bool:
        """Whether nothing of an extent takes up memory."""
        return is_hole(self._fd, offset, nbytes)

    def buffer(self, offset: int, nbytes: int, base: object) -> pa.Buffer:
        """The extent in place, read-only. ``base`` lives as long as the buffer or anything made from it."""
        return pa.foreign_buffer(self.address + offset, nbytes, base)

    def offset_of(self, address: int) -> int | None:
        """The place in the arena of an address of this process, if it's in any map of it, a private one too."""
        offset = self._shared_offset_of(address)
        return self._private_maps.offset_of(address, self.address) if offset is None else offset

    def _shared_offset_of(self, address: int) -> int | None:
        offset = address - self.address
        if not 0 <= offset < self.nbytes:
            offset = address - self.writable_address
        return offset if 0 <= offset < self.nbytes else None

    def shows(self, address: int) -> bool:
        """Whether an address is in the read-only map, or in a private one."""
        in_shared = self.address <= address < self.address + self.nbytes
        return in_shared or self._private_maps.offset_of(address, self.address) is not None

    def is_as_stored(self, address: int, offset: int, nbytes: int) -> bool:
        """Whether the bytes at an address of ``offset_of`` are those of the arena. Not if that can't be known.

        In a private map a page that was written is looked at again: it may have been written beside them.
        """
        if self._shared_offset_of(address) is not None:
            return True
        if not is_truthful():
            return False
        with PageTable() as table:
            written = table.written(address, nbytes)
        if written is None or len(written) > _ENDS:
            return False
        for page in written:
            first, end = max(page, address), min(page + PAGE, address + nbytes)
            stored = self.address + offset + first - address
            if ctypes.string_at(first, end - first) != ctypes.string_at(stored, end - first):
                return False
        return True

    def private(self, offset: int, nbytes: int, base: object) -> memoryview:
        """The extent as writable memory of this caller alone (``private_maps.py``).

        ``base`` is kept while what isn't written is the arena's.
        """
        if nbytes > COPIED_NBYTES_MAX:
            maps = self._private_maps
            view = maps.map(self._fd, offset, nbytes, base, arena=self.address, arena_nbytes=self.nbytes)
            if view is not None:
                return view
        return private_copy(self.buffer(offset, nbytes, base))

    def let_go(self) -> None:
        """Nothing looks into the arena any more, or writes there. Twice is no error."""
        fd, self._lifeline_fd = self._lifeline_fd, -1
        if fd >= 0:
            os.close(fd)
        self._sentinel = None

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)
            self._fd = -1
        if hasattr(self, "_lifeline_fd"):
            self.let_go()


def _whole(fd: int, nbytes: int, *, writable: bool) -> BufferMap:
    """The whole arena, shared."""
    return BufferMap(fd, 0, nbytes, flags=mmap.MAP_SHARED, writable=writable, alignment=HUGE_PAGE)
