"""The store as the process that runs it has it: without a connection, by calls in its loop.

That's what the node agent of a cluster does: it brings in objects from other hosts, gives them to other hosts, lists
and deletes them. It pins and reserves under a client id of its own (``SERVER``).
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from holdfast.objectstore.core.core import StoreCore
from holdfast.objectstore.core.effects import SERVER, Answer
from holdfast.objectstore.core.objects import ObjectMeta, SpillExtent
from holdfast.objectstore.errors import ObjectNotFoundError, StoreClosedError, StoreFullError
from holdfast.objectstore.memory.arena import Extent
from holdfast.objectstore.memory.headroom import PageFiller
from holdfast.objectstore.memory.upkeep import Upkeep
from holdfast.objectstore.server.executor import Executor
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.layout import Layout, Segment, in_one_piece
from holdfast.objectstore.shared.protocol import SealItem, Status
from holdfast.objectstore.spill.files import SpillLostError

CREATE_TIMEOUT_SECONDS = 30.0

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Pinned(NamedTuple):
    """Where a pinned object's bytes are, until its ``unpin``: good for ``os.sendfile`` and ``mmap``."""

    object_id: ObjectID
    fd: int
    layout: Layout
    in_file: SpillExtent | None  # what it is of a file; None: it is in the arena


