"""What the scheduler's process has logged, and what its loop does."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

from holdfast.cluster.processes import kept_logs
from holdfast.cluster.processes.profiling import INTERVAL_SECONDS, Profiler, Stack, stack_of
from holdfast.cluster.scheduler.watching.introspection import Steps

#: So many lines are sent at a time.
STEP_LINES = 200
#: So many functions are put together in one piece.
MAX_NODES = 5_000


def logs(n: int | None) -> Steps:
    """The last lines of the log, the newest first."""
    lines = kept_logs.newest(n, "holdfast.cluster.scheduler")
    for start in range(0, len(lines), STEP_LINES):
        yield {"lines": lines[start : start + STEP_LINES]}
    return {"lines": []}


class LoopProfile:
    """Looks at the thread that it is made in, from the first time on that it is asked."""

    def __init__(self) -> None:
        self._ident = threading.get_ident()
        self._profiler = Profiler(self._look, INTERVAL_SECONDS, "holdfast-scheduler-profile", MAX_NODES)

    def _look(self) -> Iterator[tuple[str, Stack]]:
        frame = sys._current_frames().get(self._ident)
        frames = []
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        if frames:
            yield "", stack_of(reversed(frames))

    def ask(self, start: float | None, stop: float | None) -> dict[str, Any]:
        """What was seen between two times."""
        self._profiler.start()
        return {"profile": self._profiler.state(None, start, stop)}

    def close(self) -> None:
        """Look no more."""
        self._profiler.stop()
