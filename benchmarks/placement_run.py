"""One system through one case of `placement_cases`: a fresh process that prints its figures.

``python -m benchmarks.placement_run SYSTEM CASE [--workers N] [--quick]``. With ``distributed`` it runs in that
peer's environment, which has no Holdfast; with ``floor``, dask's threads run the case in this very process.

The case runs three times: tiny, so that every process has imported what it takes; as it is, with its memory watched;
and once more, timed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import dask

from benchmarks.figures import Figure
from benchmarks.memory import SETTLING_SECONDS, settled_pss
from benchmarks.peak_memory import PeakMemory
from benchmarks.placement_cases import CASES, QUICK, Case, Scale


@contextlib.contextmanager
def holdfast(workers: int) -> Iterator[str]:
    from holdfast import Client, LocalCluster

    with LocalCluster(n_workers=workers, threads_per_worker=1) as cluster, Client(cluster):
        (node,) = cluster.nodes
        yield node["store_socket"]


@contextlib.contextmanager
def distributed(workers: int) -> Iterator[None]:
    from distributed import Client, LocalCluster

    quiet = {"dashboard_address": None, "silence_logs": 50, "memory_limit": 0}
    with LocalCluster(n_workers=workers, threads_per_worker=1, **quiet) as cluster, Client(cluster):
        yield


@contextlib.contextmanager
def floor(workers: int) -> Iterator[None]:
    with dask.config.set(scheduler="threads", num_workers=workers):
        yield


SYSTEMS: dict[str, Callable[[int], contextlib.AbstractContextManager[str | None]]] = {
    "holdfast": holdfast,
    "floor": floor,
    "distributed": distributed,
}


def compute(collection: Any) -> Any:
    """With the scheduler that is dask's default now."""
    return dask.compute(collection)  # type: ignore[attr-defined, no-untyped-call]


def prepared(case: Case, scale: Scale) -> Any:
    """What the case has in memory before it is measured."""
    return None if case.prepare is None else case.prepare(scale).persist()


def settle(made: Any) -> None:
    """Wait until what is being made is there."""
    if made is not None:
        made.map_partitions(len).compute()


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.placement_run", description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    case = CASES[options.case]
    scale = QUICK if options.quick else Scale()

    def come_to_rest() -> None:
        gc.collect()
        settled_pss(0 if options.quick else SETTLING_SECONDS)

    def report(metric: str, value: float, unit: str) -> None:
        print(Figure(options.system, f"{options.case}_{metric}", value, unit).to_json(), flush=True)

    with SYSTEMS[options.system](options.workers) as store_socket:
        compute(case.build(QUICK, prepared(case, QUICK)))
        made = prepared(case, scale)
        settle(made)
        come_to_rest()
        with PeakMemory(store_socket) as watched:
            compute(case.build(scale, made))
        come_to_rest()
        collection = case.build(scale, made)
        began = time.perf_counter()
        compute(collection)
        report("seconds", time.perf_counter() - began, "s")
        report("memory", (watched.peaks.memory - watched.peaks.before) / 1e9, "GB")
        if store_socket is not None:
            report("store", watched.peaks.store / 1e9, "GB")
        del made, collection


if __name__ == "__main__":
    main()
