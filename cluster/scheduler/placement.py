"""Which ready task goes to which worker.

Ready tasks wait in queues ordered by priority. There is one queue for each set of requirements (one for "any
worker") and, where there are several hosts, one for each host that holds most of what a task reads. A worker with room
takes the best task of the queues that it may take from; when those are empty it takes one that would rather run on
another host, if waiting for that host would cost more than carrying the data over.

Tasks that read nothing have queues of their own, because they only ever fill the stores. A worker whose host's store is
nearly full takes one only when it may take no other: what reads results is what lets them go. That is a preference,
not a guarantee: what has been sent ahead by then is not counted, and may still fill a small store.

A worker has room while a thread of it is idle, and beyond that while what it has been sent is expected to keep
it busy for less than `PREFETCH_SECONDS`. So short tasks are sent ahead by the hundred, and a worker does not wait
for the scheduler between them; long ones, and ones of unknown length, are not sent ahead at all, and stay free to go to
whoever is idle first. Who has an idle thread comes before those that only have room. What was sent ahead, and then has
to wait longer than expected, is taken back (`recall`).

A short task that waits for one run only goes where that run is, before there is a result (`Placement.may_line_up`): a
chain of short tasks costs no message between one and the next.
"""

from __future__ import annotations

import heapq
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.scheduler.model import Host, Requirements, Run, Task, Worker

PREFETCH_SECONDS = 0.010
#: A run never counts for less: what a worker spends around the shortest function.
SHORTEST_RUN_SECONDS = 20e-6
#: What a task of unknown length counts for: all the room there is.
UNKNOWN_RUN_SECONDS = PREFETCH_SECONDS
#: Below this, where the data of a task lies does not matter.
LOCALITY_MIN_NBYTES = 64 * 1024
#: A store is nearly full when its objects take up this share of it.
NEARLY_FULL = 0.7
#: What bringing data over from another host is expected to cost.
TRANSFER_NBYTES_PER_SECOND = 1e9
TRANSFER_LATENCY_SECONDS = 0.002


