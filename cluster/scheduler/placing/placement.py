"""Which ready task goes to which worker.

Ready tasks wait in queues ordered by priority. There is one queue for each set of requirements (one for "any
worker") and, where there are several hosts, one for each host that holds most of what a task reads. A worker with room
takes the best task of the queues that it may take from; when those are empty it takes one that would rather run on
another host, if waiting for that host would cost more than carrying the data over.

Results that are read together should lie together. The scheduler knows which task reads a result, but not yet where
that task will run. The order of priority, though, has tasks close to each other whose results are read together (it is
`dask.order`'s, or that of submission). So a host that takes a task that might run anywhere claims a stretch of those
that come next for a queue of its own, if others are to read them. What it has claimed goes to other hosts when they
have nothing else to do.

Tasks that read nothing have queues of their own, because they only ever fill the stores. A worker whose host's store is
nearly full, with what it is expected to get from the runs that were sent, takes one only when it may take no other, and
none ahead: what reads results is what lets them go. No worker is kept idle for it, so a store may be filled all the
same.

A worker has room while a thread of it is idle, and beyond that while what it has been sent is expected to keep it busy
for less than `PREFETCH_SECONDS`. So short tasks are sent ahead by the hundred, and a worker does not wait for the
scheduler between them; long ones, and ones of unknown length, are not sent ahead at all, and stay free to go to the
worker that is idle first. A worker with an idle thread comes before workers that only have room. A task that was sent
ahead, and then has to wait longer than expected, is taken back (`recall`). A worker that is not known to hear has
neither room nor an idle thread (`revocation`).

A task that may have killed a worker runs alone (`suspects`), and waits beside the queues (`reservations`).

A short task that waits for one run only goes where that run is, before there is a result (`Placement.may_line_up`): a
chain of short tasks costs no message between one and the next.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from holdfast.cluster.ledger import RUNS_PER_THREAD_MAX
from holdfast.cluster.scheduler.placing.eligibility import Eligibility
from holdfast.cluster.scheduler.placing.reservations import Reservations
from holdfast.cluster.scheduler.tasks.groups import SHORTEST_RUN_SECONDS, UNKNOWN_RUN_SECONDS
from holdfast.cluster.scheduler.tasks.model import Host, Queue, Task, Worker
from holdfast.cluster.scheduler.tasks.requirements import Requirements

PREFETCH_SECONDS = UNKNOWN_RUN_SECONDS
# So a worker's ledger has a place for each run that it may have begun (`ledger.runs_max`).
assert PREFETCH_SECONDS < RUNS_PER_THREAD_MAX * SHORTEST_RUN_SECONDS
#: Below this, where the data of a task lies does not matter.
LOCALITY_MIN_NBYTES = 64 * 1024
#: A store is nearly full when its objects, and those that are expected, take up this share of it.
NEARLY_FULL = 0.7
#: So many tasks for each of its threads a host takes at once of those that may run on any, if it's not more than its
#: share of what there is. More keeps more of a family together, fewer leaves less to be given to others in the end.
STRETCH_PER_THREAD = 8
#: What bringing data over from another host is expected to cost.
TRANSFER_NBYTES_PER_SECOND = 1e9
TRANSFER_LATENCY_SECONDS = 0.002


_Queues: TypeAlias = dict[tuple[Requirements | None, bool], Queue]


class Placement:
    """The queues of ready tasks and the workers with room.

    Parameters
    ----------
    hosts, workers
        The scheduler's tables; read here, changed by their owner.
    """

    def __init__(self, hosts: dict[str, Host], workers: dict[str, Worker]) -> None:
        self._hosts = hosts
        self._workers = workers
        self._queues: dict[Host | None, _Queues] = {None: {}}
        self._available: OrderedDict[Worker, None] = OrderedDict()
        self._idle: OrderedDict[Worker, None] = OrderedDict()  # those of them with an idle thread
        #: The workers with more runs than threads, and when that began or was looked at last, in this order.
        self.ahead: OrderedDict[Worker, float] = OrderedDict()
        self.eligibility = Eligibility(hosts, workers)
        self.reservations = Reservations(workers, self.eligibility, self.update_room)
        self.queued = 0  # the ready tasks that are in queues
        self._full: _FullHosts | None = None  # as they are now, if a worker has looked since the last task was taken

    # -- room

    def update_room(self, worker: Worker, now: float) -> None:
        """To be called when a worker came, or its runs changed."""
        idle_threads = worker.nthreads - len(worker.runs) + worker.nblocked
        takes = not worker.barred and worker.reserved_for is None
        if takes and idle_threads > 0:
            self._idle[worker] = None
        else:
            self._idle.pop(worker, None)
        if idle_threads >= 0:
            self.ahead.pop(worker, None)
        elif worker not in self.ahead:
            self.ahead[worker] = now
        if takes and (idle_threads > 0 or worker.expected_seconds < PREFETCH_SECONDS * worker.nthreads):
            self._available[worker] = None
            worker.host.available[worker] = None
        else:
            self._available.pop(worker, None)
            worker.host.available.pop(worker, None)

    def progressed(self, worker: Worker, now: float) -> None:
        """To be called when the worker has ended some of its runs, or begins the first."""
        worker.heard = now
        if self.ahead.pop(worker, None) is not None:
            self.ahead[worker] = now

    def remove_worker(self, worker: Worker) -> None:
        self._idle.pop(worker, None)
        self.ahead.pop(worker, None)
        self._available.pop(worker, None)
        worker.host.available.pop(worker, None)
        self.reservations.workers.pop(worker, None)

    @property
    def has_work(self) -> bool:
        """Whether `fill` may have something to do."""
        return bool(self.queued or self.reservations.isolated or self.reservations.workers)

    @property
    def somebody_is_idle(self) -> bool:
        return bool(self._idle)

    def idle_worker(self, host: Host, requirements: Requirements | None) -> Worker | None:
        """A worker with an idle thread that may run tasks with these requirements now, one of ``host`` if it can be."""
        found = None
        for worker in self._idle:
            if self.eligibility.may_run_now(worker, requirements):
                if worker.host is host:
                    return worker
                found = found or worker
        return found

    def may_line_up(self, task: Task, worker: Worker) -> bool:
        """Whether a waiting task may be sent behind the only run that it waits for, which ``worker`` has."""
        mean = task.group.mean_seconds
        return (
            task.waiting_on == 1
            and task.requirements is None
            and mean is not None
            and not worker.barred
            and worker.reserved_for is None
            and not task.isolation
            and worker.expected_seconds + mean < PREFETCH_SECONDS * worker.nthreads
            and all(d.state != "memory" or d.inline is not None or worker.host in d.where for d in task.dependencies)
        )

    # -- queues

    def push(self, task: Task) -> None:
        """Queue a task that has become ready."""
        if task.isolation:
            self.reservations.isolated[task] = None
            return
        self.queued += 1
        host = None
        if task.dependencies and task.requirements is None and len(self._hosts) > 1:
            host = self._preferred_host(task)
        self._queue(task.requirements, host, not task.dependencies).add(task)

    def _queue(self, requirements: Requirements | None, host: Host | None, roots: bool) -> Queue:
        queues = self._queues.get(host)
        if queues is None:
            queues = self._queues[host] = {}
        queue = queues.get((requirements, roots))
        if queue is None:
            queue = queues[requirements, roots] = Queue(requirements, host, roots)
        return queue

    def remove(self, task: Task) -> Queue | None:
        """Take a task out of its queue; returns that, or None if it was to run alone."""
        queue = task.queue
        if queue is None:
            del self.reservations.isolated[task]
            return None
        self.queued -= 1
        task.queue = None
        queue.live -= 1
        if not queue.live:
            del self._queues[queue.host][queue.requirements, queue.roots]
        return queue

    def queues(self) -> list[Queue]:
        return [queue for queues in self._queues.values() for queue in queues.values()]

    def requirements_of_ready(self) -> list[Requirements | None]:
        """What the ready tasks ask for."""
        found = {queue.requirements: None for queue in self.queues()}
        return list(found | {task.requirements: None for task in self.reservations.isolated})

    def take_from(self, host: Host) -> Task | None:
        """Take a task out of the queues of a host without workers, to be pushed again; None, and they are forgotten, if
        there is none."""
        if not host.workers:
            for queue in self._queues.get(host, {}).values():
                task = queue.head()
                self.remove(task)
                return task
            self._queues.pop(host, None)
        return None

    def has_queues(self, host: Host) -> bool:
        """Whether a host has queues of its own."""
        return host in self._queues

    def any_ready(self, requirements: Requirements | None) -> Task | None:
        """A ready task with these requirements, if there is one."""
        for queues in self._queues.values():
            for queue in queues.values():
                if queue.requirements is requirements:
                    return queue.head()
        return next((task for task in self.reservations.isolated if task.requirements is requirements), None)

    def _preferred_host(self, task: Task) -> Host | None:
        nbytes: dict[Host, int] = {}
        for dependency in task.dependencies:
            if dependency.inline is None:
                for host in dependency.where:
                    nbytes[host] = nbytes.get(host, 0) + dependency.nbytes
        if not nbytes:
            return None
        most = max(nbytes.values())
        if most < LOCALITY_MIN_NBYTES:
            return None
        best = [host for host, n in nbytes.items() if n == most and host.workers]
        if not best or len(best) == len(self._hosts):
            return None
        return min(best, key=self._queued)

    def _queued(self, host: Host) -> int:
        queue = self._queues.get(host, {}).get((None, False))
        return queue.live if queue is not None else 0

    # -- matching

    def fill(self, assign: Callable[[Task, Worker], None], now: float, limit: int) -> bool:
        """Give ready tasks to workers with room, one to each in turn, idle ones first, until either runs out.

        ``assign(task, worker)`` must lead to `update_room` for the worker. Whether there may be more to give, since it
        gives no more than so many at once.
        """
        reservations = self.reservations
        if reservations.isolated or reservations.workers:
            reservations.fill(assign, now)
        self._full = None
        for room in (self._idle, self._available):
            misses = 0
            while self.queued and misses < len(room):
                worker = next(iter(room))
                task = self._take(worker, now)
                room.move_to_end(worker)
                if task is not None:
                    misses = 0
                    assign(task, worker)
                    self._full = None
                    limit -= 1
                    if not limit:
                        return True
                elif self._full is not None and self._full.have_all:
                    break  # no other worker would find more
                else:
                    misses += 1
        return False

    def _take(self, worker: Worker, now: float) -> Task | None:
        best: Task | None = None
        source: Queue | None = None
        host = worker.host
        nearly_full = host.nbytes + host.expected_nbytes > NEARLY_FULL * host.capacity > 0
        for queues in (self._queues[None], self._queues.get(host)):
            if not queues:
                continue
            for queue in queues.values():
                requirements = queue.requirements
                if requirements is None or (
                    self.eligibility.may_run_now(worker, requirements)
                    and not (requirements.actor and self._has_many_actors(worker, requirements))
                ):
                    task = queue.head()
                    if (
                        source is None
                        or best is None
                        or (nearly_full and queue.roots, task.priority) < (nearly_full and source.roots, best.priority)
                    ):
                        best, source = task, queue
        if best is None or source is None:
            best = self._steal(worker, now)
            if best is None:
                return None
        elif (nearly_full or source.requirements is not None) and not _may_start(source, worker, nearly_full):
            return None  # nothing is sent ahead of it: then a thread for it falls idle
        source = self.remove(best)
        assert source is not None
        if best.nwaiters and source.host is None and len(self._hosts) > 1 and source.requirements is None:
            self._claim(source, host)
        return best

    def _has_many_actors(self, worker: Worker, requirements: Requirements) -> bool:
        """Whether another worker that would make an actor as soon as this one has fewer of them."""
        count = _count_actors(worker)
        return any(
            _count_actors(other) < count
            for other in (self._idle if worker in self._idle else self._available)
            if other is not worker and self.eligibility.may_run_now(other, requirements)
        )

    def _claim(self, source: Queue, host: Host) -> None:
        """A host has taken a task from a queue of no host: so it gets those that come next there."""
        threads = sum(worker.nthreads for worker in host.workers)
        share = (source.live + 1) // len(self._hosts)
        for _ in range(min(STRETCH_PER_THREAD * threads, share) - 1):
            task = source.head()
            if not task.nwaiters:
                return
            source.live -= 1
            self._queue(None, host, source.roots).add(task)

    def _steal(self, worker: Worker, now: float) -> Task | None:
        if worker.nactive:
            return None  # it is busy enough
        if self._full is None:  # all workers that are idle may ask, one after the other
            self._full = self._look_for_full_hosts(now)
        best: Task | None = None
        longest = 0.0
        for queue, wait in self._full.queues:
            if queue.host is not worker.host:
                task = queue.head()
                gain = wait - transfer_seconds(task, worker.host)
                if gain > longest:
                    best, longest = task, gain
        return best

    def _look_for_full_hosts(self, now: float) -> _FullHosts:
        found: list[tuple[Queue, float]] = []
        have_all = True
        for queue in self.queues():
            host = queue.host
            if host is None or host.available or not host.workers:
                have_all = False
                continue
            hearing = [w for w in host.workers if not w.barred]
            threads = sum(w.nthreads for w in hearing)
            busy = min((max(0.0, w.expected_seconds - (now - w.heard)) / w.nthreads for w in hearing), default=math.inf)
            seconds = queue.head().group.mean_seconds
            wait = busy + queue.live * (0.5 if seconds is None else seconds) / max(1, threads)
            if wait > TRANSFER_LATENCY_SECONDS:  # else it is not worth the way
                found.append((queue, wait))
        return _FullHosts(found, have_all and not found)


class _FullHosts(NamedTuple):
    """The queues of hosts whose workers have no room, each with the seconds that its first task is to wait there still;
    those that are worth the way to another host. ``have_all``: no task is in any other queue, and none is worth it."""

    queues: list[tuple[Queue, float]]
    have_all: bool


def _count_actors(worker: Worker) -> int:
    """How many actors a worker has, with those that it has been told to make."""
    making = (run.requirements for run in worker.runs.values() if run.requirements is not None)
    return worker.actors + sum(requirements.actor for requirements in making)


def _may_start(queue: Queue, worker: Worker, nearly_full: bool) -> bool:
    """Not everything is sent ahead: tasks would hold their resources while they wait, or fill a store sooner."""
    if len(worker.runs) - worker.nblocked < worker.nthreads:
        return True  # it isn't sent ahead
    if nearly_full and queue.roots:
        return False
    return queue.requirements is None or not queue.requirements.resources


def transfer_seconds(task: Task, host: Host) -> float:
    """How long it's expected to take until all that a task reads is on a host."""
    nbytes = sum(d.nbytes for d in task.dependencies if d.inline is None and host not in d.where)
    return TRANSFER_LATENCY_SECONDS + nbytes / TRANSFER_NBYTES_PER_SECOND
