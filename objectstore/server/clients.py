"""The clients of a server: how each is welcomed, gets its answers, and parts.

A client that has parted may leave pins, leases and reservations behind, as long as a process may look into the arena
for it (``orphans.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from holdfast.objectstore.core.core import StoreCore
from holdfast.objectstore.core.effects import SERVER, Answer
from holdfast.objectstore.memory.arena import Arena
from holdfast.objectstore.server.client_connection import ClientConnection
from holdfast.objectstore.server.orphans import Orphans, lifeline
from holdfast.objectstore.server.requests import Handlers
from holdfast.objectstore.shared.frames import pack
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.index import row_nbytes
from holdfast.objectstore.shared.protocol import MAGIC, VERSION
from holdfast.objectstore.system.file_maps import map_shared, memory_file

logger = logging.getLogger("holdfast.objectstore")


class Clients:
    """All clients of one server. All methods are the loop's to call.

    Parameters
    ----------
    core : StoreCore
        What decides.
    handlers : mapping
        What their requests do, by op.
    settle : callable
        Called after each call of the core.
    spawn : callable
        Has a coroutine run by a task that ends with the store.
    answer_server : callable
        Takes the replies to the server's own requests.
    on_left : callable, optional
        Called with the name and the pid of a client that has gone, and the ids of its objects that are here still.
    """

    def __init__(
        self,
        core: StoreCore,
        handlers: Handlers,
        *,
        settle: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        answer_server: Callable[[Answer], None],
        on_left: Callable[[str, int, list[ObjectID]], None] | None,
    ) -> None:
        self._core = core
        self._handlers = handlers
        self._settle = settle
        self._spawn = spawn
        self._answer_server = answer_server
        self._on_left = on_left
        self._connections: dict[int, ClientConnection] = {}
        self._unsent: dict[ClientConnection, None] = {}
        self._orphans: Orphans | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arena: Arena | None = None
        self._index: Arena | None = None

    def __len__(self) -> int:
        return len(self._connections) + len(self._running_orphans())

    def start(self, loop: asyncio.AbstractEventLoop, arena: Arena, index: Arena) -> None:
        """Clients may come from now on: they're given the arena, and the memory of the index."""
        self._loop = loop
        self._arena = arena
        self._index = index
        self._orphans = Orphans(loop, self._release)

    def close(self) -> None:
        """Ends all connections."""
        for connection in list(self._connections.values()):
            connection.close(None)
        if self._orphans is not None:
            self._orphans.close()

    # Answers

    def deliver(self, answer: Answer) -> None:
        """Gathers an answer, to be sent by ``flush``."""
        if answer.client == SERVER:
            self._answer_server(answer)
            return
        connection = self._connections.get(answer.client)
        if connection is not None:
            connection.send(answer.request, answer.status, *answer.payload)

    def flush(self) -> bool:
        """Sends what has gathered, in one piece for each client. False if there was nothing."""
        if not self._unsent:
            return False
        unsent = list(self._unsent)
        self._unsent.clear()
        for connection in unsent:
            connection.flush()
        return True

    # Coming and going

    def welcome(self, sock: socket.socket, pid: int) -> None:
        """A process has connected: it's a client from now on, and is given all that it has to map."""
        assert self._arena is not None
        assert self._index is not None
        name = f"pid {pid}"
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
        hello = pack([MAGIC, VERSION, connection.client, self._arena.nbytes, index.slots])
        try:
            with contextlib.ExitStack() as theirs:
                row_fd = memory_file("holdfast-pins", row_nbytes(index.slots))
                theirs.callback(os.close, row_fd)
                index.attach(connection.client, map_shared(row_fd, row_nbytes(index.slots), writable=True))
                connection.lifeline, lifeline_fd = lifeline()
                theirs.callback(os.close, lifeline_fd)
                assert connection.lifeline.sentinel is not None
                fds = [self._arena.read_only_fd, self._arena.fd, self._index.read_only_fd]
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
                self._on_left(connection.name, connection.pid, put)

    def _release(self, client: int) -> None:
        self._core.disconnect(client)
        self._settle()

    def _running_orphans(self) -> Orphans:
        assert self._orphans is not None
        return self._orphans
