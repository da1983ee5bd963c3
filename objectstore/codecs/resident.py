"""Data that lies in the store already, and stays there when a value that shows it is put.

Such a value is pickled with its buffers out of band, whatever its type: of that encoding each large buffer can lie
where it likes (``pickled.decode_segments``). numpy arrays and whatever is made of them are pickled so anyhow. Arrow
data is written as IPC streams elsewhere; where much of it is resident it's taken apart instead (``columns.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from holdfast.objectstore.codecs import ndarray, reducers
from holdfast.objectstore.codecs.columns import Node, put_together, take_apart
from holdfast.objectstore.codecs.flat import SHARE_NBYTES

_Table = dict[type, Callable[[Any], Any]]


class Resident:
    """The memory of this process whose data stays where it is.

    Parameters
    ----------
    holds : callable
        Whether an address is in it.
    """

    def __init__(self, holds: Callable[[int], bool]) -> None:
        self.holds = holds
        self.reducers: _Table = {
            pa.Table: self._reduce_table,
            pa.RecordBatch: self._reduce_batch,
            pa.ChunkedArray: self._reduce_chunked,
            **dict.fromkeys(reducers.ARRAY_TYPES, self._reduce_array),
        }
        self._dispatch_table: _Table = {}
        self._made_from: _Table | None = None

    def has_much_of(self, value: Any) -> bool:
        """Whether an array, a table or plain memory shows so much of it that it is worth to pickle it for that."""
        kind = type(value)
        if kind is np.ndarray:
            if value.nbytes < SHARE_NBYTES or not ndarray.is_flat(value.dtype):
                return False
            _, data = ndarray.data_of(value)
            return data is not None and self.holds(pa.py_buffer(data).address)
        if kind is pa.Table:
            return any(map(self._has_much_of_column, value.columns))
        if kind is pa.RecordBatch:
            return any(map(self._has_much_of_array, value.columns))
        if kind is memoryview:
            return value.nbytes >= SHARE_NBYTES and value.c_contiguous and self.holds(pa.py_buffer(value).address)
        return kind is pa.Buffer and value.size >= SHARE_NBYTES and self.holds(value.address)

    def dispatch_table(self) -> _Table:
        """What a pickler consults: as ``reducers.dispatch_table``, but for Arrow data."""
        plain = reducers.dispatch_table()
        if self._made_from is not plain:
            self._dispatch_table, self._made_from = {**plain, **self.reducers}, plain
        return self._dispatch_table

    def _has_much_of_column(self, column: pa.ChunkedArray) -> bool:
        return any(map(self._has_much_of_array, column.chunks))

    def _has_much_of_array(self, array: pa.Array) -> bool:
        # A slice has the buffers of the whole array. What it shows of them is measured last, since that takes longest.
        if not any(
            buffer is not None and buffer.size >= SHARE_NBYTES and self.holds(buffer.address)
            for buffer in array.buffers()
        ):
            return isinstance(array, pa.DictionaryArray) and self._has_much_of_array(array.dictionary)
        return bool(array.nbytes >= SHARE_NBYTES)

    def _reduce_table(self, table: pa.Table) -> Any:
        if not self.has_much_of(table):
            return reducers.reduce_table(table)
        columns = [[take_apart(chunk) for chunk in column.chunks] for column in table.columns]
        return rebuild_table, (table.schema, columns)

    def _reduce_batch(self, batch: pa.RecordBatch) -> Any:
        if not self.has_much_of(batch):
            return reducers.reduce_batch(batch)
        return rebuild_batch, (batch.schema, list(map(take_apart, batch.columns)))

    def _reduce_chunked(self, array: pa.ChunkedArray) -> Any:
        if not self._has_much_of_column(array):
            return reducers.reduce_chunked(array)
        return rebuild_chunked, (array.type, list(map(take_apart, array.chunks)))

    def _reduce_array(self, array: pa.Array) -> Any:
        node = take_apart(array) if self._has_much_of_array(array) else array
        return reducers.reduce_arrow_array(array) if node is array else (put_together, (array.type, node))


def rebuild_chunked(data_type: pa.DataType, chunks: list[Node]) -> pa.ChunkedArray:
    """A chunked array of its chunks' nodes."""
    return pa.chunked_array([put_together(data_type, chunk) for chunk in chunks], data_type)


def rebuild_table(schema: pa.Schema, columns: list[list[Node]]) -> pa.Table:
    """A table of its columns' nodes."""
    return pa.Table.from_arrays(list(map(rebuild_chunked, schema.types, columns)), schema=schema)


def rebuild_batch(schema: pa.Schema, columns: list[Node]) -> pa.RecordBatch:
    """A record batch of its columns' nodes."""
    return pa.RecordBatch.from_arrays(list(map(put_together, schema.types, columns)), schema=schema)
