"""Holdfast through the workloads of actors: one process, one figure a line on standard output."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.goals import SYSTEM
from benchmarks.peers import actor_calls
from benchmarks.peers.reporting import Report
from holdfast import Actor, Client, LocalCluster


def call_often(actor: Actor, count: int) -> None:
    """A task that calls an actor."""
    for future in [actor.back(1) for _ in range(count)]:
        future.result()


def main() -> None:
    """Runs them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny counts; the figures mean nothing")
    counts = actor_calls.QUICK if parser.parse_args().quick else actor_calls.Counts()
    client = Client(LocalCluster(n_workers=2, threads_per_worker=1))

    def call_in_tasks(actor: Any, tasks: int, count: int) -> None:
        client.gather([client.submit(call_often, actor, count, pure=False) for _ in range(tasks)])

    system = actor_calls.System(
        make=lambda cls: client.submit(cls, actor=True).result(),
        call=lambda actor, method, argument: getattr(actor, method)(argument),
        result=lambda future: future.result(),
        call_in_tasks=call_in_tasks,
    )
    actor_calls.run(Report(SYSTEM), system, counts)
    client.shutdown()


if __name__ == "__main__":
    main()
