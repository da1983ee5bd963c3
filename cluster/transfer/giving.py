"""The holder's side of a get: a pinned object goes to its asker. `holdfast.cluster.protocol.transfer` says what must
hold, and why.

Called in a connection's thread, with the pin that the caller keeps until this has returned.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
import termios
from collections.abc import Callable, Iterator

from holdfast.cluster.comm.blocking import receive_exactly
from holdfast.cluster.errors import ConnectError, ProtocolError
from holdfast.cluster.protocol import transfer
from holdfast.cluster.transfer.checksums import CHUNK_NBYTES, Checksum
from holdfast.objectstore import StoreServer
from holdfast.objectstore.core.objects import SpillExtent
from holdfast.objectstore.server.local import Pinned


def give(
    sock: socket.socket,
    store: StoreServer,
    pinned: Pinned,
    meta: transfer.Description,
    *,
    lose: Callable[[Pinned], None],
) -> None:
    """Send an object. When this returns, nothing that the asker may use depends on the pin any more.

    Parameters
    ----------
    lose:
        Called when the bytes of an object's file turn out to be damaged; the asker is told that.

    Raises
    ------
    OSError, ProtocolError
        The asker did not confirm. The connection has to be reset before the pin is let go of.
    """
    announcement = transfer.announcement(pinned.layout.nbytes, meta)
    checksum = Checksum()
    if pinned.layout.nbytes <= transfer.COPIED_NBYTES:
        chunks = _read(pinned.fd, pinned.in_file) if pinned.in_file is not None else _views(store, pinned)
        data = b"".join(map(bytes, chunks))  # each before the next, which may lie in the same place
        checksum.update(data)
        sock.sendall(announcement + data + _verdict(pinned, checksum, lose))
        return
    sock.sendall(announcement)
    if pinned.in_file is not None:
        for chunk in _read(pinned.fd, pinned.in_file):
            checksum.send(sock, chunk)
    else:
        for segment, zeros in pinned.layout.with_gaps():
            with store.readable_view(segment) as view:
                checksum.send_file(sock, pinned.fd, segment.offset, view)
            checksum.send(sock, bytes(zeros))
    _await_confirmation(sock)
    sock.sendall(_verdict(pinned, checksum, lose))


def _await_confirmation(sock: socket.socket) -> None:
    """Wait as long as what is queued becomes less within the socket's timeout: a slow network may have much of it."""
    timeout = sock.gettimeout()
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    left = _queued_nbytes(sock)
    while not poll.poll(None if timeout is None else timeout * 1000):
        before, left = left, _queued_nbytes(sock)
        if left >= before:
            raise TimeoutError("the other end stopped reading, or did not confirm")
    if (answer := receive_exactly(sock, 1)) != transfer.YES:
        raise ProtocolError(f"expected that all bytes have come, not {bytes(answer)!r}")


def _queued_nbytes(sock: socket.socket) -> int:
    """What the other end's kernel has not acknowledged yet."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def _verdict(pinned: Pinned, checksum: Checksum, lose: Callable[[Pinned], None]) -> bytes:
    if pinned.in_file is not None and checksum.value != pinned.in_file.checksum:
        lose(pinned)
        return transfer.refusal("the file that it was spilled to has other bytes than were written")
    return transfer.YES + transfer.CHECKSUM.pack(checksum.value)


def _views(store: StoreServer, pinned: Pinned) -> Iterator[bytes | memoryview]:
    for segment, zeros in pinned.layout.with_gaps():
        yield store.readable_view(segment)
        yield bytes(zeros)


def _read(fd: int, extent: SpillExtent) -> Iterator[memoryview]:
    """The bytes of a spilled object. They are read, not mapped: a file that is cut short may not kill this process."""
    buffer = memoryview(bytearray(min(CHUNK_NBYTES, extent.nbytes)))
    at, end = extent.offset, extent.offset + extent.nbytes
    while at < end:
        count = os.preadv(fd, [buffer[: end - at]], at)
        if not count:
            raise ConnectError(f"{extent.path} was cut short while it was read")
        yield buffer[:count]
        at += count
