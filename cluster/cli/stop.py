"""``holdfast stop``."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from holdfast.cluster import protocol
from holdfast.cluster.comm.addresses import format_address, parse_address
from holdfast.cluster.deploy.ask import ask
from holdfast.cluster.deploy.cluster_processes import kill_strays
from holdfast.cluster.journal.directory import forget
from holdfast.cluster.processes import run_directory
from holdfast.cluster.processes.parent import require_pidfds
from holdfast.cluster.tables import count, format_duration, shorten
from holdfast.objectstore.errors import HoldfastError

#: The states of tasks that may still be waited for.
UNDONE = frozenset({"waiting", "no-worker", "ready", "processing"})


#: How long a scheduler gets to say what a stop would end.
LOOK_SECONDS = 2.0
#: So many names stand in a line.
NAMES_SHOWN = 5


@click.command()
@click.option(
    "--address", metavar="HOST:PORT", help="Stop the whole cluster whose scheduler is there, on all of its hosts."
)
@click.option(
    "--yes", "-y", is_flag=True, help="Don't ask, whatever is ended. Without a terminal the command never asks."
)
@click.option(
    "--force", is_flag=True, help="Kill the processes at once, without asking them to end. Only those of this host."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    default=15.0,
    show_default=True,
    help="Seconds that the processes have to end. What runs longer is killed.",
)
def stop(address: str | None, yes: bool, force: bool, timeout: float) -> None:
    """Stop what 'holdfast start' has started here.

    "Here" is this host, for this user. The command says what it ends for others: clients, tasks that are not done,
    datasets. If there is any of these, and this is a terminal, it asks first.

    The command waits until all processes are gone. A LocalCluster belongs to the Python process that made it, and
    stays.

    \b
    Examples:
      holdfast stop
      holdfast stop --address 10.0.0.1:8786 --yes
    """
    # Hosts before heads: a host whose scheduler is gone would look for it.
    services = [*run_directory.running("host"), *run_directory.running("head")]
    if address is not None:
        address = format_address(*parse_address(address))
        services = [service for service in services if service.get("address") == address]
        if not any(service["kind"] == "head" for service in services):
            _stop_elsewhere(address, yes, force, timeout)
            return
    heads = [service["address"] for service in services if service["kind"] == "head" and service.get("address")]
    _announce([] if force else heads, yes)
    for service in services:
        killed = _stop(service, 0.0 if force else timeout)
        what = "the cluster" if service["kind"] == "head" else "this host's part of the cluster"
        how = "Killed" if killed else "Stopped"
        up = format_duration(time.time() - service["started"])
        click.echo(f"{how} {what} at {service.get('address', '?')} (pid {service['pid']}, up {up}).")
    if not services:
        click.echo("Nothing was running.")
    run_directory.sweep()


def _announce(addresses: Sequence[str], yes: bool) -> None:
    """Say what is ended with clusters, and ask whether it may be, if there is a terminal to ask at."""
    ended = [words for address in addresses if (words := _what_ends(address))]
    for words in ended:
        click.echo(words)
    if ended and not yes and sys.stdin.isatty():
        click.confirm("Stop it?", abort=True)


def _what_ends(address: str) -> str:
    """What others have of a cluster, in words; nothing if they have nothing, or the scheduler can't say."""
    try:
        report = ask(address, protocol.requests.STATUS, timeout=LOOK_SECONDS)
    except (HoldfastError, OSError):
        return ""
    clients = max(0, (report.get("clients") or 0) - 1)  # this command is one while it asks
    tasks = sum(number for state, number in (report.get("tasks") or {}).items() if state in UNDONE)
    stay = set(report.get("durable") or ())
    datasets = [name for name in report.get("datasets") or () if name not in stay]
    parts = [count(number, noun) for number, noun in ((clients, "client"), (tasks, "task")) if number]
    if datasets:
        names = ", ".join(shorten(str(name), 60) for name in datasets[:NAMES_SHOWN])
        more = ", …" if len(datasets) > NAMES_SHOWN else ""
        parts.append(f"{count(len(datasets), 'dataset')} ({names}{more})")
    return f"The cluster at {address} still has {', '.join(parts)}: they end with it." if parts else ""


def _stop_elsewhere(address: str, yes: bool, force: bool, timeout: float) -> None:
    """Have a scheduler shut its cluster down, and wait until it is gone."""
    if force:
        raise click.UsageError(f"--force kills processes of this host, and what you have started here is not {address}")
    _announce([address], yes)
    ask(address, protocol.requests.SHUTDOWN)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            socket.create_connection(parse_address(address), LOOK_SECONDS).close()
        except OSError:
            click.echo(f"Stopped the cluster at {address}.")
            return
        time.sleep(0.05)
    raise HoldfastError(
        f"the cluster at {address} was told to stop, and its scheduler is still there after {timeout:g} s"
    )


def _stop(service: dict[str, Any], timeout: float) -> bool:
    """Returns whether it had to be killed."""
    require_pidfds()
    try:
        pidfd = os.pidfd_open(service["pid"])
    except ProcessLookupError:
        return False
    killed = False
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM if timeout else signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        killed = not timeout
        if timeout and not poll.poll(timeout * 1000):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            killed = True
        poll.poll()
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
    # What it owned ends with it; see that it does.
    if service.get("id"):
        kill_strays(service["id"], 1.0)
    if killed and service.get("state_directory"):
        forget(Path(service["state_directory"]))
    return killed
