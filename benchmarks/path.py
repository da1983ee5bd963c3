"""``make bench-path``: where the time of one task goes, span by span, and what a task costs each process.

Two clusters, one after the other, with the default settings of `LocalCluster` and two workers of one thread each:

1. As users have it: single tasks, each waited for before the next is submitted, and maps of many. The processor time
   that every process takes for a task is read from the kernel; nothing is measured inside of them.
2. Traced (`path_points`): the same single tasks, for the spans between the points that they pass.

What of the scheduler's time is the journal's is too little to be seen there. It is measured with the state machine
alone (`simulated`), with a journal and without, in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks import machine, page, path_points
from benchmarks.figures import Figure
from benchmarks.functions import inc
from benchmarks.goals import SYSTEM
from benchmarks.memory import settled_pss
from benchmarks.path_points import START, Recorder
from benchmarks.path_spans import Path as TaskPath
from benchmarks.path_spans import path_of, percentile_99
from benchmarks.probed_process import probe_children
from benchmarks.processor_time import ProcessorTime, Taken
from benchmarks.simulated import independent, microseconds_of_journal, run_independent, run_single
from benchmarks.table import aligned
from holdfast import Client, LocalCluster

_WARM_UP_TASKS = 300
_MAPS = 3
#: Whose processor time it is: the group of processes, and which of their threads.
_ROWS = (
    ("client", 0, "the user's thread"),
    ("client", 1, "its loop"),
    ("scheduler", 0, ""),
    ("workers", 0, "their loops"),
    ("workers", 1, "their threads for tasks"),
    ("node agent", 0, "the store's server"),
    ("node agent", 1, "its other threads"),
)


class Cost(NamedTuple):
    """What some tasks took, together."""

    tasks: int
    seconds: float
    processor: dict[str, tuple[Taken, Taken]]  # by group of processes: main threads, others

    @property
    def elapsed(self) -> float:
        """Microseconds of each task."""
        return self.seconds * 1e6 / self.tasks

    def cpu(self, *taken: Taken) -> float:
        """Microseconds of each task."""
        return sum(some.nanoseconds for some in taken) / 1e3 / self.tasks

    def turns(self, *taken: Taken) -> float:
        """Of each task."""
        return sum(some.turns for some in taken) / self.tasks


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status."""
    parser = argparse.ArgumentParser(prog="make bench-path", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000, help="single tasks, each by itself (default: %(default)s)")
    parser.add_argument("--map-tasks", type=int, default=20_000, help="tasks of a map (default: %(default)s)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the JSON lines there too")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args(arguments)

    singles, mapped, plain = _as_users_have_it(options.tasks, options.map_tasks)
    path = _traced(options.tasks)
    journal = _journal(options.tasks, options.map_tasks)
    lines = "".join(f"{figure.to_json()}\n" for figure in (*_figures(path, plain, singles, mapped), *journal))
    if options.output:
        options.output.write_text(lines)
    print(lines)
    compared = f"{_compared(path, plain)}\n{_journal_compared(*journal)}"
    tables = f"{path.table()}\n\n{compared}\n\n{_cost_table(singles, mapped)}"
    print(tables)
    if options.write_docs:
        page.replace_section(page.PERFORMANCE, "bench-path", f"{machine.describe()}\n\n{tables}")
    return 0


def _as_users_have_it(tasks: int, map_tasks: int) -> tuple[Cost, Cost, list[float]]:
    """What single tasks and those of maps cost, and the single tasks' round trips in microseconds."""
    roundtrips: list[float] = []

    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:

        def one_by_one() -> None:
            for number in range(tasks):
                began = path_points.now()
                client.submit(inc, number, pure=False).result()
                roundtrips.append((path_points.now() - began) / 1e3)

        def maps() -> None:
            for _ in range(_MAPS):
                client.gather(client.map(inc, range(map_tasks), pure=False))

        _warm_up(client)
        settled_pss()  # until then the store makes pages ready, which is no cost of these tasks
        groups = _processes(cluster)
        singles = _cost(client, groups, one_by_one, tasks)
        mapped = _cost(client, groups, maps, _MAPS * map_tasks)
    return singles, mapped, roundtrips


def _traced(tasks: int) -> TaskPath:
    recorder = Recorder()
    with tempfile.TemporaryDirectory(prefix="holdfast-path-") as directory:
        path_points.instrument(recorder)
        probe_children("benchmarks.path_points", Path(directory))
        with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
            _warm_up(client)
            settled_pss()
            for number in range(tasks):
                began = path_points.now()
                future = client.submit(inc, number, pure=False)
                future.result()
                returned = path_points.now()
                key = future.key
                del future
                recorder.mark("released", key, path_points.now())
                recorder.mark("returned", key, returned)
                recorder.mark(START, key, began)
        return path_of([*recorder.points, *path_points.read_all(Path(directory))])


