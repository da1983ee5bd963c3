"""Values as flat bytes, and back without a copy.

One flat format is used everywhere: in the arena, inline in messages, between hosts. Its first byte
says which version and codec wrote it (``flat.py``); each family of values has a file:

======================  =====================================================================
``raw.py``              bytes, bytearray, memoryview, ``pa.Buffer``: the bytes themselves
``ndarray.py``          numpy arrays: a short header and the data
``arrow.py``            Arrow tables and record batches: an Arrow IPC stream, readable by any Arrow
``slices.py``           slices of Arrow arrays, cut to what they show
``mapping.py``          dictionaries of frames and arrays: each value for itself
``pickled.py``          everything else: pickle protocol 5 with its buffers out of band
``reducers.py``         how numpy, Arrow, polars and memoryviews take part in a pickle in place
``dataframes.py``       how pandas frames do
``resident.py``         data that lies in the store already, and stays there when it's put again
``columns.py``          Arrow arrays taken apart into their buffers, for that
``flat.py``             what all of these have in common
======================  =====================================================================

``encode`` only measures and collects; the data itself is copied once, by ``Encoded.write_into``,
straight to where it is to stay. ``decode`` touches none of the data: it makes views of the buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from holdfast.objectstore.codecs import arrow, mapping, ndarray, pickled, raw
from holdfast.objectstore.codecs.flat import (
    INLINE_NBYTES,
    TAG_ARRAY,
    TAG_BUFFER,
    TAG_MAPPING,
    TAG_MEMORYVIEW,
    TAG_PICKLE_BUFFERS,
    Buffer,
    Encoded,
    type_name_of,
)
from holdfast.objectstore.codecs.pickled import decode_segments
from holdfast.objectstore.codecs.resident import Resident
from holdfast.objectstore.errors import DecodeError

__all__ = [
    "INLINE_NBYTES",
    "TAKES_WRITES",
    "Buffer",
    "Encoded",
    "Resident",
    "decode",
    "decode_item",
    "decode_segments",
    "encode",
    "type_name_of",
]

_ENCODERS: dict[type, Callable[[Any], Encoded]] = {
    bytes: raw.encode_bytes,
    bytearray: raw.encode_bytes,
    memoryview: raw.encode_view,
    pa.Buffer: raw.encode_view,
    pa.Table: arrow.encode_table,
    pa.RecordBatch: arrow.encode_batch,
    int: pickled.encode_plain,
    float: pickled.encode_plain,
    bool: pickled.encode_plain,
    str: pickled.encode_plain,
    type(None): pickled.encode_plain,
}


def _encode_array(array: ndarray.Array) -> Encoded:
    return ndarray.encode_array(array) if ndarray.is_flat(array.dtype) else pickled.encode_any(array)


_ENCODERS[np.ndarray] = _encode_array

_DECODERS: dict[int, Callable[[memoryview], Any]] = {
    **pickled.DECODERS,
    **raw.DECODERS,
    **arrow.DECODERS,
    **ndarray.DECODERS,
    TAG_MAPPING: lambda view: mapping.decode_mapping(view, decode),
}


#: The first bytes of encodings whose values show them, and write to them if they may. Of all others copies are decoded,
#: or what can't be changed, as Arrow's tables can't.
TAKES_WRITES = frozenset({TAG_ARRAY, TAG_BUFFER, TAG_MAPPING, TAG_MEMORYVIEW, TAG_PICKLE_BUFFERS})


def encode(value: Any, resident: Resident | None = None) -> Encoded:
    """The flat encoding of ``value``, measured and ready to be written.

    Parameters
    ----------
    value : object
        Anything that pickle or cloudpickle can take. It must not be changed until it is written.
    resident : Resident, optional
        Memory whose data needn't be written: a value that shows much of it is encoded so that it can stay there.

    Returns
    -------
    Encoded
        ``nbytes`` is exact. The data of arrays and tables has not been copied yet.

    Raises
    ------
    Exception
        Whatever pickling ``value`` raises.

    Examples
    --------
    >>> decode(encode({"x": 1}).to_bytes())
    {'x': 1}
    """
    if isinstance(value, dict) and (encoded := _encode_mapping(value, resident)) is not None:
        return encoded
    encoder = _ENCODERS.get(type(value))
    if encoder is None or (resident is not None and resident.has_much_of(value)):
        return pickled.encode_any(value, resident)
    return encoder(value)


def _encode_mapping(value: dict[Any, Any], resident: Resident | None) -> Encoded | None:
    """None where one pickle is better: of other values than arrays and frames, and of ones that can stay in place."""
    stays = False

    def encode_value(value: Any) -> Encoded:
        nonlocal stays
        encoded = encode(value, resident)
        stays = stays or (resident is not None and any(resident.holds(span.address) for span in encoded.spans()))
        return encoded

    encoded = mapping.encode_mapping(value, encode_value)
    return None if stays else encoded


def decode_item(view: memoryview, key: Any) -> Any:
    """``decode(view)[key]``; of a dictionary of arrays and frames only that one is decoded.

    Raises
    ------
    DecodeError
        If the bytes aren't an encoded value, or are damaged.
    Exception
        What looking for the key in the value raises.
    """
    if view.nbytes and view[0] == TAG_MAPPING:
        return mapping.decode_item(view, key, decode)
    return decode(view)[key]


def decode(buffer: Buffer, *, base: object = None) -> Any:
    """The value that ``encode`` flattened, made of read-only views of ``buffer`` wherever that is possible.

    Parameters
    ----------
    buffer : bytes, memoryview or pyarrow.Buffer
        A whole flat encoding. The views hold it; ones of a writable buffer are writable.
    base : object, optional
        Kept alive with the views, for a buffer that doesn't hold its own memory.

    Raises
    ------
    DecodeError
        If the bytes aren't an encoded value, or are damaged.
    UnreadableError
        A class of the value can't be imported here, or refuses to be unpickled.

    Notes
    -----
    Decoding runs code that the bytes name: decode only what comes from a trusted place.
    """
    if base is not None:
        whole = pa.py_buffer(buffer)
        buffer = pa.foreign_buffer(whole.address, whole.size, (base, whole))
    view = buffer if type(buffer) is memoryview else memoryview(buffer)
    try:
        decoder = _DECODERS[view[0]]
    except IndexError:
        raise DecodeError("an empty buffer is not an encoded object") from None
    except KeyError:
        raise DecodeError(
            f"no codec of this version begins with byte 0x{view[0] & 0xFF:02x}: damaged, or newer"
        ) from None
    return decoder(view)
