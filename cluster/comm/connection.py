"""A connection: batches of messages in both directions over one socket, TCP's or within a host its `shortcut`.

What is sent during one turn of the event loop leaves at its end as one frame in one write (`Connection.send`).
What arrives is handed over batch by batch (`Connection.start`). A frame that is not valid, is too large, or is not
wanted closes this connection with a logged reason, and nothing else.

All of it runs in the thread of its event loop, but for one that is shared (`connect`): other threads send through it at
once (`Connection.send_now`), and read from it while they wait (`Connection.read_while`). See
`holdfast.cluster.comm.shared`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from holdfast.cluster.comm import frames, shortcut
from holdfast.cluster.comm.addresses import format_address, parse_address
from holdfast.cluster.comm.entrance import Entrance
from holdfast.cluster.comm.machine import MachineWatch
from holdfast.cluster.comm.opening import ConnectorOpening, ListenerOpening, Refused, TryLater, refusal
from holdfast.cluster.comm.shared import SharedTransport
from holdfast.cluster.comm.strangers import FIRST_NBYTES, GREETING, foreign_answer, who_answers
from holdfast.cluster.errors import AuthenticationError, ConnectError, ProtocolError, VersionMismatchError

logger = logging.getLogger(__name__)

#: A connection is full while more than this has been sent and is not read yet. What else is sent waits as messages.
FULL_NBYTES = 8 << 20
#: A peer for which more messages than this wait is given up.
MAX_HELD_MESSAGES = 1 << 20
#: How many connections may wait in the kernel to be accepted; it may have a lower limit.
BACKLOG = 4096

_SILENT = "somebody listens there and says nothing: it is stopped, or waits for another protocol"
#: What packing raises for what can't be sent.
_UNPACKABLE = (TypeError, ValueError, OverflowError)

OnBatch = Callable[[tuple[Any, ...]], None]
OnBatchElsewhere = Callable[[tuple[Any, ...]], bool]
OnClose = Callable[[Exception | None], None]


class NoAnswerError(ConnectError):
    """Nobody has answered in time at an address, where somebody may be."""


class Connection(asyncio.Protocol):
    """One end of a connection. Made by `connect` and by a `Listener`.

    Attributes
    ----------
    role : str
        What the other end is, seen from a listener: ``"client"``, ``"node"`` or ``"worker"``.
    info : dict
        What the other end said about itself in the opening.
    peer : str
        Its address, for messages to people.
    received, batches : list
        What was read and not handled yet: bytes, and messages.
    """

    def __init__(self) -> None:
        self.role = ""
        self.info: dict[str, Any] = {}
        self.peer = "?"
        self._loop = asyncio.get_running_loop()
        self._reader = frames.FrameReader(frames.MAX_OPENING_NBYTES)
        self.received = self._reader.received
        self.batches = self._reader.batches
        self._transport: asyncio.Transport | None = None
        self._machine: MachineWatch | None = None
        self._outbox: list[frames.Message] = []
        self._held: list[frames.Message] = []  # for which there was no room
        self._flush_scheduled = False
        self._arrival: asyncio.Future[None] | None = None
        self._on_batch: OnBatch | None = None
        self._on_batch_elsewhere: OnBatchElsewhere | None = None
        self._on_close: OnClose | None = None
        #: Called when all has been written that was left to the loop to write.
        self.on_room: Callable[[], None] | None = None
        self._closed = False
        self._aborted = False
        self._close_error: Exception | None = None
        self._first = b""  # what the other end said first, until it has opened

    # -- for those who use a connection

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def first_words(self) -> bytes:
        """What the other end said first, if it has not opened."""
        return self._first

    @property
    def is_full(self) -> bool:
        """Whether the other end is slow to read. Who has much to say waits with the rest until `on_room`."""
        if self._closed or self._transport is None:
            return False
        return bool(self._held) or self._transport.get_write_buffer_size() > FULL_NBYTES

    def start(self, on_batch: OnBatch, on_close: OnClose, on_batch_elsewhere: OnBatchElsewhere | None = None) -> None:
        """Hand over every batch, those that came already too, and the end.

        Parameters
        ----------
        on_batch
            ``on_batch(messages)`` handles a batch, in the loop's thread.
        on_close
            ``on_close(error)``: it has ended; the error is None if either side closed it on purpose or it just ended.
        on_batch_elsewhere
            ``on_batch_elsewhere(messages)`` handles a batch in another thread, if the connection is shared; or it
            returns False before it has done anything, if that is for the loop. It may be interrupted: then the loop
            handles the same batch from its beginning.
        """
        self._on_batch = on_batch
        self._on_batch_elsewhere = on_batch_elsewhere
        self._on_close = on_close
        self.handle()
        if self._closed:
            on_close(self._close_error)

    def send(self, message: frames.Message) -> None:
        """Send a message with everything else that is sent in this turn of the loop. Dropped when closed."""
        self._outbox.append(message)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what has been sent so far now."""
        self._flush_scheduled = False
        outbox, self._outbox = self._outbox, []
        if self._held:
            self._held += outbox
            if len(self._held) > MAX_HELD_MESSAGES:
                self.abort(ConnectError(f"{self.peer} leaves more than {MAX_HELD_MESSAGES:,} messages unread"))
        elif outbox:
            self._write(outbox)

    def send_now(self, messages: Sequence[frames.Message], queue: list[Any] | None = None, count: int = 0) -> None:
        """Write messages at once, in any thread, in the order of the calls. Only if it is shared; dropped when closed.

        With a ``queue``, its first ``count`` items, which the messages are made of, are taken out of it by that.
        """
        try:
            chunks = frames.pack(messages)
        except _UNPACKABLE as error:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._abort_unpackable, error)
            return
        self._shared.write_some(chunks, queue, count)

    def read_while(self, waits: Callable[[], bool], timeout: float | None = None) -> bool:
        """Read in this thread while it waits, if it is shared; see `SharedTransport.read_while`."""
        return self._shared.read_while(waits, timeout)

    def nudge(self) -> None:
        """Have the thread that reads while it waits look whether it still does; see `SharedTransport.nudge`."""
        self._shared.nudge()

    @property
    def _shared(self) -> SharedTransport:
        assert isinstance(self._transport, SharedTransport)
        return self._transport

    def _write(self, messages: list[frames.Message], regardless: bool = False) -> None:
        """Write messages, frame by frame as long as there is room; keep the others, unless ``regardless`` of it."""
        if self._closed or self._transport is None:
            return
        try:
            for chunks, count in frames.packed(messages):
                self._transport.writelines(chunks)
                if count is not None and count < len(messages) and not regardless and self.is_full:
                    self._held = messages[count:]
                    return
        except _UNPACKABLE as error:
            self._abort_unpackable(error)

    def _abort_unpackable(self, error: Exception) -> None:
        # Its neighbours are lost with a message that can't be packed: who waits for one would wait for ever.
        self.abort(ConnectError(f"a message could not be sent: {error}"))

    def close(self) -> None:
        """Close when everything sent has been written."""
        if not self._closed and self._transport is not None:
            held, self._held = self._held, []
            self._write(held, regardless=True)
            self.flush()
            self._transport.close()

    def abort(self, error: Exception | None = None) -> None:
        """Close at once, dropping what has not been written and what has not been handed over."""
        self._aborted = True
        if error is not None:
            if self.role:  # else whoever opens it says so
                logger.warning("closing the connection with %s: %s", self.peer, error)
            self._close_error = error
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read nothing more until `resume`; batches that have come already may still be handed over. Not if shared."""
        if not self._closed and self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on. No error if it wasn't paused."""
        if not self._closed and self._transport is not None:
            self._transport.resume_reading()

    def close_without_loop(self) -> None:
        """Close at once, in any thread, a shared connection whose loop is closed."""
        if not self._closed:
            self._shared.close_without_loop()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Those that a shared connection lives of, as long as it's open."""
        return self._transport.descriptors if isinstance(self._transport, SharedTransport) else ()

    def leave_to_parent(self) -> None:
        """In a forked child: let go of the socket, which would stay open with the child when the parent has died.

        The descriptor stays taken, so that nothing that still means to close it closes somebody else's file.
        """
        if self._closed or self._transport is None:
            return
        if isinstance(self._transport, SharedTransport):
            self._transport.leave_to_parent()
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(nothing, sock.fileno(), inheritable=False)
            os.close(nothing)

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._machine = MachineWatch(self._loop, sock, self._machine_is_silent)
        peer = transport.get_extra_info("peername")
        self.peer = format_address(*peer[:2]) if type(peer) is tuple else "this host"

    def _machine_is_silent(self, seconds: float) -> None:
        self.abort(ConnectError(f"the machine of {self.peer} has acknowledged nothing for {seconds:.0f} s"))

    def resume_writing(self) -> None:
        if self._held:
            held, self._held = self._held, []
            self._write(held)
        if self.on_room is not None and not self.is_full:
            self.on_room()

    def data_received(self, data: bytes) -> None:
        self.received.append(data)
        self.handle()

    def connection_lost(self, error: Exception | None) -> None:
        self._closed = True
        self._close_error = self._close_error or error
        self._outbox.clear()
        if self._machine is not None:
            self._machine.cancel()
            self._machine = None
        self._held.clear()
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
        on_close, self._on_close, self._on_batch, self.on_room = self._on_close, None, None, None  # no circles
        self._on_batch_elsewhere = None
        if on_close is not None:
            on_close(self._close_error)

    # -- what arrives

    def handle(self) -> None:
        """Handle what was received, in the loop's thread."""
        if self._aborted:
            return
        batches = self.batches
        if not self.role and len(self._first) < FIRST_NBYTES:
            self._first += b"".join(self.received)[:FIRST_NBYTES]
        try:
            self._reader.take()
        except ProtocolError as error:
            self.abort(error)
        if self._on_batch is None:
            if batches and self._arrival is not None and not self._arrival.done():
                self._arrival.set_result(None)
            return
        while batches and not self._aborted:
            batch = batches.pop(0)
            try:
                self._on_batch(batch)
            except ProtocolError as error:
                self.abort(error)
            except Exception as error:
                # The handler's own fault or a message of the wrong shape: either way this peer can't be served.
                logger.exception("handling a batch from %s failed", self.peer)
                self.abort(error)

    def handle_elsewhere(self) -> bool:
        """Handle what was received, in another thread. False if there is something that only the loop can handle."""
        batches = self.batches
        try:
            self._reader.take()
            while batches and not self._aborted:
                if self._on_batch_elsewhere is None or not self._on_batch_elsewhere(batches[0]):
                    return False
                del batches[0]
        except ProtocolError:
            return False  # again, in the loop
        return not self._aborted

    # -- the opening

    async def _next_message(self) -> Any:
        batches = self.batches
        while not batches:
            if self._closed:
                raise self._close_error or ConnectionResetError("the connection was closed")
            self._arrival = self._loop.create_future()
            await self._arrival
        (message, *more) = batches.pop(0)
        if more:
            raise ProtocolError("more than one message in a frame of the opening")
        return message

    def _opened(self, role: str, info: dict[str, Any]) -> None:
        self._arrival = None
        self._first = b""
        self.role = role
        self.info = info
        self._reader.max_frame_nbytes = frames.MAX_FRAME_NBYTES

    async def open_as_listener(self, opening: ListenerOpening) -> None:
        """Run the accepting end of the opening. Raises what went wrong; the caller closes."""
        self.send(opening.hello())
        message = await self._next_message()
        try:
            welcome = opening.answer(message)
        except Refused as error:
            self.send(refusal(error))
            self.close()
            raise
        self.send(welcome)
        self.flush()  # alone in its frame, whatever else is sent in this turn
        self._opened(opening.role, opening.info)

    async def open_as_connector(self, opening: ConnectorOpening) -> None:
        """Run the connecting end of the opening. Raises what went wrong; the caller closes."""
        assert self._transport is not None
        self._transport.writelines([GREETING])
        # What the listener has to say about the cluster may be long, and it is the one that was asked for.
        self._reader.max_frame_nbytes = frames.MAX_HEADER_NBYTES
        while True:
            answer = opening.answer(await self._next_message())
            if answer is None:
                break
            self.send(answer)
        self._opened("scheduler", opening.info)


