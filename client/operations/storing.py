"""Data of a client's own in the stores, under keys that the scheduler knows.

Data that is large and part of what is sent is stored while it is packed, inside of a pickler, which can't be left and
taken up again. So these functions are plain ones. In an asynchronous client they never wait: data goes into this host's
store if there is room, and is sent with the task where there is none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.key_state import PENDING
from holdfast.client.drivers.effects import Elsewhere, Operation, WouldWaitError
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import borrow, own
from holdfast.client.packing.constants import Constants
from holdfast.client.packing.keys import random_token
from holdfast.client.packing.sizes import LARGE_NBYTES
from holdfast.client.stores.access import STORE_TIMEOUT_SECONDS
from holdfast.client.stores.location import Location
from holdfast.client.stores.tokens import fingerprint, fingerprint_of
from holdfast.cluster import protocol
from holdfast.cluster.call_sites import call_site
from holdfast.cluster.collecting import collecting
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.protocol.limits import MAX_PAYLOAD_NBYTES
from holdfast.objectstore import Encoded


def constants(core: Core, large_nbytes: int = LARGE_NBYTES, on_part: Callable[[Any], None] | None = None) -> Constants:
    """Where large data goes that is part of what this client sends."""
    return Constants(partial(_store_constant, core), large_nbytes, on_part)


def _store_constant(core: Core, value: Any) -> Future | None:
    """Put a value into a store, under a key that names its content. None if there is no store, and it is small."""
    encoded, inside = _encoded(core, value)
    if not _has_store(core, encoded):
        return None
    stores = core.stores
    location = None
    token = fingerprint(stores, encoded)
    if token is None:
        location = core.driver.finish(_write(core, encoded, None))
        token = fingerprint_of(stores, encoded, location)
    key = f"{encoded.type_name}-{token}"
    known = borrow(core, key)
    if known is not None and known.done():
        if location is not None:
            stores.forget(location)
        return known
    if location is None:
        location = core.driver.finish(_write(core, encoded, key))
    return announce(core, key, location, encoded.type_name, inside, chosen=False, at_once=False)


def store_as(core: Core, value: Any, key: Any) -> Future | None:
    """Put a value into a store under a key. None if there is no store, and it is small."""
    encoded, inside = _encoded(core, value)
    if not _has_store(core, encoded):
        return None
    location = core.driver.finish(_write(core, encoded, str(key)))
    return announce(core, key, location, encoded.type_name, inside, chosen=True, at_once=False)


def _write(core: Core, encoded: Encoded, key: str | None) -> Operation[Location]:
    stores = core.stores
    location: Location = yield Elsewhere(
        partial(stores.write, encoded, key, None, timeout=None),
        at_once=lambda: stores.write_at_once(encoded, key, stores.targets(None)),
        undo=partial(take_back, core, type_name=encoded.type_name),
    )
    return location


def _encoded(core: Core, value: Any) -> tuple[Encoded, list[Future]]:
    """A value as it is stored, and this client's futures of what is to live as long: those inside the value."""
    with collecting() as inside:
        encoded = core.stores.encode(value)
    return encoded, [own(core, future) for future in inside]


def _has_store(core: Core, encoded: Encoded) -> bool:
    """Whether there is a store. For a value that can't be sent without, one is waited for."""
    core.session.check_open()
    there = core.stores.any_node if core.driver.may_block else core.stores.local is not None
    if not there:
        if encoded.nbytes <= MAX_PAYLOAD_NBYTES:
            return False
        if not core.driver.may_block:
            raise WouldWaitError(
                f"a {encoded.type_name} of {encoded.nbytes:,} bytes can't be sent with a task, and there is no object "
                "store on this host: await client.scatter(data), and give its future"
            )
        core.stores.wait_for_node(STORE_TIMEOUT_SECONDS)
    return True


def announce(
    core: Core,
    key: Any,
    location: Location,
    type_name: str,
    inside: list[Future],
    *,
    chosen: bool,
    at_once: bool = True,
    where: str | None = None,
) -> Future:
    """Tell the scheduler of an object that this client has stored, with futures in it; the future of it.

    ``chosen``: the user chose the key; else it is made of the data, or of chance. Unless ``at_once``, that is said
    with what is sent next. ``where``: the line of the user's code, if that is not what calls.
    """
    where = call_site() if where is None else where
    table, session = core.table, core.session
    entries = [(key, location.object_id, location.nbytes, type_name, node, location.inline) for node in location.nodes]
    with table.lock, table.beginning() as begun:
        session.check_open()
        state, new = table.state_of(key)
        if new:
            begun.append(state)
            state.call = location.object_id if chosen else None
        future = Future._of(state, core)
        if state.status == PENDING:
            table.scattered(state, location)
        messages: list[tuple[Any, ...]] = [protocol.client.SCATTERED(entries, chosen, where)]
        if inside:
            keys = list(dict.fromkeys([future.key for future in inside]))
            messages.append(protocol.client.CONTAINS([(key, keys)]))
        session.enqueue_all(messages)
        begun.commit()
    if at_once:
        session.flush_soon()
    return future


def take_back(core: Core, location: Location, type_name: str) -> None:
    """Have an object deleted that this client has stored and has told no other of. In any thread."""
    if core.stores.is_here(location):
        core.stores.forget(location)
        return
    # A store of another host is the scheduler's to clear: it is told of the object, and that it is not wanted.
    with contextlib.suppress(ConnectError):
        announce(core, f"{type_name}-{random_token()}", location, type_name, [], chosen=False, where="")
