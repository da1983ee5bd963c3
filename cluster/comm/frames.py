"""Frames: how a batch of messages lies on the wire.

A frame is ``u32 header bytes | u32 buffer count | u64 bytes of each buffer | header | buffers``, little
endian. The header is a MessagePack array of messages. A message that holds `Raw` bytes refers to one of the
buffers, which follow the header as they are: a payload of any size is neither copied into the header nor
unpacked by a process that only relays it.

A *control* stands between two frames: ``u32 kind | u32 0xFFFFFFFF | u64 value``, in the place of a frame that has too
many buffers. It says how many frames were taken, or that nothing more will come (`resume`).

Nothing here does I/O: `pack` returns chunks to write. What was read is `frame_reader`'s.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgpack

from holdfast.cluster.protocol.cutting import where_cut

PREFIX = struct.Struct("<II")
RAW_EXTENSION = 1  # MessagePack extension type: the payload is the index of a buffer

#: Payloads from this size on travel behind the header.
RAW_THRESHOLD_NBYTES = 32 * 1024
#: A sender starts another frame when a header, or the buffers behind it, have grown to this size: a header is unpacked
#: in one piece, and this much takes milliseconds.
HEADER_TARGET_NBYTES = 128 << 10
BUFFERS_TARGET_NBYTES = 64 << 20
#: A message that lists more than a few things is cut where it would take more than this in a header.
MESSAGE_TARGET_NBYTES = 1 << 20
#: That many things at least are packed before it is looked how much they take.
PACKED_TOGETHER = 64
#: So few messages are packed as one: should that be too much for a frame, they are packed once more, one by one.
FEW_MESSAGES = 8
#: What a thread keeps to pack messages with.
PACKER_NBYTES = 1 << 20
#: What a receiver accepts.
MAX_HEADER_NBYTES = 256 << 20
MAX_BUFFERS = 1 << 16
MAX_FRAME_NBYTES = 8 << 30
#: What a listener accepts from a peer that has not authenticated yet.
MAX_OPENING_NBYTES = 64 << 10

CONTROL = struct.Struct("<IIQ")
IS_CONTROL = 0xFFFFFFFF
SAYS_TAKEN, SAYS_GOODBYE = 1, 2

#: Says that nothing more will come, on purpose.
GOODBYE = CONTROL.pack(SAYS_GOODBYE, IS_CONTROL, 0)

Message = Sequence[Any]


def acknowledgement(taken: int) -> bytes:
    """Says that so many frames were taken."""
    return CONTROL.pack(SAYS_TAKEN, IS_CONTROL, taken)


class Raw:
    """Bytes that travel behind the header of a frame instead of in it."""

    __slots__ = ("data",)

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)


def raw(data: Any) -> Any:
    """Wrap ``data`` in `Raw` if it is large enough to gain from it; anything else, None too, is returned as it is."""
    if data is not None and len(data) >= RAW_THRESHOLD_NBYTES:
        return Raw(data)
    return data


def raw_values(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields, with those that are large bytes wrapped."""
    return {name: raw(value) if isinstance(value, (bytes, memoryview)) else value for name, value in fields.items()}


class _Packing:
    """A packer: making one, with its buffer of a megabyte, costs more than packing most messages."""

    __slots__ = ("buffers", "buffers_nbytes", "packer")

    def __init__(self) -> None:
        self.renew()
        self.clear()

    def renew(self) -> None:
        """Another packer: one keeps as much memory as the largest message took."""
        # A file's name in the text of an error may be no valid text; it must not stop the message.
        self.packer = msgpack.Packer(default=self._put_behind, unicode_errors="surrogatepass")

    def clear(self) -> None:
        self.buffers: list[bytes | memoryview] = []
        self.buffers_nbytes = 0

    def _put_behind(self, value: Any) -> Any:
        if type(value) is Raw:
            data = value.data if type(value.data) is bytes else memoryview(value.data).cast("B")
            self.buffers.append(data)
            self.buffers_nbytes += len(data)
            return msgpack.ExtType(RAW_EXTENSION, (len(self.buffers) - 1).to_bytes(4, "little"))
        raise TypeError(f"a message can't hold a {type(value).__name__}: {value!r}")

    @property
    def is_large(self) -> bool:
        """Whether the buffers make a frame of their own."""
        return self.buffers_nbytes >= BUFFERS_TARGET_NBYTES or len(self.buffers) >= MAX_BUFFERS // 2


class _OfThread(threading.local):
    """What each thread packs with."""

    def __init__(self) -> None:
        self.packing = _Packing()


_of_thread = _OfThread()


