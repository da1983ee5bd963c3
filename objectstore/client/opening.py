"""Opening a connection: what the server says and hands over first."""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

from holdfast.objectstore.client.connection import StoreConnection
from holdfast.objectstore.errors import StoreError
from holdfast.objectstore.shared.frames import MessageReader
from holdfast.objectstore.shared.protocol import MAGIC, VERSION

_HELLO_NBYTES = 256
_HELLO_FDS = 6
_POLL_SECONDS = 1
_TIMEVAL = struct.Struct("@ll")


class Hello(NamedTuple):
    """What the server says and hands over first. The descriptors are the caller's to close."""

    arena_nbytes: int
    slots: int
    arena_fd: int
    writable_fd: int
    index_fd: int
    row_fd: int
    lifeline_fd: int
    sentinel_fd: int


def open_connection(path: str, timeout: float) -> tuple[StoreConnection, Hello]:
    """Connects and reads the server's first frame.

    Raises
    ------
    StoreError
        If no store serves at ``path``, or it isn't one this version can talk to.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fds: list[int] = []
    try:
        sock.settimeout(timeout)
        try:
            sock.connect(path)
            data, fds, _, _ = socket.recv_fds(sock, _HELLO_NBYTES, _HELLO_FDS, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            raise StoreError(f"the store at {path} didn't answer within {timeout:g} s") from None
        except OSError as error:
            raise StoreError(f"no store serves at {path}: {error}") from error
        hello = next(MessageReader(_HELLO_NBYTES).feed(data), None)
        if not isinstance(hello, list) or len(hello) < 4 or hello[0] != MAGIC:
            raise StoreError(f"what serves at {path} is not a store, or it serves another user")
        if hello[1] != VERSION or len(hello) != 5 or len(fds) != _HELLO_FDS:
            raise StoreError(f"the store at {path} speaks version {hello[1]} of the protocol, not {VERSION}")
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(_POLL_SECONDS, 0))
        return StoreConnection(sock, path), Hello(*hello[3:], *fds)
    except BaseException:
        for fd in fds:
            os.close(fd)
        sock.close()
        raise
