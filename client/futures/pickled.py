"""Futures that a user pickles by hand: what keeps their results on the way, and who may have them.

What Holdfast pickles holds the futures in it. What a user pickles, into a file, a socket or the arguments of another
process, is out of sight. So pickling a future takes out a *lease*: the scheduler keeps the result for a time
(`LEASE_VARIABLE`), and as long as the client that has pickled it holds it itself. What is unpickled names the lease.

==========================  =========================================================================================
a pickle is read …          … and gives
==========================  =========================================================================================
in time                     a future, which holds the result like any other; so it does each time that it is read
later                       a future that was cancelled: it says that the lease is over
never                       nothing; the lease ends in time
where there is no client    an error, which says which client to open
by a client of another      an error, which names both clusters
cluster
==========================  =========================================================================================

A library that pickles futures only to see what is in them, as dask does for its tokens, needs no lease.
"""

from __future__ import annotations

import os
import time
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.key_state import KeyState
from holdfast.client.core.registry import registry
from holdfast.client.defaults import current
from holdfast.client.futures.binding import bound
from holdfast.cluster import protocol
from holdfast.cluster.call_sites import call_site
from holdfast.cluster.durations import seconds
from holdfast.cluster.protocol.limits import MAX_LEASE_SECONDS

#: How long the result of a future is kept that was pickled by hand; 0: not for that.
LEASE_VARIABLE = "HOLDFAST_PICKLED_LEASE"
LEASE_SECONDS = 600.0

#: Of a pickle: the cluster's id, the scheduler's address, the client, the lease, how long that is, and until when.
Lease = tuple[Any, str, str, str, float, float]


def leased(core: Core, state: KeyState) -> Lease:
    """A lease of a key that a client holds."""
    limit = _lease_seconds()
    lease = core.table.token_of(state)
    until = time.time() + limit
    session = core.session
    if session.ended is None and limit:
        session.enqueue(protocol.client.PICKLED([(state.key, lease, limit)], until, call_site()))
        session.flush_promptly()
    return session.scheduler.get("id"), core.scheduler_address, core.id, lease, limit, until


def _lease_seconds() -> float:
    text = os.environ.get(LEASE_VARIABLE)
    if not text:
        return LEASE_SECONDS
    try:
        return min(MAX_LEASE_SECONDS, max(0.0, float(seconds(text) or 0.0)))
    except ValueError:
        raise ValueError(
            f"{LEASE_VARIABLE} says how long the results of pickled futures are kept, such as '10 min' or 600, and not "
            f"{text!r:.100}"
        ) from None


def claim(key: Any, lease: Lease) -> tuple[Any, ...]:
    """What a client says that holds the key of a future which was pickled by hand."""
    _, _, client, name, limit, until = lease
    return protocol.client.UNPICKLED([(key, name, client, limit, max(0.0, until - time.time()))])


def core_for(key: Any, lease: Lease) -> Core:
    """The core of the client that such a future belongs to where it is unpickled.

    Raises
    ------
    ValueError
        There is no client here, or none of the cluster that the future is of.
    """
    cluster, address, *_ = lease
    to = getattr(bound.to, "core", bound.to)
    if isinstance(to, Core) and _is_of(to, cluster):
        return to
    try:
        core = current()
    except ValueError as error:
        raise ValueError(
            f"a future of {key!r:.200} is unpickled, and there is no client here that it could belong to: open one "
            f"before, with holdfast.Client({address!r}) ({error})"
        ) from None
    if _is_of(core, cluster):
        return core
    for other in list(registry.open):
        if _is_of(other, cluster) and not other.closed:
            return other
    raise ValueError(
        f"a future of {key!r:.200} is unpickled, which is a result of the cluster at {address}, and the client here is "
        f"one of the cluster at {core.scheduler_address}: open one there before, with holdfast.Client({address!r})"
    )


def _is_of(core: Core, cluster: Any) -> bool:
    return cluster is not None and core.session.scheduler.get("id") == cluster
