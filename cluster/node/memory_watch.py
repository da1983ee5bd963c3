"""The memory that is a process's own, and the limit on it.

What a worker maps from the store is shared with all processes of the host and is the store's to account for; what
counts against a worker's limit is the rest. The limit is enforced from outside, because a task that fills the memory
may not let its own process's other threads run.

Above `PAUSE_SHARE` of its limit a worker is *paused*: it is sent nothing new, what it has not begun goes to others, and
what it is at goes on. It takes tasks again when it is below `RESUME_SHARE`. Above the limit it is killed.

To look costs little, but there may be many workers, for months. So the next look is when one of them could have reached
its limit at the earliest.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping

from holdfast.cluster.node.out_of_memory import OutOfMemory
from holdfast.objectstore.sizes import format_size

#: Hardly a process takes new memory faster than this.
NBYTES_PER_SECOND_MAX = 8 << 30
#: Between two looks at a process, however near to its limit or far from it.
INTERVAL_SECONDS_MIN, INTERVAL_SECONDS_MAX = 0.02, 1.0
#: At all processes together. A look takes 5 to 50 µs.
LOOKS_PER_SECOND_MAX = 200
#: Of its limit. A process that is near to the first of them doesn't change its mind with each look.
PAUSE_SHARE, RESUME_SHARE = 0.8, 0.75
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


class MemoryWatch:
    """Looks at processes, and says when one uses too much.

    Parameters
    ----------
    limits
        Gives each process, by its id, and its limit in bytes; None for one that may use any number.
    kill
        ``kill(pid, reason)`` ends one that uses more than its limit.
    paused
        ``paused(pid, is_paused)``: one has come near to its limit, and is to begin nothing more; or it is far from the
        limit again.
    clock
        Seconds, counting up.
    """

    def __init__(
        self,
        limits: Callable[[], Mapping[int, int | None]],
        kill: Callable[[int, str], None],
        paused: Callable[[int, bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._kill = kill
        self._paused = paused
        self._clock = clock
        self._used: dict[int, int] = {}
        self._are_paused: set[int] = set()
        self._oom_kills = deque([OutOfMemory.look()] * 2, maxlen=2)
        self._oom_looked = clock()

    def used(self, pid: int) -> int | None:
        """The bytes that a process used when it was looked at last; None: it never was, or isn't watched any more."""
        return self._used.get(pid)

    def begin(self, pid: int) -> None:
        """Look at a process that has just begun: it may end before its turn comes."""
        self._used[pid] = private_nbytes(pid)

    def out_of_memory(self) -> str:
        """Where the kernel has killed processes for want of memory, if it has just done so; else nothing."""
        return OutOfMemory.look().since(self._oom_kills[0])

    async def run(self) -> None:
        """Look, for ever."""
        due: dict[int, float] = {}
        while True:
            now = self._clock()
            known = self._limits()
            due = {pid: due.get(pid, now) for pid in known}
            self._used = {pid: self._used[pid] for pid in known if pid in self._used}
            self._are_paused.intersection_update(known)
            least = max(INTERVAL_SECONDS_MIN, len(due) / LOOKS_PER_SECOND_MAX)
            # A new process may come right after a look at the others.
            smallest = min((limit for limit in known.values() if limit is not None), default=NBYTES_PER_SECOND_MAX)
            most = min(INTERVAL_SECONDS_MAX, max(least, smallest / NBYTES_PER_SECOND_MAX))
            for pid in [pid for pid, when in due.items() if when <= now]:
                due[pid] = now + most
                used, limit = private_nbytes(pid), known[pid]
                if not used:
                    continue  # it has just ended, and what it had before is what may tell why
                self._used[pid] = used
                if limit is None:
                    continue
                due[pid] = now + min(most, max(least, (limit - used) / NBYTES_PER_SECOND_MAX))
                self._judge(pid, used, limit)
            if now - self._oom_looked >= INTERVAL_SECONDS_MAX:
                self._oom_looked = now
                self._oom_kills.append(OutOfMemory.look())
            await asyncio.sleep(max(0.0, min(due.values(), default=now + most) - self._clock()))

    def _judge(self, pid: int, used: int, limit: int) -> None:
        if used > limit:
            # How much it used is said of every death.
            self._kill(pid, f"exceeded its memory limit of {format_size(limit)}")
        elif used > PAUSE_SHARE * limit and pid not in self._are_paused:
            self._are_paused.add(pid)
            self._paused(pid, True)
        elif used <= RESUME_SHARE * limit and pid in self._are_paused:
            self._are_paused.remove(pid)
            self._paused(pid, False)
