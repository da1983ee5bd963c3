"""Invariants, checked after each event in what the event has touched; now and then in the whole state.

`machine.validation` has all of them, and looks at every task. Here the tasks are looked at that have moved in an event,
which costs as much as the event itself. What may go wrong elsewhere shows when the whole state is looked at.
"""

from __future__ import annotations

from typing import Any

from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.machine.validation import CheckedMoves, validate_state
from holdfast.cluster.scheduler.tasks.events import Event
from holdfast.cluster.scheduler.tasks.follow_up import LeftOver
from holdfast.cluster.scheduler.tasks.instructions import Instruction
from holdfast.cluster.scheduler.tasks.model import Task
from holdfast.cluster.scheduler.tasks.states import ACTIVE, State

#: The whole state is looked at after so many events.
WHOLE_EVERY = 400
#: Of a task that has moved, so many neighbours are looked at.
NEIGHBOURS = 8


class WatchedMoves(CheckedMoves):
    """Makes legal moves only, and remembers which tasks have moved.

    Attributes
    ----------
    moved
        The tasks that have moved since somebody has looked.
    """

    __slots__ = ("moved",)

    def __init__(self) -> None:
        super().__init__()
        self.moved: dict[Task, None] = {}

    def appear(self, task: Task) -> None:
        super().appear(task)
        self.moved[task] = None

    def move(self, task: Task, state: State) -> None:
        super().move(task, state)
        self.moved[task] = None


class WatchedState(SchedulerState):
    """A scheduler's state that raises `AssertionError` if something does not hold of what an event has touched."""

    def __init__(self, **options: Any) -> None:
        self._watched = WatchedMoves()
        self._count = 0
        super().__init__(moves=self._watched, **options)

    def handle(self, event: Event, now: float) -> list[Instruction]:
        instructions = super().handle(event, now)
        moved = self._watched.moved
        if moved:
            left = self.life.follow_up.left_over
            for task in moved:
                try:
                    self._check(task, left)
                except AssertionError as error:
                    raise AssertionError(f"{task!r}: {error}") from error
            moved.clear()
        self._count += 1
        if self._count % WHOLE_EVERY == 0:
            validate_state(self)
        return instructions

    def _check(self, task: Task, left: LeftOver) -> None:
        """The invariants of `tasks/lifecycle.py`, by number, of one task and some of its neighbours."""
        state = task.state
        chores = self.life.follow_up.chores
        if state == "forgotten":
            assert not task.holders
            assert not task.dependents, "something depends on it"
            assert self.tasks.get(task.key) is not task, "it has its key"
            assert task not in self.life.lost.objects
            return
        # 1
        placement = self.placement
        if state == "ready":
            assert task.queue is not None or task in placement.reservations.isolated, "it is in no queue"
        else:
            assert task.queue is None, "it is in a queue"
        if state == "processing" and any(chore.concerns(task) for chore in chores):
            assert task.worker is None
        elif state == "processing":
            worker = task.worker
            assert worker is not None
            assert self.workers.get(worker.address) is worker, "its worker is gone"
            run = worker.runs.get(task.run_id)
            assert run is not None, "its worker has no run of it"
            assert run.task is task
            assert len(worker.runs) - worker.nblocked == worker.nactive
        else:
            assert task.worker is None
        assert (task in self.life.unrunnable) == (state == "no-worker")
        assert (task in self.life.awaited) == (state == "lost")
        # 4, 5
        if state == "memory":
            assert task.object_id is not None
            assert self.life.results.table.get(task.object_id) is task
            assert task.where or task.inline is not None, "its last copy is gone"
            for host in task.where:
                is_there = self.hosts.get(host.address) is host
                assert is_there or any(chore.host is host for chore in chores), "a host that has it is gone"
                assert task in host.objects
        else:
            assert task.object_id is None
            assert not task.where
            assert task.inline is None
        assert (task.error is not None) == (state == "erred")
        # 8, 9
        if task not in left.to_settle:
            assert task.is_needed or state == "released", "nothing needs it"
            is_left = self.recovery is not None  # until all are back
            assert is_left or task.is_needed or task.dependents, "nothing can ask for it again"
        # 2, 3, 7
        if state == "waiting" and task not in left.to_count:
            assert task.waiting_on > 0
        if len(task.dependencies) <= NEIGHBOURS:
            is_active = state in ACTIVE
            missing = 0
            for dependency in task.dependencies:
                assert task in dependency.dependents
                assert dependency.state != "forgotten", f"its dependency {dependency!r} is forgotten"
                missing += dependency.state != "memory"
                assert not is_active or dependency.nwaiters > 0
                if is_active and task not in left.to_fail:
                    is_made = dependency.state in ("memory", "lost", *ACTIVE)
                    assert is_made or dependency in left.to_activate, f"{dependency!r} is not made"
            if task in left.to_count:
                pass
            elif state == "waiting":
                assert task.waiting_on == missing
            elif state in ("ready", "no-worker"):
                assert not missing
        if len(task.dependents) <= NEIGHBOURS:
            assert task.nwaiters == sum([dependent.state in ACTIVE for dependent in task.dependents])
        # 6
        for holder in task.holders:
            assert task in holder.holds
