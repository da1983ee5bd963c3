"""`Client.scatter`: values into the object store."""

from __future__ import annotations

import contextlib
import operator
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from holdfast.client.core.core import Core
from holdfast.client.drivers.effects import Elsewhere, NotAtOnce, Operation
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import adopting, borrow, own
from holdfast.client.futures.reading import read
from holdfast.client.operations.moving import replicate
from holdfast.client.operations.queues import fed_by, is_queue
from holdfast.client.operations.storing import announce, take_back
from holdfast.client.packing.checks import check_in_one
from holdfast.client.packing.foreign import check_ends, check_no_foreign_future
from holdfast.client.packing.keys import check_together, random_token, wire_key
from holdfast.client.packing.options import names_of_workers
from holdfast.client.stores.access import AT_ONCE_NBYTES, StoreAccess
from holdfast.client.stores.location import Location
from holdfast.client.stores.tokens import hashes_in_place, registered_token, token_of_content
from holdfast.cluster.call_sites import call_site
from holdfast.cluster.collecting import collecting
from holdfast.cluster.errors import CancelledError
from holdfast.objectstore import Encoded, encode

#: How long `scatter` waits for a first host.
SCATTER_TIMEOUT_SECONDS = 30.0
#: To how many others a host gives what is broadcast at a time.
BRANCHING_FACTOR = 2


def scatter(
    core: Core, data: Any, workers: Any, broadcast: bool | int, hashed: bool, timeout: float | None
) -> Operation[Any]:
    """See `Client.scatter`."""
    return _scatter_from(call_site(), core, data, workers, broadcast, hashed, timeout)


def _scatter_from(
    where: str, core: Core, data: Any, workers: Any, broadcast: bool | int, hashed: bool, timeout: float | None
) -> Operation[Any]:
    """Scatter for a line of the user's code."""
    check_in_one("scatter", workers)
    n = _hosts_of(broadcast)
    if is_queue(data):

        def scattered_each(core: Core, items: tuple[Any, ...]) -> list[Future]:
            futures: list[Future] = core.driver.run(
                _scatter_from(where, core, list(items), workers, broadcast, hashed, timeout)
            )
            return futures

        return fed_by(core, [data], scattered_each)
    if isinstance(data, Iterator):
        check_ends((data,), "what is scattered")
    deadline = None if timeout is None else time.monotonic() + timeout
    stores = core.stores
    core.session.check_open()
    if not stores.any_node:
        yield from stores.waiting_for_node(SCATTER_TIMEOUT_SECONDS if timeout is None else timeout)
    names = None if workers is None else names_of_workers(workers)

    # Small ones are announced to the store together, as long as this is one thread's.
    scattering = _Scattering(core, names, hashed, deadline, where, [])
    with contextlib.nullcontext() if core.driver.gives_awaitables else stores.batch():
        scattered = yield from _scatter(scattering, data)
    if broadcast and scattering.futures:
        # From there the hosts give it to each other: this client sends it once.
        yield from replicate(core, list(scattering.futures), n, names, BRANCHING_FACTOR, scattering.left)
    return scattered


def _hosts_of(broadcast: Any) -> int | None:
    """On how many hosts everything is to lie; None: on all, if it is broadcast."""
    if isinstance(broadcast, (bool, np.bool_)):
        return None
    try:
        n = operator.index(broadcast)
    except TypeError:
        raise TypeError(f"broadcast is True, False or a number of hosts, not {broadcast!r:.100}") from None
    if n < 0:
        raise ValueError(f"broadcast is True, False or a number of hosts, not {n}")
    return n


def scatter_one(core: Core, value: Any, workers: Any, timeout: float | None, where: str) -> Operation[Future]:
    """A value as one object, under a name of its own, in one store, for a line of the user's code."""
    deadline = None if timeout is None else time.monotonic() + timeout
    core.session.check_open()
    if not core.stores.any_node:
        yield from core.stores.waiting_for_node(SCATTER_TIMEOUT_SECONDS if timeout is None else timeout)
    names = None if workers is None else names_of_workers(workers)
    return (yield from _one(_Scattering(core, names, False, deadline, where, []), value))


