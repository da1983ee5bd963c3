"""A scheduler's state that checks itself, for tests: each move of a task, and after each event every invariant.

The numbers are those of the invariants in `tasks/lifecycle.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from holdfast.cluster.ledger import runs_max
from holdfast.cluster.protocol.holders import HOLDERS
from holdfast.cluster.protocol.requests import REQUESTS
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.parts.waits import QUICK_SECONDS
from holdfast.cluster.scheduler.placing.placement import PREFETCH_SECONDS
from holdfast.cluster.scheduler.tasks.events import Event, Requested
from holdfast.cluster.scheduler.tasks.follow_up import LeftOver
from holdfast.cluster.scheduler.tasks.instructions import DeleteObjects, DiscardResults, Instruction
from holdfast.cluster.scheduler.tasks.model import ISOLATED_ON_HOST, Holder, Task, Worker
from holdfast.cluster.scheduler.tasks.moves import Moves
from holdfast.cluster.scheduler.tasks.states import ACTIVE, FIRST, TRANSITIONS, State

_DEFINITIONS = {request.operation: request for request in REQUESTS}


class CheckedMoves(Moves):
    """Makes legal moves only."""

    __slots__ = ()

    def appear(self, task: Task) -> None:
        assert task.state == FIRST
        super().appear(task)

    def move(self, task: Task, state: State) -> None:
        if (task.state, state) not in TRANSITIONS:
            raise AssertionError(f"{task!r} can't move to {state!r}")
        super().move(task, state)


class CheckedState(SchedulerState):
    """A scheduler's state that raises `AssertionError` once something does not hold."""

    def __init__(self, **options: Any) -> None:
        super().__init__(moves=CheckedMoves(), **options)

    def handle(self, event: Event, now: float) -> list[Instruction]:
        instructions = super().handle(event, now)
        if isinstance(event, Requested):
            self._validate_wait(event)
        validate_state(self)
        validate_deletions(self, instructions)
        return instructions

    def answer(self, event: Requested, now: float) -> list[Instruction] | None:
        instructions = super().answer(event, now)
        self._validate_wait(event)
        if instructions is not None:
            validate_state(self)
            validate_deletions(self, instructions)
        return instructions

    def _validate_wait(self, event: Requested) -> None:
        """A task lends its slot while a request waits for what others do, if its definition says that it may wait."""
        for wait in self.waits.of(event.client):
            if wait.request == event.request and not _DEFINITIONS[event.operation].waits:
                left = wait.seconds_left(self.life.now)
                assert left < QUICK_SECONDS + 0.001, f"the request {event.operation!r} isn't said to wait"


def validate_deletions(state: SchedulerState, instructions: Iterable[Instruction]) -> None:
    """Raise `AssertionError` if something is deleted that a holder has, and that no copy is left of elsewhere."""
    for instruction in instructions:
        if isinstance(instruction, DeleteObjects):
            for object_id in instruction.items:
                task = state.life.results.get(object_id)
                assert task is None or all(host.address != instruction.peer for host in task.where), (
                    f"the object of {task!r} is deleted where it counts as being"
                )
        elif isinstance(instruction, DiscardResults):
            for object_id in instruction.items:
                assert state.life.results.get(object_id) is None, "a result is discarded that a holder has"


