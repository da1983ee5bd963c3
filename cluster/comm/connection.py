"""A connection: batches of messages in both directions over a socket, TCP's or within a host its `shortcut`.

What is sent during one turn of the event loop leaves at its end as one frame in one write (`Connection.send`).
What arrives is handed over batch by batch (`Connection.start`). A frame that is not valid, is too large, or is not
wanted closes this connection with a logged reason, and nothing else.

A `Connection` opens, and ends with its socket. Once it has opened, a connection that outlives its sockets may take its
place (`resumable`): it overrides what is said here of a socket, and chooses once, when it is made, what takes the place
of a method that every frame passes. So a connection that ends with its socket pays nothing for the others.

All of it runs in the thread of its event loop, but for one that is shared (`connecting.connect`): other threads send
through it at once (`Connection.send_now`), and read from it while they wait (`Connection.read_while`). See
`holdfast.cluster.comm.shared`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

from holdfast.cluster.comm import frames
from holdfast.cluster.comm.addresses import format_address
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.comm.machine_watch import MachineWatch
from holdfast.cluster.comm.opening import ConnectorOpening, ListenerOpening, Refused, refusal
from holdfast.cluster.comm.shared import NOTHING, SharedTransport
from holdfast.cluster.comm.strangers import FIRST_NBYTES, GREETING
from holdfast.cluster.errors import ConnectError, ProtocolError

logger = logging.getLogger(__name__)

#: A connection is full while more than this has been sent and is not read yet. What else is sent waits as messages.
FULL_NBYTES = 8 << 20
#: A peer for which more messages than this wait is given up.
MAX_HELD_MESSAGES = 1 << 20
#: The role of the other end, seen from a connecting one.
_LISTENER = "scheduler"
#: What packing raises for what can't be sent.
UNPACKABLE = (TypeError, ValueError, OverflowError)

OnBatch = Callable[[tuple[Any, ...]], None]
OnBatchElsewhere = Callable[[tuple[Any, ...]], bool]
OnClose = Callable[[Exception | None], None]


class Connection(asyncio.Protocol):
    """One end of a connection. Made by `connecting.connect` and by a `listening.Listener`.

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
    write_lock : threading.Lock
        Held while frames are put in order, if it is shared.
    is_broken : bool
        Whether it is between two sockets, if it may have several (`resumable`).
    on_break : callable or None
        ``on_break(is_broken)``: it has broken, or goes on.
    """

    def __init__(self) -> None:
        self.role = ""
        self.info: dict[str, Any] = {}
        self.peer = "?"
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(frames.MAX_OPENING_NBYTES)
        self._take: Callable[[], None] = self._reader.take
        self.received = self._reader.received
        self.batches = self._reader.batches
        self._transport: asyncio.Transport | None = None
        self._shared: SharedTransport | None = None  # the same, if other threads may use it
        self._write_frame: Callable[[list[bytes | memoryview]], None] = _drop
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
        self.write_lock = threading.Lock()
        self.is_broken = False
        self.on_break: Callable[[bool], None] | None = None

    # -- for code that uses a connection

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def first_words(self) -> bytes:
        """What the other end said first, if it has not opened."""
        return self._first

    @property
    def is_full(self) -> bool:
        """Whether the other end is slow to read. Code that has much to say waits with the rest until `on_room`."""
        transport = self._transport
        if self._closed or transport is None:
            return False
        return bool(self._held) or transport.get_write_buffer_size() > FULL_NBYTES

    @property
    def was_made(self) -> bool:
        """Whether it ever had a socket."""
        return self.peer != "?"

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

    def trust(self) -> None:
        """Take frames of any size without an opening: no other process has the other end of this socket."""
        self._reader.max_frame_nbytes = frames.MAX_FRAME_NBYTES

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

    def send_now(
        self, messages: Sequence[frames.Message], queue: list[Any] | None = None, taken: slice = NOTHING
    ) -> None:
        """Write messages at once, in any thread, in the order of the calls. Only if it is shared; dropped when closed.

        With a ``queue``, those items of it that ``taken`` names, which the messages are made of, are taken out by that.
        """
        try:
            chunks = frames.pack(messages)
        except UNPACKABLE as error:
            self._abort_unpackable_soon(error)
            return
        shared = self._shared
        if shared is not None:
            shared.write_some(chunks, queue, taken)

    def read_while(self, waits: Callable[[], bool], timeout: float | None = None) -> bool:
        """Read in this thread while it waits, if it is shared; see `SharedTransport.read_while`."""
        shared = self._shared
        if shared is not None:
            return shared.read_while(waits, timeout)
        return not waits()  # it is broken: when it goes on, a thread that waits hears by the loop what comes

    def wake_reader(self) -> None:
        """Have the thread that reads while it waits look whether it still does; see `SharedTransport.wake_reader`."""
        shared = self._shared
        if shared is not None:
            shared.wake_reader()

    def _write(self, messages: list[frames.Message], regardless: bool = False) -> None:
        """Write messages, frame by frame as long as there is room; keep the others, unless ``regardless`` of it."""
        if self._closed:
            return
        try:
            for chunks, count in frames.packed(messages):
                self._write_frame(chunks)
                if count is not None and count < len(messages) and not regardless and self.is_full:
                    self._held = messages[count:]
                    return
        except UNPACKABLE as error:
            self._abort_unpackable(error)

    def _abort_unpackable(self, error: Exception) -> None:
        # Its neighbours are lost with a message that can't be packed: the code that waits for one would wait for ever.
        self.abort(ConnectError(f"a message could not be sent: {error}"))

    def _abort_unpackable_soon(self, error: Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._abort_unpackable, error)

    def close(self) -> None:
        """Close when everything sent has been written."""
        if not self._closed and self._transport is not None:
            last, self._held, self._outbox = [*self._held, *self._outbox], [], []
            self._write(last, regardless=True)
            self._leave(self._transport)

    def _leave(self, transport: asyncio.Transport) -> None:
        """Close the socket when everything has been written."""
        transport.close()

    def abort(self, error: Exception | None = None) -> None:
        """Close at once, dropping what has not been written and what has not been handed over."""
        self._aborted = True
        if error is not None:
            if self.role:  # else the code that opens it says so
                logger.warning("closing the connection with %s: %s", self.peer, str(error))  # as text: it knows frames
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
        if not self._closed and self._shared is not None:
            self._shared.close_without_loop()

    @property
    def descriptors(self) -> tuple[tuple[int, tuple[int, int]], ...]:
        """Those that a shared connection lives of, and what they stood for when it was made. None while it's broken."""
        return self._shared.descriptors if self._shared is not None else ()

    def leave_to_parent(self) -> None:
        """In a forked child: let go of the socket, which would stay open with the child when the parent has died.

        The descriptor stays taken, so that nothing that still means to close it closes another owner's file.
        """
        self.write_lock = threading.Lock()
        if self._closed or self._transport is None:
            return
        if self._shared is not None:
            self._shared.leave_to_parent()
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(nothing, sock.fileno(), inheritable=False)
            os.close(nothing)

    def hand_over(self) -> tuple[asyncio.Transport, FrameReader]:
        """Let go of the socket, and of what has come by it: another connection goes on over it."""
        transport = self._transport
        assert transport is not None
        self._forget_socket()
        self._closed = True
        return transport, self._reader

    def _forget_socket(self) -> None:
        self._transport = self._shared = None
        if self._machine is not None:
            self._machine.cancel()
            self._machine = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self._shared = made if isinstance(made, SharedTransport) else None
        self._write_frame = made.writelines
        sock = made.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._machine = MachineWatch(self._loop, sock, self._machine_is_silent)
        peer = made.get_extra_info("peername")
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
        self._end(self._close_error or error)

    def _end(self, error: Exception | None) -> None:
        if self._closed:
            return
        self._closed = True
        self._close_error = error
        self._outbox.clear()
        self._held.clear()
        if self._machine is not None:
            self._machine.cancel()
            self._machine = None
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
        on_close, self._on_close, self._on_batch, self.on_room = self._on_close, None, None, None  # no circles
        self._on_batch_elsewhere = self.on_break = None
        self._take, self._write_frame = self._reader.take, _drop
        if on_close is not None:
            on_close(self._close_error)

    # -- what arrives

    def handle(self) -> None:
        """Handle what was received, in the loop's thread."""
        if self._aborted:
            return
        if not self.role and len(self._first) < FIRST_NBYTES:
            self._first += b"".join(self.received)[:FIRST_NBYTES]
        batches = self.batches
        try:
            self._take()
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
            self._take()
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
        self._reader.begin_counting()

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
        self._opened(_LISTENER, opening.info)


def _drop(frame: list[bytes | memoryview]) -> None:
    """What writes the frames of a connection without a socket."""
