"""Run directories: where a process keeps its socket files, and how others of the same user find it.

One directory a process, of mode 0700, in this user's run root. Its owner holds a lock on the file ``lock`` in it for as
long as it lives; the kernel drops the lock when the process ends, however it ends. So a process that can take that lock
knows that the owner is gone, and may remove the directory (`sweep`). It need not guess from a process id, which another
process may have by then.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import stat
import time
import weakref
from pathlib import Path
from typing import Any

from holdfast.objectstore.errors import HoldfastError
from holdfast.objectstore.system import leftovers
from holdfast.objectstore.system.surroundings import check_umask, runtime_directory

LOCK = "lock"
INFO = "info.json"
#: Socket files lie in run directories, and the path of one has 107 bytes at most.
MAX_ROOT_LENGTH = 64


def run_root() -> Path:
    """This user's directory for run directories, made if it is not there.

    It is in ``$XDG_RUNTIME_DIR`` if that is this user's, or else in the first temporary directory that can be written
    to, so that all processes of a user find the same one.

    Raises
    ------
    HoldfastError
        It belongs to another user, or others could write into it; or it can't be made.
    """
    check_umask()
    base = runtime_directory()
    roots = [Path(parent, f"holdfast-{os.getuid()}") for parent in ("/tmp", "/var/tmp")]
    if base is not None and len(base) <= MAX_ROOT_LENGTH:
        roots.insert(0, Path(base, "holdfast"))
    failures = []
    for root in roots:
        try:
            root.mkdir(mode=0o700, exist_ok=True)
        except FileExistsError:
            pass  # it is no directory
        except OSError as error:
            failures.append(f"{root}: {error.strerror or error}")
            continue
        status = root.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise HoldfastError(
                f"{root} must be a directory of yours that only you can enter: remove it, or set XDG_RUNTIME_DIR to "
                "another place"
            )
        if os.access(root, os.R_OK | os.W_OK | os.X_OK):
            return root
        failures.append(f"{root} can't be written to")
    raise HoldfastError(
        f"there is no place for what processes leave for each other ({'; '.join(failures)}): set XDG_RUNTIME_DIR to a "
        "directory of yours"
    )


class _Lock:
    """The lock of a run directory. All that see to the end of the directory may close it."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


_held: weakref.WeakSet[RunDirectory] = weakref.WeakSet()


class RunDirectory:
    """The run directory of this process.

    Examples
    --------
    >>> directory = RunDirectory.create("example")
    >>> directory.write_info({"address": "tcp://127.0.0.1:8786"})
    >>> [entry["address"] for entry in running("example")]
    ['tcp://127.0.0.1:8786']
    >>> directory.close()
    """

    def __init__(self, path: Path, kind: str, lock: _Lock) -> None:
        self.path = path
        self._kind = kind
        self._started = time.time()
        self._lock = lock
        self._owner_pid = os.getpid()
        _held.add(self)
        # Also of one that nobody could take, because of an interrupt.
        self._finalizer = weakref.finalize(self, _remove, path, lock, self._owner_pid)
        self._finalizer.atexit = False

    @classmethod
    def create(cls, kind: str) -> RunDirectory:
        """Make a fresh one and lock it. ``kind`` says what the process is, in a word."""
        root = run_root()
        # It is locked before it gets its name: a directory that a sweep can see has always had its lock.
        name = f"{kind}-{os.getpid()}-{secrets.token_hex(3)}"
        aside, place = root / f".{name}", root / name
        lock: _Lock | None = None
        try:
            aside.mkdir(mode=0o700)
            lock = _Lock(os.open(aside / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            fcntl.flock(lock.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            aside.rename(place)
            directory = cls(place, kind, lock)
            directory.write_info({})
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(place, ignore_errors=True)
            if lock is not None:
                lock.close()
            raise
        return directory

    def write_info(self, info: dict[str, Any]) -> None:
        """Say something about this process to all that call `running`; replaces what was said before."""
        info = {"kind": self._kind, "pid": self._owner_pid, "started": self._started, **info}
        aside = self.path / f"{INFO}.new"
        aside.touch(mode=0o600)
        aside.write_text(json.dumps(info))
        aside.rename(self.path / INFO)

    def close(self) -> None:
        """Remove it with all that is in it. Twice is no error; in a fork of its owner it does nothing."""
        if self._finalizer.alive and os.getpid() == self._owner_pid:
            shutil.rmtree(self.path, ignore_errors=True)  # if this is interrupted, it can be closed again
            self._finalizer()


def _remove(path: Path, lock: _Lock, owner_pid: int) -> None:
    if os.getpid() == owner_pid:
        shutil.rmtree(path, ignore_errors=True)
        lock.close()


def _let_go() -> None:
    # A lock lives as long as any copy of its descriptor: a fork must not hold it for its parent.
    for directory in list(_held):
        if directory._finalizer.detach() is not None:
            directory._lock.close()
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


def sweep() -> list[Path]:
    """Remove what processes have left that ended without doing it; return the paths.

    That is their run directories and, wherever they lie, the directories of their stores
    (`objectstore/system/leftovers.py`).
    """
    removed = []
    for path in _directories():
        fd = _lock_of_dead(path)
        if fd is None:
            continue
        # The lock is held while removing, so two sweeps never meet in one directory.
        shutil.rmtree(path, ignore_errors=True)
        os.close(fd)
        removed.append(path)
    _sweep_unborn()
    return [*removed, *map(Path, leftovers.sweep())]


def running(kind: str | None = None) -> list[dict[str, Any]]:
    """What live processes of this user say about themselves, oldest first.

    Each has at least ``kind``, ``pid``, ``started`` (seconds since the epoch) and ``directory``.
    """
    entries = []
    for path in _directories():
        fd = _lock_of_dead(path)
        if fd is not None:
            os.close(fd)
            continue
        try:
            info = json.loads((path / INFO).read_text())
        except (OSError, ValueError):
            continue  # just made, or just gone
        if kind is None or info.get("kind") == kind:
            entries.append({**info, "directory": str(path)})
    return sorted(entries, key=lambda info: info["started"])


def _directories() -> list[Path]:
    return sorted(path for path in run_root().iterdir() if not path.name.startswith(".") and path.is_dir())


def _lock_of_dead(path: Path) -> int | None:
    """Take the lock of a directory whose owner is gone. None: it lives, or the directory went."""
    try:
        fd = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # Its owner or a sweep is removing it, or died while at it: the lock file may go before the rest.
        return _lock_remains(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _lock_remains(path: Path) -> int | None:
    # Opened as a directory: another process that is removing it only finds less to remove.
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _sweep_unborn() -> None:
    """Remove what creators left that died between making a directory and naming it."""
    for path in run_root().glob(".*-*-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > 60:
                shutil.rmtree(path, ignore_errors=True)
