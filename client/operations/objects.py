"""Objects by their ids, and arrays that are filled in the store."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Elsewhere, Operation
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import hold_all
from holdfast.client.futures.reading import read
from holdfast.client.operations.scattering import scatter_one
from holdfast.client.operations.storing import announce
from holdfast.client.packing.keys import random_token
from holdfast.client.stores.location import Location
from holdfast.cluster import protocol
from holdfast.cluster.call_sites import call_site
from holdfast.objectstore import ObjectID
from holdfast.objectstore.client.pending import Pending
from holdfast.objectstore.errors import ObjectNotFoundError


def put(core: Core, value: Any, workers: Any, timeout: float | None) -> Operation[ObjectID]:
    """See `Client.put`."""
    return _put(core, value, workers, timeout, call_site())


def _put(core: Core, value: Any, workers: Any, timeout: float | None, where: str) -> Operation[ObjectID]:
    future = yield from scatter_one(core, value, workers, timeout, where)
    location = future._state.location
    assert location is not None
    # Whoever is told of the object may ask for it at once: the scheduler has to know it before.
    yield Ask(core.session, protocol.requests.WHO_HAS, keys=[])
    object_id = ObjectID(location.object_id)
    core.kept[object_id] = future
    return object_id


def get(core: Core, object_ids: Any, timeout: float | None, writable: bool | None) -> Operation[Any]:
    """See `Client.get_object`."""
    if isinstance(object_ids, (list, tuple)):
        values = []
        for object_id in object_ids:
            values.append((yield from _get(core, wire_id(object_id), timeout, writable)))
        return type(object_ids)(values)
    return (yield from _get(core, wire_id(object_ids), timeout, writable))


def _get(core: Core, object_id: ObjectID, timeout: float | None, writable: bool | None) -> Operation[Any]:
    future = core.kept.get(object_id)
    if future is None:
        try:
            answer = yield Ask(core.session, protocol.requests.FIND_OBJECT, timeout, object_id=bytes(object_id))
        except LookupError as error:
            raise ObjectNotFoundError(str(error)) from None
        (future,) = hold_all(core, [answer["key"]]).values()
    return (yield from read(core, future._state, timeout, writable, future))


def free(core: Core, object_ids: Any) -> None:
    """See `Client.free`."""
    several = isinstance(object_ids, Iterable) and not isinstance(object_ids, (bytes, str))
    wanted = [wire_id(object_id) for object_id in (object_ids if several else [object_ids])]
    for object_id in wanted:
        if object_id not in core.kept:
            raise ValueError(f"this client does not hold object {object_id}: the client that has put it frees it, once")
    for object_id in wanted:
        core.kept.pop(object_id, None)


def wire_id(object_id: Any) -> ObjectID:
    """An id of an object, which may also be given as its sixteen bytes, or in hexadecimal."""
    try:
        if isinstance(object_id, str):
            return ObjectID.fromhex(object_id)
        if isinstance(object_id, (bytes, bytearray, memoryview)):
            return ObjectID(object_id)
    except ValueError:
        pass
    raise ValueError(f"the id of an object is sixteen bytes, or these in hexadecimal, not {object_id!r:.100}")


class CreatedArray:
    """An array in the store of this host, which its maker fills in place: what `Client.create` gives.

    As a context manager it gives the array, and seals it at the end of the block; if the block raises, it is given up.

    Attributes
    ----------
    array : numpy.ndarray
        To be filled. It can only be read once it is sealed.
    future : Future or None
        Of the array, once it is sealed.

    Examples
    --------
    >>> created = client.create(3, "int64")
    >>> with created as array:
    ...     array[:] = [1, 2, 3]
    >>> int(client.submit(sum, created.future).result())
    6
    """

    def __init__(self, core: Core, array: Any, pending: Pending, node: str, key: str) -> None:
        self.array = array
        self.future: Future | None = None
        self._core = core
        self._pending = pending
        self._node = node
        self._key = key

    def seal(self) -> Future:
        """Make it a result like any other. The array stays, and can only be read from then on.

        Returns
        -------
        Future

        Raises
        ------
        StoreClosedError
            It was sealed or given up before, or the store of this host has gone.

        Examples
        --------
        >>> created = client.create((2, 2))
        >>> created.array[:] = 1.0
        >>> float(created.seal().result().sum())
        4.0
        """
        nbytes, type_name = self._pending.nbytes, self._pending.type_name
        object_id = self._pending.seal()
        location = Location(bytes(object_id), nbytes, None, (self._node,))
        self.future = announce(self._core, self._key, location, type_name, [], chosen=False)
        return self.future

    def abort(self) -> None:
        """Give it up, with its room in the store. Nothing, if it was sealed.

        Examples
        --------
        >>> client.create(1000).abort()
        """
        self._pending.abort()

    def __enter__(self) -> Any:
        return self.array

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif self.future is None:
            self.seal()

    def __repr__(self) -> str:
        state = "being filled" if self.future is None else repr(self.future)
        return f"<CreatedArray: {self.array.dtype}, shape {self.array.shape}, {state}>"


def create(core: Core, shape: Any, dtype: Any, timeout: float | None) -> Operation[CreatedArray]:
    """See `Client.create`."""
    core.session.check_open()
    key = f"numpy.ndarray-{random_token()}"

    def undo(given: tuple[Any, Pending, str]) -> None:
        given[1].abort()

    array, pending, node = yield Elsewhere(lambda: core.stores.create(shape, dtype, key, timeout), undo=undo)
    return CreatedArray(core, array, pending, node, key)
