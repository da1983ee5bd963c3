"""Frames: how a batch of messages lies on the wire.

A frame is ``u32 header bytes | u32 buffer count | u64 bytes of each buffer | header | buffers``, little
endian. The header is a MessagePack array of messages. A message that holds `Raw` bytes refers to one of the
buffers, which follow the header as they are: a payload of any size is neither copied into the header nor
unpacked by those who only relay it.

A *control* stands between two frames: ``u32 kind | u32 0xFFFFFFFF | u64 value``, in the place of a frame that has too
many buffers. It says how many frames were taken, or that nothing more will come (`resume`).

Nothing here does I/O: `pack` returns chunks to write, `FrameReader.feed` takes what was read.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgpack

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.cutting import where_cut

_PREFIX = struct.Struct("<II")
_RAW = 1  # MessagePack extension type: the payload is the index of a buffer

#: Payloads from this size on travel behind the header.
RAW_THRESHOLD_NBYTES = 32 * 1024
#: A sender starts another frame when a header, or the buffers behind it, have grown to this size: a header is unpacked
#: in one piece, and this much takes milliseconds.
HEADER_TARGET_NBYTES = 128 << 10
BUFFERS_TARGET_NBYTES = 64 << 20
#: A message that lists more than a few things is cut where it would take more than this in a header.
MESSAGE_TARGET_NBYTES = 1 << 20
#: That many things at least are packed before anybody looks how much they take.
PACKED_TOGETHER = 64
#: What a thread keeps to pack messages with.
PACKER_NBYTES = 1 << 20
#: What a receiver accepts.
MAX_HEADER_NBYTES = 256 << 20
MAX_BUFFERS = 1 << 16
MAX_FRAME_NBYTES = 8 << 30
#: What a listener accepts from somebody who has not authenticated yet.
MAX_OPENING_NBYTES = 64 << 10

_CONTROL = struct.Struct("<IIQ")
_IS_CONTROL = 0xFFFFFFFF
_TAKEN, _GOODBYE = 1, 2

#: Says that nothing more will come, on purpose.
GOODBYE = _CONTROL.pack(_GOODBYE, _IS_CONTROL, 0)

Message = Sequence[Any]


def acknowledgement(taken: int) -> bytes:
    """Says that so many frames were taken."""
    return _CONTROL.pack(_TAKEN, _IS_CONTROL, taken)


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


class _Packing(threading.local):
    """Each thread's packer: making one, with its buffer of a megabyte, costs more than packing most messages."""

    def __init__(self) -> None:
        self.renew()
        self.clear()

    def renew(self) -> None:
        """Another packer: one keeps as much memory as the largest message took."""
        # A file's name in the text of an error may be no valid text; it must not stop the message.
        self.packer = msgpack.Packer(default=self._put_behind, unicode_errors="surrogatepass")

    def clear(self) -> None:
        self.buffers: list[Any] = []
        self.buffers_nbytes = 0

    def _put_behind(self, value: Any) -> Any:
        if type(value) is Raw:
            self.buffers.append(value.data)
            self.buffers_nbytes += memoryview(value.data).nbytes
            return msgpack.ExtType(_RAW, (len(self.buffers) - 1).to_bytes(4, "little"))
        raise TypeError(f"a message can't hold a {type(value).__name__}: {value!r}")


_packing = _Packing()


def pack(messages: Iterable[Message]) -> list[Any]:
    """Pack messages into one or more frames.

    Returns
    -------
    list of bytes-like
        What to write, in order. Raw buffers are in it as they were given.

    Raises
    ------
    TypeError, ValueError, OverflowError
        Something in a message can't be sent, or what can't be cut takes more than a frame may have.
    """
    return [chunk for chunks, _ in packed(messages) for chunk in chunks]


def packed(messages: Iterable[Message]) -> Iterator[tuple[list[Any], int | None]]:
    """`pack`, frame by frame: what to write for each, and how many of the messages that completes.

    None in the place of their number says that the last one may go on in the next frame.
    """
    packing = _packing
    packing.clear()  # an earlier call may have been cut short
    pack_one = packing.packer.pack
    parts: list[bytes] = []
    nbytes = count = 0
    for message in messages:
        count += 1
        place = where_cut(message, PACKED_TOGETHER)
        for part in _packed_in_pieces(message, place) if place else (pack_one(message),):
            parts.append(part)
            nbytes += len(part)
            if len(part) > PACKER_NBYTES:
                if len(part) > MAX_HEADER_NBYTES - HEADER_TARGET_NBYTES:
                    raise ValueError(f"a message {message[0]!r} takes {len(part):,} bytes, more than a frame may have")
                packing.renew()
                pack_one = packing.packer.pack
            if (
                nbytes >= HEADER_TARGET_NBYTES
                or packing.buffers_nbytes >= BUFFERS_TARGET_NBYTES
                or len(packing.buffers) >= MAX_BUFFERS // 2
            ):
                chunks = _frame(parts, packing.buffers)
                parts, nbytes = [], 0
                packing.clear()
                yield chunks, None if place else count
    if parts:
        chunks = _frame(parts, packing.buffers)
        packing.clear()
        yield chunks, count


def _frame(packed: list[bytes], buffers: list[Any]) -> list[Any]:
    header = _packing.packer.pack_array_header(len(packed)) + b"".join(packed)
    if not buffers:
        return [_PREFIX.pack(len(header), 0) + header]
    sizes = struct.pack(f"<{len(buffers)}Q", *(memoryview(b).nbytes for b in buffers))
    return [_PREFIX.pack(len(header), len(buffers)) + sizes + header, *buffers]


