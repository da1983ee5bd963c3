"""Arrow tables and record batches as Arrow IPC streams, written once, straight to where they stay.

The stream begins 64 bytes after the start of the encoding, and any Arrow implementation can open it.
Arrow's writer cuts most columns to what a slice shows, and ``slices.py`` cuts the others: a few rows of a large table
cost a few rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from holdfast.objectstore.codecs.flat import (
    ALIGNMENT,
    TAG_BATCH,
    TAG_TABLE,
    Encoded,
    body_at_alignment,
)
from holdfast.objectstore.codecs.slices import carries_more, compact
from holdfast.objectstore.errors import DecodeError

_COPY_THREADS = 4


class IpcPart:
    """Record batches that are written as one IPC stream.

    Measuring runs the writer with a sink that only counts, so the size is exact whatever the version.
    """

    __slots__ = ("_batches", "_schema", "nbytes")

    def __init__(self, schema: pa.Schema, batches: list[pa.RecordBatch]) -> None:
        if any(carries_more(field.type) for field in schema):
            columns = (list(map(compact, batch.columns)) for batch in batches)
            batches = [pa.RecordBatch.from_arrays(each, schema=schema) for each in columns]
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


def _open(stream: memoryview | pa.Buffer) -> pa.RecordBatchStreamReader:
    try:
        return pa.ipc.open_stream(pa.py_buffer(stream))
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


def read_table(stream: memoryview | pa.Buffer) -> pa.Table:
    """The table of an IPC stream, in place."""
    with _open(stream) as reader:
        return _reading(reader.read_all)


def read_batch(stream: memoryview | pa.Buffer) -> pa.RecordBatch:
    """The record batch of an IPC stream of one, in place."""
    with _open(stream) as reader:
        return _reading(reader.read_next_batch)


def _reading(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (pa.ArrowException, OSError, StopIteration) as error:
        raise DecodeError(f"a damaged Arrow IPC stream: {error}") from error


DECODERS: dict[int, Callable[[memoryview], Any]] = {
    TAG_TABLE: lambda view: read_table(body_at_alignment(view)),
    TAG_BATCH: lambda view: read_batch(body_at_alignment(view)),
}
