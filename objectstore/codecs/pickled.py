"""Everything else: pickle protocol 5, with the large pieces out of band and in place.

Without buffers an encoding is the tag and the pickle. With buffers::

    0   tag
    4   u32  number of buffers
    8   u64  size of the pickle
    16  u64  size of each buffer
        the pickle
        each buffer, at the next multiple of 64

Pickle goes first, in C. It can't name a lambda, a local class, or anything that a script defined in
``__main__``, which is another module elsewhere; where it fails, or where ``__main__`` shows in what it
wrote, cloudpickle writes the value again, by value. (A string that happens to hold ``__main__`` costs
some time and nothing else.)

An encoding with buffers needn't be in one piece: the store keeps large buffers that lie in its arena already where they
are (``resident.py``).
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from holdfast.objectstore.codecs import reducers
from holdfast.objectstore.codecs.flat import (
    TAG_PICKLE,
    TAG_PICKLE_BUFFERS,
    CopyPart,
    Encoded,
    Part,
    align,
    type_name_of,
)
from holdfast.objectstore.codecs.resident import Resident
from holdfast.objectstore.errors import DecodeError, UnreadableError
from holdfast.objectstore.pickling import importing
from holdfast.objectstore.pickling.by_value import ByValuePickler
from holdfast.objectstore.pickling.exceptions import ends_an_await, set_trace, trace_of
from holdfast.objectstore.pickling.outline import name_in
from holdfast.objectstore.pickling.unpickling import REFUSALS, loads_again

_PLAIN_HEAD = bytes([TAG_PICKLE])
_HEADER = struct.Struct("<BxxxIQ")
_MAIN = b"__main__"
_JOIN_NBYTES = 1 << 16


class _Chunks(list[Any]):
    """A file for the pickler that keeps what is written as it comes, long strings and bytes uncopied."""

    write = list.append


class _ByValue(ByValuePickler):
    """With the reducers of values that have buffers before its own."""

    def __init__(self, file: Any, own: dict[type, Any], buffer_callback: Callable[[pickle.PickleBuffer], None]) -> None:
        # Before the pickler is made: that's when it looks for the table.
        self.dispatch_table = ByValuePickler.dispatch_table.new_child(own)
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)


def encode_plain(value: Any) -> Encoded:
    """An int, float, bool, str or None: nothing to look for inside."""
    return Encoded(_PLAIN_HEAD + pickle.dumps(value, 5), type_name=type(value).__name__)


def encode_any(value: Any, resident: Resident | None = None) -> Encoded:
    """Any value; the buffers of the arrays and tables anywhere within it go out of band, ``resident`` ones as such."""
    chunks, parts = _pickle(value, resident)
    name = type_name_of(value)
    if not parts:
        nbytes = sum(map(len, chunks))
        if nbytes <= _JOIN_NBYTES:
            return Encoded(_PLAIN_HEAD + b"".join(chunks), type_name=name)
        return Encoded(_PLAIN_HEAD, _placed(chunks, 1)[0], nbytes=1 + nbytes, type_name=name)
    return _with_buffers(chunks, parts, name)


def _with_buffers(chunks: list[Any], parts: list[Part], name: str) -> Encoded:
    pickle_nbytes = sum(map(len, chunks))
    head = _HEADER.pack(TAG_PICKLE_BUFFERS, len(parts), pickle_nbytes)
    head += struct.pack(f"<{len(parts)}Q", *[part.nbytes for part in parts])
    placed: list[tuple[int, Part]] = []
    if pickle_nbytes <= _JOIN_NBYTES:
        head += b"".join(chunks)
        end = len(head)
    else:
        placed, end = _placed(chunks, len(head))
    for part in parts:
        placed.append((align(end), part))
        end = align(end) + part.nbytes
    return Encoded(head, placed, nbytes=end, type_name=name)


def _placed(chunks: Iterable[Any], offset: int) -> tuple[list[tuple[int, Part]], int]:
    placed: list[tuple[int, Part]] = []
    for chunk in chunks:
        placed.append((offset, CopyPart(memoryview(chunk).cast("B"))))
        offset += len(chunk)
    return placed, offset


def _pickle(value: Any, resident: Resident | None) -> tuple[list[Any], list[Part]]:
    chunks = _Chunks()
    parts: list[Part] = []

    def take(buffer: pickle.PickleBuffer) -> None:
        parts.append(reducers.part_of(buffer))

    pickler = pickle.Pickler(chunks, protocol=5, buffer_callback=take)
    pickler.dispatch_table = reducers.dispatch_table() if resident is None else resident.dispatch_table()
    try:
        pickler.dump(value)
        by_reference = not any(_MAIN in chunk for chunk in chunks)
    except (pickle.PicklingError, AttributeError, TypeError):
        by_reference = False
    if not by_reference:
        chunks = _Chunks()
        parts = []
        own = reducers.REDUCERS if resident is None else {**reducers.REDUCERS, **resident.reducers}
        _ByValue(chunks, own, parts_callback(parts)).dump(value)
    return chunks, parts


def parts_callback(parts: list[Part]) -> Callable[[pickle.PickleBuffer], None]:
    """A pickler's ``buffer_callback`` that collects what is to be written out of band."""
    return lambda buffer: parts.append(reducers.part_of(buffer))


