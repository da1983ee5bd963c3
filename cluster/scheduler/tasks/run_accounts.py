"""What a run counts for on its worker: its time, the room for its result, its resources."""

from __future__ import annotations

from holdfast.cluster.scheduler.tasks.model import Run, Worker


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
    # Not a sum of what is left: with nothing left it is nothing, whatever rounding did.
    worker.expected_seconds = worker.expected_seconds - run.seconds if worker.runs else 0.0
    if run.requirements is not None:
        for name, amount in run.requirements.resources:
            worker.free_resources[name] += amount
