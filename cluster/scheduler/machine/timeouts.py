"""Tasks that have waited for too long: for a worker that may run them, or for a host that had what they lack.

A limited number of them is given up at a time. The others are due still.
"""

from __future__ import annotations

from itertools import islice

from holdfast.cluster.errors import NoWorkerError
from holdfast.cluster.scheduler.placing.unrunnable import Unrunnable
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.requirements import Requirements
from holdfast.cluster.scheduler.tasks.stored_errors import task_error


class NoWorkerTimeout(Timed):
    """Fails tasks that no worker may run.

    Parameters
    ----------
    life
        The tasks.
    unrunnable
        Knows what they lack.
    timeout_seconds
        How long they wait.
    """

    def __init__(self, life: Lifecycle, unrunnable: Unrunnable, timeout_seconds: float) -> None:
        super().__init__()
        self._life = life
        self._unrunnable = unrunnable
        self._timeout_seconds = timeout_seconds

    @property
    def due(self) -> float | None:
        first = next(iter(self._life.unrunnable), None)
        return None if first is None else first.since + self._timeout_seconds

    def expire(self, now: float) -> None:
        why: dict[Requirements | None, tuple[str, str]] = {}
        for task in list(islice(self._life.unrunnable, self._life.follow_up.limit)):
            if task.since + self._timeout_seconds > now:
                break
            if task.state == "no-worker":  # one that failed before may have taken this one along
                if task.requirements not in why:
                    why[task.requirements] = self._unrunnable.why(task.requirements)
                reason, way_out = why[task.requirements]
                text = f"{task.key!r} has waited {self._timeout_seconds:g} s {reason}: {way_out}"
                self._life.fail(task, task_error(task.key, NoWorkerError(text)))


class Awaited(Timed):
    """Gives up data that can't be made again and whose host has not come back.

    Parameters
    ----------
    life
        The tasks.
    patience_seconds
        How long they wait.
    """

    def __init__(self, life: Lifecycle, patience_seconds: float) -> None:
        super().__init__()
        self._life = life
        self._patience_seconds = patience_seconds

    @property
    def due(self) -> float | None:
        first = next(iter(self._life.awaited), None)
        return None if first is None else first.since + self._patience_seconds

    def expire(self, now: float) -> None:
        for task in list(islice(self._life.awaited, self._life.follow_up.limit)):
            if task.since + self._patience_seconds > now:
                break
            self._life.await_no_longer(task)
