"""Where data lies, and which workers go: asked of the scheduler, which sees to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.client.futures.collections import futures_of
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import adopting
from holdfast.client.futures.reading import failure_of, ready
from holdfast.client.packing.options import names_of_workers
from holdfast.client.raising import raise_in_operation
from holdfast.cluster import protocol
from holdfast.cluster.errors import NotCopiedError
from holdfast.cluster.protocol.limits import MAX_INTEGER
from holdfast.cluster.protocol.shapes import in_slices

#: How long what runs on workers that are to go gets to end, and how long all of it may take.
GRACE_SECONDS = 30.0
RETIRE_SECONDS = 300.0
#: How long copies may take, and how many keys are asked about with one request, and how much they may take.
MOVE_SECONDS = 300.0
MAX_ASKED = 10_000
MAX_ASKED_NBYTES = 16 << 20
#: Of what could not be copied, so much is named.
MAX_NAMED = 3
#: The scheduler answers for itself; this is for one that does not.
REPLY_SECONDS = 10.0
#: Longer is for ever.
_LONGEST_SECONDS = 1e8
_MAX_BRANCHING = 1 << 16


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


def replicate(
    core: Core, futures: Any, n: int | None, workers: Any, branching: int, timeout: float | None
) -> Operation[None]:
    """See `Client.replicate`."""
    for name, number in (("n", n), ("branching_factor", branching)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise ValueError(f"{name} is a number from 1 on, not {number!r:.100}")
    named = None if workers is None else names_of_workers(workers)
    held = yield from _finished(core, futures)
    patience = limited(timeout, MOVE_SECONDS)
    short: list[dict[str, Any]] = []
    for keys in in_slices([future.key for future in held], MAX_ASKED, MAX_ASKED_NBYTES):
        answer = yield Ask(
            core.session,
            protocol.requests.REPLICATE,
            patience + REPLY_SECONDS,
            keys=keys,
            n=None if n is None else min(n, MAX_INTEGER),
            workers=named,
            branching=min(branching, _MAX_BRANCHING),
            timeout=patience,
        )
        short += answer["short"]
    if short:
        words = [f"{each['key']!r:.200} has {each['copies']} of {each['wanted']}: {each['reason']}" for each in short]
        more = f"; and {len(words) - MAX_NAMED:,} more" if len(words) > MAX_NAMED else ""
        raise NotCopiedError(f"fewer copies than wanted: {'; '.join(words[:MAX_NAMED])}{more}")


def rebalance(core: Core, futures: Any, workers: Any, timeout: float | None) -> Operation[None]:
    """See `Client.rebalance`."""
    named = None if workers is None else names_of_workers(workers)
    patience = limited(timeout, MOVE_SECONDS)
    if futures is None:
        slices: list[Any] = [None]
    else:
        held = yield from _finished(core, futures)
        slices = list(in_slices([future.key for future in held], MAX_ASKED, MAX_ASKED_NBYTES))
    for keys in slices:
        answer = yield Ask(
            core.session,
            protocol.requests.REBALANCE,
            patience + REPLY_SECONDS,
            keys=keys,
            workers=named,
            timeout=patience,
        )
        if answer["failed"]:
            raise NotCopiedError(
                f"{answer['failed']:,} results could not be moved, and stay where they are: {answer['reason']}"
            )


def _finished(core: Core, futures: Any) -> Operation[list[Future]]:
    """This client's futures of what is given, once all of them have results."""
    mine: list[Future] = []
    for future in [futures] if isinstance(futures, Future) else futures_of(futures):
        mine.append(future if future._core is core else (yield from adopting(core, future)))
    states = list(dict.fromkeys(future._state for future in mine))
    if states:
        yield from ready(core, states, on_error=True)
    for state in states:
        if state.failure is not None or state.reason is not None:
            raise_in_operation((yield from failure_of(core, state)))
    return mine


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
