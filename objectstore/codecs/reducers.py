"""How values with buffers take part in a pickle, so that their data is written once and read in place.

Pickle's protocol 5 hands over a ``PickleBuffer`` for each piece of memory that may travel apart. Left to
themselves, the libraries use it less than they could: numpy puts strided arrays and dates into the
pickle; Arrow hands over the *whole* buffers of a five-row slice; polars copies, and so does pandas what it keeps
in Arrow. The reducers here take their place, by exact type, in the pickler's dispatch table.

Some data isn't a piece of memory yet: a strided array has to be gathered, Arrow data serialised. Then
the ``PickleBuffer`` is made of a ``Deferred``, an empty buffer that stands for what is written later; the
pickler hands it back through its ``buffer_callback`` and ``part_of`` recognises it. Arrays and memoryviews are deferred
always: a pickle remembers of a buffer whether it was read-only, and what is put of a view of the store would not be
writable for callers that ask for that (``get(..., writable=True)``).
"""

from __future__ import annotations

import copyreg
import functools
import pickle
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from holdfast.objectstore.codecs import dataframes, ndarray
from holdfast.objectstore.codecs.arrow import IpcPart, read_batch, read_table, table_batches
from holdfast.objectstore.codecs.flat import CopyPart, Part
from holdfast.objectstore.errors import DecodeError
from holdfast.objectstore.pickling.importing import see_to

_Reduced = tuple[Any, ...]
_TYPES_MAX = 256


class Deferred(bytearray):
    """An empty buffer that stands for a part."""

    __slots__ = ("part",)
    part: Part


def _deferred(part: Part) -> pickle.PickleBuffer:
    stand_in = Deferred()
    stand_in.part = part
    return pickle.PickleBuffer(stand_in)


def part_of(buffer: pickle.PickleBuffer) -> Part:
    """What is to be written for a buffer that the pickler put out of band."""
    with memoryview(buffer) as view:
        if type(view.obj) is Deferred:
            return view.obj.part
    return CopyPart(buffer.raw())


# numpy


def _reduce_array(array: ndarray.Array) -> _Reduced:
    dtype = array.dtype
    if not ndarray.is_flat(dtype):
        return array.__reduce_ex__(5)  # type: ignore[return-value]
    order, data = ndarray.data_of(array)
    buffer = _deferred(ndarray.StridedPart(array) if data is None else CopyPart(data))
    return rebuild_array, (buffer, array.shape, ndarray.named(dtype), order)


def rebuild_array(data: Any, shape: tuple[int, ...], dtype: Any, order: ndarray.Order) -> ndarray.Array:
    """An array over ``data``; writable only if that is."""
    try:
        return np.ndarray(shape, dtype, buffer=data, order=order)
    except (TypeError, ValueError) as error:
        raise DecodeError(f"a damaged array: {error}") from error


def _reduce_subclass(array: ndarray.Array) -> _Reduced:
    if not ndarray.is_flat(array.dtype):
        return array.__reduce_ex__(5)  # type: ignore[return-value]
    return rebuild_subclass, (type(array), np.ndarray.view(array, np.ndarray))


def rebuild_subclass(cls: type[ndarray.Array], array: ndarray.Array) -> ndarray.Array:
    """A matrix, a record array or the like over a plain array's data."""
    return array.view(cls)


# masked arrays, once the process has imported numpy.ma


def _reduce_masked(array: Any) -> _Reduced:
    if not ndarray.is_flat(array.dtype):
        return array.__reduce_ex__(5)  # type: ignore[no-any-return]
    mask = np.ma.getmask(array)
    return rebuild_masked, (array.data, None if mask is np.ma.nomask else mask, array._fill_value, array.hardmask)


def rebuild_masked(data: ndarray.Array, mask: ndarray.Array | None, fill_value: Any, hard: bool) -> ndarray.Array:
    """A masked array over its data and its mask."""
    shown = np.ma.nomask if mask is None else mask
    return np.ma.MaskedArray(data, shown, fill_value=fill_value, keep_mask=False, hard_mask=hard)


# memoryview


_CASTABLE = frozenset("bBhHiIlLqQnNfdc?P")


def _reduce_view(view: memoryview) -> _Reduced:
    if view.format not in _CASTABLE:
        return memoryview, (np.asarray(view),)
    data = pickle.PickleBuffer(view if view.c_contiguous else view.tobytes()).raw()
    return rebuild_view, (_deferred(CopyPart(data)), view.format, view.shape)


def rebuild_view(data: Any, format: str, shape: tuple[int, ...]) -> memoryview:
    """A memoryview over ``data`` with the format and shape it had."""
    flat = memoryview(data).cast("B")
    try:
        if 0 in shape:
            return flat if format == "B" else flat.cast(format)  # type: ignore[call-overload]
        return flat.cast(format, shape)  # type: ignore[call-overload, no-any-return]
    except TypeError as error:
        raise DecodeError(f"a damaged memoryview: {error}") from error


# Arrow


def _stream(schema: pa.Schema, batches: list[pa.RecordBatch]) -> pickle.PickleBuffer:
    return _deferred(IpcPart(schema, batches))


def reduce_table(table: pa.Table) -> _Reduced:
    """A table as one stream."""
    return read_table, (_stream(table.schema, table_batches(table)),)


def reduce_batch(batch: pa.RecordBatch) -> _Reduced:
    """A record batch as one stream."""
    return read_batch, (_stream(batch.schema, [batch]),)


