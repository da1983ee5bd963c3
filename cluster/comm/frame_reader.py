"""Batches of messages out of the bytes that were read. `frames` says how they lie on the wire.

Nothing here does I/O. A receiver adds what it has read to `FrameReader.received`, and finds messages in
`FrameReader.batches`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import msgpack

from holdfast.cluster.comm.frames import (
    CONTROL,
    IS_CONTROL,
    MAX_BUFFERS,
    MAX_FRAME_NBYTES,
    MAX_HEADER_NBYTES,
    PREFIX,
    RAW_EXTENSION,
    SAYS_GOODBYE,
    SAYS_TAKEN,
)
from holdfast.cluster.errors import ProtocolError

_PREFIX_NBYTES = PREFIX.size
_unpack = partial(msgpack.unpackb, use_list=False, strict_map_key=False, unicode_errors="surrogatepass")


class FrameReader:
    """Cuts a stream of bytes into batches of messages.

    What is read goes into `received`, and `take` makes batches of it; `feed` is both in one. `take` may be cut short by
    an interrupt at any point; the next one goes on.

    Parameters
    ----------
    max_frame_nbytes:
        Frames larger than this raise `ProtocolError`. Can be set later: a listener starts with
        `MAX_OPENING_NBYTES`.

    Attributes
    ----------
    received : list of bytes
        What `take` has not looked at yet.
    batches : list of tuple
        What it has found, for others to take out.
    taken, taken_nbytes : int
        How many frames it has found, and their bytes, since `begin_counting`.
    acknowledged : int
        How many frames the other end said last that it has taken.
    said_goodbye : bool
        Whether the other end has said that nothing more will come.
    """

    def __init__(self, max_frame_nbytes: int = MAX_FRAME_NBYTES) -> None:
        self.max_frame_nbytes = max_frame_nbytes
        self.received: list[bytes] = []
        self.batches: list[tuple[Any, ...]] = []
        self.taken = 0
        self.taken_nbytes = 0
        self.acknowledged = 0
        self.said_goodbye = False
        self._begun = bytearray()  # a frame that is not complete
        self._needed = 0  # of its bytes, at least

    def begin_counting(self) -> None:
        """The opening is over: what is there and was not taken out is the first that counts."""
        self.taken = len(self.batches)
        self.taken_nbytes = 0

    def count_anew(self) -> None:
        """What comes from here on is another end's, which counts its frames from one on."""
        self.taken = self.taken_nbytes = 0

    def go_on_with(self, other: FrameReader) -> None:
        """Read from another stream from now on, which ``other`` has begun to read and counts from its beginning.

        What this one has found stays in `batches`, with what the other one has found after it; of a frame that was not
        complete the other stream has the whole.
        """
        self._begun, self._needed = other._begun, other._needed
        self.received[:] = other.received
        self.batches += other.batches
        self.taken += other.taken
        self.taken_nbytes += other.taken_nbytes
        self.acknowledged = max(self.acknowledged, other.acknowledged)
        self.said_goodbye = other.said_goodbye

    def feed(self, data: bytes) -> list[tuple[Any, ...]]:
        """Take bytes; return the batches that they complete, each a tuple of messages.

        Raises
        ------
        ProtocolError
            The bytes are no valid frame, or it is larger than is allowed.
        """
        self.received.append(data)
        self.take()
        batches, self.batches = self.batches, []
        return batches

    def take(self) -> None:
        """Make batches of what was received. Raises as `feed`."""
        received = self.received
        while True:
            if self._begun:
                if not self._take_begun():
                    return
            elif not received:
                return
            else:
                data = received[0]
                nbytes = len(data)
                header_nbytes, count = PREFIX.unpack_from(data) if nbytes >= _PREFIX_NBYTES else (0, 0)
                if count or nbytes != _PREFIX_NBYTES + header_nbytes or nbytes > self.max_frame_nbytes:
                    self._take_several(data)
                    continue
                # One frame without buffers, as most of what is received.
                batch = _messages(data[_PREFIX_NBYTES:])
                # No call in between: all of it is done, or nothing.
                self.batches += (batch,)
                self.taken += 1
                self.taken_nbytes += nbytes
                del received[0]

    def _take_several(self, data: bytes) -> None:
        """Take what is received when nothing is begun."""
        found, end, needed = self._cut(data)
        rest = bytearray(data[end:]) if end < len(data) else self._begun
        count = len(found)
        # No call in between:
        self.batches += found
        self.taken += count
        self.taken_nbytes += end
        self._begun, self._needed = rest, needed
        del self.received[0]

    def _take_begun(self) -> bool:
        """Take what is begun, if it is complete, or add to it. False if there is nothing to add."""
        begun = self._begun
        if len(begun) >= self._needed:
            found, end, needed = self._cut(begun)
            rest = begun[end:]  # another one: views of this may live on in messages
            count = len(found)
            # No call in between:
            self.batches += found
            self.taken += count
            self.taken_nbytes += end
            self._begun, self._needed = rest, needed
        elif self.received:
            # No call in between:
            begun += self.received[0]
            del self.received[0]
        else:
            return False
        return True

    def _cut(self, data: bytes | bytearray) -> tuple[list[tuple[Any, ...]], int, int]:
        """The batches that are complete, where they end, and how many bytes from there on the next one needs."""
        view = memoryview(data)
        available = len(view)
        batches: list[tuple[Any, ...]] = []
        start = 0
        while available - start >= _PREFIX_NBYTES:
            header_nbytes, count = PREFIX.unpack_from(view, start)
            header = start + _PREFIX_NBYTES + 8 * count
            behind = end = header + header_nbytes
            if header_nbytes > MAX_HEADER_NBYTES or count > MAX_BUFFERS or end - start > self.max_frame_nbytes:
                if count != IS_CONTROL or header_nbytes not in (SAYS_TAKEN, SAYS_GOODBYE):
                    raise ProtocolError(
                        f"a frame with a header of {header_nbytes:,} bytes and {count:,} buffers is over the limit"
                    )
                if available - start < CONTROL.size:
                    return batches, start, CONTROL.size
                self._take_control(*CONTROL.unpack_from(view, start))
                start += CONTROL.size
                continue
            sizes: tuple[int, ...] = ()
            if count and header <= available:
                sizes = struct.unpack_from(f"<{count}Q", view, start + _PREFIX_NBYTES)
                end += sum(sizes)
                if end - start > self.max_frame_nbytes:
                    raise ProtocolError(
                        f"a frame of {end - start:,} bytes is over the limit of {self.max_frame_nbytes:,}"
                    )
            if end > available:
                return batches, start, end - start
            hook = _behind(view[behind:end], sizes, end - start) if count else _no_buffers
            batches.append(_messages(view[header:behind], hook))
            start = end
        return batches, start, _PREFIX_NBYTES

    def _take_control(self, kind: int, _: int, value: int) -> None:
        """To take it twice is no harm."""
        if kind == SAYS_GOODBYE:
            self.said_goodbye = True
        elif value > self.acknowledged:
            self.acknowledged = value


