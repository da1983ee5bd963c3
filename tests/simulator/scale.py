"""What the scheduler's state machine takes for very many tasks, workers and hosts: the option ``--scale``.

Time is processor time of `SchedulerState.handle`, with the small collections of the garbage collector that the process
of a scheduler makes; memory is what the process has grown by at most. Each row comes from a process of its own, so that
none profits from what another has left. Sockets and messages are not in it (`make bench-graphs`).

=============  ========================================================================================================
`independent`  tasks that have nothing to do with each other; the client holds all of them, then lets go of all
`tree`         a reduction, eight to one, of which the client holds the last result
`chains`       chains of a hundred tasks each, of which the client holds the last results
`host`         a host is lost that has the results of all tasks; all of them are to be made again
`remade`       a chain, all of which is made again, since its last result has gone with its host
`cancelled`    a task is cancelled that all others read, before any has run
=============  ========================================================================================================

The longest call of `handle` is how long the scheduler answers nobody at most.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import resource
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psutil

from benchmarks.simulated import independent, tree
from holdfast.client.packing.graphs import split
from holdfast.cluster.processes import garbage
from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.instructions import RunEntry, RunTasks
from tests.simulator.client import FUNCTION

HOSTS, WORKERS = 1_000, 8_000
TASKS = (10_000, 100_000, 1_000_000)
#: How long a call may take.
LIMIT_SECONDS = 0.050
_CLIENT = "client"
_CHAIN_LENGTH = 100
_NBYTES = 1_000_000
#: A worker tells of so many results at a time.
_REPORTED_TOGETHER = 10


class Row(NamedTuple):
    """What was measured.

    Attributes
    ----------
    microseconds
        Processor time for each task, of all calls.
    nbytes
        By how much the process has grown at most, for each task.
    longest
        Seconds of the longest call, and of which event that was.
    """

    case: str
    tasks: int
    microseconds: float
    nbytes: float
    longest: float
    event: str


class Cluster:
    """A state machine, timed, and workers that do at once what they are sent."""

    def __init__(self, hosts: int, workers: int) -> None:
        self.state = SchedulerState()
        self.busy = self.longest = 0.0
        self.longest_event = ""
        self._now = 0.0
        self._ids = itertools.count(1)
        self._queues: dict[str, deque[RunEntry]] = {}
        self._busy_workers: deque[str] = deque()
        self._hosts = itertools.count()
        for _ in range(hosts):
            self.add_host(workers // hosts)
        self.handle(events.ClientJoined(_CLIENT, _CLIENT))
        self.handle(events.FunctionsSent(_CLIENT, [(FUNCTION, b"pickle")]))

    def begin(self) -> None:
        """What is measured begins now."""
        self.busy = self.longest = 0.0
        self.longest_event = ""

    def add_host(self, workers: int) -> str:
        number = next(self._hosts)
        address = f"tcp://10.{number >> 8}.{number & 255}.0:1"
        self.handle(events.HostJoined(address, {"hostname": f"host-{number}", "capacity": 1 << 50}))
        self.handle(events.HostReady(address))
        for index in range(workers):
            worker = f"{address}/{index}"
            self._queues[worker] = deque()
            self.handle(events.WorkerJoined(worker, f"host-{number}-{index}", address, 1, {}))
        return address

    def lose_host(self, address: str) -> None:
        self.handle(events.HostLeft(address, "lost"))

    def handle(self, event: events.Event) -> None:
        """Handle an event, and all that it leaves over."""
        self._handle(event)
        while self.state.life.follow_up.has_more:
            self._handle(events.TimePassed())

    def _handle(self, event: events.Event) -> None:
        began = time.thread_time()
        instructions = self.state.handle(event, self._now)
        took = time.thread_time() - began
        self.busy += took
        if took > self.longest:
            self.longest, self.longest_event = took, type(event).__name__
        for instruction in instructions:
            if type(instruction) is RunTasks:
                queue = self._queues[instruction.peer]
                if not queue:
                    self._busy_workers.append(instruction.peer)
                queue.extend(instruction.items)

    def submit(self, tasks: list[Any], wanted: list[str] | None) -> None:
        """Submit tasks, in the pieces in which a client sends them; it holds these, or all."""
        if wanted is None:
            for batch in _batches(tasks):
                self.handle(events.TasksSubmitted(_CLIENT, batch, None, {}))
            return
        for part, wants, done in split(tasks, set(wanted), MAX_ITEMS):
            self.handle(events.TasksSubmitted(_CLIENT, part, wants, {}))
            if done:
                self.handle(events.KeysReleased(_CLIENT, done))

    def release(self, keys: list[str]) -> None:
        for batch in _batches(keys):
            self.handle(events.KeysReleased(_CLIENT, batch))

    def work(self) -> None:
        """Run all that there is to run."""
        while self._busy_workers:
            worker = self._busy_workers.popleft()
            queue = self._queues[worker]
            entries = [queue.popleft() for _ in range(min(len(queue), _REPORTED_TOGETHER))]
            if queue:
                self._busy_workers.append(worker)
            results = [
                (entry[6], entry[1], next(self._ids).to_bytes(16, "big"), _NBYTES, None, "bytes", 0.01)
                for entry in entries
            ]
            self._now += 1e-4
            self.handle(events.TasksFinished(worker, results))


def _batches(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), MAX_ITEMS):
        yield items[start : start + MAX_ITEMS]


# -- the cases; each gives the cluster, and does the rest when it is called


def _independent(count: int) -> tuple[Cluster, Callable[[], None]]:
    cluster, tasks = Cluster(HOSTS, WORKERS), independent(count)

    def go() -> None:
        cluster.submit(tasks, None)
        cluster.work()
        cluster.release([task[0] for task in tasks])

    return cluster, go


def _tree(count: int) -> tuple[Cluster, Callable[[], None]]:
    cluster, tasks = Cluster(HOSTS, WORKERS), tree(count)
    wanted = [tasks[-1][0]]

    def go() -> None:
        cluster.submit(tasks, wanted)
        cluster.work()
        cluster.release(wanted)

    return cluster, go


def _host(count: int) -> tuple[Cluster, Callable[[], None]]:
    cluster = Cluster(1, WORKERS // HOSTS)
    cluster.submit(independent(count), None)
    cluster.work()
    (address,) = cluster.state.hosts
    for _ in range(HOSTS - 1):
        cluster.add_host(WORKERS // HOSTS)
    return cluster, lambda: cluster.lose_host(address)


def _cancelled(count: int) -> tuple[Cluster, Callable[[], None]]:
    cluster = Cluster(HOSTS, 0)
    root = independent(1)[0]
    others = [(f"read-{number:032x}", FUNCTION, b"payload", (root[0],)) for number in range(count - 1)]
    cluster.submit([root, *others], None)
    return cluster, lambda: cluster.handle(events.KeysCancelled(_CLIENT, [root[0]], False))


def _chains(count: int) -> tuple[Cluster, Callable[[], None]]:
    cluster = Cluster(HOSTS, WORKERS)
    tasks = [
        (f"link-{chain:032x}-{n}", FUNCTION, b"payload", (f"link-{chain:032x}-{n - 1}",) if n else ())
        for chain in range(count // _CHAIN_LENGTH)
        for n in range(_CHAIN_LENGTH)
    ]
    wanted = [task[0] for task in tasks[_CHAIN_LENGTH - 1 :: _CHAIN_LENGTH]]

    def go() -> None:
        cluster.submit(tasks, wanted)
        cluster.work()
        cluster.release(wanted)

    return cluster, go


def _remade(count: int) -> tuple[Cluster, Callable[[], None]]:
    """A chain of which the one result that there is goes with its host, so all of it is made again."""
    cluster = Cluster(1, 1)
    tasks = [(f"link-{n:032x}", FUNCTION, b"payload", (f"link-{n - 1:032x}",) if n else ()) for n in range(count)]
    cluster.submit(tasks, [tasks[-1][0]])
    cluster.work()
    (address,) = cluster.state.hosts
    cluster.add_host(1)

    def go() -> None:
        cluster.lose_host(address)
        cluster.work()

    return cluster, go


CASES = {
    "independent": _independent,
    "tree": _tree,
    "chains": _chains,
    "host": _host,
    "remade": _remade,
    "cancelled": _cancelled,
}


def measure(case: str, count: int) -> Row:
    """Measure a case in this process."""
    thresholds = gc.get_threshold()
    garbage.collect_young_only()
    try:
        cluster, go = CASES[case](count)
        before = psutil.Process().memory_info().rss
        cluster.begin()
        go()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
    return Row(case, count, cluster.busy * 1e6 / count, grown / count, cluster.longest, cluster.longest_event)


def main(tasks: tuple[int, ...] = TASKS) -> int:
    """Print the table; 1 if a call has taken too long."""
    context = multiprocessing.get_context("spawn")
    print(f"{HOSTS:,} hosts, {WORKERS:,} workers; processor time of the state machine, memory of its process")
    print(f"{'':12} {'tasks':>10} {'µs/task':>8} {'bytes/task':>10} {'longest call':>13}")
    rows = []
    for case in CASES:
        for count in tasks:
            with context.Pool(1) as pool:
                row = pool.apply(measure, (case, count))
            rows.append(row)
            costs = f"{row.microseconds:8.1f} {row.nbytes:10,.0f} {row.longest * 1e3:10.1f} ms  {row.event}"
            print(f"{row.case:12} {row.tasks:10,} {costs}", flush=True)
    late = [row for row in rows if row.longest > LIMIT_SECONDS]
    for row in late:
        print(f"{row.case} of {row.tasks:,}: a call has taken longer than {LIMIT_SECONDS * 1e3:.0f} ms")
    return bool(late)
