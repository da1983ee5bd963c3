"""A connection that outlives its sockets: when one breaks, another takes its place.

The code that uses it notices only a delay. It ends when either side closes it, which it says before
(`frames.GOODBYE`), or when the other end doesn't come back. `resume` is the protocol of that; here is what drives it.
Its `WayBack` makes the other socket: a connecting end connects again (`connecting`), a listening one waits
(`listening`).

Where the listener has died and another one has its journal, a connecting end goes on with that one, if the code that
uses it can: it says so by `ResumableConnection.on_rejoin`, and says there what the journal does not have.

The opening is a plain `Connection`'s. Its socket is handed over when it has opened: to a new `ResumableConnection`, or
to the one that goes on over it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from holdfast.cluster.comm import frames
from holdfast.cluster.comm.connection import FULL_NBYTES, UNPACKABLE, Connection
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.comm.machine_watch import MachineWatch
from holdfast.cluster.comm.resume import (
    KEPT_FRAMES,
    RIDE_FRAMES,
    TELL_FRAMES,
    TELL_NBYTES,
    TELL_SECONDS,
    Resumption,
    Terms,
    Was,
    frame_nbytes,
)
from holdfast.cluster.comm.shared import NOTHING, SharedTransport
from holdfast.cluster.errors import ConnectError, ProtocolError

logger = logging.getLogger(__name__)


class WayBack(Protocol):
    """What brings about that a connection goes on after a break; called in the loop's thread."""

    @property
    def seconds(self) -> float:
        """How long it tries; zero: the end of a socket is no break."""

    def broke(self, error: Exception | None) -> None:
        """It has no socket any more."""

    def resumed(self) -> None:
        """It has another one."""

    def ended(self) -> None:
        """It has ended for good."""

    def leave_to_parent(self) -> None:
        """In a forked child: it has no way back here."""


class _Handled:
    """Stands for a `FrameReader` where it is asked what is safe here: what has been handled."""

    __slots__ = ("taken",)

    def __init__(self, taken: int) -> None:
        self.taken = taken