def pack(messages: Sequence[Message]) -> list[bytes | memoryview]:
    """Pack messages into one or more frames.

    Returns
    -------
    list of bytes and views of bytes
        What to write, in order. Raw buffers are in it as they were given.

    Raises
    ------
    TypeError, ValueError, OverflowError
        Something in a message can't be sent, or what can't be cut takes more than a frame may have.
    """
    chunks: list[bytes | memoryview] = []
    for frame, _ in packed(messages):
        chunks += frame
    return chunks


def packed(messages: Sequence[Message]) -> Iterable[tuple[list[bytes | memoryview], int | None]]:
    """`pack`, frame by frame: what to write for each, and how many of the messages that completes.

    None in the place of their number says that the last one may go on in the next frame.
    """
    packing = _of_thread.packing
    if packing.buffers:
        packing.clear()  # an earlier call was cut short
    count = len(messages)
    if 0 < count <= FEW_MESSAGES:
        for message in messages:
            if where_cut(message, PACKED_TOGETHER):
                break
        else:  # most of what is sent: a frame is one array
            header = packing.packer.pack(messages)
            if not packing.buffers:
                if len(header) <= HEADER_TARGET_NBYTES:
                    return (([PREFIX.pack(len(header), 0) + header], count),)
            elif len(header) <= HEADER_TARGET_NBYTES and not packing.is_large:
                buffers = packing.buffers
                packing.clear()
                return ((_frame(header, buffers), count),)
    return _frame_by_frame(messages, packing)


def _frame_by_frame(
    messages: Sequence[Message], packing: _Packing
) -> Iterator[tuple[list[bytes | memoryview], int | None]]:
    packing.clear()
    pack_one = packing.packer.pack
    parts: list[bytes] = []
    nbytes = count = 0
    for message in messages:
        count += 1
        place = where_cut(message, PACKED_TOGETHER)
        for part in _packed_in_pieces(message, place, packing) if place else (pack_one(message),):
            parts.append(part)
            nbytes += len(part)
            if len(part) > PACKER_NBYTES:
                if len(part) > MAX_HEADER_NBYTES - HEADER_TARGET_NBYTES:
                    raise ValueError(f"a message {message[0]!r} takes {len(part):,} bytes, more than a frame may have")
                packing.renew()
                pack_one = packing.packer.pack
            if nbytes >= HEADER_TARGET_NBYTES or packing.is_large:
                header, buffers = packing.packer.pack_array_header(len(parts)) + b"".join(parts), packing.buffers
                parts, nbytes = [], 0
                packing.clear()
                yield _frame(header, buffers), None if place else count
    if parts:
        header, buffers = packing.packer.pack_array_header(len(parts)) + b"".join(parts), packing.buffers
        packing.clear()
        yield _frame(header, buffers), count


def _frame(header: bytes, buffers: list[bytes | memoryview]) -> list[bytes | memoryview]:
    sizes = struct.pack(f"<{len(buffers)}Q", *map(len, buffers))
    return [PREFIX.pack(len(header), len(buffers)) + sizes + header, *buffers]


def _packed_in_pieces(message: Message, place: int, packing: _Packing) -> Iterator[bytes]:
    """A message that lists things at a place, packed as one or, where they take much, as several that say the same.

    Between two of them the frame may end, and with it the buffers that the first one refers to.
    """
    pack_length = packing.packer.pack_array_header  # the same for every packer
    items = message[place]
    begin = pack_length(len(message)) + b"".join([packing.packer.pack(field) for field in message[:place]])
    end = b"".join([packing.packer.pack(field) for field in message[place + 1 :]])
    listed: list[Any] = []
    count = nbytes = 0
    for start in range(0, len(items), PACKED_TOGETHER):
        together = items[start : start + PACKED_TOGETHER]
        mark = len(packing.buffers), packing.buffers_nbytes
        part = packing.packer.pack(together)
        if len(part) <= MESSAGE_TARGET_NBYTES:
            # Without its length: a byte for a few, three for more.
            parts: Any = [(memoryview(part)[1 if len(together) < 16 else 3 :], len(together))]
        else:
            del packing.buffers[mark[0] :]
            packing.buffers_nbytes = mark[1]
            parts = ((packing.packer.pack(item), 1) for item in together)
        for part, number in parts:
            listed.append(part)
            count += number
            nbytes += len(part)
            if nbytes >= MESSAGE_TARGET_NBYTES or packing.buffers_nbytes >= BUFFERS_TARGET_NBYTES:
                yield b"".join((begin, pack_length(count), *listed, end))
                listed, count, nbytes = [], 0, 0
    if count:
        yield b"".join((begin, pack_length(count), *listed, end))


def prefix(data: bytes) -> tuple[int, int]:
    """The first 8 bytes of a frame: the size of its header in bytes and the number of its buffers."""
    header_nbytes, count = PREFIX.unpack(data)
    return header_nbytes, count