def _no_buffers(code: int, data: bytes) -> Any:
    raise ProtocolError(f"unexpected MessagePack extension type {code}")


def _behind(view: memoryview, sizes: tuple[int, ...], frame_nbytes: int) -> Callable[[int, bytes], Any]:
    """What finds the buffers of a frame, which lie one behind the other."""
    buffers: list[memoryview] = []
    start = 0
    for size in sizes:
        buffer = view[start : start + size]
        # A view keeps the whole frame. That is what makes a large payload free, and a small one dear.
        buffers.append(buffer if size > frame_nbytes // 2 else memoryview(bytes(buffer)))
        start += size

    def hook(code: int, data: bytes) -> Any:
        index = int.from_bytes(data, "little")
        if code != RAW_EXTENSION or index >= len(buffers):
            raise ProtocolError(f"unexpected MessagePack extension {code}:{index}")
        return buffers[index]

    return hook


def _messages(header: bytes | memoryview, hook: Callable[[int, bytes], Any] = _no_buffers) -> tuple[Any, ...]:
    """What a header holds: a batch of messages."""
    try:
        messages = _unpack(header, ext_hook=hook)
    except ProtocolError:
        raise
    except Exception as error:  # msgpack raises a dozen unrelated types for malformed input
        raise ProtocolError(f"a header is not valid MessagePack: {error}") from None
    if type(messages) is not tuple:
        raise ProtocolError("a header is not an array of messages")
    for message in messages:
        if type(message) is not tuple or not message or type(message[0]) is not str:
            raise ProtocolError("a header is not an array of messages")
    return messages
