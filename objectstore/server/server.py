"""The store's server: the I/O around the core.

It lives in an event loop (asyncio's or uvloop's) and blocks it nowhere: no signal handlers, and no threads but
the two that write and read the files of spilled objects, and one that moves objects, once there are any.
Accepting, each client's frames, the node agent's calls and the deadlines all become calls of the core,
each followed by ``_settle``, which sends what the core has decided: one write per client.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Concatenate, NamedTuple, ParamSpec, Self, TypeVar

from holdfast.objectstore.core.core import LIST_PAGE, StoreCore
from holdfast.objectstore.core.effects import (
    SERVER,
    ContinueSearch,
    Drop,
    Effect,
    GetWait,
    Move,
    Punch,
    ReadOthers,
    Reply,
    Shift,
    Spill,
    StartFetch,
    Verify,
)
from holdfast.objectstore.core.objects import ObjectMeta, SpillExtent
from holdfast.objectstore.errors import ObjectNotFoundError, SpillError, StoreClosedError, StoreError, StoreFullError
from holdfast.objectstore.memory.arena import Arena, Extent
from holdfast.objectstore.memory.headroom import Headroom, PageFiller, headroom_limit
from holdfast.objectstore.memory.trim import Limiter, Trimmer
from holdfast.objectstore.server.client_connection import ClientConnection
from holdfast.objectstore.server.mover import Mover
from holdfast.objectstore.server.orphans import Orphans, lifeline
from holdfast.objectstore.server.socket_file import SOCKET, fresh_directory, listen
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.index import index_nbytes, row_nbytes
from holdfast.objectstore.shared.layout import Layout, Segment, in_one_piece
from holdfast.objectstore.shared.protocol import MAGIC, VERSION, Op, SealItem, Status, pack
from holdfast.objectstore.sizes import format_size, parse_size
from holdfast.objectstore.spill.files import SpillLostError, Written
from holdfast.objectstore.spill.location import SpillLocation, default_location
from holdfast.objectstore.spill.threads import SpillThreads
from holdfast.objectstore.system.file_maps import map_shared, memory_file
from holdfast.objectstore.system.leftovers import OwnDirectory
from holdfast.objectstore.system.memory_limits import address_span, default_capacity
from holdfast.objectstore.system.mounts import memory_kind
from holdfast.objectstore.system.surroundings import check_umask, fill_standard_descriptors

logger = logging.getLogger("holdfast.objectstore")

CREATE_TIMEOUT_SECONDS = 30.0
CLIENTS_MAX = 4096
_ACCEPTS_PER_TURN = 64
_ACCEPT_PAUSE_SECONDS = 1.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid

Fetch = Callable[[ObjectID, list[str]], Awaitable[None]]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _in_loop(
    method: Callable[Concatenate[StoreServer, _P], _R],
) -> Callable[Concatenate[StoreServer, _P], _R]:
    """Lets a method be called from any thread while the server runs in a thread of its own."""

    @functools.wraps(method)
    def call(self: StoreServer, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return method(self, *args, **kwargs)

        async def there() -> _R:
            return method(self, *args, **kwargs)

        return asyncio.run_coroutine_threadsafe(there(), self._running_loop()).result()

    return call


class Pinned(NamedTuple):
    """Where a pinned object's bytes are, until its ``unpin``: good for ``os.sendfile`` and ``mmap``."""

    object_id: ObjectID
    fd: int
    layout: Layout
    in_file: SpillExtent | None  # what it is of a file; None: it is in the arena


