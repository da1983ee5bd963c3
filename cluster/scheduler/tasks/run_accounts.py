"""What a run counts for on its worker: its time, the room for its result, its resources.

A run that is blocked (`placing.lending`) counts for no time and no thread, and may have lent its resources.
"""

from __future__ import annotations

from holdfast.cluster.scheduler.tasks.model import Run, Worker
from holdfast.cluster.scheduler.tasks.requirements import Requirements


def start_run(worker: Worker, run: Run) -> None:
    """Count a run as the worker's: its time, the room for its result, its resources."""
    worker.runs[run.run_id] = run
    worker.expected_seconds += run.seconds
    worker.host.expected_nbytes += run.nbytes
    if run.requirements is not None:
        for name, amount in run.requirements.resources:
            worker.free_resources[name] -= amount


def expect_longer(worker: Worker, run: Run, seconds: float) -> None:
    """Count a run with more time than was expected of it when it was sent."""
    if run.seconds < seconds:
        worker.expected_seconds += seconds - run.seconds
        run.seconds = seconds


def end_run(worker: Worker, run: Run) -> None:
    """The inverse of `start_run`."""
    del worker.runs[run.run_id]
    worker.host.expected_nbytes -= run.nbytes
    if run.blocked:
        worker.nblocked -= 1
        worker.reclaiming.pop(run, None)
    else:
        # Not a sum of what is left: with nothing left it is nothing, whatever rounding did.
        worker.expected_seconds = worker.expected_seconds - run.seconds if len(worker.runs) > worker.nblocked else 0.0
    if run.requirements is not None and run.has_resources:
        _free_resources(worker, run.requirements)


def lend(worker: Worker, run: Run, order: int) -> None:
    """A run waits for others: it counts for no time and no thread, and lends its resources. ``order`` is above 0."""
    run.blocked = order
    worker.nblocked += 1
    worker.expected_seconds = worker.expected_seconds - run.seconds if worker.nactive else 0.0  # as in `end_run`
    if run.requirements is not None and run.requirements.resources:
        run.has_resources = False
        _free_resources(worker, run.requirements)


def take_back_resources(worker: Worker, run: Run) -> None:
    """A run has the resources again that it had lent."""
    assert run.requirements is not None
    run.has_resources = True
    for name, amount in run.requirements.resources:
        worker.free_resources[name] -= amount


def take_back(worker: Worker, run: Run) -> None:
    """A run that was blocked goes on, and has its resources. The inverse of `lend` but for these."""
    run.blocked = 0
    worker.nblocked -= 1
    worker.expected_seconds += run.seconds


def _free_resources(worker: Worker, requirements: Requirements) -> None:
    for name, amount in requirements.resources:
        worker.free_resources[name] += amount
