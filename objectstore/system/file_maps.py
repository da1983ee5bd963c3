"""Files in memory, and maps of files that go with the last object that holds them."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os

from holdfast.objectstore.system.pages import PAGE

#: A private map of which little will be written isn't counted as if all of it would.
MAP_NORESERVE = 0x4000
_PROT_NONE = 0
_MAP_FIXED = 0x10
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def memory_file(name: str, nbytes: int) -> int:
    """A descriptor of ``nbytes`` zeros in memory that no process can shrink or grow."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, nbytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


class FileMap:
    """A map of a piece of a file, ``nbytes`` at ``address``. Unmapped when this object is no longer referred to.

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
            raise _mapping_error()
        return mapped

    def _map_in_room(self, protection: int, flags: int, fd: int, start: int, alignment: int) -> int:
        """A map in room that is large enough for it wherever it may begin; the rest is given back."""
        span = self._span
        self._span = span + alignment - PAGE
        room = self._map(None, self._span, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        address = -(-room // alignment) * alignment
        if _libc.mmap(address, span, protection, flags | _MAP_FIXED, fd, start) != address:
            raise _mapping_error()
        room_end = room + self._span
        # What is given back has no owner from then on: if an interrupt comes, it isn't given back a second time.
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


def _mapping_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"mapping memory: {os.strerror(number)}")


def map_shared(fd: int, nbytes: int, *, writable: bool, alignment: int = PAGE) -> memoryview:
    """A file's first ``nbytes``, shared with all that map it too. The descriptor may be closed."""
    mapped = FileMap(fd, 0, nbytes, flags=mmap.MAP_SHARED, writable=writable, alignment=alignment)
    array = (ctypes.c_ubyte * nbytes).from_address(mapped.address)
    array.mapped = mapped  # type: ignore[attr-defined] # as long as there is a view of the array
    view = memoryview(array).cast("B")
    return view if writable else view.toreadonly()
