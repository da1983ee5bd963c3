"""Slices of Arrow arrays, cut to what they show.

A slice refers to the whole buffers of the array it was taken from. Arrow's IPC writer cuts those that have an order:
values, offsets, the children of lists. It writes three things whole, however few rows are left: the long strings that
string and binary views point to, the children of list views, and the offsets of an array of no rows. ``compact`` leaves
those out, wherever in a nested type they are, when far more would be written than is shown.

An array is rebuilt from its leaves up, and only where a leaf has changed: an array that comes back as the same object
has nothing to gather. A dictionary belongs to its type, used or not, as the categories of a categorical do: it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

_SLACK_NBYTES = 4096
_SLACK_ITEMS = 64
VIEW_NBYTES = 16
_INSIDE_NBYTES = 12  # a string up to this long lies in its view
_WIDE_NBYTES_MAX = 2**31 - 1  # what one buffer of long strings can hold


def carries_more(data_type: pa.DataType) -> bool:
    """Whether slices of a type may be written with more than they show: whether it has views or offsets anywhere."""
    if is_view(data_type) or _is_list_view(data_type) or is_list(data_type) or is_text(data_type):
        return True
    if pa.types.is_dictionary(data_type):
        return carries_more(data_type.value_type)
    if isinstance(data_type, pa.BaseExtensionType):
        return carries_more(data_type.storage_type)
    if pa.types.is_run_end_encoded(data_type):
        return carries_more(data_type.value_type)
    return any(carries_more(data_type.field(i).type) for i in range(data_type.num_fields))


def compact(array: pa.Array) -> pa.Array:
    """The array itself, or an equal one without what it doesn't show."""
    data_type = array.type
    if not carries_more(data_type):
        return array
    for holds, compact_one in _BY_TYPE:
        if holds(data_type):
            return compact_one(array)
    return array


def _compact_text(array: pa.Array) -> pa.Array:
    return array if len(array) else pa.array([], array.type)


