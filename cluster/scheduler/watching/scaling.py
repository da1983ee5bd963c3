"""How many workers a cluster should have, by what it has to do.

What there is to do counts in seconds: those that the runs on workers are expected to take, and the tasks that are ready
to run. What is expected of a task is what others of its group have taken. A task of a group of which none has ended is
taken for `UNKNOWN_SECONDS`, so that a cluster grows for tasks of which nothing is known yet, as it should.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.model import Task, Worker

#: A task of which nothing is known counts for so much.
UNKNOWN_SECONDS = 0.5
TARGET_DURATION_SECONDS = 5.0
#: Stores that are as full as this are expected to need more room.
NEARLY_FULL = 0.6
#: Of the tasks in queues so many are looked at, which takes about a millisecond; the others count as much as these do.
TASKS_SEEN = 5_000


def adaptive_target(
    state: SchedulerState, target_duration: float = TARGET_DURATION_SECONDS, brings_memory: bool = False
) -> int:
    """The number of workers with which what there is to do takes ``target_duration`` seconds.

    It is never more than can have a task each, nor less than there are workers that run something. So it is zero when
    there is nothing to do; with ``brings_memory``, if there is no data that would be lost either.
    """
    workers = [worker for worker in state.workers.values() if not worker.retiring]
    each = max(1, round(sum(worker.nthreads for worker in workers) / len(workers))) if workers else 1
    seen = list(islice(_ready(state), TASKS_SEEN))
    ready = state.placement.queued + len(state.placement.reservations.isolated)
    waiting = len(state.life.unrunnable)  # for a worker that may come
    seconds = sum(map(_expected, seen)) * ready / len(seen) if seen else 0.0
    seconds += UNKNOWN_SECONDS * waiting + sum(_seconds_of_runs(worker) for worker in workers)
    count = ready + waiting + sum(worker.nactive for worker in workers)
    target = min(math.ceil(seconds / max(target_duration, 1e-3) / each), math.ceil(count / each))
    target = max(target, sum(1 for worker in workers if worker.runs), 1 if count else 0)
    return max(target, _for_memory(state, len(workers))) if brings_memory else target


def _for_memory(state: SchedulerState, nworkers: int) -> int:
    """As many workers as hold what there is; twice as many as there are, if their room is nearly used up."""
    capacity = sum(host.capacity for host in state.hosts.values() if host.workers)
    nbytes = sum(host.nbytes for host in state.hosts.values())
    if not capacity:
        return 1 if nbytes else 0
    if nbytes > NEARLY_FULL * capacity:
        return 2 * nworkers
    return math.ceil(nworkers * nbytes / (NEARLY_FULL * capacity))


def _seconds_of_runs(worker: Worker) -> float:
    return sum(UNKNOWN_SECONDS if run.task is None else _expected(run.task) for run in worker.active)


def _expected(task: Task) -> float:
    seconds = task.group.mean_seconds
    return UNKNOWN_SECONDS if seconds is None else max(seconds, task.group.expected_seconds)


def _ready(state: SchedulerState) -> Iterator[Task]:
    for queue in state.placement.queues():
        yield from queue.some()
    yield from state.placement.reservations.isolated