class StoreServer:
    """A shared-memory object store for the processes of this host and user.

    In an event loop, ``await server.start()`` and ``await server.aclose()``; every other method is then
    the loop's to call. Without one, use it as a context manager: it runs a loop in a thread of its own,
    and the methods that aren't coroutines may be called from anywhere.

    Parameters
    ----------
    capacity : int or str, optional
        Bytes, or a size such as ``"4 GB"``. By default 30 % of the memory. It's taken as it is needed.
    socket_path : str or path, optional
        Where clients connect. By default in a fresh directory of mode 0700 under ``$XDG_RUNTIME_DIR``, if
        that is this user's, or ``/tmp``. A socket that a dead server left there is replaced.
    fetch : callable, optional
        ``await fetch(object_id, sources)`` brings in an object that isn't here (allocate, write, seal)
        or raises; the gets that wait for it then fail with the error's text. Called once per missing
        object however many ask, and once more for each who knows sources that haven't failed yet.
    on_left : callable, optional
        Called in the loop with the name of a client that has gone, however it went, and the ids of the objects
        that it has put here and that are here still.
    clock : callable
        Seconds, never going back.
    spill : bool
        Whether objects that nobody looks at are moved to disk when there is no room for others.
    spill_directory : str or path, optional
        Under which a fresh private directory is made for them. By default the first of ``$TMPDIR``, ``/tmp``,
        ``/var/tmp`` and ``~/.cache`` that is on a disk and can be written to; if there is none, nothing is moved, and
        the log and the errors of the full store say so.
    spill_limit : int or str, optional
        The most that may be on disk at a time. By default as much as leaves 5 % of the disk free; in a directory that
        is memory (tmpfs), as much as ``capacity``.
    trim_after_seconds : float
        Free memory of a store that nobody has used for so long is given back to the system.

    Raises
    ------
    ValueError
        If ``capacity`` or ``spill_limit`` isn't a size.

    Examples
    --------
    >>> with StoreServer(capacity="64 MiB") as server:
    ...     with connect(server.socket_path) as store:
    ...         store.get(store.put([1, 2, 3]))
    [1, 2, 3]
    """

    def __init__(
        self,
        capacity: int | str | None = None,
        socket_path: str | os.PathLike[str] | None = None,
        *,
        fetch: Fetch | None = None,
        on_left: Callable[[str, list[ObjectID]], None] | None = None,
        spill: bool = True,
        spill_directory: str | os.PathLike[str] | None = None,
        spill_limit: int | str | None = None,
        clock: Callable[[], float] = time.monotonic,
        trim_after_seconds: float = 60.0,
    ) -> None:
        nbytes = default_capacity() if capacity is None else parse_size(capacity)
        self._spill_location = _spill_location(spill, spill_directory)
        self._core = StoreCore(
            nbytes,
            clock=clock,
            span=address_span(nbytes),
            can_fetch=fetch is not None,
            can_spill=self._spill_location.path is not None,
            why_not_spilled=self._spill_location.reason,
        )
        self._fetch = fetch
        self._on_left = on_left
        self._clock = clock
        self._spill = spill
        self._spill_limit = None if spill_limit is None else parse_size(spill_limit)
        self._spill_threads: SpillThreads | None = None
        self._mover: Mover | None = None
        self._trim_after = trim_after_seconds
        self._given_path = None if socket_path is None else os.fspath(socket_path)
        self._own_directory: OwnDirectory | None = None
        self._arena: Arena | None = None
        self._index: Arena | None = None
        self._listener: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] | None = None
        self._connections: dict[int, ClientConnection] = {}
        self._unsent: dict[ClientConnection, None] = {}
        self._allocations: dict[int, asyncio.Future[Extent]] = {}
        self._allocation_count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._accepting_again: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._headroom: Headroom | None = None
        self._trimmer: Trimmer | None = None
        self._limiter: Limiter | None = None
        self._orphans: Orphans | None = None
        self.socket_path = self._given_path or ""
        self._handlers: dict[Op, Callable[..., None]] = {
            Op.ATTACH: self._on_attach,
            Op.SEAL: lambda connection, items: self._core.seal(connection.client, items),
            Op.SHARE: lambda connection, *fields: self._core.share(connection.client, *fields),
            Op.LEASE: lambda connection, *fields: self._core.lease(connection.client, *fields),
            Op.CREATE: lambda connection, *fields: self._core.create(connection.client, *fields),
            Op.ABORT: self._on_abort,
            Op.GET: lambda connection, *fields: self._core.get(connection.client, *fields),
            Op.UNPIN: lambda connection, object_ids: self._core.unpin(connection.client, object_ids),
            Op.LAST_UNPIN: lambda connection, slots: self._core.last_unpins(slots),
            Op.CONTAINS: lambda connection, *fields: self._core.ask(connection.client, *fields),
            Op.DELETE: self._on_delete,
            Op.STATS: self._on_stats,
            Op.LIST: self._on_list,
            Op.HEADROOM: self._on_headroom,
        }

    # Life

    async def start(self) -> Self:
        """Begins to serve, in the running loop.

        Raises
        ------
        StoreError
            If another store serves at the path already, the server was started before, or the arena, the socket
            or the directory for spilled objects can't be made.
        HoldfastError
            If the umask would take its files from their owner.
        """
        if self._loop is not None:
            raise StoreError("a store's server is started once")
        self._loop = asyncio.get_running_loop()
        check_umask()
        try:
            self._arena = _arena(self._core.allocator.span)
            self._mover = Mover(self._arena)
            index = self._core.index
            self._index = Arena(index_nbytes(index.slots), "holdfast-index")
            index.lie_in(self._index.view)
            self.socket_path = self._given_path or self._fresh_path()
            self._listener = listen(self.socket_path)
            self._begin_to_accept()
            self._orphans = Orphans(self._loop, self._release)
            self._spill_threads = self._begin_to_spill()
            allocator = self._core.allocator
            limit = functools.partial(headroom_limit, allocator.capacity)
            self._limiter = Limiter(self._arena, allocator, self._clock)
            self._headroom = Headroom(self._loop, self._arena, allocator, limit)
            self._trimmer = Trimmer(
                self._loop,
                self._arena,
                allocator,
                self._clock,
                idle_seconds=self._trim_after,
                on_idle=self._headroom.pause,
            )
        except BaseException:
            await self.aclose()
            raise
        return self

    async def aclose(self) -> None:
        """Stops serving, and removes the socket. What clients look at stays mapped in their processes."""
        self._closing = True
        for handle in (self._deadline, self._accepting_again, self._trimmer, self._headroom):
            if handle is not None:
                handle.cancel()
        if self._listener is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
            with contextlib.suppress(OSError):
                os.unlink(self.socket_path)
        if self._own_directory is not None:
            self._own_directory.close()
            self._own_directory = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self._connections.values()):
            connection.close(None)
        if self._orphans is not None:
            self._orphans.close()
        for future in self._allocations.values():
            if not future.done():
                future.set_exception(StoreClosedError("the store was closed"))
        self._allocations.clear()
        if self._spill_threads is not None:
            spill_threads, self._spill_threads = self._spill_threads, None
            await spill_threads.close()
        if self._mover is not None:
            mover, self._mover = self._mover, None
            await mover.close()
        if self._arena is not None:
            self._arena.close()
            self._arena = None
        if self._index is not None:
            self._core.index.lie_in(None)  # nobody reads it any more, and the memory is to go
            self._index.close()
            self._index = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "not running" if self._listener is None else f"at {self.socket_path}"
        return f"<StoreServer of {format_size(self.capacity)}, {state}>"

    def __enter__(self) -> Self:
        started = threading.Event()
        failure: list[BaseException] = []

        async def serve() -> None:
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            try:
                await self.start()
            except BaseException as error:
                failure.append(error)
                return
            finally:
                self._stop = functools.partial(loop.call_soon_threadsafe, stop.set)
                started.set()
            try:
                await stop.wait()
            finally:
                await self.aclose()

        self._thread = threading.Thread(target=run, args=(serve,), name="holdfast-store", daemon=True)
        self._thread.start()
        started.wait()
        if failure:
            self._thread.join()
            self._thread = None
            raise failure[0]
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._thread is not None
        assert self._stop is not None
        self._stop()
        self._thread.join()
        self._thread = None

    def _begin_to_spill(self) -> SpillThreads | None:
        location, limit = self._spill_location, self._spill_limit
        if location.path is None:
            if self._spill:
                logger.warning("The store moves nothing to disk when it is full: %s", location.reason)
            return None
        if kind := memory_kind(location.path):
            logger.warning("The store's spill directory %s is memory (%s): a disk frees some", location.path, kind)
            limit = self._core.capacity if limit is None else limit
        return SpillThreads(location.path, limit=limit)

    def _fresh_path(self) -> str:
        self._own_directory = fresh_directory()
        return os.path.join(self._own_directory.path, SOCKET)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._arena is None:
            raise StoreClosedError("the store isn't running")
        return self._loop

    def _running_arena(self) -> Arena:
        if self._arena is None:
            raise StoreClosedError("the store isn't running")
        return self._arena

    # For the node agent, in the loop

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
        return self._running_arena().read_only_fd

    @property
    def writable_fd(self) -> int:
        """The descriptor of the arena; the server's to close."""
        return self._running_arena().fd

    def have_pages_made_by(self, maker: PageFiller | None) -> None:
        """Pages that the next large objects will need are made by ``maker`` from here on; None: by a thread here."""
        if self._headroom is not None:
            self._headroom.have_made_by(maker)

    def writable_view(self, extent: Extent) -> memoryview:
        """The bytes of a reservation, to be written."""
        return self._running_arena().view[extent.offset : extent.offset + extent.nbytes]

    def readable_view(self, segment: Segment) -> memoryview:
        """The bytes of a segment of an object that is pinned in the arena."""
        return self._running_arena().view[segment.offset : segment.offset + segment.nbytes].toreadonly()

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
            fd = await self._running_spill_threads().open_verified(object_id, extent)
        except BaseException as error:
            if isinstance(error, SpillLostError):
                self._core.lose(object_id, extent)
            self._core.unpin(SERVER, [object_id])
            self._settle()
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
        self._settle()

    def lose(self, pinned: Pinned) -> None:
        """What was read of a pinned object's file is damaged: the object isn't here any more."""
        if pinned.in_file is not None:
            self._core.lose(pinned.object_id, pinned.in_file)
            self._settle()

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
        loop = self._running_loop()
        self._allocation_count += 1
        request = self._allocation_count
        future: asyncio.Future[Extent] = loop.create_future()
        self._allocations[request] = future
        try:
            self._core.create(SERVER, request, nbytes, CREATE_TIMEOUT_SECONDS if timeout is None else timeout)
            self._settle()
            return await future
        except asyncio.CancelledError:
            if not self._core.cancel(SERVER, request) and future.done() and not future.cancelled():
                self.abort(future.result())
            self._settle()
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
        item = SealItem(object_id, *reservation, meta.key, meta.owner, meta.type_name, False)
        self._core.seal(SERVER, [item])
        self._settle()

    def abort(self, reservation: Extent) -> None:
        """Gives a reservation back.

        Raises
        ------
        StoreProtocolError
            If ``reservation`` isn't one.
        """
        self._core.abort(SERVER, reservation.offset)
        self._settle()

    @_in_loop
    def delete(self, object_ids: Iterable[ObjectID]) -> None:
        """The objects vanish; their bytes are free when nobody looks at them any more.

        An id that isn't here is remembered, so that a seal that comes after its delete vanishes too.
        """
        self._core.delete(object_ids)
        self._settle()

    @_in_loop
    def contains(self, object_id: ObjectID) -> bool:
        """Whether the object is here, sealed and not deleted."""
        return self._core.contains(object_id)

    @_in_loop
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

    @_in_loop
    def inventory(self) -> Iterator[ObjectMeta]:
        """Every sealed object, the oldest first."""
        return iter(list(self._core.inventory()))

    @_in_loop
    def stats(self) -> dict[str, Any]:
        """The store's figures, in bytes, counts and seconds."""
        return {
            **self._core.stats(),
            "spill_file_nbytes": 0 if self._spill_threads is None else self._spill_threads.file_nbytes,
            "resident": self._running_arena().resident_nbytes(),
        }

    @_in_loop
    def list_objects(self) -> list[dict[str, Any]]:
        """Every object: id, key, owner, type, nbytes, age in seconds, pins, pinned_by and state."""
        return self._core.describe()

    # Clients

    def _begin_to_accept(self) -> None:
        assert self._listener is not None
        self._running_loop().add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors, or of memory: who wants to connect waits
                logger.warning("The store accepts no clients for %g s: %s", _ACCEPT_PAUSE_SECONDS, error)
                loop = self._running_loop()
                loop.remove_reader(self._listener.fileno())
                self._accepting_again = loop.call_later(_ACCEPT_PAUSE_SECONDS, self._begin_to_accept)
                return
            sock.setblocking(False)
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, uid, _ = _CREDENTIALS.unpack(credentials)
            if uid != os.geteuid():
                logger.warning("The store refused process %d of user %d: it serves user %d", pid, uid, os.geteuid())
                sock.close()
            elif len(self._connections) + len(self._running_orphans()) >= CLIENTS_MAX:
                logger.warning("The store refused process %d: it has %d clients", pid, CLIENTS_MAX)
                sock.close()
            else:
                self._welcome(sock, f"pid {pid}", pid)

    def _welcome(self, sock: socket.socket, name: str, pid: int) -> None:
        arena = self._running_arena()
        assert self._index is not None
        index = self._core.index
        connection = ClientConnection(
            self._core.connect(name),
            name,
            pid,
            handlers=self._handlers,
            settle=self._settle,
            unsent=self._unsent,
            forget=self._forget,
        )
        hello = pack([MAGIC, VERSION, connection.client, arena.nbytes, index.slots])
        try:
            with contextlib.ExitStack() as theirs:
                row_fd = memory_file("holdfast-pins", row_nbytes(index.slots))
                theirs.callback(os.close, row_fd)
                index.attach(connection.client, map_shared(row_fd, row_nbytes(index.slots), writable=True))
                connection.lifeline, lifeline_fd = lifeline()
                theirs.callback(os.close, lifeline_fd)
                assert connection.lifeline.sentinel is not None
                fds = [arena.read_only_fd, arena.fd, self._index.read_only_fd]
                socket.send_fds(sock, [hello], [*fds, row_fd, lifeline_fd, connection.lifeline.sentinel.fd])
        except OSError as error:
            logger.warning("The store can't welcome client '%s': %s", name, error)
            sock.close()
            connection.lifeline.close()
            self._core.disconnect(connection.client)
            return
        self._connections[connection.client] = connection
        self._spawn(self._adopt(sock, connection))

    async def _adopt(self, sock: socket.socket, connection: ClientConnection) -> None:
        assert self._loop is not None
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except BaseException:
            sock.close()
            connection.close(None)
            raise

    def _forget(self, connection: ClientConnection, hung_up: bool) -> None:
        client = connection.client
        if self._connections.pop(client, None) is not None:
            put = [] if self._on_left is None else self._core.sealed_by(client)
            lifeline = connection.lifeline
            if not (self._core.part_with(client, hung_up=hung_up) and self._running_orphans().hold(client, lifeline)):
                lifeline.close()
                self._core.disconnect(client)
            elif hung_up:
                logger.warning(
                    "What client '%s' of the store holds is kept while process %d, or a fork of it, may look at it",
                    connection.name,
                    connection.pid,
                )
            if self._on_left is not None:
                self._on_left(connection.name, put)

    def _release(self, client: int) -> None:
        self._core.disconnect(client)
        self._settle()

    def _running_orphans(self) -> Orphans:
        assert self._orphans is not None
        return self._orphans

    def _on_attach(self, connection: ClientConnection, name: str) -> None:
        if name:
            connection.name = name
            self._core.rename(connection.client, name)

    def _on_abort(self, connection: ClientConnection, offsets: list[int]) -> None:
        for offset in offsets:
            self._core.abort(connection.client, offset)

    def _on_delete(self, connection: ClientConnection, request: int, object_ids: list[ObjectID]) -> None:
        self._core.delete(object_ids)
        connection.send(request, Status.OK)

    def _on_stats(self, connection: ClientConnection, request: int) -> None:
        connection.send(request, Status.OK, self.stats())

    def _on_list(self, connection: ClientConnection, request: int, start: int) -> None:
        page = self._core.describe(start, LIST_PAGE)
        connection.send(request, Status.OK, page, len(page) == LIST_PAGE)

    def _on_headroom(self, connection: ClientConnection, request: int) -> None:
        assert self._headroom is not None
        connection.send(request, Status.OK, self._headroom.headroom(), self._headroom.busy)

    # Doing what the core decided

    def _settle(self) -> None:
        while True:
            effects = self._core.drain()
            if not effects:
                if not self._unsent:
                    break
                # Sending may close a client, and what that releases may be what others wait for.
                unsent = list(self._unsent)
                self._unsent.clear()
                for connection in unsent:
                    connection.flush()
            for effect in effects:
                self._do(effect)
        self._set_timer()
        if self._trimmer is not None and self._headroom is not None:
            self._trimmer.touch()
            self._headroom.touch()
        if self._limiter is not None and not self._closing:
            self._limiter.touch()

    def _do(self, effect: Effect) -> None:
        match effect:
            case Reply():
                self._deliver(effect)
            case _ if self._closing:
                pass  # nothing begins any more
            case StartFetch(object_id, sources):
                self._spawn(self._run_fetch(object_id, sources))
            case ReadOthers(wait):
                self._after_a_look_at_all(wait)
            case Spill(layouts):
                self._spawn(self._run_spill(layouts))
            case Move(shifts):
                self._spawn(self._run_move(shifts))
            case Punch(offset, nbytes):
                self._running_arena().punch(offset, nbytes)
            case ContinueSearch():
                self._running_loop().call_soon(self._on_continue_search)
            case Verify(object_id, extent):
                self._spawn(self._run_verify(object_id, extent))
            case Drop(extent):
                if self._spill_threads is not None:
                    self._spill_threads.drop(extent)

    def _after_a_look_at_all(self, wait: GetWait) -> None:
        # What was sent before the request is in the sockets by now, no more than they hold. The loop runs what was
        # called soon, looks at the sockets, and reads them: the second turn from now comes after that.
        loop = self._running_loop()
        loop.call_soon(loop.call_soon, self._on_others_read, wait)

    def _on_others_read(self, wait: GetWait) -> None:
        self._core.others_read(wait)
        self._settle()

    def _on_continue_search(self) -> None:
        self._core.continue_search()
        self._settle()

    def _deliver(self, reply: Reply) -> None:
        if reply.client != SERVER:
            connection = self._connections.get(reply.client)
            if connection is not None:
                connection.send(reply.request, reply.status, *reply.payload)
            return
        future = self._allocations.pop(reply.request, None)
        if future is None or future.done():
            if reply.status is Status.OK:
                self._core.abort(SERVER, reply.payload[0])
        elif reply.status is Status.OK:
            future.set_result(Extent(*reply.payload))
        else:
            future.set_exception(StoreFullError(reply.payload[0]))

    def _set_timer(self) -> None:
        due = None if self._closing else self._core.next_deadline()
        if self._deadline is not None:
            if due is not None and self._due == due:
                return
            self._deadline.cancel()
            self._deadline = None
        if due is not None and self._loop is not None:
            self._due = due
            self._deadline = self._loop.call_later(max(0.0, due - self._clock()), self._on_deadline)

    def _on_deadline(self) -> None:
        self._deadline = None
        self._core.expire()
        self._settle()

    async def _run_fetch(self, object_id: ObjectID, sources: list[str]) -> None:
        assert self._fetch is not None
        error: str | None = None
        status = Status.FETCH_FAILED
        cancelled = False
        try:
            await self._fetch(object_id, sources)
        except asyncio.CancelledError:
            error = f"the fetch of object {object_id} was cancelled"
            cancelled = True
            raise
        except Exception as failure:
            error = f"object {object_id} can't be fetched: {failure or type(failure).__name__}"
            if isinstance(failure, ObjectNotFoundError):
                status = Status.NOT_FOUND
            elif isinstance(failure, StoreFullError):
                status = Status.FULL
        finally:
            self._core.fetch_done(object_id, error, status, try_others=not cancelled)
            self._settle()

    def _running_spill_threads(self) -> SpillThreads:
        if self._spill_threads is None:
            raise StoreClosedError("the store isn't running")
        return self._spill_threads

    async def _run_spill(self, layouts: list[Layout]) -> None:
        written = Written([None] * len(layouts), "it was cut short")
        try:
            written = await self._running_spill_threads().write(self._running_arena().view, layouts)
        finally:
            self._core.spill_done(written.extents, written.error)
            self._settle()

    async def _run_move(self, shifts: list[Shift]) -> None:
        done = False
        try:
            assert self._mover is not None
            done = await self._mover.copy(shifts)
        finally:
            self._core.moved(done=done)
            self._settle()

    async def _run_verify(self, object_id: ObjectID, extent: SpillExtent) -> None:
        error: SpillError | None = SpillError(f"object {object_id} was not read: the store was closed")
        try:
            error = await self._running_spill_threads().verify(object_id, extent)
        finally:
            text = None if error is None else str(error)
            self._core.verified(extent, text, lost=isinstance(error, SpillLostError))
            self._settle()

    def _spawn(self, work: Any) -> None:
        assert self._loop is not None
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.warning("Work of the store failed: %r", task.exception())


def run(main: Callable[[], Any]) -> None:
    """Runs a coroutine function in a loop of its own, uvloop's where it's installed."""
    fill_standard_descriptors()
    try:
        import uvloop  # what is there decides: it halves a round trip, and nothing else depends on it
    except ImportError:
        asyncio.run(main())
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())


def _spill_location(spill: bool, named: str | os.PathLike[str] | None) -> SpillLocation:
    if not spill:
        return SpillLocation(None)
    return SpillLocation(os.fspath(named)) if named else default_location()


def _arena(nbytes: int) -> Arena:
    try:
        return Arena(nbytes)
    except (OSError, OverflowError) as error:
        raise StoreError(f"there can't be a store of {format_size(nbytes)}: {error}; give it less capacity") from error
