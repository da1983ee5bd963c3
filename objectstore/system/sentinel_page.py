"""Whether a process still has a piece of memory mapped, asked of the kernel.

A process that has the arena mapped keeps a descriptor open beside the map, and so do its forks: its end tells that
no process is left, at once. But a descriptor can be closed by a process that still has the map: daemons close all that
they inherited. A map isn't closed by mistake. So a page of memory, the *sentinel*, is mapped wherever the arena is.
Forks inherit it, and it goes with the process or when that becomes another program.

The kernel seals a memory file against writing only if no writable map of it is left anywhere. To try that is the
question; it can't tell when the answer changes, so it is asked again and again after the descriptor's end.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

from holdfast.objectstore.system.file_maps import FileMap
from holdfast.objectstore.system.pages import PAGE

#: How often to ask.
ASK_SECONDS = 1.0


class SentinelPage:
    """The memory file, on the side that asks.

    An interrupt (Ctrl-C) may come whenever a function that is written in C has returned. So the descriptor is put where
    it is found again by another such function, in the same call.

    Raises
    ------
    OSError
        If there are no descriptors left.
    """

    __slots__ = ("_fds",)

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._fds.extend(map(os.memfd_create, ["holdfast-sentinel"], [os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING]))
        os.ftruncate(self.fd, PAGE)

    @property
    def fd(self) -> int:
        """The descriptor; -1 once it is closed."""
        return self._fds[0] if self._fds else -1

    def is_mapped(self) -> bool:
        """Whether a process maps it. Once none does, none can any more."""
        if self.fd < 0:
            return False
        try:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return True
        return False

    def close(self) -> None:
        """Ask no more. Twice is no error."""
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)

    def __del__(self) -> None:
        if hasattr(self, "_fds"):  # an interrupt may have come before
            self.close()


def map_sentinel(fd: int) -> FileMap:
    """A map of the sentinel page behind a descriptor, to be kept as long as that of which it is to tell."""
    return FileMap(fd, 0, PAGE, flags=mmap.MAP_SHARED, writable=True)
