"""Bytes as they are.

``bytes`` and ``bytearray`` own their memory, so decoding one is a copy; a memoryview or a ``pa.Buffer``
comes back as a view in place, which is what to put when the bytes are many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from holdfast.objectstore.codecs import pickled
from holdfast.objectstore.codecs.flat import (
    ALIGNMENT,
    TAG_BUFFER,
    TAG_BYTEARRAY,
    TAG_BYTES,
    TAG_MEMORYVIEW,
    CopyPart,
    Encoded,
    body_at_alignment,
)

_SMALL_NBYTES = 1 << 16
VIEW_HEAD_NBYTES = ALIGNMENT
VIEW_HEAD = bytes([TAG_MEMORYVIEW]).ljust(VIEW_HEAD_NBYTES, b"\0")
_BYTES_HEAD = bytes([TAG_BYTES])
_BYTEARRAY_HEAD = bytes([TAG_BYTEARRAY])


def encode_bytes(value: bytes | bytearray) -> Encoded:
    """The tag, then the bytes: they're copied on decoding anyhow, so nothing is aligned."""
    head, name = (_BYTES_HEAD, "bytes") if type(value) is bytes else (_BYTEARRAY_HEAD, "bytearray")
    if len(value) < _SMALL_NBYTES:
        return Encoded(head + value, type_name=name)
    return Encoded(head, [(1, CopyPart(memoryview(value)))], nbytes=1 + len(value), type_name=name)


def encode_view(value: memoryview | pa.Buffer) -> Encoded:
    """The bytes, aligned. A memoryview that isn't plain bytes goes by the pickle codec, which keeps its shape."""
    if isinstance(value, memoryview):
        if value.format != "B" or value.ndim != 1 or not value.c_contiguous:
            return pickled.encode_any(value)
        tag, view = TAG_MEMORYVIEW, value
    else:
        tag, view = TAG_BUFFER, memoryview(value).cast("B")
    return Encoded(
        bytes([tag]),
        [(ALIGNMENT, CopyPart(view))],
        nbytes=ALIGNMENT + view.nbytes,
        type_name="memoryview" if tag == TAG_MEMORYVIEW else "pyarrow.Buffer",
    )


DECODERS: dict[int, Callable[[memoryview], Any]] = {
    TAG_BYTES: lambda view: bytes(view[1:]),
    TAG_BYTEARRAY: lambda view: bytearray(view[1:]),
    TAG_MEMORYVIEW: lambda view: body_at_alignment(view).cast("B"),  # an Arrow buffer shows its bytes as signed
    TAG_BUFFER: lambda view: pa.py_buffer(body_at_alignment(view)),
}
