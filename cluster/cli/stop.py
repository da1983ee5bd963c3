"""``holdfast stop``."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Any

import click

from holdfast.cluster import rundir
from holdfast.cluster.cli.tables import format_duration
from holdfast.cluster.deploy.processes import kill_strays
from holdfast.cluster.process import require_pidfds


@click.command()
@click.option("--force", is_flag=True, help="Kill at once instead of asking first.")
@click.option("--timeout", type=click.FloatRange(0), default=15.0, show_default=True, help="Seconds before killing.")
def stop(force: bool, timeout: float) -> None:
    """Stop what this user has started on this host with 'holdfast start'.

    Waits until it is gone. A LocalCluster in somebody's Python process is theirs and stays.

    \b
    Example:
      holdfast stop
    """
    # Hosts before heads: a host whose scheduler is gone would look for it.
    services = [*rundir.running("host"), *rundir.running("head")]
    for service in services:
        killed = _stop(service, 0.0 if force else timeout)
        what = "the cluster" if service["kind"] == "head" else "this host's part of the cluster"
        how = "Killed" if killed else "Stopped"
        up = format_duration(time.time() - service["started"])
        click.echo(f"{how} {what} at {service.get('address', '?')} (pid {service['pid']}, up {up}).")
    if not services:
        click.echo("Nothing was running.")
    rundir.sweep()


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
    return killed
