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

There may be thousands of workers, nearly all of them idle, and few tasks that are ready. So nobody asks each idle
worker whether it finds something. Tasks of queues that belong to no host are for the next worker with room. Those of a
host's own queue are for its workers: such a host is looked at when a task has come to its queue, or room to one of its
workers (`Placement._to_serve`). What is left waits for workers that are busy, and may go to an idle worker of another
host: all of these are as good as each other but for the data that lies where they are, so one of them is asked, and
those that have some of the data. Some hosts at a time are looked at for that, in turn.

A task that may have killed a worker runs alone (`suspects`), and waits beside the queues (`reservations`).

A short task that waits for one run only goes where that run is, before there is a result (`Placement.may_line_up`): a
chain of short tasks costs no message between one and the next.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeAlias

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
#: For an idle worker so many hosts are looked at that may have too much to do; the next ones the next time.
HOSTS_LOOKED_AT = 8
#: Of a task that one of these has: so many results that it reads, and so many places of each.
DATA_LOOKED_AT = 8
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
        self._open: _Queues = {}  # which belong to no host
        self._own: dict[Host, _Queues] = {}  # of hosts; none of these is empty
        self._available: OrderedDict[Worker, None] = OrderedDict()
        self._idle: OrderedDict[Worker, None] = OrderedDict()  # those of them with an idle thread
        self._unoccupied: OrderedDict[Worker, None] = OrderedDict()  # those of these that run nothing
        #: The hosts with queues of their own where something has changed since one of their workers has found nothing.
        self._to_serve: dict[Host, None] = {}
        #: The workers with more runs than threads, and when that began or was looked at last, in this order.
        self.ahead: OrderedDict[Worker, float] = OrderedDict()
        self.eligibility = Eligibility(hosts, workers)
        self.reservations = Reservations(workers, self.eligibility, self.update_room)
        self.queued = 0  # the ready tasks that are in queues

    # -- room

    def update_room(self, worker: Worker, now: float) -> None:
        """To be called when a worker came, or its runs changed."""
        idle_threads = worker.nthreads - len(worker.runs) + worker.nblocked
        takes = not worker.barred and worker.reserved_for is None
        if takes and idle_threads > 0:
            self._idle[worker] = None
            if worker.nactive:
                self._unoccupied.pop(worker, None)
            else:
                self._unoccupied[worker] = None
        else:
            self._idle.pop(worker, None)
            self._unoccupied.pop(worker, None)
        if idle_threads >= 0:
            self.ahead.pop(worker, None)
        elif worker not in self.ahead:
            self.ahead[worker] = now
        if takes and (idle_threads > 0 or worker.expected_seconds < PREFETCH_SECONDS * worker.nthreads):
            self._available[worker] = None
            worker.host.available[worker] = None
            if worker.host in self._own:
                self._to_serve[worker.host] = None
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
        self._unoccupied.pop(worker, None)
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

    def check(self, *, is_filled: bool) -> None:
        """Check what is kept so that nobody has to look for it: for validation.

        Parameters
        ----------
        is_filled
            Whether `fill` has had nothing left to do.
        """
        assert set(self._unoccupied) == {worker for worker in self._idle if not worker.nactive}
        for host, queues in self._own.items():
            assert queues
            assert all(queue.host is host and queue.live for queue in queues.values())
            if is_filled:
                assert not any(worker in self._idle for worker in host.available)

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
        """The queue for such tasks; a task is to be added to it."""
        if host is None:
            queues = self._open
        else:
            queues = self._own.setdefault(host, {})
            if host.available:
                self._to_serve[host] = None
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
            host = queue.host
            queues = self._open if host is None else self._own[host]
            del queues[queue.requirements, queue.roots]
            if host is not None and not queues:
                del self._own[host]
                self._to_serve.pop(host, None)
        return queue

    def queues(self) -> list[Queue]:
        return list(self._all_queues())

    def _all_queues(self) -> Iterator[Queue]:
        return (queue for queues in (self._open, *self._own.values()) for queue in queues.values())

    def requirements_of_ready(self) -> list[Requirements | None]:
        """What the ready tasks ask for."""
        found = {queue.requirements: None for queue in self.queues()}
        return list(found | {task.requirements: None for task in self.reservations.isolated})

    def take_from(self, host: Host) -> Task | None:
        """Take a task out of the queues of a host without workers, to be pushed again; None if there is none."""
        if not host.workers and host in self._own:
            task = next(iter(self._own[host].values())).head()
            self.remove(task)
            return task
        return None

    def has_queues(self, host: Host) -> bool:
        """Whether a host has queues of its own."""
        return host in self._own

    def any_ready(self, requirements: Requirements | None) -> Task | None:
        """A ready task with these requirements, if there is one."""
        for queue in self._all_queues():
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
        queue = self._own.get(host, {}).get((None, False))
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
        for room in (self._idle, self._available):
            limit = self._fill_in_turn(room, assign, limit)
            if limit and self._to_serve:
                limit = self._serve(room, assign, limit)
            if limit and room is self._idle and self._own:
                limit = self._give_away(assign, now, limit)
            if not limit:
                return True
        self._to_serve.clear()  # until something changes there, these find nothing
        return False

    def _fill_in_turn(self, room: OrderedDict[Worker, None], assign: Callable[[Task, Worker], None], limit: int) -> int:
        """Give tasks to workers with room as long as there are some that belong to no host; what is left of the limit.

        A worker takes one of its host's own if that is better.
        """
        misses = 0
        while self._open and misses < len(room):
            worker = next(iter(room))
            task = self._take(worker)
            room.move_to_end(worker)
            if task is None:
                misses += 1
                continue
            misses = 0
            assign(task, worker)
            limit -= 1
            if not limit:
                break
        return limit

    def _serve(self, room: OrderedDict[Worker, None], assign: Callable[[Task, Worker], None], limit: int) -> int:
        """Give the tasks of hosts' own queues to their workers with room; what is left of the limit."""
        hosts = deque(self._to_serve)
        while hosts:
            host = hosts.popleft()
            for worker in [worker for worker in host.available if worker in room]:
                if host not in self._own:
                    break
                task = self._take(worker)
                if task is None:
                    continue
                if worker in host.available:
                    host.available[worker] = host.available.pop(worker)  # the others are next
                room.move_to_end(worker)
                assign(task, worker)
                limit -= 1
                if not limit:
                    return 0
                hosts.append(host)  # there may be more, when it was the others' turn
                break
        return limit

    def _give_away(self, assign: Callable[[Task, Worker], None], now: float, limit: int) -> int:
        """Give tasks of hosts that have too much to do to idle workers of others; what is left of the limit."""
        while limit and self._own and self._unoccupied and (found := self._worth_the_way(now)) is not None:
            task, worker = found
            self.remove(task)
            self._idle.move_to_end(worker)
            self._unoccupied.move_to_end(worker)
            assign(task, worker)
            limit -= 1
        return limit

    def _take(self, worker: Worker) -> Task | None:
        """The best task that a worker may take from the queues of no host and of its own host, out of its queue."""
        best: Task | None = None
        source: Queue | None = None
        host = worker.host
        nearly_full = host.nbytes + host.expected_nbytes > NEARLY_FULL * host.capacity > 0
        for queues in (self._open, self._own.get(host)):
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
            return None
        if (nearly_full or source.requirements is not None) and not _may_start(source, worker, nearly_full):
            return None  # nothing is sent ahead of it: then a thread for it falls idle
        self.remove(best)
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

    def _worth_the_way(self, now: float) -> tuple[Task, Worker] | None:
        """A task that would wait for longer on a host that is busy than its data takes to an idle worker, and that."""
        found: tuple[Task, Worker] | None = None
        longest = 0.0
        for host in list(islice(self._own, HOSTS_LOOKED_AT)):
            self._own[host] = self._own.pop(host)  # the others are next
            if host.available or not host.workers:
                continue
            for queue in self._own[host].values():
                task = queue.head()
                wait = self._wait_seconds(queue, host, now)
                if wait <= TRANSFER_LATENCY_SECONDS:
                    continue  # it is not worth the way
                for worker in self._may_take_over(task, host):
                    gain = wait - transfer_seconds(task, worker.host)
                    if gain > longest:
                        found, longest = (task, worker), gain
        return found

    def _may_take_over(self, task: Task, host: Host) -> Iterator[Worker]:
        """Workers of other hosts that run nothing: any one, and those that have some of what a task reads."""
        yield next(iter(self._unoccupied))  # the host's own have no room
        for dependency in task.dependencies[:DATA_LOOKED_AT]:
            for other in dependency.where[:DATA_LOOKED_AT]:
                if other is not host:
                    yield from islice((worker for worker in other.available if worker in self._unoccupied), 1)

    @staticmethod
    def _wait_seconds(queue: Queue, host: Host, now: float) -> float:
        """How long the tasks of a queue of a host are expected to wait there, whose workers have no room."""
        hearing = [worker for worker in host.workers if not worker.barred]
        threads = sum(worker.nthreads for worker in hearing)
        busy = min((max(0.0, w.expected_seconds - (now - w.heard)) / w.nthreads for w in hearing), default=math.inf)
        seconds = queue.head().group.mean_seconds
        return busy + queue.live * (0.5 if seconds is None else seconds) / max(1, threads)


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
