"""The opening of a connection over a blocking socket, for those who move bytes in threads of their own.

After it the socket is the caller's, to use as it likes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from holdfast.cluster.comm import frames
from holdfast.cluster.comm.addresses import format_address, parse_address
from holdfast.cluster.comm.connection import OPENING_TIMEOUT_SECONDS
from holdfast.cluster.comm.opening import ConnectorOpening, ListenerOpening, Refused, refusal
from holdfast.cluster.errors import ConnectError, ProtocolError


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


def _send_message(sock: socket.socket, message: frames.Message) -> None:
    sock.sendall(b"".join(frames.pack([message])))


def _receive_message(sock: socket.socket, max_nbytes: int) -> Any:
    # Byte-exact: nothing that follows the opening may be taken from the socket.
    reader = frames.FrameReader(max_nbytes)
    data = bytes(receive_exactly(sock, 8))
    header_nbytes, count = frames.prefix(data)
    if count or header_nbytes > max_nbytes:
        raise ProtocolError("a frame of the opening is over the limit")
    batches = reader.feed(data + bytes(receive_exactly(sock, header_nbytes)))
    if len(batches) != 1 or len(batches[0]) != 1:
        raise ProtocolError("a frame of the opening holds one message")
    return batches[0][0]


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
    ConnectError
        Or one of its subclasses: nobody answers there, or somebody who can't be worked with.
    """
    host, port = parse_address(address)
    where = format_address(host, port)
    try:
        sock = socket.create_connection((host, port), timeout)
    except OSError as error:
        raise ConnectError(f"can't connect to {where}: {error.strerror or error}") from None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opening = ConnectorOpening(token, role, info, where)
        while True:
            answer = opening.answer(_receive_message(sock, frames.MAX_HEADER_NBYTES))
            if answer is None:
                return sock, opening.info
            _send_message(sock, answer)
    except ConnectError:
        sock.close()
        raise
    except (OSError, ProtocolError) as error:
        sock.close()
        raise ConnectError(f"the connection to {where} did not open: {error}") from None
    except BaseException:
        sock.close()
        raise


def accept_blocking(
    sock: socket.socket, *, token: bytes, welcome: Callable[[str, dict[str, Any]], dict[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """Run the accepting end of the opening on an accepted socket; return the other end's role and info.

    Raises
    ------
    Refused
        The other end was refused (and told so).
    ConnectError, ProtocolError, OSError
        It went away or is not one of us.
    """
    sock.settimeout(OPENING_TIMEOUT_SECONDS)
    opening = ListenerOpening(token, welcome)
    _send_message(sock, opening.hello())
    try:
        answer = opening.answer(_receive_message(sock, frames.MAX_OPENING_NBYTES))
    except Refused as error:
        _send_message(sock, refusal(error))
        raise
    _send_message(sock, answer)
    return opening.role, opening.info
