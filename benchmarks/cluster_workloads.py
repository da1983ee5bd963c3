"""Holdfast through every workload of the peers: one process, one figure a line on standard output.

Everything goes through the public API with its default settings; the clusters have as many workers and threads as
those of the peers. The workloads are theirs, in the same order, with the same functions and the same pauses.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import systems
from benchmarks.figures import Figure
from benchmarks.functions import TOUCH_PAUSE_SECONDS, first, inc, make, touch, touch_slowly
from benchmarks.goals import SYSTEM
from benchmarks.memory import SETTLING_SECONDS, settled_pss
from holdfast import Client, Future, LocalCluster, wait

_READERS = 4


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    map_tasks: int = 20_000
    submits: int = 5_000
    roundtrips: int = 300
    chain: int = 1_000
    large_nbytes: int = 400_000_000
    large_repeats: int = 5
    small_count: int = 2_000
    broadcast_nbytes: int = 1_000_000_000
    matrix_length: int = 8_000
    chunk_length: int = 1_000
    frame_end: str = "2000-01-31"
    frame_frequency: str = "1s"
    pause_seconds: float = 0.3
    settling_seconds: float = SETTLING_SECONDS
    simulated_tasks: int = 100_000


QUICK = Sizes(
    map_tasks=200, submits=50, roundtrips=20, chain=20, large_nbytes=4_000_000, large_repeats=2, small_count=20,
    broadcast_nbytes=4_000_000, matrix_length=400, chunk_length=100, frame_end="2000-01-04", frame_frequency="60s",
    pause_seconds=0, settling_seconds=0, simulated_tasks=500,
)  # fmt: skip
SMALL = (("8kb", 1000), ("200kb", 25_000))


def report(metric: str, value: float, unit: str) -> None:
    """Prints one figure."""
    print(Figure(SYSTEM, metric, value, unit).to_json(), flush=True)


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """The seconds that a call took, and its result."""
    started = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - started, result


def cluster_of(workers: int) -> Client:
    """The client of a new cluster; `Client.shutdown` ends both."""
    return Client(LocalCluster(n_workers=workers, threads_per_worker=1))


# Short tasks


def startup() -> Client:
    def ready() -> Client:
        client = cluster_of(2)
        client.gather(client.map(inc, range(2)))
        return client

    client: Client
    seconds, client = timed(ready)
    report("startup", seconds, "s")
    client.gather(client.map(inc, range(300)))
    return client


def map_gather(client: Client, sizes: Sizes) -> None:
    seconds, _ = timed(lambda: client.gather(client.map(inc, range(sizes.map_tasks), pure=False)))
    report("map_gather_20k", sizes.map_tasks / seconds, "tasks/s")


def submit_gather(client: Client, sizes: Sizes) -> None:
    seconds, _ = timed(lambda: client.gather([client.submit(inc, i, pure=False) for i in range(sizes.submits)]))
    report("submit_gather_5k", sizes.submits / seconds, "tasks/s")


def roundtrip(client: Client, sizes: Sizes) -> None:
    def once(i: int) -> Any:
        return client.submit(inc, i, pure=False).result()

    times = sorted(timed(once, i)[0] for i in range(sizes.roundtrips))
    report("roundtrip", statistics.median(times) * 1e3, "ms")
    report("roundtrip_p99", times[int(len(times) * 0.99)] * 1e3, "ms")


def chain(client: Client, sizes: Sizes) -> None:
    def run() -> Any:
        future = client.submit(inc, 0, pure=False)
        for _ in range(sizes.chain - 1):
            future = client.submit(inc, future, pure=False)
        return future.result()

    seconds, _ = timed(run)
    report("chain_1k", sizes.chain / seconds, "tasks/s")


# Objects


def large_objects(client: Client, sizes: Sizes) -> None:
    array = np.random.default_rng(0).random(sizes.large_nbytes // 8)
    speeds = []
    for _ in range(sizes.large_repeats):
        seconds, done = timed(lambda: wait(client.scatter(array, hash=False)).done)
        speeds.append(array.nbytes / 1e9 / seconds)
        del done
        time.sleep(sizes.pause_seconds)
    report("put_400mb_first", speeds[0], "GB/s")
    report("put_400mb", statistics.median(speeds), "GB/s")
    future = client.scatter(array, hash=False)
    seconds, value = timed(future.result)
    report("get_400mb", seconds * 1e3, "ms")
    for use, call in (("read", value.sum), ("write", lambda: value.fill(1.0)), ("copy", array.copy)):
        seconds, _ = timed(call)
        report(f"{use}_400mb", seconds * 1e3, "ms")


def cross_worker(client: Client, sizes: Sizes) -> None:
    maker, reader = client.scheduler_info()["workers"]
    future = client.submit(make, sizes.large_nbytes, workers=[maker], pure=False)
    wait(future)
    seconds, _ = timed(lambda: client.submit(first, future, workers=[reader], pure=False).result())
    report("cross_worker_400mb", seconds * 1e3, "ms")


def small_objects(client: Client, sizes: Sizes) -> None:
    def put_all(array: np.ndarray[Any, Any]) -> list[Future]:
        return [client.scatter(array, hash=False) for _ in range(sizes.small_count)]

    def get_all(futures: list[Future]) -> list[Any]:
        return [future.result() for future in futures]

    for name, length in SMALL:
        seconds, futures = timed(put_all, np.ones(length))
        report(f"put_{name}", sizes.small_count / seconds, "objects/s")
        seconds, _ = timed(get_all, futures)
        report(f"get_{name}", sizes.small_count / seconds, "objects/s")
        del futures


# dask's collections


def arrays(client: Client, sizes: Sizes) -> None:
    import dask.array as da

    chunks = (sizes.chunk_length, sizes.chunk_length)
    for _ in range(2):
        x = da.random.random((sizes.matrix_length, sizes.matrix_length), chunks=chunks)
        started = time.perf_counter()
        (x + x.T).sum().compute()
        seconds = time.perf_counter() - started
    report("array_transpose_sum", seconds, "s")


def frames(client: Client, sizes: Sizes) -> None:
    from dask import datasets

    frame = datasets.timeseries(  # type: ignore[no-untyped-call]
        start="2000-01-01", end=sizes.frame_end, freq=sizes.frame_frequency, partition_freq="1d"
    ).persist()
    wait(frame)
    seconds, _ = timed(lambda: frame.groupby("name").x.mean().compute())
    report("frame_groupby", seconds, "s")
    seconds, _ = timed(lambda: frame.shuffle("id").x.sum().compute())
    report("frame_shuffle", seconds, "s")


# One object for many


def broadcast(sizes: Sizes) -> None:
    client = cluster_of(_READERS)
    before = settled_pss(sizes.settling_seconds)
    future = client.submit(make, sizes.broadcast_nbytes)
    wait(future)

    def read_everywhere() -> list[float]:
        workers = client.scheduler_info()["workers"]
        tasks = [client.submit(touch, future, i, workers=[worker], pure=False) for i, worker in enumerate(workers)]
        sums: list[float] = client.gather(tasks)
        return sums

    seconds, _ = timed(read_everywhere)
    report("broadcast_1gb_seconds", seconds, "s")
    report("broadcast_1gb_memory", (settled_pss(sizes.settling_seconds) - before) / 1e9, "GB")
    client.shutdown()


def broadcast_as_ray(sizes: Sizes) -> None:
    """The same as it is done with Ray, which can't be told where a task is to run.

    Each reader pauses before it touches anything, and that pause is subtracted: so the way of the tasks to their
    workers isn't in the figure. For other systems it is, and it is in `broadcast`.
    """
    client = cluster_of(_READERS)
    client.gather([client.submit(touch_slowly, np.ones(1), i, pure=False) for i in range(2 * _READERS)])
    settled_pss(sizes.settling_seconds)
    future = client.submit(make, sizes.broadcast_nbytes)
    wait(future)
    tasks = range(_READERS)
    seconds, _ = timed(lambda: client.gather([client.submit(touch_slowly, future, i, pure=False) for i in tasks]))
    report("broadcast_1gb_as_ray_seconds", seconds - TOUCH_PAUSE_SECONDS, "s")
    client.shutdown()


def simulated(sizes: Sizes) -> None:
    """In a process of its own, as a scheduler's is: what else a process has in memory costs it time, too."""
    subprocess.run(systems.module("simulated", "--tasks", str(sizes.simulated_tasks)), check=True)


#: On one cluster of two workers, in this order.
ON_TWO_WORKERS: dict[str, Callable[[Client, Sizes], None]] = {
    "map": map_gather,
    "submit": submit_gather,
    "roundtrip": roundtrip,
    "chain": chain,
    "large": large_objects,
    "cross": cross_worker,
    "small": small_objects,
    "arrays": arrays,
    "frames": frames,
}
#: Each by itself, after those.
ALONE: dict[str, Callable[[Sizes], None]] = {
    "broadcast": broadcast,
    "broadcast-as-ray": broadcast_as_ray,
    "simulated": simulated,
}
WORKLOADS = ("startup", *ON_TWO_WORKERS, *ALONE)


def main() -> None:
    """Runs them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster_workloads", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run with tiny sizes; its figures mean nothing")
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=WORKLOADS, help="run these only")
    options = parser.parse_args()
    sizes = QUICK if options.quick else Sizes()
    if not set(options.only) <= set(ALONE):
        client = startup()
        for name, workload in ON_TWO_WORKERS.items():
            if name in options.only:
                workload(client, sizes)
        client.shutdown()
    for name, alone in ALONE.items():
        if name in options.only:
            alone(sizes)


if __name__ == "__main__":
    main()
