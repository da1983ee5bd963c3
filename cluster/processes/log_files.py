"""Keeping the log files of a cluster's processes bounded.

Many write to a log: the process that it is named after, the processes that this one starts, tasks that print, libraries
in C. All of them have inherited one descriptor, so none of them could go on in another file. So the process that has
started them cuts a file that has grown too large: its end is copied to a file beside it, and it is made empty. All of
them append, so they go on at its beginning. A line that is written between the copy and the cut is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

#: A log is cut when it is larger. So much of its end stays in a file beside it, in place of what was there.
LIMIT_NBYTES = 16 << 20
#: How often the sizes are looked at.
CHECK_SECONDS = 2.0
_CHUNK_NBYTES = 1 << 20
_NAME_LENGTH_MAX = 100


class Log(NamedTuple):
    """Where a process logs: the file, and what is in it before the process begins, in bytes."""

    path: Path
    start: int


def cut_large(paths: Iterable[Path], limit_nbytes: int = LIMIT_NBYTES) -> None:
    """Cut those of the logs that are larger; what can't be cut is logged, and stays."""
    for path in paths:
        try:
            if path.stat().st_size > limit_nbytes:
                _cut(path, limit_nbytes)
        except FileNotFoundError:
            continue
        except OSError as error:
            logger.warning("the log %s is too large, and can't be cut: %s", path, error)


def default_root() -> Path | None:
    """Where the logs of clusters lie for which no place was named; None if this user has no home."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    logs = Path(state, "holdfast", "logs")
    return logs if logs.is_absolute() else None


def file_of(directory: Path, name: str) -> Path:
    """The log of a worker of this name. What can't be in the name of a file is replaced."""
    plain = re.sub(r"[^\w.-]", "_", name)
    if plain != name or len(plain) > _NAME_LENGTH_MAX:  # another one's may become the same
        plain = f"{plain[:_NAME_LENGTH_MAX]}-{blake2b(name.encode(), digest_size=4).hexdigest()}"
    return directory / f"{plain}.log"


def older(path: Path) -> Path:
    """Where the end of a log is that was cut: beside it."""
    return path.with_name(f"{path.name}.1")


def _cut(path: Path, limit_nbytes: int) -> None:
    with open(path, "r+b") as log:
        # Two clusters may have the same files; the second one to look finds a small one.
        fcntl.flock(log, fcntl.LOCK_EX)
        size = log.seek(0, os.SEEK_END)
        if size <= limit_nbytes:
            return
        log.seek(size - limit_nbytes)
        log.readline()
        try:
            fd = os.open(older(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as kept:
                # What is written meanwhile is copied too, unless that goes on and on.
                while kept.tell() < 2 * limit_nbytes and (chunk := log.read(_CHUNK_NBYTES)):
                    kept.write(chunk)
        except OSError as error:  # a full disk, most likely: then it is all the better that the log is cut
            logger.warning("the end of the log %s can't be kept: %s", path, error)
            with contextlib.suppress(OSError):
                older(path).unlink()
        log.truncate(0)


def open_log(path: Path) -> int:
    """A descriptor that appends to a file, which is this user's alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
