"""What processes take of the processors, as the kernel's scheduler counts it: nanoseconds, and turns.

A thread has a turn each time that it gets a processor: when it is woken, and when it goes on after another one had its
turn. Turns are what waking each other costs processes, whatever they do then.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple


class Taken(NamedTuple):
    """What some threads have taken."""

    nanoseconds: int
    turns: int


class ProcessorTime:
    """What groups of processes have taken so far, each thread by itself.

    Parameters
    ----------
    groups:
        The ids of the processes of each group, by its name.

    Examples
    --------
    >>> before = ProcessorTime({"this": [os.getpid()]})
    >>> after = ProcessorTime({"this": [os.getpid()]})
    >>> main, others = after.since(before)["this"]
    """

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        self._groups = {
            name: {(pid, thread): _of_thread(pid, thread) for pid in pids for thread in _threads(pid)}
            for name, pids in groups.items()
        }

    def since(self, before: ProcessorTime) -> dict[str, tuple[Taken, Taken]]:
        """For each group what its main threads have taken since then, and what its other threads have."""
        return {
            name: (
                _more(threads, before._groups[name], of_main_threads=True),
                _more(threads, before._groups[name], of_main_threads=False),
            )
            for name, threads in self._groups.items()
        }


_Threads = dict[tuple[int, int], Taken]
_NOTHING = Taken(0, 0)


def _more(after: _Threads, before: _Threads, *, of_main_threads: bool) -> Taken:
    nanoseconds = turns = 0
    for (pid, thread), taken in after.items():
        if (pid == thread) is of_main_threads:
            earlier = before.get((pid, thread), _NOTHING)
            nanoseconds += taken.nanoseconds - earlier.nanoseconds
            turns += taken.turns - earlier.turns
    return Taken(nanoseconds, turns)


def _threads(pid: int) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]


def _of_thread(pid: int, thread: int) -> Taken:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        nanoseconds, _, turns = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()
        return Taken(int(nanoseconds), int(turns))
    return _NOTHING
