"""Accepting clients: a process that connects must be this user's, and not one too many."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable

logger = logging.getLogger("holdfast.objectstore")

CLIENTS_MAX = 4096
_ACCEPTS_PER_TURN = 64
_ACCEPT_PAUSE_SECONDS = 1.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Acceptor:
    """Accepts at one socket, from now on until ``close``.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Watches the socket.
    listener : socket.socket
        That listens, and doesn't block; the acceptor's to close.
    path : str
        Of the socket, which is removed with it.
    count : callable
        How many clients there are.
    welcome : callable
        Takes the socket of a client, and the id of the process that has connected.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        path: str,
        *,
        count: Callable[[], int],
        welcome: Callable[[socket.socket, int], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._path = path
        self._count = count
        self._welcome = welcome
        self._pause: asyncio.TimerHandle | None = None
        self._begin()

    def close(self) -> None:
        """Accepts no client any more, and removes the socket."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _begin(self) -> None:
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors, or of memory: processes that connect wait
                logger.warning("The store accepts no clients for %g s: %s", _ACCEPT_PAUSE_SECONDS, error)
                self._loop.remove_reader(self._listener.fileno())
                self._pause = self._loop.call_later(_ACCEPT_PAUSE_SECONDS, self._begin)
                return
            sock.setblocking(False)
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, uid, _ = _CREDENTIALS.unpack(credentials)
            if uid != os.geteuid():
                logger.warning("The store refused process %d of user %d: it serves user %d", pid, uid, os.geteuid())
                sock.close()
            elif self._count() >= CLIENTS_MAX:
                logger.warning("The store refused process %d: it has %d clients", pid, CLIENTS_MAX)
                sock.close()
            else:
                self._welcome(sock, pid)
