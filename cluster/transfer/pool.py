"""The asking side of the protocol in which objects travel between hosts (`holdfast.cluster.protocol.transfer`).

Everything here blocks; the bytes move in threads. A host's agent keeps its connections in a `PeerPool`, and so may
any process that reads much.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from holdfast.cluster.comm.blocking import connect_blocking, receive_exactly
from holdfast.cluster.comm.opening import TryLater
from holdfast.cluster.errors import ConnectError, ProtocolError
from holdfast.cluster.protocol import transfer
from holdfast.cluster.protocol.transfer import Description
from holdfast.cluster.transfer.checksums import Checksum
from holdfast.objectstore.errors import StoreError, StoreFullError

T = TypeVar("T")

#: Connections that are not used are closed by the asker after this time, by the holder after twice as long.
IDLE_SECONDS = 60.0
IDLE_PER_PEER = 4
#: How long is waited before what a break has cut short is tried again.
PAUSES_SECONDS = (0.0, 0.02, 0.1, 0.5, 1.0)
#: A host to which many connect closes some connections before they have opened: how long it is tried again, and how
#: long at most after each time.
OPENING_SECONDS = 5.0
PAUSE_SECONDS = 0.1


class BrokenError(ConnectError):
    """A connection broke under way. The same may be asked again: an object is what it is, and is there once."""


class DamagedError(ConnectError):
    """The bytes that came are not the object's."""


# -- both sides


def receive_announcement(sock: socket.socket) -> tuple[int, Description] | None:
    """The size and description of the object that follows; None if it is not there."""
    nbytes, length = transfer.announced(receive_exactly(sock, transfer.ANNOUNCEMENT.size))
    packed = receive_exactly(sock, length)
    return None if nbytes is None else (nbytes, transfer.described(packed))


def receive_verdict(sock: socket.socket) -> str | None:
    """None for yes; else why not."""
    answer = bytes(receive_exactly(sock, 1))
    if answer == transfer.YES:
        return None
    if answer != transfer.NO:
        raise ProtocolError(f"expected yes or no, not {answer!r}")
    length = transfer.length_of_text(receive_exactly(sock, transfer.LENGTH.size))
    return receive_exactly(sock, length).decode(errors="replace") or "it was refused"


def receive_object(sock: socket.socket, target: memoryview) -> None:
    """Receive the bytes of an object that was announced, and what makes them sure. Nothing else may use them before.

    Raises
    ------
    DamagedError
        They are not what the holder has sent, or it has found itself that they are not the object's.
    ConnectError
        The connection broke: what has come may be anything.
    """
    checksum = Checksum()
    checksum.receive_into(sock, target)
    if target.nbytes > transfer.COPIED_NBYTES:
        sock.sendall(transfer.YES)
    refused = receive_verdict(sock)
    if refused is not None:
        raise DamagedError(refused)
    compare(checksum, receive_exactly(sock, transfer.CHECKSUM.size))


def compare(checksum: Checksum, announced: bytes | bytearray) -> None:
    """Raise `DamagedError` if bytes that came have another checksum than those that were sent."""
    (sent,) = transfer.CHECKSUM.unpack(announced)
    if checksum.value != sent:
        raise DamagedError(f"the bytes that came have the checksum {checksum.value:016x}, not {sent:016x}")