def _packed_in_pieces(message: Message, place: int) -> Iterator[bytes]:
    """A message that lists things at a place, packed as one or, where they take much, as several that say the same.

    Between two of them the frame may end, and with it the buffers that the first one refers to.
    """
    packing = _packing
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


def _no_buffers(code: int, data: bytes) -> Any:
    raise ProtocolError(f"unexpected MessagePack extension type {code}")


def prefix(data: bytes) -> tuple[int, int]:
    """The first 8 bytes of a frame: the size of its header in bytes and the number of its buffers."""
    header_nbytes, count = _PREFIX.unpack(data)
    return header_nbytes, count


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
        How many frames the other end said last that it has taken; -1 if it has not said anything about it.
    said_goodbye : bool
        Whether the other end has said that nothing more will come.
    """

    def __init__(self, max_frame_nbytes: int = MAX_FRAME_NBYTES) -> None:
        self.max_frame_nbytes = max_frame_nbytes
        self.received: list[bytes] = []
        self.batches: list[tuple[Any, ...]] = []
        self.taken = 0
        self.taken_nbytes = 0
        self.acknowledged = -1
        self.said_goodbye = False
        self._begun = bytearray()  # a frame that is not complete
        self._needed = 0  # of its bytes, at least

    def begin_counting(self) -> None:
        """The opening is over: what is there and was not taken out is the first that counts."""
        self.taken = len(self.batches)
        self.taken_nbytes = 0

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
        while True:
            if self._begun and len(self._begun) >= self._needed:
                found, end, needed = self._cut(self._begun)
                rest = self._begun[end:]  # another one: views of this may live on in messages
                count = len(found)
                # No call in between: all of it is done, or nothing.
                self.batches += found
                self.taken += count
                self.taken_nbytes += end
                self._begun, self._needed = rest, needed
            elif not self.received:
                return
            elif self._begun:
                self._begun += self.received[0]
                del self.received[0]
            else:
                data = self.received[0]
                found, end, needed = self._cut(data)
                rest = bytearray(data[end:]) if end < len(data) else self._begun
                count = len(found)
                self.batches += found
                self.taken += count
                self.taken_nbytes += end
                self._begun, self._needed = rest, needed
                del self.received[0]

    def _cut(self, data: bytes | bytearray) -> tuple[list[tuple[Any, ...]], int, int]:
        """The batches that are complete, where they end, and how many bytes from there on the next one needs."""
        view = memoryview(data)
        batches: list[tuple[Any, ...]] = []
        position = 0
        while True:
            batch, after = self._parse(view, position)
            if batch is not None:
                batches.append(batch)
            elif after >= 0:
                return batches, position, after
            else:  # a control
                after = position + _CONTROL.size
            position = after

    def _parse(self, view: memoryview, start: int) -> tuple[tuple[Any, ...] | None, int]:
        """A batch and where it ends; or None, and how many bytes it needs to get on, or -1 for a control."""
        available = len(view) - start
        if available < _PREFIX.size:
            return None, _PREFIX.size
        header_nbytes, count = _PREFIX.unpack_from(view, start)
        total = _PREFIX.size + 8 * count + header_nbytes
        if header_nbytes > MAX_HEADER_NBYTES or count > MAX_BUFFERS or total > self.max_frame_nbytes:
            if count == _IS_CONTROL and header_nbytes in (_TAKEN, _GOODBYE):
                return None, self._take_control(view, start, available)
            raise ProtocolError(
                f"a frame with a header of {header_nbytes:,} bytes and {count:,} buffers is over the limit"
            )
        if available < total - header_nbytes:
            return None, total
        sizes = struct.unpack_from(f"<{count}Q", view, start + _PREFIX.size) if count else ()
        header = start + total - header_nbytes
        total += sum(sizes)
        if total > self.max_frame_nbytes:
            raise ProtocolError(f"a frame of {total:,} bytes is over the limit of {self.max_frame_nbytes:,}")
        if available < total:
            return None, total
        position = header + header_nbytes
        hook = _no_buffers
        if count:
            buffers = []
            for size in sizes:
                buffer = view[position : position + size]
                # A view keeps the whole frame. That is what makes a large payload free, and a small one dear.
                buffers.append(buffer if size > total // 2 else memoryview(bytes(buffer)))
                position += size

            def hook(code: int, data: bytes) -> Any:
                index = int.from_bytes(data, "little")
                if code != _RAW or index >= len(buffers):
                    raise ProtocolError(f"unexpected MessagePack extension {code}:{index}")
                return buffers[index]

        try:
            messages = msgpack.unpackb(
                view[header : header + header_nbytes],
                use_list=False,
                strict_map_key=False,
                ext_hook=hook,
                unicode_errors="surrogatepass",
            )
        except ProtocolError:
            raise
        except Exception as error:  # msgpack raises a dozen unrelated types for malformed input
            raise ProtocolError(f"a header is not valid MessagePack: {error}") from None
        if type(messages) is not tuple:
            raise ProtocolError("a header is not an array of messages")
        for message in messages:
            if type(message) is not tuple or not message or type(message[0]) is not str:
                raise ProtocolError("a header is not an array of messages")
        return messages, position

    def _take_control(self, view: memoryview, start: int, available: int) -> int:
        """-1, or how many bytes it needs. To take it twice is no harm."""
        if available < _CONTROL.size:
            return _CONTROL.size
        kind, _, value = _CONTROL.unpack_from(view, start)
        if kind == _GOODBYE:
            self.said_goodbye = True
        elif value > self.acknowledged:
            self.acknowledged = value
        return -1
