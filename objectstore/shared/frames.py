"""Frames: how messages lie in the stream of a socket.

A frame is a four-byte big-endian length and a MessagePack array of that many bytes. No frame makes either side
unpickle anything.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from typing import Any

import msgpack

from holdfast.objectstore.errors import StoreProtocolError

_PIECES_MAX = 64

_LENGTH = struct.Struct(">I")


class _Packing(threading.local):
    """Each thread's packer: making one, with its buffer of a megabyte, costs more than packing most messages."""

    def __init__(self) -> None:
        self.packer = msgpack.Packer()


_packing = _Packing()


def pack(message: list[Any] | tuple[Any, ...]) -> bytes:
    """``message`` as one frame."""
    body: bytes = _packing.packer.pack(message)
    return _LENGTH.pack(len(body)) + body


class MessageReader:
    """Cuts a stream of bytes into messages.

    Parameters
    ----------
    limit : int
        The longest frame that is accepted, in bytes.
    """

    __slots__ = ("_limit", "received")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.received: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[Any]:
        """The messages that ``data`` completes; as ``messages``."""
        self.received.append(data)
        return self.messages()

    def messages(self) -> Iterator[Any]:
        """The messages that are complete in ``received``, to be iterated to the end: otherwise all come again.

        Raises
        ------
        StoreProtocolError
            If a frame is too long, or isn't MessagePack.
        """
        received = self.received
        if len(received) > 1:
            if not self._worth_joining():
                return
            received[:] = [b"".join(received)]
        data = received[0] if received else b""
        at, end = 0, len(data)
        while end - at >= 4:
            (length,) = _LENGTH.unpack_from(data, at)
            if length > self._limit:
                raise StoreProtocolError(f"a frame of {length} bytes; {self._limit} are allowed")
            if end - at - 4 < length:
                break
            body = data[at + 4 : at + 4 + length]
            at += 4 + length
            try:
                message = msgpack.unpackb(body)
            except Exception as error:  # msgpack has many: its own, ValueError, UnicodeDecodeError, RecursionError
                raise StoreProtocolError(f"a frame that isn't MessagePack: {error!r}") from error
            yield message
        received[:] = [data[at:]] if at < end else []

    def _worth_joining(self) -> bool:
        # A long frame in small pieces must not be copied with each of them: that would be quadratic in its length.
        head = self.received[0]
        if len(head) < _LENGTH.size or len(self.received) > _PIECES_MAX:
            return True
        length: int = _LENGTH.unpack_from(head)[0]
        return length > self._limit or sum(map(len, self.received)) >= _LENGTH.size + length
