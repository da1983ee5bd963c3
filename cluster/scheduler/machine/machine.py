"""The scheduler's state machine: ``SchedulerState.handle(event, now) -> instructions``.

Theory of operation
-------------------
Nothing here does I/O, reads a clock, or depends on chance or on the order of a set: the same events at the same times
give the same instructions, in production and in a simulation.

Each event changes the tables, by way of `Lifecycle` where tasks are concerned. Then, always in this order,

1. what nobody needs any more is released and forgotten (`Lifecycle.follow_up`), or some of it, if there is much,
2. ready tasks go to workers with room (`Lifecycle.fill`),

and what has collected in the outbox is returned, and what has happened is told to those that listen (`tasks/feed.py`).
A `validation.CheckedState` looks whether each move of a task is a legal one, and after each event whether every
invariant holds.

What comes is well-formed (`holdfast.cluster.protocol`), but need not be right: then its handler raises a
`ProtocolError`, before it has changed anything that others rely on. Whatever else is raised is a fault in here. One
in the two steps above has nothing to do with the event: it is reported to ``on_failure``, and the rest goes on.

What a task costs on its way from submit to gather: one entry of `TasksSubmitted`, one assignment, one entry of
`TasksFinished`, one report to each client that holds it, one entry of `KeysReleased`, one deletion. None of them
looks at other tasks than the neighbours in the graph; an assignment looks at each queue of ready tasks once, of which
there is one for each set of requirements in use and one for each host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.cluster.errors import KilledWorker, NoWorkerError, ObjectLostError, ProtocolError
from holdfast.cluster.protocol.limits import MAX_DATASETS
from holdfast.cluster.scheduler.parts.copies import PUBLISH_SECONDS, Copies
from holdfast.cluster.scheduler.parts.datasets import Dataset
from holdfast.cluster.scheduler.placing.nowhere import Nowhere
from holdfast.cluster.scheduler.placing.placement import Placement
from holdfast.cluster.scheduler.placing.recall import Recall
from holdfast.cluster.scheduler.placing.revocation import STOPPED_SECONDS, Revocation
from holdfast.cluster.scheduler.placing.suspects import PATIENCE_SECONDS as SUSPECTS_PATIENCE_SECONDS
from holdfast.cluster.scheduler.placing.suspects import Suspects
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.feed import Joined, Left
from holdfast.cluster.scheduler.tasks.functions import Functions
from holdfast.cluster.scheduler.tasks.generations import is_below
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.instructions import (
    DeleteObjects,
    Instruction,
    Outbox,
    ReportErred,
    ReportKept,
    ReportPending,
)
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.lost import PATIENCE_SECONDS
from holdfast.cluster.scheduler.tasks.model import Host, Task, TaskError, Worker
from holdfast.cluster.scheduler.tasks.moves import Moves
from holdfast.cluster.scheduler.tasks.names import Key
from holdfast.cluster.scheduler.tasks.partitioned import Table
from holdfast.cluster.scheduler.tasks.reports import raised_of
from holdfast.cluster.scheduler.tasks.requirements import Requirements
from holdfast.cluster.scheduler.tasks.stored_errors import task_error

#: A task that no worker may run fails after this.
NO_WORKER_TIMEOUT_SECONDS = 30.0
#: A task is given up when it is charged for this many deaths.
MAX_FAILURES = 3
#: A result that could not be read this often, though it should be there, counts as lost.
MAX_MISSING = 3
#: Of so many hosts that are gone it's known which tasks are blamed for that, in case they come back and have lived.
MAX_BLAMED = 100
#: What follows from an event is seen to in pieces of so many tasks: some milliseconds.
FOLLOW_UP_LIMIT = 2_000


class SchedulerState:
    """Everything that the scheduler knows.

    Parameters
    ----------
    no_worker_timeout
        Seconds after which a task fails that no worker of the cluster may run.
    patience_seconds
        How long data that can't be made again is awaited when its host is gone. 0: it is given up at once.
    max_failures
        Number of deaths for which a task is charged before it fails.
    suspects_patience_seconds
        How long one that may have killed a worker waits for a worker that it has for itself.
    follow_up_limit
        Number of tasks that one event deals with beyond those that it touches itself.
    stopped_seconds
        After this long nobody waits any longer for what a stopped worker has begun.
    publish_seconds
        How long a publisher waits for second copies of what can't be made again.
    on_failure
        ``on_failure(what, error)``: takes a failure in what follows from earlier events. None: it is raised.
    moves
        Changes the states of tasks.
    """

    def __init__(
        self,
        *,
        no_worker_timeout: float = NO_WORKER_TIMEOUT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        max_failures: int = MAX_FAILURES,
        suspects_patience_seconds: float = SUSPECTS_PATIENCE_SECONDS,
        follow_up_limit: int = FOLLOW_UP_LIMIT,
        stopped_seconds: float = STOPPED_SECONDS,
        publish_seconds: float = PUBLISH_SECONDS,
        on_failure: Callable[[str, Exception], None] | None = None,
        moves: Moves | None = None,
    ) -> None:
        self.hosts: dict[str, Host] = {}
        self.workers: dict[str, Worker] = {}
        self.clients: dict[str, Client] = {}
        self.datasets: dict[str, Dataset] = {}
        self.outbox = Outbox()
        self.placement = Placement(self.hosts, self.workers)
        moves = moves or Moves()
        self.feed = moves.feed
        self.life = Lifecycle(
            self.outbox,
            self.placement,
            Functions(self.outbox, self.workers),
            follow_up_limit=follow_up_limit,
            awaits_lost=patience_seconds > 0,
            moves=moves,
        )
        self.revocation = Revocation(self.outbox, self.placement, self.life, stopped_seconds=stopped_seconds)
        self.suspects = Suspects(self.placement, self.life, patience_seconds=suspects_patience_seconds)
        self.nowhere = Nowhere(self.hosts, self.workers, self.life.unplaced)
        self.recall = Recall(self.outbox, self.placement, self.revocation)
        self.copies = Copies(self.outbox, self.life, self.hosts, publish_seconds=publish_seconds)
        self._no_worker_timeout = no_worker_timeout
        self._patience_seconds = patience_seconds
        self._max_failures = max_failures
        self._on_failure = on_failure
        self._submitted = 0
        self._blamed: dict[str, tuple[str, list[Task]]] = {}  # with the incarnation, by the host's address
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.HostJoined: self._host_joined,
            events.HostLeft: self._host_left,
            events.ObjectsReported: self._objects_reported,
            events.HostReady: self._host_ready,
            events.WorkerJoined: self._worker_joined,
            events.WorkerLeft: self._worker_left,
            events.WorkersSeen: self._workers_seen,
            events.ClientJoined: self._client_joined,
            events.ClientLeft: self._client_left,
            events.FunctionsSent: self._functions_sent,
            events.FunctionsForgotten: self._functions_forgotten,
            events.TasksSubmitted: self._tasks_submitted,
            events.ObjectsScattered: self._objects_scattered,
            events.ReferencesFound: self._references_found,
            events.KeysWanted: self._keys_wanted,
            events.KeysReleased: self._keys_released,
            events.KeysCancelled: self._keys_cancelled,
            events.ResultsMissing: self._results_missing,
            events.TasksFinished: self._tasks_finished,
            events.TasksErred: self._tasks_erred,
            events.FunctionsWrote: self._functions_wrote,
            events.DependenciesMissing: self._dependencies_missing,
            events.RunsDropped: self._runs_dropped,
            events.RunsRevoked: self._runs_revoked,
            events.RevocationConfirmed: self._revocation_confirmed,
            events.ObjectsFound: self._objects_found,
            events.CopiesFailed: self._copies_failed,
            events.DatasetsPublished: self._datasets_published,
            events.DatasetUnpublished: self._dataset_unpublished,
            events.DatasetRequested: self._dataset_requested,
            events.TimePassed: self._time_passed,
        }

    @property
    def tasks(self) -> Table[Key, Task]:
        return self.life.generations.tasks

    def handle(self, event: events.Event, now: float) -> list[Instruction]:
        """Take in an event; return what is to be done about it, in order.

        Parameters
        ----------
        event
            What happened. Events about workers, hosts and clients that are not there (any more) change nothing.
        now
            The time in seconds; never less than in the call before.

        Raises
        ------
        ProtocolError
            The event can't be right. The state is as it was, but for parts of the event that came before; what is to
            be done about these is in the ``outbox``.
        Exception
            A fault in the handler of the event. What it had done until then is done.
        """
        self.life.now = now
        try:
            self._handlers[type(event)](event)
        finally:
            self._follow_up("what follows from earlier events", self.life.follow_up)
            self._follow_up("giving tasks to workers", self.life.fill)
            if self.copies.wanting or self.copies.publications:
                self._follow_up("having copies made", self._have_copies_made)
            if self.feed.is_heard:
                self._follow_up("telling those that listen", self._publish)
        return self.outbox.take()

    def _publish(self) -> None:
        self.feed.publish(self.life.now)

    def _follow_up(self, what: str, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            if self._on_failure is None:
                raise
            self._on_failure(what, error)

    @property
    def next_deadline(self) -> float | None:
        """When `TimePassed` is due, None if there is nothing to wait for. At once, if an event has left work over."""
        if self.life.has_more:
            return self.life.now
        deadline = self.recall.deadline
        if (due := self.revocation.deadline) is not None:
            deadline = _earlier(deadline, due)
        # This is asked after every event, and most of the time nobody waits for any of the following.
        if (self.placement.solitary or self.placement.kept) and (due := self.suspects.deadline) is not None:
            deadline = _earlier(deadline, due)
        if (self.copies.wanting or self.copies.publications) and (due := self.copies.deadline) is not None:
            deadline = _earlier(deadline, due)
        if self.life.unplaced:
            deadline = _earlier(deadline, next(iter(self.life.unplaced)).since + self._no_worker_timeout)
            if (due := self.nowhere.deadline) is not None:
                deadline = _earlier(deadline, due)
        if self.life.awaited:
            deadline = _earlier(deadline, next(iter(self.life.awaited)).since + self._patience_seconds)
        return deadline

    # -- hosts and workers

    def _host_joined(self, event: events.HostJoined) -> None:
        if event.address in self.hosts:
            raise ProtocolError(f"there is a node at {event.address} already")
        host = self.hosts[event.address] = Host(event.address, event.description)
        if self.feed.is_heard:
            self.feed.tell(Joined("host", host.address, str(event.description.get("hostname") or "")))
        incarnation, blamed = self._blamed.pop(host.address, (None, ()))
        if incarnation == host.incarnation:
            for task in blamed:
                task.failures = max(0, task.failures - 1)  # it may have had a result since
        self._reconsider_unplaced()

    def _host_left(self, event: events.HostLeft) -> None:
        host = self.hosts.get(event.address)
        if host is None:
            return
        blamed = [] if event.may_live else self.suspects.host_died(host.workers)
        for worker in list(host.workers):
            self._remove_worker(worker, event.reason)
        if blamed and host.incarnation is not None:
            self._blamed[host.address] = host.incarnation, blamed
            if len(self._blamed) > MAX_BLAMED:
                del self._blamed[next(iter(self._blamed))]
        del self.hosts[host.address]
        if self.feed.is_heard:
            self.feed.tell(Left("host", host.address, event.reason))
        for task in self.placement.remove_host(host):
            self.placement.push(task)
        self.copies.host_left(host)
        for task in list(host.objects):
            self.life.lose_copy(task, host)
            if self.copies.is_root(task):
                self._root_changed(task)
        self.life.errors.host_left(host)
        self._reconsider_ready()

    def _objects_reported(self, event: events.ObjectsReported) -> None:
        host = self.hosts.get(event.host)
        if host is None:
            return
        life = self.life
        for description in event.objects:
            object_id = description["id"]
            task = life.objects.get(object_id)
            if task is not None:
                life.add_copy(task, host)
                self.copies.copied(task)
                continue
            failure = life.errors.get(object_id)
            if failure is not None:
                life.errors.add_copy(failure, host)
                continue
            task = life.lost.claim(object_id)
            if task is not None and task.is_needed and (task.error is None or task.error.is_loss):
                life.restore(task, host, object_id, description["nbytes"], None, description.get("type") or "")
                host.restored.append(task)
                self.copies.look_at(task)
            else:
                self._delete_from(host, object_id)

    def _host_ready(self, event: events.HostReady) -> None:
        host = self.hosts.get(event.host)
        if host is None or host.is_ready:
            return
        host.is_ready = True
        self.copies.host_ready()
        restored, host.restored = host.restored, []
        self.life.run_again(restored)

    def _worker_joined(self, event: events.WorkerJoined) -> None:
        host = self.hosts.get(event.host)
        if host is None:
            raise ProtocolError(f"worker {event.address} belongs to node {event.host}, which is not here")
        if event.address in self.workers:
            raise ProtocolError(f"there is a worker {event.address} already")
        worker = Worker(event.address, event.name, host, event.nthreads, event.resources)
        worker.incarnation = event.incarnation
        self.workers[event.address] = worker
        if self.feed.is_heard:
            self.feed.tell(Joined("worker", worker.address, worker.name))
        host.workers[worker] = None
        self.placement.update_room(worker, self.life.now)
        self._reconsider_unplaced()

    def _worker_left(self, event: events.WorkerLeft) -> None:
        worker = self.workers.get(event.address)
        if worker is not None:
            self.suspects.worker_died(worker, event.running, event.crashed, fault=event.fault)
            self._remove_worker(worker, event.reason)

    def _remove_worker(self, worker: Worker, reason: str) -> None:
        """A worker is gone. The tasks that are charged for it are known already."""
        del self.workers[worker.address]
        if self.feed.is_heard:
            self.feed.tell(Left("worker", worker.address, reason))
        del worker.host.workers[worker]
        self.placement.remove_worker(worker)
        self.revocation.answered(worker)
        lost = [run.task for run in worker.runs.values()]
        for task in lost:
            if task is not None:
                task.worker = None
        for task in lost:
            if task is None:
                continue
            if task.failures >= self._max_failures:
                text = (
                    f"{task.key!r} was running on {task.failures} workers that died, the last of them "
                    f"{worker.name!r} at {worker.address} ({reason}). If it crashes the interpreter, 'holdfast logs' "
                    "shows where. If it needs more memory than they have, make smaller pieces, or start workers with "
                    "more ('holdfast start --memory', LocalCluster(memory_limit=))"
                )
                self.life.fail(task, task_error(task.key, KilledWorker(text)))
            elif task.state == "processing":
                self.life.requeue(task)
        worker.host.expected_nbytes -= sum(run.nbytes for run in worker.runs.values())
        worker.runs.clear()
        if not worker.host.workers:
            for task in self.placement.remove_host(worker.host):
                self.placement.push(task)
        self._reconsider_ready()

    def _reconsider_unplaced(self) -> None:
        """A worker has come, or a host to which some will: they may run tasks that nobody could run before."""
        for task in list(self.life.unplaced):
            if self.placement.can_run(task.requirements):
                self.life.withdraw(task)
                self.life.enqueue(task)

    def _workers_seen(self, event: events.WorkersSeen) -> None:
        for address, (condition, seconds) in event.conditions.items():
            worker = self.workers.get(address)
            if worker is not None and worker.host.address == event.host:
                self.revocation.seen(worker, condition, seconds)

    def _reconsider_ready(self) -> None:
        """A worker or a host is gone: ready tasks that nobody may run now must say so."""
        for requirements in self.placement.requirements_of_ready():
            if not self.placement.can_run(requirements):
                for task in self.placement.ready_tasks(requirements):
                    self.life.withdraw(task)
                    self.life.enqueue(task)

    def _time_passed(self, event: events.TimePassed) -> None:
        self.copies.time_passed(self.life.now)
        self.recall.take_back(self.life.now)
        self.revocation.take_away(self.life.now)
        self.suspects.hurry(self.life.now)
        for task in list(self.life.unplaced):
            if task.since + self._no_worker_timeout > self.life.now:
                break
            if task.state == "no-worker":  # one that failed before may have taken this one along
                reason, way_out = self.nowhere.why(task.requirements)
                text = f"{task.key!r} has waited {self._no_worker_timeout:g} s {reason}: {way_out}"
                self.life.fail(task, task_error(task.key, NoWorkerError(text)))
        self.nowhere.warn(self.outbox, self.life.now, self._no_worker_timeout)
        for task in list(self.life.awaited):
            if task.since + self._patience_seconds > self.life.now:
                break
            self.life.await_no_longer(task)

    # -- clients

    def _client_joined(self, event: events.ClientJoined) -> None:
        if event.client in self.clients:
            raise ProtocolError(f"there is a client {event.client} already")
        self.clients[event.client] = Client(event.client, event.name, event.of_worker)
        if self.feed.is_heard:
            self.feed.tell(Joined("client", event.client, event.name))

    def _client_left(self, event: events.ClientLeft) -> None:
        client = self.clients.pop(event.client, None)
        if client is None:
            return
        if self.feed.is_heard:
            self.feed.tell(Left("client", client.id, ""))
        client.leave()
        self.nowhere.client_left(client.id)
        self.copies.client_left(client.id)
        self.life.let_go(client)
        self.life.functions.forgotten(client, list(client.functions))

    def _functions_sent(self, event: events.FunctionsSent) -> None:
        self.life.functions.sent(self.clients[event.client], event.functions)

    def _functions_forgotten(self, event: events.FunctionsForgotten) -> None:
        self.life.functions.forgotten(self.clients[event.client], event.digests)

    def _tasks_submitted(self, event: events.TasksSubmitted) -> None:
        client = self.clients[event.client]
        life = self.life
        tasks = life.generations.tasks
        options = event.options
        per_key = options.get("per_key") or {}
        shared = chosen = _Options(options, self.placement)
        unknown: list[tuple[Task, Key]] = []
        specified: list[Task] = []
        submitted: list[Task] = []
        frees = False
        try:
            for key, digest, payload, dependency_keys in event.tasks:
                task = tasks.get(key)
                is_held = False
                if task is not None:
                    if life.generations.is_specified_by(task, digest, payload, dependency_keys):
                        submitted.append(task)
                        continue
                    is_held = life.is_held(task)
                    if is_held and (task.payload is not None or task.state == "memory"):
                        self.outbox.add(ReportKept, client.id, key)
                        submitted.append(task)
                        continue
                if digest is not None and digest not in life.functions.table:
                    raise ProtocolError(f"task {key!r:.200} names a function that was never sent")
                if dependency_keys and key in dependency_keys:
                    raise ProtocolError(f"task {key!r:.200} depends on itself")
                if per_key:
                    chosen = _Options({**options, **per_key[key]}, self.placement) if key in per_key else shared
                if not is_held:
                    if task is not None:
                        life.generations.free_key(task)
                        frees = True
                    task = life.create(key, digest, client.name)
                specified.append(task)
                submitted.append(task)
                dependencies = []
                for dependency_key in dependency_keys:
                    dependency = tasks.get(dependency_key)
                    if dependency is None:
                        unknown.append((task, dependency_key))
                    else:
                        dependencies.append(dependency)
                if task.dependents and is_below(task, dependencies):
                    raise ProtocolError(f"task {key!r:.200} depends on itself, by way of others")
                task.requirements = chosen.requirements
                task.retries = chosen.retries
                task.private = chosen.private
                self._submitted += 1
                task.priority = (-chosen.priority, self._submitted)
                life.specify(task, digest, payload, dependencies)
            if event.wants is None:
                if frees:  # maybe the key of one that came before in this very event
                    submitted = [tasks[task.key] for task in submitted]
                for task in submitted:
                    self._begin(client, task)
            else:
                self._want(client, event.wants)
            for task, dependency_key in unknown:
                life.fail_unknown_dependency(task, dependency_key)
        finally:
            life.settle(specified)

    def _want(self, client: Client, keys: Any) -> None:
        for key in keys:
            task = self.tasks.get(key)
            if task is None:
                self.outbox.cancelled(client.id, key, "it was cancelled or released before")
            else:
                self._begin(client, task)

    def _begin(self, client: Client, task: Task) -> None:
        """A client wants a task's result."""
        life = self.life
        if task.state == "erred":
            life.renew(task)
        life.hold(client, task)
        if task.state == "released":
            life.activate(task)
        else:
            life.reports.tell(client, task)

    def _objects_scattered(self, event: events.ObjectsScattered) -> None:
        client = self.clients[event.client]
        for position, (key, object_id, nbytes, type_name, address, inline) in enumerate(event.objects):
            host = self.hosts.get(address)
            task = self.tasks.get(key)
            owner = self.life.objects.get(object_id)
            if owner is not None and owner is not task:
                raise ProtocolError(f"scattered[{position}].object_id is that of another key")
            if task is not None and event.chosen and owner is None and not self.life.is_held(task):
                self.life.generations.free_key(task)
                task = None
            if task is None:
                task = self.life.create(key, None, client.name)
            self.life.hold(client, task)
            if task.state == "memory":
                if object_id == task.object_id and host is not None:
                    self.life.add_copy(task, host)
                    self.copies.copied(task)
                elif object_id != task.object_id:
                    self._delete_from(host, object_id)
                    if event.chosen and (inline is None or inline != task.inline):
                        self.outbox.add(ReportKept, client.id, key)
                self.life.reports.tell(client, task)
                continue
            if task.payload is not None:
                self._delete_from(host, object_id)
                self.outbox.add(ReportKept, client.id, key)
                if task.state == "released":
                    self.life.activate(task)
                self.outbox.add(ReportPending, client.id, key)
                self.life.reports.tell(client, task)
                continue
            was_lost = task.error is not None and task.error.is_loss
            if task.error is not None and not was_lost:
                self._delete_from(host, object_id)
                self.life.reports.tell(client, task)
            elif host is not None or inline is not None:
                self.life.restore(task, host, object_id, nbytes, inline, type_name)
                self.copies.look_at(task)
                if was_lost:
                    self.life.run_again([task])
            else:
                self.life.lost.add(task, object_id)  # it comes with the host, if that comes back
                if task.state == "released":
                    text = f"{key!r} was put into the store of {address}, and that host has left"
                    self.life.await_or_fail(task, text)
                elif was_lost:
                    self.life.reports.tell(client, task)
                if task.state != "erred":
                    self.life.reports.pending(task)

    def _references_found(self, event: events.ReferencesFound) -> None:
        client = self.clients[event.client]
        for key, contained in event.objects:
            task = self.tasks.get(key)
            if task is not None and client in task.holders:  # else it was cancelled meanwhile
                others = [other for inner in contained if (other := self.tasks.get(inner)) is not None]
                self.life.contain(task, others)
                self.copies.contained(task, others)

    def _keys_wanted(self, event: events.KeysWanted) -> None:
        self._want(self.clients[event.client], event.keys)

    def _keys_released(self, event: events.KeysReleased) -> None:
        client = self.clients[event.client]
        for key in event.keys:
            task = self.tasks.get(key)
            if task is not None:
                self.life.unhold(client, task)

    def _keys_cancelled(self, event: events.KeysCancelled) -> None:
        found = [task for key in event.keys if (task := self.tasks.get(key)) is not None]
        self.life.cancel(found, self.clients[event.client], force=event.force)

    def _results_missing(self, event: events.ResultsMissing) -> None:
        client = self.clients[event.client]
        for key, object_id, _ in event.results:
            task = self.tasks.get(key)
            if task is None:
                self.outbox.cancelled(client.id, key, "it was cancelled or released before")
                continue
            error = self._object_missing(task, object_id)
            if error is not None:
                self.outbox.add(ReportErred, client.id, (key, raised_of(error), error.text))
            elif task.state == "memory":
                self.life.reports.tell(client, task)

    # -- runs

    def _speaker(self, address: str) -> Worker | None:
        """A worker that has said something; None if it is gone."""
        worker = self.workers.get(address)
        if worker is not None and worker.deaf:
            self.revocation.heard_from(worker)
        return worker

    def _tasks_finished(self, event: events.TasksFinished) -> None:
        worker = self._speaker(event.worker)
        if worker is None:
            return
        life = self.life
        for _, run_id, object_id, nbytes, inline, type_name, seconds in event.results:
            task = life.end_run(worker, run_id, has_result=True)
            if task is None:
                if inline is None:
                    self.outbox.add(DeleteObjects, worker.host.address, object_id)
                else:
                    life.discard(worker, object_id)
                continue
            task.group.record(seconds, nbytes)
            if inline is not None:
                task.maker = worker
            if not life.complete(task, worker.host, object_id, nbytes, inline, type_name):
                life.requeue(task)
                raise ProtocolError(f"finished: the object of run {run_id} is that of another key")
        self.placement.progressed(worker, life.now)
        life.line_up_more(worker)

    def _tasks_erred(self, event: events.TasksErred) -> None:
        worker = self._speaker(event.worker)
        if worker is None:
            return
        self.placement.progressed(worker, self.life.now)
        for _, run_id, raised, text, _ in event.errors:
            task = self.life.end_run(worker, run_id)
            if task is not None and not task.retries:
                if isinstance(raised, tuple):
                    object_id, nbytes = raised
                    error = self.life.errors.add(task.key, worker.host, object_id, nbytes, text)
                else:
                    error = TaskError(task.key, raised, text)
                self.life.fail(task, error)
                continue
            if isinstance(raised, tuple) and raised[0] not in self.life.objects:
                self._delete_from(worker.host, raised[0])
            if task is not None:
                task.retries -= 1
                self.life.requeue(task)

    def _functions_wrote(self, event: events.FunctionsWrote) -> None:
        for key, digest in event.tasks:
            self.life.groups.remember_writer(key, digest)

    def _dependencies_missing(self, event: events.DependenciesMissing) -> None:
        worker = self._speaker(event.worker)
        if worker is None:
            return
        for _, run_id, dependency_key, object_id in event.missing:
            task = self.life.end_run(worker, run_id)
            if task is None:
                continue
            dependency = next((d for d in task.dependencies if d.key == dependency_key), None)
            error = None if dependency is None else self._object_missing(dependency, object_id)
            if error is not None:
                self.life.fail(task, error)
            elif task.state == "processing":
                self.life.requeue(task)

    def _object_missing(self, task: Task, object_id: bytes) -> TaskError | None:
        """Somebody could not read the object of ``task``, wherever they looked. Returns why they should give up, if so.

        Anything may have been in the way, so they try again first; then the task is computed again.
        """
        if task.state != "memory" or task.object_id != object_id:
            return None  # that has been seen to since
        task.missing += 1
        if task.missing < MAX_MISSING:
            return None
        if task.can_be_computed:
            for host in list(task.where):
                self.outbox.add(DeleteObjects, host.address, object_id)
                self.life.drop_copy(task, host)
            return None
        # It can't be made again, and it may be the way there that is broken: the data stays.
        task.missing = 0
        text = f"{task.key!r} could not be read from {_some(host.address for host in task.where)}"
        return task_error(task.key, ObjectLostError(text))

    def _runs_dropped(self, event: events.RunsDropped) -> None:
        worker = self._speaker(event.worker)
        if worker is None:
            return
        self.revocation.answered(worker)
        for run_id in event.run_ids:
            run = worker.runs.get(run_id)
            task = self.life.end_run(worker, run_id)
            if run is None or task is None:
                continue
            if not run.recalled:
                raise ProtocolError(f"{worker.address} dropped a run of {task.key!r} that it was not told to drop")
            if task.state == "processing":
                self.life.requeue(task)

    def _runs_revoked(self, event: events.RunsRevoked) -> None:
        worker = self.workers.get(event.worker)
        if worker is None or worker.host.address != event.host or worker.incarnation != event.incarnation:
            return  # the answer is of a process that has gone, and its runs with it
        if not worker.asked:
            raise ProtocolError(f"{event.host} revoked runs of {event.worker} that it was not told to revoke")
        self.revocation.revoked(worker, event.number, event.revoked, event.begun)

    def _revocation_confirmed(self, event: events.RevocationConfirmed) -> None:
        worker = self._speaker(event.worker)
        if worker is None:
            return
        if not worker.unconfirmed:
            raise ProtocolError(f"{event.worker} confirmed a revocation that it was not told of")
        self.revocation.confirmed(worker)

    def _objects_found(self, event: events.ObjectsFound) -> None:
        host = self.hosts.get(event.host)
        if host is None:
            return
        for object_id in event.object_ids:
            task = self.life.objects.get(object_id)
            if task is not None:
                self.life.add_copy(task, host)
                self.copies.copied(task)
                continue
            error = self.life.errors.get(object_id)
            if error is not None:
                self.life.errors.add_copy(error, host)
            else:
                self._delete_from(host, object_id)

    def _copies_failed(self, event: events.CopiesFailed) -> None:
        host = self.hosts.get(event.host)
        if host is not None:
            for object_id, reason in event.failures:
                self.copies.failed(host, object_id, reason)

    def _root_changed(self, task: Task) -> None:
        """Data that can't be made again has lost a copy."""
        if task.state == "memory":
            self.copies.look_at(task)
        else:
            self.copies.lost(task)

    def _have_copies_made(self) -> None:
        self.copies.fill()
        for client, request, datasets, lost in self.copies.answers():
            if lost is None:
                self.outbox.reply(client, request, True, None)
                continue
            for dataset in datasets:
                if self.datasets.get(dataset.name) is dataset:
                    del self.datasets[dataset.name]
                    self._let_go(dataset)
            text = f"the host that had {lost.key!r} was lost before there was a copy of it: publish once more"
            self.outbox.reply(client, request, False, ["ObjectLostError", text])

    def _delete_from(self, host: Host | None, object_id: bytes) -> None:
        if host is not None:
            self.outbox.add(DeleteObjects, host.address, object_id)

    # -- datasets

    def _datasets_published(self, event: events.DatasetsPublished) -> None:
        client = self.clients[event.client]
        refusal = self._refusal_of(event)
        if refusal is not None:
            self.outbox.reply(client.id, event.request, False, refusal)
            return
        published = []
        for name, data, keys in event.datasets:
            old = self.datasets.get(name)
            dataset = Dataset(name, data, client.name, self.life.now)
            for key in keys:
                self.life.hold(dataset, self.tasks[key])
            self.copies.hold_lineage(dataset)
            self.datasets[name] = dataset
            published.append(dataset)
            if old is not None:
                self._let_go(old)
        if not self.copies.published(client.id, event.request, published):
            self.outbox.reply(client.id, event.request, True, None)

    def _let_go(self, dataset: Dataset) -> None:
        self.life.let_go(dataset)
        self.copies.unpublished(dataset)

    def _refusal_of(self, event: events.DatasetsPublished) -> list[str] | None:
        """Why these can't be published: an error's name and text."""
        new = 0
        for name, _, keys in event.datasets:
            old = self.datasets.get(name)
            if old is not None and not event.override:
                text = f"a dataset {name!r} is published already (by {old.publisher}); override=True replaces it"
                return ["DatasetExistsError", text]
            new += old is None
            gone = [key for key in keys if key not in self.tasks]
            if gone:
                text = f"{name!r} can't be published: {_some(map(repr, gone))} was cancelled or released"
                return ["CancelledError", text]
        if len({name for name, _, _ in event.datasets}) < len(event.datasets):
            return ["ValueError", "two datasets of one request have the same name"]
        if len(self.datasets) + new > MAX_DATASETS:
            text = f"{len(self.datasets):,} datasets are published, and there may be {MAX_DATASETS:,}: unpublish some"
            return ["ValueError", text]
        return None

    def _dataset_unpublished(self, event: events.DatasetUnpublished) -> None:
        dataset = self._find_dataset(event)
        if dataset is not None:
            del self.datasets[dataset.name]
            self._let_go(dataset)
            self.outbox.reply(event.client, event.request, True, None)

    def _dataset_requested(self, event: events.DatasetRequested) -> None:
        dataset = self._find_dataset(event)
        if dataset is not None:
            keys = [task.key for task in dataset.holds]
            self.outbox.reply(event.client, event.request, True, {"data": dataset.data, "keys": keys})
            self._want(self.clients[event.client], keys)

    def _find_dataset(self, event: events.DatasetRequested | events.DatasetUnpublished) -> Dataset | None:
        dataset = self.datasets.get(event.name)
        if dataset is None:
            there = f"there are {_some(map(repr, self.datasets), 20)}" if self.datasets else "there are none"
            text = f"no dataset {event.name!r} is published; {there}"
            self.outbox.reply(event.client, event.request, False, ["DatasetNotFoundError", text])
        return dataset


class _Options:
    """The options of a submit, read and checked once."""

    __slots__ = ("priority", "private", "requirements", "retries")

    def __init__(self, options: dict[str, Any], placement: Placement) -> None:
        try:
            self.priority = float(options.get("priority") or 0)
            self.retries = int(options.get("retries") or 0)
            self.private = bool(options.get("writable"))
        except (TypeError, ValueError) as error:
            raise ProtocolError(f"malformed options of a task: {error}") from None
        self.requirements: Requirements | None = placement.requirements(options)


def _earlier(deadline: float | None, due: float) -> float:
    return due if deadline is None or due < deadline else deadline


def _some(names: Any, limit: int = 5) -> str:
    listed = list(names)
    text = ", ".join(map(str, listed[:limit]))
    return f"{text} and {len(listed) - limit} more" if len(listed) > limit else text or "nobody"
