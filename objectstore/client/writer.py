"""The way in: how a value gets into the arena, and how the server learns of it.

There are three ways, and each value takes the cheapest that it can:

* **A small one** is laid into a slab that was leased before. It costs no round trip: the seal leaves with the
  next message, in the order in which the slab is filled.
* **A large one** has room of its own, which is asked for; its pages are mapped ahead of the copy (``warm.py``).
* **Data that is in the arena already**, since the value shows a part of what this process looks at, isn't written. What
  is left of the value goes one of the ways above. The seal is a request then that says whose the rest is, and is waited
  for: the value, and with it its views, has to live until the server has noted that it's shared (``sharing.py``).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from holdfast.objectstore.client.arena_maps import ArenaMaps
from holdfast.objectstore.client.connection import PATIENCE_SECONDS, StoreConnection
from holdfast.objectstore.client.holdings import Holdings
from holdfast.objectstore.client.names import Names
from holdfast.objectstore.client.pins import WritableExtent
from holdfast.objectstore.client.views import ObjectOffset
from holdfast.objectstore.client.warm import Warmer
from holdfast.objectstore.codecs import Encoded
from holdfast.objectstore.codecs.flat import SHARE_NBYTES, Span
from holdfast.objectstore.errors import StoreClosedError
from holdfast.objectstore.memory.allocator import SMALL_NBYTES
from holdfast.objectstore.memory.free_extents import ALIGNMENT
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.protocol import NUMBER_MAX, SHARES_MAX, Op, SealItem, seconds

CREATE_TIMEOUT_SECONDS = 30.0
_WARM_NBYTES = 4 << 20  # from here on the faults of a write to pages that aren't mapped cost more than looking
_STOP_SECONDS = 10.0  # for a copy of SMALL_NBYTES
_LEASE_NBYTES_FIRST = 128 << 10
_LEASE_NBYTES_MAX = 4 << 20


class _Slab:
    """The slab that small objects are laid into, from the front."""

    __slots__ = ("cursor", "end", "unused", "want_nbytes")

    def __init__(self) -> None:
        self.cursor = 0
        self.end = 0
        self.want_nbytes = _LEASE_NBYTES_FIRST
        self.unused: list[int] = []  # ends of leases to give back

    def take(self, nbytes: int) -> int | None:
        """Where the next object of ``nbytes`` goes; None if it doesn't fit any more."""
        offset = self.cursor
        end = offset + -(-nbytes // ALIGNMENT) * ALIGNMENT
        if end > self.end:
            return None
        self.cursor = end
        return offset


class Writer:
    """Writes into the arena for one connection. Thread-safe.

    Parameters
    ----------
    connection : StoreConnection
        To the server.
    maps : ArenaMaps
        Of the arena.
    holdings : Holdings
        What the connection holds at the server.
    warmer : Warmer
        Maps pages ahead of large copies.
    """

    def __init__(self, connection: StoreConnection, maps: ArenaMaps, holdings: Holdings, warmer: Warmer) -> None:
        self.lock = threading.Lock()  # of the slab: seals have to come in the order of their offsets
        self._connection = connection
        self._maps = maps
        self._holdings = holdings
        self._warmer = warmer
        self._slab = _Slab()
        self._copies = False  # into the slab, at this moment
        self._stopped = False
        self._batching = threading.local()

    def put(self, object_id: ObjectID, encoded: Encoded, names: Names, timeout: float | None, *, is_new: bool) -> None:
        """Writes and seals a value. ``is_new`` if no other client can have made one of this id.

        Raises
        ------
        StoreFullError
            If there is no room within ``timeout`` seconds.
        StoreClosedError
            If the connection is gone.
        """
        nbytes = encoded.nbytes
        if self._holdings.views and nbytes >= SHARE_NBYTES and self._share(object_id, encoded, names, timeout):
            return
        if nbytes > SMALL_NBYTES:
            extent = self._write_apart(encoded, timeout, object_id)
            item = SealItem(object_id, extent.offset, nbytes, *names, False)
            extent.handed_over = True  # together with the next line, also for an interrupt (see connection.py)
            self._connection.queue_seal(item)
            self._connection.flush()
            if is_new:
                self._holdings.index.add_own(object_id)
            return
        with self.lock:
            offset = self._write_in_slab(encoded, timeout)
            self._connection.queue_seal(SealItem(object_id, offset, nbytes, *names, False))
        if not getattr(self._batching, "depth", 0):
            self._connection.flush()

    def stop(self) -> None:
        """Nothing is written into slabs any more, which the server takes back when the connection ends."""
        self._stopped = True
        if self._copies and self.lock.acquire(timeout=_STOP_SECONDS):
            self.lock.release()

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Within the block the seals of this thread's small values wait for its end, or for the next request."""
        self._batching.depth = getattr(self._batching, "depth", 0) + 1
        try:
            yield
        finally:
            self._batching.depth -= 1
            if not self._batching.depth:
                self._connection.flush()

    # Room of its own

    def reserve(self, nbytes: int, timeout: float | None, object_id: ObjectID | None) -> WritableExtent:
        """Room for ``nbytes``; for all of the object of this id, if there is one.

        Raises
        ------
        StoreFullError
            If there is none in time.
        """
        if nbytes > NUMBER_MAX:
            raise ValueError(f"nothing has {nbytes} bytes")
        timeout = CREATE_TIMEOUT_SECONDS if timeout is None else seconds(timeout)
        holdings = self._holdings
        extent = WritableExtent(holdings, self._maps, nbytes)

        def undo(answer: list[Any]) -> None:
            holdings.add()
            holdings.drop(answer[0], nbytes)

        holdings.add()
        try:
            extent.offset, _ = self._connection.call(
                Op.CREATE, nbytes, timeout, object_id, timeout=timeout + PATIENCE_SECONDS, undo=undo
            )
        except BaseException:
            holdings.discard()
            raise
        if nbytes >= _WARM_NBYTES:
            self._warmer.ahead()
        return extent

    def seal(self, extent: WritableExtent, object_id: ObjectID, names: Names) -> None:
        """Queues and sends a seal. The extent's end unpins the object then, rather than aborting it."""
        item = SealItem(object_id, extent.offset, extent.nbytes, *names, True)
        extent.sealed_as = object_id  # together with the next line, also for an interrupt (see connection.py)
        self._connection.queue_seal(item)
        self._connection.flush()
        self._holdings.index.add_own(object_id)
        if extent.nbytes >= SHARE_NBYTES:
            self._holdings.views.add(extent, object_id, ((0, extent.offset, extent.nbytes),))

    def _write_apart(self, encoded: Encoded, timeout: float | None, object_id: ObjectID | None) -> WritableExtent:
        """Room of its own that it was written to. It's the caller's to hand over to a seal."""
        extent = self.reserve(encoded.nbytes, timeout, object_id)
        if encoded.nbytes >= _WARM_NBYTES:
            self._warmer.now(extent.offset, encoded.nbytes)
        encoded.write_into(extent.view())
        return extent

    # In a slab

    def _write_in_slab(self, encoded: Encoded, timeout: float | None) -> int:
        """Where it was written to. It has to be sealed before the lock is released."""
        nbytes = encoded.nbytes
        offset = self._slab.take(nbytes)
        if offset is None:
            self._lease_slab(nbytes, timeout)
            offset = self._slab.take(nbytes)
            assert offset is not None
        self._copies = True
        if self._stopped:
            raise StoreClosedError("the connection to the store was closed while something was put")
        encoded.write_into(self._maps.writable_view[offset : offset + nbytes])
        self._copies = False
        return offset

    def _lease_slab(self, nbytes: int, timeout: float | None) -> None:
        timeout = CREATE_TIMEOUT_SECONDS if timeout is None else seconds(timeout)
        slab = self._slab
        if slab.end:
            slab.unused += [slab.end]
            slab.cursor = slab.end = 0
        want = max(slab.want_nbytes, nbytes)
        slab.want_nbytes = min(2 * slab.want_nbytes, _LEASE_NBYTES_MAX)

        def undo(answer: list[Any]) -> None:
            slab.unused.append(sum(answer))

        offset, granted = self._connection.call(
            Op.LEASE, nbytes, want, timeout, given=slab.unused, timeout=timeout + PATIENCE_SECONDS, undo=undo
        )
        slab.cursor, slab.end = offset, offset + granted

    # Sharing

    def _share(self, object_id: ObjectID, encoded: Encoded, names: Names, timeout: float | None) -> bool:
        """Puts a value without the data that is in the arena already. False if there's none, or it went meanwhile."""
        shares = self._shares(encoded)
        if not shares:
            return False
        own = encoded.without(shares)
        described = [(span.start, *place, span.nbytes) for span, place in shares.items()]
        request = encoded.nbytes, described
        if own.nbytes <= SMALL_NBYTES:
            with self.lock:
                offset = self._write_in_slab(own, timeout)
                item = SealItem(object_id, offset, own.nbytes, *names, False)
                (sealed,) = self._connection.call(Op.SHARE, item, *request, timeout=PATIENCE_SECONDS)
            return bool(sealed)
        extent = self._write_apart(own, timeout, None)

        def settle(answer: list[Any]) -> None:
            (extent.handed_over,) = answer

        # If this is interrupted, the call keeps the extent until it's answered.
        item = SealItem(object_id, extent.offset, own.nbytes, *names, False)
        answer = self._connection.call(Op.SHARE, item, *request, timeout=PATIENCE_SECONDS, undo=settle)
        (extent.handed_over,) = answer
        return extent.handed_over

    def _shares(self, encoded: Encoded) -> dict[Span, ObjectOffset]:
        """Which parts of a value are parts of objects that this process looks at."""
        views = None
        shares: dict[Span, ObjectOffset] = {}
        for span in encoded.spans():
            offset = self._maps.offset_of(span.address)
            if offset is not None and len(shares) < SHARES_MAX:
                views = views or self._holdings.views.in_order()
                place = views.find(offset, span.nbytes)
                if place is not None and self._maps.is_as_stored(span.address, offset, span.nbytes):
                    shares[span] = place
        return shares
