"""The scheduler's process: its options, and how it begins and ends."""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
from pathlib import Path
from typing import Any

from holdfast.cluster.comm.addresses import DEFAULT_PORT
from holdfast.cluster.comm.listening import bound_socket
from holdfast.cluster.comm.loops import run
from holdfast.cluster.comm.tokens import add_token_option, token_of
from holdfast.cluster.durations import scheduler_timeout, seconds_of_variable
from holdfast.cluster.processes import child, garbage
from holdfast.cluster.protocol.opening import MAX_RESUME_SECONDS
from holdfast.cluster.scheduler.io.coming_back import RECOVERY_SECONDS
from holdfast.cluster.scheduler.io.journaling import Journal
from holdfast.cluster.scheduler.io.membership import SILENCE_SECONDS
from holdfast.cluster.scheduler.io.server import (
    CLIENT_RESUME_SECONDS,
    RESUME_SECONDS,
    Scheduler,
)
from holdfast.cluster.scheduler.io.warm_up import warm_up
from holdfast.cluster.scheduler.machine.machine import MAX_FAILURES, NO_WORKER_TIMEOUT_SECONDS
from holdfast.cluster.scheduler.parts import topics
from holdfast.objectstore.durable.opening import default_place, normal_url


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m holdfast.cluster.scheduler", description="Run a scheduler.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="the port; 0: any (default: %(default)s)")
    parser.add_argument("--listen-fd", type=int, metavar="N", help="a bound socket to use instead of --host and --port")
    parser.add_argument(
        "--no-worker-timeout",
        type=float,
        metavar="SECONDS",
        help="fail a task that no worker may run after this (default: HOLDFAST_NO_WORKER_TIMEOUT, or "
        f"{NO_WORKER_TIMEOUT_SECONDS:g})",
    )
    add_token_option(parser)
    parser.add_argument(
        "--silence-timeout",
        type=float,
        metavar="SECONDS",
        help="give a node up that has said nothing for this long, until it comes back (default: "
        f"HOLDFAST_SILENCE_TIMEOUT, or {SILENCE_SECONDS:g})",
    )
    parser.add_argument(
        "--resume-timeout",
        type=_resume_seconds,
        metavar="SECONDS",
        help="a node or worker whose connection broke has left if it is not back after this, and a node also after "
        f"--silence-timeout; 0: at once (default: HOLDFAST_RESUME_TIMEOUT, or {RESUME_SECONDS:g})",
    )
    parser.add_argument(
        "--client-resume-timeout",
        type=_resume_seconds,
        metavar="SECONDS",
        help=f"the same for a client (default: HOLDFAST_CLIENT_RESUME_TIMEOUT, or {CLIENT_RESUME_SECONDS:g})",
    )
    parser.add_argument(
        "--events-log-length",
        type=_count,
        metavar="N",
        help=f"how many events of each topic are kept (default: HOLDFAST_EVENTS_LOG_LENGTH, or {topics.KEPT:,})",
    )
    parser.add_argument(
        "--max-failures",
        type=int,
        metavar="N",
        default=MAX_FAILURES,
        help="a task that is charged for so many deaths of workers fails (default: %(default)s)",
    )
    parser.add_argument(
        "--durable",
        metavar="PLACE",
        help="where datasets are durable if no place is named: a directory or a URL (default: HOLDFAST_DURABLE, or a "
        "directory of this user's)",
    )
    parser.add_argument(
        "--blocked-requests", type=json.loads, default=(), metavar="JSON", help="what no client may ask, by name"
    )
    parser.add_argument(
        "--state-directory",
        type=Path,
        metavar="PATH",
        help="where the scheduler writes what it decides, and goes on from if another one has ended there (default: "
        "nowhere)",
    )
    parser.add_argument(
        "--temporary-state",
        action="store_true",
        help="the state directory, and with it the cluster, goes with the process that has started this one",
    )
    parser.add_argument(
        "--recovery-timeout",
        type=float,
        metavar="SECONDS",
        help="how long hosts and workers of the scheduler before this one are waited for (default: "
        f"HOLDFAST_RECOVERY_TIMEOUT, or {RECOVERY_SECONDS:g})",
    )
    parser.add_argument("--validate", action="store_true", help="check everything after each event: slow, for tests")
    child.add_process_options(parser)
    options = parser.parse_args()
    garbage.collect_young_only()
    return run(_serve(options))


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= topics.MOST_KEPT:
        raise argparse.ArgumentTypeError(f"a number from 1 to {topics.MOST_KEPT:,} expected, {text!r:.80} found")
    return int(text)


