"""The arena: one sparse piece of anonymous memory that every process of the host maps.

It is a memfd. It lives while any process has it open or mapped and not a moment longer, so nothing
needs to be cleaned up after ``kill -9``; it isn't bound by the size of ``/dev/shm``; and its size is
sealed, so that no process can shrink it under the feet of the others.

There are two descriptors of the same memory. Writers map the one the memfd came with. Readers map the
other, reopened read-only through ``/proc/self/fd``: through a map of it not even ``mprotect`` makes a
page writable, so a reader can't damage a sealed object by accident. (A hostile process of the same
user can open it writable again through ``/proc``: same-user processes aren't protected from each other.)
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from typing import NamedTuple

PAGE = mmap.PAGESIZE
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_MADV_POPULATE_WRITE = 23
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]


def _last_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def populate(address: int, nbytes: int) -> bool:
    """Does what a write to each of these pages would do, without writing: makes the page and maps it here.

    No byte changes, so others may read and write there meanwhile. The GIL is released. False if the kernel
    doesn't do it (before Linux 5.14, or without memory): then whoever writes first pays.

    Parameters
    ----------
    address, nbytes : int
        Within a writable map; cut to whole pages.
    """
    start = address // PAGE * PAGE
    return bool(_libc.madvise(start, address + nbytes - start, _MADV_POPULATE_WRITE) == 0)


def is_resident(address: int, nbytes: int) -> bool:
    """Whether all pages of a range of a map take up memory, mapped here or not. The GIL is released.

    Parameters
    ----------
    address, nbytes : int
        Within a writable map; cut to whole pages.
    """
    start = address // PAGE * PAGE
    nbytes += address - start
    pages = ctypes.create_string_buffer(-(-nbytes // PAGE))
    return _libc.mincore(start, nbytes, pages) == 0 and b"\0" not in pages.raw


def resident_extents(fd: int, offset: int, nbytes: int) -> Iterator[tuple[int, int]]:
    """The parts of an extent that take up memory, as ``(offset, nbytes)`` in order; the rest are holes.

    Moves the descriptor's position, which nobody uses.
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


def memory_file(name: str, nbytes: int) -> int:
    """A descriptor of ``nbytes`` zeros in memory that nobody can shrink or grow."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, nbytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


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
            mapped = mmap.mmap(self.fd, nbytes, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            self.view = memoryview(mapped)
            self._address = ctypes.addressof(ctypes.c_ubyte.from_buffer(mapped))
        except BaseException:
            self.close()
            raise

    def resident_nbytes(self) -> int:
        """The bytes of memory that the arena uses now."""
        return os.fstat(self.fd).st_blocks * 512

    def populate(self, offset: int, nbytes: int) -> bool:
        """Makes the pages of an extent; false if the kernel doesn't. No byte changes. Not after ``close``."""
        return populate(self._address + offset, nbytes)

    def punch(self, offset: int, nbytes: int) -> None:
        """Gives the whole pages within the extent back to the kernel; they read as zeros from then on."""
        start = -(-offset // PAGE) * PAGE
        end = (offset + nbytes) // PAGE * PAGE
        if end <= start:
            return
        mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
        if _libc.fallocate(self.fd, mode, start, end - start) != 0:
            raise _last_error("punching a hole into the arena")

    def close(self) -> None:
        """Closes the descriptors. Maps stay, here while someone holds a slice of ``view``."""
        for fd in (self.fd, self.read_only_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.read_only_fd = -1
        self.view = memoryview(b"")


class FileMap:
    """A map of a piece of a file, ``nbytes`` at ``address``. Unmapped when nobody holds this object.

    Python's own ``mmap`` keeps a duplicate of the descriptor for each map; with thousands of views
    alive a process would run out of them.
    """

    def __init__(self, fd: int, offset: int, nbytes: int, *, flags: int, writable: bool, base: object = None) -> None:
        self._mapped: list[int] = []
        self._base = base
        start = offset // PAGE * PAGE
        self._span = offset + nbytes - start
        protection = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
        # One step: what is mapped is known to ``__del__``, even if an interrupt comes right after it.
        self._mapped.extend(map(_libc.mmap, [None], [self._span], [protection], [flags], [fd], [start]))
        (address,) = self._mapped
        if address == _MAP_FAILED:
            self._mapped.clear()
            raise _last_error("mapping memory")
        self.address: int = address + offset - start
        self.nbytes = nbytes
        self.writable = writable

    def __del__(self) -> None:
        for address in getattr(self, "_mapped", ()):  # nothing if an interrupt came before it had begun
            _libc.munmap(address, self._span)


def map_shared(fd: int, nbytes: int, *, writable: bool) -> memoryview:
    """A file's first ``nbytes``, shared with whoever maps it too. The descriptor may be closed."""
    mapped = FileMap(fd, 0, nbytes, flags=mmap.MAP_SHARED, writable=writable)
    array = (ctypes.c_ubyte * nbytes).from_address(mapped.address)
    array.mapped = mapped  # type: ignore[attr-defined] # as long as there is a view of the array
    view = memoryview(array).cast("B")
    return view if writable else view.toreadonly()


class Extent(NamedTuple):
    """Where bytes lie in the arena."""

    offset: int
    nbytes: int
