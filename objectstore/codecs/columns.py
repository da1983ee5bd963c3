"""Arrow arrays taken apart into their buffers, and put together again.

An IPC stream is one piece of memory, so what is written as one has to be written wholly. Where some of an array's data
is to stay where it is, the array becomes a *node* instead: its length, its number of nulls, its buffers one by one, and
the nodes of its children. The types follow from the array's own, which is kept once, at the top.

A node carries what the array shows. Its data is cut, never copied, and begins with the first value shown: there are
no offsets in nodes. What tells where that is has to be made anew for some slices, as in an IPC stream: a bitmap that
doesn't begin with a byte, and the offsets of lists that don't begin with the first. So have the offsets of texts,
unless it takes less to carry the texts before. The long strings of string and binary views have no order, and are
carried as they are unless few of them are shown. What can't be cut so (unions, runs, list views) stays an array within
its node, and is pickled as a stream like everywhere else.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa

from holdfast.objectstore.codecs.slices import VIEW_NBYTES, compact, is_list, is_text, is_view
from holdfast.objectstore.errors import DecodeError

Node = Any  # an array, or (length, null count, [buffer or None, ...], [node of a child, ...])

_types = pa.types


def take_apart(array: pa.Array) -> Node:
    """The node of an array; the array itself if it can't be cut to what it shows, or shows nothing."""
    data_type = array.type
    length = len(array)
    if not length:
        return array
    if isinstance(data_type, pa.BaseExtensionType):
        return length, 0, [], [take_apart(array.storage)]
    if _types.is_null(data_type):
        return length, length, [None], []
    if _types.is_dictionary(data_type):
        return length, 0, [], [take_apart(array.indices), take_apart(array.dictionary)]
    if _types.is_struct(data_type):
        children = [take_apart(array.field(i)) for i in range(data_type.num_fields)]
        return length, array.null_count, [_validity(array)], children
    if _types.is_fixed_size_list(data_type):
        size = data_type.list_size
        shown = array.values.slice(array.offset * size, length * size)
        return length, array.null_count, [_validity(array)], [take_apart(shown)]
    if is_list(data_type):
        offsets, first, end = _offsets(array)
        shown = array.values.slice(first, end - first)
        return length, array.null_count, [_validity(array), offsets], [take_apart(shown)]
    if is_text(data_type):
        offsets, first, end = _offsets(array, as_they_are=True)
        return length, array.null_count, [_validity(array), offsets, _cut(array.buffers()[2], first, end)], []
    if is_view(data_type) and compact(array) is array:
        views, *data = array.buffers()[1:]
        begin = VIEW_NBYTES * array.offset
        cuts = [_cut(views, begin, begin + VIEW_NBYTES * length), *(_cut(buffer, 0, buffer.size) for buffer in data)]
        return length, array.null_count, [_validity(array), *cuts], []
    if _is_fixed_width(data_type):
        data, width = array.buffers()[1], data_type.bit_width
        bits = _types.is_boolean(data_type)
        begin = array.offset * width // 8
        cut = _bits(data, array.offset, length) if bits else _cut(data, begin, begin + length * width // 8)
        return length, array.null_count, [_validity(array), cut], []
    return array


def put_together(data_type: pa.DataType, node: Node) -> pa.Array:
    """The array of a node.

    Raises
    ------
    DecodeError
        If the node isn't one of this type.
    """
    try:
        array = _put_together(data_type, node)
        array.validate()
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DecodeError(f"a damaged Arrow array: {error}") from error
    return array


def _put_together(data_type: pa.DataType, node: Node) -> pa.Array:
    if isinstance(node, pa.Array):
        return node
    length, null_count, pieces, children = node
    if isinstance(data_type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(data_type, _put_together(data_type.storage_type, children[0]))
    if _types.is_dictionary(data_type):
        indices = _put_together(data_type.index_type, children[0])
        values = _put_together(data_type.value_type, children[1])
        return pa.DictionaryArray.from_arrays(indices, values, ordered=data_type.ordered, safe=False)
    buffers = [None if piece is None else pa.py_buffer(piece) for piece in pieces]
    arrays = [_put_together(data_type.field(i).type, child) for i, child in enumerate(children)]
    return pa.Array.from_buffers(data_type, length, buffers, null_count, 0, arrays)


def _is_fixed_width(data_type: pa.DataType) -> bool:
    sized = _types.is_fixed_size_binary(data_type) and data_type.bit_width > 0
    return bool(_types.is_primitive(data_type) or _types.is_decimal(data_type) or sized)


def _validity(array: pa.Array) -> pickle.PickleBuffer | None:
    bitmap = array.buffers()[0] if array.null_count else None
    return None if bitmap is None else _bits(bitmap, array.offset, len(array))


def _bits(bitmap: pa.Buffer, offset: int, length: int) -> pickle.PickleBuffer:
    start, skip = divmod(offset, 8)
    end = (offset + length + 7) // 8
    if not skip:
        return _cut(bitmap, start, end)
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8, end - start, start), bitorder="little")
    return _made(np.packbits(bits[skip : skip + length], bitorder="little"))


def _offsets(array: pa.Array, *, as_they_are: bool = False) -> tuple[pickle.PickleBuffer, int, int]:
    """The offsets from zero on, and where what they are about begins and ends.

    Those ``as_they_are`` may be about more than the array shows, but not by more than what they take up.
    """
    wide = (_types.is_large_list, _types.is_large_string, _types.is_large_binary)
    dtype = np.int64 if any(is_one(array.type) for is_one in wide) else np.int32
    whole = array.buffers()[1]
    offsets = np.frombuffer(whole, dtype, len(array) + 1, array.offset * np.dtype(dtype).itemsize)
    first = int(offsets[0])
    if first <= offsets.nbytes and as_they_are:
        first = 0
    if first:
        return _made(offsets - offsets[0]), first, int(offsets[-1])
    begin = array.offset * offsets.itemsize
    return _cut(whole, begin, begin + offsets.nbytes), first, int(offsets[-1])


def _cut(buffer: pa.Buffer | None, begin: int, end: int) -> pickle.PickleBuffer:
    return pickle.PickleBuffer(b"" if buffer is None else buffer.slice(begin, end - begin))


def _made(numbers: np.ndarray[Any, Any]) -> pickle.PickleBuffer:
    return pickle.PickleBuffer(numbers)  # type: ignore[arg-type]
