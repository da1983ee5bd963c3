"""Arrow tables and record batches as Arrow IPC streams, written once, straight to where they stay.

The stream begins 64 bytes after the start of the encoding, and any Arrow implementation can open it.
Arrow's writer cuts every column to what a slice shows, so a few rows of a large table cost a few rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from holdfast.objectstore.codecs.flat import (
    ALIGNMENT,
    TAG_BATCH,
    TAG_TABLE,
    Encoded,
    body_at_alignment,
)
from holdfast.objectstore.errors import DecodeError

_COPY_THREADS = 4
_SLACK_NBYTES = 4096


def has_view_type(data_type: pa.DataType) -> bool:
    """Whether a type holds string or binary views anywhere, which IPC writes with all of their buffers."""
    if pa.types.is_string_view(data_type) or pa.types.is_binary_view(data_type):
        return True
    if pa.types.is_dictionary(data_type):
        return has_view_type(data_type.value_type)
    if isinstance(data_type, pa.BaseExtensionType):
        return has_view_type(data_type.storage_type)
    return any(has_view_type(data_type.field(i).type) for i in range(data_type.num_fields))


def _compact(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with the long strings of its view columns gathered, where it refers to far more than it shows."""
    return pa.RecordBatch.from_arrays([_gathered(column) for column in batch.columns], schema=batch.schema)


def _gathered(column: pa.Array) -> pa.Array:
    wide = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(column.type)
    if wide is None:
        return column
    # A view is sixteen bytes, of which the first four are the length; those up to twelve lie in the view itself.
    lengths = np.frombuffer(column.buffers()[1], np.int32)[4 * column.offset : 4 * (column.offset + len(column)) : 4]
    shown = 16 * len(column) + int(lengths[lengths > 12].sum(dtype=np.int64))
    if column.get_total_buffer_size() <= 2 * shown + _SLACK_NBYTES:
        return column
    return column.cast(wide).cast(column.type)


class IpcPart:
    """Record batches that are written as one IPC stream.

    Measuring runs the writer with a sink that only counts, so the size is exact whatever the version.
    """

    __slots__ = ("_batches", "_schema", "nbytes")

    def __init__(self, schema: pa.Schema, batches: list[pa.RecordBatch]) -> None:
        if any(has_view_type(field.type) for field in schema):
            batches = [_compact(batch) for batch in batches]
        self._schema = schema
        self._batches = batches
        counter = pa.MockOutputStream()
        self._write(counter)
        self.nbytes: int = counter.size()

    def write_into(self, target: memoryview) -> None:
        """Fills ``target`` with the stream."""
        with pa.FixedSizeBufferWriter(pa.py_buffer(target)) as sink:
            sink.set_memcopy_threads(_COPY_THREADS)
            self._write(sink)

    def _write(self, sink: Any) -> None:
        with pa.ipc.new_stream(sink, self._schema) as writer:
            for batch in self._batches:
                writer.write_batch(batch)


def open_stream(view: memoryview | pa.Buffer) -> pa.RecordBatchStreamReader:
    """A reader of the stream in ``view``; what it reads are views in place."""
    try:
        return pa.ipc.open_stream(pa.py_buffer(view))
    except (pa.ArrowException, OSError) as error:
        raise DecodeError(f"not an Arrow IPC stream: {error}") from error


def _encode(tag: int, schema: pa.Schema, batches: list[pa.RecordBatch], name: str) -> Encoded:
    part = IpcPart(schema, batches)
    return Encoded(bytes([tag]), [(ALIGNMENT, part)], nbytes=ALIGNMENT + part.nbytes, type_name=name)


def table_batches(table: pa.Table) -> list[pa.RecordBatch]:
    """The table's chunks. A table without columns has none, but may have rows: one empty batch says how many."""
    if table.num_columns == 0 and table.num_rows:
        rows = pa.StructArray.from_buffers(pa.struct([]), table.num_rows, [None])
        return [pa.RecordBatch.from_struct_array(rows).replace_schema_metadata(table.schema.metadata)]
    return table.to_batches()  # type: ignore[no-any-return]


def encode_table(table: pa.Table) -> Encoded:
    """A table as an IPC stream."""
    return _encode(TAG_TABLE, table.schema, table_batches(table), "pyarrow.Table")


def encode_batch(batch: pa.RecordBatch) -> Encoded:
    """A record batch as an IPC stream of one."""
    return _encode(TAG_BATCH, batch.schema, [batch], "pyarrow.RecordBatch")


def decode_table(view: memoryview) -> pa.Table:
    """The table, in place."""
    with open_stream(body_at_alignment(view)) as reader:
        return _reading(reader.read_all)


def decode_batch(view: memoryview) -> pa.RecordBatch:
    """The record batch, in place."""
    with open_stream(body_at_alignment(view)) as reader:
        return _reading(reader.read_next_batch)


def _reading(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (pa.ArrowException, OSError, StopIteration) as error:
        raise DecodeError(f"a damaged Arrow IPC stream: {error}") from error


DECODERS: dict[int, Callable[[memoryview], Any]] = {TAG_TABLE: decode_table, TAG_BATCH: decode_batch}
