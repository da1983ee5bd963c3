"""A client's connection: many threads, one socket.

The threads that wait for answers read the socket themselves. The first thread that waits takes the role of the reader.
It hands the others their answers until it has its own, and then passes the role on. So a single thread sends and
receives without the help of another thread, and there is no reader thread to switch to.

What goes one way (seals, unpins, aborts) gathers, and is sent in front of the next message.

An interrupt (Ctrl-C) raises in the main thread whenever a function begins there, or one that is written in C returns:
after a byte has been sent or received, say, and before the code has taken note. To do a thing twice would be a breach
of the protocol, to forget one a leak. So what must happen together is one call of C, or has no call in between.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from holdfast.objectstore.client.holdings import Holdings
from holdfast.objectstore.errors import ObjectNotFoundError, SpillError, StoreClosedError, StoreError, StoreFullError
from holdfast.objectstore.shared.frames import MessageReader, pack
from holdfast.objectstore.shared.protocol import REPLY_NBYTES_MAX, SEALS_PER_FRAME, Op, SealItem, Status

_RECEIVE_NBYTES = 1 << 16
_HELLO_NBYTES = 256
_HELLO_FDS = 6
_POLL_SECONDS = 1
PATIENCE_SECONDS = 60.0  # beyond what the server was asked to wait; then it is taken for stuck
_TIMEVAL = struct.Struct("@ll")
_ERRORS: dict[int, type[StoreError]] = {
    Status.NOT_FOUND: ObjectNotFoundError,
    Status.FULL: StoreFullError,
    Status.FETCH_FAILED: StoreError,
    Status.UNREADABLE: SpillError,
}


_connections: weakref.WeakSet[StoreConnection] = weakref.WeakSet()


class _Call:
    """A request that waits for its answer. One whose caller was interrupted is abandoned: its answer is undone."""

    __slots__ = ("abandoned", "answer", "undo")

    def __init__(self, undo: Callable[[list[Any]], None] | None) -> None:
        self.abandoned = False
        self.answer: list[Any] | None = None
        self.undo = undo


class StoreConnection:
    """The socket, the calls in flight and what is to be sent one way.

    Parameters
    ----------
    sock : socket.socket
        Connected, blocking; the connection's to close.
    where : str
        The path, for error messages.
    """

    def __init__(self, sock: socket.socket, where: str) -> None:
        self.where = where
        self.holdings: Holdings | None = None
        self._socket = sock
        self._frames = MessageReader(REPLY_NBYTES_MAX)
        self._calls: dict[int, _Call] = {}
        self._numbers = itertools.count(1)
        self._lost: str | None = None
        self._begin()
        _connections.add(self)

    def _begin(self) -> None:
        self._send_lock = threading.Lock()
        self._outgoing = bytearray()
        self._sent: list[int] = []  # bytes that are sent, and not taken off the outgoing ones yet
        self._seals: list[SealItem] = []
        # A seal goes with the next message; they're sent in the order in which they're queued.
        self.queue_seal: Callable[[SealItem], None] = self._seals.append
        self._lock = threading.Lock()
        self._turn = threading.Condition(self._lock)
        self._someone_reads = False

    @property
    def descriptor(self) -> int:
        """The socket's."""
        return self._socket.fileno()

    # One way

    def attach(self, name: str) -> None:
        """Says which client this is."""
        with self._send_lock:
            self._outgoing += pack((Op.ATTACH, name))
            self._send()

    def flush(self) -> None:
        """Sends what goes one way. What other threads have taken to send is on the socket too afterwards.

        Raises
        ------
        StoreClosedError
            If the connection is gone.
        """
        with self._send_lock:
            self._gather()
            self._send()

    def try_flush(self) -> bool:
        """``flush``, where there is no caller to be told of a failure. False if the connection is gone."""
        try:
            self.flush()
        except StoreClosedError:
            return False
        return True

    def _gather(self) -> None:
        """Takes all that goes one way into the outgoing bytes."""
        # What has died is looked at before the seals are, and sent after them: an array that was sealed and dropped by
        # another thread at this moment is then unpinned with or after its seal, never before.
        holdings = self.holdings
        dead = holdings.dead() if holdings is not None and holdings.pending else None
        if seals := self._seals[:]:
            count = len(seals)
            starts = range(0, count, SEALS_PER_FRAME)
            frames = b"".join(pack((Op.SEAL, seals[start : start + SEALS_PER_FRAME])) for start in starts)
            # Only what is packed is taken: others' seals must not vanish because of a failure here.
            self._outgoing += frames
            del self._seals[:count]
        if holdings is not None and dead is not None:
            holdings.tell(dead, self._outgoing)

    def _send(self) -> None:
        outgoing, sent = self._outgoing, self._sent
        if self._lost is not None and outgoing:
            raise StoreClosedError(self._lost)
        try:
            while True:
                if sent:
                    del outgoing[: sent[0]]
                    del sent[0]
                if not outgoing:
                    return
                sent.extend(map(self._socket.send, (outgoing,)))
        except OSError as error:
            self._fail(f"the store at {self.where} is gone: {error}")
            raise StoreClosedError(self._lost) from error

    # There and back

    def call(
        self,
        op: Op,
        *fields: Any,
        timeout: float | None,
        given: list[Any] | None = None,
        undo: Callable[[list[Any]], None] | None = None,
    ) -> list[Any]:
        """Sends a request and waits for its answer, without the number and the status.

        Parameters
        ----------
        timeout : float or None
            Seconds after which a server that hasn't answered is taken for stuck.
        given : list, optional
            The last field: what is given back. It's taken out of the list when the request is on its way.
        undo : callable, optional
            Called with a good answer that comes when no caller waits for it any more, because the wait was
            interrupted.

        Raises
        ------
        StoreError
            What the server answered, or that it doesn't; StoreClosedError if it's gone.
        """
        number = next(self._numbers)
        giving = [] if given is None else [given[:]]
        count = sum(map(len, giving))
        request = pack((op, number, *fields, *giving))
        call = _Call(undo)
        try:
            with self._send_lock:
                self._gather()
                self._outgoing += request
                self._calls[number] = call
                if given is not None:
                    del given[:count]
                self._send()
            answer = self._wait(call, None if timeout is None else time.monotonic() + timeout)
        except BaseException:
            # What is in the outgoing bytes is sent, and answered, all the same; until then the call is kept.
            with self._lock:
                late = call.answer
                call.abandoned = True
            if late is not None and late[1] == Status.OK and undo is not None:
                undo(late[2:])
            raise
        status = answer[1]
        if status != Status.OK:
            raise _ERRORS.get(status, StoreError)(answer[2])
        return answer[2:]

    def _wait(self, call: _Call, deadline: float | None) -> list[Any]:
        reading = False
        try:
            # CPython takes an interrupt at the jump back to a block's first instruction for one before the block.
            left = None
            while call.answer is None:
                if self._lost is not None:
                    raise StoreClosedError(self._lost)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left < 0:
                    raise StoreError(f"the store at {self.where} doesn't answer")
                if reading:
                    self._read(call)
                    continue
                with self._lock:
                    if not self._someone_reads:
                        self._someone_reads = reading = True
                    elif call.answer is None:
                        self._turn.wait(left)
        finally:
            if reading:
                with self._lock:
                    self._someone_reads = False
                    self._turn.notify_all()
        return call.answer

    def _read(self, mine: _Call) -> None:
        """Receives once, and hands out the answers that came. Returns now and then though nothing came."""
        received = self._frames.received
        try:
            # One step: what is received is kept, even if an interrupt comes right after it.
            received.extend(map(self._socket.recv, (_RECEIVE_NBYTES,)))
        except BlockingIOError:  # SO_RCVTIMEO: a moment to look at the deadline
            pass
        except OSError as error:
            self._fail(f"the store at {self.where} is gone: {error}")
            raise StoreClosedError(self._lost) from error
        if received and not received[-1]:
            self._fail(f"the store at {self.where} has closed the connection")
            raise StoreClosedError(self._lost)
        others = False
        with self._lock:
            for answer in self._frames.messages():
                call = self._calls.get(answer[0])
                if call is None:
                    continue
                if not call.abandoned:
                    call.answer = answer
                    others = others or call is not mine
                del self._calls[answer[0]]
                if call.abandoned and call.undo is not None and answer[1] == Status.OK:
                    call.undo(answer[2:])
            if others:
                self._turn.notify_all()

    # The end

    def close(self) -> None:
        """Closes the socket: the server releases all that is left."""
        self._fail(f"the connection to the store at {self.where} is closed")
        self._socket.close()

    def _fail(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            if self.holdings is not None:
                self.holdings.stop()

    @property
    def is_open(self) -> bool:
        """Whether anything can be sent still."""
        return self._lost is None

    def check(self) -> None:
        """Raises what ``call`` would if nothing can be sent any more."""
        if self._lost is not None:
            raise StoreClosedError(self._lost)

    def disown(self) -> None:
        """The connection is the parent's: this is a forked child. Takes no lock: the thread that holds it isn't here.

        The child's descriptor is closed, since the server must notice when the parent's end is.
        """
        self._lost = "a store isn't shared with a forked process: connect again in the child"
        self._socket.close()
        self._begin()
        if self.holdings is not None:
            self.holdings.disown()


def _disown_all() -> None:
    for connection in list(_connections):
        connection.disown()


os.register_at_fork(after_in_child=_disown_all)
