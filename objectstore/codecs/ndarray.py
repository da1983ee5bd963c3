"""numpy arrays: a short header and the data, aligned. Any dtype without Python objects in it.

::

    0   tag
    4   u32  size of the header
    8   header: the pickle of (shape, dtype, order)
        the data, at the next multiple of 64

The header depends on nothing but shape and type, so a producer can be given the place of the data
before there is any: that is what ``Store.create`` does.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from holdfast.objectstore.codecs.flat import ALIGNMENT, TAG_ARRAY, CopyPart, Encoded, Part, align
from holdfast.objectstore.errors import DecodeError

Array = np.ndarray[Any, Any]
Order = Literal["C", "F"]

_HEADER = struct.Struct("<BxxxI")
_DIRECT_KINDS = frozenset("biufcmMSUV")
_EXPORTED_KINDS = frozenset("biufcSU")

_Layout = tuple[tuple[int, ...], np.dtype[Any], int, Order]

# Headers that were made and read lately. Only of types that are their name: a structured type can be renamed in place.
_REMEMBERED_MAX = 1024
_heads: dict[tuple[tuple[int, ...], np.dtype[Any], Order], bytes] = {}
_layouts: dict[bytes, _Layout] = {}


class StridedPart:
    """A strided array, gathered straight into place in C order."""

    __slots__ = ("_array", "nbytes")

    def __init__(self, array: Array) -> None:
        self._array = array
        self.nbytes = array.nbytes

    def write_into(self, target: memoryview) -> None:
        """Fills ``target`` with the elements in C order."""
        np.copyto(np.ndarray(self._array.shape, self._array.dtype, buffer=target), self._array)


def is_flat(dtype: np.dtype[Any]) -> bool:
    """Whether an array's data is all there is to it: no Python objects, no strings of variable length."""
    return dtype.kind in _DIRECT_KINDS and not dtype.hasobject


def named(dtype: np.dtype[Any]) -> Any:
    """The type as its short name, where that says all: not with fields, subarrays or metadata."""
    return dtype.str if dtype.kind != "V" and dtype.metadata is None else dtype


def bytes_of(array: Array) -> memoryview:
    """A contiguous array's data as bytes."""
    if array.dtype.kind in _EXPORTED_KINDS:
        return pickle.PickleBuffer(array).raw()  # type: ignore[arg-type]
    # Dates export no buffer of their own type, and so no structure that may hold any does here.
    flat = array.reshape(-1, order="A").view(np.uint8) if array.nbytes else np.empty(0, np.uint8)
    return memoryview(flat)  # type: ignore[arg-type]


def data_of(array: Array) -> tuple[Order, memoryview | None]:
    """The memory order in which an array's data is written, and the bytes; None if they have to be gathered."""
    flags = array.flags
    if flags.c_contiguous:
        return "C", bytes_of(array)
    if flags.f_contiguous:
        return "F", bytes_of(array)
    return "C", None


def head_of(shape: tuple[int, ...], dtype: np.dtype[Any], order: Order) -> bytes:
    """All that comes before the data."""
    # Metadata is no part of a type's equality.
    known = _heads.get((shape, dtype, order)) if dtype.metadata is None else None
    if known is not None:
        return known
    name = named(dtype)
    header = pickle.dumps((shape, name, order), 5)
    head = _HEADER.pack(TAG_ARRAY, len(header)) + header
    head = head.ljust(align(len(head)), b"\0")
    if isinstance(name, str):
        _remember(_heads, (shape, dtype, order), head)
    return head


def encode_array(array: Array) -> Encoded:
    """A plain array whose type ``is_flat``."""
    order, data = data_of(array)
    part: Part = StridedPart(array) if data is None else CopyPart(data)
    head = head_of(array.shape, array.dtype, order)
    return Encoded(head, [(len(head), part)], nbytes=len(head) + part.nbytes, type_name="numpy.ndarray")


def decode_array(view: memoryview) -> Array:
    """The array in place, writable if ``view`` is."""
    first = view[:ALIGNMENT].tobytes()
    shape, dtype, offset, order = _layouts.get(first) or _read_layout(view, first)
    try:
        return np.ndarray(shape, dtype, view, offset, None, order)
    except (TypeError, ValueError) as error:
        raise DecodeError(f"a damaged array: {error}") from error


def _read_layout(view: memoryview, first: bytes) -> _Layout:
    try:
        _, size = _HEADER.unpack_from(view)
        shape, name, order = pickle.loads(view[_HEADER.size : _HEADER.size + size])
        dtype = np.dtype(name)
        if not is_flat(dtype):
            raise ValueError(f"an array of {dtype} isn't kept as its memory")
        layout = tuple(shape), dtype, align(_HEADER.size + size), order
    except Exception as error:  # whatever a damaged pickle makes the unpickler raise
        raise DecodeError(f"a damaged array: its header can't be read: {error!r}") from error
    if isinstance(name, str) and layout[2] == ALIGNMENT:
        _remember(_layouts, first, layout)
    return layout


def _remember(cache: dict[Any, Any], key: Any, value: Any) -> None:
    if len(cache) >= _REMEMBERED_MAX:
        cache.clear()
    cache[key] = value


DECODERS: dict[int, Callable[[memoryview], Any]] = {TAG_ARRAY: decode_array}
