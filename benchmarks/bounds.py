"""``make bench-bounds``: how long others wait for the scheduler while one client asks very much of it.

A client holds 20,000 results and asks where they are 400 times, in several threads, as fast as it is answered. A second
client, in a process of its own, asks what the scheduler answers by itself and has a short task run, again and again
(`bystander`). It should wait for less than 50 ms more than it does when nobody asks. The same goes for when a graph of
a million tasks is cancelled, and when a host with a million objects is lost, both of them pretended (`pretended_host`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import loop_watch
from benchmarks.bystander import Bystander, Look
from benchmarks.functions import inc
from benchmarks.loop_watch import Beat
from benchmarks.path_spans import percentile_99
from benchmarks.pretended_host import PretendedHost
from benchmarks.table import aligned, number
from holdfast import Client, LocalCluster

_THREADS = 8
_QUIET_SECONDS = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status."""
    parser = argparse.ArgumentParser(prog="make bench-bounds", description=__doc__)
    parser.add_argument("--results", type=int, default=20_000, metavar="N")
    parser.add_argument("--questions", type=int, default=400, metavar="N")
    parser.add_argument("--lost", type=int, default=1_000_000, metavar="N", help="tasks cancelled, and objects lost")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        periods, looks, beats = _run(Path(directory), options.results, options.questions, options.lost)
    columns = ["seconds", "longest turn ms", "of it CPU", "request p99 ms", "max", "task p99 ms", "max"]
    rows = [["while the first client …", *columns]]
    for name, (start, end) in periods.items():
        within = [look for look in looks if start <= look.at < end]
        requests = [look.request_seconds * 1e3 for look in within] or [0.0]
        tasks = [look.task_seconds * 1e3 for look in within] or [0.0]
        turns = [(beat.busy_seconds * 1e3, beat.seconds * 1e3) for beat in beats if start <= beat.at < end]
        busy, longest = max(turns, default=(0.0, 0.0))  # no turn was long, and none noted
        figures = [end - start, longest, busy, percentile_99(requests), max(requests), percentile_99(tasks), max(tasks)]
        rows.append([name, *map(number, figures)])
    print(aligned(rows))
    return 0


def _run(
    directory: Path, results: int, questions: int, lost: int
) -> tuple[dict[str, tuple[float, float]], list[Look], list[Beat]]:
    """When each period was, and what was seen meanwhile from outside and inside."""
    periods = {}
    loop_watch.watch_scheduler(directory)
    try:
        with (
            LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="256 MB") as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            futures = client.map(inc, range(results))
            client.gather(futures)
            bystander = Bystander(cluster)
            periods["is silent"] = _period(lambda: time.sleep(_QUIET_SECONDS))
            periods[f"asks {questions} times where {results:,} results are"] = _period(
                lambda: _in_threads(lambda: client.who_has(futures), questions)
            )
            periods[f"asks {questions // 10} times where everything is"] = _period(
                lambda: _in_threads(client.who_has, questions // 10)
            )
            host = PretendedHost(cluster)
            host.submit(lost)
            periods[f"cancels a graph of {lost:,} tasks"] = _period(lambda: host.cancel(lost))
            host.scatter(lost)
            periods[f"loses a host with {lost:,} objects"] = _period(lambda: host.lose(lost))
            periods["lets go of these"] = _period(lambda: host.end(directory))
            looks = bystander.end()
    finally:
        loop_watch.stop_watching()
    return periods, looks, loop_watch.read(directory)


def _period(work: Callable[[], object]) -> tuple[float, float]:
    start = time.monotonic()
    work()
    return start, time.monotonic()


def _in_threads(ask: Callable[[], object], times: int) -> None:
    left = iter(range(times))
    threads = [threading.Thread(target=lambda: [ask() for _ in left]) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
