"""The way out: how an object is found and pinned, and what its views are made of.

An object that is in the arena, and in the index, costs no round trip: it's pinned there (``index_view.py``). The server
is asked for all others: one that isn't there yet, one that lies in several segments, and one that was moved to disk,
which is mapped from its file (``spilled_map.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from holdfast.objectstore.client.arena_maps import ArenaMaps
from holdfast.objectstore.client.connection import PATIENCE_SECONDS, StoreConnection
from holdfast.objectstore.client.holdings import Holdings
from holdfast.objectstore.client.pins import IndexPin, Pin
from holdfast.objectstore.client.spilled_map import map_spilled
from holdfast.objectstore.codecs import TAKES_WRITES
from holdfast.objectstore.codecs.flat import SHARE_NBYTES
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.index import ORDERED
from holdfast.objectstore.shared.protocol import SOURCES_MAX, Op, seconds

_Segments = list[tuple[int, int, int]]
_Located = tuple[IndexPin | Pin, int, str | None, _Segments | None]
"""A pinned object's offset in the arena, or in the file of this path, or its segments if it shares data."""


class ObjectReader:
    """Pins objects and shows their bytes, for one connection. Thread-safe.

    Parameters
    ----------
    connection : StoreConnection
        To the server.
    maps : ArenaMaps
        Of the arena.
    holdings : Holdings
        What the connection holds at the server.
    """

    def __init__(self, connection: StoreConnection, maps: ArenaMaps, holdings: Holdings) -> None:
        self._connection = connection
        self._maps = maps
        self._holdings = holdings
        self._index = holdings.index if ORDERED else None

    def open(
        self,
        object_id: ObjectID,
        timeout: float | None,
        writable: bool,
        sources: Sequence[str],
        patience: float,
    ) -> Any:
        """A pinned object's encoding: a buffer or, if it isn't in one place, a list that ``decode_segments`` takes."""
        pin, offset, path, segments = self._pin(object_id, timeout, sources, patience)
        if path is not None:
            spilled = map_spilled(object_id, path, offset, pin, writable=writable)
            return spilled if writable else pa.py_buffer(spilled)
        maps = self._maps
        if segments is not None:
            view = maps.private if writable else maps.buffer
            return [(start, memoryview(view(at, nbytes, pin))) for start, at, nbytes in segments]
        buffer = maps.buffer(offset, pin.nbytes, pin)
        if writable and memoryview(buffer)[0] in TAKES_WRITES:
            return maps.private(offset, pin.nbytes, pin)
        return buffer

    def buffer(self, object_id: ObjectID, timeout: float | None, sources: Sequence[str]) -> pa.Buffer:
        """A pinned object's encoding in one buffer, copied if it isn't in one place."""
        pin, offset, path, segments = self._pin(object_id, timeout, sources, PATIENCE_SECONDS)
        if path is not None:
            return pa.py_buffer(map_spilled(object_id, path, offset, pin, writable=False))
        if segments is not None:
            flat = memoryview(bytearray(pin.nbytes))
            for start, at, nbytes in segments:
                flat[start : start + nbytes] = memoryview(self._maps.buffer(at, nbytes, pin)).cast("B")
            return pa.py_buffer(flat.toreadonly())
        return self._maps.buffer(offset, pin.nbytes, pin)

    def is_indexed(self, object_id: ObjectID) -> bool:
        """Whether the object is in the index. False may also mean that the server has to be asked."""
        return self._index is not None and self._index.contains(object_id)

    def _pin(
        self,
        object_id: ObjectID,
        timeout: float | None,
        sources: Sequence[str],
        patience: float,
    ) -> _Located:
        holdings = self._holdings
        if self._index is not None:
            pin = IndexPin(holdings)
            offset = holdings.pin(object_id, pin)
            if offset is not None:
                if pin.nbytes >= SHARE_NBYTES:
                    holdings.views.add(pin, object_id, ((0, offset, pin.nbytes),))
                return pin, offset, None, None
        return self._ask_for_pin(object_id, timeout, sources, patience)

    def _ask_for_pin(
        self, object_id: ObjectID, timeout: float | None, sources: Sequence[str], patience: float
    ) -> _Located:
        holdings = self._holdings
        timeout = None if timeout is None else seconds(timeout)
        limit = patience + timeout if timeout is not None else None if sources else patience

        def undo(answer: list[Any]) -> None:
            holdings.add()
            holdings.drop(object_id, answer[1])

        pin = Pin(holdings, object_id)
        holdings.add()
        try:
            offset, pin.nbytes, path, segments = self._connection.call(
                Op.GET, object_id, timeout, sources[:SOURCES_MAX], timeout=limit, undo=undo
            )
        except BaseException:
            holdings.discard()
            raise
        if pin.nbytes >= SHARE_NBYTES and path is None:
            holdings.views.add(pin, object_id, segments or ((0, offset, pin.nbytes),))
        return pin, offset, path, segments
