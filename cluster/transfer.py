"""The protocol in which objects travel between hosts, and its asking side.

A node agent's port speaks the opening of `comm` with the role ``peer``. After it the connection is a sequence of
requests, each answered before the next:

::

    get   asker  → "G" | 16 bytes: object id
          holder → u64 nbytes, all ones if it is not here | u32 length | MessagePack [key, owner, type] | the bytes
    put   asker  → "P" | 16 bytes: object id | u64 nbytes | u32 length | MessagePack [key, owner, type]
          holder → 1: go ahead   or   0 | u32 length | text: why not
          asker  → the bytes
          holder → 1: it is in the store   or   0 | u32 length | text

All integers are little endian. Everything here blocks; the bytes move in threads, with `sendfile` out of one arena and
`recv_into` into the other. A host's agent keeps its connections in a `PeerPool`, and so may anybody who reads much.
"""

from __future__ import annotations

import collections
import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import msgpack

from holdfast.cluster.comm.blocking import connect_blocking, receive_exactly, receive_into
from holdfast.cluster.errors import ConnectError, ProtocolError
from holdfast.objectstore.errors import StoreError, StoreFullError

T = TypeVar("T")

GET = b"G"
PUT = b"P"
YES = b"\1"
NO = b"\0"
ID_NBYTES = 16
#: Stands for the size of an object that is not here.
ABSENT = (1 << 64) - 1
MAX_META_NBYTES = 1 << 16
MAX_TEXT_NBYTES = 1 << 16

ANNOUNCEMENT = struct.Struct("<QI")
LENGTH = struct.Struct("<I")

#: Connections that nobody uses are closed by the asker after this time, by the holder after twice as long.
IDLE_SECONDS = 60.0
IDLE_PER_PEER = 4


class Meta(NamedTuple):
    """What a store says about an object to people."""

    key: Any = None
    owner: str | None = None
    type_name: str | None = None


# -- both sides


def pack_announcement(nbytes: int, meta: Meta) -> bytes:
    packed: bytes = msgpack.packb(meta)
    if len(packed) > MAX_META_NBYTES:  # a key of this length helps nobody to recognise an object
        packed = msgpack.packb(Meta(None, meta.owner, meta.type_name))
    return ANNOUNCEMENT.pack(nbytes, len(packed)) + packed


def receive_announcement(sock: socket.socket) -> tuple[int, Meta] | None:
    """The size and description of the object that follows; None if it is not there."""
    nbytes, length = ANNOUNCEMENT.unpack(receive_exactly(sock, ANNOUNCEMENT.size))
    if length > MAX_META_NBYTES:
        raise ProtocolError(f"a description of {length:,} bytes is over the limit")
    packed = receive_exactly(sock, length)
    if nbytes == ABSENT:
        return None
    try:
        key, owner, type_name = msgpack.unpackb(packed, use_list=False, strict_map_key=False)
    except Exception as error:  # msgpack raises a dozen unrelated types for malformed input
        raise ProtocolError(f"an object's description is not valid: {error}") from None
    return nbytes, Meta(key, owner, type_name)


def pack_refusal(text: str) -> bytes:
    encoded = text.encode()[:MAX_TEXT_NBYTES]
    return NO + LENGTH.pack(len(encoded)) + encoded


def send_extent(sock: socket.socket, fd: int, offset: int, nbytes: int) -> None:
    """Send a piece of a file or memfd without it passing through this process.

    Raises
    ------
    TimeoutError
        The other end took nothing for as long as the socket's timeout.
    """
    timeout = sock.gettimeout()
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    while nbytes:
        try:
            sent = os.sendfile(sock.fileno(), fd, offset, nbytes)
        except BlockingIOError:
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise TimeoutError("the other end stopped reading") from None
            continue
        if not sent:
            raise ConnectError("the arena ended before the object did")
        offset += sent
        nbytes -= sent


def receive_verdict(sock: socket.socket) -> str | None:
    """None for yes; else why not."""
    answer = bytes(receive_exactly(sock, 1))
    if answer == YES:
        return None
    if answer != NO:
        raise ProtocolError(f"expected yes or no, not {answer!r}")
    (length,) = LENGTH.unpack(receive_exactly(sock, LENGTH.size))
    if length > MAX_TEXT_NBYTES:
        raise ProtocolError(f"a text of {length:,} bytes is over the limit")
    return receive_exactly(sock, length).decode(errors="replace") or "it was refused"


class PeerPool:
    """Connections to node agents, kept for reuse. Thread-safe."""

    def __init__(self, token: bytes, *, name: str = "") -> None:
        self._token = token
        self._name = name
        self._lock = threading.Lock()
        self._idle: dict[str, collections.deque[tuple[float, socket.socket]]] = {}
        self._closed = False

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
        while True:
            sock = self._pop(address)
            reused = sock is not None
            if sock is None:
                sock, _ = connect_blocking(
                    address, token=self._token, role="peer", info={"id": self._name}, timeout=timeout
                )
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

    # -- for those who are not a store themselves

    def fetch_bytes(self, address: str, object_id: bytes, *, timeout: float = 30.0) -> bytearray | None:
        """The bytes of an object in the store of another host; None if it is not there.

        Parameters
        ----------
        timeout:
            Seconds for connecting, and for each time that nothing arrives.

        Raises
        ------
        ConnectError
            The host can't be reached, or the connection broke.
        """
        sock, announced = self.request(address, GET + bytes(object_id), receive_announcement, timeout)
        with self._giving_back(address, sock):
            if announced is None:
                return None
            data = bytearray(announced[0])
            receive_into(sock, memoryview(data))
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
        ConnectError
            The host can't be reached, or the connection broke.
        """
        view = memoryview(data).cast("B")
        request = PUT + bytes(object_id) + pack_announcement(view.nbytes, Meta(*meta))
        # The store may wait for room before it answers.
        sock, refused = self.request(address, request, receive_verdict, timeout)
        with self._giving_back(address, sock):
            if refused is None:
                sock.sendall(view)
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
    except ProtocolError as error:
        raise ConnectError(f"{address} does not speak the protocol between stores: {error}") from error
    except OSError as error:
        raise ConnectError(f"the connection to {address} broke: {error.strerror or error}") from error
