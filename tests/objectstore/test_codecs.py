"""Values and their flat encodings, without a store."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from holdfast.objectstore import DecodeError, decode, encode

TABLE = pa.table(
    {
        "number": pa.array(range(10_000), pa.int64()),
        "text": [f"row {i}" for i in range(10_000)],
        "flag": [i % 3 == 0 if i % 7 else None for i in range(10_000)],
        "list": [[i, i + 1] for i in range(10_000)],
        "category": pa.array([str(i % 5) for i in range(10_000)]).dictionary_encode(),
    }
)


def round_trip(value: Any) -> Any:
    encoded = encode(value)
    flat = encoded.to_bytes()
    assert len(flat) == encoded.nbytes
    return decode(flat)


ARRAYS = {
    "plain": np.arange(24.0).reshape(4, 6),
    "fortran": np.asfortranarray(np.arange(24.0).reshape(4, 6)),
    "transposed": np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
    "strided": np.arange(100)[3:90:7],
    "backwards": np.arange(10)[::-1],
    "broadcast": np.broadcast_to(np.arange(3), (4, 3)),
    "structured": np.array([(1, 2.5, "ab")], [("a", "i4"), ("b", "f8"), ("c", "U2")]),
    "padded": np.zeros(3, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "subarray": np.zeros(3, [("m", "f4", (2, 2))]),
    "dates": np.array(["2020-01-01", "NaT"], "M8[ns]"),
    "durations": np.array([1, 2], "m8[us]"),
    "strided dates": np.arange("2020-01", "2021-01", dtype="M8[D]")[::5],
    "scalar": np.array(5),
    "empty": np.zeros((0, 3)),
    "empty dates": np.zeros(0, "M8[D]"),
    "text": np.array(["a", "bcd"]),
    "bytes": np.array([b"a", b"bcd"]),
    "void": np.zeros(4, "V5"),
    "big endian": np.arange(5, dtype=">i4"),
    "complex": np.array([1 + 2j]),
    "half": np.arange(3, dtype="f2"),
    "bool": np.array([True, False]),
    "objects": np.array([1, "two", None], object),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("nested", [False, True])
def test_arrays_keep_type_shape_order_and_data(name: str, nested: bool) -> None:
    array = ARRAYS[name]
    back = round_trip([array])[0] if nested else round_trip(array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert np.array_equal(back, array, equal_nan=array.dtype.kind in "mM")
    assert back.flags.f_contiguous or not array.flags.f_contiguous


@given(hnp.arrays(hnp.array_dtypes() | hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0)), st.booleans())
@settings(max_examples=100)
def test_any_array_survives(array: np.ndarray[Any, Any], flip: bool) -> None:
    array = array.T[::-1] if flip and array.ndim else array
    back = round_trip(array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=200)
    | st.datetimes()
    | st.decimals(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.frozensets(st.integers() | st.text(), max_size=4)
    ),
    max_leaves=20,
)


@given(PLAIN)
@settings(max_examples=200)
def test_any_plain_value_survives(value: Any) -> None:
    assert round_trip(value) == value


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_random_bytes_are_refused_or_decoded_but_never_crash(data: bytes) -> None:
    if data[:1] in (b"\x11", b"\x12", b"\x19"):  # pickles may call what they name
        return
    with contextlib.suppress(DecodeError):
        decode(data)


@pytest.mark.parametrize(
    "value",
    [[np.arange(10.0)], np.arange(10.0), TABLE, [TABLE], TABLE.to_batches()[0], memoryview(b"x" * 100), {"a": 1}],
)
def test_a_cut_or_damaged_header_is_a_decode_error(value: Any) -> None:
    flat = encode(value).to_bytes()
    for end in (0, 1, 8, 12, min(len(flat) - 1, 60)):
        with pytest.raises(DecodeError):
            decode(flat[:end])
    with pytest.raises(DecodeError, match="no codec"):
        decode(b"\xff" + flat[1:])
    if flat[0] == 0x12:
        with pytest.raises(DecodeError, match="too few"):
            decode(flat[:4] + b"\xff\xff\xff\xff" + flat[8:])
        with pytest.raises(DecodeError, match="too few"):
            decode(flat[:8] + b"\xff" * 8 + flat[16:])
        with pytest.raises(DecodeError, match="reaches beyond"):
            decode(flat[:16] + b"\xff" * 8 + flat[24:])


def test_small_values_cost_a_byte() -> None:
    for value in (0, 1.5, "text", None, True, (1, 2), {"a": 1}):
        assert encode(value).nbytes <= len(pickle.dumps(value, 5)) + 1
    assert encode(b"abc").nbytes == 4
    assert encode(5).inline
    assert not encode(np.zeros(1000)).inline


def test_tables_and_batches() -> None:
    assert round_trip(TABLE).equals(TABLE)
    batch = TABLE.to_batches()[0]
    assert round_trip(batch).equals(batch)
    described = TABLE.replace_schema_metadata({"who": "me"})
    assert round_trip(described).schema.metadata == {b"who": b"me"}
    assert round_trip(TABLE.slice(0, 0)).equals(TABLE.slice(0, 0))
    assert round_trip(pa.table({})).num_rows == 0
    assert round_trip(TABLE.select([])).num_rows == TABLE.select([]).num_rows


def test_a_table_is_an_ipc_stream_for_any_arrow() -> None:
    flat = encode(TABLE).to_bytes()
    assert pa.ipc.open_stream(flat[64:]).read_all().equals(TABLE)


@pytest.mark.parametrize("column", TABLE.column_names)
def test_nested_arrow_data_of_every_kind(column: str) -> None:
    chunked = TABLE.column(column)
    array = chunked.chunk(0).slice(17, 5)
    values = [TABLE.slice(3, 4), TABLE.to_batches()[0].slice(5, 2), chunked.slice(9, 3), array, {"deep": (array,)}]
    back = round_trip(values)
    assert back[0].equals(values[0])
    assert back[1].equals(values[1])
    assert back[2].equals(values[2])
    assert back[3].equals(array)
    assert back[4]["deep"][0].equals(array)
    assert encode(values).nbytes < 40_000


def test_a_slice_carries_its_own_bytes_only() -> None:
    rows = TABLE.slice(4000, 5)
    assert encode(rows).nbytes < 5000 < encode(TABLE).nbytes
    assert encode([rows]).nbytes < 5000
    assert encode([TABLE.column("text").slice(10, 3)]).nbytes < 1500
    assert encode({"x": TABLE.column("number").chunk(0)[5:8]}).nbytes < 1500
    assert encode(np.zeros(100_000)[10:20]).nbytes < 300
    assert encode([np.zeros((1000, 1000))[:, 3]]).nbytes < 9000
    frame = pd.DataFrame({"text": [f"row {i}" for i in range(10_000)], "x": np.arange(10_000.0)})
    assert encode(frame.iloc[10:15]).nbytes < 6000


def test_string_views_are_gathered() -> None:
    long = pa.array([f"a string of more than twelve bytes, {i}" for i in range(10_000)], pa.string_view())
    few = pa.table({"text": long}).slice(100, 3)
    assert round_trip(few).equals(few)
    assert encode(few).nbytes < 6000


def test_arrow_types_of_all_sorts_nest() -> None:
    arrays = [
        pa.nulls(5),
        pa.array([decimal.Decimal("1.5"), None]),
        pa.array([{"a": 1, "b": [None, "x"]}, None]),
        pa.array([[(1, "x")]], pa.map_(pa.int64(), pa.string())),
        pa.array([datetime.date(2020, 1, 1)]),
        pa.array([b"xx"], pa.binary(2)),
        pa.array([], pa.int8()),
        pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
        pa.array(["a", "b", "a"]).dictionary_encode()[1:],
    ]
    for array, back in zip(arrays, round_trip(arrays), strict=True):
        assert back.equals(array)
    chunks = pa.chunked_array([pa.array(["a"]).dictionary_encode(), pa.array(["b"]).dictionary_encode()])
    assert round_trip([chunks])[0].equals(chunks)
    empty = pa.chunked_array([], pa.int64())
    assert round_trip([empty])[0].equals(empty)
    tensor = pa.Tensor.from_numpy(np.arange(6.0).reshape(2, 3), dim_names=["a", "b"])
    assert round_trip([tensor])[0].equals(tensor)


def test_pandas_of_all_sorts() -> None:
    frame = pd.DataFrame(
        {
            "x": np.arange(5.0),
            "i": np.arange(5),
            "text": list("abcde"),
            "when": pd.date_range("2020", periods=5, tz="Europe/Berlin"),
            "category": pd.Categorical(list("aabbc")),
            "arrow": pd.array([1, 2, None, 4, 5], dtype="int64[pyarrow]"),
            "nullable": pd.array([1, None, 3, 4, 5], dtype="Int64"),
            "object": [1, "a", None, (2,), 3.5],
        },
        index=pd.MultiIndex.from_product([["u"], range(5)], names=["k", "n"]),
    )
    pd.testing.assert_frame_equal(round_trip(frame), frame)
    pd.testing.assert_frame_equal(round_trip(frame.iloc[1:4]), frame.iloc[1:4])
    pd.testing.assert_series_equal(round_trip(frame["text"]), frame["text"])
    pd.testing.assert_index_equal(round_trip(frame.index), frame.index)
    pd.testing.assert_frame_equal(round_trip(frame.iloc[:0]), frame.iloc[:0])


def test_scipy_and_polars() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.random(50, 60, 0.1, "csr", random_state=1)
    assert (round_trip(matrix) != matrix).nnz == 0
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(
        {"a": [1, 2, None], "b": ["x", "a string of more than twelve bytes", None], "c": [[1], [2, 3], []]}
    )
    assert round_trip(frame).equals(frame)
    assert round_trip([frame["b"]])[0].equals(frame["b"])
    assert round_trip(frame["a"]).name == "a"
    assert round_trip(polars.DataFrame()).equals(polars.DataFrame())
    long = polars.DataFrame({"b": [f"a string of more than twelve bytes, {i}" for i in range(10_000)]})
    assert encode(long[50:53]).nbytes < 6000


class Local:
    def __init__(self, x: int) -> None:
        self.x = x


def test_what_pickle_cannot_take_goes_by_cloudpickle() -> None:
    class Inner(Local):
        pass

    assert round_trip(lambda x: x + 1)(1) == 2
    assert round_trip(Inner(5)).x == 5
    data = np.arange(1000.0)
    function, array = round_trip((lambda: data.sum(), data))
    assert function() == data.sum()
    assert array.tolist() == data.tolist()
    assert isinstance(round_trip(Local(3)), Local)


def test_what_nothing_can_take_says_so() -> None:
    with pytest.raises(TypeError, match="pickle"):
        encode(i for i in range(3))


def test_bytes_and_views() -> None:
    large = bytes(range(256)) * 4096
    for value in (b"", b"x", large, bytearray(b"abc"), bytearray(large)):
        back = round_trip(value)
        assert back == value
        assert type(back) is type(value)
    assert isinstance(round_trip(memoryview(large)), memoryview)
    assert round_trip(memoryview(large)) == large
    assert round_trip(memoryview(b"")) == b""
    assert round_trip(pa.py_buffer(large)).equals(pa.py_buffer(large))
    shaped = memoryview(np.arange(6)).cast("B").cast("q", (2, 3))
    assert round_trip(shaped) == shaped
    assert round_trip(memoryview(b"abcdef")[::2]) == b"ace"
    assert round_trip([memoryview(b"abc"), large])[1] == large
    assert encode([large]).nbytes < len(large) + 100


def test_writing_needs_exactly_the_room_it_said() -> None:
    encoded = encode([np.arange(10)])
    with pytest.raises(ValueError, match="room"):
        encoded.write_into(memoryview(bytearray(encoded.nbytes + 1)))


def test_no_byte_of_what_was_there_before_shows() -> None:
    encoded = encode([np.zeros(3, "i1"), np.zeros(5, "i1"), TABLE.slice(0, 1)])
    first, second = bytearray(b"\xaa" * encoded.nbytes), bytearray(encoded.nbytes)
    encoded.write_into(memoryview(first))
    encoded.write_into(memoryview(second))
    assert first == second


def test_views_of_writable_memory_are_writable_and_of_read_only_are_not() -> None:
    flat = encode([np.arange(10), np.arange(5.0)]).to_bytes()
    assert not decode(flat)[0].flags.writeable
    assert decode(memoryview(bytearray(flat)))[0].flags.writeable


def test_decode_keeps_its_base() -> None:
    class Base:
        pass

    import gc
    import weakref

    base = Base()
    gone = weakref.ref(base)
    array = decode(memoryview(bytearray(encode(np.arange(10)).to_bytes())), base=base)
    del base
    gc.collect()
    assert gone() is not None
    assert array.sum() == 45
    del array
    gc.collect()
    assert gone() is None


def test_large_data_is_not_copied_on_the_way() -> None:
    array = np.ones(1_000_000)
    encoded = encode({"a": array, "b": array[::2]})
    array[0] = 5  # only seen if it was not copied yet
    back = decode(encoded.to_bytes())
    assert back["a"][0] == 5
    assert back["b"][0] == 5
