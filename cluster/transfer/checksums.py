"""Bytes through a socket, with the checksum of what was sent and of what came.

A checksum is XXH3's of all bytes of an object. It is computed chunk by chunk, while a chunk is in the processor's
cache, and while the other end or the network works on another chunk: it takes little of the time that the bytes take.
"""

from __future__ import annotations

import os
import select
import socket

import xxhash

from holdfast.cluster.errors import ConnectError

#: So much is sent or received, then hashed: less than a core's second cache.
CHUNK_NBYTES = 256 << 10


class Checksum:
    """Of the bytes that have passed so far."""

    def __init__(self) -> None:
        self._digest = xxhash.xxh3_64()

    @property
    def value(self) -> int:
        return self._digest.intdigest()

    def update(self, data: bytes | memoryview) -> None:
        self._digest.update(data)

    def send(self, sock: socket.socket, data: bytes | memoryview) -> None:
        """Send bytes. The kernel has a copy of them when this returns.

        Raises
        ------
        TimeoutError
            The other end took nothing for as long as the socket's timeout.
        """
        view = memoryview(data)
        for start in range(0, view.nbytes, CHUNK_NBYTES):
            chunk = view[start : start + CHUNK_NBYTES]
            self._digest.update(chunk)
            sock.sendall(chunk)

    def send_file(self, sock: socket.socket, fd: int, offset: int, mapped: memoryview) -> None:
        """Send a piece of a file by reference, which ``mapped`` shows.

        The kernel reads the bytes when the other end receives them, which this doesn't wait for. Until then the piece
        must stay as it is.

        Raises
        ------
        TimeoutError
            The other end took nothing for as long as the socket's timeout.
        """
        for start in range(0, mapped.nbytes, CHUNK_NBYTES):
            chunk = mapped[start : start + CHUNK_NBYTES]
            _send_file(sock, fd, offset + start, chunk.nbytes)
            self._digest.update(chunk)

    def receive_into(self, sock: socket.socket, target: memoryview) -> None:
        """Fill ``target`` from the socket; raises `ConnectError` when the other end closes before."""
        while target.nbytes:
            received = sock.recv_into(target[:CHUNK_NBYTES])
            if not received:
                raise ConnectError("the other end closed the connection")
            self._digest.update(target[:received])
            target = target[received:]


def _send_file(sock: socket.socket, fd: int, offset: int, nbytes: int) -> None:
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
            raise ConnectError("the file ended before the object did")
        offset += sent
        nbytes -= sent
