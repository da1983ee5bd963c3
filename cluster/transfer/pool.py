"""The protocol in which objects travel between hosts, and its asking side.

A node agent's port speaks the opening of `comm` with the role ``peer``. After it the connection is a sequence of
requests, each answered before the next:

::

    get   asker  → "G" | 16 bytes: object id
          holder → u64 nbytes, all ones if it is not here | u32 length | MessagePack [key, owner, type] | the bytes
          asker  → 1: all bytes have come                                               (only if nbytes > COPIED_NBYTES)
          holder → 1 | u64 checksum: these were the object's   or   0 | u32 length | text: why not
    put   asker  → "P" | 16 bytes: object id | u64 nbytes | u32 length | MessagePack [key, owner, type]
          holder → 1: go ahead   or   0 | u32 length | text: why not
          asker  → the bytes | u64 checksum
          holder → 1: it is in the store   or   0 | u32 length | text

All integers are little endian. Everything here blocks; the bytes move in threads. A host's agent keeps its connections
in a `PeerPool`, and so may anybody who reads much.

When bytes have arrived
-----------------------
That a call which sends has returned says where the bytes are in the kernel, not that anybody has them. What becomes of
the memory that they were sent from depends on the call:

* `send` *copies* into the kernel. After it the memory may become anything. What is brought (``P``), a small object and
  one that is read from a file go that way.
* `sendfile` queues *references* to the pages of the arena. The bytes are read from there when the other end receives
  them, seconds later perhaps, and on one host even what TCP has acknowledged is not read yet. If another object lies
  there by then, the other end receives that one's bytes. Large objects go that way, because it is the fastest.

So a holder keeps its pin on an object of more than `COPIED_NBYTES` until the asker has confirmed that it has received
all bytes. Then the holder says that it still had the pin, and only after that the asker uses what it has received. All
other ends of a transfer are the same, whichever side gives up and why: the asker drops what it has received. A holder
whose asker neither reads nor confirms gives up after a time. It resets the connection *before* it lets go of the pin:
what is queued may be read wrongly from then on, but no word that it is right can follow it. To ask and to answer
costs a round trip, which is little beside a large object. A small one is copied, and followed by that word at once.

Against all other ways in which bytes may change (a network card, a disk, a fault of this program) there is a checksum,
which the holder computes under its pin, from what it sends. An object whose checksum is wrong is not used. For the
asker that host is then one that could not give the object.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import msgpack

from holdfast.cluster.comm.blocking import connect_blocking, receive_exactly
from holdfast.cluster.comm.opening import TryLater
from holdfast.cluster.errors import ConnectError, ProtocolError
from holdfast.cluster.transfer.checksums import Checksum
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
#: Objects up to this size are copied when they are sent, and need no confirmation.
COPIED_NBYTES = 128 << 10

ANNOUNCEMENT = struct.Struct("<QI")
LENGTH = struct.Struct("<I")
CHECKSUM = struct.Struct("<Q")

#: Connections that nobody uses are closed by the asker after this time, by the holder after twice as long.
IDLE_SECONDS = 60.0
IDLE_PER_PEER = 4
#: A host to which many connect closes some connections before they have opened: how long it is tried again, and how
#: long at most after each time.
OPENING_SECONDS = 5.0
PAUSE_SECONDS = 0.1


class DamagedError(ConnectError):
    """The bytes that came are not the object's."""


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
    if target.nbytes > COPIED_NBYTES:
        sock.sendall(YES)
    refused = receive_verdict(sock)
    if refused is not None:
        raise DamagedError(refused)
    compare(checksum, receive_exactly(sock, CHECKSUM.size))


def compare(checksum: Checksum, announced: bytes | bytearray) -> None:
    """Raise `DamagedError` if bytes that came have another checksum than those that were sent."""
    (sent,) = CHECKSUM.unpack(announced)
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

    # -- for those who are not a store themselves

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
        sock, announced = self.request(address, GET + bytes(object_id), receive_announcement, timeout)
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
        request = PUT + bytes(object_id) + pack_announcement(view.nbytes, Meta(*meta))
        # The store may wait for room before it answers.
        sock, refused = self.request(address, request, receive_verdict, timeout)
        with self._giving_back(address, sock):
            if refused is None:
                checksum = Checksum()
                checksum.send(sock, view)
                sock.sendall(CHECKSUM.pack(checksum.value))
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
    except DamagedError as error:
        raise DamagedError(f"what came from {address} is damaged: {error}") from error
    except ProtocolError as error:
        raise ConnectError(f"{address} does not speak the protocol between stores: {error}") from error
    except OSError as error:
        raise ConnectError(f"the connection to {address} broke: {error.strerror or error}") from error
