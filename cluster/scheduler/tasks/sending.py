"""Sending tasks to workers: one that a worker has room for, and those that may wait there for its result."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from holdfast.cluster.protocol.durable_copies import DurableCopy
from holdfast.cluster.scheduler.tasks.functions import Functions
from holdfast.cluster.scheduler.tasks.instructions import Instructions, RunTasks, SendFunctions, TellHolding, TellTimed
from holdfast.cluster.scheduler.tasks.model import Run, Task, Worker
from holdfast.cluster.scheduler.tasks.moves import Moves
from holdfast.cluster.scheduler.tasks.placer import Placer
from holdfast.cluster.scheduler.tasks.reports import dependency_entry
from holdfast.cluster.scheduler.tasks.run_accounts import end_run, start_run

#: Among more tasks than this that depend on one, the only one that waits for it is not looked for.
MAX_LOOKED_AT = 1_000


class Sender:
    """Begins the runs of tasks.

    Parameters
    ----------
    instructions
        Where instructions go.
    placement
        Knows which workers have room.
    functions
        The functions of tasks.
    moves
        Changes the states of tasks.
    run_timeouts
        The tasks whose runs may take so many seconds only.
    durable
        Where the objects of tasks lie as files.
    """

    __slots__ = ("_durable", "_functions", "_instructions", "_moves", "_placement", "_run_ids", "_run_timeouts")

    def __init__(
        self,
        instructions: Instructions,
        placement: Placer,
        functions: Functions,
        moves: Moves,
        run_timeouts: Mapping[Task, float],
        durable: Mapping[Task, DurableCopy],
    ) -> None:
        self._instructions = instructions
        self._placement = placement
        self._functions = functions
        self._moves = moves
        self._run_timeouts = run_timeouts
        self._durable = durable
        self._run_ids = itertools.count(1)

    def number_runs_from(self, number: int) -> None:
        """Runs have higher numbers than this from now on."""
        self._run_ids = itertools.count(number + 1)

    def send(self, task: Task, worker: Worker, now: float) -> None:
        """Send a task, which is in no queue any more, to a worker (1)."""
        run_id = next(self._run_ids)
        requirements = task.requirements
        task.run_id = run_id
        task.worker = worker
        self._moves.move(task, "processing")
        if len(worker.runs) == worker.nblocked:
            self._placement.progressed(worker, now)
        private = task.private or task.group.writes
        start_run(worker, Run(run_id, task, requirements, private))
        self._placement.update_room(worker, now)
        digest = task.digest
        if digest is not None and digest not in worker.functions:
            worker.functions.add(digest)
            self._instructions.add(SendFunctions, worker.address, (digest, self._functions.table[digest].blob))
        if requirements is not None and requirements.resources:
            self._instructions.add(TellHolding, worker.address, run_id)
        if self._run_timeouts and task in self._run_timeouts:
            self._instructions.add(TellTimed, worker.address, run_id)
        assert task.payload is not None
        dependencies = (
            [dependency_entry(d, worker.host, self._durable) for d in task.dependencies] if task.dependencies else ()
        )
        self._instructions.add(
            RunTasks, worker.address, (task.key, run_id, digest, task.payload, dependencies, private, task.serial)
        )

    def take_up(self, task: Task, worker: Worker, run_id: int, now: float) -> None:
        """A worker has a run of a task, which is in no queue any more, from an earlier scheduler (1)."""
        task.run_id = run_id
        task.worker = worker
        self._moves.move(task, "processing")
        start_run(worker, Run(run_id, task, task.requirements, task.private or task.group.writes))
        if task.digest is not None:
            worker.functions.add(task.digest)
        self._placement.update_room(worker, now)

    def take_back_unsent(self, task: Task, worker: Worker, now: float) -> None:
        """Sending a task has failed here: its worker isn't to wait for the end of its run."""
        run = worker.runs.get(task.run_id)
        if run is not None:
            end_run(worker, run)
        task.worker = None
        self._placement.update_room(worker, now)

    def line_up(self, task: Task, now: float) -> None:
        """Send the one task that waits for nothing but this one to the worker that runs this one, and so on.

        They run there one after the other, without a word from here between them. If a run has no result, the worker
        reports that those behind it miss a dependency.
        """
        worker = task.worker
        if worker is not None and worker.nblocked and worker.runs[task.run_id].blocked:
            return
        while worker is not None and task.nwaiters == 1 and len(task.dependents) <= MAX_LOOKED_AT:
            (waiter,) = task.waiters
            if waiter.state != "waiting" or not self._placement.may_line_up(waiter, worker):
                return
            self.send(waiter, worker, now)
            task = waiter

    def line_up_more(self, worker: Worker, now: float) -> None:
        """The worker is done with something: the line behind its last run may go on."""
        last = next(reversed(worker.runs.values()), None)
        if last is not None and last.task is not None:
            self.line_up(last.task, now)
