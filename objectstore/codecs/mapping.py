"""Dictionaries of arrays and frames: each value is encoded for itself, so that one is read without the others.

::

    0   tag
    4   u32  number of values
    8   u64  size of the keys
    16  u64 twice for each value: where its encoding begins, and its size
        the encoding of the dictionary's type, and a list of the keys
        the encoding of each value, at the next multiple of 64

A shuffle splits each of N partitions into a dictionary of N pieces, and N tasks take one of them each. Read as one
pickle, that's N times N values decoded for every N that are wanted.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from holdfast.objectstore.codecs.flat import TAG_MAPPING, Encoded, Part, align
from holdfast.objectstore.errors import DecodeError

Encode = Callable[[Any], Encoded]
Decode = Callable[[memoryview], Any]

_HEADER = struct.Struct("<BxxxIQ")
_PLACE = struct.Struct("<QQ")
_VALUES_MAX = 1 << 16
_VALUE_NBYTES_MIN = 4096  # smaller ones cost less in one pickle, and take less room there


def encode_mapping(mapping: dict[Any, Any], encode: Encode) -> Encoded | None:
    """The encoding of a dictionary, its values by ``encode``; None if it has other values than this is for."""
    if not _is_plain(type(mapping)) or getattr(mapping, "__dict__", None):
        return None
    values = list(mapping.values())
    if not 2 <= len(values) <= _VALUES_MAX or not all(map(_is_large, values)) or _have_parts_in_common(values):
        return None
    keys = encode((type(mapping), list(mapping))).to_bytes()
    end = _HEADER.size + _PLACE.size * len(values) + len(keys)
    places: list[bytes] = []
    parts: list[tuple[int, Part]] = []
    for value in values:
        encoded = encode(value)
        start = align(end)
        end = start + encoded.nbytes
        places.append(_PLACE.pack(start, encoded.nbytes))
        parts.append((start, encoded))
    head = _HEADER.pack(TAG_MAPPING, len(values), len(keys)) + b"".join(places) + keys
    return Encoded(head, parts, nbytes=end, type_name="dict")


def decode_mapping(view: memoryview, decode: Decode) -> dict[Any, Any]:
    """All of a dictionary."""
    kind, keys = _keys(view, decode)
    mapping: dict[Any, Any] = kind.__new__(kind)
    mapping.update((key, decode(_value(view, position))) for position, key in enumerate(keys))
    return mapping


def decode_item(view: memoryview, key: Any, decode: Decode) -> Any:
    """One value of a dictionary.

    Raises
    ------
    KeyError
        If there's none of this key.
    """
    _, keys = _keys(view, decode)
    positions = {each: position for position, each in enumerate(keys)}
    return decode(_value(view, positions[key]))


def _keys(view: memoryview, decode: Decode) -> tuple[type[dict[Any, Any]], list[Any]]:
    if view.nbytes < _HEADER.size:
        raise DecodeError(f"{view.nbytes} bytes are too few for the header of a dictionary")
    _, count, keys_nbytes = _HEADER.unpack_from(view)
    start = _HEADER.size + _PLACE.size * count
    if start + keys_nbytes > view.nbytes:
        raise DecodeError(f"{view.nbytes} bytes are too few for {count} places and {keys_nbytes} bytes of keys")
    kind, keys = decode(view[start : start + keys_nbytes])
    if not issubclass(kind, dict) or len(keys) != count:
        raise DecodeError(f"a damaged dictionary: it has other keys than its {count} values")
    return kind, keys


def _value(view: memoryview, position: int) -> memoryview:
    start, nbytes = _PLACE.unpack_from(view, _HEADER.size + _PLACE.size * position)
    if start + nbytes > view.nbytes:
        raise DecodeError(f"a value of {nbytes} bytes at {start} reaches beyond the {view.nbytes} bytes there are")
    return view[start : start + nbytes]


def _is_plain(kind: Any) -> bool:
    """Whether a type of dictionary is nothing but a name: looking, setting and pickling are those of any."""
    return (
        all(getattr(kind, name) is getattr(dict, name) for name in ("__getitem__", "__setitem__", "update"))
        and all(
            getattr(kind, name) is getattr(object, name) for name in ("__reduce_ex__", "__reduce__", "__getstate__")
        )
        and not any(hasattr(kind, name) for name in ("__missing__", "__getnewargs__", "__setstate__"))
    )


def _have_parts_in_common(values: list[Any]) -> bool:
    """Whether something large would be written more often than in one pickle, which writes each object once."""
    indexes = [value.index for value in values if hasattr(value, "index")]
    large = [*values, *(index for index in indexes if index.nbytes >= _VALUE_NBYTES_MIN)]
    return len({*map(id, large)}) < len(large)


def _is_large(value: Any) -> bool:
    """Whether it is a frame, or an array or a table that is worth a place of its own."""
    kind = type(value)
    if kind is np.ndarray or kind is pa.Table or kind is pa.RecordBatch:
        return bool(value.nbytes >= _VALUE_NBYTES_MIN)
    pandas = sys.modules.get("pandas")
    return pandas is not None and kind in (getattr(pandas, "DataFrame", None), getattr(pandas, "Series", None))