def _journal(tasks: int, map_tasks: int) -> tuple[Figure, Figure]:
    """What the journal takes of the scheduler for a single task, and for one of a map."""
    with tempfile.TemporaryDirectory(prefix="holdfast-journal-") as directory:
        single, mapped = (
            microseconds_of_journal(independent(count), run, Path(directory) / "state")
            for count, run in ((tasks, run_single), (map_tasks, run_independent))
        )
    return Figure(SYSTEM, "single journal cpu", single, "us"), Figure(SYSTEM, "map journal cpu", mapped, "us")


def _journal_compared(single: Figure, mapped: Figure) -> str:
    return (
        f"* The journal takes {single.value:.1f} µs of the scheduler for a task by itself, and {mapped.value:.1f} µs "
        "in a map: with the state machine alone, as the difference of the best rounds with and without."
    )


def _warm_up(client: Client) -> None:
    client.gather(client.map(inc, range(_WARM_UP_TASKS), pure=False))


def _processes(cluster: LocalCluster) -> dict[str, list[int]]:
    (node,) = cluster.nodes
    below = psutil.Process().children(recursive=True)
    workers = [process.pid for process in below if "holdfast.cluster.worker" in " ".join(process.cmdline())]
    return {"client": [os.getpid()], "scheduler": [cluster.scheduler_pid], "workers": workers,
            "node agent": [node["pid"]]}  # fmt: skip


def _cost(client: Client, groups: dict[str, list[int]], run: Callable[[], Any], tasks: int) -> Cost:
    """What each of the tasks costs that ``run`` runs, the freeing of their results included."""
    before = ProcessorTime(groups)
    began = time.perf_counter()
    run()
    elapsed = time.perf_counter() - began
    client.scheduler_info()  # answered after what was released before
    taken = ProcessorTime(groups).since(before)
    return Cost(tasks, elapsed, taken)


def _figures(path: TaskPath, plain: list[float], singles: Cost, mapped: Cost) -> list[Figure]:
    found = [Figure(SYSTEM, f"span {measured.span.point}", measured.median, "us") for measured in path.spans]
    found.append(Figure(SYSTEM, "roundtrip traced", statistics.median(path.roundtrips), "us"))
    found.append(Figure(SYSTEM, "roundtrip", statistics.median(plain), "us"))
    for what, cost in (("single", singles), ("map", mapped)):
        found.append(Figure(SYSTEM, f"{what} elapsed", cost.elapsed, "us"))
        for group, thread, words in _ROWS:
            name = " ".join(filter(None, (what, group, words)))
            taken = cost.processor[group][thread]
            found.append(Figure(SYSTEM, f"{name} cpu", cost.cpu(taken), "us"))
            found.append(Figure(SYSTEM, f"{name} turns", cost.turns(taken), "turns"))
    return found


def _compared(path: TaskPath, plain: list[float]) -> str:
    """The sum of the spans beside the round trips, traced and not."""
    traced, untraced = statistics.median(path.roundtrips), statistics.median(plain)
    medians = sum(measured.median for measured in path.spans)
    return "\n".join(
        [
            f"* {len(path.roundtrips):,} traced round trips; {path.left_out:,} more missed a point and are left out.",
            f"* The spans cover all of each. Their means add up to the mean, {path.mean:.1f} µs; their medians to "
            f"{medians:.1f} µs, beside {traced:.1f} µs.",
            f"* Without tracing: median {untraced:.1f} µs, p99 {percentile_99(plain):.1f} µs. The difference of "
            f"{traced - untraced:.1f} µs is the tracing's own cost, and noise.",
        ]
    )


def _cost_table(singles: Cost, mapped: Cost) -> str:
    """One row for the threads of each kind: what a task takes of them."""
    rows = [["threads", "", "one by one: µs", "turns", "in a map: µs", "turns"]]
    costs = (singles, mapped)
    for group, thread, words in _ROWS:
        rows.append([group, words, *_cells([(cost, [cost.processor[group][thread]]) for cost in costs])])
    every = [(cost, [taken for group in cost.processor.values() for taken in group]) for cost in costs]
    rows.append(["**all**", "", *_cells(every)])
    rows.append(["**elapsed**", "", f"{singles.elapsed:.1f}", "", f"{mapped.elapsed:.1f}", ""])
    return aligned(rows)


def _cells(taken: list[tuple[Cost, list[Taken]]]) -> list[str]:
    return [cell for cost, some in taken for cell in (f"{cost.cpu(*some):.1f}", f"{cost.turns(*some):.2f}")]


if __name__ == "__main__":
    sys.exit(main())
