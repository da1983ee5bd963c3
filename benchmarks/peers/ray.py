"""The workloads on Ray."""

from __future__ import annotations

import logging
import os
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # Ray reads it when it's imported
import numpy as np
import ray
from ray.util.dask import enable_dask_on_ray

from benchmarks import functions
from benchmarks.functions import TOUCH_PAUSE_SECONDS
from benchmarks.memory import tree_pss
from benchmarks.peers import dask_workloads
from benchmarks.peers.reporting import Report, timed
from benchmarks.systems import REPOSITORY


def start(cpus: int) -> None:
    ray.init(
        num_cpus=cpus,
        object_store_memory=4_000_000_000,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY)}},
    )


def short_tasks(inc: Any, report: Report) -> None:
    def chain() -> Any:
        reference = inc.remote(0)
        for _ in range(999):
            reference = inc.remote(reference)
        return ray.get(reference)

    ray.get([inc.remote(i) for i in range(300)])
    report.rate("map_gather_20k", 20_000, lambda: ray.get([inc.remote(i) for i in range(20_000)]))
    report.rate("submit_gather_5k", 5_000, lambda: ray.get([inc.remote(i) for i in range(5_000)]))
    report.roundtrips(lambda i: ray.get(inc.remote(i)))
    report.rate("chain_1k", 1000, chain)


def objects(report: Report) -> None:
    array = report.puts(ray.put, lambda reference: None)
    reference = ray.put(array)
    value = report.milliseconds("get_400mb", lambda: ray.get(reference))
    del value
    made = ray.remote(functions.make).remote(400_000_000)
    ray.wait([made], fetch_local=False)
    first = ray.remote(functions.first)
    report.milliseconds("cross_worker_400mb", lambda: ray.get(first.remote(made)))
    report.small_objects(ray.put, ray.get, 2000)


def dask_collections(report: Report) -> None:
    with enable_dask_on_ray():
        dask_workloads.transpose_sum()
        report.seconds("array_transpose_sum", dask_workloads.transpose_sum)


def broadcast(report: Report) -> None:
    """Each reader pauses, so that each of the four workers takes one: Ray can't be told where a task is to run."""
    start(4)
    touch_slowly = ray.remote(functions.touch_slowly)
    ray.get([touch_slowly.remote(np.ones(1), i) for i in range(8)])
    before = tree_pss()
    reference = ray.remote(functions.make).remote(1_000_000_000)
    ray.wait([reference], fetch_local=False)
    seconds, _ = timed(lambda: ray.get([touch_slowly.remote(reference, i) for i in range(4)]))
    report("broadcast_1gb_seconds", seconds - TOUCH_PAUSE_SECONDS, "s")
    report("broadcast_1gb_memory", (tree_pss() - before) / 1e9, "GB")
    ray.shutdown()


def main() -> None:
    """Runs them."""
    report = Report("ray")
    inc = ray.remote(functions.inc)

    def ready() -> None:
        start(2)
        ray.get([inc.remote(i) for i in range(2)])

    report.seconds("startup", ready)
    short_tasks(inc, report)
    objects(report)
    dask_collections(report)
    ray.shutdown()
    broadcast(report)


if __name__ == "__main__":
    main()
