"""The node agent's process: ``python -m holdfast.cluster.node``."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from pathlib import Path

from holdfast.cluster import dask_config
from holdfast.cluster.comm.loops import run
from holdfast.cluster.comm.tokens import add_token_option, token_of
from holdfast.cluster.node import NodeAgent
from holdfast.cluster.processes import garbage, oom
from holdfast.cluster.processes.child import LEFT_EXIT_CODE, add_process_options, serve
from holdfast.cluster.processes.forking import Forker


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m holdfast.cluster.node", description="Be a host of a cluster.")
    parser.add_argument("--scheduler", required=True, metavar="ADDRESS")
    parser.add_argument("--host", default="127.0.0.1", help="where other hosts reach this one (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="for transfers between hosts (default: any free one)")
    parser.add_argument("--workers", type=int, default=1, metavar="N")
    parser.add_argument("--indices", type=json.loads, metavar="JSON", help="the numbers of the workers, if not 0 on")
    parser.add_argument("--environment", type=json.loads, metavar="JSON", help="of each worker, besides this one's")
    parser.add_argument("--preload", type=json.loads, default=(), metavar="JSON", help="what each worker runs first")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of each worker")
    parser.add_argument("--memory-limit", type=int, default=None, metavar="BYTES", help="of each worker")
    parser.add_argument("--object-store-memory", type=int, default=None, metavar="BYTES")
    parser.add_argument("--spill-directory", default=None, metavar="PATH", help="where objects go that don't fit")
    parser.add_argument("--resources", type=json.loads, default=None, metavar="JSON")
    parser.add_argument("--name", default=None, help="of the host, for people")
    parser.add_argument("--deaths", type=int, default=0, metavar="N", help="of agents that were here before")
    parser.add_argument("--last-death", default=None, metavar="TEXT", help="how the last of them ended, for people")
    parser.add_argument("--last-death-seconds", type=float, default=0.0, metavar="N", help="how long ago that was")
    parser.add_argument("--forker-fd", type=int, metavar="N", help="the way to what forks the workers")
    parser.add_argument("--worker-logs", type=Path, metavar="DIRECTORY", help="give each worker a log of its own there")
    add_token_option(parser)
    dask_config.add_option(parser)
    add_process_options(parser)
    return parser.parse_args(arguments)


class _Process(NodeAgent):
    """An agent that has its process to itself."""

    async def start(self) -> None:
        await super().start()
        garbage.collect_when_few(lambda: self.store.count)


def main() -> int:
    options = parse_arguments()
    oom.be_killed_before_others(oom.AGENT)
    garbage.collect_young_only()
    agent = _Process(
        options.scheduler,
        token=token_of(options),
        forker=None if options.forker_fd is None else Forker(socket.socket(fileno=options.forker_fd)),
        host=options.host,
        port=options.port,
        n_workers=options.workers,
        threads_per_worker=options.threads,
        indices=options.indices,
        environment=options.environment,
        preload=options.preload,
        memory_limit=options.memory_limit,
        store_capacity=options.object_store_memory,
        spill_directory=options.spill_directory,
        resources=options.resources,
        name=options.name,
        deaths=options.deaths,
        last_death=options.last_death,
        last_death_seconds=options.last_death_seconds,
        log_level=options.log_level,
        worker_logs=options.worker_logs,
        dask_config=dask_config.given(options),
    )
    code = run(
        serve(
            agent,
            options,
            lambda: {
                "address": agent.address,
                "pid": os.getpid(),
                "store_socket": agent.store.socket_path,
                "run_directory": str(agent.run_directory.path),
            },
        )
    )
    return code if agent.reason is None else LEFT_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())
