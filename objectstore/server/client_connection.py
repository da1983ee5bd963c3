"""One client's end at the server: bytes to requests, replies to bytes, and the reasons to hang up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.objectstore.errors import StoreProtocolError
from holdfast.objectstore.server.orphans import Lifeline
from holdfast.objectstore.shared.frames import MessageReader, pack
from holdfast.objectstore.shared.protocol import REQUEST_NBYTES_MAX, Op, parse_request
from holdfast.objectstore.sizes import format_size

logger = logging.getLogger("holdfast.objectstore")

UNREAD_NBYTES_MAX = 32 << 20


class ClientConnection(asyncio.Protocol):
    """One client's end at the server.

    Parameters
    ----------
    client : int
        Its id in the core.
    name : str
        Of the client, for the log.
    pid : int
        The process that connected.
    handlers : mapping
        What is called for each op, with this and the request's fields; raises ``StoreProtocolError`` to have it closed.
    settle : callable
        Called after each piece of what came in, and after the end.
    unsent : dict
        Has this as a key while ``flush`` has something to send.
    forget : callable
        Called once, when it's closed, with this and whether it was the server that hung up on a client.

    Attributes
    ----------
    lifeline : Lifeline
        Of the processes that may look at what the client holds.
    """

    def __init__(
        self,
        client: int,
        name: str,
        pid: int,
        *,
        handlers: Mapping[Op, Callable[..., None]],
        settle: Callable[[], None],
        unsent: dict[ClientConnection, None],
        forget: Callable[[ClientConnection, bool], None],
    ) -> None:
        self.client = client
        self.name = name
        self.pid = pid
        self.lifeline = Lifeline()
        self._handlers = handlers
        self._settle = settle
        self._unsent = unsent
        self._forget = forget
        self._outgoing: list[bytes] = []
        self._outgoing_nbytes = 0
        self._frames = MessageReader(REQUEST_NBYTES_MAX)
        self._transport: asyncio.WriteTransport | None = None
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                if self._closed:
                    break
                op, fields = parse_request(message)
                self._handlers[op](self, *fields)
                if self._outgoing_nbytes > UNREAD_NBYTES_MAX:  # one piece of what came in may ask for very much
                    self.flush()
        except StoreProtocolError as error:
            self.close(f"it broke the protocol: {error}")
        self._settle()

    def connection_lost(self, error: Exception | None) -> None:
        self.close(None)
        self._settle()

    def close(self, reason: str | None) -> None:
        """Ends the connection. With a reason, which is logged, it is the server that hangs up."""
        if self._closed:
            return
        self._closed = True
        if reason is not None:
            logger.warning("Closing the store's connection to client '%s': %s", self.name, reason)
        if self._transport is not None:
            self._transport.abort()
        self._forget(self, reason is not None)

    def send(self, *message: Any) -> None:
        """Gathers a message, to be sent with the others of this turn."""
        frame = pack(message)
        self._outgoing.append(frame)
        self._outgoing_nbytes += len(frame)
        self._unsent[self] = None

    def flush(self) -> None:
        """Sends what has gathered, in one piece."""
        if self._closed or self._transport is None:
            return
        self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()
        self._outgoing_nbytes = 0
        unread = self._transport.get_write_buffer_size()
        if unread > UNREAD_NBYTES_MAX:
            self.close(f"it left {format_size(unread)} of replies unread")
