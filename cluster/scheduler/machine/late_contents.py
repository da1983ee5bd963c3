"""What outcomes contain of which a scheduler learns while it waits for hosts and workers of an earlier one.

A task submits another one, and returns the future: its worker says first what was submitted, and then the outcome with
what that contains. The outcome is known at once, so that the task is not run again. What was submitted is known when
all are back, since no client is heard before. So the worker's word of the contents is handled once more then, in its
place: after what was submitted, and before the tasks of the worker let go of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.model import Task


class LateContents:
    """The outcomes that contain something of which the scheduler has not heard yet."""

    def __init__(self, life: Lifecycle) -> None:
        self._life = life
        self._tasks: dict[int, tuple[Task, int]] = {}  # by run, with the messages that are to come

    def expect(self, run_id: int, task: Task, messages: int) -> None:
        """What the outcome of a run contains will be said again, in so many messages."""
        self._tasks[run_id] = task, messages

    def said(self, run_id: int, inside: Sequence[Task]) -> None:
        """The outcome of a run that has ended contains these; no matter if that is not expected."""
        if run_id not in self._tasks:
            return
        task, messages = self._tasks.pop(run_id)
        if messages > 1:
            self._tasks[run_id] = task, messages - 1
        if task.state == "memory":
            self._life.holding.contain(task, inside)
        elif task.state == "erred" and task.error is not None:
            self._life.errors.contain_more(task.error, inside)
