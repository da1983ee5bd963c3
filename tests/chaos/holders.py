"""Which process has a lock of the cluster, told by the machine: files that only one process at a time can lock.

A process takes the file after the lock of the cluster, and gives it back before. So the file is free for the next one
whenever the cluster is right. The machine frees the file of a process that has died.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path


class TooMany(Exception):
    """More processes have a lock than may.

    Attributes
    ----------
    others : list of tuple of int and float
        The processes that have it, and since when.
    """

    def __init__(self, name: str, others: list[tuple[int, float]]) -> None:
        super().__init__(f"{name} is held by {', '.join(f'process {pid}' for pid, _ in others)} too")
        self.others = others


@contextlib.contextmanager
def held(directory: Path, name: str, places: int = 1) -> Iterator[None]:
    """Have one of so many places of a lock.

    Places are tried in order, each once. That is enough for two: a process that finds the first one taken is one of
    the two that may be there, so the other one has not the second as well.

    Raises
    ------
    TooMany
        Other processes have all of them.
    """
    assert places <= 2, "with more, places would have to be tried more than once"
    others = []
    for place in range(places):
        file = os.open(directory / f"{name}-{place}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                others.append(_holder(file))
                continue
            os.pwrite(file, json.dumps([os.getpid(), time.monotonic()]).ljust(80).encode(), 0)
            yield
            return
        finally:
            os.close(file)  # it is free with this
    raise TooMany(name, others)


def _holder(file: int) -> tuple[int, float]:
    """What stands in the file: nothing yet, if its holder has it since this moment."""
    written = os.pread(file, 80, 0)
    pid, since = json.loads(written) if written else (0, time.monotonic())
    return pid, since