class PeerPool:
    """Connections to node agents, kept for reuse. Thread-safe.

    A forked child keeps none of its parent's: two processes on one connection would receive each other's objects.
    """

    def __init__(self, token: bytes, *, name: str = "") -> None:
        self._token = token
        self._name = name
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: dict[str, collections.deque[tuple[float, socket.socket]]] = {}

    def request(
        self, address: str, request: bytes, receive_answer: Callable[[socket.socket], T], timeout: float
    ) -> tuple[socket.socket, T]:
        """Send a request and receive the beginning of its answer.

        Parameters
        ----------
        timeout:
            Seconds for connecting, and for each time that nothing moves.

        Returns
        -------
        (socket, answer)
            The connection on which the rest of the answer arrives. The caller gives it back (`give`) when that has
            been received to its end, and closes it otherwise.

        Raises
        ------
        ConnectError
            The host can't be reached, the connection broke, or what answers there is no node agent.
        """
        if self._pid != os.getpid():
            self._begin()
        while True:
            sock = self._pop(address)
            reused = sock is not None
            if sock is None:
                sock = self._connect(address, timeout)
            try:
                sock.settimeout(timeout)
                with naming(address):
                    sock.sendall(request)
                    return sock, receive_answer(sock)
            except ConnectError:
                sock.close()
                # The other end may close an unused connection at any time; a fresh one tells what is the matter.
                if not reused:
                    raise
            except BaseException:
                sock.close()
                raise

    def _connect(self, address: str, timeout: float) -> socket.socket:
        deadline = time.monotonic() + min(timeout, OPENING_SECONDS)
        while True:
            try:
                sock, _ = connect_blocking(
                    address, token=self._token, role="peer", info={"id": self._name}, timeout=timeout
                )
                return sock
            except TryLater:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(random.uniform(0, PAUSE_SECONDS))

    def give(self, address: str, sock: socket.socket) -> None:
        """Keep a connection whose last request has been answered to the end."""
        surplus = []
        now = time.monotonic()
        with self._lock:
            if self._closed:
                surplus.append(sock)
            else:
                self._idle.setdefault(address, collections.deque()).append((now, sock))
            for peer, kept in list(self._idle.items()):
                while kept and (len(kept) > IDLE_PER_PEER or now - kept[0][0] > IDLE_SECONDS):
                    surplus.append(kept.popleft()[1])
                if not kept:
                    del self._idle[peer]
        for old in surplus:
            old.close()

    def close(self) -> None:
        """Close what is idle now and what is given back later."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            self._closed = True
            idle = [sock for kept in self._idle.values() for _, sock in kept]
            self._idle.clear()
        for sock in idle:
            sock.close()

    def _pop(self, address: str) -> socket.socket | None:
        while True:
            with self._lock:
                kept = self._idle.get(address)
                if not kept:
                    return None
                _, sock = kept.pop()
            if _is_alive(sock):
                return sock
            sock.close()

    # -- for processes without a store of their own

    def fetch_bytes(self, address: str, object_id: bytes, *, timeout: float = 30.0) -> bytearray | None:
        """The bytes of an object in the store of another host; None if it is not there.

        Parameters
        ----------
        timeout:
            Seconds for connecting, and for each time that nothing arrives.

        Raises
        ------
        DamagedError
            The bytes that came are not the object's.
        ConnectError
            The host can't be reached, or the connection broke.
        """
        return over_breaks(lambda: self._fetch_bytes(address, object_id, timeout))

    def _fetch_bytes(self, address: str, object_id: bytes, timeout: float) -> bytearray | None:
        sock, announced = self.request(address, transfer.get(bytes(object_id)), receive_announcement, timeout)
        with self._giving_back(address, sock):
            if announced is None:
                return None
            data = bytearray(announced[0])
            receive_object(sock, memoryview(data))
            return data

    def push_bytes(
        self, address: str, object_id: bytes, data: Any, meta: tuple[Any, ...] = (), *, timeout: float = 30.0
    ) -> None:
        """Put an object into the store of another host; it is there, sealed, when this returns.

        Parameters
        ----------
        data : bytes-like
            Its flat encoding.
        meta : tuple
            Its key, owner and type name, as far as they are known.

        Raises
        ------
        StoreFullError
            That store has no room for it; in its own words.
        StoreError
            It was refused after it had been sent: other bytes have come.
        ConnectError
            The host can't be reached, or the connection broke.
        """
        view = memoryview(data).cast("B")
        request = transfer.put(bytes(object_id), view.nbytes, Description(*meta))
        over_breaks(lambda: self._push(address, request, view, timeout))

    def _push(self, address: str, request: bytes, view: memoryview, timeout: float) -> None:
        # The store may wait for room before it answers.
        sock, refused = self.request(address, request, receive_verdict, timeout)
        with self._giving_back(address, sock):
            if refused is None:
                checksum = Checksum()
                checksum.send(sock, view)
                sock.sendall(transfer.CHECKSUM.pack(checksum.value))
                failed = receive_verdict(sock)
        if refused is not None:
            raise StoreFullError(refused)
        if failed is not None:
            raise StoreError(failed)

    @contextlib.contextmanager
    def _giving_back(self, address: str, sock: socket.socket) -> Iterator[None]:
        try:
            with naming(address):
                yield
        except BaseException:
            sock.close()
            raise
        self.give(address, sock)


def over_breaks(attempt: Callable[[], T]) -> T:
    """Try again while the connection breaks under way, so many times at most. Blocks."""
    for pause in PAUSES_SECONDS:
        try:
            return attempt()
        except BrokenError:
            time.sleep(pause)
    return attempt()


def fetch_bytes(address: str, object_id: bytes, *, token: bytes, timeout: float = 30.0) -> bytearray | None:
    """`PeerPool.fetch_bytes` over a connection of its own."""
    pool = PeerPool(token)
    try:
        return pool.fetch_bytes(address, object_id, timeout=timeout)
    finally:
        pool.close()


def push_bytes(
    address: str, object_id: bytes, data: Any, meta: tuple[Any, ...] = (), *, token: bytes, timeout: float = 30.0
) -> None:
    """`PeerPool.push_bytes` over a connection of its own."""
    pool = PeerPool(token)
    try:
        pool.push_bytes(address, object_id, data, meta, timeout=timeout)
    finally:
        pool.close()


def _is_alive(sock: socket.socket) -> bool:
    """Whether an idle connection is still good: nothing has arrived on it, not its end either."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return not poll.poll(0)


@contextlib.contextmanager
def naming(address: str) -> Iterator[None]:
    """Within it, whatever breaks a connection raises a `ConnectError` that names the other end."""
    try:
        yield
    except DamagedError as error:
        raise DamagedError(f"what came from {address} is damaged: {error}") from error
    except ProtocolError as error:
        raise ConnectError(f"{address} does not speak the protocol between stores: {error}") from error
    except OSError as error:
        kind = ConnectError if isinstance(error, TimeoutError) else BrokenError
        raise kind(f"the connection to {address} broke: {error.strerror or error}") from error
