"""``holdfast start``."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from holdfast.cluster import protocol
from holdfast.cluster.cli.dask_options import explain, take_dask_options
from holdfast.cluster.cli.find import store_memory_here
from holdfast.cluster.cli.parameters import Count, Resources, Size
from holdfast.cluster.comm import tokens
from holdfast.cluster.comm.addresses import DEFAULT_PORT, format_address, is_loopback, parse_address
from holdfast.cluster.deploy.ask import ask, wait_for_scheduler
from holdfast.cluster.deploy.interfaces import address_of_interface
from holdfast.cluster.deploy.options import preloads_of
from holdfast.cluster.deploy.plan import BEYOND_THIS_MACHINE, NodePlan, plan_nodes
from holdfast.cluster.deploy.scheduler_file import wait_for_address
from holdfast.cluster.deploy.service import STOP_SECONDS, default_state_directory, service_arguments
from holdfast.cluster.processes.log_files import default_root
from holdfast.cluster.processes.parent import ChildProcess, spawn
from holdfast.cluster.tables import count
from holdfast.objectstore.durable.opening import normal_url
from holdfast.objectstore.errors import HoldfastError
from holdfast.objectstore.sizes import format_size
from holdfast.objectstore.spill.location import default_location

LOOPBACK = "127.0.0.1"
#: How long a cluster that is to be joined may take to answer.
JOIN_SECONDS = 5.0
EVERYWHERE = ("0.0.0.0", "::")


#: What `plan_nodes` calls what was given by an option.
_OPTIONS = {
    "n_workers": "--workers",
    "threads_per_worker": "--threads",
    "memory_limit": "--memory",
    "object_store_memory": "--object-store-memory",
    "spill_directory": "--spill-directory",
}


@click.command()
@click.option("--head", is_flag=True, help="Start a new cluster: its scheduler, and this host as its first host.")
@click.option("--address", metavar="HOST:PORT", help="Join this host to the cluster whose scheduler is there.")
@click.option(
    "--scheduler-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="With --head: write a file that says where the scheduler is, for Client(scheduler_file=). Without --head and "
    "--address: join the cluster whose scheduler has written this file.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    help="The address by which other hosts reach this one. Default with --head: 127.0.0.1, this machine only. "
    "0.0.0.0 listens on every address. Default with --address: the address from which this host reaches the scheduler.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help=f"With --head: the port of the scheduler; 0: any free one. Default: {DEFAULT_PORT}.",
)
@click.option(
    "--interface",
    metavar="NAME",
    help="The network interface whose address is --host.",
)
@click.option(
    "--workers",
    "--nworkers",
    "workers",
    type=Count(),
    metavar="N",
    help="How many worker processes run here. Default: so many that workers × threads = cores, or fewer if there is "
    "little memory.",
)
@click.option(
    "--threads",
    "--nthreads",
    "threads",
    type=Count(),
    metavar="N",
    help="How many tasks each worker runs at once. Default: so many that workers × threads = cores.",
)
@click.option(
    "--memory",
    "--memory-limit",
    "memory",
    type=Size(or_none=True),
    metavar="SIZE",
    help="The most memory of each worker, as in '2GB', or '0.25' of this machine's; 0: no limit. A worker that takes "
    "more is ended and started again. Default: each worker's part of what the object store leaves.",
)
@click.option(
    "--object-store-memory",
    type=Size(),
    metavar="SIZE",
    help="Capacity of the object store, as in '8GB'. Default: 30 % of memory; if stores of other clusters of yours run "
    "on this machine, 30 % of what they leave.",
)
@click.option(
    "--resources",
    type=Resources(),
    metavar="'NAME=AMOUNT ...'",
    help="Resources of each worker, which tasks can ask for, as in 'GPU=2 MEM=1e9'.",
)
@click.option(
    "--spill-directory",
    "--local-directory",
    "spill_directory",
    metavar="PATH",
    help="Where the object store puts objects that don't fit into memory. Default: the first on a disk of $TMPDIR, "
    "/tmp, /var/tmp and ~/.cache.",
)
@click.option(
    "--durable",
    metavar="PLACE",
    help="With --head: where datasets are durable, a directory or a URL such as s3://bucket/published. Default: "
    "HOLDFAST_DURABLE, or ~/.local/state/holdfast/durable.",
)
@click.option(
    "--state-directory",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="HOLDFAST_STATE_DIRECTORY",
    metavar="PATH",
    help="With --head: where the scheduler writes down what it decides, so that another one can go on if it dies, also "
    "after a new start. Default: HOLDFAST_STATE_DIRECTORY, or a directory for this address in "
    "~/.local/state/holdfast/state.",
)
@click.option(
    "--name",
    help="This host's name in the cluster. Default: its host name. If a host of the cluster has that name already, a "
    "number is added, as in 'alpha.2'.",
)
@click.option(
    "--preload",
    multiple=True,
    metavar="MODULE",
    help="What each worker runs first: the name of a module, the path of a file, or code. May be given several times.",
)
@click.option(
    "--pid-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Write the id of the process that 'holdfast stop' ends into this file, which goes when that ends.",
)
@click.option(
    "--log-directory",
    type=click.Path(path_type=Path),
    help="Where the processes log: each to a file of 32 MB at most. Default: a fresh directory in "
    "~/.local/state/holdfast/logs.",
)
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], case_sensitive=False),
    default="INFO",
    show_default=True,
    help="The lowest level that is logged. 'debug' logs every move of a task, too.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=30.0,
    show_default=True,
    help="Seconds in which the cluster, or this host, has to be ready. If it is not, the command stops it and fails.",
)
@click.option("--block", is_flag=True, help="Stay in the foreground. Ctrl-C stops what was started.")
@click.argument("preload_argv", nargs=-1, type=click.UNPROCESSED)
@take_dask_options
def start(
    head: bool,
    address: str | None,
    scheduler_file: Path | None,
    host: str | None,
    port: int | None,
    interface: str | None,
    workers: int | None,
    threads: int | None,
    memory: float | str | None,
    object_store_memory: float | None,
    resources: dict[str, float] | None,
    spill_directory: str | None,
    durable: str | None,
    state_directory: Path | None,
    name: str | None,
    preload: tuple[str, ...],
    preload_argv: tuple[str, ...],
    pid_file: Path | None,
    log_directory: Path | None,
    log_level: str,
    timeout: float,
    block: bool,
    **of_dask: Any,
) -> None:
    """Start a cluster on this host, or join this host to one.

    The command returns when the cluster is ready, and leaves it running. A worker that dies is started again, and so
    are the scheduler and the node agent, the process that keeps the workers and the object store of a host. 'holdfast
    status' says what died, when and why.

    When the scheduler dies, the cluster goes on as soon as another one runs: hosts, workers and clients wait for it. If
    all processes of the head have been killed, the same command at the same address goes on from the state directory.
    'holdfast stop' ends a cluster for good: only what was published durably is there again after that.

    \b
    Examples:
      holdfast start --head
      holdfast start --head --workers 4 --object-store-memory 8GB
      holdfast start --head --resources 'GPU=2'
      holdfast start --head --host 10.0.0.1 --port 8786
      holdfast start --address 10.0.0.1:8786
      holdfast start --head --scheduler-file scheduler.json
      holdfast start --scheduler-file scheduler.json
      holdfast start --head --preload setup.py -- --colour red
      holdfast start --head --durable s3://bucket/published

    What follows -- are arguments of what is preloaded. Options of 'dask scheduler' and 'dask worker' that have no
    effect here are taken with a word on why.

    Each process that connects must have the cluster's token. The first start makes it, in ~/.config/holdfast/token (or
    the file that HOLDFAST_TOKEN_FILE names). To join from another host, copy that file there, or set HOLDFAST_TOKEN to
    its content.

    \b
    These variables tell a new cluster how long to wait, in seconds or as text such as '1 minute':
      HOLDFAST_RESUME_TIMEOUT         for a worker or host whose connection broke (15)
      HOLDFAST_CLIENT_RESUME_TIMEOUT  for a client whose connection broke (30)
      HOLDFAST_SILENCE_TIMEOUT        for a host that says nothing (30)
      HOLDFAST_NO_WORKER_TIMEOUT      for a worker that may run a task (30)
      HOLDFAST_SCHEDULER_TIMEOUT      for a scheduler that has died (60)
      HOLDFAST_RECOVERY_TIMEOUT       for hosts and workers, when a scheduler goes on (10)

    HOLDFAST_EVENTS_LOG_LENGTH says how many events of each topic its scheduler keeps (100,000), and
    HOLDFAST_PROFILE_INTERVAL that the workers of a host take profiles from the beginning on, every so many seconds.
    """
    explain(of_dask)
    if preload_argv and not preload:
        raise click.UsageError(f"{' '.join(preload_argv)!r} is no option; it would be an argument of --preload")
    if interface is not None:
        if host is not None:
            raise click.UsageError("say either --host or --interface")
        host = address_of_interface(interface)
    if not head and address is None and scheduler_file is not None:
        address = wait_for_address(scheduler_file, min(timeout, JOIN_SECONDS))
    elif not head and scheduler_file is not None:
        raise click.UsageError("--scheduler-file says where the scheduler is, as --address does: give one of them")
    if head == (address is not None):
        raise click.UsageError("say either --head, to start a cluster, or --address HOST:PORT, to join one")
    if address is not None and port is not None:
        raise click.UsageError("--port is the scheduler's; with --address it is part of the address")
    if address is not None and durable is not None:
        raise click.UsageError("--durable is the cluster's; give it with --head")
    place = None if durable is None else normal_url(durable)
    listen = host or LOOPBACK
    chosen_port = DEFAULT_PORT if port is None else port
    if not head:
        state_directory = None  # HOLDFAST_STATE_DIRECTORY is for heads
    elif state_directory is None:
        state_directory = default_state_directory(listen, chosen_port)
    kind = "head" if head else "host"
    if address is not None:
        address = format_address(*parse_address(address))
        # Asked here and now, so that a wrong address or token is said at once and not by a process in its log.
        token = tokens.load_token()
        wait_for_scheduler(address, timeout=min(timeout, JOIN_SECONDS), token=token)
        name = _free_name(name, address, token)
    else:
        token = tokens.load_token(create=True)
    own_address = _own_address(host, address)
    taken = store_memory_here()
    try:
        (plan,) = plan_nodes(
            workers,
            threads,
            host=own_address,
            memory_limit=memory,
            object_store_memory=object_store_memory,
            spill_directory=spill_directory,
            resources=resources,
            name=name,
            preload=preloads_of(preload, preload_argv),
            taken_nbytes=taken,
        )
    except (ValueError, TypeError) as error:
        raise click.UsageError(re.sub("|".join(_OPTIONS), lambda found: _OPTIONS[found[0]], str(error))) from None
    logs = _log_directory(log_directory, kind)
    begun = time.monotonic()
    arguments = service_arguments(
        kind,
        plan,
        host=listen,
        port=chosen_port,
        address=address or "",
        log_directory=logs,
        timeout=timeout,
        scheduler_file=scheduler_file if head else None,
        pid_file=pid_file,
        durable=place,
        state_directory=state_directory,
    )
    with tokens.handed_down(token) as token_fd:
        child = spawn(
            "holdfast.cluster.deploy.service",
            [*arguments, tokens.OPTION, str(token_fd), "--log-level", log_level],
            name="the cluster" if head else "this host",
            log_file=logs / "service.log",
            pass_fds=[token_fd],
            new_session=not block,
            lifeline=block,
        )
    if taken and object_store_memory is None:
        click.echo(
            f"Object stores of your clusters on this machine may take {format_size(taken)}. This one gets 30 % of what "
            "they leave (--object-store-memory)."
        )
    _run(child, plan, listen if head else None, logs, timeout, begun, block)


def _run(
    child: ChildProcess, plan: NodePlan, listen: str | None, logs: Path, timeout: float, begun: float, block: bool
) -> None:
    def told(number: int, _frame: Any) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, told)
    try:
        try:
            ready = child.wait_ready(timeout + STOP_SECONDS)
        except HoldfastError as error:
            child.stop(STOP_SECONDS)
            raise HoldfastError(f"{error}\nLogs: {logs}") from None
        _explain(ready["address"], plan, listen, logs, time.monotonic() - begun, block)
        if block:
            code = child.wait()
            raise HoldfastError(f"{child.name} ended{child.log_tail()}") if code else SystemExit(0)
    except KeyboardInterrupt:
        click.echo("Stopping.")
        stopped = child.stop(STOP_SECONDS + 5)
        sys.exit(0 if stopped and block else 1)


def _explain(address: str, plan: NodePlan, listen: str | None, logs: Path, seconds: float, block: bool) -> None:
    """Say what runs and how to connect. ``listen`` is None for a host that joined."""
    workers, threads = plan.n_workers, plan.n_workers * plan.threads_per_worker
    store = f"{format_size(plan.store_capacity)} object store"
    size = f"{count(workers, 'worker')}, {count(threads, 'thread')}, {store}"
    host, port = parse_address(address)
    if listen in EVERYWHERE:
        host, address = plan.host, format_address(plan.host, port)
    if listen is None:
        click.echo(f"This host has joined the cluster at {address} with {size} ({seconds:.1f} s).")
    else:
        click.echo(f"Holdfast runs at {address}: {size} ({seconds:.1f} s).")
    lines = [("connect", f'from holdfast import Client; client = Client("{address}")')]
    if listen is not None and host in (LOOPBACK, "localhost", "::1"):
        lines += [("other hosts", "can't reach it; start it with --host and an address of this host to let them join")]
    elif listen is not None:
        lines += [("other hosts", f"holdfast start --address {host}:{port}   (copy the token file there first)")]
    token = f"from {tokens.VARIABLE}" if os.environ.get(tokens.VARIABLE) else str(tokens.token_path())
    if plan.spill_directory is None and (nowhere := default_location()).path is None:
        lines += [("spilling", f"off: {nowhere.reason}")]
    lines += [("token", token), ("logs", str(logs)), ("stop", "Ctrl-C" if block else "holdfast stop")]
    for label, text in lines:
        click.echo(f"  {label:<12} {text}")
    if not is_loopback(plan.host if listen is None else listen):
        click.echo(f"{BEYOND_THIS_MACHINE}.", err=True)


def _own_address(host: str | None, scheduler: str | None) -> str:
    """The address of this host that the other hosts of the cluster reach it by."""
    if host is not None and host not in EVERYWHERE:
        return host
    if scheduler is None and host is None:
        return LOOPBACK
    # Nothing is sent: connecting a datagram socket only chooses the way, and with it the address that it starts from.
    target = parse_address(scheduler) if scheduler is not None else ("192.0.2.1", 9)
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(target)
            return str(sock.getsockname()[0])
        except OSError as error:
            if scheduler is None:  # no network: other processes of this machine are all there is
                return LOOPBACK
            raise HoldfastError(f"there is no way to {scheduler}: {error.strerror or error}") from None


def _free_name(name: str | None, address: str, token: bytes) -> str | None:
    """A name that no host of the cluster has: this one, if it is free."""
    wanted = name or socket.gethostname()
    nodes = ask(address, protocol.requests.STATUS, token=token)["nodes"].values()
    taken = {node["hostname"] for node in nodes}
    if wanted not in taken:
        return name
    free = next(found for number in itertools.count(2) if (found := f"{wanted}.{number}") not in taken)
    click.echo(f"This host is called {free}: a host of the cluster is called {wanted} already.")
    return free


def _log_directory(named: Path | None, kind: str) -> Path:
    if named is None:
        return _fresh_log_directory(kind)
    try:
        named.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HoldfastError(f"there can be no logs in {named}: {error.strerror or error}; name another place") from None
    return named


def _fresh_log_directory(kind: str) -> Path:
    logs = default_root()
    name = time.strftime("%Y%m%d-%H%M%S") + f"-{kind}"
    if logs is not None:
        for attempt in range(1000):
            directory = logs / (f"{name}-{attempt}" if attempt else name)
            try:
                directory.mkdir(mode=0o700, parents=True)
                return directory
            except FileExistsError:
                continue
            except OSError:  # no home that could be written to
                break
    try:
        return Path(tempfile.mkdtemp(prefix=f"holdfast-logs-{name}-"))
    except OSError as error:
        raise HoldfastError(f"no directory for logs could be made: {error}; name one with --log-directory") from None
