"""What there is in the cluster, asked of the scheduler."""

from __future__ import annotations

from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.client.futures.collections import futures_of
from holdfast.client.packing.keys import MAX_INTEGER
from holdfast.client.packing.options import names_of_workers
from holdfast.cluster import protocol
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import in_slices

#: Keys that are asked about with one request, and how much they may take.
MAX_ASKED = 10_000
MAX_ASKED_NBYTES = 16 << 20
#: The scheduler answers for itself; this is for one that does not.
_GRACE_SECONDS = 10.0
#: Longer is for ever.
_LONGEST_WAIT_SECONDS = 1e8


def who_has(core: Core, futures: Any) -> Operation[dict[Any, list[str]]]:
    """See `Client.who_has`."""
    if futures is None:
        answers = [(yield Ask(core.session, protocol.requests.WHO_HAS, keys=None))]
    else:
        keys = [future.key for future in futures_of(futures)]
        answers = []
        for part in in_slices(keys, MAX_ASKED, MAX_ASKED_NBYTES):
            answers.append((yield Ask(core.session, protocol.requests.WHO_HAS, keys=part)))
    return {key: list(dict.fromkeys(nodes)) for answer in answers for key, nodes in answer.items()}


def has_what(core: Core, workers: Any) -> Operation[dict[str, list[Any]]]:
    """See `Client.has_what`."""
    nodes = None if workers is None else names_of_workers(workers)
    answer = yield Ask(core.session, protocol.requests.HAS_WHAT, nodes=nodes)
    return {node: list(dict.fromkeys(keys)) for node, keys in answer.items()}


def nthreads(core: Core, workers: Any) -> Operation[dict[str, int]]:
    """See `Client.nthreads`."""
    named = None if workers is None else names_of_workers(workers)
    return dict((yield Ask(core.session, protocol.requests.NTHREADS, workers=named)))


def scheduler_info(core: Core) -> Operation[dict[str, Any]]:
    """See `Client.scheduler_info`."""
    return dict((yield Ask(core.session, protocol.requests.INFO)))


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
