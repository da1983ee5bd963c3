"""``make bench-graphs``: graphs of ten thousand to a million tasks, submitted, run and released.

Each on a `LocalCluster` of its own with two workers of one thread each (`graph_run`), while a second client in a
process of its own asks the scheduler something and has a task run, again and again (`bystander`). Time and memory of a
task should be the same whatever the size of its graph, the scheduler's event loop should never be busy for more than
50 ms at a time, and the second client should hardly notice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import figures as figures_module
from benchmarks import machine, page
from benchmarks.chart import chart
from benchmarks.figures import Figure, Figures
from benchmarks.goals import SYSTEM
from benchmarks.graph_run import SHAPES, GraphRun, run_graph
from benchmarks.path_spans import percentile_99
from benchmarks.table import aligned, number

SIZES = (10_000, 31_000, 100_000, 316_000, 1_000_000)
QUICK_SIZES = (500, 1_500)
CHARTS = page.PERFORMANCE.parent
#: The columns: the metric, and its name in the table.
COLUMNS = {
    "submit_us": "submit µs",
    "run_us": "run µs",
    "release_us": "release µs",
    "scheduler_us": "scheduler CPU µs",
    "peak_bytes": "peak bytes",
    "left_mb": "kept MB",
    "turn_ms": "longest turn ms",
    "turn_cpu_ms": "of it CPU",
    "request_p99_ms": "request p99 ms",
    "request_max_ms": "max",
    "task_p99_ms": "task p99 ms",
    "task_max_ms": "max",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status."""
    parser = argparse.ArgumentParser(prog="make bench-graphs", description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="N", help="numbers of tasks")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--quick", action="store_true", help="a smoke run with tiny graphs; its figures mean nothing")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the JSON lines there too")
    parser.add_argument(
        "--figures", nargs="+", metavar="FILE", type=Path, help="show JSON lines of earlier runs instead"
    )
    parser.add_argument("--write-docs", action="store_true", help="put table and charts into docs")
    options = parser.parse_args(arguments)

    if options.figures:
        lines = [line for file in options.figures for line in file.read_text().splitlines()]
        found = [figure for line in lines if (figure := figures_module.parse(line)) is not None]
    else:
        sizes = QUICK_SIZES if options.quick else options.sizes
        found = []
        for shape in options.shapes:
            for size in sizes:
                new = _figures(shape, size, run_graph(shape, size))
                print("".join(f"{figure.to_json()}\n" for figure in new), end="", flush=True)
                found += new
    if options.output:
        options.output.write_text("".join(f"{figure.to_json()}\n" for figure in found))
    table = _table(found)
    print(f"\n{table}")
    if options.write_docs:
        for name, drawn in _charts(found).items():
            (CHARTS / name).write_text(drawn)
        page.replace_section(page.PERFORMANCE, "bench-graphs", f"{machine.describe()}\n\n{table}")
    return 0


def _figures(shape: str, size: int, run: GraphRun) -> list[Figure]:
    requests = [look.request_seconds * 1e3 for look in run.looks]
    tasks = [look.task_seconds * 1e3 for look in run.looks]
    values = {
        "submit_us": run.submit_seconds * 1e6 / run.tasks,
        "run_us": run.run_seconds * 1e6 / run.tasks,
        "release_us": run.release_seconds * 1e6 / run.tasks,
        "scheduler_us": run.scheduler_seconds * 1e6 / run.tasks,
        "peak_bytes": run.peak_nbytes / run.tasks,
        "left_mb": run.left_nbytes / 1e6,
        "turn_ms": run.turn_seconds * 1e3,
        "turn_cpu_ms": run.turn_busy_seconds * 1e3,
        "request_p99_ms": percentile_99(requests),
        "request_max_ms": max(requests),
        "task_p99_ms": percentile_99(tasks),
        "task_max_ms": max(tasks),
    }
    return [
        Figure(SYSTEM, f"{shape} {size} {metric}", value, metric.rpartition("_")[2]) for metric, value in values.items()
    ]


def _runs(found: Sequence[Figure]) -> dict[tuple[str, int], None]:
    """Shape and size of each run, in order."""
    runs: dict[tuple[str, int], None] = {}
    for figure in found:
        shape, size, _ = figure.metric.split()
        runs[shape, int(size)] = None
    return runs


def _table(found: Sequence[Figure]) -> str:
    """One row for each run."""
    values = Figures(found)
    rows = [["graph", "tasks", *COLUMNS.values()]]
    for shape, size in _runs(found):
        figures = [values.get(SYSTEM, f"{shape} {size} {metric}") for metric in COLUMNS]
        rows.append([shape, f"{size:,}", *("" if figure is None else number(figure.value) for figure in figures)])
    return aligned(rows)


def _charts(found: Sequence[Figure]) -> dict[str, str]:
    """The SVG of each chart by the name of its file."""
    values = Figures(found)

    def line(shape: str, *metrics: str) -> list[tuple[float, float]]:
        points = []
        for size in sorted(size for other, size in _runs(found) if other == shape):
            figures = [values.get(SYSTEM, f"{shape} {size} {metric}") for metric in metrics]
            points.append((float(size), sum(figure.value for figure in figures if figure is not None)))
        return points

    shapes = dict.fromkeys(shape for shape, _ in _runs(found))
    time_lines = {f"{shape}: elapsed": line(shape, "submit_us", "run_us", "release_us") for shape in shapes}
    time_lines |= {f"{shape}: scheduler's CPU": line(shape, "scheduler_us") for shape in shapes}
    memory_lines = {shape: line(shape, "peak_bytes") for shape in shapes}
    return {
        "graphs-time.svg": chart("Time of a task, submitted, run and released", "tasks", "µs", time_lines),
        "graphs-memory.svg": chart("The scheduler's memory for a task, at most", "tasks", "bytes", memory_lines),
    }


if __name__ == "__main__":
    sys.exit(main())
