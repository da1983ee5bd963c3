"""The flat format's common parts: tags, alignment, and the value that is encoded but not yet written.

The first byte of a flat encoding is its tag: the format's version in the high half, the codec in the
low half. What follows is the codec's own. Data that is to be used in place begins at a multiple of 64
from the first byte, and the arena keeps first bytes at multiples of 64.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from holdfast.objectstore.errors import DecodeError

Buffer = bytes | bytearray | memoryview | pa.Buffer

ALIGNMENT = 64
INLINE_NBYTES = 4096
SHARE_NBYTES = 64 << 10  # from here on, data that lies in the store already isn't copied when it's put again

TAG_PICKLE = 0x11
TAG_PICKLE_BUFFERS = 0x12
TAG_TABLE = 0x13
TAG_BATCH = 0x14
TAG_BYTES = 0x15
TAG_BYTEARRAY = 0x16
TAG_MEMORYVIEW = 0x17
TAG_BUFFER = 0x18
TAG_ARRAY = 0x19
TAG_MAPPING = 0x1A

_PARALLEL_NBYTES = 1 << 20
_COPY_BLOCK_NBYTES = 1 << 20  # what a thread copies at a stretch; smaller ones make two threads meet in one page
_COPY_THREADS = min(4, os.cpu_count() or 1)  # memory, not cores, is the limit beyond that


def align(offset: int) -> int:
    """The next multiple of 64."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


class Part(Protocol):
    """Data that is written when there's a place for it."""

    nbytes: int

    def write_into(self, target: memoryview) -> None:
        """Fills ``target``, which has exactly ``nbytes`` bytes."""


class CopyPart:
    """Bytes that lie somewhere already."""

    __slots__ = ("nbytes", "source")

    def __init__(self, source: memoryview) -> None:
        self.source = source
        self.nbytes = source.nbytes

    @property
    def address(self) -> int:
        """Where they lie in this process."""
        return pa.py_buffer(self.source).address  # type: ignore[no-any-return]

    def write_into(self, target: memoryview) -> None:
        copy_bytes(target, self.source)


def copy_bytes(target: memoryview, source: memoryview) -> None:
    """Copies ``source`` to ``target``; a large one without the GIL, by several threads."""
    if source.nbytes < _PARALLEL_NBYTES:
        target[:] = source
        return
    with pa.FixedSizeBufferWriter(pa.py_buffer(target)) as writer:
        writer.set_memcopy_threads(_COPY_THREADS)
        writer.set_memcopy_blocksize(_COPY_BLOCK_NBYTES)
        writer.set_memcopy_threshold(_PARALLEL_NBYTES)
        writer.write(pa.py_buffer(source))


class Span(NamedTuple):
    """A part that lies somewhere as it is: where it begins in the encoding and in this process, and its size."""

    start: int
    address: int
    nbytes: int


#: A class may have any name; in messages and lists it's cut to so many characters.
_MAX_TYPE_NAME_LENGTH = 200


def type_name_of(value: Any) -> str:
    """What ``list()`` calls a value's type: ``int``, ``numpy.ndarray``, ``pandas.DataFrame``."""
    cls = type(value)
    module: str = cls.__module__
    if module == "builtins":
        return cls.__qualname__
    return f"{module.partition('.')[0]}.{cls.__qualname__}"[:_MAX_TYPE_NAME_LENGTH]


class Encoded:
    """A value's flat encoding, before it is written: its size is known, its data is where it was.

    Attributes
    ----------
    nbytes : int
        Exact size in bytes.
    type_name : str
        The type of the value, for people.
    """

    __slots__ = ("_head", "_parts", "nbytes", "type_name")

    def __init__(
        self, head: bytes, parts: Sequence[tuple[int, Part]] = (), *, nbytes: int = 0, type_name: str = "bytes"
    ) -> None:
        self._head = head
        self._parts = parts
        self.nbytes = nbytes or len(head)
        self.type_name = type_name

    @property
    def inline(self) -> bool:
        """Whether it is small enough to ride along in a message: up to 4 KiB."""
        return self.nbytes <= INLINE_NBYTES

    def write_into(self, target: memoryview) -> None:
        """Writes all of it; the one copy of the data that is made.

        Parameters
        ----------
        target : memoryview
            Writable, one byte an item, exactly ``nbytes`` long.
        """
        if target.nbytes != self.nbytes:
            raise ValueError(f"{target.nbytes} bytes of room for an encoding of {self.nbytes}")
        written = len(self._head)
        target[:written] = self._head
        for offset, part in self._parts:
            if offset > written:  # the arena's memory is recycled: no byte of an older object may show
                target[written:offset] = bytes(offset - written)
            written = offset + part.nbytes
            if part.nbytes:
                part.write_into(target[offset:written])
        if self.nbytes > written:
            target[written:] = bytes(self.nbytes - written)

    def sources(self) -> list[memoryview | bytes] | None:
        """What is written, in order, without the filling between; None if some of it has to be made for that."""
        parts: list[memoryview | bytes] = [self._head]
        for _, part in self._parts:
            if type(part) is not CopyPart:
                return None
            parts.append(part.source)
        return parts

    def spans(self) -> list[Span]:
        """The large parts that could stay where they lie, for readers that take the encoding in segments."""
        if self._head[0] != TAG_PICKLE_BUFFERS:
            return []
        return [
            Span(start, part.address, part.nbytes)
            for start, part in self._parts
            if type(part) is CopyPart and part.nbytes >= SHARE_NBYTES and start % ALIGNMENT == 0
        ]

    def without(self, spans: Iterable[Span]) -> Encoded:
        """What is left to be written if these of ``spans()`` stay where they are.

        Each is taken out together with the filling up to the next multiple of 64.
        """
        out = {span.start for span in spans}
        parts: list[tuple[int, Part]] = []
        taken = 0
        for start, part in self._parts:
            if start in out:
                taken += align(part.nbytes)
            else:
                parts.append((start - taken, part))
        last, _ = self._parts[-1]
        end = align(self.nbytes) if last in out else self.nbytes
        return Encoded(self._head, parts, nbytes=end - taken, type_name=self.type_name)

    def blocks(self) -> Iterator[bytes | memoryview]:
        """The flat encoding, block by block; what lies somewhere as it is isn't copied."""
        written = len(self._head)
        yield self._head
        for offset, part in self._parts:
            yield bytes(offset - written)
            written = offset + part.nbytes
            if type(part) is CopyPart:
                yield part.source
            elif isinstance(part, Encoded):
                yield from part.blocks()
            else:
                block = bytearray(part.nbytes)
                part.write_into(memoryview(block))
                yield memoryview(block)
        yield bytes(self.nbytes - written)

    def to_bytes(self) -> bytes:
        """The flat encoding as ``bytes``."""
        if not self._parts:
            return self._head
        flat = bytearray(self.nbytes)
        self.write_into(memoryview(flat))
        return bytes(flat)

    def __len__(self) -> int:
        return self.nbytes

    def __repr__(self) -> str:
        return f"<Encoded {self.type_name}, {self.nbytes} bytes>"


def body_at_alignment(view: memoryview) -> memoryview:
    """What follows the first 64 bytes."""
    if view.nbytes < ALIGNMENT:
        raise DecodeError(f"{view.nbytes} bytes are too few for the header of an aligned encoding")
    return view[ALIGNMENT:]
