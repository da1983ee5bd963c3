"""Where a server listens: its socket's file, and what is left of those that dead servers had.

A server without a path of its own makes a fresh directory for the socket. One that was killed can't remove it, so each
that begins removes those of this user on whose sockets nobody listens any more.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import tempfile
import time
from pathlib import Path

from holdfast.objectstore.errors import StoreError
from holdfast.objectstore.surroundings import runtime_directory

SOCKET = "store.sock"
_PREFIX = "holdfast-store-"
_BACKLOG = 1024
_SETTLED_SECONDS = 60.0  # a younger socket may be one on which a server is just about to listen


def fresh_directory() -> str:
    """A new directory of mode 0700 for a socket; the caller's to remove.

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
            directory = tempfile.mkdtemp(prefix=_PREFIX, dir=base)
        except OSError as error:
            failures.append(f"{base}: {error.strerror or error}")
            continue
        _sweep(base)
        return directory
    raise StoreError(
        f"there is no place for a store's socket ({'; '.join(failures)}): set XDG_RUNTIME_DIR to a directory of yours, "
        "or name a socket"
    )


def listen(path: str) -> socket.socket:
    """A listening socket at ``path``, in place of one that nobody serves any more.

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
    """Whether nobody listens on a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _sweep(base: str) -> None:
    """Removes what dead servers of this user have left under ``base``."""
    with os.scandir(base) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for directory in found:
        path = os.path.join(directory, SOCKET)
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            is_old = time.time() - status.st_mtime > _SETTLED_SECONDS
            if stat.S_ISSOCK(status.st_mode) and status.st_uid == os.geteuid() and is_old and _is_dead(path):
                os.unlink(path)
                os.rmdir(directory)
