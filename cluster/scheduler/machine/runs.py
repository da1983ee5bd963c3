"""What workers and their nodes say about runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.cluster.errors import ProtocolError, Reschedule
from holdfast.cluster.scheduler.machine.late_contents import LateContents
from holdfast.cluster.scheduler.machine.missing import Missing
from holdfast.cluster.scheduler.machine.rescheduled import MAX_RESCHEDULES, Rescheduled
from holdfast.cluster.scheduler.parts.copies import Copies
from holdfast.cluster.scheduler.parts.kills import Kills
from holdfast.cluster.scheduler.parts.part import EventHandlers, Shared
from holdfast.cluster.scheduler.placing.lending import Lending
from holdfast.cluster.scheduler.placing.revocation import Revocation
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.instructions import DeleteObjects
from holdfast.cluster.scheduler.tasks.model import Task, TaskError, Worker
from holdfast.cluster.scheduler.tasks.stored_errors import task_error


class Runs:
    """Takes the outcomes of runs.

    Parameters
    ----------
    shared
        The tables.
    revocation
        Waits for what workers and nodes have to say about runs that were taken back.
    lending
        Keeps account of runs that are blocked.
    missing
        Takes results that could not be read.
    kills
        Ends runs that take too long.
    copies
        Sees to second copies of data.
    late_contents
        Learns what outcomes contain that were known before their scheduler was back.

    Attributes
    ----------
    follows_another
        Whether there was an earlier scheduler. A worker may then confirm what that one has told it.
    """

    def __init__(
        self,
        shared: Shared,
        revocation: Revocation,
        lending: Lending,
        missing: Missing,
        kills: Kills,
        copies: Copies,
        late_contents: LateContents,
    ) -> None:
        self.events: EventHandlers = {
            events.FuturesInside: self._futures_inside,
            events.TasksFinished: self._tasks_finished,
            events.TasksErred: self._tasks_erred,
            events.FunctionsWrote: self._functions_wrote,
            events.DependenciesMissing: self._dependencies_missing,
            events.RunsRescheduled: self._runs_rescheduled,
            events.RunsDropped: self._runs_dropped,
            events.RunsBegun: self._runs_begun,
            events.RunsBlocked: self._runs_blocked,
            events.ResourcesReclaimed: self._resources_reclaimed,
            events.RunsReturned: self._runs_returned,
            events.RunsRevoked: self._runs_revoked,
            events.RevocationConfirmed: self._revocation_confirmed,
        }
        self.follows_another = False
        self._workers = shared.workers
        self._instructions = shared.instructions
        self._placement = shared.placement
        self._life = shared.life
        self._revocation = revocation
        self._lending = lending
        self._missing = missing
        self._rescheduled = Rescheduled()
        self._kills = kills
        self._copies = copies
        self._late_contents = late_contents
        self._inside: dict[int, list[Task]] = {}  # what an outcome contains that comes next, by run

    def _speaker(self, address: str) -> Worker | None:
        """A worker that has said something; None if it is gone."""
        worker = self._workers.get(address)
        if worker is not None and worker.barred:
            self._revocation.heard_from(worker)
        return worker

    def _futures_inside(self, event: events.FuturesInside) -> None:
        worker = self._workers.get(event.worker)
        if worker is None:
            return
        tasks = self._life.generations.tasks
        for run_id, keys in event.runs:
            found = [task for key in keys if (task := tasks.get(key)) is not None]
            if run_id in worker.runs:
                self._inside.setdefault(run_id, []).extend(found)
            else:
                self._late_contents.said(run_id, found)

    def _tasks_finished(self, event: events.TasksFinished) -> None:
        worker = self._speaker(event.worker)
        if worker is None:
            self._forget_inside([run_id for _, run_id, *_ in event.results])
            return
        life = self._life
        for serial, run_id, object_id, nbytes, inline, type_name, seconds in event.results:
            task = life.end_run(worker, run_id, has_result=True)
            if task is None:
                self._forget_inside((run_id,))
                if life.results.get(object_id) is not None:
                    continue  # it has been found already
                late = life.lost.claim_label(serial)
                if late is not None and late.is_needed and (late.error is None or late.error.is_loss):
                    life.restore(late, worker.host, object_id, nbytes, inline, type_name)
                    late.maker = None if inline is None else worker
                    continue
                if inline is None:
                    self._instructions.add(DeleteObjects, worker.host.address, object_id)
                else:
                    life.results.discard(worker, object_id)
                continue
            task.group.record(seconds, nbytes)
            if inline is not None:
                task.maker = worker
            if not life.complete(task, worker.host, object_id, nbytes, inline, type_name):
                life.requeue(task)
                raise ProtocolError(f"finished: the object of run {run_id} is that of another key")
            if self._inside or life.holding.contents:
                self._contains(task, self._inside.pop(run_id, ()))
        self._placement.progressed(worker, life.now)
        life.line_up_more(worker)

    def _contains(self, task: Task, inside: Sequence[Task]) -> None:
        """The new object of a task contains these."""
        self._life.holding.contain_now(task, inside)
        self._copies.contained(task, inside)

    def _forget_inside(self, run_ids: Iterable[int]) -> None:
        if self._inside:
            for run_id in run_ids:
                self._inside.pop(run_id, None)

    def _tasks_erred(self, event: events.TasksErred) -> None:
        worker = self._speaker(event.worker)
        if worker is None:
            self._forget_inside([run_id for _, run_id, *_ in event.errors])
            return
        self._placement.progressed(worker, self._life.now)
        for _, run_id, raised, text, _ in event.errors:
            task = self._life.end_run(worker, run_id)
            inside = self._inside.pop(run_id, ()) if self._inside else ()
            if task is not None and not task.retries:
                if isinstance(raised, tuple):
                    object_id, nbytes = raised
                    error = self._life.errors.add(task.key, worker.host, object_id, nbytes, text)
                else:
                    error = TaskError(task.key, raised, text)
                if inside:
                    self._life.errors.contain(error, inside)
                self._life.fail(task, error)
                continue
            if isinstance(raised, tuple) and raised[0] not in self._life.results.table:
                self._instructions.add(DeleteObjects, worker.host.address, raised[0])
            if task is not None:
                self._life.retry_run(task)
                self._life.requeue(task)

    def _functions_wrote(self, event: events.FunctionsWrote) -> None:
        for key, digest in event.tasks:
            self._life.groups.remember_writer(key, digest)

    def _dependencies_missing(self, event: events.DependenciesMissing) -> None:
        worker = self._speaker(event.worker)
        if worker is None:
            return
        for _, run_id, dependency_key, object_id in event.missing:
            task = self._life.end_run(worker, run_id)
            if task is None:
                continue
            dependency = next((d for d in task.dependencies if d.key == dependency_key), None)
            error = None if dependency is None else self._missing.could_not_read(dependency, object_id)
            if error is not None:
                self._life.fail(task, error)
            elif task.state == "processing":
                self._life.requeue(task)

    def _runs_rescheduled(self, event: events.RunsRescheduled) -> None:
        worker = self._speaker(event.worker)
        if worker is None:
            return
        self._placement.progressed(worker, self._life.now)
        for _, run_id in event.runs:
            task = self._life.end_run(worker, run_id)
            if task is None:
                continue
            if self._rescheduled.may_run_again(task):
                task.requirements = self._placement.eligibility.elsewhere(task.requirements, worker)
                self._life.requeue(task)
            else:
                text = (
                    f"{task.key!r:.200} was run {MAX_RESCHEDULES:,} times, and has raised Reschedule each time: have "
                    "it wait for what it needs, or say with 'workers' or 'resources' where that is"
                )
                self._life.fail(task, task_error(task.key, Reschedule(text)))

    def _runs_dropped(self, event: events.RunsDropped) -> None:
        worker = self._speaker(event.worker)
        if worker is None:
            return
        self._revocation.answered(worker)
        for run_id in event.run_ids:
            run = worker.runs.get(run_id)
            task = self._life.end_run(worker, run_id)
            if run is None or task is None:
                continue
            if not run.recalled:
                raise ProtocolError(f"{worker.address} dropped a run of {task.key!r} that it was not told to drop")
            if task.state == "processing":
                self._life.requeue(task)

    def _runs_begun(self, event: events.RunsBegun) -> None:
        worker = self._speaker(event.worker)
        if worker is not None:
            self._kills.begun(worker, event.run_ids)

    def _runs_blocked(self, event: events.RunsBlocked) -> None:
        worker = self._speaker(event.worker)
        if worker is not None:
            self._kills.blocked(worker, event.run_ids)
            self._lending.blocked(worker, event.run_ids, self._life.now)

    def _resources_reclaimed(self, event: events.ResourcesReclaimed) -> None:
        worker = self._speaker(event.worker)
        if worker is not None:
            self._lending.reclaimed(worker, event.run_ids)

    def _runs_returned(self, event: events.RunsReturned) -> None:
        worker = self._speaker(event.worker)
        if worker is not None:
            self._lending.returned(worker, event.run_ids, self._life.now)
            self._kills.returned(worker, event.run_ids)

    def _runs_revoked(self, event: events.RunsRevoked) -> None:
        worker = self._workers.get(event.worker)
        if worker is None or worker.host.address != event.host or worker.incarnation != event.incarnation:
            return  # the answer is of a process that has gone, and its runs with it
        if not worker.asked:
            raise ProtocolError(f"{event.host} revoked runs of {event.worker} that it was not told to revoke")
        self._revocation.revoked(worker, event.number, event.revoked, event.begun)
        self._kills.spared(worker, [*event.revoked, *event.begun])

    def _revocation_confirmed(self, event: events.RevocationConfirmed) -> None:
        worker = self._speaker(event.worker)
        if worker is None:
            return
        if event.number in worker.unconfirmed:
            self._revocation.confirmed(worker, event.number)
        elif not self.follows_another:
            raise ProtocolError(f"{event.worker} confirmed a revocation that it was not told of")
