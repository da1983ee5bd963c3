"""Large data that is part of what is sent: it goes into a store, and what is sent refers to it.

Whatever a client sends to the scheduler, the arguments of a call, the nodes of a graph, a function with what it closes
over, a dataset, is a pickle of a limited size. Data in it that is larger becomes an object of its own, one for each
value that has a flat encoding (an array, a frame, a table), and a `payloads.Reference` stands in its place. What is
large without such a value in it, a long list for instance, is pickled as a whole and that pickle is the object
(`payloads.Pickled`). The keys of these objects are dependencies of the task, or keys of the dataset.

A value is put into a store once: one that is met again is known by its identity while one graph, or one call, is
packed, and by its content as long as this client holds an object with that content. It may have been changed between
two graphs, so identity tells nothing beyond one; nor from one call of a map to the next, if a user's code runs in
between, as that of a generator does, which may fill one buffer again and again. A key names the content: the same call
twice has the same key.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from holdfast.client.packing.futures import FutureLike
from holdfast.client.packing.keys import TooLongKeysError, check_together
from holdfast.client.packing.sizes import LARGE_NBYTES, LENGTH_IS_SIZE, size_hint
from holdfast.cluster.collecting import Values, collecting
from holdfast.cluster.protocol import payloads
from holdfast.cluster.protocol.payloads import Reference
from holdfast.objectstore.errors import HoldfastError

#: So many values are known by their identity: those that were met last.
MAX_KNOWN = 1_000
#: What `Constants` raises beside the errors of pickling: there is no room, no store, or no way to send so many keys.
REFUSALS = (HoldfastError, TimeoutError, TooLongKeysError)
_Stored = dict[Any, FutureLike]
#: Stores a value and returns the future of it, or None if there is no store to put it into.
StoreValue = Callable[[Any], FutureLike | None]


class Packed(NamedTuple):
    """What is sent for a value.

    Attributes
    ----------
    data : bytes
        Its pickle, with references in the place of what was stored.
    inside : list of Future
        The futures that were pickled with it.
    stored : tuple of Future
        Of what was stored, each once.
    """

    data: bytes
    inside: list[FutureLike]
    stored: tuple[FutureLike, ...]


class Constants:
    """Takes large data out of what is sent, for one graph or one call.

    Parameters
    ----------
    store:
        See `StoreValue`.
    large_nbytes:
        From which size on a value is stored.
    on_part:
        `pack_large` tells it each object in a value that isn't a plain builtin one.
    """

    def __init__(
        self,
        store: StoreValue,
        large_nbytes: int = LARGE_NBYTES,
        on_part: Callable[[Any], None] | None = None,
    ) -> None:
        self.large_nbytes = large_nbytes
        self.none_large = payloads.none_larger_than(large_nbytes)
        self._store = store
        self._on_part = on_part
        self._known: dict[int, tuple[Any, FutureLike | None]] = {}  # the one that was met least recently first

    def put(self, value: Any) -> FutureLike | None:
        """The future of a value in a store; None if there is no store.

        Raises
        ------
        Exception
            Whatever pickling or storing it raises.
        """
        known = self._known
        # The value itself is kept in the entry, so that its identity is not given to another one meanwhile.
        entry = known.pop(id(value), None) or (value, self._store(value))
        known[id(value)] = entry
        if len(known) > MAX_KNOWN:
            del known[next(iter(known))]
        return entry[1]

    def forget(self) -> None:
        """Values may have changed since they were put: no identity tells anything any more."""
        self._known.clear()

    def pack(self, value: Any, values: Mapping[int, FutureLike] = MappingProxyType({})) -> Packed:
        """The pickle of a value.

        Parameters
        ----------
        value
            What is to be sent.
        values
            The futures in it, by their identity, that stand for their values.

        Raises
        ------
        Exception
            Whatever pickling or storing it raises.
        """
        return self.pack_small(value, values) or self.pack_large(value, values)

    def pack_small(self, value: Any, values: Mapping[int, FutureLike] = MappingProxyType({})) -> Packed | None:
        """None if its pickle is large."""
        with collecting(Values(values)) as inside:
            try:
                data = payloads.dumps(value, take=self.none_large)
            except payloads.LargeBuffer:
                return None
        return Packed(data, inside, ()) if len(data) <= self.large_nbytes else None

    def pack_large(self, value: Any, values: Mapping[int, FutureLike] = MappingProxyType({})) -> Packed:
        """What of it is large is stored."""
        stored: _Stored = {}
        with collecting(Values(values)) as inside:
            try:
                data = payloads.dumps(value, apart=lambda part: self._reduce(part, stored))
            except payloads.InterruptedDump as interrupted:
                raise interrupted.__cause__ or interrupted from None
        if len(data) > self.large_nbytes:
            check_together("what is sent", [future.key for future in inside])  # before room is taken for them
            whole = self._store(memoryview(data))
            if whole is not None:
                stored[whole.key] = whole
                data = payloads.dumps(payloads.Pickled(whole.key))
        return Packed(data, inside, tuple(stored.values()))

    def _reduce(self, part: Any, stored: _Stored) -> Any:
        """How a pickler is to take an object that isn't a plain builtin one: as a reference, if it is large data.

        Plain texts and bytes never come here, so they are looked for where functions have them.
        """
        if self._on_part is not None:
            self._on_part(part)
        if type(part) is types.CellType:
            try:
                contents = part.cell_contents
            except ValueError:  # there is nothing in it yet
                return NotImplemented
            return payloads.make_cell, (self._replace(contents, stored),)
        if type(part) is functools.partial:
            args = tuple([self._replace(value, stored) for value in part.args])
            kwargs = {name: self._replace(value, stored) for name, value in part.keywords.items()}
            return type(part), (part.func,), (part.func, args, kwargs, part.__dict__ or None)
        if size_hint(part) > self.large_nbytes:
            replaced = self._refer(part, stored)
            if replaced is not part:
                return replaced.__reduce__()
        return NotImplemented

    def _replace(self, value: Any, stored: _Stored) -> Any:
        return self._refer(value, stored) if type(value) in LENGTH_IS_SIZE and len(value) > self.large_nbytes else value

    def _refer(self, value: Any, stored: _Stored) -> Any:
        """A reference to a large value, or that value itself if it can't be stored."""
        try:
            future = self.put(value)
        except REFUSALS as error:  # not for the pickler, which would try another way
            raise payloads.InterruptedDump from error
        if future is None:
            return value
        stored[future.key] = future
        return Reference(future.key)
