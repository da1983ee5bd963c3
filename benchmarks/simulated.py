"""What a task costs the scheduler: its state machine, by itself, with many pretended workers.

``python -m benchmarks.simulated [--tasks N] [--hosts N] [--workers N]`` prints one JSON line for each metric. The
client submits tasks in messages as `Client` does, independent ones and a graph in the order of `dask.order`; it lets go
of all results at the end. A pretended worker runs what it has been sent in order, and reports ten results at a time.
What is timed is the processor time within `SchedulerState.handle`, garbage collections included; the pretending is not.
Sockets and messages are not in it: ``make bench-path`` shows those, in a scheduler that has them.

===============================  =====================================================================
``scheduler_cpu_per_task``       independent tasks
``scheduler_cpu_per_task_tree``  a reduction, eight to one: seven eighths of the tasks are its leaves
``scheduler_cpu_per_wait``       no task, but a request that waits, with a deadline, and is answered in time
===============================  =====================================================================
"""

from __future__ import annotations

import argparse
import gc
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.figures import Figure
from benchmarks.goals import SYSTEM
from holdfast.client.packing.graphs import split
from holdfast.cluster.journal.directory import StateDirectory
from holdfast.cluster.journal.recovery import recover
from holdfast.cluster.journal.writer import Writer
from holdfast.cluster.processes import garbage
from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.protocol.requests import WAIT_FOR_WORKERS
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.parts.waits import MAX_WAITING
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.decisions import Decisions
from holdfast.cluster.scheduler.tasks.instructions import Reply, RunEntry, RunTasks

REPORTED_TOGETHER = 10
TASK_SECONDS = 100e-6
FAN_IN = 8
_CLIENT = "client"
_FUNCTION = b"f" * 16
_PAYLOAD = b"\x80\x05" + b"p" * 30  # as long as the pickle of a small number
_RESULT = b"r" * 20

_Task: TypeAlias = tuple[str, bytes, bytes, tuple[str, ...]]


