"""What there is in the cluster, asked of the scheduler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.client.futures.collections import futures_of
from holdfast.client.futures.future import Future
from holdfast.client.packing.keys import wire_key
from holdfast.client.packing.options import names_of_workers
from holdfast.cluster import protocol
from holdfast.cluster.protocol.limits import MAX_INTEGER
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import in_slices

#: Keys that are asked about with one request, and how much they may take.
MAX_ASKED = 10_000
MAX_ASKED_NBYTES = 16 << 20
#: The scheduler answers for itself; this is for one that does not.
_GRACE_SECONDS = 10.0
#: Longer is for ever.
_LONGEST_WAIT_SECONDS = 1e8


#: What results can be said to lie at.
_PLACES = ("host", "worker")


def _by_workers(by: str) -> bool:
    if by not in _PLACES:
        raise ValueError(f"by={by!r:.100} is unknown: results lie at each {' or '.join(map(repr, _PLACES))}")
    return by == "worker"


def who_has(core: Core, futures: Any, by: str) -> Operation[dict[Any, list[str]]]:
    """See `Client.who_has`."""
    workers = _by_workers(by)
    if futures is None:
        answers = [(yield Ask(core.session, protocol.requests.WHO_HAS, keys=None, workers=workers))]
    else:
        keys = [future.key for future in futures_of(futures)]
        answers = []
        for part in in_slices(keys, MAX_ASKED, MAX_ASKED_NBYTES):
            answers.append((yield Ask(core.session, protocol.requests.WHO_HAS, keys=part, workers=workers)))
    return {key: list(dict.fromkeys(nodes)) for answer in answers for key, nodes in answer.items()}


def has_what(core: Core, workers: Any, by: str) -> Operation[dict[str, list[Any]]]:
    """See `Client.has_what`."""
    nodes = None if workers is None else names_of_workers(workers)
    answer = yield Ask(core.session, protocol.requests.HAS_WHAT, nodes=nodes, workers=_by_workers(by))
    return {node: list(dict.fromkeys(keys)) for node, keys in answer.items()}


def nthreads(core: Core, workers: Any) -> Operation[dict[str, int]]:
    """See `Client.nthreads`."""
    named = None if workers is None else names_of_workers(workers)
    return dict((yield Ask(core.session, protocol.requests.NTHREADS, workers=named)))


def processing(core: Core, workers: Any) -> Operation[dict[str, tuple[Any, ...]]]:
    """See `Client.processing`."""
    named = None if workers is None else names_of_workers(workers)
    answer = yield Ask(core.session, protocol.requests.PROCESSING, workers=named)
    return {worker: tuple(dict.fromkeys(keys)) for worker, keys in answer.items()}


def nbytes(core: Core, keys: Any, summary: bool) -> Operation[dict[Any, int]]:
    """See `Client.nbytes`."""
    if keys is None:
        return dict((yield Ask(core.session, protocol.requests.SIZES, keys=None, summary=bool(summary))))
    found: Counter[Any] = Counter()
    wanted = list(dict.fromkeys(keys_named(keys)))
    for part in in_slices(wanted, MAX_ASKED, MAX_ASKED_NBYTES):
        found.update((yield Ask(core.session, protocol.requests.SIZES, keys=part, summary=bool(summary))))
    return dict(found)


def keys_named(keys: Any) -> list[Any]:
    """Keys that a user names: one, or several in a list or set, each as itself or by its future."""
    several = list(keys) if isinstance(keys, (list, set, frozenset, dict, Iterator)) else [keys]
    return [key.key if isinstance(key, Future) else wire_key(key) for key in several]


def prefix_states(core: Core) -> Operation[dict[str, dict[str, int]]]:
    """See `Client.get_task_prefix_states`."""
    return dict((yield Ask(core.session, protocol.requests.PREFIX_STATES)))


def scheduler_info(core: Core, n_workers: int) -> Operation[dict[str, Any]]:
    """See `Client.scheduler_info`."""
    if isinstance(n_workers, bool) or not isinstance(n_workers, int) or not -1 <= n_workers <= MAX_INTEGER:
        raise ValueError(f"n_workers is a number of workers, or -1 for all of them, not {n_workers!r:.100}")
    return dict((yield Ask(core.session, protocol.requests.INFO, n=None if n_workers == -1 else n_workers)))


def wait_for_workers(core: Core, n_workers: int, timeout: float | None) -> Operation[None]:
    """See `Client.wait_for_workers`."""
    if isinstance(n_workers, bool) or not isinstance(n_workers, int) or not 0 <= n_workers <= MAX_INTEGER:
        raise ValueError(f"n_workers is a number of workers, not {n_workers!r:.100}")
    if timeout is not None:
        if timeout != timeout:
            raise ValueError("the timeout is a number of seconds, not nan")
        timeout = max(0.0, min(timeout, _LONGEST_WAIT_SECONDS))
    wait = None if timeout is None else timeout + _GRACE_SECONDS
    yield Ask(core.session, protocol.requests.WAIT_FOR_WORKERS, wait, n=n_workers, timeout=timeout)


def ask(core: Core, request: Request, timeout: float | None, arguments: dict[str, Any]) -> Operation[Any]:
    """What the scheduler answers to a request."""
    return (yield Ask(core.session, request, timeout, **arguments))
