"""The workloads on dask.distributed."""

from __future__ import annotations

from typing import Any

from distributed import Client, LocalCluster, wait

from benchmarks.functions import first, inc, make, touch
from benchmarks.memory import tree_pss
from benchmarks.peers import dask_workloads
from benchmarks.peers.reporting import Report, timed

_OPTIONS: dict[str, Any] = {
    "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50, "memory_limit": 0,
}  # fmt: skip


def start(report: Report) -> Any:
    def ready() -> Any:
        client = Client(LocalCluster(n_workers=2, **_OPTIONS))
        client.gather(client.map(inc, range(2)))
        return client

    client = report.seconds("startup", ready)
    client.gather(client.map(inc, range(300)))
    return client


def short_tasks(client: Any, report: Report) -> None:
    def chain() -> Any:
        future = client.submit(inc, 0, pure=False)
        for _ in range(999):
            future = client.submit(inc, future, pure=False)
        return future.result()

    report.rate("map_gather_20k", 20_000, lambda: client.gather(client.map(inc, range(20_000), pure=False)))
    report.rate(
        "submit_gather_5k", 5_000, lambda: client.gather([client.submit(inc, i, pure=False) for i in range(5_000)])
    )
    report.roundtrips(lambda i: client.submit(inc, i, pure=False).result())
    report.rate("chain_1k", 1000, chain)


def objects(client: Any, report: Report) -> None:
    array = report.puts(lambda a: wait(client.scatter(a, hash=False)).done, lambda done: None, repeats=3)
    future = client.scatter(array, hash=False)
    value = report.milliseconds("get_400mb", future.result)
    del value
    maker, reader = client.scheduler_info()["workers"]
    future = client.submit(make, 400_000_000, workers=[maker], pure=False)
    wait(future)
    report.milliseconds(
        "cross_worker_400mb", lambda: client.submit(first, future, workers=[reader], pure=False).result()
    )
    report.small_objects(lambda a: client.scatter(a, hash=False), lambda future: future.result(), 300)


def dask_collections(report: Report) -> None:
    dask_workloads.transpose_sum()
    report.seconds("array_transpose_sum", dask_workloads.transpose_sum)
    frame = dask_workloads.timeseries()
    wait(frame)
    report.seconds("frame_groupby", lambda: dask_workloads.groupby(frame))
    report.seconds("frame_shuffle", lambda: dask_workloads.shuffle(frame))


def broadcast(report: Report) -> None:
    client = Client(LocalCluster(n_workers=4, **_OPTIONS))
    before = tree_pss()
    future = client.submit(make, 1_000_000_000)
    wait(future)
    workers = client.scheduler_info()["workers"]
    seconds, _ = timed(
        lambda: client.gather(
            [client.submit(touch, future, i, workers=[worker], pure=False) for i, worker in enumerate(workers)]
        )
    )
    report("broadcast_1gb_seconds", seconds, "s")
    report("broadcast_1gb_memory", (tree_pss() - before) / 1e9, "GB")
    client.shutdown()


def main() -> None:
    """Runs them."""
    report = Report("distributed")
    client = start(report)
    short_tasks(client, report)
    objects(client, report)
    dask_collections(report)
    client.shutdown()
    broadcast(report)


if __name__ == "__main__":
    main()
