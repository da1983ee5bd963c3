"""The memory that is a process's own, and the limit on it.

What a worker maps from the store is shared with all processes of the host and is the store's to account for; what
counts against a worker's limit is the rest. The limit is enforced from outside, because a task that fills the memory
may not let its own process's other threads run.

To look costs little, but there may be many workers, for months. So the next look is when one of them could have reached
its limit at the earliest.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping

from holdfast.objectstore.sizes import format_size

#: Hardly a process takes new memory faster than this.
NBYTES_PER_SECOND_MAX = 8 << 30
#: Between two looks at a process, however near to its limit or far from it.
INTERVAL_SECONDS_MIN, INTERVAL_SECONDS_MAX = 0.02, 1.0
#: At all processes together. A look takes 5 to 50 µs.
LOOKS_PER_SECOND_MAX = 200
_PAGE_NBYTES = os.sysconf("SC_PAGE_SIZE")


def private_nbytes(pid: int) -> int:
    """The bytes of memory that a process uses and shares with no other; 0 if there is no such process any more."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as statm:
            fields = statm.read().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    resident, shared = int(fields[1]), int(fields[2])
    return max(0, resident - shared) * _PAGE_NBYTES


async def watch(
    limits: Callable[[], Mapping[int, int]],
    kill: Callable[[int, str], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Call ``kill(pid, reason)`` for each process that uses more bytes of its own than its limit; forever.

    Parameters
    ----------
    limits
        Gives the limit of each process that has one, by its id.
    kill
        Ends a process.
    clock
        Seconds, counting up.
    """
    due: dict[int, float] = {}
    while True:
        now = clock()
        known = limits()
        due = {pid: due.get(pid, now) for pid in known}
        least = max(INTERVAL_SECONDS_MIN, len(due) / LOOKS_PER_SECOND_MAX)
        # A new process may come right after a look at the others.
        smallest = min(known.values(), default=NBYTES_PER_SECOND_MAX)
        most = min(INTERVAL_SECONDS_MAX, max(least, smallest / NBYTES_PER_SECOND_MAX))
        for pid in [pid for pid, when in due.items() if when <= now]:
            used, limit = private_nbytes(pid), known[pid]
            due[pid] = now + min(most, max(least, (limit - used) / NBYTES_PER_SECOND_MAX))
            if used > limit:
                kill(
                    pid,
                    f"exceeded its memory limit of {format_size(limit)}: {format_size(used)} used by itself",
                )
        await asyncio.sleep(max(0.0, min(due.values(), default=now + most) - clock()))