class Listener:
    """Accepts connections and opens them, as many at a time as its `Entrance` has room for.

    Parameters
    ----------
    token:
        The cluster's token.
    welcome:
        ``welcome(role, info) -> info``, see `opening.ListenerOpening`.
    on_connection:
        Called with each connection that has opened; it calls `Connection.start`.
    """

    def __init__(
        self,
        token: bytes,
        welcome: Callable[[str, dict[str, Any]], dict[str, Any]],
        on_connection: Callable[[Connection], None],
    ) -> None:
        self._token = token
        self._welcome = welcome
        self._on_connection = on_connection
        self._entrances: list[Entrance] = []
        self.address = ""

    async def listen(self, sock: socket.socket) -> None:
        """Accept on a bound socket, which the listener owns from here on."""
        self.address = format_address(*sock.getsockname()[:2])
        shorter = shortcut.listening(*sock.getsockname()[:2])
        # One for each: who floods the network's side is not in the way of this host's processes.
        self._entrances = [Entrance(each, self._open) for each in (sock, shorter) if each is not None]

    async def _open(self, sock: socket.socket, peer: str) -> None:
        connection = Connection()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock)
            await connection.open_as_listener(ListenerOpening(self._token, self._welcome))
            self._on_connection(connection)
        except Refused:  # it is told so, and closed after that
            raise
        except BaseException:
            connection.abort()
            if connection._transport is None:
                sock.close()
            raise

    async def close(self) -> None:
        """Stop accepting. Connections that are open stay open."""
        for entrance in self._entrances:
            await entrance.close()


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket bound to ``host:port`` and listening, for a `Listener`.

    Raises
    ------
    ConnectError
        The port is in use or the address is not this host's; says what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ConnectError(
                f"port {port} of {host} is in use: stop what listens there ('holdfast status' shows a cluster of "
                "yours), or choose another port (0: any free one)"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise ConnectError(
                f"can't listen on {format_address(host, port)}: {host} is no address of this host; choose one that is "
                "('ip address' lists them)"
            ) from None
        raise ConnectError(f"can't listen on {format_address(host, port)}: {error.strerror or error}") from None
    sock.setblocking(False)
    return sock