def validate_state(state: SchedulerState) -> None:
    """Raise `AssertionError` naming the first thing that does not hold."""
    left = state.life.follow_up.left_over
    holders: set[Holder] = {*state.clients.values(), *state.life.holding.contents.values()}
    holders.update(*(part.holders() for part in state.parts))
    failed = [task.error for task in (*state.tasks.values(), *state.life.generations.earlier) if task.error is not None]
    holders.update(error.contents for error in failed if error.contents is not None)
    assert {holder.kind for holder in holders} <= set(HOLDERS), "a kind of holder is in no table"
    for key, task in state.tasks.items():
        assert task.key == key
    for task in state.life.generations.earlier:
        assert state.tasks.get(task.key) is not task, f"{task!r} has its key"
        assert not state.life.holding.is_held(task), f"{task!r} is held, and has lost its key"
    known = {*state.tasks.values(), *state.life.generations.earlier}
    for task in known:
        try:
            _validate_task(state, task, known, holders, left)
            # 8, 9
            assert task in left.to_settle or task.is_needed or task.state == "released", "nothing needs it"
            is_left = task in left.to_settle or state.recovery is not None  # until all are back
            assert is_left or task.is_needed or task.dependents, "nothing can ask for it again"
            if task.state in ACTIVE and task not in left.to_fail:
                for dependency in task.dependencies:
                    assert dependency.state in ("memory", "lost", *ACTIVE) or dependency in left.to_activate
        except AssertionError as error:
            raise AssertionError(f"{task!r}: {error}") from error
    ready = [task for task in known if task.state == "ready"]
    queued = sum(queue.live for queue in state.placement.queues())
    assert state.placement.queued == queued == len(ready) - len(state.placement.reservations.isolated)
    waiting_alone = list(state.placement.reservations.isolated)
    assert waiting_alone == sorted(waiting_alone, key=lambda task: task.since)
    assert set(state.placement.reservations.workers) == {
        worker for worker in state.workers.values() if worker.reserved_for is not None
    }
    for waiting in (state.life.unrunnable, state.life.awaited):
        assert list(waiting) == sorted(waiting, key=lambda task: task.since)
    for object_id, task in state.life.results.table.items():
        assert task.object_id == object_id
        assert task.state == "memory"
    assert state.life.lost.count == len(state.life.lost.objects)
    for task, object_id in state.life.lost.objects.items():
        assert task in known, f"{task!r} is forgotten, but not what it lost"
        assert task.state != "memory"
        assert object_id in state.life.lost
        assert object_id not in state.life.results.table
    _validate_errors(state, known)
    for host in state.hosts.values():
        assert not (host.is_ready and host.restored)
        for task in host.objects:
            assert host in task.where
        assert host.nbytes == sum(task.nbytes for task in host.objects)
        assert host.expected_nbytes == sum(run.nbytes for worker in host.workers for run in worker.runs.values())
        for worker in host.workers:
            assert state.workers.get(worker.address) is worker
    for worker in state.workers.values():
        _validate_worker(worker)
        if worker in state.placement.ahead:
            assert worker.nactive > worker.nthreads
    assert list(state.placement.ahead.values()) == sorted(state.placement.ahead.values())
    state.placement.check(is_filled=not state.life.follow_up.is_filling)
    taking = [worker for worker in state.workers.values() if not worker.barred and worker.reserved_for is None]
    assert state.placement.somebody_is_idle == any(w.nactive < w.nthreads for w in taking)
    for task, contents in state.life.holding.contents.items():
        assert contents.task is task
        assert task in known, f"{task!r} is forgotten, but not what it contains"
    for holder in holders:
        for task in holder.holds:
            assert holder in task.holders
            assert state.tasks.get(task.key) is task, f"{holder!r} holds {task!r}, which has lost its key"
    for digest, function in state.life.functions.table.items():
        assert function.tasks == sum(task.digest == digest for task in known)
        assert function.clients == sum(digest in client.functions for client in state.clients.values())
        assert function.tasks or function.clients
    for group in state.life.groups.table.values():
        assert group.tasks == sum(task.group is group for task in known)
    for client_id, client in state.clients.items():
        assert client.id == client.peer == client_id
    state.check()


