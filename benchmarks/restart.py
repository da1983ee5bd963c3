"""``make bench-restart``: how long a cluster stands still when its scheduler is killed.

A client has many small objects in the store of a cluster and many tasks that wait for one that runs. Then the scheduler
is killed (SIGKILL). Measured is the time from there until a task has its result that was submitted right after: in it,
whoever started the scheduler notices and starts another one, which reads the journal; hosts, workers and the client
come back, and say what they have. None of what was finished may run again, which is counted outside of the cluster.

``ready`` is when the next scheduler has read its journal, and begins to listen. ``cpu`` is the processor time that it
has taken until the first result: the figure that does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figures import Figure
from benchmarks.functions import inc
from benchmarks.goals import SYSTEM
from benchmarks.table import aligned, number
from holdfast import Client, Event, LocalCluster, wait

OBJECT_NBYTES = 1_000
PATIENCE_SECONDS = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status."""
    parser = argparse.ArgumentParser(prog="make bench-restart", description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000, help="that wait (default: %(default)s)")
    parser.add_argument("--objects", type=int, default=10_000, help="in the store (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often it is killed (default: %(default)s)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the JSON lines there too")
    options = parser.parse_args(arguments)
    figures = measure(options.tasks, options.objects, options.rounds)
    if options.output:
        options.output.write_text("".join(f"{figure.to_json()}\n" for figure in figures))
    rows = [["metric", "median", "rounds"]]
    rows += [[each.metric, f"{number(each.value)} s", ", ".join(map(number, each.rounds))] for each in figures]
    print(aligned(rows))
    return 0


def measure(tasks: int, objects: int, rounds: int) -> list[Figure]:
    """All figures, in seconds: the median of the rounds."""
    found: dict[str, list[float]] = {"restart_first_result": [], "restart_ready": [], "restart_cpu": []}
    with tempfile.TemporaryDirectory(prefix="bench-restart-") as directory:
        runs = Path(directory, "runs")
        with (
            LocalCluster(n_workers=2, threads_per_worker=1) as cluster,
            Client(cluster) as client,
        ):
            gate = Event("gate", client=client)
            kept = client.map(_object, range(objects), path=str(runs), pure=False)
            wait(kept)
            running = client.submit(_when_open, 0, pure=False)
            waiting = client.map(_after, range(tasks), before=running, pure=False)
            client.submit(inc, 0, pure=False).result()
            for turn in range(1, rounds + 1):
                pid = cluster.scheduler_pid
                began, at = time.perf_counter(), time.time()
                os.kill(pid, signal.SIGKILL)
                first = client.submit(inc, turn, pure=False)
                if first.result(PATIENCE_SECONDS) != turn + 1:
                    raise AssertionError("a wrong result")
                found["restart_first_result"].append(time.perf_counter() - began)
                taken = psutil.Process(cluster.scheduler_pid).cpu_times()
                found["restart_cpu"].append(taken.user + taken.system)
                found["restart_ready"].append(client.scheduler_info()["started"] - at)
            if (again := len(runs.read_bytes()) - objects) != 0:
                raise AssertionError(f"{again} of {objects} finished tasks ran again")
            gate.set()
            wait(waiting[:10])
    return [
        Figure(SYSTEM, metric, sorted(values)[len(values) // 2], "s", tuple(values)) for metric, values in found.items()
    ]


def _object(index: int, path: str) -> bytes:
    with open(path, "ab") as runs:
        runs.write(b".")
    return bytes([index % 256]) * OBJECT_NBYTES


def _when_open(value: int) -> int:
    Event("gate").wait()
    return int(value)


def _after(value: int, before: Any) -> int:
    return int(value + before)


if __name__ == "__main__":
    sys.exit(main())
