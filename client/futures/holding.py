"""Which future stands for a key in a client: one that it has, or one of another client's.

What a future names is a key of a cluster. So of a key that is another client's of the same cluster, this client can
hold one as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.key_state import ERROR, FINISHED, PENDING, KeyState
from holdfast.client.core.registry import known
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.client.futures.errors import error_of
from holdfast.client.futures.future import Future
from holdfast.cluster import protocol
from holdfast.cluster.errors import ConnectError


def own(core: Core, future: Future) -> Future:
    """A future that stands for the value of this one in a call of this client: itself, if it is this client's.

    Raises
    ------
    CancelledError, ConnectError
        It was cancelled or released, or the connection that it was had by is gone.
    ValueError
        It is of another cluster.
    WouldWaitError
        This is a call that never waits, and another client has only just submitted it.
    """
    if future._core is not core:
        return core.driver.finish(adopting(core, future))
    future._check_held()
    if future._state.reason is not None:
        raise error_of(future._state)
    return future


def adopting(core: Core, future: Future) -> Operation[Future]:
    """This client's future of the key of another client's."""
    future._check_held()
    key, other = future.key, future._core
    if not core.shares_cluster(other):
        if other.session.ended is not None:
            raise ValueError(
                f"{key!r:.200} is a result of another cluster, which can't be asked for it any more "
                f"({other.session.ended}): compute it here from what it was made of"
            )
        raise ValueError(
            f"{key!r:.200} is a result of the cluster at {other.scheduler_address}, and the one of this client, at "
            f"{core.scheduler_address}, can't read it: take its value from there (client.gather) and scatter it "
            "here, or compute it here from what it was made of"
        )
    held = borrow(core, key, failed=True)
    if held is not None:
        return held
    if other.session.ended is not None:
        return Future._wanted(key, core)  # a dataset or another client may still hold it
    if future._state.reason is not None:
        raise error_of(future._state)
    yield from _making_known(other, future._state)
    # Else the other client may let go, or leave, before the scheduler hears of this one's hold.
    other.borrowers.add(core)
    kept = another(future)
    mine = Future._wanted(key, core)
    core.table.when_ready(mine._state, kept.release)
    return mine


def _making_known(core: Core, state: KeyState) -> Operation[None]:
    """Return when the scheduler knows a key that this client holds, whatever others say to it from then on."""
    if state.status == PENDING and state.since > core.told_turn:
        ended = core.table.ended_turn
        with contextlib.suppress(ConnectError):
            yield Ask(core.session, protocol.requests.WHO_HAS, keys=[])
            core.told_turn = max(core.told_turn, ended)


def another(future: Future) -> Future:
    """Another future of the same key."""
    core = future._core
    with core.table.lock:
        return Future._of(future._state, core)


def borrow(core: Core, key: Any, *, failed: bool = False) -> Future | None:
    """A future of a key that this client holds already and that is, or will be, in memory; else None.

    ``failed``: or whose task failed, so that what depends on it fails likewise.
    """
    table = core.table
    if key not in table.states:
        return None
    with table.lock:
        state = table.states.get(key)
        if state is None or state.status not in (PENDING, FINISHED, ERROR if failed else FINISHED):
            return None
        if state.expected and state.status == PENDING:
            return None  # it may be this client that is to submit it
        return Future._of(state, core)


def elsewhere(core: Core, key: Any) -> Future | None:
    """A future of a key that this client can't have computed with: one of another client in this process, or one
    of its own that was cancelled."""
    others = [other for other in known() if other is not core]
    others.sort(key=lambda other: (not core.shares_cluster(other), other.session.ended is not None))
    for each in (core, *others):
        with each.table.lock:
            state = each.table.states.get(key)
            if state is not None and state.holders:
                return Future._of(state, each)
    return None


def hold_all(core: Core, keys: Iterable[Any]) -> dict[Any, Future]:
    """Futures of keys that the cluster knows."""
    table = core.table
    held: dict[Any, Future] = {}
    with table.lock, table.beginning() as begun:
        for key in keys:
            state, new = table.state_of(key)
            if new:
                begun.append(state)
            held[key] = Future._of(state, core)
        if begun:
            core.session.enqueue(protocol.client.WANT([state.key for state in begun]))
            begun.commit()
    core.session.flush_soon()
    return held


def held_by(core: Core) -> dict[Any, Future]:
    """What a client holds, each key with a future of it."""
    table = core.table
    table.settle_all()
    with table.lock:
        return {key: Future._of(state, core) for key, state in table.states.items()}


def holders_of(core: Core) -> dict[Any, int]:
    """How many futures hold each key of a client."""
    table = core.table
    table.settle_all()
    with table.lock:
        return {key: state.holders for key, state in table.states.items()}