def _compact_view(array: pa.Array) -> pa.Array:
    # A view's first four bytes are the length.
    lengths = _numbers(array, 1, np.int32, VIEW_NBYTES // 4)[:: VIEW_NBYTES // 4]
    shown = VIEW_NBYTES * len(array) + int(lengths[lengths > _INSIDE_NBYTES].sum(dtype=np.int64))
    # What would be written: of an array that Arrow has put together from slices, the same buffer many times.
    written = sum(buffer.size for buffer in array.buffers() if buffer is not None)
    if written <= 2 * shown + _SLACK_NBYTES or shown > _WIDE_NBYTES_MAX:
        return array
    wide = pa.large_string() if pa.types.is_string_view(array.type) else pa.large_binary()
    return array.cast(wide).cast(array.type)


def _compact_list(array: pa.Array) -> pa.Array:
    offsets = array.offsets
    first = offsets[0].as_py()
    shown = array.values.slice(first, offsets[-1].as_py() - first)
    child = compact(shown)
    if child is shown and len(array):
        return array
    return _rebuilt(array, [pa.py_buffer(offsets.to_numpy() - first)], [child])


def _compact_fixed_size_list(array: pa.Array) -> pa.Array:
    size = array.type.list_size
    shown = array.values.slice(array.offset * size, len(array) * size)
    child = compact(shown)
    return array if child is shown else _rebuilt(array, [], [child])


def _compact_list_view(array: pa.Array) -> pa.Array:
    sizes = np.where(_valid(array), array.sizes.to_numpy(), 0).astype(array.sizes.type.to_pandas_dtype())
    values = array.values
    if len(values) > 2 * int(sizes.sum(dtype=np.int64)) + _SLACK_ITEMS:
        offsets = np.concatenate([sizes[:0], sizes[:1] * 0, sizes.cumsum(dtype=sizes.dtype)[:-1]])
        return _rebuilt(array, [pa.py_buffer(offsets), pa.py_buffer(sizes)], [compact(array.flatten())])
    child = compact(values)
    if child is values:
        return array
    own = array.buffers()[:3]
    return pa.Array.from_buffers(array.type, len(array), own, array.null_count, array.offset, [child])


def _compact_struct(array: pa.Array) -> pa.Array:
    shown = [array.field(i) for i in range(array.type.num_fields)]
    children = list(map(compact, shown))
    return array if _same(children, shown) else _rebuilt(array, [], children)


def _compact_union(array: pa.Array) -> pa.Array:
    codes = _numbers(array, 1, np.int8)
    shown = [array.field(i) for i in range(array.type.num_fields)]
    own = [pa.py_buffer(codes)]
    if array.type.mode == "dense":
        offsets = _numbers(array, 2, np.int32).copy()
        for i, code in enumerate(array.type.type_codes):
            mine = codes == code
            first, end = (offsets[mine].min(), offsets[mine].max() + 1) if mine.any() else (0, 0)
            shown[i] = shown[i].slice(first, end - first)
            offsets[mine] -= first
        own.append(pa.py_buffer(offsets))
    children = list(map(compact, shown))
    if _same(children, shown):
        return array
    return pa.Array.from_buffers(array.type, len(array), [None, *own], 0, 0, children)


def _compact_runs(array: pa.Array) -> pa.Array:
    start, count = array.find_physical_offset(), array.find_physical_length()
    shown = array.values.slice(start, count)
    child = compact(shown)
    if child is shown:
        return array
    ends = np.minimum(array.run_ends.slice(start, count).to_numpy() - array.offset, len(array))
    return pa.RunEndEncodedArray.from_arrays(pa.array(ends, array.type.run_end_type), child, array.type)


def _compact_dictionary(array: pa.Array) -> pa.Array:
    whole = array.dictionary
    dictionary = compact(whole)
    if dictionary is whole:
        return array
    return pa.DictionaryArray.from_arrays(array.indices, dictionary, ordered=array.type.ordered, safe=False)


def _compact_extension(array: pa.Array) -> pa.Array:
    whole = array.storage
    storage = compact(whole)
    return array if storage is whole else pa.ExtensionArray.from_storage(array.type, storage)


def is_view(data_type: pa.DataType) -> bool:
    """Whether it is of strings or bytes that are anywhere, and of views of them."""
    return bool(pa.types.is_string_view(data_type) or pa.types.is_binary_view(data_type))


def is_text(data_type: pa.DataType) -> bool:
    """Whether it is of strings or bytes that lie one after the other."""
    types = pa.types
    is_any = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(is_one(data_type) for is_one in is_any)


def _is_list_view(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(data_type) or pa.types.is_large_list_view(data_type))


def is_list(data_type: pa.DataType) -> bool:
    """Whether it is of lists that lie one after the other."""
    return bool(pa.types.is_list(data_type) or pa.types.is_large_list(data_type) or pa.types.is_map(data_type))


_BY_TYPE: list[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array]]] = [
    (lambda data_type: isinstance(data_type, pa.BaseExtensionType), _compact_extension),
    (is_text, _compact_text),
    (is_view, _compact_view),
    (is_list, _compact_list),
    (_is_list_view, _compact_list_view),
    (pa.types.is_fixed_size_list, _compact_fixed_size_list),
    (pa.types.is_struct, _compact_struct),
    (pa.types.is_union, _compact_union),
    (pa.types.is_run_end_encoded, _compact_runs),
    (pa.types.is_dictionary, _compact_dictionary),
]


def _numbers(array: pa.Array, buffer: int, dtype: Any, width: int = 1) -> np.ndarray[Any, Any]:
    """What a slice shows of one of its buffers, ``width`` numbers an item."""
    whole = array.buffers()[buffer]
    if whole is None or not len(array):
        return np.empty(0, dtype)
    return np.frombuffer(whole, dtype, width * len(array), width * array.offset * np.dtype(dtype).itemsize)


def _valid(array: pa.Array) -> np.ndarray[Any, Any]:
    return array.is_valid().to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _rebuilt(array: pa.Array, own: list[pa.Buffer], children: list[pa.Array]) -> pa.Array:
    """An array like this one from its first row on, of other buffers and children."""
    validity = pa.py_buffer(np.packbits(_valid(array), bitorder="little")) if array.null_count else None
    return pa.Array.from_buffers(array.type, len(array), [validity, *own], array.null_count, 0, children)


def _same(left: list[pa.Array], right: list[pa.Array]) -> bool:
    return all(one is other for one, other in zip(left, right, strict=True))
