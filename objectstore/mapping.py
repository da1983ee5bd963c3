"""A client's maps: of the arena, and of pieces of files."""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np
import pyarrow as pa

from holdfast.objectstore.arena import HUGE_PAGE, FileMap, is_hole, is_resident
from holdfast.objectstore.witness import attest


class Mapping:
    """A process's maps of the whole arena: one to read, one to write.

    Parameters
    ----------
    read_only_fd, writable_fd : int
        Descriptors of the same memory; they become the mapping's to close.
    nbytes : int
        The arena's size.
    lifeline_fd : int
        Open as long as anything here may look into the arena, in this process and in its forks: that is how the server
        knows. The mapping's to close too.
    witness_fd : int
        Of a witness (``witness.py``), which is mapped as long. The mapping's to close too.

    Attributes
    ----------
    address : int
        Where the read-only map begins in this process.
    writable_address : int
        Where the other one begins.
    """

    def __init__(self, read_only_fd: int, writable_fd: int, nbytes: int, lifeline_fd: int, witness_fd: int) -> None:
        self.nbytes = nbytes
        self._fd = read_only_fd
        self._lifeline_fd = lifeline_fd
        self._witness: FileMap | None = None
        try:
            self._witness = attest(witness_fd)
            self._readable = _whole(read_only_fd, nbytes, writable=False)
            self._writable = _whole(writable_fd, nbytes, writable=True)
        finally:
            os.close(writable_fd)
            os.close(witness_fd)
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

    def ranges(self) -> list[tuple[int, int]]:
        """Where this process maps the arena: addresses, each with the size."""
        return [(self.address, self.nbytes), (self.writable_address, self.nbytes)]

    def offset_of(self, address: int) -> int | None:
        """The place in the arena of an address of this process, if it's in either map."""
        for start, nbytes in self.ranges():
            if start <= address < start + nbytes:
                return address - start
        return None

    def private_copy(self, offset: int, nbytes: int, base: object) -> memoryview:
        """The extent as writable memory of this caller alone: the kernel copies each page when it is written.

        ``base`` is kept too: an unwritten page still reads what the arena holds there.
        """
        return ViewedMap(self._fd, offset, nbytes, flags=mmap.MAP_PRIVATE, writable=True, base=base).view()

    def let_go(self) -> None:
        """Nothing looks into the arena any more, or writes there. Twice is no error."""
        fd, self._lifeline_fd = self._lifeline_fd, -1
        if fd >= 0:
            os.close(fd)
        self._witness = None

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)
            self._fd = -1
        if hasattr(self, "_lifeline_fd"):
            self.let_go()


class ViewedMap(FileMap):
    """A map for many views of many sizes."""

    def view(self) -> memoryview:
        """The bytes of the piece. Everything made from them holds the map."""
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": (self.nbytes,),
            "typestr": "|u1",
            "data": (self.address, not self.writable),
        }
        return memoryview(np.asarray(self))  # type: ignore[arg-type]


def _whole(fd: int, nbytes: int, *, writable: bool) -> ViewedMap:
    """The whole arena, shared."""
    return ViewedMap(fd, 0, nbytes, flags=mmap.MAP_SHARED, writable=writable, alignment=HUGE_PAGE)
