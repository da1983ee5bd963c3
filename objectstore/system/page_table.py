"""What the kernel says of this process's pages: ``/proc/self/pagemap``.

It has a number for each page. One bit tells that the page is mapped, one that it was moved to the swap, and one that it
belongs to a file or to shared memory. In a private map of a file a page belongs to the file until it is written; from
then on it's a copy that only this process has. So the bits tell exactly which pages were written, huge ones and those
that were swapped out included.

In a sandbox there may be no such file, or one that always says the same. Whether it tells the truth is tried once, with
a page that was written and one that was only read.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import struct
from typing import Self

import numpy as np

from holdfast.objectstore.system.file_maps import FileMap, memory_file
from holdfast.objectstore.system.pages import PAGE

PATH = "/proc/self/pagemap"
_ENTRY = struct.Struct("=Q")
_PAGES_AT_ONCE = 1 << 16
_PRESENT = 1 << 63
_PRESENT_OR_SWAPPED = np.uint64(3 << 62)
_OF_A_FILE = np.uint64(1 << 61)


class PageTable:
    """The pages of this process, while it's open. Where nothing is known, in a sandbox, it says so of each question.

    Parameters
    ----------
    path : str
        Of the file that tells.
    """

    def __init__(self, path: str = PATH) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
        return self

    def __exit__(self, *exc_info: object) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def is_mapped(self, address: int) -> bool:
        """Whether the page is there and mapped. False if that isn't known."""
        entry = self._read(address // PAGE, 1)
        return bool(entry and _ENTRY.unpack(entry)[0] & _PRESENT)

    def written(self, address: int, nbytes: int) -> list[int] | None:
        """The addresses of the pages of a private map that were written, as a list; None if that isn't known."""
        first, end = address // PAGE, -(-(address + nbytes) // PAGE)
        found: list[int] = []
        for start in range(first, end, _PAGES_AT_ONCE):
            data = self._read(start, min(_PAGES_AT_ONCE, end - start))
            if not data:
                return None
            entries = np.frombuffer(data, np.uint64)
            is_written = ((entries & _PRESENT_OR_SWAPPED) != 0) & ((entries & _OF_A_FILE) == 0)
            found += ((start + np.flatnonzero(is_written)) * PAGE).tolist()
        return found

    def _read(self, page: int, count: int) -> bytes:
        """The entries of so many pages; nothing if they can't be read."""
        if self._fd < 0:
            return b""
        try:
            data = os.pread(self._fd, count * _ENTRY.size, page * _ENTRY.size)
        except OSError:
            return b""
        return data if len(data) == count * _ENTRY.size else b""


@functools.cache
def is_truthful(path: str = PATH) -> bool:
    """Whether this process can learn which pages of its private maps were written."""
    try:
        fd = memory_file("holdfast-page-table", 3 * PAGE)
        try:
            pages = FileMap(fd, 0, 3 * PAGE, flags=mmap.MAP_PRIVATE, writable=True)
        finally:
            os.close(fd)
    except OSError:
        return False
    ctypes.string_at(pages.address, 1)
    ctypes.memset(pages.address + PAGE, 1, 1)
    with PageTable(path) as table:
        return table.written(pages.address, 3 * PAGE) == [pages.address + PAGE]