async def connect(
    address: str,
    *,
    token: bytes,
    role: str,
    info: dict[str, Any],
    timeout: float = 10.0,
    what: str = "scheduler",
    shared: bool = False,
    again: bool = False,
) -> Connection:
    """Connect and open, trying again until ``timeout`` seconds are over while nobody answers.

    With ``shared``, other threads than the loop's can use it, too. With ``again``, somebody has listened there before,
    so that when nobody listens now, nobody will: that isn't waited for.

    Returns
    -------
    Connection
        Open, with ``info`` set to what the listener said. Call its `start` to get what it sends.

    Raises
    ------
    ConnectError
        Nobody answered: names the address, how long and how often it was tried, and the last error. A `NoAnswerError`
        if somebody may be there all the same.
    AuthenticationError, VersionMismatchError
        Somebody answered who can't be worked with.
    """
    host, port = parse_address(address)
    where = format_address(host, port)
    started = time.monotonic()
    attempts = 0
    delay = 0.01
    while True:
        attempts += 1
        connection: Connection | None = None
        try:
            async with asyncio.timeout(max(0.1, timeout - (time.monotonic() - started))):
                connection = await _connect(host, port, shared)
                await connection.open_as_connector(ConnectorOpening(token, role, info, where))
                return connection
        except (AuthenticationError, VersionMismatchError):
            _abort(connection)
            raise
        except ProtocolError:
            _abort(connection)
            raise foreign_answer(where, connection.first_words if connection is not None else b"") from None
        except TryLater as error:
            _abort(connection)
            reason = str(error)
        except ConnectError:
            _abort(connection)
            raise
        except asyncio.CancelledError:
            _abort(connection)
            raise
        except (OSError, TimeoutError) as error:
            _abort(connection)
            if connection is not None and who_answers(connection.first_words):
                raise foreign_answer(where, connection.first_words) from None
            if again and isinstance(error, ConnectionRefusedError):
                raise ConnectError(f"no {what} listens at {where} any more") from None
            reason = _reason(error)
            if isinstance(error, TimeoutError):
                reason = "no answer" if connection is None else _SILENT
        elapsed = time.monotonic() - started
        if elapsed + delay >= timeout:
            raise NoAnswerError(
                f"no {what} answered at {where}: tried {attempts} times in {elapsed:.1f} s, last: {reason}. "
                "Is it running there? 'holdfast start --head' starts one"
            )
        await asyncio.sleep(delay)
        delay = min(delay * 2, 0.5)


def shared_connection(sock: socket.socket) -> Connection:
    """A connection over a connected socket, which is the connection's to close, that other threads can use too.

    To be called in the loop's thread.
    """
    connection = Connection()
    SharedTransport(asyncio.get_running_loop(), sock, connection)
    return connection


async def _connected_socket(host: str, port: int) -> socket.socket:
    """A socket that is connected to an address, by the shortest way."""
    loop = asyncio.get_running_loop()
    failure: OSError = ConnectionRefusedError()
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = shortcut.connected(*address[:2])
        if sock is not None:
            return sock
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


async def _connect(host: str, port: int, shared: bool) -> Connection:
    loop = asyncio.get_running_loop()
    sock = await _connected_socket(host, port)
    try:
        if shared:
            connection = shared_connection(sock)
        elif sock.family == socket.AF_UNIX:
            _, connection = await loop.create_unix_connection(Connection, sock=sock)
        else:
            _, connection = await loop.create_connection(Connection, sock=sock)
    except BaseException:
        sock.close()
        raise
    return connection


def _abort(connection: Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(RuntimeError):
            connection.abort()


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return error.strerror or str(error) or type(error).__name__
