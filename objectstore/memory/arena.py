"""The arena: one sparse piece of anonymous memory that every process of the host maps.

It is a memfd. It lives while any process has it open or mapped and not a moment longer, so nothing
needs to be cleaned up after ``kill -9``; it isn't bound by the size of ``/dev/shm``; and its size is
sealed, so that no process can shrink it under the feet of the others.

There are two descriptors of the same memory. Writers map the one the memfd came with. Readers map the
other, reopened read-only through ``/proc/self/fd``: through a map of it not even ``mprotect`` makes a
page writable, so a reader can't damage a sealed object by accident. (A hostile process of the same
user can open it writable again through ``/proc``: same-user processes aren't protected from each other.)

Pages are made in huge ones of 2 MiB where that can be had (`make_huge_page`). The kernel clears such a page in a third
of the time that it takes for 512 small ones, and maps it at once: a process that looks at a gigabyte for the first time
takes 500 faults for it instead of as many as it touches pages. It asks for no privilege and no setting: what the
system's settings for huge pages say is about those that the kernel makes by itself. For a huge page to be mapped as one
the map has to begin at a whole one too (``FileMap``).
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
#: The bytes of a huge page where pages have 4 KiB. Where they're larger, huge ones are too, and aren't made.
HUGE_PAGE = 2 << 20
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_MADV_POPULATE_READ = 22
_MADV_POPULATE_WRITE = 23
_MADV_COLLAPSE = 25
_PROT_NONE = 0
_MAP_FIXED = 0x10
#: A private map of which little will be written isn't counted as if all of it would.
MAP_NORESERVE = 0x4000
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


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
    most. Where there are pages already it would copy them, which takes far longer than using them: who calls looks.

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
    is cleared: milliseconds for a huge page. ``make_huge_page`` clears it in one go, during which nobody else gets the
    processor. So memory of the same size is cleared first in a way that can be interrupted, and given back: what was
    given back last is taken next.
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
    """Whether all of an extent takes up memory. Moves the descriptor's position, which nobody uses."""
    return os.lseek(fd, offset, os.SEEK_HOLE) >= offset + nbytes


def is_hole(fd: int, offset: int, nbytes: int) -> bool:
    """Whether nothing of an extent takes up memory. Moves the descriptor's position, which nobody uses."""
    return next(resident_extents(fd, offset, nbytes), None) is None


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
        start = -(-offset // PAGE) * PAGE
        end = (offset + nbytes) // PAGE * PAGE
        if end <= start:
            return
        mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
        if _libc.fallocate(self.fd, mode, start, end - start) != 0:
            raise _last_error("punching a hole into the arena")

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Copies bytes to where others were. The GIL is released. Not after ``close``."""
        assert 0 <= min(source, target) <= max(source, target) + nbytes <= self.nbytes, (source, target, nbytes)
        ctypes.memmove(self._address + target, self._address + source, nbytes)

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

    Parameters
    ----------
    fd, offset, nbytes : int
        The piece. The descriptor may be closed afterwards.
    flags : int
        ``mmap.MAP_SHARED`` or ``mmap.MAP_PRIVATE``.
    writable : bool
        Whether it may be written to.
    base : object
        Kept as long as the map.
    alignment : int
        Bytes of which the map's beginning is a multiple, a number of pages; the piece begins at such a place of the
        file then.
    """

    def __init__(
        self,
        fd: int,
        offset: int,
        nbytes: int,
        *,
        flags: int,
        writable: bool,
        base: object = None,
        alignment: int = PAGE,
    ) -> None:
        self._mapped: list[int] = []
        self._base = base
        start = offset // PAGE * PAGE
        self._span = offset + nbytes - start
        protection = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
        address = self._map(None, self._span, protection, flags, fd, start)
        if address % alignment:
            # Below what the kernel has chosen there is mostly room. And below what begins there, the next map does too.
            address //= alignment
            self._unmap()
            address = self._map(address * alignment, self._span, protection, flags, fd, start)
        if address % alignment:
            self._unmap()
            address = self._map_in_room(protection, flags, fd, start, alignment)
        self.address: int = address + offset - start
        self.nbytes = nbytes
        self.writable = writable

    def _map(self, hint: int | None, span: int, protection: int, flags: int, fd: int, start: int) -> int:
        # One step: what is mapped is known to ``__del__``, even if an interrupt comes right after it.
        self._mapped.extend(map(_libc.mmap, [hint], [span], [protection], [flags], [fd], [start]))
        (mapped,) = self._mapped
        if mapped == _MAP_FAILED:
            self._mapped.clear()
            raise _last_error("mapping memory")
        return mapped

    def _map_in_room(self, protection: int, flags: int, fd: int, start: int, alignment: int) -> int:
        """A map in room that is large enough for it wherever it may begin; the rest is given back."""
        span = self._span
        self._span = span + alignment - PAGE
        room = self._map(None, self._span, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        address = -(-room // alignment) * alignment
        if _libc.mmap(address, span, protection, flags | _MAP_FIXED, fd, start) != address:
            raise _last_error("mapping memory")
        room_end = room + self._span
        # What is given back is nobody's from then on: if an interrupt comes, it isn't given back a second time.
        self._mapped[0] = address
        self._span = span
        if address > room:
            _libc.munmap(room, address - room)
        end = -(-(address + span) // PAGE) * PAGE
        if room_end > end:
            _libc.munmap(end, room_end - end)
        return address

    def _unmap(self) -> None:
        mapped, self._mapped = self._mapped, []
        for address in mapped:
            _libc.munmap(address, self._span)

    def __del__(self) -> None:
        if hasattr(self, "_mapped"):  # not if an interrupt came before it had begun
            self._unmap()


def map_shared(fd: int, nbytes: int, *, writable: bool, alignment: int = PAGE) -> memoryview:
    """A file's first ``nbytes``, shared with whoever maps it too. The descriptor may be closed."""
    mapped = FileMap(fd, 0, nbytes, flags=mmap.MAP_SHARED, writable=writable, alignment=alignment)
    array = (ctypes.c_ubyte * nbytes).from_address(mapped.address)
    array.mapped = mapped  # type: ignore[attr-defined] # as long as there is a view of the array
    view = memoryview(array).cast("B")
    return view if writable else view.toreadonly()


class Extent(NamedTuple):
    """Where bytes lie in the arena."""

    offset: int
    nbytes: int
