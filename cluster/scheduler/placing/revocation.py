"""Taking runs away from a worker that does not answer: one that is stopped, or computes without hearing anything.

A worker that is held up and hears is told to drop what others could run (`recall`). One that does not hear can't say
what it has begun. But the agent of its host can, and sees to it that the rest will never begin there
(`cluster/ledger.py`). So the agent is asked to revoke runs

* of a worker that has left an instruction to drop runs unanswered for `ANSWER_SECONDS`;
* of one of which the agent says that it hears nothing, or whose connection is broken, as often as the agent reports.

Of either, those runs are asked for that an idle worker may run, if bringing over what they read is expected to take
less than the wait. What the agent has revoked is put back into the queues, and its worker is told. In between a worker
begins nothing, so it has no room until it has confirmed what it was told, nor while it hears nothing, nor when it is to
end:

===================  ===========================================================================================
worker.…             is above zero, not empty, or another than "running", …
===================  ===========================================================================================
condition            since its agent says so; until that says otherwise, or the worker says anything
asked                from when its agent is asked to revoke runs, or to end its process, until the answer
unconfirmed          from when the worker is told of a revocation until it has confirmed that
cut_off              (it isn't None) from when its connection breaks until that goes on
paused               (it is True) as long as its agent says that it uses nearly as much memory as it may
retiring             (it is True) from when it is to end, for good or to be started again, until it has
is_gone              (it is True) from the first sign that it is gone, of two (`machine/workers.py`)
===================  ===========================================================================================

A run that has begun stays where it is, however long it takes: a long call into C and one that never ends look the same.
Only a process that has been stopped for `STOPPED_SECONDS` is not waited for any longer. Then what it has begun is run
elsewhere as well, if another worker may run it. Its own outcome may still come. A result is used if it is the first,
and deleted if not, so a task has one result; any other outcome of it changes nothing. Neither its retries nor its
failures are touched.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.scheduler.placing.placement import Placement, transfer_seconds
from holdfast.cluster.scheduler.placing.reconsidering import reconsider_ready
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.instructions import DropRuns, Instructions, KillRuns, RevokeRuns, TellRevoked
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.model import Worker
from holdfast.cluster.scheduler.tasks.requirements import Requirements

#: A worker gets this long to answer when it's told to drop runs.
ANSWER_SECONDS = 1.0
#: What a stopped process has begun is not waited for any longer than this.
STOPPED_SECONDS = 30.0


class Revocation(Timed):
    """Looks after workers that don't answer.

    Parameters
    ----------
    instructions
        Where instructions go.
    placement
        Knows which workers are idle.
    life
        Where tasks go that are taken away.
    stopped_seconds
        What a stopped process has begun is not waited for any longer than this.

    Attributes
    ----------
    unanswered
        The workers that have not said what they have dropped, and since when, in this order.
    """

    def __init__(
        self, instructions: Instructions, placement: Placement, life: Lifecycle, *, stopped_seconds: float
    ) -> None:
        super().__init__()
        self._instructions = instructions
        self._placement = placement
        self._life = life
        self._stopped_seconds = stopped_seconds
        self.unanswered: OrderedDict[Worker, float] = OrderedDict()

    # -- workers that do not answer

    def told_to_drop(self, worker: Worker, now: float) -> None:
        """The worker is to say which of the runs it has dropped that it was told to drop now."""
        if worker.incarnation is not None and not worker.asked:
            self.unanswered.setdefault(worker, now)

    def answered(self, worker: Worker) -> None:
        """The worker has said so, or is gone."""
        self.unanswered.pop(worker, None)

    @property
    def due(self) -> float | None:
        """When runs are to be revoked; None if it would help no worker."""
        if not self.unanswered or not self._placement.somebody_is_idle:
            return None
        return next(iter(self.unanswered.values())) + ANSWER_SECONDS

    def expire(self, now: float) -> None:
        """Have runs revoked of the workers that have left an instruction to drop some unanswered for too long."""
        while (due := self.due) is not None and due <= now:
            worker, _ = self.unanswered.popitem(last=False)
            if any(run.recalled and not run.begun for run in worker.runs.values()):
                self._ask(worker, now - worker.heard)

    def seen(self, worker: Worker, condition: str, seconds: float) -> None:
        """The worker's agent says what it is doing, and for how long already."""
        if condition != worker.condition:
            worker.condition = condition
            self._update(worker)
        if worker.incarnation is None:
            return
        if condition == "running":
            if worker.cut_off is not None:  # its agent doesn't know
                self._ask(worker, self._life.now - worker.cut_off)
        elif condition == "stopped" and seconds >= self._stopped_seconds:
            self._run_elsewhere(worker)
        else:
            self._ask(worker, seconds)

    def cut_off(self, worker: Worker, is_cut_off: bool) -> None:
        """The worker's connection has broken, and may be taken up again; or it is."""
        worker.cut_off = self._life.now if is_cut_off else None
        self._update(worker)

    def prepare(self, worker: Worker, is_preparing: bool) -> None:
        """The worker has something to do before its first task; or it has done that."""
        worker.preparing = is_preparing
        self._update(worker)

    def pause(self, worker: Worker, is_paused: bool) -> None:
        """The worker uses nearly as much memory as it may, and gets nothing new to run; or it doesn't any more."""
        if worker.paused == is_paused:
            return
        worker.paused = is_paused
        self._update(worker)
        if is_paused:
            self._take_back_what_has_not_begun(worker)

    def heard_from(self, worker: Worker) -> None:
        """The worker has said something."""
        if worker.condition != "running":
            worker.condition = "running"
            self._update(worker)

    def gone(self, worker: Worker) -> None:
        """There is a sign that the worker is gone: what it was sent from now on would be lost, and charged for that."""
        worker.is_gone = True
        self._update(worker)

    def retire(self, worker: Worker, is_retiring: bool) -> None:
        """The worker is to end, and gets nothing new to run; or it isn't any more."""
        worker.retiring = is_retiring
        self._update(worker)
        if is_retiring:
            self._take_back_what_has_not_begun(worker)

    def retired(self, worker: Worker) -> None:
        """The worker gets nothing to run any more, for good."""
        worker.is_retired = True
        reconsider_ready(self._life, self._placement)

    # -- what is taken away

    def _take_back_what_has_not_begun(self, worker: Worker) -> None:
        """Tell a worker to drop its runs. It answers for those that it has not begun; the others go on."""
        told = False
        for run in worker.active:
            if run.task is not None and not run.recalled and not run.begun:
                run.recalled = told = True
                self._instructions.add(DropRuns, worker.address, run.run_id)
        if told:
            self.told_to_drop(worker, self._life.now)

    def _ask(self, worker: Worker, wait_seconds: float) -> None:
        """Have those runs revoked that an idle worker would rather run than wait as long again."""
        idle: dict[Requirements | None, Worker | None] = {}
        wanted = []
        for run in worker.runs.values():
            task = run.task
            if task is None or run.begun:
                continue
            requirements = task.requirements
            if requirements not in idle:
                idle[requirements] = self._placement.idle_worker(worker.host, requirements)
            other = idle[requirements]
            if other is None or other is worker:
                continue
            if other.host is worker.host or transfer_seconds(task, other.host) < wait_seconds:
                wanted.append(run.run_id)
        self._revoke(worker, wanted)

    def _run_elsewhere(self, worker: Worker) -> None:
        """Don't wait any longer for the runs of a stopped worker that others may run as well."""
        others: dict[Requirements | None, bool] = {}
        wanted = []
        for run in list(worker.runs.values()):
            task = run.task
            if task is None:
                continue
            requirements = task.requirements
            if requirements not in others:
                others[requirements] = any(
                    not other.barred for other in self._placement.eligibility.candidates(requirements)
                )
            if not others[requirements]:
                continue
            if run.begun:
                self._life.run_elsewhere(run)
            else:
                wanted.append(run.run_id)
        self._revoke(worker, wanted)

    def _revoke(self, worker: Worker, run_ids: list[int]) -> None:
        if worker.asked or not run_ids:
            return
        assert worker.incarnation is not None
        self.answered(worker)
        for start in range(0, len(run_ids), MAX_ITEMS):
            worker.asked += 1
            some = run_ids[start : start + MAX_ITEMS]
            self._instructions.put(RevokeRuns(worker.host.address, worker.address, worker.incarnation, some))
        self._update(worker)

    def kill(self, worker: Worker, run_ids: Sequence[int], reason: str) -> None:
        """Have the process of a worker ended that is at one of these runs; if it is at none, they never begin there.

        The answer is that it has ended, or `revoked`.
        """
        assert worker.incarnation is not None
        worker.asked += 1
        self._instructions.put(KillRuns(worker.host.address, worker.address, worker.incarnation, run_ids, reason))
        self._update(worker)

    def revoked(self, worker: Worker, number: int, revoked: Sequence[int], begun: Sequence[int]) -> None:
        """The worker's agent says which runs it has revoked, and which had begun before."""
        worker.asked -= 1
        for run_id in begun:
            run = worker.runs.get(run_id)
            if run is not None:
                run.begun = True
        for run_id in revoked:
            task = self._life.end_run(worker, run_id)
            if task is not None and task.state == "processing":
                self._life.requeue(task)
        if number:
            worker.unconfirmed.add(number)
            self._instructions.put(TellRevoked(worker.address, number, revoked))
        self._update(worker)

    def confirmed(self, worker: Worker, number: int) -> None:
        """The worker knows of this revocation."""
        worker.unconfirmed.discard(number)
        self._update(worker)

    def _update(self, worker: Worker) -> None:
        worker.barred = (
            worker.retiring
            or worker.preparing
            or worker.paused
            or worker.is_gone
            or worker.condition != "running"
            or bool(worker.asked or worker.unconfirmed)
            or worker.cut_off is not None
        )
        self._placement.update_room(worker, self._life.now)