class Queue:
    """Ready tasks of one kind, by priority. An entry whose task has left is skipped when it comes up.

    Most tasks become ready in the order of their priority: those are in a line, where adding and taking one costs the
    same however long it is. The others, such as those whose turn comes when a result is there, are in a heap.
    """

    __slots__ = ("_heap", "_line", "host", "live", "requirements", "roots")

    def __init__(self, requirements: Requirements | None, host: Host | None, roots: bool) -> None:
        self.requirements = requirements
        self.host = host
        self.roots = roots  # whether it is for tasks without dependencies
        self.live = 0
        self._line: deque[Task] = deque()
        self._heap: list[tuple[tuple[float, int], Task]] = []

    def add(self, task: Task) -> None:
        """Add a task."""
        task.queue = self
        self.live += 1
        line = self._line
        if not line or line[-1].priority < task.priority:
            line.append(task)
        else:
            heapq.heappush(self._heap, (task.priority, task))

    def head(self) -> Task:
        """The best task. There must be one."""
        line, heap = self._line, self._heap
        while line and line[0].queue is not self:
            line.popleft()
        while heap and heap[0][1].queue is not self:
            heapq.heappop(heap)
        if heap and (not line or heap[0][0] < line[0].priority):
            return heap[0][1]
        return line[0]

    def tasks(self) -> list[Task]:
        """All tasks, the best one first."""
        entries = {task: None for task in (*self._line, *(task for _, task in self._heap)) if task.queue is self}
        return sorted(entries, key=lambda task: task.priority)


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
        self._queues: dict[tuple[Requirements | None, Host | None, bool], Queue] = {}
        self._available: OrderedDict[Worker, None] = OrderedDict()
        self._idle: OrderedDict[Worker, None] = OrderedDict()  # those of them with an idle thread
        #: The workers with more runs than threads, and when that began or was looked at last, in this order.
        self.ahead: OrderedDict[Worker, float] = OrderedDict()
        self._requirements: weakref.WeakValueDictionary[Any, Requirements] = weakref.WeakValueDictionary()
        self.ready = 0

    def workers(self) -> Iterable[Worker]:
        return self._workers.values()

    # -- requirements

    def requirements(self, options: dict[str, Any]) -> Requirements | None:
        """The shared `Requirements` that the options of a task ask for, None for none."""
        named = options.get("workers") or ()
        resources = options.get("resources") or {}
        if not named and not resources:
            return None
        try:
            workers = (named,) if isinstance(named, str) else tuple(map(str, named))
            key = (
                workers,
                tuple(sorted((str(name), float(amount)) for name, amount in resources.items())),
                bool(options.get("allow_other_workers")),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise ProtocolError(f"malformed requirements of a task: {error}") from None
        found = self._requirements.get(key)
        if found is None:
            found = self._requirements[key] = Requirements(*key)
        return found

    def candidates(self, requirements: Requirements | None) -> list[Worker]:
        """The workers that may run tasks with these requirements, busy or not."""
        workers = list(self._workers.values())
        if requirements is None:
            return workers
        named = [w for w in workers if requirements.names(w)]
        if requirements.loose and not named:
            named = workers
        return [w for w in named if requirements.could_run_on(w)]

    def can_run(self, requirements: Requirements | None) -> bool:
        if requirements is None:
            return bool(self._workers)
        return bool(self.candidates(requirements))

    # -- room

    def update_room(self, worker: Worker, now: float) -> None:
        """To be called when a worker came, or its runs changed."""
        idle_threads = worker.nthreads - len(worker.runs)
        if idle_threads > 0:
            self._idle[worker] = None
        else:
            self._idle.pop(worker, None)
        if idle_threads >= 0:
            self.ahead.pop(worker, None)
        elif worker not in self.ahead:
            self.ahead[worker] = now
        if idle_threads > 0 or worker.expected_seconds < PREFETCH_SECONDS * worker.nthreads:
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

    @property
    def somebody_is_idle(self) -> bool:
        return bool(self._idle)

    def idle_worker(self, host: Host, requirements: Requirements | None) -> Worker | None:
        """A worker with an idle thread that may run tasks with these requirements now, one of ``host`` if it can be."""
        found = None
        for worker in self._idle:
            if self._may_run(worker, requirements):
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
            and worker.expected_seconds + mean < PREFETCH_SECONDS * worker.nthreads
            and all(d.state != "memory" or d.inline is not None or worker.host in d.where for d in task.dependencies)
        )

    # -- queues

    def push(self, task: Task) -> None:
        """Queue a task that has become ready."""
        host = None
        if task.dependencies and task.requirements is None and len(self._hosts) > 1:
            host = self._preferred_host(task)
        key = (task.requirements, host, not task.dependencies)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = Queue(*key)
        queue.add(task)
        self.ready += 1

    def remove(self, task: Task) -> None:
        """Take a task out of its queue."""
        queue = task.queue
        assert queue is not None
        task.queue = None
        self.ready -= 1
        queue.live -= 1
        if not queue.live:
            del self._queues[(queue.requirements, queue.host, queue.roots)]

    def queues(self) -> list[Queue]:
        return list(self._queues.values())

    def ready_tasks(self, requirements: Requirements | None) -> list[Task]:
        """The tasks in the queues with these requirements."""
        return [task for queue in self.queues() if queue.requirements is requirements for task in queue.tasks()]

    def remove_host(self, host: Host) -> list[Task]:
        """Forget a host's queue; return the tasks that were in it, to be pushed again."""
        queue = self._queues.get((None, host, False))
        if queue is None:
            return []
        tasks = queue.tasks()
        for task in tasks:
            self.remove(task)
        return tasks

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
        queue = self._queues.get((None, host, False))
        return queue.live if queue is not None else 0

    # -- matching

    def fill(self, assign: Callable[[Task, Worker], None], now: float) -> None:
        """Give ready tasks to workers with room, one to each in turn, idle ones first, until either runs out.

        ``assign(task, worker)`` must lead to `update_room` for the worker.
        """
        for room in (self._idle, self._available):
            misses = 0
            while self.ready and misses < len(room):
                worker = next(iter(room))
                task = self._take(worker, now)
                room.move_to_end(worker)
                if task is None:
                    misses += 1
                else:
                    misses = 0
                    assign(task, worker)

    def _take(self, worker: Worker, now: float) -> Task | None:
        best: Task | None = None
        best_rank: tuple[bool, tuple[float, int]] | None = None
        may_start = False
        nearly_full = worker.host.nbytes > NEARLY_FULL * worker.host.capacity > 0
        for queue in self._queues.values():
            if self._may_take(worker, queue):
                task = queue.head()
                rank = (nearly_full and queue.roots, task.priority)
                if best_rank is None or rank < best_rank:
                    best, best_rank = task, rank
                    may_start = self._may_start(worker, queue)
        if best is not None and not may_start:
            return None  # nothing is sent ahead of it: then a thread for it falls idle
        if best is None:
            best = self._steal(worker, now)
        if best is not None:
            self.remove(best)
        return best

    def _may_take(self, worker: Worker, queue: Queue) -> bool:
        return (queue.host is None or queue.host is worker.host) and self._may_run(worker, queue.requirements)

    def _may_run(self, worker: Worker, requirements: Requirements | None) -> bool:
        if requirements is None:
            return True
        if requirements.resources and not requirements.fits_now(worker):
            return False
        if requirements.names(worker):
            return True
        return requirements.loose and not any(requirements.names(w) for w in self._workers.values())

    def _may_start(self, worker: Worker, queue: Queue) -> bool:
        """Tasks that take resources are not sent ahead: they would hold them while they wait."""
        return queue.requirements is None or not queue.requirements.resources or len(worker.runs) < worker.nthreads

    def _steal(self, worker: Worker, now: float) -> Task | None:
        if worker.runs:
            return None  # it is busy enough
        best: Task | None = None
        longest = 0.0
        for queue in self._queues.values():
            host = queue.host
            if host is None or host is worker.host or host.available or not host.workers:
                continue
            task = queue.head()
            threads = sum(w.nthreads for w in host.workers)
            busy = min(max(0.0, w.expected_seconds - (now - w.heard)) / w.nthreads for w in host.workers)
            seconds = task.group.mean_seconds
            wait = busy + queue.live * (0.5 if seconds is None else seconds) / max(1, threads)
            gain = wait - transfer_seconds(task, worker.host)
            if gain > longest:
                best, longest = task, gain
        return best


def transfer_seconds(task: Task, host: Host) -> float:
    """How long it's expected to take until all that a task reads is on a host."""
    nbytes = sum(d.nbytes for d in task.dependencies if d.inline is None and host not in d.where)
    return TRANSFER_LATENCY_SECONDS + nbytes / TRANSFER_NBYTES_PER_SECOND


def expected_seconds(task: Task) -> float:
    """How long a run of the task is expected to keep a thread busy."""
    mean = task.group.mean_seconds
    return UNKNOWN_RUN_SECONDS if mean is None else max(mean, SHORTEST_RUN_SECONDS)


def start_run(worker: Worker, run: Run) -> None:
    """Count a run as the worker's: its time and its resources."""
    worker.runs[run.run_id] = run
    worker.expected_seconds += run.seconds
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
    # Not a sum of what is left: with nothing left it is nothing, whatever rounding did.
    worker.expected_seconds = worker.expected_seconds - run.seconds if worker.runs else 0.0
    if run.requirements is not None:
        for name, amount in run.requirements.resources:
            worker.free_resources[name] += amount
