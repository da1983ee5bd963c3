"""What the life of a task needs to know of where tasks go: the room above (`placing`) has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from holdfast.cluster.scheduler.tasks.model import Task, Worker
from holdfast.cluster.scheduler.tasks.requirements import Requirements


class Eligible(Protocol):
    """Knows which workers may run which tasks."""

    def can_run(self, requirements: Requirements | None) -> bool:
        """Whether there is a worker that may run tasks with these requirements, or one is to come."""


class Placer(Protocol):
    """Keeps the ready tasks, and chooses a worker for each."""

    @property
    def has_work(self) -> bool:
        """Whether `fill` may have something to do."""

    @property
    def eligibility(self) -> Eligible:
        """Which workers may run which tasks."""

    def push(self, task: Task) -> None:
        """Take in a task that has become ready."""

    def remove(self, task: Task) -> object:
        """Give up a ready task."""

    def fill(self, assign: Callable[[Task, Worker], None], now: float, limit: int) -> bool:
        """Give ready tasks to workers with room, so many at most. Whether there may be more to give."""

    def may_line_up(self, task: Task, worker: Worker) -> bool:
        """Whether a waiting task may be sent behind the only run that it waits for, which ``worker`` has."""

    def update_room(self, worker: Worker, now: float) -> None:
        """The runs of a worker have changed."""

    def progressed(self, worker: Worker, now: float) -> None:
        """A worker has ended some of its runs, or begins the first."""