def decode_plain(view: memoryview) -> Any:
    """A pickle without buffers."""
    return _loads(view[1:], ())


def decode_buffers(view: memoryview) -> Any:
    """A pickle whose buffers are slices of ``view``."""
    return decode_segments([(0, view)])


def decode_segments(segments: Sequence[tuple[int, memoryview]]) -> Any:
    """A pickle with buffers that lies in several segments.

    Parameters
    ----------
    segments : sequence of (int, memoryview)
        Where each begins in the encoding, in order. The first holds the header and the pickle, and each buffer lies
        within one of them.
    """
    view = segments[0][1]
    nbytes = view.nbytes
    if nbytes < _HEADER.size:
        raise DecodeError(f"{nbytes} bytes are too few for the header of a pickle with buffers")
    _, count, pickle_nbytes = _HEADER.unpack_from(view)
    start = _HEADER.size + 8 * count
    end = start + pickle_nbytes
    if end > nbytes:
        raise DecodeError(f"{nbytes} bytes are too few for {count} buffers and a pickle of {pickle_nbytes}")
    buffers = []
    begin = end
    at = 0
    for size in struct.unpack_from(f"<{count}Q", view, _HEADER.size):
        begin = align(begin)
        while at + 1 < len(segments) and segments[at + 1][0] <= begin:
            at += 1
        first, segment = segments[at]
        if size and begin + size > first + segment.nbytes:
            raise DecodeError(
                f"a buffer of {size} bytes at {begin} reaches beyond the {segment.nbytes} bytes at {first}"
            )
        buffers.append(segment[begin - first : begin - first + size])
        begin += size
    return _loads(view[start:end], buffers)


_OWN_FILES = (__file__, importing.__file__)


def _loads(data: memoryview, buffers: Sequence[memoryview]) -> Any:
    try:
        try:
            return importing.loads(data, buffers)
        except REFUSALS:
            if (again := loads_again(data, buffers)) is None:
                raise
            return again[0]
    except (pickle.UnpicklingError, EOFError) as error:
        raise DecodeError(f"a damaged pickle: {error}") from error
    except (DecodeError, MemoryError):
        raise
    except BaseException as error:  # importing and unpickling run any code, which may use stores and clusters too
        if not (isinstance(error, Exception) or ends_an_await(error)):
            raise
        trace = trace_of(error)
        while trace is not None and trace.tb_frame.f_code.co_filename in _OWN_FILES:
            trace = trace.tb_next  # these frames say nothing
        set_trace(error, trace)
        raise UnreadableError("an object", name_in(data, buffers), error) from error


DECODERS: dict[int, Callable[[memoryview], Any]] = {
    TAG_PICKLE: decode_plain,
    TAG_PICKLE_BUFFERS: decode_buffers,
}
