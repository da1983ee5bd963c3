"""Tasks for which something has changed with the workers: some may run now that could not, and others no longer may."""

from __future__ import annotations

from holdfast.cluster.scheduler.placing.placement import Placement
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle


def reconsider_unrunnable(life: Lifecycle, placement: Placement) -> None:
    """A worker has come or takes tasks again, or a host has come to which some will: they may run tasks that no worker
    could run before."""
    for task in list(life.unrunnable):
        if placement.eligibility.can_run(task.requirements):
            life.withdraw(task)
            life.enqueue(task)


def reconsider_ready(life: Lifecycle, placement: Placement) -> None:
    """A worker or a host is gone, or takes no tasks any more: ready tasks that no worker may run now must say so."""
    for requirements in placement.requirements_of_ready():
        if not placement.eligibility.can_run(requirements):
            for task in placement.ready_tasks(requirements):
                life.withdraw(task)
                life.enqueue(task)
