"""What the kernel does with pages of memory when it is asked to: makes them, maps them, and says which are there.

Pages are made in huge ones of 2 MiB where that can be had (`make_huge_page`). The kernel clears such a page in a third
of the time that it takes for 512 small ones, and maps it at once: a process that looks at a gigabyte for the first time
takes 500 faults for it instead of as many as it touches pages. It asks for no privilege and no setting: what the
system's settings for huge pages say is about those that the kernel makes by itself. For a huge page to be mapped as one
the map has to begin at a whole one too (``file_maps.py``).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator

PAGE = mmap.PAGESIZE
#: The bytes of a huge page where pages have 4 KiB. Where they're larger, huge ones are too, and aren't made.
HUGE_PAGE = 2 << 20
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_MADV_POPULATE_READ = 22
_MADV_POPULATE_WRITE = 23
_MADV_COLLAPSE = 25

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def populate(address: int, nbytes: int) -> bool:
    """Does what a write to each of these pages would do, without writing: makes the page and maps it here.

    No byte changes, so others may read and write there meanwhile. The GIL is released. False if the kernel
    doesn't do it (before Linux 5.14, or without memory): then the first write pays.

    Parameters
    ----------
    address, nbytes : int
        Within a writable map; cut to whole pages.
    """
    start = address // PAGE * PAGE
    return bool(_libc.madvise(start, address + nbytes - start, _MADV_POPULATE_WRITE) == 0)


def populate_to_read(address: int, nbytes: int) -> bool:
    """Does what a read of each of these pages would do; otherwise like `populate`. For pages that are there."""
    start = address // PAGE * PAGE
    return bool(_libc.madvise(start, address + nbytes - start, _MADV_POPULATE_READ) == 0)


def current_processor() -> int:
    """The number of the processor that this thread runs on."""
    return int(_libc.sched_getcpu())


def make_huge_page(address: int) -> bool:
    """Makes a page of `HUGE_PAGE` bytes, zeros, where there is no page yet. The GIL is released.

    False if the kernel can't (before Linux 6.1, or with memory in small pieces only): then there is one small page at
    most. Where there are pages already it would copy them, which takes far longer than using them: the caller looks.

    Parameters
    ----------
    address : int
        Where it begins, in a writable map that begins at a whole huge page; a multiple of `HUGE_PAGE`.
    """
    # The kernel makes one of what is there, so something has to be.
    return populate(address, PAGE) and bool(_libc.madvise(address, HUGE_PAGE, _MADV_COLLAPSE) == 0)


class HugePageSupply:
    """Has the kernel take a huge page of memory in hand, just before one is made of it.

    Where the machine is a virtual one, memory that it hasn't used lately has to be found by its host, bit by bit as it
    is cleared: milliseconds for a huge page. ``make_huge_page`` clears it in one go, during which no other thread gets
    the processor. So memory of the same size is cleared first in a way that can be interrupted, and given back: what
    was given back last is taken next.
    """

    def __init__(self) -> None:
        room = mmap.mmap(-1, 2 * HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._room = (ctypes.c_ubyte * len(room)).from_buffer(room)  # which keeps it
        self._address = -(-ctypes.addressof(self._room) // HUGE_PAGE) * HUGE_PAGE
        _libc.madvise(self._address, HUGE_PAGE, mmap.MADV_HUGEPAGE)

    def prepare(self) -> None:
        """Clear such memory, and give it back. The GIL is released."""
        populate(self._address, HUGE_PAGE)
        _libc.madvise(self._address, HUGE_PAGE, mmap.MADV_DONTNEED)


def is_resident(fd: int, offset: int, nbytes: int) -> bool:
    """Whether all of an extent takes up memory. Moves the descriptor's position, which no code uses."""
    return os.lseek(fd, offset, os.SEEK_HOLE) >= offset + nbytes


def is_hole(fd: int, offset: int, nbytes: int) -> bool:
    """Whether nothing of an extent takes up memory. Moves the descriptor's position, which no code uses."""
    return next(resident_extents(fd, offset, nbytes), None) is None


def resident_extents(fd: int, offset: int, nbytes: int) -> Iterator[tuple[int, int]]:
    """The parts of an extent that take up memory, as ``(offset, nbytes)`` in order; the rest are holes.

    Moves the descriptor's position, which no code uses.
    """
    end = offset + nbytes
    while offset < end:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but holes from here on
                return
            raise
        if start >= end:
            return
        offset = min(os.lseek(fd, start, os.SEEK_HOLE), end)
        yield start, offset - start


def punch_hole(fd: int, offset: int, nbytes: int) -> None:
    """Gives the whole pages within an extent of a file back to the kernel; they read as zeros from then on.

    Raises
    ------
    OSError
        If the kernel refuses.
    """
    start = -(-offset // PAGE) * PAGE
    end = (offset + nbytes) // PAGE * PAGE
    if end <= start:
        return
    mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    if _libc.fallocate(fd, mode, start, end - start) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"punching a hole into a memory file: {os.strerror(number)}")
