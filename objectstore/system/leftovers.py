"""Directories of this process alone, and what is left of those of processes that were killed.

A server has two: one for its socket, if it was told no other place, and one for the files of spilled objects. Each is
private (mode 0700) and has a file, ``lock``, which its process keeps locked. A process that is killed can't tidy up,
but the kernel lets go of its locks: so a process that can take the lock knows that the directory is a dead process's,
and removes it (`sweep`). No process has to guess from process ids.

They may lie anywhere, under parents that many share. So each is also noted in a *register*, a directory of this user's
that all of this user's processes on this host know, and a sweep looks there, too. A note is written before its
directory is made, and goes after it: what was made is noted, whenever its process was killed.

What isn't surely a dead process's of this user stays. A directory must have been made by this user, must not be a
symbolic link, and must have a name that only these have. And a lock says something only where it's the same
kernel's: on a file system that hosts share, a lock of another host may be invisible here. So the lock file says which
boot of which kernel it's from, and one from another is believed on the file systems of a single host only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import shutil
import socket
import stat
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from holdfast.objectstore.system.mounts import is_of_one_host
from holdfast.objectstore.system.surroundings import runtime_directory

logger = logging.getLogger("holdfast.objectstore")

_LOCK = "lock"
_PREFIXES = ("holdfast-spill-", "holdfast-store-")
_REGISTER = "holdfast-leftovers"
_TRIES = 10
#: A note that has been there for so long has a directory, unless that is gone; and a directory has a lock.
_YOUNG_SECONDS = 60.0
_PATH_NBYTES_MAX = 4096

_held: weakref.WeakSet[OwnDirectory] = weakref.WeakSet()


class OwnDirectory:
    """A fresh directory of this process, locked and noted.

    Parameters
    ----------
    parent : str
        Where it's made.
    kind : str
        ``"spill"`` or ``"store"``.

    Attributes
    ----------
    path : str
        Where it is.

    Raises
    ------
    OSError
        If none can be made there.
    """

    def __init__(self, parent: str, kind: str) -> None:
        self._owner_pid = os.getpid()
        for _ in range(_TRIES):
            self.path = os.path.join(os.path.abspath(parent), f"holdfast-{kind}-{secrets.token_hex(6)}")
            self._note = _note(self.path)
            try:
                os.mkdir(self.path, mode=0o700)
                # Another process may be sweeping: until the lock is taken, this looks like a dead process's.
                with contextlib.suppress(FileNotFoundError):
                    self._lock_fd = _locked(self.path)
                    if self._lock_fd >= 0:
                        _held.add(self)
                        return
            except BaseException:
                _forget_note(self._note)
                raise
            _forget_note(self._note)
        raise OSError(errno.EAGAIN, "something removes each directory that is made there", parent)

    def close(self) -> None:
        """Removes it with all that is in it. Twice is no error; in a fork of its owner it does nothing."""
        if self._lock_fd >= 0 and os.getpid() == self._owner_pid:
            shutil.rmtree(self.path, ignore_errors=True)
            _forget_note(self._note)
            self._let_go()

    def _let_go(self) -> None:
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)


def _leave_to_parent() -> None:
    # A lock lives as long as any copy of its descriptor: a fork must not hold it for its parent.
    for directory in list(_held):
        directory._let_go()
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def sweep(parent: str | None = None) -> list[str]:
    """Removes what dead processes of this user have left: what is noted, and what lies under ``parent``. The paths."""
    removed = []
    if parent is not None:
        with contextlib.suppress(OSError), os.scandir(parent) as entries:
            found = [entry.path for entry in entries if entry.name.startswith(_PREFIXES)]
            removed += [path for path in found if _is_removed(path)]
    for note, path in _notes():
        is_removed = _is_removed(path)
        if is_removed:
            removed.append(path)
        if is_removed or (_is_old(note) and not os.path.lexists(path)):
            _forget_note(note)
    return removed


def _locked(path: str) -> int:
    """The descriptor of the directory's lock file, which is made and locked; -1 if another process has it."""
    fd = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if _try_lock(fd) and os.path.exists(os.path.join(path, _LOCK)):
        os.write(fd, _boot().encode())
        return fd
    os.close(fd)
    return -1


def _is_removed(path: str) -> bool:
    """Removes the directory, if it's a dead process's of this user. Whether it did."""
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return False
        try:
            fd = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return _is_removed_without_lock(path)
        try:
            if _try_lock(fd) and _is_believed(fd, path):
                shutil.rmtree(path, ignore_errors=True)
                return not os.path.exists(path)
        finally:
            os.close(fd)
    return False


def _is_removed_without_lock(path: str) -> bool:
    try:
        os.rmdir(path)  # its process died, or is about to try again
        return True
    except OSError:
        # Its remover has died meanwhile; or it's of a version that locked nothing here, and may be alive.
        if not _is_old(path) or not is_of_one_host(path) or any(map(_is_served, Path(path).iterdir())):
            return False
    shutil.rmtree(path, ignore_errors=True)
    return not os.path.exists(path)


def _is_served(path: Path) -> bool:
    """Whether it's a socket on which a process listens."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) != errno.ECONNREFUSED


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_believed(fd: int, path: str) -> bool:
    """Whether a lock that could be taken means that no process has it."""
    boot = os.pread(fd, 100, 0).decode(errors="replace")
    return (boot != "" and boot == _boot()) or is_of_one_host(path)


def _boot() -> str:
    """What tells this boot of this host's kernel from all others; "" if that can't be known."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


# The register


def _register() -> str | None:
    """The directory of the notes, made if it isn't there; None if there can't be one that is this user's alone."""
    base = runtime_directory()
    path = f"/tmp/{_REGISTER}-{os.geteuid()}" if base is None else os.path.join(base, _REGISTER)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, mode=0o700)
        status = os.lstat(path)
    except OSError as error:
        logger.debug("there is no register of directories at %s: %s", path, error)
        return None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        logger.debug("%s isn't a directory that only this user can enter", path)
        return None
    return path


def _note(path: str) -> str | None:
    """Notes a directory that is about to be made: the note's own path. Without one it's swept by its parent only."""
    register = _register()
    if register is None:
        return None
    note = os.path.join(register, os.path.basename(path))
    try:
        aside = f"{note}.new"
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(os.fsencode(path))
        os.rename(aside, note)
    except OSError as error:
        logger.debug("the directory %s can't be noted: %s", path, error)
        return None
    return note


def _notes() -> Iterator[tuple[str, str]]:
    """Every note, and the directory that it names."""
    register = _register()
    if register is None:
        return
    for note in sorted(Path(register).iterdir()):
        with contextlib.suppress(OSError):
            path = os.fsdecode(note.read_bytes()[:_PATH_NBYTES_MAX])
            if os.path.isabs(path) and os.path.basename(path) == note.name and note.name.startswith(_PREFIXES):
                yield str(note), path
            elif _is_old(str(note)):
                note.unlink()  # half written


def _is_old(path: str) -> bool:
    """Whether nothing has been done to it for a while."""
    with contextlib.suppress(OSError):
        return time.time() - os.lstat(path).st_mtime > _YOUNG_SECONDS
    return False


def _forget_note(note: str | None) -> None:
    if note is not None:
        with contextlib.suppress(OSError):
            os.unlink(note)
