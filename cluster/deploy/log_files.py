"""Keeping the log files of a cluster's processes bounded.

A log is written by many: the process that it is named after, those which it starts, what tasks print, libraries in C.
All of them have inherited one descriptor, so none of them could go on in another file. So the process that has started
them cuts a file that has grown too large: its end is copied to a file beside it, and it is made empty. All who write
append, so they go on at its beginning. A line that is written between the copy and the cut is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger(__name__)

#: A log is cut when it is larger. So much of its end stays in a file beside it, in place of what was there.
LIMIT_NBYTES = 16 << 20
#: How often the sizes are looked at.
CHECK_SECONDS = 2.0
_CHUNK_NBYTES = 1 << 20


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
