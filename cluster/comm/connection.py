"""A connection: batches of messages in both directions over a socket, TCP's or within a host its `shortcut`.

What is sent during one turn of the event loop leaves at its end as one frame in one write (`Connection.send`).
What arrives is handed over batch by batch (`Connection.start`). A frame that is not valid, is too large, or is not
wanted closes this connection with a logged reason, and nothing else.

A connection that *survives* has a session (`resume`), and outlives its sockets: when one breaks, another takes its
place, and the code that uses the connection notices only a delay. It ends when either side closes it, which it says
before (`frames.GOODBYE`), or when nobody comes back.

All of it runs in the thread of its event loop, but for one that is shared (`connecting.connect`): other threads send
through it at once (`Connection.send_now`), and read from it while they wait (`Connection.read_while`). See
`holdfast.cluster.comm.shared`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from holdfast.cluster.comm import frames
from holdfast.cluster.comm.addresses import format_address
from holdfast.cluster.comm.machine_watch import MachineWatch
from holdfast.cluster.comm.opening import ConnectorOpening, ListenerOpening, Refused, refusal
from holdfast.cluster.comm.resume import (
    RIDE_FRAMES,
    TELL_FRAMES,
    TELL_NBYTES,
    TELL_SECONDS,
    Resumption,
    frame_nbytes,
)
from holdfast.cluster.comm.shared import SharedTransport, byte_chunks
from holdfast.cluster.comm.strangers import FIRST_NBYTES, GREETING
from holdfast.cluster.errors import ConnectError, ProtocolError

logger = logging.getLogger(__name__)

#: A connection is full while more than this has been sent and is not read yet. What else is sent waits as messages.
FULL_NBYTES = 8 << 20
#: A peer for which more messages than this wait is given up.
MAX_HELD_MESSAGES = 1 << 20
#: What packing raises for what can't be sent.
_UNPACKABLE = (TypeError, ValueError, OverflowError)
#: The role of the other end, seen from a connecting one.
_LISTENER = "scheduler"

OnBatch = Callable[[tuple[Any, ...]], None]
OnBatchElsewhere = Callable[[tuple[Any, ...]], bool]
OnClose = Callable[[Exception | None], None]


class WayBack(Protocol):
    """What brings about that a connection goes on after a break; called in the loop's thread."""

    def broke(self, error: Exception | None) -> None:
        """It has no socket any more."""

    def resumed(self) -> None:
        """It has another one."""

    def ended(self) -> None:
        """It has ended for good."""

    def leave_to_parent(self) -> None:
        """In a forked child: it has no way back here."""


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
        Whether it is between two sockets.
    on_break : callable or None
        ``on_break(is_broken)``: it has broken, or goes on.
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
        self._former: SharedTransport | None = None  # of a socket that has broken
        self._is_shared = False
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
        self._session: Resumption | None = None
        self._way_back: WayBack | None = None
        self._leaves = False  # on purpose, and has said so
        self._paused = False
        self._is_to_tell = False  # a timer sees to it that the other end learns what was taken

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
        if self._closed:
            return False
        if self._held or (self._session is not None and self._session.is_full):
            return True
        return self._transport is not None and self._transport.get_write_buffer_size() > FULL_NBYTES

    @property
    def was_made(self) -> bool:
        """Whether it ever had a socket."""
        return self.peer != "?"

    @property
    def session(self) -> Resumption:
        """Of one that survives."""
        assert self._session is not None
        return self._session

    @property
    def taken(self) -> int:
        """How many frames were received whole, since the opening."""
        return self._reader.taken

    @property
    def is_read(self) -> bool:
        """Whether a thread still has in hand what came over a socket that has broken."""
        return self._former is not None and self._former.is_read

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
            packed = [chunks for chunks, _ in frames.packed(messages)]
        except _UNPACKABLE as error:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._abort_unpackable, error)
            return
        if self._session is not None:
            self._write_kept(self._session, packed, queue, count)
        elif isinstance(self._transport, SharedTransport):
            self._transport.write_some([chunk for chunks in packed for chunk in chunks], queue, count)

    def read_while(self, waits: Callable[[], bool], timeout: float | None = None) -> bool:
        """Read in this thread while it waits, if it is shared; see `SharedTransport.read_while`."""
        transport = self._transport
        if isinstance(transport, SharedTransport):
            return transport.read_while(waits, timeout)
        return not waits()  # it is broken: who waits hears by the loop what comes when it goes on

    def wake_reader(self) -> None:
        """Have the thread that reads while it waits look whether it still does; see `SharedTransport.wake_reader`."""
        transport = self._transport
        if isinstance(transport, SharedTransport):
            transport.wake_reader()

    def _write(self, messages: list[frames.Message], regardless: bool = False) -> None:
        """Write messages, frame by frame as long as there is room; keep the others, unless ``regardless`` of it."""
        session = self._session
        if self._closed or (self._transport is None and session is None):
            return
        try:
            for chunks, count in frames.packed(messages):
                if session is None:
                    assert self._transport is not None
                    self._transport.writelines(chunks)
                elif self._is_shared:
                    self._write_kept(session, [chunks])
                else:
                    self._write_frame(session, chunks)
                if count is not None and count < len(messages) and not regardless and self.is_full:
                    self._held = messages[count:]
                    return
        except _UNPACKABLE as error:
            self._abort_unpackable(error)

    def _write_frame(self, session: Resumption, frame: list[Any]) -> None:
        """Write a frame, and keep it until it is taken, if no other thread writes here."""
        if len(frame) == 1:
            nbytes = len(frame[0])
        else:
            frame = byte_chunks(frame)
            nbytes = frame_nbytes(frame)
        if self._leaves:
            return
        session.keep(frame, nbytes)
        transport = self._transport
        if transport is None:
            return
        taken = self._reader.taken
        if taken - session.told >= RIDE_FRAMES:
            frame = [frames.acknowledgement(taken), *frame]
            session.told, session.told_nbytes = taken, self._reader.taken_nbytes
        transport.writelines(frame)

    def _write_kept(
        self, session: Resumption, packed: list[list[Any]], queue: list[Any] | None = None, count: int = 0
    ) -> None:
        """Write frames, and keep them until they are taken; see `send_now` for the rest."""
        packed = [byte_chunks(frame) for frame in packed]
        sizes = [frame_nbytes(frame) for frame in packed]
        nbytes = sum(sizes)
        chunks = packed[0] if len(packed) == 1 else [chunk for frame in packed for chunk in frame]
        taken = self._reader.taken
        if taken - session.told >= RIDE_FRAMES:
            chunks = [frames.acknowledgement(taken), *chunks]
            session.told, session.told_nbytes = taken, self._reader.taken_nbytes
        transport = None
        try:
            with self.write_lock:
                transport = self._transport
                shared = transport if isinstance(transport, SharedTransport) else None
                # No call in here:
                if not self._closed and not self._leaves:
                    session.kept += packed
                    session.kept_sizes += sizes
                    session.kept_nbytes += nbytes
                    if shared is not None and not shared.closing:
                        shared.unsent += chunks
                if queue is not None:
                    del queue[:count]
                # From here on it is written, in any case.
                if shared is not None:
                    shared.send_unsent()
        except BaseException:
            if isinstance(transport, SharedTransport):
                transport.send_soon()
            raise

    def _abort_unpackable(self, error: Exception) -> None:
        # Its neighbours are lost with a message that can't be packed: who waits for one would wait for ever.
        self.abort(ConnectError(f"a message could not be sent: {error}"))

    def close(self) -> None:
        """Close when everything sent has been written."""
        if self.is_broken:
            self._loop.call_soon(self._end_between, False)
        elif not self._closed and self._transport is not None:
            held, self._held = self._held, []
            self._write(held, regardless=True)
            self.flush()
            if self._session is not None:
                self._leaves = True
                self._transport.write(frames.GOODBYE)
            self._transport.close()

    def abort(self, error: Exception | None = None) -> None:
        """Close at once, dropping what has not been written and what has not been handed over."""
        self._aborted = True
        if error is not None:
            if self.role:  # else whoever opens it says so
                logger.warning("closing the connection with %s: %s", self.peer, error)
            self._close_error = error
        if self._transport is not None:
            if self._session is not None and not self._leaves:
                self._try_goodbye(self._transport)
            self._transport.abort()
        elif self.is_broken:
            self._loop.call_soon(self._end_between, True)

    def _end_between(self, at_once: bool) -> None:
        """End a connection that has no socket, unless it has one again."""
        if self.is_broken:
            self._end(self._close_error)
        elif at_once:
            self.abort()
        else:
            self.close()

    def _try_goodbye(self, transport: asyncio.Transport) -> None:
        """Say that nothing more will come, if the other end can hear it: it would wait otherwise."""
        self._leaves = True
        sock = transport.get_extra_info("socket")
        if sock is not None and not transport.get_write_buffer_size():
            with contextlib.suppress(OSError):
                os.write(sock.fileno(), frames.GOODBYE)

    def pause(self) -> None:
        """Read nothing more until `resume`; batches that have come already may still be handed over. Not if shared."""
        self._paused = True
        if not self._closed and self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on. No error if it wasn't paused."""
        self._paused = False
        if not self._closed and self._transport is not None:
            self._transport.resume_reading()

    def close_without_loop(self) -> None:
        """Close at once, in any thread, a shared connection whose loop is closed."""
        transport = self._transport
        if self.is_broken:
            self._end(None)
        elif not self._closed and isinstance(transport, SharedTransport):
            if self._session is not None:
                self._try_goodbye(transport)
            self._leaves = True
            transport.close_without_loop()

    @property
    def descriptors(self) -> tuple[tuple[int, tuple[int, int]], ...]:
        """Those that a shared connection lives of, and what they stood for when it was made. None while it's broken."""
        return self._transport.descriptors if isinstance(self._transport, SharedTransport) else ()

    def leave_to_parent(self) -> None:
        """In a forked child: let go of the socket, which would stay open with the child when the parent has died.

        The descriptor stays taken, so that nothing that still means to close it closes somebody else's file.
        """
        if self._way_back is not None:
            self._way_back.leave_to_parent()
        self._session = None
        self.write_lock = threading.Lock()
        if self.is_broken:
            self._closed = True
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
        self._is_shared = isinstance(transport, SharedTransport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch_machine(self._transport)
        peer = transport.get_extra_info("peername")
        self.peer = format_address(*peer[:2]) if type(peer) is tuple else "this host"

    def _watch_machine(self, transport: asyncio.Transport) -> None:
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            self._machine = MachineWatch(self._loop, sock, self._machine_is_silent)

    def _machine_is_silent(self, seconds: float) -> None:
        self.abort(ConnectError(f"the machine of {self.peer} has acknowledged nothing for {seconds:.0f} s"))

    def resume_writing(self) -> None:
        self._has_room()

    def _has_room(self) -> None:
        if self._held and not (self._session is not None and self._session.is_full):
            held, self._held = self._held, []
            self._write(held)
        if self.on_room is not None and not self.is_full:
            self.on_room()

    def data_received(self, data: bytes) -> None:
        self.received.append(data)
        self.handle()

    def connection_lost(self, error: Exception | None) -> None:
        if self._machine is not None:
            self._machine.cancel()
            self._machine = None
        if self._may_go_on(error):
            self._break(error)
        else:
            self._end(self._close_error or error)

    def _end(self, error: Exception | None) -> None:
        if self._closed:
            return
        self._closed = True
        self.is_broken = False
        self._close_error = error
        self._outbox.clear()
        self._held.clear()
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
        on_close, self._on_close, self._on_batch, self.on_room = self._on_close, None, None, None  # no circles
        self._on_batch_elsewhere = self.on_break = None
        way_back, self._way_back = self._way_back, None
        if way_back is not None:
            way_back.ended()
        if on_close is not None:
            on_close(self._close_error)

    # -- surviving

    def survive(self, session: Resumption, way_back: WayBack) -> None:
        """From the opening on, outlive the socket."""
        self._session = session
        self._way_back = way_back
        if self.role == _LISTENER and self._transport is not None:
            self._transport.write(frames.acknowledgement(0))  # the listener knows by this that the terms have arrived

    def _may_go_on(self, error: Exception | None) -> bool:
        """Whether the end of a socket is a break."""
        if self._session is None or self._aborted or self._leaves or self._reader.said_goodbye:
            return False
        if isinstance(error, OSError) and error.errno == errno.EBADF:
            return False  # this very process has closed it
        return self.role == _LISTENER or self._reader.acknowledged >= 0

    def _break(self, error: Exception | None) -> None:
        with self.write_lock:
            if isinstance(self._transport, SharedTransport):
                self._former = self._transport
            self._transport = None
        self.is_broken = True
        logger.info("the connection with %s broke%s", self.peer, f": {error}" if error is not None else "")
        assert self._way_back is not None
        self._way_back.broke(error)
        if self.on_break is not None:
            self.on_break(True)

    def supersede(self) -> int:
        """The other end has another connection: nothing more is taken from this socket. How much was, in frames."""
        transport, self._transport = self._transport, None
        if transport is not None:
            if self._machine is not None:
                self._machine.cancel()
                self._machine = None
            transport.set_protocol(asyncio.Protocol())
            transport.abort()
            self._break(None)
        return self._reader.taken

    def go_on_over(self, other: Connection, taken: int) -> None:
        """Go on over the socket of a connection that has just been opened for that. The other end has ``taken`` frames.

        Raises
        ------
        ProtocolError
            That can't be right. This connection has ended.
        """
        session = self.session
        transport, other._transport = other._transport, None
        assert transport is not None
        other._closed = True
        if other._machine is not None:
            other._machine.cancel()
        if isinstance(transport, SharedTransport):
            transport.serve(self)
        else:
            transport.set_protocol(self)
        try:
            with self.write_lock:
                again = session.resumed(taken, self._reader.taken)
                self._transport = transport
                self._former = None
                if isinstance(transport, SharedTransport):
                    transport.unsent += [chunk for frame in again for chunk in frame]
                    transport.send_unsent()
                else:
                    transport.writelines([chunk for frame in again for chunk in frame])
        except ProtocolError as error:
            self._transport = transport
            self.abort(error)
            raise
        self.is_broken = False
        self._reader.go_on_with(other._reader)
        session.told_nbytes = self._reader.taken_nbytes
        self._watch_machine(transport)
        if self._paused:
            transport.pause_reading()
        logger.info("the connection with %s goes on; %d frames are sent again", self.peer, len(again))
        assert self._way_back is not None
        self._way_back.resumed()
        if self.on_break is not None:
            self.on_break(False)
        self.handle()
        self._has_room()

    def _note_progress(self, session: Resumption) -> None:
        """Let go of what the other end has, and see to it that it learns what this one has. In any thread."""
        reader = self._reader
        if reader.acknowledged > session.acknowledged:
            with self.write_lock:
                was_full = session.is_full
                session.acknowledge(reader.acknowledged)
            if was_full and not session.is_full:
                self._in_loop(self._has_room)
        untold = reader.taken - session.told
        if untold:
            if untold >= TELL_FRAMES or reader.taken_nbytes - session.told_nbytes >= TELL_NBYTES:
                self._tell(session)
            elif not self._is_to_tell:
                self._is_to_tell = True
                self._in_loop(self._tell_later)

    def _tell(self, session: Resumption) -> None:
        """Say what was taken. If an interrupt comes in between it is said with the next frame that comes."""
        taken = self._reader.taken
        with self.write_lock:
            transport = self._transport
            session.told, session.told_nbytes = taken, self._reader.taken_nbytes
            if isinstance(transport, SharedTransport):
                if not transport.closing:
                    transport.unsent += [frames.acknowledgement(taken)]
                transport.send_soon()
            elif transport is not None and not self._leaves:
                transport.write(frames.acknowledgement(taken))

    def _in_loop(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: all has ended
            self._loop.call_soon_threadsafe(callback)

    def _tell_later(self) -> None:
        self._loop.call_later(TELL_SECONDS, self._tell_if_any)

    def _tell_if_any(self) -> None:
        self._is_to_tell = False
        session = self._session
        if session is not None and not self._closed and session.told != self._reader.taken:
            self._tell(session)

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
            if self._session is not None:
                self._note_progress(self._session)
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
        if self._reader.said_goodbye and not self._leaves and self._transport is not None:
            self._leaves = True
            self._transport.close()

    def handle_elsewhere(self) -> bool:
        """Handle what was received, in another thread. False if there is something that only the loop can handle."""
        batches = self.batches
        try:
            self._reader.take()
            if self._session is not None:
                self._note_progress(self._session)
            if self._reader.said_goodbye:
                return False
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
