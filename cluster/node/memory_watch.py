"""The memory that is a process's own, and the limit on it.

What a worker maps from the store is shared with everybody on the host and is the store's to account for; what counts
against a worker's limit is the rest. The limit is enforced from outside, because a task that
fills the memory may not let its own process's other threads run.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from holdfast.objectstore.sizes import format_size

INTERVAL_SECONDS = 0.2
_PAGE_NBYTES = os.sysconf("SC_PAGE_SIZE")


def private_nbytes(pid: int) -> int:
    """The bytes of memory that a process uses and shares with nobody; 0 if there is no such process any more."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_bytes().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    resident, shared = int(fields[1]), int(fields[2])
    return max(0, resident - shared) * _PAGE_NBYTES


async def watch(pids: Callable[[], Iterable[int]], limit: int, kill: Callable[[int, str], None]) -> None:
    """Call ``kill(pid, reason)`` for each process found to use more than ``limit`` bytes of its own; forever."""
    while True:
        await asyncio.sleep(INTERVAL_SECONDS)
        for pid in list(pids()):
            used = private_nbytes(pid)
            if used > limit:
                kill(
                    pid,
                    f"exceeded its memory limit of {format_size(limit)}: {format_size(used)} used by itself",
                )
