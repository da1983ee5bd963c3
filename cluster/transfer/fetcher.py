"""Brings objects here from the stores of other hosts.

An object is fetched once, however many clients ask for it, and its sources are tried in turn. A few threads move the
bytes, over connections that are kept. All else happens in the store's loop.

A host that is stopped, or a link that is cut, is known by its silence only, which takes long. So each host has places
of its own, and fetches from other hosts don't wait for it. A fetch that waits for a place at a silent host waits as
long as the one before it, and then goes on to the next source.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import socket
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from holdfast.cluster.errors import ConnectError
from holdfast.cluster.protocol import transfer
from holdfast.cluster.protocol.durable_copies import DurableCopy
from holdfast.cluster.transfer import pool
from holdfast.cluster.transfer.server import ROOM_SECONDS, STALL_SECONDS, too_large
from holdfast.objectstore import ObjectID, StoreServer
from holdfast.objectstore.core.objects import ObjectMeta
from holdfast.objectstore.durable import objects
from holdfast.objectstore.durable.place import Place
from holdfast.objectstore.errors import DurableError, ObjectNotFoundError, StoreError, StoreFullError

logger = logging.getLogger(__name__)

#: How many objects arrive from one host at once, and from all of them; others wait.
FETCHES_PER_HOST = 8
MAX_FETCHES = 64
#: How long an object that was sealed on this host may take to be known here: the word of it may come around by way of
#: the scheduler before the seal itself has been read from its writer's socket.
LATE_SEAL_SECONDS = 0.5


class _Absent(Exception):
    """The host that was asked does not have the object."""


class _Source:
    """A host that objects are brought from."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(FETCHES_PER_HOST)
        self.silences = 0  # how often it did not answer