class _Scattering(NamedTuple):
    """What holds for all values of one call."""

    core: Core
    names: Sequence[str] | None
    hashed: bool
    deadline: float | None
    where: str  # the line of the user's code
    futures: list[Future]  # that were scattered

    @property
    def left(self) -> float | None:
        """The seconds that are left."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


def _scatter(scattering: _Scattering, data: Any) -> Operation[Any]:
    kind = type(data)
    if kind is dict:
        named = {}
        for key, value in data.items():
            named[key] = yield from _taken(scattering, value, wire_key(key))
        return named
    is_named = issubclass(kind, tuple) and hasattr(kind, "_fields")
    if not (is_named or kind in (list, tuple, set, frozenset) or isinstance(data, (range, Iterator))):
        return (yield from _taken(scattering, data))
    futures = []
    for value in data:
        futures.append((yield from _taken(scattering, value)))
    if isinstance(data, Iterator):
        return iter(futures)
    if is_named:
        return kind(*futures)
    return futures if isinstance(data, range) else kind(futures)


def _taken(scattering: _Scattering, value: Any, key: Any = None) -> Operation[Future]:
    future = yield from _one(scattering, value, key)
    scattering.futures.append(future)
    return future


def _one(scattering: _Scattering, value: Any, key: Any = None) -> Operation[Future]:
    core, stores = scattering.core, scattering.core.stores
    check_no_foreign_future(value, "something that is to be scattered")
    try:
        with collecting() as inside:
            encoded = stores.encode(value)
        # What lies in the store already is encoded in another way, to stay there. Names go by one encoding.
        with collecting():
            plain = encode(value) if (in_store := stores.shares(encoded)) else encoded
    except CancelledError:  # a released future inside it
        raise
    except Exception as error:  # pickling runs a user's code, which may raise anything
        raise TypeError(f"a {type(value).__name__} can't be pickled, so it can't be scattered: {error}") from error
    mine: list[Future] = []
    for future in inside:
        assert isinstance(future, Future)
        mine.append(own(core, future) if future._core is core else (yield from adopting(core, future)))
    check_together(f"a {type(value).__name__} that is scattered", [future.key for future in mine])
    location = None
    chosen = key is not None
    if chosen:
        held = yield from _held_content(core, key, plain, scattering.left)
        if held is not None:
            return held
    elif not scattering.hashed or inside:  # a future's name doesn't tell for which value it stands
        key = f"{encoded.type_name}-{random_token()}"
    elif (named := registered_token(value)) is not None:
        key = f"{encoded.type_name}-{named}"
        known = borrow(core, key)
        if known is not None and known.done():
            return known
    else:
        if not in_store and hashes_in_place(stores, encoded, stores.targets(scattering.names)):
            location = yield from _write(scattering, encoded, None)
        try:
            token = yield Elsewhere(
                partial(token_of_content, stores, plain, location), partial(_token_at_once, stores, plain)
            )
        except BaseException:
            if location is not None:
                take_back(core, location, encoded.type_name)
            raise
        key = f"{encoded.type_name}-{token}"
        known = borrow(core, key)
        if known is not None and known.done():
            if location is not None:
                stores.forget(location)
            return known
    if location is None:
        location = yield from _write(scattering, encoded, str(key))
    return announce(core, key, location, encoded.type_name, mine, chosen=chosen, where=scattering.where)


def _write(scattering: _Scattering, encoded: Encoded, key: str | None) -> Operation[Location]:
    stores, names = scattering.core.stores, scattering.names

    def at_once() -> Location:
        if encoded.nbytes > AT_ONCE_NBYTES:
            raise NotAtOnce
        return stores.write_at_once(encoded, key, stores.targets(names))

    write = partial(stores.write, encoded, key, names, timeout=scattering.left)
    undo = partial(take_back, scattering.core, type_name=encoded.type_name)
    location: Location = yield Elsewhere(write, at_once, undo=undo)
    return location


def _token_at_once(stores: StoreAccess, encoded: Encoded) -> str:
    if encoded.nbytes > AT_ONCE_NBYTES:
        raise NotAtOnce
    return token_of_content(stores, encoded)


def _held_content(core: Core, key: Any, encoded: Encoded, timeout: float | None) -> Operation[Future | None]:
    """A future of a key that a user chose, if this client holds it with this content; None if it does not."""
    if key in core.table.states:
        core.table.settle_all()  # of futures that are gone already
    held = borrow(core, key)
    if held is None:
        return None
    other = encode((yield from read(core, held._state, timeout, False)))
    if other.nbytes != encoded.nbytes or other.to_bytes() != encoded.to_bytes():
        raise ValueError(
            f"the key {key!r} is in use by a future of this client, {held!r}, with another value: scatter under "
            "another key, or release that future first"
        )
    return held