def in_loop(
    method: Callable[Concatenate[LocalStore, _P], _R],
) -> Callable[Concatenate[LocalStore, _P], _R]:
    """Lets a method be called from any thread while the store runs in a thread of its own."""

    @functools.wraps(method)
    def call(self: LocalStore, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return method(self, *args, **kwargs)

        async def there() -> _R:
            return method(self, *args, **kwargs)

        return asyncio.run_coroutine_threadsafe(there(), self._executor.loop).result()

    return call


class LocalStore:
    """The calls of the process that runs the store. `StoreServer` adds the clients, and begins and ends it all.

    Every method is the loop's to call. The methods from ``adopt`` on may be called from any thread while the store
    runs in a thread of its own.

    Parameters
    ----------
    core : StoreCore
        What decides.
    executor : Executor
        What does that.
    """

    def __init__(self, core: StoreCore, executor: Executor) -> None:
        self._core = core
        self._executor = executor
        self._upkeep: Upkeep | None = None
        self._thread: threading.Thread | None = None  # of the loop, if that is another one than the callers'
        self._allocations: dict[int, asyncio.Future[Extent]] = {}
        self._allocation_count = 0

    @property
    def count(self) -> int:
        """How many objects there are."""
        return self._core.count

    @property
    def capacity(self) -> int:
        """The bytes that there is room for."""
        return self._core.capacity

    @property
    def arena_fd(self) -> int:
        """A read-only descriptor of the arena; the server's to close."""
        return self._executor.arena.read_only_fd

    @property
    def writable_fd(self) -> int:
        """The descriptor of the arena; the server's to close."""
        return self._executor.arena.fd

    def have_pages_made_by(self, maker: PageFiller | None) -> None:
        """Pages that the next large objects will need are made by ``maker`` from here on; None: by a thread here."""
        if self._upkeep is not None:
            self._upkeep.headroom.have_made_by(maker)

    def writable_view(self, extent: Extent) -> memoryview:
        """The bytes of a reservation, to be written."""
        return self._executor.arena.view[extent.offset : extent.offset + extent.nbytes]

    def readable_view(self, segment: Segment) -> memoryview:
        """The bytes of a segment of an object that is pinned in the arena."""
        return self._executor.arena.view[segment.offset : segment.offset + segment.nbytes].toreadonly()

    async def pin(self, object_id: ObjectID) -> Pinned | None:
        """Where an object lies; it stays there until ``unpin``. None if it isn't here.

        Raises
        ------
        SpillError
            If it was spilled and can't be read: for now, or, with ``SpillLostError``, it isn't here any more.
        """
        record = self._core.pin(SERVER, object_id)
        if record is None:
            return None
        extent = record.in_file
        if extent is None:
            return Pinned(object_id, self.arena_fd, record.layout(), None)
        try:
            fd = await self._executor.spill_threads.open_verified(object_id, extent)
        except BaseException as error:
            if isinstance(error, SpillLostError):
                self._core.lose(object_id, extent)
            self._core.unpin(SERVER, [object_id])
            self._executor.settle()
            raise
        return Pinned(object_id, fd, in_one_piece(extent.offset, extent.nbytes), extent)

    def unpin(self, pinned: Pinned) -> None:
        """Ends one ``pin``.

        Raises
        ------
        StoreProtocolError
            If there was none.
        """
        if pinned.in_file is not None:
            os.close(pinned.fd)
        self._core.unpin(SERVER, [pinned.object_id])
        self._executor.settle()

    def lose(self, pinned: Pinned) -> None:
        """What was read of a pinned object's file is damaged: the object isn't here any more."""
        if pinned.in_file is not None:
            self._core.lose(pinned.object_id, pinned.in_file)
            self._executor.settle()

    async def allocate(self, nbytes: int, timeout: float | None = None) -> Extent:
        """Reserves bytes for an object that comes in. To be followed by ``seal`` or ``abort``.

        Parameters
        ----------
        nbytes : int
            The size of its flat encoding.
        timeout : float, optional
            Seconds to wait for room, in one line with the clients; by default 30.

        Raises
        ------
        StoreFullError
            If there was no room in time, or there never can be.
        """
        loop = self._executor.loop
        self._allocation_count += 1
        request = self._allocation_count
        future: asyncio.Future[Extent] = loop.create_future()
        self._allocations[request] = future
        try:
            self._core.create(SERVER, request, nbytes, CREATE_TIMEOUT_SECONDS if timeout is None else timeout)
            self._executor.settle()
            return await future
        except asyncio.CancelledError:
            if not self._core.cancel(SERVER, request) and future.done() and not future.cancelled():
                self.abort(future.result())
            self._executor.settle()
            raise
        finally:
            self._allocations.pop(request, None)

    def seal(self, reservation: Extent, object_id: ObjectID, meta: ObjectMeta | None = None) -> None:
        """The object is written: it appears, unless it was deleted meanwhile or is here already.

        Raises
        ------
        StoreProtocolError
            If ``reservation`` isn't one.
        """
        meta = meta or ObjectMeta()
        offset, nbytes = reservation
        names = meta.key, meta.owner, meta.type_name
        item = SealItem(object_id, offset, nbytes, *names, meta.label, meta.references, False)
        self._core.seal(SERVER, [item])
        self._executor.settle()

    def abort(self, reservation: Extent) -> None:
        """Gives a reservation back.

        Raises
        ------
        StoreProtocolError
            If ``reservation`` isn't one.
        """
        self._core.abort(SERVER, reservation.offset)
        self._executor.settle()

    @in_loop
    def adopt(self, object_id: ObjectID, path: str, nbytes: int, checksum: int, meta: ObjectMeta | None = None) -> bool:
        """An object appears that is the whole of a file. The file is read in place, and never deleted from here.

        Parameters
        ----------
        path : str
            Of the file, which nobody may change.
        checksum : int
            The XXH3 of its bytes. It is held against them before they are read.

        Returns
        -------
        bool
            False, and nothing has changed, if this store has nothing in files.
        """
        extent = SpillExtent(path, 0, nbytes, checksum)
        adopted = self._core.adopt(object_id, extent, meta or ObjectMeta())
        self._executor.settle()
        return adopted

    @in_loop
    def forget(self, object_ids: Iterable[ObjectID]) -> list[ObjectID]:
        """The objects vanish that no client looks at; unlike after `delete`, they may come again. Those that stay."""
        stay = self._core.forget(object_ids)
        self._executor.settle()
        return stay

    @in_loop
    def delete(self, object_ids: Iterable[ObjectID]) -> None:
        """The objects vanish; their bytes are free when no client looks at them any more.

        An id that isn't here is remembered, so that a seal that comes after its delete vanishes too.
        """
        self._core.delete(object_ids)
        self._executor.settle()

    @in_loop
    def contains(self, object_id: ObjectID) -> bool:
        """Whether the object is here, sealed and not deleted."""
        return self._core.contains(object_id)

    @in_loop
    def meta(self, object_id: ObjectID) -> ObjectMeta:
        """What is known about an object.

        Raises
        ------
        ObjectNotFoundError
            If it isn't here.
        """
        meta = self._core.meta(object_id)
        if meta is None:
            raise ObjectNotFoundError(f"object {object_id} is not in this store")
        return meta

    @in_loop
    def inventory(self) -> Iterator[ObjectMeta]:
        """Every sealed object, the oldest first."""
        return iter(list(self._core.inventory()))

    @in_loop
    def stats(self) -> dict[str, Any]:
        """The store's figures, in bytes, counts and seconds."""
        return {
            **self._core.stats(),
            "spill_file_nbytes": self._executor.spill_file_nbytes,
            "resident": self._executor.arena.resident_nbytes(),
        }

    @in_loop
    def list_objects(self) -> list[dict[str, Any]]:
        """Every object: id, key, owner, type, nbytes, age in seconds, pins, pinned_by and state."""
        return self._core.describe()

    @in_loop
    def describe(self, object_id: ObjectID) -> dict[str, Any] | None:
        """One object, as `list_objects` has it; None if it isn't here."""
        return self._core.describe_one(object_id)

    # Answers to its own requests

    def _answer(self, answer: Answer) -> None:
        future = self._allocations.pop(answer.request, None)
        if future is None or future.done():
            if answer.status is Status.OK:
                self._core.abort(SERVER, answer.payload[0])
        elif answer.status is Status.OK:
            future.set_result(Extent(*answer.payload))
        else:
            future.set_exception(StoreFullError(answer.payload[0]))

    def _refuse_allocations(self) -> None:
        for future in self._allocations.values():
            if not future.done():
                future.set_exception(StoreClosedError("the store was closed"))
        self._allocations.clear()

    def _headroom(self) -> tuple[list[tuple[int, int]], bool]:
        assert self._upkeep is not None
        return self._upkeep.headroom.headroom(), self._upkeep.headroom.busy
