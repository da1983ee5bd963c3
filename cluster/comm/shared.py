"""A transport that other threads share with the event loop: they write without it, and read instead of it.

To wake a thread costs more than most messages make it do. So a message leaves from the thread that has it
(`SharedTransport.write_some`); what the socket doesn't take at once is left to the loop. And a thread that has nothing
to do but wait for a message takes the place of the loop until it has come (`SharedTransport.read_while`): it receives,
and handles what it receives. One thread reads at a time; when that has what it waited for, the loop reads on.

The socket changes hands without the loop's help: it is watched by an epoll of its own, which the loop watches. So one
system call takes it from the loop, and another gives it back.

An interrupt (Ctrl-C) raises in the main thread wherever a function begins or a call into C returns: after bytes were
received or sent, say, and before the code has taken note. What must happen together is therefore one call into C, or
has no call in between; and what has begun is written down until it is done, so that the loop can go on with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.cluster.comm.connection import Connection

_RECEIVE_NBYTES = 64 << 10
_LONGEST_POLL_MILLISECONDS = 1e9
#: How often the loop receives before it looks at others.
_RECEIVES = 16
#: Buffers that are written with one system call; the kernel takes 1024.
_WRITTEN_TOGETHER = 512
#: Takes no item out of a queue.
NOTHING = slice(0)


class SharedTransport(asyncio.Transport):
    """The transport of one `Connection`, over a connected socket, which is the transport's to close.

    It is made in the loop's thread. Any thread may call `write_some`, `read_while` and
    `wake_reader`, which isn't true of the rest.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, connection: Connection) -> None:
        super().__init__({"socket": sock, "peername": sock.getpeername()})
        sock.setblocking(False)
        self._loop = loop
        self._socket = sock
        self._connection = connection
        self._received, self._batches = connection.received, connection.batches
        #: True when nothing more is to be written. `Connection` reads it, and adds to what is unsent, in one step with
        #: what it does for itself, while it holds the connection's ``write_lock``.
        self.closing = False
        self.unsent: list[Any] = []
        self._closed = False
        self._sent: list[int] = []  # bytes that are sent, and not taken off the unsent ones yet
        self._watches_writable = False
        self._begin()
        self._wake_fd, self._arrivals = self._new_arrivals()
        self._watch = select.epoll()
        self._watch.register(sock, select.EPOLLIN)
        connection.connection_made(self)
        loop.add_reader(self._watch.fileno(), self._on_readable)
        vital = (sock.fileno(), self._watch.fileno(), self._wake_fd)
        self._identities = tuple((fd, _identity(fd)) for fd in vital)

    @property
    def descriptors(self) -> tuple[tuple[int, tuple[int, int]], ...]:
        """Without these it hears nothing; and what they stood for when they were made."""
        return self._identities

    @property
    def is_read(self) -> bool:
        """Whether a thread has in hand what has come."""
        return self._someone_reads

    def serve(self, connection: Connection) -> None:
        """Be another connection's transport from now on. In the loop's thread, before other threads know of it."""
        self._connection = connection
        self._received, self._batches = connection.received, connection.batches

    def look(self) -> None:
        """Have what the connection has received already handled: by the thread that reads, or soon by the loop."""
        self._in_loop(self._on_readable)

    def _begin(self) -> None:
        # Of the two that follow, and of the descriptors' end. Reentrant: the garbage collector may run inside.
        self._read_lock = threading.RLock()
        self._someone_reads = False
        self._reader: int | None = None  # the thread that does, if it isn't the loop's
        self._reader_idles = False  # it has nothing in hand: it waits for what comes, or is about to

    def _new_arrivals(self) -> tuple[int, select.poll]:
        wake_reader = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        arrivals = select.poll()
        arrivals.register(self._socket, select.POLLIN)
        arrivals.register(wake_reader, select.POLLIN)
        return wake_reader, arrivals

    # -- writing

    def write(self, data: Any) -> None:
        self.write_some([data])

    def writelines(self, list_of_data: Any) -> None:
        self.write_some(list_of_data)

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.unsent)) if self.unsent else 0

    def write_some(self, chunks: list[Any], queue: list[Any] | None = None, taken: slice = NOTHING) -> None:
        """Write, in any thread, in the order of the calls; dropped when closed.

        Parameters
        ----------
        chunks
            Bytes and views of bytes.
        queue, taken
            What the chunks hold is the items of the queue that ``taken`` names: they're taken out in the same step.
        """
        try:
            with self._connection.write_lock:
                if self.closing:
                    chunks = []
                # No call in here:
                self.unsent += chunks
                if queue is not None:
                    del queue[taken]
                # From here on it is written, in any case.
                self.send_unsent()
        except BaseException:
            self.send_soon()
            raise

    def send_soon(self) -> None:
        """Have the loop write what is unsent: an interrupt came in between."""
        self._in_loop(self._on_writable)

    def send_unsent(self) -> None:
        """Write what the socket takes; the loop writes the rest. With the connection's ``write_lock``."""
        while True:
            if self._sent:
                sent = sum(self._sent)
                rest = _without(self.unsent, sent) if sent < sum(map(len, self.unsent)) else []
                self.unsent, self._sent = rest, []
            if not self.unsent or self._closed:
                return
            try:
                self._sent.extend(map(self._socket.sendmsg, (self.unsent[:_WRITTEN_TOGETHER],)))
            except BlockingIOError:
                if not self._watches_writable:
                    self._watches_writable = True
                    self._in_loop(self._watch_writable)
                return
            except OSError:
                self.unsent = []  # the connection is broken: the thread that reads learns how
                return

    def _watch_writable(self) -> None:
        if not self._closed:
            self._loop.add_writer(self._socket.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        with self._connection.write_lock:
            self.send_unsent()
            if self.unsent or self._closed:
                return
            if self._watches_writable:
                self._watches_writable = False
                self._loop.remove_writer(self._socket.fileno())
        if self.closing:
            self._end(None)
        else:
            self._connection.resume_writing()

    # -- reading

    def read_while(self, waits: Callable[[], bool], timeout: float | None = None) -> bool:
        """Receive, and handle what comes, in this thread, which isn't the loop's, for as long as ``waits()`` is true.

        Another thread that makes it false calls `wake_reader` then.

        Parameters
        ----------
        waits
            Cheap, and written in C: it is called again and again.
        timeout
            In seconds.

        Returns
        -------
        bool
            Whether it is false now. It can still be true after the timeout, and because another thread reads, what has
            come is the loop's to handle, or the connection has ended.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        mine = False
        if self._reader is not None:
            self.leave_to_loop()
        try:
            with self._read_lock:
                wake_fd, arrivals = self._wake_fd, self._arrivals
                if not self._someone_reads and not self._closed:
                    self._someone_reads = mine = True
                    self._reader = threading.get_ident()
                    self._watch.modify(self._socket, 0)
            if mine:
                self._read_until(waits, deadline, wake_fd, arrivals)
        finally:
            if mine:
                try:
                    with self._read_lock:
                        if self._wake_fd != wake_fd:  # a signal handler has left it to the loop
                            os.close(wake_fd)
                        else:
                            # First what needs no call, then one call into C; as in `leave_to_loop`, written out
                            # twice because an interrupt could come at the beginning of a function that both call.
                            self._someone_reads = self._reader_idles = False
                            self._reader = None
                            if not self._closed:
                                self._watch.modify(self._socket, select.EPOLLIN)
                            else:
                                self._dispose()
                finally:
                    if (self._received or self._batches) and not self._closed:
                        self._loop.call_soon_threadsafe(self._on_readable)
        return not waits()

    def _read_until(
        self, waits: Callable[[], bool], deadline: float | None, wake_fd: int, arrivals: select.poll
    ) -> None:
        left = None
        while True:
            if (self._received or self._batches) and not self._connection.handle_elsewhere():
                return
            if not waits() or self._closed:
                return
            if deadline is not None:
                left = min((deadline - time.monotonic()) * 1000, _LONGEST_POLL_MILLISECONDS)
                if left <= 0:
                    return
            self._reader_idles = True
            arrived = arrivals.poll(left)
            # No call in between:
            if self._wake_fd != wake_fd:
                return
            self._reader_idles = False
            for fd, _ in arrived:
                if fd == wake_fd:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(fd)
                elif not self._receive():
                    return

    def leave_to_loop(self) -> None:
        """Have the loop read on, if this thread does and is about to wait for something else: in a signal handler.

        The `read_while` that the handler is inside of ends when the handler has.
        """
        if self._reader != threading.get_ident():
            return
        with self._read_lock:
            if self._reader_idles:
                os.eventfd_write(self._wake_fd, 1)
                arrivals = self._new_arrivals()
                # What needs no call, then one call into C.
                self._wake_fd, self._arrivals = arrivals
                self._someone_reads = self._reader_idles = False
                self._reader = None
                if not self._closed:
                    self._watch.modify(self._socket, select.EPOLLIN)
                else:
                    self._dispose()

    def wake_reader(self) -> None:
        """Have a thread that is in `read_while` look again whether it waits. In any thread; in that one it's no use."""
        if self._reader is None or self._reader == threading.get_ident():
            return
        with self._read_lock:
            if self._reader is not None:
                os.eventfd_write(self._wake_fd, 1)

    def _on_readable(self) -> None:
        with self._read_lock:
            if self._someone_reads or self._closed:
                return
            self._someone_reads = True
        connection = self._connection
        try:
            connection.handle()
            for _ in range(_RECEIVES):
                if self._closed or not self._receive():
                    break
                more = len(self._received[-1]) == _RECEIVE_NBYTES
                connection.handle()
                if not more:
                    break
        finally:
            with self._read_lock:
                self._someone_reads = False

    def _receive(self) -> bool:
        """Receive once, without waiting; whether there may be more."""
        received = self._received
        try:
            # One step: what is received is kept, even if an interrupt comes right after it.
            received.extend(map(self._socket.recv, (_RECEIVE_NBYTES,)))
        except BlockingIOError:
            return False
        except OSError as error:
            self._in_loop(self._end, error)
            return False
        if received and not received[-1]:
            received.pop()
            self._in_loop(self._end, None)
            return False
        return True

    # -- the end

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        with self._connection.write_lock:
            self.closing = True
            if not self.unsent:
                self._in_loop(self._end, None)

    def abort(self) -> None:
        self.closing = True
        self._in_loop(self._end, None)

    def _end(self, error: Exception | None) -> None:
        if self._closed:
            return
        self._loop.remove_reader(self._watch.fileno())
        with self._connection.write_lock, self._read_lock:
            self.closing = self._closed = True
            self.unsent = []
            if self._watches_writable:
                self._loop.remove_writer(self._socket.fileno())
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            if self._reader is None:  # otherwise the reader does it, which that wakes
                self._dispose()
        self._connection.connection_lost(error)

    def close_without_loop(self) -> None:
        """Close at once, in any thread: the loop is closed, so nothing that is left to it happens."""
        with self._connection.write_lock, self._read_lock:
            if self._closed:
                return
            self.closing = self._closed = True
            self.unsent = []
            if self._reader is None:
                self._dispose()
        self._connection.connection_lost(None)

    def _dispose(self) -> None:
        self._socket.close()
        self._watch.close()
        os.close(self._wake_fd)

    def leave_to_parent(self) -> None:
        """In a forked child: neither read nor write any more, as if it was closed. Takes no lock."""
        self.closing = self._closed = True
        self._begin()

    def _in_loop(self, callback: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: all has ended
            self._loop.call_soon_threadsafe(callback, *args)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _without(chunks: list[Any], nbytes: int) -> list[Any]:
    """The chunks without their first bytes."""
    for index, chunk in enumerate(chunks):
        if nbytes < len(chunk):
            return [memoryview(chunk)[nbytes:] if nbytes else chunk, *chunks[index + 1 :]]
        nbytes -= len(chunk)
    return []
