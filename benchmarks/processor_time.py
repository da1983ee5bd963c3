"""The processor time that processes take, to the nanosecond, as the kernel's scheduler counts it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path


def of_thread(pid: int, thread: int) -> int:
    """Nanoseconds that a thread has run so far; 0 if it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return 0


class ProcessorTime:
    """Nanoseconds that groups of processes have taken, those of their main threads and those of their other threads.

    Examples
    --------
    >>> before = ProcessorTime({"this": [os.getpid()]})
    >>> after = ProcessorTime({"this": [os.getpid()]})
    >>> main, others = after.since(before)["this"]
    """

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        self._taken = {
            name: {(pid, thread): of_thread(pid, thread) for pid in pids for thread in _threads(pid)}
            for name, pids in groups.items()
        }

    def since(self, before: ProcessorTime) -> dict[str, tuple[int, int]]:
        """For each group what its main threads have taken since then, and what its other threads have."""
        found = {}
        for name, taken in self._taken.items():
            earlier = before._taken[name]
            main = others = 0
            for (pid, thread), nanoseconds in taken.items():
                more = nanoseconds - earlier.get((pid, thread), 0)
                if pid == thread:
                    main += more
                else:
                    others += more
            found[name] = (main, others)
        return found


def _threads(pid: int) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
