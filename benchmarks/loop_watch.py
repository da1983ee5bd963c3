"""A scheduler whose event loop is watched: how long each of its turns took, and how many tasks it knew when.

``python -m benchmarks.loop_watch DIRECTORY MODULE [ARGUMENT ...]`` does what ``python -m MODULE [ARGUMENT ...]`` does,
and leaves in the directory what it has seen. A timer of the loop goes off every two milliseconds, so what lies between
two beats beyond that is one turn in which the loop answered nobody, or several short ones.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.cluster.processes import forking, parent
from holdfast.cluster.scheduler.io.server import Scheduler

_BEAT_SECONDS = 0.002
#: Turns that are noted; of the others, one now and then.
_LONG_SECONDS = 0.005
_SAMPLE_SECONDS = 0.05
#: A file that is as long as there are tasks: nobody reads half a number.
_TASKS = "tasks"


class Beat(NamedTuple):
    """What passed before one beat.

    Attributes
    ----------
    at : float
        ``time.monotonic()``, which all processes of a host share.
    seconds : float
        Since the beat before.
    busy_seconds : float
        The processor time of the loop's thread in it. The rest it slept, or another process had its processor.
    tasks : int
        How many the scheduler knew.
    """

    at: float
    seconds: float
    busy_seconds: float
    tasks: int


def watch_scheduler(directory: Path) -> None:
    """From now on the scheduler of a cluster that this process starts is watched."""

    def spawn(module: str, arguments: Sequence[str] = (), **options: Any) -> parent.SpawnedProcess:
        return parent.spawn("benchmarks.loop_watch", [str(directory), module, *arguments], **options)

    forking.spawn = spawn  # type: ignore[attr-defined]


def stop_watching() -> None:
    """Further schedulers are as users have them."""
    forking.spawn = parent.spawn  # type: ignore[attr-defined]


def read(directory: Path) -> list[Beat]:
    """What a scheduler has left that has ended."""
    (file,) = directory.glob("beats-*")
    fields = array("d", file.read_bytes())
    return [Beat(at, seconds, busy, int(tasks)) for at, seconds, busy, tasks in zip(*[iter(fields)] * 4, strict=True)]


def tasks_now(directory: Path) -> int:
    """How many tasks the scheduler knew a moment ago."""
    return (directory / _TASKS).stat().st_size


def _watch(scheduler: Scheduler, beats: array[float], tasks: Path) -> None:
    loop = asyncio.get_running_loop()
    at = noted = time.monotonic()
    busy = time.thread_time()

    def beat() -> None:
        nonlocal at, busy, noted
        now, busy_now = time.monotonic(), time.thread_time()
        if now - at > _LONG_SECONDS or now - noted > _SAMPLE_SECONDS:
            count = len(scheduler.state.tasks)
            beats.extend((now, now - at, busy_now - busy, count))
            os.truncate(tasks, count)
            noted = now
        at, busy = now, busy_now
        loop.call_later(_BEAT_SECONDS, beat)

    beat()


def main() -> None:
    """Runs the module."""
    directory, module, *arguments = sys.argv[1:]
    # Not small objects among the scheduler's, each of which would keep a megabyte of them from being given back.
    beats = array("d")
    start = Scheduler.start

    async def watched_start(self: Scheduler) -> None:
        await start(self)
        tasks = Path(directory, _TASKS)
        tasks.touch()
        _watch(self, beats, tasks)

    Scheduler.start = watched_start  # type: ignore[method-assign]
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        if beats:  # this is the scheduler, or the fork that became it
            Path(directory, f"beats-{os.getpid()}").write_bytes(beats.tobytes())


if __name__ == "__main__":
    main()
