"""The store's server: the I/O around the core.

It lives in an event loop (asyncio's or uvloop's) and blocks it nowhere: no signal handlers, and few threads
(``executor.py``). Accepting (``acceptor.py``), each client's frames (``client_connection.py``, ``requests.py``), the
calls of this process (``local.py``) and the deadlines all become calls of the core. Here these parts are put together,
begun and ended.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Self

from holdfast.objectstore.core.core import StoreCore
from holdfast.objectstore.errors import StoreError
from holdfast.objectstore.memory.arena import Arena
from holdfast.objectstore.memory.upkeep import Upkeep
from holdfast.objectstore.server.acceptor import Acceptor
from holdfast.objectstore.server.clients import Clients
from holdfast.objectstore.server.executor import Executor, Fetch
from holdfast.objectstore.server.local import LocalStore
from holdfast.objectstore.server.requests import RequestHandlers
from holdfast.objectstore.server.socket_file import SOCKET, fresh_directory, listen
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.index import index_nbytes
from holdfast.objectstore.sizes import format_size, parse_size
from holdfast.objectstore.spill.location import SpillLocation, default_location
from holdfast.objectstore.spill.threads import SpillThreads
from holdfast.objectstore.system.leftovers import OwnDirectory
from holdfast.objectstore.system.memory_limits import address_span, default_capacity
from holdfast.objectstore.system.mounts import memory_kind
from holdfast.objectstore.system.surroundings import check_umask, fill_standard_descriptors

logger = logging.getLogger("holdfast.objectstore")


class StoreServer(LocalStore):
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
        object however many ask, and once more for each request that knows sources that haven't failed yet.
    on_left : callable, optional
        Called in the loop with the name and the pid of a client that has gone, however it went, and the ids of the
        objects that it has put here and that are here still.
    clock : callable
        Seconds, never going back.
    spill : bool
        Whether objects that no client looks at are moved to disk when there is no room for others.
    spill_directory : str or path, optional
        Under which a fresh private directory is made for them. By default the first of ``$TMPDIR``, ``/tmp``,
        ``/var/tmp`` and ``~/.cache`` that is on a disk and can be written to; if there is none, nothing is moved, and
        the log and the errors of the full store say so.
    spill_limit : int or str, optional
        The most that may be on disk at a time. By default as much as leaves 5 % of the disk free; in a directory that
        is memory (tmpfs), as much as ``capacity``.
    trim_after_seconds : float
        Free memory of a store that no client has used for so long is given back to the system.

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
        on_left: Callable[[str, int, list[ObjectID]], None] | None = None,
        spill: bool = True,
        spill_directory: str | os.PathLike[str] | None = None,
        spill_limit: int | str | None = None,
        clock: Callable[[], float] = time.monotonic,
        trim_after_seconds: float = 60.0,
    ) -> None:
        nbytes = default_capacity() if capacity is None else parse_size(capacity)
        self._spill_location = _spill_location(spill, spill_directory)
        core = StoreCore(
            nbytes,
            clock=clock,
            span=address_span(nbytes),
            can_fetch=fetch is not None,
            can_spill=self._spill_location.path is not None,
            why_not_spilled=self._spill_location.reason,
        )
        self._clients = Clients(
            core,
            RequestHandlers(core, stats=self.stats, headroom=self._headroom).handlers,
            settle=self._settle,
            spawn=self._spawn,
            answer_server=self._answer,
            on_left=on_left,
        )
        executor = Executor(
            core,
            fetch=fetch,
            clock=clock,
            deliver=self._clients.deliver,
            flush=self._clients.flush,
            on_use=self._on_use,
        )
        super().__init__(core, executor)
        self._clock = clock
        self._spill = spill
        self._spill_limit = None if spill_limit is None else parse_size(spill_limit)
        self._trim_after = trim_after_seconds
        self._given_path = None if socket_path is None else os.fspath(socket_path)
        self._own_directory: OwnDirectory | None = None
        self._arena: Arena | None = None
        self._index: Arena | None = None
        self._acceptor: Acceptor | None = None
        self._started = False
        self._stop: Callable[[], object] | None = None
        self.socket_path = self._given_path or ""

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
        if self._started:
            raise StoreError("a store's server is started once")
        self._started = True
        loop = asyncio.get_running_loop()
        check_umask()
        try:
            allocator, index = self._core.allocator, self._core.index
            self._arena = _arena(allocator.span)
            self._executor.start(loop, self._arena)
            self._index = Arena(index_nbytes(index.slots), "holdfast-index")
            index.lie_in(self._index.view)
            self._clients.start(loop, self._arena, self._index)
            self.socket_path = self._given_path or self._fresh_path()
            self._acceptor = Acceptor(
                loop,
                listen(self.socket_path),
                self.socket_path,
                count=lambda: len(self._clients),
                welcome=self._clients.welcome,
            )
            self._begin_to_spill()
            self._upkeep = Upkeep(loop, self._arena, allocator, self._clock, idle_seconds=self._trim_after)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def aclose(self) -> None:
        """Stops serving, and removes the socket. What clients look at stays mapped in their processes."""
        self._executor.stop()
        if self._upkeep is not None:
            self._upkeep.cancel()
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
        if self._own_directory is not None:
            self._own_directory.close()
            self._own_directory = None
        await self._executor.cancel_work()
        self._clients.close()
        self._refuse_allocations()
        await self._executor.close()
        if self._arena is not None:
            self._arena.close()
            self._arena = None
        if self._index is not None:
            self._core.index.lie_in(None)  # no client reads it any more, and the memory is to go
            self._index.close()
            self._index = None

    def __repr__(self) -> str:
        state = "not running" if self._acceptor is None else f"at {self.socket_path}"
        return f"<StoreServer of {format_size(self.capacity)}, {state}>"

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

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

    def _begin_to_spill(self) -> None:
        location, limit = self._spill_location, self._spill_limit
        if location.path is None:
            if self._spill:
                logger.warning("The store moves nothing to disk when it is full: %s", location.reason)
            return
        if kind := memory_kind(location.path):
            logger.warning("The store's spill directory %s is memory (%s): a disk frees some", location.path, kind)
            limit = self._core.capacity if limit is None else limit
        self._executor.spill_with(SpillThreads(location.path, limit=limit))

    def _fresh_path(self) -> str:
        self._own_directory = fresh_directory()
        return os.path.join(self._own_directory.path, SOCKET)

    # What its parts call

    def _settle(self) -> None:
        self._executor.settle()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._executor.spawn(work)

    def _on_use(self) -> None:
        if self._upkeep is not None:
            self._upkeep.touch()


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
