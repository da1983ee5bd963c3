"""The workloads of actors on Ray."""

from __future__ import annotations

import logging
import os
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # Ray reads it when it's imported
import ray

from benchmarks.peers import actor_calls
from benchmarks.peers.reporting import Report
from benchmarks.systems import REPOSITORY


def call_often(actor: Any, count: int) -> None:
    """A task that calls an actor."""
    ray.get([actor.back.remote(1) for _ in range(count)])


def main() -> None:
    """Runs them."""
    ray.init(
        num_cpus=2,
        object_store_memory=4_000_000_000,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY)}},
    )
    often = ray.remote(call_often)
    system = actor_calls.System(
        make=lambda cls: ray.remote(cls).remote(),
        call=lambda actor, method, argument: getattr(actor, method).remote(argument),
        result=ray.get,
        call_in_tasks=lambda actor, tasks, count: ray.get([often.remote(actor, count) for _ in range(tasks)]),
    )
    actor_calls.run(Report("ray"), system)
    ray.shutdown()


if __name__ == "__main__":
    main()
