"""Tasks for which something has changed with the workers: some may run now that could not, and others no longer may.

There may be a million of them, so they are looked at one after the other (`follow_up`). A look that has begun is begun
anew if something changes again, so each of these is under way once at most.
"""

from __future__ import annotations

from holdfast.cluster.scheduler.placing.placement import Placement
from holdfast.cluster.scheduler.tasks.follow_up import Chore
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.model import Host, Task
from holdfast.cluster.scheduler.tasks.requirements import Requirements


class _LookAtUnrunnable(Chore):
    """Tasks that no worker could run are queued if one may run them now."""

    def __init__(self, life: Lifecycle, placement: Placement) -> None:
        self._life = life
        self._placement = placement
        self._tasks: list[Task] = []
        self._again = True

    def begin_anew(self) -> None:
        self._again = True  # when this look is over, or it would never come to the last ones

    def step(self) -> bool:
        if not self._tasks:
            self._tasks = list(self._life.unrunnable)[::-1] if self._again else []
            self._again = False
            return bool(self._tasks)
        task = self._tasks.pop()
        if task.state == "no-worker" and self._placement.eligibility.can_run(task.requirements):
            self._life.withdraw(task)
            self._life.enqueue(task)
        return True

    def concerns(self, task: Task) -> bool:
        return task.state == "no-worker" and (self._again or task in self._tasks)


class _LookAtReady(Chore):
    """Ready tasks that no worker may run now are so no longer."""

    def __init__(self, life: Lifecycle, placement: Placement) -> None:
        self._life = life
        self._placement = placement
        self.begin_anew()

    def begin_anew(self) -> None:
        self._requirements: list[Requirements | None] = self._placement.requirements_of_ready()

    def step(self) -> bool:
        if not self._requirements:
            return False
        requirements = self._requirements[-1]
        can_run = self._placement.eligibility.can_run(requirements)
        task = None if can_run else self._placement.any_ready(requirements)
        if task is None:
            self._requirements.pop()
        else:
            self._life.withdraw(task)
            self._life.enqueue(task)
        return True

    def concerns(self, task: Task) -> bool:
        return task.state == "ready" and task.requirements in self._requirements


class _Spreading(Chore):
    """The tasks that would rather have run on a host go where they can, since it has no workers any more."""

    def __init__(self, placement: Placement, host: Host) -> None:
        self._placement = placement
        self._host = host

    def step(self) -> bool:
        task = self._placement.take_from(self._host)
        if task is not None:
            self._placement.push(task)
        return task is not None


def reconsider_unrunnable(life: Lifecycle, placement: Placement) -> None:
    """A worker has come or takes tasks again, or a host has come to which some will: they may run tasks that no worker
    could run before."""
    placement.eligibility.changed()
    if life.unrunnable:
        for chore in life.follow_up.chores:
            if isinstance(chore, _LookAtUnrunnable):
                chore.begin_anew()
                return
        life.follow_up.begin(_LookAtUnrunnable(life, placement))


def reconsider_ready(life: Lifecycle, placement: Placement) -> None:
    """A worker or a host is gone, or takes no tasks any more: ready tasks that no worker may run now must say so."""
    placement.eligibility.changed()
    if placement.queued or placement.reservations.isolated:
        for chore in life.follow_up.chores:
            if isinstance(chore, _LookAtReady):
                chore.begin_anew()
                return
        life.follow_up.begin(_LookAtReady(life, placement))


def spread(life: Lifecycle, placement: Placement, host: Host) -> None:
    """A host has no workers any more: the tasks that would rather have run there go elsewhere."""
    if placement.has_queues(host):
        life.follow_up.begin(_Spreading(placement, host))