def _validate_task(state: SchedulerState, task: Task, known: set[Task], holders: set[Holder], left: LeftOver) -> None:
    chores = state.life.follow_up.chores
    active = task.state in ACTIVE
    assert task.state != "forgotten"
    # 7
    for dependency in task.dependencies:
        assert dependency in known, f"its dependency {dependency!r} is forgotten"
        assert task in dependency.dependents
    assert len({dependency.key for dependency in task.dependencies}) == len(task.dependencies)
    for dependent in task.dependents:
        assert dependent in known, f"{dependent!r}, which depends on it, is forgotten"
        assert task in dependent.dependencies
    # 2
    assert task.nwaiters == sum(dependent.state in ACTIVE for dependent in task.dependents)
    # 6
    for holder in task.holders:
        assert task in holder.holds
        if state.life.holding.is_departed(holder):
            assert not holder.hears
        else:
            assert holder in holders, f"{holder!r} is gone"
    # 3
    if task in left.to_count:
        pass
    elif task.state == "waiting":
        missing = sum(dependency.state != "memory" for dependency in task.dependencies)
        assert task.waiting_on == missing > 0, f"waits for {task.waiting_on}, {missing} are missing"
    elif task.state in ("ready", "no-worker"):
        assert all(dependency.state == "memory" for dependency in task.dependencies)
    if active:
        assert task.can_be_computed
    # 1
    is_alone = task in state.placement.reservations.isolated
    assert (task.queue is not None or is_alone) == (task.state == "ready")
    assert not is_alone or (task.queue is None and task.isolation)
    assert (task in state.life.unrunnable) == (task.state == "no-worker")
    assert (task in state.life.awaited) == (task.state == "lost")
    if task.state in ("ready", "no-worker") and not any(chore.concerns(task) for chore in chores):
        assert state.placement.eligibility.can_run(task.requirements) == (task.state == "ready")
    if task.state != "processing" or not any(chore.concerns(task) for chore in chores):
        assert (task.worker is not None) == (task.state == "processing")
    if task.worker is not None:
        assert state.workers.get(task.worker.address) is task.worker
        assert task.worker.runs[task.run_id].task is task
    # 4
    assert (task.object_id is not None) == (task.state == "memory")
    if task.state == "memory":
        assert state.life.results.get(task.object_id or b"") is task
        is_durable = task in state.life.results.durable
        assert task.where or task.inline is not None or is_durable, "its last copy is gone"
    else:
        assert not task.where
        assert task.inline is None
    assert task.maker is None or task.inline is not None, "its maker would not keep it"
    lost = [chore.host for chore in chores if chore.host is not None]
    for host in task.where:
        assert state.hosts.get(host.address) is host or (host in lost and host.leaving)
        assert task in host.objects
    # 5
    assert (task.error is not None) == (task.state == "erred")


def _validate_errors(state: SchedulerState, known: set[Task]) -> None:
    errors = Counter(task.error for task in known if task.error is not None)
    lost = [chore.host for chore in state.life.follow_up.chores if chore.host is not None]
    for error, count in errors.items():
        assert error.tasks == count
        assert error.raised is None or error.object_id is None
        assert error.object_id is None or state.life.errors.table.get(error.object_id) is error
    for object_id, error in state.life.errors.table.items():
        assert error.object_id == object_id
        assert error in errors, "no task failed for it"
        for host in error.where:
            assert state.hosts.get(host.address) is host or host in lost
            assert error in host.errors
    for host in state.hosts.values():
        for error in host.errors:
            assert host in error.where


def _validate_reserved(worker: Worker) -> None:
    task = worker.reserved_for
    if task is None:
        return
    others = [w.reserved_for for w in worker.host.workers if w is not worker and w.reserved_for is not None]
    assert task not in others, f"{task!r} has two workers"
    if task.worker is worker:
        assert worker.nactive <= 1, f"{task!r} is not alone"
    else:
        assert task.state == "ready", f"{worker!r} is reserved for no task"
    if task.isolation == ISOLATED_ON_HOST:
        assert not others, f"{task!r} is not the only suspect of its host"


def _validate_worker(worker: Worker) -> None:
    for run_id, run in worker.runs.items():
        assert run.run_id == run_id
        assert run.task is None or (run.task.worker is worker and run.task.run_id == run_id)
        assert run.late is None or run.task is None
        assert run.has_resources or run.blocked, "it runs without its resources"
        assert (run in worker.reclaiming) <= (run.blocked > 0 and not run.has_resources)
    assert worker.nblocked == sum(run.blocked > 0 for run in worker.runs.values())
    assert worker.nactive <= runs_max(worker.nthreads)
    assert worker.asked >= 0
    assert worker.barred == (
        worker.retiring
        or worker.preparing
        or worker.paused
        or worker.is_gone
        or worker.condition != "running"
        or worker.asked > 0
        or len(worker.unconfirmed) > 0
        or worker.cut_off is not None
    )
    expected = sum(run.seconds for run in worker.active)
    assert abs(worker.expected_seconds - expected) < 1e-6
    room = worker.nactive < worker.nthreads or worker.expected_seconds < PREFETCH_SECONDS * worker.nthreads
    assert (room and not worker.barred and worker.reserved_for is None) == (worker in worker.host.available)
    _validate_reserved(worker)
    for name, total in worker.resources.items():
        used = sum(
            amount
            for run in worker.runs.values()
            if run.requirements is not None and run.has_resources
            for resource, amount in run.requirements.resources
            if resource == name
        )
        assert abs(worker.free_resources[name] - (total - used)) < 1e-6
        assert used <= total + 1e-6, f"{worker!r} gives {used} of {total} {name}"
