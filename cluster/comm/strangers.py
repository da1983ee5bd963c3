"""Peers of other protocols: what comes to a port of ours and is no part of a cluster, and what answers elsewhere.

The connecting end of ours speaks first, with a `GREETING` that is the same in every version. So a listener knows at
once whether one of us has come, before it says anything, and can tell others what this port is in a way that they
understand: a browser shows it. The greeting reads like a request that no server knows. So most other servers answer
with an error of their own protocol, by which the connecting end recognises them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from holdfast.cluster.errors import ConnectError, ProtocolError

GREETING = b"HOLDFAST /1 HTTP/1.1\r\n\r\n"
#: So much of what a stranger says is enough to know the protocol.
FIRST_NBYTES = 64
#: How long a stranger gets to read what it is told, and how much of what it goes on saying is read meanwhile: if any
#: is left unread the kernel takes the answer back.
FAREWELL_SECONDS = 0.5
_DRAINED_NBYTES = 64 << 10

_HTTP_METHODS = (
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PRI ",
)
_TEXT = (
    "This is a port of a Holdfast cluster, and no web page.\n"
    'Connect with: from holdfast import Client; client = Client("HOST:PORT")\n'
    "'holdfast status --address HOST:PORT' shows the cluster.\n"
)
_HTTP_ANSWER = (
    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    f"Content-Length: {len(_TEXT)}\r\nConnection: close\r\n\r\n{_TEXT}"
).encode()
_TLS_HANDSHAKE, _TLS_ALERT = b"\x16\x03", b"\x15\x03"
_HANDSHAKE_FAILURE = b"\x15\x03\x01\x00\x02\x02\x28"


def _is_of_distributed(data: bytes) -> bool:
    """Whether this begins a message of dask's distributed: its bytes, its number of frames, the bytes of each."""
    if len(data) < 24:
        return False
    nbytes: int
    count: int
    first: int
    nbytes, count, first = struct.unpack_from("<3Q", data)
    return 1 <= count <= 64 and 8 * (1 + count) + first <= nbytes < 1 << 20


def who_came(first: bytes) -> tuple[str, bytes]:
    """What a program is that said this first, in words, and what to answer; nothing of both if it is not known.

    Examples
    --------
    >>> who_came(b"SSH-2.0-OpenSSH_9.6\\r\\n")
    ('an SSH client', b'')
    """
    if first.startswith(_HTTP_METHODS):
        return "a browser, or another HTTP client", _HTTP_ANSWER
    if first.startswith(_TLS_HANDSHAKE):
        return "a client that wants TLS (https://, tls://), which this port does not speak", _HANDSHAKE_FAILURE
    if _is_of_distributed(first):
        return "a client or worker of dask's distributed: connect with holdfast.Client instead", b""
    if first.startswith(b"SSH-"):
        return "an SSH client", b""
    if first.startswith((b"*", b"PING")) and b"\r\n" in first:
        return "a Redis client", b"-ERR this is a port of a Holdfast cluster\r\n"
    return "", b""


def who_answers(first: bytes) -> str:
    """What answers like this at a port where a part of a cluster was looked for; empty: not known.

    Examples
    --------
    >>> who_answers(b"HTTP/1.1 400 Bad Request\\r\\n")
    'an HTTP server'
    """
    if first.startswith(b"HTTP/") or first[:64].lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "an HTTP server"
    if _is_of_distributed(first):
        return "a scheduler or worker of dask's distributed"
    if first.startswith((_TLS_ALERT, _TLS_HANDSHAKE)):
        return "a server that wants TLS"
    if first.startswith(b"SSH-"):
        return "an SSH server"
    if first.startswith((b"-ERR", b"-NOAUTH", b"-DENIED", b"+OK", b"+PONG")):
        return "a Redis server"
    if first.startswith((b"220 ", b"220-", b"* OK")):
        return "a mail or FTP server"
    # The head of an HTTP/2 frame: its length, SETTINGS or GOAWAY, the flags, and the stream 0.
    if len(first) >= 9 and first[0] == 0 and first[3] in (4, 7) and first[5:9] == bytes(4):
        return "a gRPC or HTTP/2 server, as Ray's are"
    return ""


class StrangerError(ConnectError):
    """A program answers at an address, and is no part of a Holdfast cluster."""


def foreign_answer(where: str, first: bytes) -> StrangerError:
    """The error for a connecting end to which another program has answered at the address ``where``."""
    who = who_answers(first)
    return StrangerError(
        f"{who} answers at {where}, and no part of a Holdfast cluster; check the address"
        if who
        else f"what answers at {where} does not speak Holdfast's protocol"
    )


async def expect_greeting(sock: socket.socket) -> None:
    """Read the greeting from a socket that was accepted, and nothing beyond it.

    Raises
    ------
    ProtocolError
        Another program has come; says which, if that is known, and has told it.
    ConnectError
        They left before.
    """
    loop = asyncio.get_running_loop()
    first = b""
    while first != GREETING:
        data = await loop.sock_recv(sock, len(GREETING) - len(first))
        if not data:
            raise ConnectError("the other end closed the connection")
        first += data
        if not GREETING.startswith(first):
            with contextlib.suppress(BlockingIOError):  # what is there already may tell more
                first += sock.recv(FIRST_NBYTES)
            who, answer = who_came(first)
            await _take_leave(sock, answer)
            raise ProtocolError(f"this is {who}" if who else "the other end does not speak Holdfast's protocol")


async def _take_leave(sock: socket.socket, answer: bytes) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(FAREWELL_SECONDS):
            await loop.sock_sendall(sock, answer)
            sock.shutdown(socket.SHUT_WR)
            left = _DRAINED_NBYTES
            while left > 0 and (data := await loop.sock_recv(sock, left)):
                left -= len(data)
