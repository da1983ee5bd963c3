"""Taking back what waits behind a run that takes longer than expected, when another worker is idle.

Short tasks are sent ahead (`placement`), which is a bet on how long they take. It is lost when one of them takes long:
what was sent after it waits, and other workers may have nothing to do. That can't be known beforehand, but soon
it shows: nothing is sent ahead that should take a worker more than `PREFETCH_SECONDS`, so one that has ended nothing
for several times as long is held up. Then the runs that it must have started are expected to take as long again as
they have taken already. What waits behind them is taken back, if bringing what it reads to an idle worker takes less;
if not, it is looked at again a while later, when more is expected of the wait.

=====================================  ===========================================================================
a task in state "processing" …         … of which
=====================================  ===========================================================================
``run.recalled`` is set                its worker was told not to start it, and counts it as its own until it answers
the worker says "dropped"              has not started: "ready" again, or "waiting" if it was lined up behind another
the worker says how it ended           had started before the worker was told; nothing has changed
the worker dies                        goes the way of all its runs
=====================================  ===========================================================================

What is lined up behind a run that is taken back is taken back with it; what is lined up behind one that stays, stays.
From a worker that can't answer, because it is stopped or a task keeps the interpreter to itself, runs are taken away
with the help of its node (`revocation`).
"""

from __future__ import annotations

from holdfast.cluster.scheduler.placing.placement import PREFETCH_SECONDS, Placement, transfer_seconds
from holdfast.cluster.scheduler.placing.revocation import Revocation
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.instructions import DropRuns, Instructions
from holdfast.cluster.scheduler.tasks.model import Worker
from holdfast.cluster.scheduler.tasks.requirements import Requirements
from holdfast.cluster.scheduler.tasks.run_accounts import expect_longer

#: A worker that was sent more than it can have started is held up when it has ended nothing for so long.
HELD_UP_SECONDS = 5 * PREFETCH_SECONDS


class Recall(Timed):
    """Looks after workers that may be held up.

    Parameters
    ----------
    instructions
        Where instructions go.
    placement
        Knows which workers are idle, and which were sent runs ahead.
    revocation
        Waits for the answers.
    """

    def __init__(self, instructions: Instructions, placement: Placement, revocation: Revocation) -> None:
        super().__init__()
        self._instructions = instructions
        self._placement = placement
        self._revocation = revocation

    @property
    def due(self) -> float | None:
        """When something is to be taken back; None if it would help no worker."""
        ahead = self._placement.ahead
        if not ahead or not self._placement.somebody_is_idle:
            return None
        return next(iter(ahead.values())) + HELD_UP_SECONDS

    def expire(self, now: float) -> None:
        """Take back what waits behind runs that are overdue."""
        ahead = self._placement.ahead
        while (due := self.due) is not None and due <= now:
            worker = next(iter(ahead))
            overdue_seconds = now - worker.heard
            for run in worker.active[: worker.nthreads]:
                expect_longer(worker, run, 2 * overdue_seconds)
            self._placement.update_room(worker, now)
            more = self._take_back_from(worker, overdue_seconds, now)
            del ahead[worker]  # until its runs change
            if more:
                ahead[worker] = now

    def _take_back_from(self, worker: Worker, wait_seconds: float, now: float) -> bool:
        """Take back what is worth it; whether there is something that may be worth it later."""
        runs = worker.active
        staying = {run.run_id for run in runs[: worker.nthreads]}
        idle: dict[Requirements | None, Worker | None] = {}
        later = False
        for run in runs[worker.nthreads :]:
            task = run.task
            if task is None or run.recalled:
                continue
            requirements = task.requirements
            if requirements not in idle:
                idle[requirements] = self._placement.idle_worker(worker.host, requirements)
            other = idle[requirements]
            lined_up = any(d.state == "processing" and d.run_id in staying for d in task.dependencies)
            if other is None or lined_up:
                staying.add(run.run_id)
            elif other.host is not worker.host and transfer_seconds(task, other.host) >= wait_seconds:
                staying.add(run.run_id)
                later = True
            else:
                run.recalled = True
                self._instructions.add(DropRuns, worker.address, run.run_id)
                self._revocation.told_to_drop(worker, now)
        return later
