"""``make bench-transfer``: how fast objects go from one host's store to another's.

A `LocalCluster` of two hosts, whose stores are separate and whose objects go over TCP's loopback. A client puts arrays
into the first host's store; tasks on the second one read them there, which brings each over once. What a task without
an argument takes is subtracted. The floor is what the machine itself can do in the same way: one process sends the
bytes of a memfd with `sendfile`, another receives them into its own memory, nothing is checked.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import machine, page, transfer_floor
from benchmarks.figures import Figure
from benchmarks.goals import SYSTEM
from benchmarks.table import aligned, number
from holdfast import Client, LocalCluster

LARGE_NBYTES = 400_000_000
SMALL_NBYTES = (8_000, 200_000, 1_600_000)
SMALL_COUNT = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status."""
    parser = argparse.ArgumentParser(prog="make bench-transfer", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--large", type=int, default=LARGE_NBYTES, metavar="BYTES", help="default: %(default)s")
    parser.add_argument("--count", type=int, default=SMALL_COUNT, help="small objects a round (default: %(default)s)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the JSON lines there too")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args(arguments)

    figures = [_figure("floor", "transfer_large", transfer_floor.measure(options.large, options.rounds), "GB/s")]
    figures += _stores(options.large, options.count, options.rounds)
    lines = "".join(f"{figure.to_json()}\n" for figure in figures)
    if options.output:
        options.output.write_text(lines)
    print(lines)
    table = _table(figures)
    print(table)
    if options.write_docs:
        page.replace_section(page.PERFORMANCE, "bench-transfer", f"{machine.describe()}\n\n{table}")
    return 0


def _stores(large: int, count: int, rounds: int) -> list[Figure]:
    capacity = 4 * max(large, count * max(SMALL_NBYTES))  # what was measured goes while the next is
    with (
        LocalCluster(n_hosts=2, n_workers=2, threads_per_worker=1, object_store_memory=capacity) as cluster,
        Client(cluster) as client,
    ):
        here, there = (node["address"] for node in cluster.nodes)
        figures = [_figure(SYSTEM, "transfer_large", _large(client, here, there, large, rounds), "GB/s")]
        for nbytes in SMALL_NBYTES:
            rates = _small(client, here, there, nbytes, count, rounds)
            figures.append(_figure(SYSTEM, f"transfer_{nbytes // 1000}kb", rates, "objects/s"))
    return figures


def _figure(system: str, metric: str, rounds: list[float], unit: str) -> Figure:
    return Figure(system, metric, statistics.median(rounds), unit, tuple(rounds))


def _large(client: Client, here: str, there: str, nbytes: int, rounds: int) -> list[float]:
    seconds = []
    for number_of_round in range(rounds):
        array = np.full(nbytes // 8, float(number_of_round))
        future = client.scatter(array, workers=[here], hash=False)
        client.submit(_first, None, workers=[there], pure=False).result()  # the second time is as fast as it gets
        began = time.perf_counter()
        client.submit(_first, None, workers=[there], pure=False).result()
        idle = time.perf_counter() - began
        began = time.perf_counter()
        assert client.submit(_first, future, workers=[there], pure=False).result() == number_of_round
        seconds.append(time.perf_counter() - began - idle)
        del future
    return [nbytes / each / 1e9 for each in seconds]


def _small(client: Client, here: str, there: str, nbytes: int, count: int, rounds: int) -> list[float]:
    seconds = []
    for _ in range(rounds):
        values = [np.full(nbytes // 8, float(index)) for index in range(count)]
        futures = client.scatter(values, workers=[here], hash=False)
        client.submit(_first, None, workers=[there], pure=False).result()
        began = time.perf_counter()
        found = client.gather(client.map(_first, futures, workers=[there], pure=False))
        seconds.append(time.perf_counter() - began)
        assert found == list(range(count))
        del futures
    return [count / each for each in seconds]


def _first(array: np.ndarray | None) -> float:
    return 0.0 if array is None else float(array[0])


def _table(figures: Sequence[Figure]) -> str:
    rows = [["metric", "unit", "holdfast", "floor", "× floor"]]
    floor = next(figure for figure in figures if figure.system == "floor")
    for figure in figures:
        if figure.system != "floor":
            beside = figure.metric == floor.metric
            values = [number(floor.value), number(figure.value / floor.value)] if beside else ["", ""]
            rows.append([f"`{figure.metric}`", figure.unit, number(figure.value), *values])
    return aligned(rows)


if __name__ == "__main__":
    sys.exit(main())
