"""Which cluster a command is about."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from holdfast.cluster.comm.addresses import format_address, parse_address
from holdfast.cluster.deploy.ask import answer_to, ask
from holdfast.cluster.processes import run_directory
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.reports.asking import Questions
from holdfast.objectstore.errors import HoldfastError

T = TypeVar("T")


def address_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--address`` for commands that look at a cluster."""
    return click.option(
        "--address",
        metavar="HOST:PORT",
        envvar="HOLDFAST_ADDRESS",
        help="The scheduler's address. Default: HOLDFAST_ADDRESS, or the cluster that runs on this host.",
    )(function)


class NoClusterError(HoldfastError):
    """No cluster of this user runs on this host, and none was named."""


def ask_cluster(address: str | None, request: Request, **arguments: Any) -> Any:
    """Ask the cluster at ``address``, or the one that this user has started here."""
    return ask(_full_address(address), request, **arguments)


def answers_of_cluster(address: str | None, questions: Questions[T]) -> T:
    """Ask the cluster questions, one after the other; what they come to."""
    full = _full_address(address)
    answer: Any = None
    refused: Exception | None = None
    while True:
        try:
            request, arguments = questions.send(answer) if refused is None else questions.throw(refused)
        except StopIteration as end:
            result: T = end.value
            return result
        refused = None
        try:
            answer = answer_to(full, request, arguments)
        except HoldfastError as error:
            refused = error


def _full_address(address: str | None) -> str:
    return format_address(*parse_address(_running_here() if address is None else address))


def restarting_here(address: str) -> list[dict[str, Any]]:
    """What this user's processes on this host tell of node agents of a cluster that they are starting again."""
    return [
        _until_now(place, entry["time"])
        for entry in _parts_here()
        if entry["address"] == address
        for place in entry.get("restarting") or ()
    ]


def scheduler_here(address: str) -> dict[str, Any] | None:
    """What the process of this user on this host that keeps the scheduler at an address tells of it; None: there is
    none."""
    for entry in _parts_here():
        if entry["address"] == address and entry.get("scheduler"):
            return _until_now(entry["scheduler"], entry["time"])
    return None


def _until_now(place: dict[str, Any], said: float) -> dict[str, Any]:
    since = time.time() - said
    left, died = place.get("next_start_seconds"), place.get("last_death_seconds")
    if left is not None:
        left = max(0.0, left - since)
    if died is not None:
        died += since
    return {**place, "next_start_seconds": left, "last_death_seconds": died}


def state_directory_here(address: str | None) -> Path:
    """The state directory of a cluster whose scheduler this user has started on this host: that at ``address``."""
    address = _full_address(address)
    for entry in _parts_here():
        if entry["address"] == address and entry.get("state_directory"):
            return Path(entry["state_directory"])
    raise HoldfastError(f"the scheduler of the cluster at {address} was not started here: name its state directory")


def store_memory_here() -> int:
    """The bytes that the object stores of this user's clusters on this host may take."""
    return sum(int(entry.get("object_store_memory") or 0) for entry in _parts_here())


def _parts_here() -> list[dict[str, Any]]:
    return [
        entry for kind in ("head", "host", "local") for entry in run_directory.running(kind) if entry.get("address")
    ]


def _running_here() -> str:
    addresses = list(dict.fromkeys(entry["address"] for entry in _parts_here()))
    if not addresses:
        raise NoClusterError(
            "no cluster of yours runs on this host. 'holdfast start --head' starts one; --address HOST:PORT "
            "looks at one elsewhere"
        )
    if len(addresses) > 1:
        others = ", ".join(addresses[1:])
        click.echo(f"Showing {addresses[0]}; there are others here (--address): {others}", err=True)
    return str(addresses[0])
