"""Arbitrary values come back as they were: through their bytes, and through a store, to read and to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.extra import pandas as hpd
from same import assert_same

from examples import examples
from holdfast.objectstore import Store, decode, encode
from holdfast.objectstore.client import pins, reader, views, writer
from holdfast.objectstore.codecs import flat, resident

Way = Callable[[Any], Any]


@pytest.fixture(params=["bytes", "store", "writable", "shared"])
def way(request: pytest.FixtureRequest, store: Store, monkeypatch: pytest.MonkeyPatch) -> Way:
    for module in (flat, resident, views, pins, reader, writer):  # however small
        monkeypatch.setattr(module, "SHARE_NBYTES", 1)

    def through_the_store(value: Any) -> Any:
        object_id = store.put(value)
        back = store.get(object_id, writable=request.param == "writable")
        store.delete(object_id)
        return back

    def through_another_object(value: Any) -> Any:
        first = store.put(value)
        second = store.put(store.get(first))
        store.delete(first)
        back = store.get(second)
        store.delete(second)
        return back

    if request.param == "shared":
        return through_another_object
    return through_bytes if request.param == "bytes" else through_the_store


def through_bytes(value: Any) -> Any:
    encoded = encode(value)
    flat = encoded.to_bytes()
    assert len(flat) == encoded.nbytes
    return decode(flat)


# Arrays: of every type and shape, then cut, turned and transposed

DTYPES = hnp.scalar_dtypes() | hnp.array_dtypes() | hnp.nested_dtypes(max_itemsize=200)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    array = draw(hnp.arrays(draw(DTYPES), shape))
    if array.ndim and draw(st.booleans()):
        array = array[draw(hnp.basic_indices(array.shape, allow_ellipsis=False, allow_newaxis=True))]
    if isinstance(array, np.ndarray) and draw(st.booleans()):
        array = array.transpose(draw(st.permutations(range(array.ndim))))
    return np.asarray(array)


@given(array=arrays())
@examples(150)
def test_arrays(way: Way, array: np.ndarray[Any, Any]) -> None:
    assert_same(way(array), array)
    assert_same(way([array, array.T])[1], array.T)


@given(array=arrays(), data=st.data())
@examples(50)
def test_masked_arrays(way: Way, array: np.ndarray[Any, Any], data: st.DataObject) -> None:
    mask = data.draw(hnp.arrays(bool, array.shape))
    masked = np.ma.MaskedArray(array, mask if array.dtype.names is None else np.ma.nomask)
    back = way(masked)
    assert_same(back.data, masked.data)
    assert_same(np.ma.getmaskarray(back), np.ma.getmaskarray(masked))


# pandas

COLUMNS = st.sampled_from(["?", "i1", "u4", "i8", "f4", "f8", "M8[ns]", "m8[ns]", "S3", "U3"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    columns = [hpd.column(f"c{i}", dtype=draw(COLUMNS)) for i in range(draw(st.integers(0, 4)))]
    columns.append(hpd.column("text", elements=TEXTS, dtype=object))
    index = draw(st.sampled_from([hpd.range_indexes(), hpd.indexes(dtype="i8"), hpd.indexes(dtype="M8[ns]")]))
    frame = draw(hpd.data_frames(columns, index=index))
    frame["category"] = frame["text"].astype("category")
    frame["string"] = frame["text"].astype("string")
    frame["nullable"] = pd.array([None if i % 3 else i for i in range(len(frame))], dtype="Int64")
    return frame.iloc[draw(st.slices(len(frame)).filter(has_a_possible_step))] if draw(st.booleans()) else frame


def has_a_possible_step(rows: slice) -> bool:
    """Whether Arrow can take a slice: not with a step beyond what fits a machine's word, however few the rows."""
    return rows.step is None or abs(rows.step) < 2**31


@given(frame=frames())
@examples(30)
def test_frames(way: Way, frame: pd.DataFrame) -> None:
    assert_same(way(frame), frame)
    assert_same(way([frame["string"], frame.index]), [frame["string"], frame.index])


@given(series=COLUMNS.flatmap(lambda dtype: hpd.series(dtype=dtype)))
@examples(40)
def test_series(way: Way, series: pd.Series) -> None:
    assert_same(way(series), series)


# Arrow: arrays of arbitrarily nested types, sliced

LEAVES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.null(), st.none()),
    (pa.bool_(), st.booleans()),
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float64(), st.floats()),
    (pa.decimal128(12, 2), st.decimals("-1000", "1000", places=2)),
    (pa.date32(), st.dates()),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    (pa.dictionary(pa.int32(), pa.string()), TEXTS),
    *[(kind, TEXTS) for kind in (pa.string(), pa.large_string(), pa.string_view())],
    *[(kind, st.binary(max_size=30)) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())],
]
Typed = tuple[pa.DataType, st.SearchStrategy[Any]]


def _nested(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    lists = st.sampled_from([pa.list_, pa.large_list, pa.list_view, pa.large_list_view])

    def struct_of(fields: list[Typed]) -> Typed:
        data_type = pa.struct([(f"f{i}", each) for i, (each, _) in enumerate(fields)])
        return data_type, st.fixed_dictionaries({f"f{i}": st.none() | one for i, (_, one) in enumerate(fields)})

    return (
        st.builds(lambda make, of: (make(of[0]), st.lists(st.none() | of[1], max_size=4)), lists, inner)
        | inner.map(lambda of: (pa.list_(of[0], 2), st.lists(st.none() | of[1], min_size=2, max_size=2)))
        | inner.map(lambda of: (pa.map_(pa.string(), of[0]), st.lists(st.tuples(TEXTS, st.none() | of[1]), max_size=3)))
        | st.lists(inner, min_size=1, max_size=3).map(struct_of)
    )


TYPED = st.recursive(st.sampled_from(LEAVES), _nested, max_leaves=4)


@st.composite
def arrow_arrays(draw: st.DrawFn) -> pa.Array:
    data_type, items = draw(TYPED)
    array = pa.array(draw(st.lists(st.none() | items, max_size=12)), data_type)
    start, stop = sorted((draw(st.integers(0, len(array))), draw(st.integers(0, len(array)))))
    return array.slice(start, stop - start) if draw(st.booleans()) else array


FILLED_UP = pa.array(
    [[None, [("", None)]]],
    pa.list_(pa.map_(pa.string(), pa.struct([("f0", pa.dictionary(pa.int32(), pa.string()))])), 2),
)


@given(array=arrow_arrays())
@example(array=FILLED_UP)
@examples(100)
def test_arrow_arrays(way: Way, array: pa.Array) -> None:
    chunked = pa.chunked_array([array, array[1:]])
    assert_same(way([array, chunked]), [array, chunked])
    table = pa.table({"x": chunked})
    assert_same(way(table), table)


# Nested containers of all of these

ITEMS = (
    arrays()
    | arrow_arrays()
    | hpd.series(dtype="f8")
    | st.none()
    | st.booleans()
    | st.integers()
    | TEXTS
    | st.binary(max_size=200)
    | st.binary(max_size=200).map(memoryview)
    | st.binary(max_size=200).map(bytearray)
    | st.datetimes()
)
CONTAINERS = st.recursive(
    ITEMS,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=6,
)


@given(value=CONTAINERS)
@example(value=[(None, b"__main__"), np.array("NaT", dtype=">M8[Y]"), memoryview(b"")])  # by value, as cloudpickle does
@examples(60)
def test_containers(way: Way, value: Any) -> None:
    assert_same(way(value), value)
