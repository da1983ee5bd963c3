"""The opening of a connection over a plain socket, for code that moves bytes in threads of its own.

The connecting end blocks. The accepting end lives in an event loop, so that a thread is given only to a peer that
knows the token. After the opening the socket is the caller's, to use as it likes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from holdfast.cluster.comm import frames
from holdfast.cluster.comm.addresses import format_address, parse_address, unknown_host
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.comm.opening import ConnectorOpening, ListenerOpening, Refused, TryLater, refusal
from holdfast.cluster.comm.strangers import FIRST_NBYTES, GREETING, foreign_answer, who_answers
from holdfast.cluster.errors import ConnectError, ProtocolError

PREFIX_NBYTES = 8


def receive_exactly(sock: socket.socket, nbytes: int) -> bytearray:
    """Receive ``nbytes`` bytes; raises `ConnectError` when the other end closes before."""
    data = bytearray(nbytes)
    receive_into(sock, memoryview(data))
    return data


def receive_into(sock: socket.socket, target: memoryview) -> None:
    """Fill ``target`` from the socket; raises `ConnectError` when the other end closes before."""
    while target.nbytes:
        received = sock.recv_into(target)
        if not received:
            raise ConnectError("the other end closed the connection")
        target = target[received:]


def _packed(message: frames.Message) -> bytes:
    return b"".join(frames.pack([message]))


# A frame of the opening is read byte by byte: nothing that follows it may be taken from the socket.


def _header_nbytes(prefix: bytes, max_nbytes: int) -> int:
    header_nbytes, count = frames.prefix(prefix)
    if count or header_nbytes > max_nbytes:
        raise ProtocolError("a frame of the opening is over the limit")
    return header_nbytes


def _message(prefix: bytes, header: bytes) -> Any:
    batches = FrameReader(frames.MAX_HEADER_NBYTES).feed(prefix + header)
    if len(batches) != 1 or len(batches[0]) != 1:
        raise ProtocolError("a frame of the opening holds one message")
    return batches[0][0]


def _receive_message(sock: socket.socket, max_nbytes: int) -> Any:
    prefix = bytes(receive_exactly(sock, PREFIX_NBYTES))
    return _message(prefix, bytes(receive_exactly(sock, _header_nbytes(prefix, max_nbytes))))


class StalledError(ConnectError):
    """A process listens at an address, and has not answered in time."""


class UnknownHostError(ConnectError):
    """No host is known by the name that an address has."""


def connect_blocking(
    address: str, *, token: bytes, role: str, info: dict[str, Any], timeout: float
) -> tuple[socket.socket, dict[str, Any]]:
    """Connect and open once, without trying again.

    Returns
    -------
    (socket, dict)
        The open socket with ``timeout`` seconds set on it, and what the listener said about itself.

    Raises
    ------
    TryLater
        The other end has closed the connection during the opening, as it does when many come at a time, or says that
        it can't take it yet.
    StalledError
        The other end said nothing in time.
    UnknownHostError
        No host is known by that name.
    ConnectError
        Or another of its subclasses: there is no answer, or one of a program that can't be worked with.
    """
    host, port = parse_address(address)
    where = format_address(host, port)
    try:
        sock = socket.create_connection((host, port), timeout)
    except OSError as error:
        if (unknown := unknown_host(error, host)) is not None:
            raise UnknownHostError(f"can't connect to {where}: {unknown}") from None
        raise ConnectError(f"can't connect to {where}: {error.strerror or error}") from None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opening = ConnectorOpening(token, role, info, where)
        first = b""
        while True:
            try:
                if not first:
                    sock.sendall(GREETING)
                    first = sock.recv(FIRST_NBYTES, socket.MSG_PEEK)
                message = _receive_message(sock, frames.MAX_HEADER_NBYTES)
            except ProtocolError:
                raise foreign_answer(where, first) from None
            except (ConnectError, ConnectionError) as error:
                if who_answers(first):
                    raise foreign_answer(where, first) from None
                raise TryLater(f"the connection to {where} ended during the opening: {error}") from None
            answer = opening.answer(message)
            if answer is None:
                return sock, opening.info
            try:
                sock.sendall(_packed(answer))
            except ConnectionError as error:
                raise TryLater(f"the connection to {where} ended during the opening: {error}") from None
    except ConnectError:
        sock.close()
        raise
    except TimeoutError:
        sock.close()
        raise StalledError(
            f"the process that listens at {where} has not answered within {timeout:g} s: it is stopped, or very busy"
        ) from None
    except (OSError, ProtocolError) as error:
        sock.close()
        raise ConnectError(f"the connection to {where} did not open: {error}") from None
    except BaseException:
        sock.close()
        raise


async def open_accepted(
    sock: socket.socket, *, token: bytes, welcome: Callable[[str, dict[str, Any]], dict[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """Run the accepting end of the opening on an accepted socket that doesn't block; return the other end's role and
    info. Nothing that follows the opening is read.

    Raises
    ------
    Refused
        The other end was refused (and told so).
    ConnectError, ProtocolError, OSError
        It went away or is not one of us.
    """
    loop = asyncio.get_running_loop()
    opening = ListenerOpening(token, welcome)
    await loop.sock_sendall(sock, _packed(opening.hello()))
    prefix = await _receive(sock, PREFIX_NBYTES)
    message = _message(prefix, await _receive(sock, _header_nbytes(prefix, frames.MAX_OPENING_NBYTES)))
    try:
        answer = opening.answer(message)
    except Refused as error:
        await loop.sock_sendall(sock, _packed(refusal(error)))
        raise
    await loop.sock_sendall(sock, _packed(answer))
    return opening.role, opening.info


async def _receive(sock: socket.socket, nbytes: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < nbytes:
        received = await loop.sock_recv(sock, nbytes - len(data))
        if not received:
            raise ConnectError("the other end closed the connection")
        data += received
    return bytes(data)