class Simulation:
    """A scheduler's state machine with pretended workers around it.

    Parameters
    ----------
    hosts, workers
        How many there are.
    journal
        Where what the machine decides is written, as the scheduler's process does it. None: nowhere.

    Attributes
    ----------
    busy_ns : int
        The processor time that the state machine has taken, and the journal.
    """

    def __init__(self, hosts: int, workers: int, journal: Writer | None = None) -> None:
        self.busy_ns = 0
        self._journal = journal
        self._state = SchedulerState(decisions=Decisions(journal is not None))
        self._now = 0.0
        self._ids = itertools.count(1)
        self._queues: dict[str, deque[RunEntry]] = {}
        self._answered = 0
        for host in range(hosts):
            address = f"tcp://10.0.0.{host}:1"
            self._handle(events.HostJoined(address, {"hostname": f"host-{host}", "capacity": 1 << 40}))
            for index in range(workers // hosts):
                worker = f"{address}/{index}"
                self._queues[worker] = deque()
                self._handle(events.WorkerJoined(worker, f"host-{host}-{index}", address, 1, {}))
        self._handle(events.ClientJoined(_CLIENT, _CLIENT))
        self._handle(events.FunctionsSent(_CLIENT, [(_FUNCTION, b"pickle")]))
        self.busy_ns = 0

    def submit(self, tasks: list[_Task], wants: list[str] | None) -> None:
        """Submit tasks of which the client holds some, or all (None)."""
        self._handle(events.TasksSubmitted(_CLIENT, tasks, wants, {}))

    def release(self, keys: list[str]) -> None:
        """Let go of results."""
        self._handle(events.KeysReleased(_CLIENT, keys))

    def run(self) -> int:
        """Run all there is to run; how many tasks there were."""
        count = 0
        while any(self._queues.values()):
            for worker, queue in self._queues.items():
                if queue:
                    results = [self._result(queue.popleft()) for _ in range(min(len(queue), REPORTED_TOGETHER))]
                    self._now += TASK_SECONDS * len(results) / len(self._queues)
                    self._handle(events.TasksFinished(worker, results))
                    count += len(results)
        return count

    def wait(self, numbers: range) -> int:
        """Have a client ask for one worker more than there are, so many times, and one come and go; how often it is
        answered."""
        worker, host = "tcp://10.0.0.0:1/more", "tcp://10.0.0.0:1"
        operation, arguments = WAIT_FOR_WORKERS(n=len(self._queues) + 1, timeout=60.0)
        for number in numbers:
            self._now += TASK_SECONDS
            self._handle(events.Requested(_CLIENT, number, operation, arguments))
        count = self._answered
        self._handle(events.WorkerJoined(worker, "more", host, 1, {}))
        self._handle(events.WorkerExited(host, worker, "for a change", []))
        self._handle(events.WorkerParted(worker, "for a change"))
        return self._answered - count

    @property
    def forgotten(self) -> bool:
        """Whether the scheduler holds nothing any more."""
        return not self._state.tasks and not self._state.waits and self._state.next_deadline is None

    def _result(self, entry: RunEntry) -> tuple[Any, ...]:
        object_id = next(self._ids).to_bytes(16, "big")
        return (entry[6], entry[1], object_id, len(_RESULT), _RESULT, "int", TASK_SECONDS)

    def _handle(self, event: events.Event) -> None:
        began = time.thread_time_ns()
        instructions = self._state.handle(event, self._now)
        while self._state.life.follow_up.has_more:
            instructions += self._state.handle(events.TimePassed(), self._now)
        if self._journal is not None and (decided := self._state.decisions.take()):
            self._journal.append(decided)
        self.busy_ns += time.thread_time_ns() - began
        for instruction in instructions:
            if type(instruction) is RunTasks:
                self._queues[instruction.peer].extend(instruction.items)
            elif type(instruction) is Reply:
                self._answered += 1


def independent(count: int) -> list[_Task]:
    """Tasks that have nothing to do with each other."""
    return [(f"inc-{number:032x}", _FUNCTION, _PAYLOAD, ()) for number in range(count)]


def tree(count: int) -> list[_Task]:
    """About so many tasks that reduce many leaves to one, which is the last of them; each branch before the next."""
    leaves = count * (FAN_IN - 1) // FAN_IN
    numbers = itertools.count()
    tasks: list[_Task] = []

    def branch(leaves: int) -> str:
        if leaves == 1:
            key, below = f"leaf-{next(numbers):032x}", []
        else:
            size = 1
            while size * FAN_IN < leaves:
                size *= FAN_IN
            below = [branch(min(size, leaves - start)) for start in range(0, leaves, size)]
            key = f"sum-{next(numbers):032x}"
        tasks.append((key, _FUNCTION, _PAYLOAD, tuple(below)))
        return key

    branch(leaves)
    return tasks


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def run_independent(simulation: Simulation, tasks: list[_Task]) -> int:
    """Submit, run, release tasks that the client holds all of; how many there were."""
    for batch in _batches(tasks, MAX_ITEMS):
        simulation.submit(batch, None)
    count = simulation.run()
    for batch in _batches(tasks, MAX_ITEMS):
        simulation.release([task[0] for task in batch])
    return count


def run_single(simulation: Simulation, tasks: list[_Task]) -> int:
    """Submit, run and release one task after the other; how many there were."""
    count = 0
    for task in tasks:
        simulation.submit([task], None)
        count += simulation.run()
        simulation.release([task[0]])
    return count


def run_graph(simulation: Simulation, tasks: list[_Task]) -> int:
    """Submit, run, release tasks of which the client holds the last one only; how many there were."""
    wanted = [tasks[-1][0]]
    for part, wants, done in list(split(tasks, set(wanted), MAX_ITEMS)):
        simulation.submit(part, wants)
        if done:
            simulation.release(done)
    count = simulation.run()
    simulation.release(wanted)
    return count


def microseconds_per_task(
    tasks: list[_Task],
    run: Callable[[Simulation, list[_Task]], int],
    hosts: int,
    workers: int,
    journal: Writer | None = None,
) -> float:
    """The scheduler's processor time for each task."""
    simulation = Simulation(hosts, workers, journal)
    thresholds = gc.get_threshold()
    garbage.collect_young_only()  # as the scheduler's process does; the tasks' descriptions, made here, are left out
    try:
        count = run(simulation, tasks)
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
    if count != len(tasks) or not simulation.forgotten:
        raise AssertionError(f"{count} of {len(tasks)} tasks ran, and nothing should be left of them")
    return simulation.busy_ns / 1e3 / len(tasks)


def microseconds_of_journal(
    tasks: list[_Task], run: Callable[[Simulation, list[_Task]], int], directory: Path, rounds: int = 5
) -> float:
    """What of the scheduler's processor time for each task is the journal's: the difference between the best of some
    rounds with a journal and the best without, in turn."""
    without, within = [], []
    with StateDirectory.open(directory) as state:
        recovered = recover(state)
        journal = Writer(state, recovered.next_file, recovered.next_batch)
        try:
            for _ in range(rounds):
                without.append(microseconds_per_task(tasks, run, 1, 2))
                within.append(microseconds_per_task(tasks, run, 1, 2, journal))
        finally:
            journal.close()
    return min(within) - min(without)


def microseconds_per_wait(count: int, hosts: int, workers: int) -> float:
    """The scheduler's processor time for each request that waits."""
    simulation = Simulation(hosts, workers)
    answered = 0
    for start in range(0, count, MAX_WAITING):
        answered += simulation.wait(range(start, min(count, start + MAX_WAITING)))
    if answered != count or not simulation.forgotten:
        raise AssertionError(f"{answered} of {count} requests were answered, and nothing should be left of them")
    return simulation.busy_ns / 1e3 / count


def main() -> None:
    """Measures each metric."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulated", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--workers", type=int, default=100, help="of all hosts (default: %(default)s)")
    options = parser.parse_args()
    for metric, tasks, run in (
        ("scheduler_cpu_per_task", independent(options.tasks), run_independent),
        ("scheduler_cpu_per_task_tree", tree(options.tasks), run_graph),
    ):
        value = microseconds_per_task(tasks, run, options.hosts, options.workers)
        print(Figure(SYSTEM, metric, value, "us").to_json(), flush=True)
    value = microseconds_per_wait(options.tasks, options.hosts, options.workers)
    print(Figure(SYSTEM, "scheduler_cpu_per_wait", value, "us").to_json(), flush=True)


if __name__ == "__main__":
    main()
