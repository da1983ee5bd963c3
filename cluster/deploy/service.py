"""What ``holdfast start`` leaves running: a process that owns a scheduler and a node agent, or only an agent.

It holds the run directory by which ``holdfast status`` and ``holdfast stop`` find it, starts the others, starts the
agent and the scheduler again when they die (`keeper.py`, `scheduler_place.py`), waits until it is told to stop or the
cluster ends, and stops what is left. The others end when it ends, however it ends: ``python -m
holdfast.cluster.deploy.service``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

from holdfast.cluster import protocol
from holdfast.cluster.comm.tokens import add_token_option, token_of
from holdfast.cluster.deploy.ask import ask
from holdfast.cluster.deploy.cluster_processes import LocalProcesses
from holdfast.cluster.deploy.keeper import AgentKeeper
from holdfast.cluster.deploy.plan import NodePlan
from holdfast.cluster.deploy.scheduler_file import write_scheduler_file
from holdfast.cluster.processes import log_files
from holdfast.cluster.processes.child import add_process_options, configure_logging, default_signals, tell_parent
from holdfast.cluster.processes.parent import NotReadyError
from holdfast.cluster.processes.run_directory import RunDirectory, sweep
from holdfast.objectstore.errors import HoldfastError

#: Its ``__name__`` is ``__main__``.
logger = logging.getLogger("holdfast.cluster.deploy.service")

#: Seconds for what it owns to stop in.
STOP_SECONDS = 10.0


class _Told(BaseException):
    """Raised by the signal handler wherever the main thread is."""


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _on_signal(number: int, _frame: Any) -> None:
    # Once is enough: what follows is the way out, and that must not be cut short.
    _ignore_signals()
    raise _Told(signal.Signals(number).name)


def _ignore_signals() -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)


def service_arguments(
    kind: str,
    plan: NodePlan,
    *,
    host: str,
    port: int,
    address: str,
    log_directory: Path,
    timeout: float,
    scheduler_file: Path | None = None,
    pid_file: Path | None = None,
    durable: str | None = None,
    state_directory: Path | None = None,
) -> list[str]:
    """The command line of a service. ``kind``: ``head`` (``host`` and ``port`` count) or ``host`` (``address``)."""
    options = {
        "--kind": kind,
        "--host": host,
        "--port": str(port),
        "--address": address,
        "--plan": json.dumps(dataclasses.asdict(plan)),
        "--log-directory": str(log_directory),
        "--timeout": str(timeout),
    }
    if durable is not None:
        options["--durable"] = durable
    if state_directory is not None:
        options["--state-directory"] = os.path.abspath(state_directory)
    if scheduler_file is not None:
        options["--scheduler-file"] = os.path.abspath(scheduler_file)
    if pid_file is not None:
        options["--pid-file"] = os.path.abspath(pid_file)
    return [part for option in options.items() for part in option]


def default_state_directory(host: str, port: int) -> Path | None:
    """Where the state of a cluster lies for which no place was named, if its scheduler listens there.

    None, where nobody would find it again: the port is any free one, or this user has no home. Then the service keeps
    the state for as long as it runs.
    """
    logs = log_files.default_root()
    if not port or logs is None:
        return None
    return logs.parent / "state" / f"{host.replace(':', '_')}-{port}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m holdfast.cluster.deploy.service", description=__doc__)
    parser.add_argument("--kind", choices=["head", "host"], required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--plan", required=True)
    parser.add_argument("--log-directory", type=Path, required=True)
    parser.add_argument("--timeout", type=float, default=30.0)
    parser.add_argument("--scheduler-file", type=Path)
    parser.add_argument("--pid-file", type=Path)
    parser.add_argument("--durable")
    parser.add_argument("--state-directory", type=Path)
    add_token_option(parser)
    add_process_options(parser)
    options = parser.parse_args(arguments)
    configure_logging(options)
    default_signals()
    token = token_of(options)
    parts = LocalProcesses(
        token,
        log_level=options.log_level,
        log_directory=options.log_directory,
        scheduler_options={} if options.durable is None else {"durable": options.durable},
    )
    directory: RunDirectory | None = None
    files: list[Path] = []
    code = 0
    ready_fd = options.ready_fd
    for number in _SIGNALS:
        signal.signal(number, _on_signal)
    try:
        try:
            directory = RunDirectory.create(options.kind)
            _start(parts, options, directory.path)

            def tell() -> dict[str, Any]:
                info = {**parts.describe(), "log_directory": str(options.log_directory)}
                directory.write_info(info)
                return info

            info = tell()
            if options.scheduler_file is not None:
                identity = ask(parts.scheduler_address, protocol.requests.INFO, token=token)
                write_scheduler_file(options.scheduler_file, identity)
                files.append(options.scheduler_file)
            if options.pid_file is not None:
                _write_pid(options.pid_file)
                files.append(options.pid_file)
            logger.info("ready: %s", info)
            tell_parent(ready_fd, info)
            ready_fd = None
            logs = [options.log_directory / "service.log", *parts.log_files]
            code = _wait(parts.keep(tell), options.lifeline_fd, logs)
        finally:
            _ignore_signals()
    except _Told as told:
        logger.info("stopping: %s", told)
        tell_parent(ready_fd, {"error": "it was told to stop while it started"})
    except HoldfastError as error:
        late = f"\nAll of it has {options.timeout:g} s to start; --timeout gives it more"
        text = f"{error}{late if isinstance(error, NotReadyError) else ''}"
        logger.error("stopping: %s", text)
        tell_parent(ready_fd, {"error": text})
        code = 1
    except Exception as error:
        logger.exception("stopping")
        tell_parent(ready_fd, {"error": f"{type(error).__name__}: {error}"})
        code = 1
    try:
        parts.stop(STOP_SECONDS)
    except HoldfastError:
        logger.exception("stopping failed")
        code = 1
    finally:
        for file in files:
            file.unlink(missing_ok=True)
        if directory is not None:
            directory.close()
        logger.info("stopped")
    return code


def _write_pid(file: Path) -> None:
    try:
        file.write_text(f"{os.getpid()}\n")
    except OSError as error:
        raise HoldfastError(f"the file {file} can't be written: {error.strerror or error}; see --pid-file") from None


def _start(parts: LocalProcesses, options: argparse.Namespace, own: Path) -> None:
    sweep()
    plan = NodePlan(**json.loads(options.plan))
    if options.kind == "head":
        parts.start_cluster(
            options.host,
            options.port,
            [plan],
            options.timeout,
            state_directory=options.state_directory or own / "state",
            is_temporary=options.state_directory is None,
        )
    else:
        parts.scheduler_address = options.address
        parts.start_nodes([plan], options.timeout)


def _wait(keeper: AgentKeeper, lifeline_fd: int | None, logs: list[Path]) -> int:
    """Wait until something essential ends. A head goes on without its own node: other hosts may have joined it.

    Meanwhile the logs are kept from growing without bound.
    """
    poll = select.poll()
    poll.register(keeper.over_fd, select.POLLIN)
    if lifeline_fd is not None:
        os.set_inheritable(lifeline_fd, False)
        poll.register(lifeline_fd, select.POLLIN | select.POLLHUP)
    while not (ended := [fd for fd, _ in poll.poll(log_files.CHECK_SECONDS * 1000)]):
        log_files.cut_large(logs)
    if lifeline_fd in ended:
        logger.info("stopping: the parent process ended")
        return 0
    return keeper.code


if __name__ == "__main__":
    sys.exit(main())