def reduce_arrow_array(array: pa.Array) -> _Reduced:
    """An array as one stream."""
    return rebuild_arrow_array, (_columns(array.type, [array]),)


def reduce_chunked(array: pa.ChunkedArray) -> _Reduced:
    """A chunked array as one stream."""
    return rebuild_chunked, (_columns(array.type, array.chunks),)


def _columns(data_type: pa.DataType, arrays: list[pa.Array]) -> pickle.PickleBuffer:
    schema = pa.schema([pa.field("", data_type)])
    return _stream(schema, [pa.RecordBatch.from_arrays([array], schema=schema) for array in arrays])


def _reduce_tensor(tensor: pa.Tensor) -> _Reduced:
    return pa.Tensor.from_numpy, (tensor.to_numpy(), list(tensor.dim_names) or None)


def rebuild_arrow_array(data: Any) -> pa.Array:
    """An array over an IPC stream of one batch with one column."""
    return read_batch(data).column(0)


def rebuild_chunked(data: Any) -> pa.ChunkedArray:
    """A chunked array over an IPC stream with one column."""
    return read_table(data).column(0)


def _classes_below(cls: type) -> list[type]:
    children: list[type] = cls.__subclasses__()
    return [cls, *(below for child in children for below in _classes_below(child))]


ARRAY_TYPES = _classes_below(pa.Array)


# polars, once the process has imported it


def _reduce_frame(frame: Any) -> _Reduced:
    if all(map(_arrow_keeps, frame.dtypes)):
        return rebuild_frame, (_polars_arrow(frame),)
    return type(frame), (frame.get_columns(),)


def _reduce_series(series: Any) -> _Reduced:
    if _arrow_keeps(series.dtype):
        return rebuild_series, (series.name, _polars_arrow(series))
    return series.__reduce_ex__(5)  # type: ignore[no-any-return]


def _polars_arrow(value: Any) -> Any:
    return value.to_arrow(compat_level=sys.modules["polars"].CompatLevel.newest())


@functools.lru_cache(_TYPES_MAX)
def _arrow_keeps(dtype: Any) -> bool:
    """Whether a polars type is the same after a way through Arrow: not an enumeration, say, or 128-bit integers."""
    empty = sys.modules["polars"].Series("", [], dtype)
    try:
        return bool(rebuild_series("", _polars_arrow(empty)).dtype == dtype)
    except (pa.ArrowException, TypeError, ValueError):
        return False


def rebuild_frame(table: pa.Table) -> Any:
    """A polars frame over an Arrow table."""
    see_to("polars")  # only where a frame is unpickled
    import polars

    return polars.from_arrow(table)


def rebuild_series(name: str, array: pa.Array) -> Any:
    """A polars series over an Arrow array."""
    see_to("polars")  # only where a series is unpickled
    import polars

    return polars.Series(name, array)


# pandas, once the process has imported it


def _reduce_extension(array: Any) -> _Reduced:
    # Its own way into a pickle joins the chunks, which copies the data, of one chunk as well.
    return rebuild_extension, (type(array), {**array.__dict__, "_cache": {}})


def rebuild_extension(cls: Any, state: dict[str, Any]) -> Any:
    """An Arrow-backed array of pandas over its Arrow data."""
    array = cls.__new__(cls)
    array.__dict__.update(state)
    return array


def _chararray() -> tuple[type, ...]:
    """The class that numpy is about to drop, and warns of when it's named, as long as it is there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        chararray = getattr(np.char, "chararray", None)
    return () if chararray is None else (chararray,)


REDUCERS: dict[type, Callable[[Any], _Reduced]] = {
    np.ndarray: _reduce_array,
    **dict.fromkeys((np.matrix, np.recarray, np.memmap, *_chararray()), _reduce_subclass),
    memoryview: _reduce_view,
    pa.Table: reduce_table,
    pa.RecordBatch: reduce_batch,
    pa.ChunkedArray: reduce_chunked,
    pa.Tensor: _reduce_tensor,
    **dict.fromkeys(ARRAY_TYPES, reduce_arrow_array),
}


_merged: dict[type, Callable[[Any], Any]] = {}
_merged_from = (0, 0)


def dispatch_table() -> dict[type, Callable[[Any], Any]]:
    """What a pickler consults: ``copyreg``'s entries of the moment, and the reducers here."""
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    if masked is not None and masked not in REDUCERS:
        REDUCERS[masked] = _reduce_masked
    polars = sys.modules.get("polars")
    if polars is not None and polars.DataFrame not in REDUCERS:
        REDUCERS[polars.DataFrame] = _reduce_frame
        REDUCERS[polars.Series] = _reduce_series
    pandas = sys.modules.get("pandas")
    arrays = getattr(pandas, "arrays", None)
    if arrays is not None and arrays.ArrowExtensionArray not in REDUCERS:
        REDUCERS.update(dict.fromkeys(_classes_below(arrays.ArrowExtensionArray), _reduce_extension))
    frame_type = getattr(pandas, "DataFrame", None)
    if frame_type is not None and frame_type not in REDUCERS and (reduce := dataframes.reducer()) is not None:
        REDUCERS[frame_type] = reduce
    # Nothing is ever taken out of either, so their sizes tell whether the merged table is still right.
    global _merged, _merged_from
    sizes = len(copyreg.dispatch_table), len(REDUCERS)
    if _merged_from != sizes:
        _merged, _merged_from = {**copyreg.dispatch_table, **REDUCERS}, sizes
    return _merged
