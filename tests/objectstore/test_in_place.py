"""What ``get`` gives is made of the arena's own memory, whatever the type; else what holds instead."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from same import assert_same

from holdfast.objectstore import Store

polars = pytest.importorskip("polars")
sparse = pytest.importorskip("scipy.sparse")

N = 600
FLOATS = np.arange(4.0 * N)
TEXTS = [f"a text of more than twelve bytes: {i}" for i in range(N)]
RECORD = np.dtype([("a", "i4"), ("b", [("x", "f8"), ("y", "U3")]), ("c", "f4", (2, 2)), ("d", "M8[ns]")])


@dataclasses.dataclass
class Sample:
    name: str
    values: Any


class Pair(collections.namedtuple("Pair", "left right")):
    __slots__ = ()


class Metres(pa.ExtensionType):
    """An extension type as a user writes one."""

    def __init__(self) -> None:
        super().__init__(pa.int64(), "holdfast.tests.metres")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Metres:
        return cls()


@pytest.fixture(scope="module", autouse=True)
def _extension_type() -> Iterator[None]:
    pa.register_extension_type(Metres())
    yield
    pa.unregister_extension_type("holdfast.tests.metres")


# Where data lies


def memory_of(value: Any) -> Iterator[tuple[int, int]]:
    """The address and the size of each piece of memory that a value's data lies in. Fails where that can't be told."""
    if isinstance(value, np.ma.MaskedArray):
        yield from memory_of(value.data)
        yield from memory_of(value.mask)
    elif isinstance(value, np.ndarray):
        assert not value.dtype.hasobject
        yield value.__array_interface__["data"][0], value.nbytes
    elif isinstance(value, memoryview):
        yield from memory_of(np.frombuffer(value.cast("B"), np.uint8))
    elif isinstance(value, pa.Buffer):
        yield value.address, value.size
    elif isinstance(value, pa.Tensor):
        yield from memory_of(value.to_numpy())
    elif isinstance(value, (pa.Table, pa.RecordBatch, pa.ChunkedArray)):
        for part in value.chunks if isinstance(value, pa.ChunkedArray) else value.columns:
            yield from memory_of(part)
    elif isinstance(value, pa.Array):
        yield from ((buffer.address, buffer.size) for buffer in value.buffers() if buffer is not None)
        if isinstance(value, pa.DictionaryArray):
            yield from memory_of(value.dictionary)
    elif isinstance(value, collections.abc.Mapping):
        for item in value.values():
            yield from memory_of(item)
    elif isinstance(value, (list, tuple, collections.deque)):
        for item in value:
            yield from memory_of(item)
    elif isinstance(value, Sample):
        yield from memory_of(value.values)
    elif value is None or isinstance(value, (pd.RangeIndex, np.bool)):
        return
    else:
        yield from _memory_of_library(value)


def _memory_of_library(value: Any) -> Iterator[tuple[int, int]]:
    if isinstance(value, pd.DataFrame):
        yield from memory_of([value[name].array for name in value])
        yield from memory_of(value.index)
    elif isinstance(value, pd.Series):
        yield from memory_of([value.array, value.index])
    elif isinstance(value, pd.MultiIndex):
        yield from memory_of([*value.levels, *map(np.asarray, value.codes)])
    elif isinstance(value, pd.Categorical):
        yield from memory_of([value.codes, value.categories])
    elif isinstance(value, (pd.IntervalIndex, pd.arrays.IntervalArray)):
        yield from memory_of([value.left, value.right])
    elif isinstance(value, pd.Index):
        yield from memory_of(value.array)
    elif isinstance(value, pd.arrays.SparseArray):
        yield from memory_of([value.sp_values, value.sp_index.indices])
    elif isinstance(value, pd.api.extensions.ExtensionArray):
        parts = [getattr(value, name, None) for name in ("_pa_array", "_data", "_mask", "_ndarray")]
        assert any(part is not None for part in parts)
        yield from memory_of(parts)
    elif sparse.issparse(value):
        names = ("data", "indices", "indptr", "offsets", "row", "col")
        yield from memory_of([getattr(value, name) for name in names if hasattr(value, name)])
    elif isinstance(value, polars.DataFrame):
        yield from memory_of(value.get_columns())
    elif isinstance(value, polars.Series):
        yield from memory_of(value.to_arrow(compat_level=polars.CompatLevel.newest()))
    else:
        raise TypeError(f"where does a {type(value)} keep its data?")


# What is read in place


def arrays() -> dict[str, Any]:
    dtypes = [*"?bHiQefdgFDG", ">i4", ">f8", "S7", "U3", ">U2", "M8[ns]", ">M8[s]", "m8[us]"]
    square = FLOATS.reshape(60, -1)
    offsets = np.dtype({"names": ["a", "b"], "formats": ["i4", "f8"], "offsets": [8, 0], "itemsize": 32})
    return {
        **{f"array of {dtype}": np.ones(N).astype(dtype) for dtype in dtypes},
        "array of V5": np.zeros(N, "V5"),
        "array of records": np.zeros(N, RECORD),
        "array of padded records": np.zeros(N, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        "array of records with offsets": np.zeros(N, offsets),
        "array of a field": np.zeros(N, RECORD)["b"],
        "array with metadata": np.zeros(N, np.dtype("i4", metadata={"unit": "m"})),
        "Fortran order": np.asfortranarray(square),
        "transposed": FLOATS.reshape(10, 20, -1).transpose(2, 0, 1),
        "strided": square[::2, ::3],
        "backwards": FLOATS[::-1],
        "broadcast": np.broadcast_to(FLOATS, (3, FLOATS.size)),
        "no dimensions": np.array(5.0),
        "masked": np.ma.array(FLOATS, mask=FLOATS % 2 == 0, fill_value=-1),
        "masked records": np.ma.zeros(N, RECORD),
        "not masked anywhere": np.ma.array(FLOATS),
        "matrix": np.matrix(square),
        "strided matrix": np.matrix(square)[:, ::2],
        "record array": np.rec.array(np.zeros(N, RECORD)),
    }


def pandas_values() -> dict[str, Any]:
    hours = pd.date_range("2020", periods=N, freq="h", tz="Europe/Berlin")
    columns = {
        "bool": FLOATS[:N] % 2 == 0,
        "int": np.arange(N),
        "float": FLOATS[:N],
        "text": TEXTS,
        "datetime": pd.date_range("2020", periods=N),
        "datetime with a zone": hours,
        "timedelta": pd.timedelta_range("1s", periods=N),
        "categorical": pd.Categorical(["u", "v"] * (N // 2)),
        "Int64": pd.array([1, None] * (N // 2), dtype="Int64"),
        "boolean": pd.array([True, None] * (N // 2), dtype="boolean"),
        "Float64": pd.array([1.5, None] * (N // 2), dtype="Float64"),
        "string": pd.array(TEXTS, dtype="string[pyarrow]"),
        "Arrow text": pd.array(TEXTS, dtype=pd.ArrowDtype(pa.string())),
        "Arrow numbers": pd.array(range(N), dtype="int64[pyarrow]"),
        "Arrow lists": pd.array([[1, 2]] * N, dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
        "period": pd.period_range("2020", periods=N, freq="D"),
        "interval": pd.interval_range(0, N),
        "sparse": pd.arrays.SparseArray([0, 1.0] * (N // 2)),
    }
    frame = pd.DataFrame(columns)
    values = {f"series of {name}": pd.Series(column) for name, column in columns.items()}
    values |= {f"index of {name}": pd.Index(column) for name, column in columns.items()}
    del values["index of interval"]  # see below
    return values | {
        "range index": pd.Series(FLOATS),
        "frame of many kinds": frame,
        "slice of such a frame": frame.iloc[10:500],
        "frame by time": frame.set_index(hours),
        "frame of one block": pd.DataFrame(FLOATS.reshape(-1, 4)),
        "every second row": pd.DataFrame(FLOATS.reshape(-1, 4)).iloc[::2],
        "frame with levels": pd.DataFrame({"x": FLOATS[:N]}, index=pd.MultiIndex.from_arrays([hours, TEXTS, range(N)])),
    }


def arrow_arrays() -> dict[str, pa.Array]:
    numbers, texts = pa.array(range(N)), pa.array(TEXTS)
    views = texts.cast(pa.string_view())
    codes = pa.array([0, 1] * (N // 2), pa.int8())
    halves = pa.array(np.arange(N) // 2, pa.int32())
    starts = pa.array(range(N + 1), pa.int32())
    ends = pa.array(range(2, 2 * N + 2, 2), pa.int32())
    pairs = [[1, 2]] * N
    arrays = {
        "bool": pa.array([True, None] * (N // 2)),
        "int16": numbers.cast(pa.int16()),
        "half": pa.array(np.zeros(N, "f2")),
        "string": texts,
        "large_string": texts.cast(pa.large_string()),
        "string_view": views,
        "binary": texts.cast(pa.binary()),
        "large_binary": texts.cast(pa.large_binary()),
        "binary_view": texts.cast(pa.binary_view()),
        "fixed binary": pa.array([b"abcd"] * N, pa.binary(4)),
        "list": pa.array(pairs),
        "large_list": pa.array(pairs, pa.large_list(pa.int64())),
        "list_view": pa.array(pairs, pa.list_view(pa.int64())),
        "large_list_view": pa.array(pairs, pa.large_list_view(pa.int64())),
        "fixed list": pa.array(pairs, pa.list_(pa.int64(), 2)),
        "struct": pa.array([{"a": 1, "b": "x"}, None] * (N // 2)),
        "map": pa.array([[("a", 1)]] * N, pa.map_(pa.string(), pa.int64())),
        "dictionary": texts.dictionary_encode(),
        "run-end": pa.RunEndEncodedArray.from_arrays(ends, numbers),
        "sparse union": pa.UnionArray.from_sparse(codes, [numbers, texts]),
        "dense union": pa.UnionArray.from_dense(codes, halves, [numbers, texts]),
        "decimal": pa.array([decimal.Decimal("1.5"), None] * (N // 2)),
        "decimal256": pa.array([decimal.Decimal("1.5")] * N, pa.decimal256(50, 3)),
        "timestamp": numbers.cast(pa.timestamp("us", "UTC")),
        "date": pa.array([datetime.date(2020, 1, 1)] * N),
        "time": numbers.cast(pa.time64("ns")),
        "duration": numbers.cast(pa.duration("ns")),
        "interval": pa.array([(1, 2, 3)] * N, pa.month_day_nano_interval()),
        "extension": pa.ExtensionArray.from_storage(Metres(), numbers),
        "tensors": pa.FixedShapeTensorArray.from_numpy_ndarray(FLOATS.reshape(N, 2, 2)),
        "list of string_view": pa.ListArray.from_arrays(starts, views),
        "list_view of string_view": pa.ListViewArray.from_arrays(starts[:-1], pa.array([1] * N, pa.int32()), views),
        "fixed list of string_view": pa.FixedSizeListArray.from_arrays(views, 1),
        "struct of string_view": pa.StructArray.from_arrays([views], ["x"]),
        "map of string_view": pa.MapArray.from_arrays(starts, views, views),
        "dictionary of string_view": pa.DictionaryArray.from_arrays(pa.array(range(N)), views),
        "run-end of string_view": pa.RunEndEncodedArray.from_arrays(ends, views),
        "sparse union of string_view": pa.UnionArray.from_sparse(codes, [numbers, views]),
        "dense union of string_view": pa.UnionArray.from_dense(codes, halves, [numbers, views]),
        "list of dictionary": pa.ListArray.from_arrays(starts, texts.dictionary_encode()),
    }
    return {f"Arrow {name}": array for name, array in arrays.items()}


def arrow_values() -> dict[str, Any]:
    arrays = arrow_arrays()
    table = pa.table({name: array.slice(0, N) for name, array in arrays.items()})
    return {
        **arrays,
        **{f"slice of {name}": array.slice(17, 100) for name, array in arrays.items()},
        "table": table,
        "slice of a table": table.slice(10, 300),
        "record batch": table.to_batches()[0],
        "chunks": pa.chunked_array([FLOATS, FLOATS[5:100]]),
        "tensor": pa.Tensor.from_numpy(FLOATS.reshape(60, -1)),
        "tensor in Fortran order": pa.Tensor.from_numpy(FLOATS.reshape(60, -1).T),
        "buffer": pa.py_buffer(FLOATS),
    }


def other_values() -> dict[str, Any]:
    matrix = sparse.random(60, 60, 0.2, "csr", random_state=1)
    formats = ("csr", "csc", "coo", "bsr", "dia")
    square = FLOATS.reshape(60, -1)
    columns = {
        "int": range(N),
        "float": FLOATS[:N],
        "text": TEXTS,
        "bool": [True, None] * (N // 2),
        "list": [[1]] * N,
        "datetime": [datetime.datetime(2020, 1, 1)] * N,
        "time": [datetime.time(1)] * N,
        "struct": [{"x": 1}] * N,
        "decimal": [decimal.Decimal("1.5")] * N,
        "array": polars.Series([[1, 2]] * N, dtype=polars.Array(polars.Int64, 2)),
        "binary": [text.encode() for text in TEXTS],
    }
    return {
        **{f"{name} matrix": matrix.asformat(name) for name in formats},
        **{f"{name} array": sparse.csr_array(matrix).asformat(name) for name in formats},
        **{f"polars series of {name}": polars.Series("s", column) for name, column in columns.items()},
        "polars frame": polars.DataFrame({name: column for name, column in columns.items() if name != "decimal"}),
        "memoryview": memoryview(bytes(N)),
        "memoryview of numbers": memoryview(FLOATS),
        "memoryview in rows": memoryview(square),
        "memoryview in Fortran order": memoryview(square.T),
        "memoryview with gaps": memoryview(FLOATS)[::2],
        **{f"memoryview of {t}": memoryview(np.ones(N).astype(t)) for t in ("?", ">i4", "f2", "c16", "U2", "i1")},
        "memoryview of records": memoryview(np.zeros(N, [("a", "i4"), ("b", "f8")])),
        "dict": {"array": FLOATS, "list": [pd.Series(FLOATS), (arrow_arrays()["Arrow string"],)]},
        "dataclass": Sample("x", [FLOATS, memoryview(FLOATS)]),
        "named tuple": Pair(FLOATS, {"matrix": matrix}),
        "deque": collections.deque([FLOATS, np.ma.array(FLOATS, mask=True)]),
    }


VALUES = arrays() | pandas_values() | arrow_values() | other_values()


@pytest.mark.parametrize("name", VALUES)
def test_data_is_read_in_place(store: Store, name: str) -> None:
    value = VALUES[name]
    back = store.get(store.put(value))
    assert type(back) is type(value)
    pieces = [(address, nbytes) for address, nbytes in memory_of(back) if nbytes]
    assert pieces
    for address, nbytes in pieces:
        assert store.address_in_arena(address)
        assert store.address_in_arena(address + nbytes - 1)


@pytest.mark.parametrize("name", VALUES)
def test_what_is_read_in_place_is_what_was_put(store: Store, name: str) -> None:
    value = VALUES[name]
    back = store.get(store.put(value))
    assert_same(back, value)


def test_metadata_is_kept_apart_from_equal_types_without_it(store: Store) -> None:
    plain, described = np.zeros(3, "i4"), VALUES["array with metadata"][:3]
    for value in (plain, described, plain, described):
        assert store.get(store.put(value)).dtype.metadata == value.dtype.metadata


def test_renaming_the_fields_of_one_view_changes_no_other(store: Store) -> None:
    object_id = store.put(np.zeros(3, [("a", "i4")]))
    store.get(object_id).dtype.names = ("z",)
    assert store.get(object_id).dtype.names == ("a",)


def test_a_map_of_a_file_is_stored_with_its_data(store: Store, tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "numbers", "f8", "w+", shape=(N,))
    mapped[:] = FLOATS[:N]
    for value in (mapped, mapped[::2]):
        back = store.get(store.put(value))
        assert isinstance(back, np.memmap)
        assert np.array_equal(back, value)
        assert store.address_in_arena(back.__array_interface__["data"][0])


# What can't be


def test_pandas_copies_one_side_of_an_index_of_intervals(store: Store) -> None:
    """It does so whenever both sides lie in one piece of memory, as two parts of an object do."""
    index = pd.interval_range(0, N)
    back = store.get(store.put(index))
    pd.testing.assert_index_equal(back, index)
    assert all(store.address_in_arena(address) for address, _ in memory_of(back.left))


def test_polars_copies_the_decimals_of_a_frame(store: Store) -> None:
    frame = polars.DataFrame({"price": [decimal.Decimal("1.5")] * N, "number": range(N)})
    back = store.get(store.put(frame))
    assert back.equals(frame)
    assert all(store.address_in_arena(address) for address, _ in memory_of(back["number"]))


def test_bytes_own_their_memory_so_they_are_copied(store: Store) -> None:
    for value in (b"x" * 5000, bytearray(b"x" * 5000)):
        back = store.get(store.put(value))
        assert type(back) is type(value)
        assert back == value
        assert not store.address_in_arena(pa.py_buffer(back).address)


def test_objects_are_made_anew(store: Store) -> None:
    values = np.array([1, "two", None, (3,)], object)
    assert store.get(store.put(values)).tolist() == values.tolist()
    texts = pd.Series(["a", None, "b"], dtype=object)
    pd.testing.assert_series_equal(store.get(store.put(texts)), texts)
    masked = np.ma.array([1, "two"], mask=[0, 1], dtype=object)
    assert store.get(store.put(masked)).tolist() == masked.tolist()


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="numpy before 2")
def test_numpys_strings_of_any_length_are_made_anew(store: Store) -> None:
    texts = np.array(TEXTS, np.dtypes.StringDType())
    back = store.get(store.put(texts))
    assert back.dtype == texts.dtype
    assert back.tolist() == TEXTS


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0, 2)])
def test_what_has_no_bytes_keeps_its_type_and_shape(store: Store, shape: tuple[int, ...]) -> None:
    for dtype in ("f8", "M8[D]", "U3", RECORD):
        value = np.zeros(shape, dtype)
        back = store.get(store.put(value))
        assert (back.dtype, back.shape) == (value.dtype, shape)
    view = memoryview(np.zeros(shape, "i2"))
    assert store.get(store.put(view)).format == "h"
    assert store.get(store.put(memoryview(b""))) == b""
    assert store.get(store.put(pa.nulls(5))).equals(pa.nulls(5))


def test_what_polars_keeps_its_own_way_keeps_its_type(store: Store) -> None:
    texts = ["a", "b"] * (N // 2)
    columns = [
        polars.Series("enumeration", texts, polars.Enum(["b", "a"])),
        polars.Series("categorical", texts, polars.Categorical),
        polars.Series("within", [[text] for text in texts], polars.List(polars.Enum(["a", "b"]))),
        polars.Series("wide", range(N), polars.Int128),
    ]
    frame = polars.DataFrame([*columns, polars.Series("number", FLOATS[:N])])
    for value in (*columns, frame):
        back = store.get(store.put(value))
        assert back.equals(value)
    back = store.get(store.put(frame))
    assert back.dtypes == frame.dtypes
    assert all(store.address_in_arena(address) for address, nbytes in memory_of(back["number"]))
    with pytest.raises(polars.exceptions.ComputeError, match="Object"):
        store.put(polars.Series("objects", [object()], polars.Object))
