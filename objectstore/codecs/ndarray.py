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
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from holdfast.objectstore.codecs.flat import TAG_ARRAY, CopyPart, Encoded, Part, align
from holdfast.objectstore.errors import DecodeError

Array = np.ndarray[Any, Any]
Order = Literal["C", "F"]

_HEADER = struct.Struct("<BxxxI")
_DIRECT_KINDS = frozenset("biufcmMSUV")


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
    return dtype.str if dtype.names is None and dtype.kind != "V" and dtype.metadata is None else dtype


def bytes_of(array: Array) -> Array:
    """A contiguous array's data as bytes. (Dates, among others, export no buffer of their own type.)"""
    return array.reshape(-1, order="A").view(np.uint8) if array.nbytes else np.empty(0, np.uint8)


def data_of(array: Array) -> tuple[Order, Array | None]:
    """The memory order in which an array's data is written, and the bytes; None if they have to be gathered."""
    flags = array.flags
    if flags.c_contiguous:
        return "C", bytes_of(array)
    if flags.f_contiguous:
        return "F", bytes_of(array)
    return "C", None


def head_of(shape: Sequence[int], dtype: np.dtype[Any], order: str) -> bytes:
    """All that comes before the data."""
    header = pickle.dumps((tuple(shape), named(dtype), order), 5)
    head = _HEADER.pack(TAG_ARRAY, len(header)) + header
    return head.ljust(align(len(head)), b"\0")


def encode_array(array: Array) -> Encoded:
    """A plain array whose type ``is_flat``."""
    order, data = data_of(array)
    part: Part = StridedPart(array) if data is None else CopyPart(memoryview(data))  # type: ignore[arg-type]
    head = head_of(array.shape, array.dtype, order)
    return Encoded(head, [(len(head), part)], nbytes=len(head) + part.nbytes, type_name="numpy.ndarray")


def decode_array(view: memoryview) -> Array:
    """The array in place, writable if ``view`` is."""
    try:
        _, size = _HEADER.unpack_from(view)
        shape, dtype, order = pickle.loads(view[_HEADER.size : _HEADER.size + size])
        return np.ndarray(shape, dtype, view, align(_HEADER.size + size), order=order)
    except (struct.error, pickle.UnpicklingError, EOFError, TypeError, ValueError) as error:
        raise DecodeError(f"a damaged array: {error}") from error


DECODERS: dict[int, Callable[[memoryview], Any]] = {TAG_ARRAY: decode_array}
