"""Runs that wait for other runs, and lend what they have to these.

A task that submits tasks and waits for their results has begun, has not ended, and does nothing. Its worker lets others
run in its slot meanwhile (`cluster/worker/threads.py`), and tells the scheduler:

=============  =======================================================  ===========================================
the worker     what the run is from then on                              what it counts for on its worker
says
=============  =======================================================  ===========================================
`blocked`      blocked: it waits, and lends its slot and its resources  for nothing: neither a thread, nor its time,
                                                                        nor what it holds of resources
`reclaim`      blocked, and wants its resources back                    the same; no new run takes resources of this
                                                                        worker before it
(`granted`,    blocked, with its resources; it waits for a slot         its resources
to the worker)
`returned`     one that runs                                            a thread, its time, its resources
=============  =======================================================  ===========================================

The slot is the worker's own to give: so a run may return while the scheduler has just sent another one for its slot,
which then waits on the worker. Resources are the scheduler's: a run that was sent with some is told so (`holding`), and
doesn't go on before they are granted. Of several that want them back, the one that was blocked last comes first.

So that tasks that wait for tasks come to an end, and few of them are blocked at a time:

* What a task submits has the priority of that task, and comes before all of the same priority that it did not submit
  (`submitted_in`): the scheduler goes into the depth.
* Tasks of a kind of which one was blocked are not sent ahead (`Group.blocks`). A worker runs what it was sent in order,
  and the children of a blocked task would come behind all of these. Those that were sent ahead already are taken back.
* Nothing is lined up behind a run that is blocked; what is lined up there is taken back. It would count as something
  that runs, and it may wait for the blocked run for ever so long.
* What a task submits may kill its worker: see `suspects`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.scheduler.placing.placement import Placement
from holdfast.cluster.scheduler.placing.revocation import Revocation
from holdfast.cluster.scheduler.placing.suspects import SUSPECTED_BY_CHILDREN
from holdfast.cluster.scheduler.tasks.instructions import DropRuns, GrantResources, Instructions
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.model import ISOLATED, Run, Task, Worker
from holdfast.cluster.scheduler.tasks.run_accounts import lend, take_back, take_back_resources

#: By so much the order of what a task submits comes before that of the task itself: above all orders of submission.
_DEPTH = 1 << 48
#: Tasks that submit each other without end go no deeper: their order is an integer of 64 bits.
_DEEPEST = 1 << 14


class Lending:
    """Keeps account of the runs that are blocked.

    Parameters
    ----------
    instructions
        Where instructions go.
    placement
        Where there is room when a run is blocked.
    life
        The tasks.
    revocation
        Waits for the answers of workers that are to drop runs.
    """

    def __init__(
        self, instructions: Instructions, placement: Placement, life: Lifecycle, revocation: Revocation
    ) -> None:
        self._instructions = instructions
        self._placement = placement
        self._life = life
        self._revocation = revocation
        self._order = itertools.count(1)
        #: The workers with runs that want their resources back.
        self.reclaiming: dict[Worker, None] = {}

    # -- what a worker says

    def blocked(self, worker: Worker, run_ids: Sequence[int], now: float) -> None:
        """Runs of a worker wait for others."""
        for run in _runs(worker, run_ids):
            if run.blocked:
                raise ProtocolError(f"{worker.address} says twice that run {run.run_id} is blocked")
            run.begun = True
            lend(worker, run, next(self._order))
            task = run.task
            if task is not None:
                if worker.reserved_for is task:
                    self._placement.reservations.open_to_others(worker, now)
                task.group.block()
                self._take_back_behind(worker, run, task, now)
        self._placement.progressed(worker, now)
        self._placement.update_room(worker, now)

    def returned(self, worker: Worker, run_ids: Sequence[int], now: float) -> None:
        """Runs that were blocked go on."""
        for run in _runs(worker, run_ids):
            if not run.blocked:
                raise ProtocolError(f"{worker.address} says that run {run.run_id} goes on, which was not blocked")
            if not run.has_resources:
                raise ProtocolError(f"{worker.address} goes on with run {run.run_id} without its resources")
            take_back(worker, run)
            suspect = worker.reserved_for
            if suspect is not None and suspect.worker is worker:
                self._placement.reservations.open_to_others(worker, now)  # it isn't alone any more
        self._placement.update_room(worker, now)

    def reclaimed(self, worker: Worker, run_ids: Sequence[int]) -> None:
        """Blocked runs want their resources back, before they go on."""
        for run in _runs(worker, run_ids):
            if not run.blocked or run.has_resources or run in worker.reclaiming:
                raise ProtocolError(f"{worker.address} wants resources back for run {run.run_id}, which lends none")
            worker.reclaiming[run] = None
            self.reclaiming[worker] = None
        for run_id in run_ids:
            if run_id not in worker.runs:  # an earlier scheduler has sent it, and this one keeps no account of it
                self._instructions.add(GrantResources, worker.address, run_id)

    # -- giving back

    def grant(self) -> None:
        """Give resources back, as far as they are free: those that were blocked last come first."""
        for worker in list(self.reclaiming):
            for run in sorted(worker.reclaiming, key=lambda run: run.blocked, reverse=True):
                assert run.requirements is not None
                if not run.requirements.fits_now(worker):
                    break
                del worker.reclaiming[run]
                take_back_resources(worker, run)
                self._instructions.add(GrantResources, worker.address, run.run_id)
            if not worker.reclaiming:
                del self.reclaiming[worker]

    def left(self, worker: Worker) -> None:
        """A worker is gone."""
        self.reclaiming.pop(worker, None)

    def _take_back_behind(self, worker: Worker, blocked: Run, task: Task, now: float) -> None:
        """Have a worker drop the runs that should not wait behind a blocked one."""
        for run in worker.runs.values():
            other = run.task
            if other is None or run is blocked or run.recalled or run.begun:
                continue
            if other.group is task.group or task in other.dependencies:
                run.recalled = True
                self._instructions.add(DropRuns, worker.address, run.run_id)
                self._revocation.told_to_drop(worker, now)


def _runs(worker: Worker, run_ids: Iterable[int]) -> Iterator[Run]:
    for run_id in run_ids:
        run = worker.runs.get(run_id)
        if run is not None:  # else it was taken away from a worker that had stood still
            yield run


# -- what tasks submit


def submitted_in(task: Task, parent: Task) -> None:
    """A task was submitted by another one, ``parent``, that runs: it comes before what that was queued with."""
    own, order = task.priority
    inherited, depth = parent.priority[0], -(parent.priority[1] // _DEPTH)
    rank = own + inherited
    if math.isnan(rank):  # one is as high as can be, and the other as low
        rank = inherited
    task.priority = (rank, order - min(depth + 1, _DEEPEST) * _DEPTH)
    if parent.suspected >= SUSPECTED_BY_CHILDREN and not task.isolation:
        task.isolation = ISOLATED
