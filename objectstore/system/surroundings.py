"""What a process usually finds where it runs, and may have to do without."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from holdfast.objectstore.errors import HoldfastError


def runtime_directory() -> str | None:
    """``$XDG_RUNTIME_DIR``, if it is a directory of this user's that can be written to.

    After ``su`` and ``sudo`` it often is another user's: not to be entered, or, for root, not to be written to.
    """
    path = os.environ.get("XDG_RUNTIME_DIR")
    try:
        status = os.stat(path) if path else None
    except OSError:
        return None
    if path is None or status is None or not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return None
    return path if os.access(path, os.R_OK | os.W_OK | os.X_OK) else None


def check_umask() -> None:
    """To be called before files and directories are made.

    Raises
    ------
    HoldfastError
        This process's umask would take them from their owner.
    """
    # To ask for the umask one has to change it, for all threads; the kernel's table tells without.
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return
    mask = next((int(line.split()[1], 8) for line in lines if line.startswith("Umask:")), 0)
    if mask & 0o700:
        raise HoldfastError(
            f"the umask 0{mask:o} takes new files and directories from their owner: set another, such as 'umask 077'"
        )


def fill_standard_descriptors() -> None:
    """Have the descriptors 0, 1 and 2 open, on nothing if they aren't.

    Otherwise the next sockets and pipes would get these numbers, and be taken for the standard input and output by the
    processes that are started, and by event loops.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
            os.set_inheritable(fd, True)