def _resume_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_RESUME_SECONDS:
        raise argparse.ArgumentTypeError(f"seconds from 0 to {MAX_RESUME_SECONDS:g} expected, {text!r:.80} found")
    return seconds


def _events_kept() -> int:
    """What ``HOLDFAST_EVENTS_LOG_LENGTH`` says."""
    text = os.environ.get("HOLDFAST_EVENTS_LOG_LENGTH")
    if not text:
        return topics.KEPT
    try:
        return _count(text)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"HOLDFAST_EVENTS_LOG_LENGTH: {error}") from None


def _given(option: float | None, variable: str, default: float, *, most: float = math.inf) -> float:
    """The seconds of an option, or else of a variable of the environment, or else the default.

    A variable that is no time is an error of the start, which whoever starts the cluster is told of.
    """
    return seconds_of_variable(variable, default, most=most) if option is None else option


async def _serve(options: argparse.Namespace) -> int:
    server = _Process(options)
    outlasts = options.state_directory is not None and not options.temporary_state
    abandon = server.abandon if outlasts else None
    return await child.serve(server, options, server.describe, abandon=abandon)


class _Process:
    """Makes the scheduler when it is started, so that a port in use is an error of the start."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.scheduler: Scheduler | None = None

    async def start(self) -> None:
        options = self._options
        if options.listen_fd is not None:
            sock = socket.socket(fileno=options.listen_fd)
            sock.setblocking(False)
        else:
            sock = bound_socket(options.host, options.port)
        token = token_of(options, create=True)
        garbage.stop_collecting()  # all that a journal has stays, and is no garbage
        journal = None
        if options.state_directory is not None:
            journal = Journal.open(options.state_directory, is_temporary=options.temporary_state)
        self.scheduler = Scheduler(
            token=token,
            sock=sock,
            no_worker_timeout=_given(
                options.no_worker_timeout, "HOLDFAST_NO_WORKER_TIMEOUT", NO_WORKER_TIMEOUT_SECONDS
            ),
            silence_timeout=_given(options.silence_timeout, "HOLDFAST_SILENCE_TIMEOUT", SILENCE_SECONDS),
            resume_seconds=_given(
                options.resume_timeout, "HOLDFAST_RESUME_TIMEOUT", RESUME_SECONDS, most=MAX_RESUME_SECONDS
            ),
            client_resume_seconds=_given(
                options.client_resume_timeout,
                "HOLDFAST_CLIENT_RESUME_TIMEOUT",
                CLIENT_RESUME_SECONDS,
                most=MAX_RESUME_SECONDS,
            ),
            events_kept=_events_kept() if options.events_log_length is None else options.events_log_length,
            max_failures=options.max_failures,
            durable=default_place() if options.durable is None else normal_url(options.durable),
            blocked_requests=options.blocked_requests,
            journal=journal,
            recovery_seconds=_given(options.recovery_timeout, "HOLDFAST_RECOVERY_TIMEOUT", RECOVERY_SECONDS),
            restart_seconds=scheduler_timeout(),
            validate=options.validate,
        )
        garbage.collect_young_again()
        await self.scheduler.start()
        warm_up()
        tasks = self.scheduler.state.tasks
        garbage.collect_when_few(lambda: len(tasks))
        self.finished = self.scheduler.finished

    async def close(self) -> None:
        if self.scheduler is not None:
            await self.scheduler.close()

    def describe(self) -> dict[str, Any]:
        """What the parent is told when it has started."""
        assert self.scheduler is not None
        return self.scheduler.describe()

    async def abandon(self) -> None:
        """End as if killed: another scheduler goes on."""
        if self.scheduler is not None:
            await self.scheduler.abandon()
