"""Where a server listens: its socket's file, and what is left of those that dead servers had.

A server without a path of its own makes a fresh directory for the socket. One that was killed can't remove it; the next
process of this user that looks for leftovers does (``leftovers.py``).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from holdfast.objectstore.errors import StoreError
from holdfast.objectstore.system.leftovers import OwnDirectory, sweep
from holdfast.objectstore.system.surroundings import runtime_directory

SOCKET = "store.sock"
_BACKLOG = 1024


def fresh_directory() -> OwnDirectory:
    """A new directory of mode 0700 for a socket; the caller's to close.

    It is in ``$XDG_RUNTIME_DIR`` if that is this user's, or in the first temporary directory that can be written to.

    Raises
    ------
    StoreError
        None can be made.
    """
    bases = [runtime_directory(), "/tmp", os.environ.get("TMPDIR"), "/var/tmp"]
    failures = []
    for base in dict.fromkeys(base for base in bases if base):
        try:
            directory = OwnDirectory(base, "store")
        except OSError as error:
            failures.append(f"{base}: {error.strerror or error}")
            continue
        sweep(base)
        return directory
    raise StoreError(
        f"there is no place for a store's socket ({'; '.join(failures)}): set XDG_RUNTIME_DIR to a directory of yours, "
        "or name a socket"
    )


def listen(path: str) -> socket.socket:
    """A listening socket at ``path``, in place of one that no server serves any more.

    Raises
    ------
    StoreError
        If another store serves there, or none can.
    """
    try:
        return _bound(path)
    except OSError as error:
        raise StoreError(f"the store can't be reached at {path}: {error}; choose another path") from error


def _bound(path: str) -> socket.socket:
    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_stale(path)
            listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise StoreError(f"{path} exists and is not a socket")
    if not _is_dead(path):
        raise StoreError(f"another store serves at {path}")
    os.unlink(path)


def _is_dead(path: str) -> bool:
    """Whether no process listens on a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED
