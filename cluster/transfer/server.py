"""Gives objects to other hosts and takes objects from them, on the node's port.

One thread a connection, because bytes that move block. The threads touch the store only through its loop: pinning,
allocating and sealing are calls into it, the bytes go straight between arena and socket.

A connection gets its thread when it has opened; until then it is the `Entrance`'s, and takes nothing from those that
have. There are so many threads. A peer that comes when all are taken waits: for one that has asked for nothing for the
longest time, which is ended for it, and may connect again; or, if all are busy, until one isn't.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import functools
import logging
import select
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from holdfast.cluster.comm.blocking import open_accepted, receive_exactly
from holdfast.cluster.comm.entrance import Entrance
from holdfast.cluster.comm.opening import Refused
from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol import transfer
from holdfast.cluster.protocol.opening import check_opening
from holdfast.cluster.transfer import giving, pool
from holdfast.cluster.transfer.checksums import Checksum
from holdfast.objectstore import ObjectID, StoreServer
from holdfast.objectstore.core.objects import ObjectMeta
from holdfast.objectstore.errors import SpillError, StoreClosedError, StoreError
from holdfast.objectstore.server.local import Pinned
from holdfast.objectstore.sizes import format_size

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_CONNECTIONS = 64
#: How many connections that have opened may wait for one of them to end.
MAX_WAITING = 256
#: A connection on which nothing is asked for so long is closed.
IDLE_SECONDS = 2 * pool.IDLE_SECONDS
#: A transfer in which nothing moves for so long is given up.
STALL_SECONDS = 30.0
#: How long an object that a client brings waits for room.
ROOM_SECONDS = 20.0
#: What a connection has put here is gone through for what is here still when it has become this much, or twice as much
#: as was left the last time.
PUT_COUNT = 1000


class _Put:
    """What the peer of one connection has put here, as far as it is here still. Used in the loop."""

    def __init__(self, store: StoreServer, peer: str) -> None:
        self.peer = peer
        self._store = store
        self._object_ids: list[ObjectID] = []
        self._limit = PUT_COUNT

    def add(self, object_id: ObjectID) -> None:
        self._object_ids.append(object_id)
        if len(self._object_ids) >= self._limit:
            self._object_ids = self.present()
            self._limit = max(PUT_COUNT, 2 * len(self._object_ids))

    def present(self) -> list[ObjectID]:
        return [object_id for object_id in self._object_ids if self._store.contains(object_id)]


class TransferServer:
    """Serves a store to peers.

    Parameters
    ----------
    sock:
        Bound and listening; the server's from here on.
    store:
        What is served. Its methods are called in the loop in which `start` is called.
    token:
        The cluster's token.
    name:
        The name that peers are told of this host.
    on_left:
        ``on_left(name, object_ids)``, called in the loop when a peer's connection ends that has put objects here.
    """

    def __init__(
        self,
        sock: socket.socket,
        store: StoreServer,
        *,
        token: bytes,
        name: str,
        on_left: Callable[[str, list[ObjectID]], None] = lambda name, object_ids: None,
    ) -> None:
        self._listening = sock
        self._store = store
        self._capacity = store.stats()["capacity"]
        self._token = token
        self._name = name
        self._on_left = on_left
        self._loop = asyncio.get_running_loop()
        self._entrance: Entrance | None = None
        self._connections: dict[socket.socket, threading.Thread] = {}
        # Those that have opened and have no thread yet, and what their peers call themselves.
        self._waiting: collections.deque[tuple[socket.socket, str, str]] = collections.deque()
        # In the order in which they fell idle.
        self._idle: dict[socket.socket, None] = {}
        self._allocating: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._all_ended = asyncio.Event()

    def start(self) -> None:
        self._entrance = Entrance(self._listening, self._open)

    async def close(self) -> None:
        """Break off what is going on, and wait until nothing here touches the store any more."""
        if self._closed:
            return
        self._closed = True
        if self._entrance is not None:
            await self._entrance.close()
        self._listening.close()
        for sock, _, _ in self._waiting:
            sock.close()
        self._waiting.clear()
        for sock in list(self._connections):
            _shut_down(sock)
        for task in list(self._allocating):
            task.cancel()
        while self._connections:
            self._all_ended.clear()
            await self._all_ended.wait()

    # -- accepting, in the loop

    async def _open(self, sock: socket.socket, address: str) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, info = await open_accepted(sock, token=self._token, welcome=self._welcome)
        except BaseException:
            sock.close()
            raise
        self._waiting.append((sock, address, str(info.get("id", ""))))
        self._serve_next()

    def _welcome(self, role: str, info: dict[str, Any]) -> dict[str, Any]:
        if role != "peer":
            raise Refused("role", f"this is the transfer port of a node agent, which is nothing for a {role}")
        try:
            check_opening(role, info)
        except ProtocolError as error:
            raise Refused("role", str(error)) from None
        if len(self._waiting) >= MAX_WAITING:
            raise Refused("later", f"{MAX_CONNECTIONS} peers are served and {MAX_WAITING} wait")
        return {"id": self._name}

    def _serve_next(self) -> None:
        """Give a thread to a connection that waits for one, or end an idle connection, so that there is one soon."""
        if self._waiting and len(self._connections) < MAX_CONNECTIONS:
            sock, address, peer = self._waiting.popleft()
            thread = threading.Thread(target=self._serve, args=(sock, address, peer), daemon=True)
            thread.name = f"holdfast-transfer-{address}"
            self._connections[sock] = thread
            thread.start()
        elif self._waiting and (oldest := next(iter(list(self._idle)), None)) is not None:
            self._idle.pop(oldest, None)
            _shut_down(oldest)

    def _ended(self, sock: socket.socket, put: _Put) -> None:
        self._connections.pop(sock).join()
        self._idle.pop(sock, None)
        sock.close()
        if object_ids := put.present():
            self._on_left(put.peer, object_ids)
        self._serve_next()
        if self._closed and not self._connections:
            self._all_ended.set()

    # -- one connection, in its thread

    def _serve(self, sock: socket.socket, address: str, peer: str) -> None:
        put = _Put(self._store, peer)
        try:
            sock.settimeout(STALL_SECONDS)
            handlers: dict[bytes, Callable[[socket.socket], None]] = {
                transfer.GET: self._give,
                transfer.PUT: functools.partial(self._take, put=put),
            }
            while (operation := self._next_request(sock)) is not None:
                if operation not in handlers:
                    raise ProtocolError(f"unknown operation {operation!r}")
                handlers[operation](sock)
        except ProtocolError as error:
            logger.warning("closing the transfer connection with %s: %s", address, error)
        except OSError as error:
            if not self._closed:
                logger.info("the transfer connection with %s ended: %s", address, error)
        except Exception:
            logger.exception("the transfer connection with %s failed", address)
        finally:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ended, sock, put)

    def _next_request(self, sock: socket.socket) -> bytes | None:
        """The next operation; None when the asker has left, or has asked for nothing for a long time."""
        self._idle[sock] = None
        if self._waiting:  # for a thread: this one can be had
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._serve_next)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        try:
            if self._closed or not poll.poll(IDLE_SECONDS * 1000):
                return None
        finally:
            self._idle.pop(sock, None)
        return sock.recv(1) or None

    def _give(self, sock: socket.socket) -> None:
        object_id = ObjectID(receive_exactly(sock, transfer.ID_NBYTES))
        found = self._await(self._pin(object_id))
        if found is None:
            sock.sendall(transfer.absence())
            return
        pinned, meta = found
        confirmed = False
        try:
            giving.give(sock, self._store, pinned, meta, lose=self._lose)
            confirmed = True
        finally:
            self._loop.call_soon_threadsafe(self._let_go, pinned, None if confirmed else sock)

    def _let_go(self, pinned: Pinned, unconfirmed: socket.socket | None) -> None:
        """End a pin. The connection whose other end has not confirmed goes first, with all that is queued on it."""
        if unconfirmed is not None:
            _reset(unconfirmed)
        self._store.unpin(pinned)

    def _lose(self, pinned: Pinned) -> None:
        self._call(self._store.lose, pinned)

    async def _pin(self, object_id: ObjectID) -> tuple[Pinned, transfer.Description] | None:
        if not self._store.contains(object_id):
            return None
        meta = self._store.meta(object_id)
        try:
            pinned = await self._store.pin(object_id)
        except SpillError:  # logged by the store; it isn't here any more
            return None
        return (
            None
            if pinned is None
            else (
                pinned,
                transfer.Description(meta.key, meta.owner, meta.type_name, meta.label, meta.references),
            )
        )

    def _take(self, sock: socket.socket, put: _Put) -> None:
        object_id = ObjectID(receive_exactly(sock, transfer.ID_NBYTES))
        announced = pool.receive_announcement(sock)
        if announced is None:
            raise ProtocolError("an object without a size was brought")
        nbytes, meta = announced
        if nbytes > self._capacity:
            sock.sendall(transfer.refusal(too_large(object_id, nbytes, self._capacity)))
            return
        try:
            reservation = self._await(self._allocate(nbytes))
        except StoreError as error:
            sock.sendall(transfer.refusal(str(error)))
            return
        sealed = False
        damage = None
        try:
            sock.sendall(transfer.YES)
            checksum = Checksum()
            with self._store.writable_view(reservation) as view:
                checksum.receive_into(sock, view)
            pool.compare(checksum, receive_exactly(sock, transfer.CHECKSUM.size))
            self._call(self._seal, reservation, object_id, meta, put)
            sealed = True
        except pool.DamagedError as error:
            damage = f"what came to {self._name} is damaged: {error}"
        finally:
            if not sealed:
                self._call(self._store.abort, reservation)
        if damage is not None:
            logger.warning("object %s, brought by %s: %s", object_id, put.peer, damage)
        sock.sendall(transfer.YES if damage is None else transfer.refusal(damage))

    def _seal(self, reservation: Any, object_id: ObjectID, meta: transfer.Description, put: _Put) -> None:
        self._store.seal(reservation, object_id, ObjectMeta(**meta._asdict()))
        put.add(object_id)

    async def _allocate(self, nbytes: int) -> Any:
        task = asyncio.current_task()
        assert task is not None
        if self._closed:
            raise StoreClosedError("this host leaves the cluster")
        self._allocating.add(task)
        try:
            return await self._store.allocate(nbytes, timeout=ROOM_SECONDS)
        except asyncio.CancelledError:
            raise StoreClosedError("this host leaves the cluster") from None
        finally:
            self._allocating.discard(task)

    def _call(self, function: Callable[..., T], *args: Any) -> T:
        """Call in the loop's thread, and wait."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def call() -> None:
            try:
                future.set_result(function(*args))
            except BaseException as error:
                future.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return future.result()

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def too_large(object_id: bytes, nbytes: int, capacity: int) -> str:
    return (
        f"object {bytes(object_id).hex()} has {format_size(nbytes)}, more than this host's whole store "
        f"({format_size(capacity)}): start the host with a larger --object-store-memory"
    )


def _reset(sock: socket.socket) -> None:
    """Close a connection; what is queued on it is dropped, and the other end gets an error in its place."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _shut_down(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