class ResumableConnection(Connection):
    """One end of a connection that may have one socket after the other.

    Parameters
    ----------
    opened
        A connection that has just opened, whose socket is the first. That connection is of no use any more.
    terms
        What both ends have agreed on.
    way_back
        ``way_back(connection)`` makes its way back.
    connects
        Whether this is the connecting end.
    was, start
        Of a listening end: what the other one was to another listener, if it has rejoined, and how many frames it has
        sent before, then.

    Attributes
    ----------
    session : Resumption
        What this end keeps to take it up again.
    on_rejoin : callable or None
        Of a connecting end: ``on_rejoin(info)``, in the loop's thread, when it goes on with another listener, which has
        said this in its welcome. What was sent and is not recorded is being sent again, in front of what is sent from
        here on. Without it the connection ends with a `RestartedError`.
    """

    def __init__(
        self,
        opened: Connection,
        terms: Terms,
        way_back: Callable[[ResumableConnection], WayBack],
        *,
        connects: bool,
        was: Was | None = None,
        start: int = 0,
    ) -> None:
        super().__init__()
        self.role = opened.role
        self.info = opened.info
        self.peer = opened.peer
        self.session = Resumption(terms, is_safe_when_taken=not connects or not terms.restart)
        self.session.told = self._start = start
        self.was = was
        self.on_rejoin: Callable[[dict[str, Any]], None] | None = None
        #: What is safe here, as `taken` of it says.
        self._safe: FrameReader | _Handled = self._reader if connects or not terms.restart else _Handled(start)
        self._former: SharedTransport | None = None  # of a socket that has broken
        self._leaves = False  # on purpose, and has said so
        self._paused = False
        self._is_to_tell = False  # a timer sees to it that the other end learns what was taken
        self._has_withheld = False  # what the other end was to learn otherwise
        self._lost_because: Exception | None = None  # if this end lets go of a socket that it can go on without
        self._way_back = way_back(self)
        self._reader.max_frame_nbytes = frames.MAX_FRAME_NBYTES
        self._take = self._take_and_tell
        self._write_frame = self._keep_and_write
        transport, reader = opened.hand_over()
        self._reader.go_on_with(reader)
        self._reader.taken += start
        self._go_on(transport)

    @property
    def is_full(self) -> bool:
        """Whether the other end is slow to read, or to say what it has taken."""
        if self._closed:
            return False
        if self._held or self.session.is_full:
            return True
        return self._transport is not None and self._transport.get_write_buffer_size() > FULL_NBYTES

    @property
    def taken(self) -> int:
        """How many frames were received whole, since the opening; those of earlier sessions count, if it rejoined."""
        return self._reader.taken

    @property
    def written(self) -> int | None:
        """In how many frames lies all that was sent; None: not all of it lies in frames yet."""
        return None if self._held or self._outbox else self.session.sent

    @property
    def has_come(self) -> bool:
        """Whether anything has come by it."""
        return self._reader.taken > self._start

    @property
    def handed_over(self) -> int:
        """How many of these the owner has got, with the one that it is getting."""
        return self._reader.taken - len(self.batches)

    @property
    def numbered_since(self) -> bytes:
        """Of a listening end: the session since which the other end's frames are numbered, as its `Was` says."""
        return self.session.terms.id if self.was is None else self.was.session

    @property
    def is_recorded(self) -> bool:
        """Whether the owner says what it has `handled`: a listening end's, where a journal is kept."""
        return self._safe is not self._reader

    @property
    def is_ending(self) -> bool:
        """Whether this end has said that it ends, or it has ended."""
        return self._closed or self._aborted or self._leaves

    @property
    def said_goodbye(self) -> bool:
        """Whether the other end has said that nothing more will come."""
        return self._reader.said_goodbye

    @property
    def is_read(self) -> bool:
        """Whether a thread still has in hand what came over a socket that has broken."""
        return self._former is not None and self._former.is_read

    # -- sending

    def send_now(
        self, messages: Sequence[frames.Message], queue: list[Any] | None = None, taken: slice = NOTHING
    ) -> None:
        try:
            packed = [frame for frame, _ in frames.packed(messages)]
        except UNPACKABLE as error:
            self._abort_unpackable_soon(error)
            return
        self._share(packed, queue, taken)

    def _write(self, messages: list[frames.Message], regardless: bool = False) -> None:
        if self.session.is_full and not regardless and not self._closed:
            self._held = messages
        else:
            super()._write(messages, regardless)

    def _keep_and_share(self, frame: list[bytes | memoryview]) -> None:
        """The same, if other threads write, too."""
        self._share([frame])

    def _keep_and_write(self, frame: list[bytes | memoryview]) -> None:
        """Write a frame, and keep it until it is taken, if no other thread writes here."""
        if self._leaves:
            return
        session = self.session
        session.keep(frame, frame_nbytes(frame))
        if self._paused:
            self._read_or_not()
        transport = self._transport
        if transport is None:
            return
        taken = self._safe.taken
        if taken - session.told >= RIDE_FRAMES:
            frame = [frames.acknowledgement(taken), *frame]
            session.told, session.told_nbytes = taken, self._reader.taken_nbytes
        transport.writelines(frame)

    def _share(
        self, packed: list[list[bytes | memoryview]], queue: list[Any] | None = None, taken: slice = NOTHING
    ) -> None:
        """Write frames, and keep them until they are taken, whatever threads write; see `send_now` for the rest."""
        session = self.session
        sizes = [frame_nbytes(frame) for frame in packed]
        nbytes = sum(sizes)
        chunks = packed[0] if len(packed) == 1 else [chunk for frame in packed for chunk in frame]
        count = self._safe.taken
        if count - session.told >= RIDE_FRAMES:
            chunks = [frames.acknowledgement(count), *chunks]
            session.told, session.told_nbytes = count, self._reader.taken_nbytes
        shared = None
        try:
            with self.write_lock:
                shared = self._shared
                # No call in here:
                if not self._closed and not self._leaves:
                    session.kept += packed
                    session.kept_sizes += sizes
                    session.kept_nbytes += nbytes
                    if shared is not None and not shared.closing:
                        shared.unsent += chunks
                if queue is not None:
                    del queue[taken]
                # From here on it is written, in any case.
                if shared is not None:
                    shared.send_unsent()
        except BaseException:
            if shared is not None:
                shared.send_soon()
            raise

    def resume_writing(self) -> None:
        if self._paused:
            self._read_or_not()
        if not self.session.is_full:
            super().resume_writing()

    # -- what arrives

    def handle(self) -> None:
        super().handle()
        if self._reader.said_goodbye and not self._aborted and not self._leaves and self._transport is not None:
            self._leaves = True
            self._transport.close()

    def handle_elsewhere(self) -> bool:
        return super().handle_elsewhere() and not self._reader.said_goodbye

    def _take_and_tell(self) -> None:
        """Take what was received; let go of what the other end has, and see to it that it learns what this one has."""
        reader, session = self._reader, self.session
        reader.take()
        if reader.acknowledged > session.acknowledged:
            with self.write_lock:
                was_full = session.is_full
                session.acknowledge(reader.acknowledged)
            if was_full and not session.is_full:
                self._in_loop(self.resume_writing)
        untold = self._safe.taken - session.told
        if untold:
            if self._withholds:
                self._has_withheld = True
                if untold > 2 * KEPT_FRAMES:
                    raise ProtocolError(f"{untold:,} frames came that were not acknowledged: it keeps too many")
            elif untold >= TELL_FRAMES or reader.taken_nbytes - session.told_nbytes >= TELL_NBYTES:
                self._tell()
            elif not self._is_to_tell:
                self._is_to_tell = True
                self._in_loop(self._tell_later)

    def handled(self, count: int) -> None:
        """So many frames have been handled, and what follows from them is written. Only if it `is_recorded`."""
        session, reader = self.session, self._reader
        self._safe.taken = count
        if not self._withholds and (
            count - session.told >= TELL_FRAMES or reader.taken_nbytes - session.told_nbytes >= TELL_NBYTES
        ):
            self._tell()
        elif not self._is_to_tell:
            self._is_to_tell = True
            self._tell_later()

    def _tell(self) -> None:
        """Say what is safe here. If an interrupt comes in between it is said with the next frame that comes."""
        session, taken = self.session, self._safe.taken
        with self.write_lock:
            session.told, session.told_nbytes = taken, self._reader.taken_nbytes
            if self._shared is not None:
                if not self._shared.closing:
                    self._shared.unsent += [frames.acknowledgement(taken)]
                self._shared.send_soon()
            elif self._transport is not None and not self._leaves:
                self._transport.write(frames.acknowledgement(taken))

    def _in_loop(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: all has ended
            self._loop.call_soon_threadsafe(callback)

    def _tell_later(self) -> None:
        self._loop.call_later(TELL_SECONDS, self._tell_if_any)

    def _tell_if_any(self) -> None:
        self._is_to_tell = False
        if not self._closed and self.session.told != self._safe.taken:
            if self._withholds:
                self._has_withheld = True
            else:
                self._tell()

    # -- a break, and another socket

    def _machine_is_silent(self, seconds: float) -> None:
        if self._transport is None or not self._may_go_on(None):
            super()._machine_is_silent(seconds)
        else:  # the machine may be there, and only this socket forgotten on the way to it
            reason = f"the machine of {self.peer} has acknowledged nothing for {seconds:.0f} s"
            self._lost_because = ConnectError(reason)
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self._lost_because is not None:
            error, self._lost_because = self._lost_because, None
        if self._may_go_on(error):
            self._break(error)
        else:
            super().connection_lost(error)

    def _may_go_on(self, error: Exception | None) -> bool:
        """Whether the end of a socket is a break."""
        if self._aborted or self._leaves or self._reader.said_goodbye or not self._way_back.seconds:
            return False
        return not (isinstance(error, OSError) and error.errno == errno.EBADF)  # this very process has closed it

    def _break(self, error: Exception | None) -> None:
        with self.write_lock:
            self._former = self._shared
            self._forget_socket()
        self.is_broken = True
        logger.info("the connection with %s broke%s", self.peer, f": {error}" if error is not None else "")
        self._way_back.broke(error)
        if self.on_break is not None:
            self.on_break(True)

    def supersede(self) -> int:
        """The other end has another connection: nothing more is taken from this socket. How much was, in frames."""
        transport = self._transport
        if transport is not None:
            transport.set_protocol(asyncio.Protocol())
            transport.abort()
            self._break(None)
        return self._reader.taken

    def go_on_over(self, opened: Connection, taken: int) -> None:
        """Go on over the socket of a connection that has just opened for that. The other end has ``taken`` frames.

        Raises
        ------
        ProtocolError
            That can't be right. This connection has ended.
        """
        # What was handled the other end has not been told in the opening.
        told = 0 if self.is_recorded else self._reader.taken
        self._go_on_again(opened, lambda: self.session.resumed(taken, told))
        if self.is_recorded:
            self._tell_if_any()

    def rejoin_over(self, opened: Connection, terms: Terms, recorded: int) -> None:
        """Go on with another listener, over the socket of a connection that has just opened for that.

        Parameters
        ----------
        terms
            Of the session that it has begun.
        recorded
            How many frames of this end's it has found in the journal.

        Raises
        ------
        ProtocolError
            That can't be right. This connection has ended.
        """
        self.info = opened.info

        def again() -> list[list[Any]]:
            self._reader.count_anew()
            return self.session.rejoined(terms, recorded)

        self._go_on_again(opened, again)
        if self.on_rejoin is not None and not self.is_ending:
            self.on_rejoin(opened.info)

    def _go_on_again(self, opened: Connection, begin: Callable[[], list[list[Any]]]) -> None:
        session, reader = self.session, self._reader
        transport, next_reader = opened.hand_over()
        self._former = None
        try:
            with self.write_lock:
                again = begin()
                session.told_nbytes = reader.taken_nbytes
                chunks = [chunk for frame in again for chunk in frame]
                # Before another thread can find the socket, and read from it.
                reader.go_on_with(next_reader)
                self.is_broken = False
                self._go_on(transport)
                if self._shared is not None:
                    self._shared.unsent += chunks
                    self._shared.send_unsent()
                else:
                    transport.writelines(chunks)
        except ProtocolError as error:
            self._go_on(transport)
            self.abort(error)
            raise
        if self._paused:
            self._read_or_not()
        logger.info("the connection with %s goes on; %d frames are sent again", self.peer, len(again))
        self._way_back.resumed()
        if self.on_break is not None:
            self.on_break(False)
        if self._shared is not None:
            self._shared.look()
        else:
            self.handle()
        self.resume_writing()

    def _go_on(self, transport: asyncio.Transport) -> None:
        """Have a socket again."""
        if isinstance(transport, SharedTransport):
            transport.serve(self)
            self._shared = transport
            self._write_frame = self._keep_and_share
        else:
            transport.set_protocol(self)
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            self._machine = MachineWatch(self._loop, sock, self._machine_is_silent)

    # -- the end

    def close(self) -> None:
        if self.is_broken:
            self._loop.call_soon(self._end_between, False)
        else:
            super().close()

    def _leave(self, transport: asyncio.Transport) -> None:
        self._leaves = True
        transport.write(frames.GOODBYE)
        super()._leave(transport)

    def abort(self, error: Exception | None = None) -> None:
        if self._transport is not None and not self._leaves:
            self._try_goodbye(self._transport)
        super().abort(error)
        if self.is_broken:
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
        if sock is not None and not transport.is_closing() and not transport.get_write_buffer_size():
            with contextlib.suppress(OSError):
                os.write(sock.fileno(), frames.GOODBYE)

    def pause(self) -> None:
        """Read nothing more until `resume`; batches that have come already may still be handed over. Not if shared.

        While the session is full it reads on all the same, and hands over what comes: among that are the
        acknowledgements without which the session stays full. It acknowledges nothing of that, so the other end, which
        keeps what is not acknowledged, sends no more than it can keep.
        """
        self._paused = True
        self._read_or_not()

    def resume(self) -> None:
        self._paused = False
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self._paused and not self._withholds:
            super().pause()
        else:
            super().resume()
        if self._has_withheld and not self._withholds:
            self._has_withheld = False
            self._tell_if_any()

    @property
    def _withholds(self) -> bool:
        """Whether it reads though it is paused, and does not say what it has taken."""
        return self._paused and self.session.is_full

    def close_without_loop(self) -> None:
        if self.is_broken:
            self._end(None)
        elif not self._closed and self._shared is not None:
            self._try_goodbye(self._shared)
            super().close_without_loop()

    def leave_to_parent(self) -> None:
        self._way_back.leave_to_parent()
        self._leaves = True
        self.session = Resumption(Terms.none())
        if self.is_broken:
            self._closed = True
        super().leave_to_parent()

    def _end(self, error: Exception | None) -> None:
        if not self._closed:
            self.is_broken = False
            self._way_back.ended()
            super()._end(error)
