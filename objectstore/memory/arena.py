"""The arena: one sparse piece of anonymous memory that every process of the host maps.

It is a memfd. It lives while any process has it open or mapped and not a moment longer, so nothing
needs to be cleaned up after ``kill -9``; it isn't bound by the size of ``/dev/shm``; and its size is
sealed, so that no process can shrink it under the feet of the others.

There are two descriptors of the same memory. Writers map the one the memfd came with. Readers map the
other, reopened read-only through ``/proc/self/fd``: through a map of it not even ``mprotect`` makes a
page writable, so a reader can't damage a sealed object by accident. (A hostile process of the same
user can open it writable again through ``/proc``: same-user processes aren't protected from each other.)

Its pages are made in huge ones where that can be had (``system/pages.py``).
"""

from __future__ import annotations

import ctypes
import os
from typing import NamedTuple

from holdfast.objectstore.system.file_maps import map_shared, memory_file
from holdfast.objectstore.system.pages import HUGE_PAGE, make_huge_page, populate, punch_hole


class Extent(NamedTuple):
    """Where bytes lie in the arena."""

    offset: int
    nbytes: int


class Arena:
    """The server's side: makes the memory, and gives pages back.

    Parameters
    ----------
    nbytes : int
        Its size, a whole number of pages. No memory is used until it is written.
    name : str
        What ``/proc`` shows it as.
    """

    def __init__(self, nbytes: int, name: str = "holdfast-arena") -> None:
        self.nbytes = nbytes
        self.fd = memory_file(name, nbytes)
        self.read_only_fd = -1
        try:
            self.read_only_fd = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
            self.view = map_shared(self.fd, nbytes, writable=True, alignment=HUGE_PAGE)
            self._address = ctypes.addressof(ctypes.c_ubyte.from_buffer(self.view))
        except BaseException:
            self.close()
            raise

    def resident_nbytes(self) -> int:
        """The bytes of memory that the arena uses now."""
        return os.fstat(self.fd).st_blocks * 512

    def populate(self, offset: int, nbytes: int) -> bool:
        """Makes the pages of an extent; false if the kernel doesn't. No byte changes. Not after ``close``."""
        return populate(self._address + offset, nbytes)

    def make_huge_page(self, offset: int) -> bool:
        """Makes a huge page in a hole; false if the kernel doesn't. Not after ``close``."""
        return make_huge_page(self._address + offset)

    def punch(self, offset: int, nbytes: int) -> None:
        """Gives the whole pages within the extent back to the kernel; they read as zeros from then on."""
        punch_hole(self.fd, offset, nbytes)

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Copies bytes to where others were. The GIL is released. Not after ``close``."""
        assert 0 <= min(source, target) <= max(source, target) + nbytes <= self.nbytes, (source, target, nbytes)
        ctypes.memmove(self._address + target, self._address + source, nbytes)

    def close(self) -> None:
        """Closes the descriptors. Maps stay, here while a slice of ``view`` is held."""
        for fd in (self.fd, self.read_only_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.read_only_fd = -1
        self.view = memoryview(b"")