class Fetcher:
    """Brings objects into a store.

    Parameters
    ----------
    store:
        Where they go. Everything here is called in its loop.
    address:
        Of this node, which is no source.
    token:
        The cluster's.
    on_copied:
        Called with the id of each object that has arrived.
    on_not_copied:
        ``on_not_copied(object_id, reason)``: a copy that was asked for could not be brought.
    place:
        Opens a place for durable datasets by its path or URL, in any thread.
    """

    def __init__(
        self,
        store: StoreServer,
        *,
        address: str,
        token: bytes,
        on_copied: Callable[[ObjectID], None],
        on_not_copied: Callable[[ObjectID, str], None],
        place: Callable[[str], Place],
    ) -> None:
        self._store = store
        self._capacity = store.stats()["capacity"]
        self._address = address
        self._on_copied = on_copied
        self._on_not_copied = on_not_copied
        self._place = place
        self._copying: set[asyncio.Task[None]] = set()
        self._pool = pool.PeerPool(token, name=address)
        self._threads = concurrent.futures.ThreadPoolExecutor(MAX_FETCHES, thread_name_prefix="holdfast-fetch")
        self._sources: weakref.WeakValueDictionary[str, _Source] = weakref.WeakValueDictionary()
        self._running: dict[ObjectID, asyncio.Task[None]] = {}
        self._durable_places = asyncio.Semaphore(FETCHES_PER_HOST)

    async def fetch(self, object_id: ObjectID, sources: Iterable[str]) -> None:
        """Bring an object here; it is in the store when this returns.

        Raises
        ------
        ObjectNotFoundError
            None of the sources could give it; names what was tried and what came of it.
        StoreFullError
            There is no room for it here.
        """
        task = self._running.get(object_id)
        if task is None:
            task = asyncio.ensure_future(self._fetch(object_id, list(sources)))
            self._running[object_id] = task
            task.add_done_callback(lambda _: self._running.pop(object_id, None))
        await asyncio.shield(task)

    def copy(self, objects: Iterable[tuple[bytes, Sequence[str]]]) -> None:
        """Bring objects here, soon, and tell of each whether it is here."""
        for object_id, sources in objects:
            task = asyncio.ensure_future(self._copy(ObjectID(object_id), sources))
            self._copying.add(task)  # or the loop would be its only, weak, holder
            task.add_done_callback(self._copying.discard)

    async def _copy(self, object_id: ObjectID, sources: Sequence[str]) -> None:
        if self._store.contains(object_id):
            self._on_copied(object_id)
            return
        try:
            await self.fetch(object_id, sources)
        except (StoreError, ConnectError) as error:
            self._on_not_copied(object_id, str(error))

    async def close(self) -> None:
        """Break off what is on its way, and wait until nothing here touches the store any more."""
        running = [*self._running.values(), *self._copying]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        self._pool.close()
        # What the threads still do is connect to hosts that don't answer, which touches nothing here.
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _fetch(self, object_id: ObjectID, sources: list[str]) -> None:
        if self._store.contains(object_id):
            return
        tried: dict[str, str] = {}  # and what came of it
        for copy in filter(None, map(DurableCopy.of, sources)):
            try:
                await self._bring_durable(copy, object_id)
            except DurableError as error:
                tried[copy.source] = str(error)
            else:
                return
        to_try = [source for source in sources if source != self._address and source not in tried]
        for pause in (*pool.PAUSES_SECONDS, None):
            broken = []  # connections with these broke under way: once more, after the others
            for source in to_try:
                try:
                    await self._fetch_from(source, object_id)
                except _Absent:
                    tried[source] = f"{source} does not have it"
                except pool.DamagedError as error:
                    logger.warning("object %s, brought to %s: %s", object_id, self._address, error)
                    tried[source] = str(error)
                except ConnectError as error:
                    tried[source] = str(error)
                    if isinstance(error, pool.BrokenError):
                        broken.append(source)
                else:
                    return
            if not broken or pause is None:
                break
            to_try = broken
            await asyncio.sleep(pause)
        if self._address in sources:
            # The requests that wait for the object get it when it is sealed; this only puts off the bad news.
            await asyncio.sleep(LATE_SEAL_SECONDS)
        what_came = "; ".join(tried.values()) if tried else "and no other host is known to have it"
        raise ObjectNotFoundError(f"object {object_id} is not in this host's store: {what_came}")

    async def _bring_durable(self, copy: DurableCopy, object_id: ObjectID) -> None:
        """Take an object from a file: in place, if this host has it."""
        async with self._durable_places:
            place = await self._in_thread_to_end(self._place, copy.place)
            name = objects.name_of(copy.digest)
            path = place.path_of(name)
            if path is not None and await self._in_thread_to_end(place.size, name) != copy.nbytes:
                raise DurableError(f"{path} is not there any more, or damaged: publish its dataset once more")
            if path is None or not self._store.adopt(object_id, path, copy.nbytes, int(copy.checksum, 16)):
                await self._download(place, copy, object_id)
            self._on_copied(object_id)

    async def _download(self, place: Place, copy: DurableCopy, object_id: ObjectID) -> None:
        if copy.nbytes > self._capacity:
            raise StoreFullError(too_large(object_id, copy.nbytes, self._capacity))
        reservation = await self._store.allocate(copy.nbytes, timeout=ROOM_SECONDS)
        view = self._store.writable_view(reservation)
        try:
            await self._in_thread_to_end(objects.read_into, place, copy.digest, view)
        except BaseException:
            view.release()
            self._store.abort(reservation)
            raise
        view.release()
        self._store.seal(reservation, object_id)

    async def _in_thread_to_end(self, function: Callable[..., Any], *args: Any) -> Any:
        """Also if this is cancelled, the thread has ended when it returns: it may write into the arena."""
        doing = self._loop_future(function, *args)
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            await asyncio.wait([doing])
            doing.exception()
            raise

    async def _fetch_from(self, address: str, object_id: ObjectID) -> None:
        source = self._sources.get(address)
        if source is None:
            source = self._sources[address] = _Source()
        silences = source.silences
        async with source.places:
            if source.silences > silences:
                raise ConnectError(f"{address} does not answer")
            if not self._store.contains(object_id):
                await self._bring(address, source, object_id)

    async def _bring(self, address: str, source: _Source, object_id: ObjectID) -> None:
        asked = time.monotonic()
        try:
            sock, announced = await self._in_thread(_request, self._pool, address, object_id)
        except ConnectError:
            if time.monotonic() - asked >= STALL_SECONDS:
                source.silences += 1
            raise
        done = False
        try:
            if announced is None:
                done = True
                raise _Absent
            nbytes, meta = announced
            if nbytes > self._capacity:
                raise StoreFullError(too_large(object_id, nbytes, self._capacity))
            reservation = await self._store.allocate(nbytes, timeout=ROOM_SECONDS)
            try:
                await self._receive(address, sock, reservation)
            except BaseException:
                self._store.abort(reservation)
                raise
            self._store.seal(reservation, object_id, ObjectMeta(**meta._asdict()))
            self._on_copied(object_id)
            done = True
        finally:
            if done:
                self._pool.give(address, sock)
            else:
                sock.close()

    async def _receive(self, address: str, sock: socket.socket, reservation: Any) -> None:
        view = self._store.writable_view(reservation)
        receiving = self._loop_future(_receive, address, sock, view)
        try:
            await asyncio.shield(receiving)
        except asyncio.CancelledError:
            # The thread must not write into memory that is no longer this object's.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            await asyncio.wait([receiving])
            receiving.exception()
            raise
        finally:
            view.release()

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        asking = self._loop_future(function, *args)
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(_close_result)
            raise

    def _loop_future(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


# -- in a thread


def _request(
    peers: pool.PeerPool, address: str, object_id: ObjectID
) -> tuple[socket.socket, tuple[int, transfer.Description] | None]:
    return peers.request(address, transfer.get(object_id), pool.receive_announcement, STALL_SECONDS)


def _receive(address: str, sock: socket.socket, view: memoryview) -> None:
    with pool.naming(address):
        pool.receive_object(sock, view)


def _close_result(asking: asyncio.Future[Any]) -> None:
    if not asking.cancelled() and asking.exception() is None:
        asking.result()[0].close()
