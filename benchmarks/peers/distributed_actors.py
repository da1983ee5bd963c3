"""The workloads of actors on dask.distributed."""

from __future__ import annotations

from typing import Any

from distributed import Client, LocalCluster

from benchmarks.peers import actor_calls
from benchmarks.peers.reporting import Report


def call_often(actor: Any, count: int) -> None:
    """A task that calls an actor."""
    for future in [actor.back(1) for _ in range(count)]:
        future.result()


def main() -> None:
    """Runs them."""
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50, memory_limit=0)
    client = Client(cluster)
    system = actor_calls.System(
        make=lambda cls: client.submit(cls, actor=True).result(),
        call=lambda actor, method, argument: getattr(actor, method)(argument),
        result=lambda future: future.result(),
        call_in_tasks=lambda actor, tasks, count: client.gather(
            [client.submit(call_often, actor, count, pure=False) for _ in range(tasks)]
        ),
    )
    actor_calls.run(Report("distributed"), system)
    client.shutdown()


if __name__ == "__main__":
    main()
