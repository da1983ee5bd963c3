"""Where data lies, and which workers go: asked of the scheduler, which sees to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.client.packing.keys import MAX_INTEGER
from holdfast.client.packing.options import names_of_workers
from holdfast.cluster import protocol

#: How long what runs on workers that are to go gets to end, and how long all of it may take.
GRACE_SECONDS = 30.0
RETIRE_SECONDS = 300.0
#: The scheduler answers for itself; this is for one that does not.
REPLY_SECONDS = 10.0
#: Longer is for ever.
_LONGEST_SECONDS = 1e8


def limited(seconds: float | None, default: float, name: str = "timeout") -> float:
    """A time that a user has given, as the scheduler takes it."""
    if seconds is None:
        return default
    if seconds != seconds:
        raise ValueError(f"{name} is a number of seconds, not nan")
    return max(0.0, min(seconds, _LONGEST_SECONDS))


def retire(
    core: Core,
    workers: Any,
    names: Any,
    *,
    close_workers: bool,
    remove: bool,
    close_hosts: bool,
    grace: float | None,
    timeout: float | None,
    choice: Mapping[str, Any],
) -> Operation[dict[str, Any]]:
    """See `Client.retire_workers`."""
    if workers is not None and names is not None:
        raise ValueError("workers= and names= say the same: give one of them")
    named = workers if workers is not None else names
    if named is None:
        chosen = yield from to_close(core, **choice)
    elif any(value is not None for value in choice.values()):
        given = ", ".join(f"{name}=" for name, value in choice.items() if value is not None)
        raise ValueError(f"{given} choose workers, and workers= or names= have named them")
    else:
        chosen = names_of_workers(named)
    patience = limited(timeout, RETIRE_SECONDS)
    answer = yield Ask(
        core.session,
        protocol.requests.RETIRE_WORKERS,
        patience + REPLY_SECONDS,
        workers=chosen,
        close_workers=bool(close_workers),
        close_hosts=bool(close_hosts),
        awaits_end=bool(remove),
        grace=limited(grace, GRACE_SECONDS, "grace"),
        timeout=patience,
    )
    return dict(answer)


def to_close(
    core: Core,
    n: int | None = None,
    target: int | None = None,
    minimum: int | None = None,
    memory_ratio: float | None = None,
    key: Callable[[dict[str, Any]], Any] | str | None = None,
) -> Operation[list[str]]:
    """The addresses of the workers that it costs least to close; see `Client.workers_to_close`."""
    for name, number in (("n", n), ("target", target), ("minimum", minimum)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
            raise ValueError(f"{name} is a number of workers, not {number!r:.100}")
    groups = None
    if key is not None:
        workers = (yield Ask(core.session, protocol.requests.INFO))["workers"]
        groups = {address: _group(key, {"address": address, **worker}) for address, worker in workers.items()}
    answer = yield Ask(
        core.session,
        protocol.requests.WORKERS_TO_CLOSE,
        n=None if n is None else min(n, MAX_INTEGER),
        target=None if target is None else min(target, MAX_INTEGER),
        minimum=None if minimum is None else min(minimum, MAX_INTEGER),
        memory_ratio=None if memory_ratio is None else float(memory_ratio),
        groups=groups,
    )
    return list(answer)


def _group(key: Callable[[dict[str, Any]], Any] | str, worker: dict[str, Any]) -> str:
    group = worker.get(key) if isinstance(key, str) else key(worker)
    return f"{type(group).__name__} {group!r}"[:1000]
