"""How workers come and go.

There are two signs that a worker is gone, in either order: its connection has ended (`WorkerParted`), and its node says
how its process has ended (`WorkerExited`). All that the worker had sent has been read only when its connection has
ended. The reason is waited for, but not for long: a worker may also lose its connection and live.

========================  ============================================  ==========================================
the first sign was        and then comes                                … so
========================  ============================================  ==========================================
its connection has ended  what its node says                            it is gone, and it is known how
its connection has ended  nothing, for `EXIT_REASON_SECONDS`            it is gone, and it is not known how
its connection has ended  nothing is waited for: it was told to end     it is gone, and no task is charged for it
its connection has ended  a worker at the same address: its successor   it is gone, and it is not known how
what its node says        the end of its connection                     it is gone, and it is known how
what its node says        nothing, for `EXIT_REASON_SECONDS`            its connection is closed: a process that it has
                                                                        forked may have kept it open
either                    its host is gone                              it is gone with its host
none                      what its node says of the process before it   nothing: that one is gone already
========================  ============================================  ==========================================
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.cluster.errors import KilledWorker, ProtocolError
from holdfast.cluster.naming import id_of_tasks
from holdfast.cluster.scheduler.machine.clients import Clients
from holdfast.cluster.scheduler.machine.objects import Objects
from holdfast.cluster.scheduler.parts.kills import Kills
from holdfast.cluster.scheduler.parts.part import EventHandlers, Part, Shared
from holdfast.cluster.scheduler.placing.lending import Lending
from holdfast.cluster.scheduler.placing.reconsidering import reconsider_ready, reconsider_unrunnable, spread
from holdfast.cluster.scheduler.placing.revocation import Revocation
from holdfast.cluster.scheduler.placing.suspects import Suspects
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.feed import Joined, Left
from holdfast.cluster.scheduler.tasks.follow_up import Chore
from holdfast.cluster.scheduler.tasks.instructions import AskForExit, Disconnect
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.model import Host, Task, TaskError, Worker
from holdfast.cluster.scheduler.tasks.stored_errors import task_error

#: How long the node of a worker that is gone gets to say why.
EXIT_REASON_SECONDS = 1.0


class _Departure(Timed):
    """A worker of which there is one of the two signs that it is gone."""

    __slots__ = ("_workers", "due", "exit", "reason", "worker")

    due: float | None

    def __init__(self, workers: Workers, worker: Worker, reason: str, due: float) -> None:
        super().__init__()
        self._workers = workers
        self.worker = worker
        self.reason = reason
        self.exit: events.WorkerExited | None = None  # what its node has said; None: its connection has ended
        self.due = due

    def expire(self, now: float) -> None:
        self.due = None
        self._workers.waited_enough(self)


class _LostRuns(Chore):
    """The tasks of a worker that is gone run again, one after the other, or fail.

    Parameters
    ----------
    worker
        That had them.
    runs
        Its runs, by task.
    overdue
        What the tasks of those runs fail for whose time was over.
    life
        The tasks.
    max_failures
        Number of deaths for which a task is charged before it fails.
    log
        What else there is to say of its end.
    """

    def __init__(
        self,
        worker: Worker,
        runs: dict[Task, int],
        overdue: dict[int, TaskError],
        life: Lifecycle,
        max_failures: int,
        log: str,
    ) -> None:
        self._worker = worker
        self._runs = dict(reversed(runs.items()))
        self._overdue = overdue
        self._life = life
        self._max_failures = max_failures
        self._log = log

    def step(self) -> bool:
        if not self._runs:
            return False
        task, run_id = self._runs.popitem()
        if task.state != "processing" or task.worker is not None:
            return True  # that has been seen to since
        if task.failures >= self._max_failures:
            self._life.fail(task, task_error(task.key, self._killed(task)))
        elif run_id in self._overdue:
            self._life.give_up_run(task, self._overdue[run_id])
        else:
            self._life.requeue(task)
        return True

    def _killed(self, task: Task) -> KilledWorker:
        worker = self._worker
        text = (
            f"{task.key!r} was running on {task.failures} workers that died, the last of them {worker.name!r} at "
            f"{worker.address} ({worker.reason}). If it crashes the interpreter, the worker's log shows where "
            "('holdfast logs'; of a LocalCluster, the standard error of its process). If it needs more memory than "
            "they have, make smaller pieces, or start workers with more ('holdfast start --memory', "
            f"LocalCluster(memory_limit=)){self._log}"
        )
        return KilledWorker(text, task.key, worker.address, self._max_failures - 1, worker.reason)

    def concerns(self, task: Task) -> bool:
        return task in self._runs


class Workers:
    """Lets workers come and go.

    Parameters
    ----------
    shared
        The tables.
    parts
        Are told of it.
    clients
        Among them those that the tasks of workers share, which leave with these.
    revocation, lending, suspects
        What else is known of workers.
    objects
        Knows what workers have put into stores and not told of.
    kills
        Knows which processes were to end.
    max_failures
        Number of deaths for which a task is charged before it fails.
    """

    def __init__(
        self,
        shared: Shared,
        parts: Sequence[Part],
        clients: Clients,
        revocation: Revocation,
        lending: Lending,
        suspects: Suspects,
        objects: Objects,
        kills: Kills,
        *,
        max_failures: int,
    ) -> None:
        self.events: EventHandlers = {
            events.WorkerJoined: self._worker_joined,
            events.WorkerParted: self._worker_parted,
            events.WorkerExited: self._worker_exited,
            events.WorkerCutOff: self._worker_cut_off,
        }
        self._shared = shared
        self._workers = shared.workers
        self._placement = shared.placement
        self._life = shared.life
        self._feed = shared.feed
        self._parts = parts
        self._clients = clients
        self._revocation = revocation
        self._lending = lending
        self._suspects = suspects
        self._objects = objects
        self._kills = kills
        self._max_failures = max_failures
        self._departures: dict[Worker, _Departure] = {}

    def _worker_joined(self, event: events.WorkerJoined) -> None:
        host = self._shared.hosts.get(event.host)
        if host is None:
            raise ProtocolError(f"worker {event.address} belongs to node {event.host}, which is not here")
        before = self._workers.get(event.address)
        if before is not None:
            departure = self._departures.get(before)
            if departure is None or departure.exit is not None:
                raise ProtocolError(f"there is a worker {event.address} already")
            self._depart(departure)
        worker = Worker(event.address, event.name, host, event.nthreads, event.resources)
        worker.incarnation = event.incarnation
        self._workers[event.address] = worker
        if self._feed.is_heard:
            self._feed.tell(Joined("worker", worker.address, worker.name))
        host.workers[worker] = None
        self._placement.update_room(worker, self._life.now)
        reconsider_unrunnable(self._life, self._placement)
        for part in self._parts:
            part.worker_joined(worker)

    def _worker_cut_off(self, event: events.WorkerCutOff) -> None:
        worker = self._workers.get(event.worker)
        if worker is not None:
            self._revocation.cut_off(worker, event.is_cut_off)

    # -- departures

    def _worker_parted(self, event: events.WorkerParted) -> None:
        worker = self._workers.get(event.worker)
        if worker is None:
            return
        departure = self._departures.get(worker)
        if departure is not None:
            self._depart(departure)
            return
        departure = _Departure(self, worker, event.reason, self._life.now + EXIT_REASON_SECONDS)
        self._begin(departure)
        if worker.ending:  # its reason is known
            self._depart(departure)
            return
        self._shared.instructions.put(AskForExit(worker.host.address, worker.address, event.pid))

    def _worker_exited(self, event: events.WorkerExited) -> None:
        if not event.worker.startswith(f"{event.host}/"):
            raise ProtocolError(f"exited.worker: {event.worker!r:.80} is none of {event.host}")
        worker = self._workers.get(event.worker)
        if worker is None or worker.incarnation != event.incarnation:
            return
        departure = self._departures.get(worker)
        if departure is None:
            departure = _Departure(self, worker, event.reason, self._life.now + EXIT_REASON_SECONDS)
            departure.exit = event
            self._begin(departure)
        elif departure.exit is None:
            departure.exit = event
            self._depart(departure)

    def _begin(self, departure: _Departure) -> None:
        self._revocation.gone(departure.worker)
        self._departures[departure.worker] = departure
        self._shared.deadlines.watch(departure)

    def waited_enough(self, departure: _Departure) -> None:
        """The second sign has not come in time."""
        if departure.exit is None:
            self._depart(departure)
        else:
            self._shared.instructions.put(Disconnect(departure.worker.address))

    def _depart(self, departure: _Departure) -> None:
        worker, how = departure.worker, departure.exit
        if worker.ending:
            departure.reason = "it was told to end"
        elif how is None:
            if not self._kills.is_asked_for(worker):
                self._suspects.worker_died(worker, None, None, fault=False)
        else:
            departure.reason = how.reason
            if how.asked:
                worker.ending = "replaced"  # by its node, for a nanny or for what it ran
            else:
                self._suspects.worker_died(worker, how.running, how.crashed, fault=how.fault)
        self.remove(worker, departure.reason, "" if how is None else how.log)
        self._objects.owner_left(worker.address)

    def host_left(self, host: Host, reason: str) -> None:
        """The workers of a host are gone with it."""
        for worker in list(host.workers):
            self.remove(worker, reason)

    def remove(self, worker: Worker, reason: str, log: str = "") -> None:
        """A worker is gone. The tasks that are charged for it are known already."""
        departure = self._departures.pop(worker, None)
        if departure is not None:
            departure.due = None
            self._shared.deadlines.forget(departure)
        worker.reason = reason
        del self._workers[worker.address]
        if self._feed.is_heard:
            self._feed.tell(Left("worker", worker.address, reason))
        del worker.host.workers[worker]
        self._placement.remove_worker(worker)
        self._revocation.answered(worker)
        self._lending.left(worker)
        lost = {run.task: run_id for run_id, run in worker.runs.items() if run.task is not None}
        for task in lost:
            task.worker = None
        self._life.follow_up.begin(
            _LostRuns(worker, lost, self._kills.overdue(worker), self._life, self._max_failures, log)
        )
        worker.host.expected_nbytes -= sum(run.nbytes for run in worker.runs.values())
        worker.runs.clear()
        for part in self._parts:
            part.worker_left(worker)
        self._clients.remove(id_of_tasks(worker.address))
        if not worker.host.workers:
            spread(self._life, self._placement, worker.host)
        reconsider_ready(self._life, self._placement)
        if worker.is_retired:  # what comes in its place is not
            reconsider_unrunnable(self._life, self._placement)

    def check(self) -> None:
        """Check that each departure ends: for validation."""
        for worker, departure in self._departures.items():
            assert departure.worker is worker
            assert self._workers.get(worker.address) is worker
            assert departure.exit is not None or departure.due is not None, f"{worker!r} would never be gone"
        self._shared.deadlines.check(self._departures.values())
