"""What the tasks of this process are doing, seen from another thread: the frames of the threads that run them.

A thread that runs a task has the frame of `Running.run` on its stack, whose variables say which task that is, and the
frame of `TaskRunner.run`, which knows when it began. So a task pays nothing for being seen. What is shown of a stack
begins where the worker's own code ends: with the function of the user, or what else is done for the task meanwhile.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from holdfast.cluster.worker import execution, running

#: What belongs to the worker itself: its frames between the thread's beginning and the task's own are left out.
_OWN = str(Path(__file__).parent)
#: Of a deep stack so many frames are shown at each end.
MAX_FRAMES_AT_AN_END = 100
#: What is sent of a line of a program.
MAX_TEXT_LENGTH = 2_000


class RunningTask(NamedTuple):
    """A task that runs, and its frames: the outermost first."""

    key: Any
    run_id: int
    frames: list[FrameType]
    started: float | None  # by `time.perf_counter`; None: it is about to


def running_tasks(idents: Iterable[int | None]) -> Iterator[RunningTask]:
    """The tasks that run in these threads now."""
    frames = sys._current_frames()
    try:
        for ident in idents:
            frame = frames.get(ident or 0)
            if frame is not None and (task := _task_of(frame)) is not None:
                yield task
    finally:
        frames.clear()


def _task_of(frame: FrameType | None) -> RunningTask | None:
    """The task that is run somewhere below this frame; None if none is."""
    stack: list[FrameType] = []
    started: float | None = None
    while frame is not None:
        if frame.f_code is _RUN:
            said = frame.f_locals
            if "run_id" not in said:
                return None  # it has just begun
            stack.reverse()
            return RunningTask(said["key"], said["run_id"], _below_own(stack), started)
        if frame.f_code is _EXECUTE:
            started = frame.f_locals.get("started")
        stack.append(frame)
        frame = frame.f_back
    return None


_RUN = running.Running.run.__code__
_EXECUTE = execution.TaskRunner.run.__code__


def _below_own(stack: list[FrameType]) -> list[FrameType]:
    """The frames without those of the worker that lead to them; all of them, if the worker's are the last."""
    for index, frame in enumerate(stack):
        if not frame.f_code.co_filename.startswith(_OWN):
            return stack[index:]
    return stack


def described(frames: list[FrameType]) -> list[str]:
    """Frames as texts, as a traceback shows them."""
    most = 2 * MAX_FRAMES_AT_AN_END
    if len(frames) <= most:
        return list(map(_described, frames))
    left_out = [f"  … {len(frames) - most:,} more …\n"]
    first, last = frames[:MAX_FRAMES_AT_AN_END], frames[-MAX_FRAMES_AT_AN_END:]
    return [*map(_described, first), *left_out, *map(_described, last)]


def _described(frame: FrameType) -> str:
    code = frame.f_code
    line = linecache.getline(code.co_filename, frame.f_lineno, frame.f_globals).strip()
    text = f'  File "{code.co_filename}", line {frame.f_lineno}, in {code.co_name}\n    {line}\n'
    return text if len(text) <= MAX_TEXT_LENGTH else f"{text[: MAX_TEXT_LENGTH - 2]}…\n"
