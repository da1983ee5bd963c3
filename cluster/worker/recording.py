"""Records of what each task took here: made only while they are asked for.

While this worker records, `Recorder` stands in the place of the `TaskRunner`, with all that the runner has. So a worker
that doesn't record pays nothing. A record says when the task read its arguments (which includes that they are brought
from other hosts) and when its function ran, by the clock of this machine.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, NamedTuple

from holdfast.cluster.protocol.worker import ERRED, FINISHED
from holdfast.cluster.worker.dependencies import Dependencies
from holdfast.cluster.worker.execution import Outcome, Task, TaskRunner

#: So many of the last tasks are remembered.
MAX_RECORDS = 20_000


class Record(NamedTuple):
    """What a task took. Times are seconds since 1970.

    Attributes
    ----------
    read
        When its arguments had been read; None if they never were, as of one that takes an item only.
    ended
        When its function had ended; what follows, until ``stop``, is encoding and storing.
    status
        ``"OK"`` or ``"error"``.
    """

    key: Any
    thread: int
    start: float
    read: float | None
    ended: float
    stop: float
    status: str
    nbytes: int
    type: str


class _Marks(threading.local):
    """What the thread's task has come to."""

    read: float | None = None
    ended: float | None = None


class Recorder(TaskRunner):
    """Runs tasks like the runner that it is made of, and records what each of them takes."""

    def __init__(self, runner: TaskRunner) -> None:
        vars(self).update(vars(runner))
        self.records: deque[Record] = deque(maxlen=MAX_RECORDS)
        self._marks = _Marks()

    def run(self, task: Task) -> Outcome:
        """Run a task; see `TaskRunner.run`."""
        marks = self._marks
        marks.read = marks.ended = None
        start = time.time()
        outcome = super().run(task)
        stop = time.time()
        key, _, _, _, _, _, _ = task
        kind, entry = outcome
        if kind is FINISHED:
            _, _, _, nbytes, _, type_name, _ = entry
            status = "OK"
        elif kind is ERRED:
            nbytes, type_name, status = 0, "", "error"
        else:
            return outcome  # it will run again
        ended = stop if marks.ended is None else marks.ended
        self.records.append(
            Record(key, threading.get_ident(), start, marks.read, ended, stop, status, nbytes, type_name)
        )
        return outcome

    def _call(self, task: Task, private: bool) -> Any:
        try:
            return super()._call(task, private)
        finally:
            self._marks.ended = time.time()

    def _arguments(self, key: Any, payload: Any, dependencies: Dependencies | None) -> Any:
        arguments = super()._arguments(key, payload, dependencies)
        self._marks.read = time.time()
        return arguments
