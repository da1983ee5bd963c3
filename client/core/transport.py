"""The way of a session's messages: what `Session` needs of whatever carries them, and the connection that usually does.

The session says what messages mean; a transport moves them. So another connection can carry a session, too: that of a
worker, with the client's messages among its own, carries the session of the client inside its tasks. The code that
builds such a client provides

* a `Transport`, with the promises that are said there;
* a `Session` over it, made and started in the thread that the transport calls from (`Session.start`);
* a `StoreAccess`, or what gives the same: reads and writes objects;
* a `Driver` (`holdfast.client.drivers`), which may do something around each wait, such as to lend a task's slot;
* a `Core` of these (`core.py`), without `Resources`: then closing the client closes none of them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from holdfast.cluster.comm.connecting import connect
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.comm.resumable import ResumableConnection

Message = tuple[Any, ...]


class Receiver(Protocol):
    """What a transport calls: a session."""

    def on_batch(self, messages: tuple[Any, ...]) -> None:
        """Messages have come. In the transport's thread. A `ProtocolError` that it raises is the sender's fault."""

    def on_batch_elsewhere(self, messages: tuple[Any, ...]) -> bool:
        """Messages have come to a thread that is in `Transport.read_while`; False if the transport's is to handle them.

        It may be interrupted; then the transport's thread handles the same messages from their beginning.
        """

    def on_rejoin(self, welcome: Mapping[str, Any]) -> None:
        """From here on another scheduler is heard, which has the journal of the one before. In the transport's thread.

        What was sent and that one had not heard is sent again, in front of what is sent from here on.
        """

    def on_close(self, error: Exception | None) -> None:
        """Nothing more will come. In the transport's thread."""

    def on_room(self) -> None:
        """There is room for messages again. In any thread."""

    def send_all_posted(self) -> None:
        """Send all that is to be sent, even if there is no room. In any thread."""


class Transport(Protocol):
    """Carries the messages of one session to the scheduler, in order, and those of the scheduler to the session.

    What is here as an attribute may be a method of the transport, or of what it consists of: a message passes no call
    that only hands it on.

    Attributes
    ----------
    call_soon : callable
        ``call_soon(function)`` calls in the transport's thread, soon; from any thread, also inside the garbage
        collector. Raises a RuntimeError when that thread's loop is closed. It must be one call into C, or be used only
        where no interrupt comes: the session believes in a wake-up that it has begun.
    call_later : callable
        ``call_later(seconds, function)`` calls in the transport's thread after a while. In that thread.
    send : callable
        ``send(messages, queue, taken)`` sends messages now, in any thread, in the order of the calls. The items of the
        queue that the slice ``taken`` names, which the messages are made of, are taken out of it in the same step: so
        an interrupt comes before both or after both.
    read_while : callable
        ``read_while(waits, timeout)`` receives and handles in this thread for as long as ``waits()`` is true; whether
        it is false then. Returns at once with that, if this thread can't, or something else receives already.
    wake_reader : callable
        ``wake_reader()`` has a thread that is in ``read_while`` look again whether it waits.
    """

    @property
    def call_soon(self) -> Callable[[Callable[[], object]], object]: ...

    @property
    def call_later(self) -> Callable[[float, Callable[[], object]], asyncio.TimerHandle]: ...

    @property
    def send(self) -> Callable[[list[Message], list[Any], slice], None]: ...

    @property
    def read_while(self) -> Callable[[Callable[[], bool], float | None], bool]: ...

    @property
    def wake_reader(self) -> Callable[[], None]: ...

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""

    @property
    def is_broken(self) -> bool:
        """Whether the scheduler can't be reached now, and may be again: what is sent is sent then."""

    @property
    def is_full(self) -> bool:
        """Whether nothing can be sent now. `Receiver.on_room` is called when there is room."""

    @property
    def is_current(self) -> bool:
        """Whether the caller is in the transport's thread, which may not wait for what only that thread can hear."""

    def start(self, receiver: Receiver) -> None:
        """Give it what comes, what has come already too. In the transport's thread."""

    def close(self) -> None:
        """Close when what was sent has been written; `Receiver.on_close` is called. In the transport's thread.

        In any thread, if its loop is closed.
        """

    def leave_to_parent(self) -> None:
        """In a forked child: neither send nor hear any more. Takes no lock."""


class ConnectionTransport:
    """A connection of the client's own. Made by `connected`, in the thread of its event loop.

    Parameters
    ----------
    connection
        One that other threads share (`holdfast.cluster.comm.shared`).
    threads_read
        Whether a thread that waits reads the connection itself; else the loop does it always.
    """

    def __init__(self, connection: Connection, *, threads_read: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.connection = connection
        self.call_soon = self._loop.call_soon_threadsafe
        self.call_later = self._loop.call_later
        self.send = connection.send_now
        self.read_while = connection.read_while if threads_read else _read_nothing
        self.wake_reader = connection.wake_reader

    @property
    def closed(self) -> bool:
        return self.connection.closed

    @property
    def is_broken(self) -> bool:
        return self.connection.is_broken

    @property
    def is_full(self) -> bool:
        return self.connection.is_full

    @property
    def is_current(self) -> bool:
        return threading.get_ident() == self._thread

    def start(self, receiver: Receiver) -> None:
        connection = self.connection
        connection.on_room = receiver.on_room
        if isinstance(connection, ResumableConnection):
            connection.on_rejoin = receiver.on_rejoin
        connection.start(receiver.on_batch, receiver.on_close, receiver.on_batch_elsewhere)

    def close(self) -> None:
        if self._loop.is_closed():
            self.connection.close_without_loop()
        else:
            self.connection.close()

    def leave_to_parent(self) -> None:
        self.connection.leave_to_parent()


def _read_nothing(waits: Callable[[], bool], timeout: float | None) -> bool:
    return not waits()


async def connected(
    address: str, *, token: bytes, info: dict[str, Any], timeout: float, threads_read: bool
) -> ConnectionTransport:
    """A connection to the scheduler, on the running loop. Raises what `connecting.connect` raises."""
    connection = await connect(address, token=token, role="client", info=info, timeout=timeout, shared=True)
    return ConnectionTransport(connection, threads_read=threads_read)
