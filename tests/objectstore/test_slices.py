"""A slice carries its own bytes: five rows of a hundred thousand cost about what five rows cost."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from holdfast.objectstore import decode, encode
from holdfast.objectstore.codecs.columns import put_together, take_apart

N = 100_000
START, ROWS = 50_001, 5
NUMBERS = pa.array(np.arange(N))
TEXTS = pa.array(np.char.add("a text of more than twelve bytes: ", np.arange(N).astype(str)))
VIEWS = TEXTS.cast(pa.string_view())
STARTS = pa.array(range(N + 1), pa.int32())
ENDS = pa.array(range(2, 2 * N + 2, 2), pa.int32())
CODES = pa.array([0, 1] * (N // 2), pa.int8())
HALVES = pa.array(np.arange(N) // 2, pa.int32())
MASK = pa.array([i % 3 == 0 for i in range(N)])
SIZES = pa.array([1] * N, pa.int32())
LISTS = pa.ListArray.from_arrays(STARTS, TEXTS, mask=MASK)
VIEW_LISTS = pa.ListArray.from_arrays(STARTS, VIEWS, mask=MASK)
LIST_VIEWS = pa.ListViewArray.from_arrays(STARTS[:-1], SIZES, TEXTS, mask=MASK)
VIEW_LIST_VIEWS = pa.ListViewArray.from_arrays(STARTS[:-1], SIZES, VIEWS, mask=MASK)

ARRAYS = {
    "number": NUMBERS,
    "number with nulls": pa.array(np.arange(N), mask=np.arange(N) % 2 == 0),
    "bool": MASK,
    "string": TEXTS,
    "large_string": TEXTS.cast(pa.large_string()),
    "string_view": VIEWS,
    "binary": TEXTS.cast(pa.binary()),
    "binary_view": TEXTS.cast(pa.binary_view()),
    "fixed binary": pa.array([b"abcd"] * N, pa.binary(4)),
    "null": pa.nulls(N),
    "decimal": NUMBERS.cast(pa.decimal128(20)),
    "timestamp": NUMBERS.cast(pa.timestamp("ns")),
    "list": LISTS,
    "large_list": LISTS.cast(pa.large_list(pa.string())),
    "list_view": LIST_VIEWS,
    "large_list_view": pa.LargeListViewArray.from_arrays(STARTS[:-1].cast("int64"), SIZES.cast("int64"), NUMBERS),
    "fixed list": pa.FixedSizeListArray.from_arrays(TEXTS, 1, mask=MASK),
    "struct": pa.StructArray.from_arrays([NUMBERS, TEXTS], ["a", "b"], mask=MASK),
    "map": pa.MapArray.from_arrays(STARTS, TEXTS, NUMBERS),
    "run-end": pa.RunEndEncodedArray.from_arrays(ENDS, TEXTS),
    "sparse union": pa.UnionArray.from_sparse(CODES, [NUMBERS, TEXTS]),
    "dense union": pa.UnionArray.from_dense(CODES, HALVES, [NUMBERS, TEXTS]),
    "extension": pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((N, 2, 2))),
    "list of string_view": VIEW_LISTS,
    "list of list of string_view": pa.ListArray.from_arrays(STARTS, VIEW_LISTS),
    "large_list of string_view": pa.LargeListArray.from_arrays(STARTS.cast("int64"), VIEWS),
    "list_view of string_view": VIEW_LIST_VIEWS,
    "list_view of list_view": pa.ListViewArray.from_arrays(STARTS[:-1], SIZES, VIEW_LIST_VIEWS),
    "fixed list of string_view": pa.FixedSizeListArray.from_arrays(VIEWS, 1, mask=MASK),
    "struct of string_view": pa.StructArray.from_arrays([NUMBERS, VIEWS], ["a", "b"], mask=MASK),
    "map of string_view": pa.MapArray.from_arrays(STARTS, VIEWS, VIEWS),
    "run-end of string_view": pa.RunEndEncodedArray.from_arrays(ENDS, VIEWS),
    "sparse union of string_view": pa.UnionArray.from_sparse(CODES, [NUMBERS, VIEWS]),
    "dense union of string_view": pa.UnionArray.from_dense(CODES, HALVES, [NUMBERS, VIEWS]),
}


def fresh(array: pa.Array) -> pa.Array:
    """As many values in memory of their own; the same ones where Arrow makes such arrays of Python's values."""
    try:
        return pa.array(array.to_pylist(), array.type)
    except (pa.ArrowException, TypeError, NotImplementedError):  # not unions, runs or tensors
        return pa.array([TEXTS[0]] * ROWS)


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_taken_apart_and_put_together_is_the_same(name: str) -> None:
    whole = ARRAYS[name]
    for part in (whole, whole.slice(8), whole.slice(START, ROWS), whole.slice(0, 1), whole.slice(3, 0)):
        back = put_together(part.type, pickle.loads(pickle.dumps(take_apart(part), 5)))
        back.validate(full=True)
        assert back.equals(part)


@pytest.mark.parametrize("name", ARRAYS)
def test_five_rows_cost_five_rows(name: str) -> None:
    few = ARRAYS[name].slice(START, ROWS)
    whole, alone = encode([ARRAYS[name]]).nbytes, encode([fresh(few)]).nbytes
    for value in ([few], pa.table({"x": few}), pa.record_batch({"x": few}), {"x": pa.chunked_array([few, few])}):
        nbytes = encode(value).nbytes
        assert nbytes < alone + 2000
        assert nbytes < whole / 20 or pa.types.is_null(few.type)
    back = decode(encode([few]).to_bytes())[0]
    back.validate(full=True)
    assert back.equals(few)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(("start", "rows"), [(0, 0), (0, 1), (N - 1, 1), (N, 0), (33_333, 40)])
def test_any_slice_is_what_it_was(name: str, start: int, rows: int) -> None:
    few = ARRAYS[name].slice(start, rows)
    flat = encode([few]).to_bytes()
    assert len(flat) < 20_000
    back = decode(flat)[0]
    back.validate(full=True)
    assert back.equals(few)


@pytest.mark.long
@pytest.mark.parametrize("name", ARRAYS)
def test_most_of_an_array_costs_no_more_than_all_of_it(name: str) -> None:
    most = ARRAYS[name].slice(9, 70_000)
    together = pa.concat_arrays([ARRAYS[name].slice(start, ROWS) for start in range(0, 400 * ROWS, ROWS)])
    whole = encode([ARRAYS[name]]).nbytes
    assert encode([most]).nbytes < 1.1 * whole + 2000
    if not pa.types.is_union(together.type):  # Arrow puts the whole children of each together
        assert encode([together]).nbytes < 1.1 * whole + 2000
    back = decode(encode([most]).to_bytes())[0]
    assert back.equals(most)


def test_list_views_in_any_order_and_over_each_other() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(0, 4, N)
    offsets = rng.integers(0, N - 4, N)
    arrays = pa.ListViewArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(sizes, pa.int32()), VIEWS, mask=pa.array(rng.random(N) < 0.3)
    )
    few = arrays.slice(START, ROWS)
    back = decode(encode([few]).to_bytes())[0]
    back.validate(full=True)
    assert back.to_pylist() == few.to_pylist()
    assert encode([few]).nbytes < 3000
    assert decode(encode([arrays]).to_bytes())[0].equals(arrays)


def test_a_dictionary_belongs_to_its_type() -> None:
    categories = pa.DictionaryArray.from_arrays(pa.array(np.arange(N) % 5), pa.array(list("abcde")))
    assert encode([categories.slice(START, ROWS)]).nbytes < 1500
    distinct = pa.DictionaryArray.from_arrays(NUMBERS, VIEWS).slice(START, ROWS)
    back = decode(encode([distinct]).to_bytes())[0]
    assert back.equals(distinct)
    assert len(back.dictionary) == N
    assert encode([distinct]).nbytes < 1.1 * encode([VIEWS]).nbytes
    few = pa.DictionaryArray.from_arrays(pa.array([1, 0]), VIEWS.slice(START, 2))
    assert encode([few]).nbytes < 2000


def test_what_is_shown_whole_is_not_gathered() -> None:
    for name in ("string_view", "list of string_view", "list_view", "struct of string_view"):
        before = pa.total_allocated_bytes()
        encoded = encode([ARRAYS[name]])
        assert pa.total_allocated_bytes() - before < 100_000
        assert encoded.nbytes < 1.1 * ARRAYS[name].get_total_buffer_size() + 1000


@pytest.mark.parametrize(
    ("value", "nbytes"),
    [
        (np.zeros(N)[10:20], 300),
        ([np.zeros((1000, 1000))[:, 3]], 9000),
        (np.ma.zeros(N)[10:20], 500),
        (np.matrix(np.zeros((1000, 100)))[3], 1500),
        (memoryview(np.zeros(N))[10:20], 500),
        (pd.DataFrame({"text": TEXTS.to_pandas(), "x": np.arange(float(N))}).iloc[10:15], 6000),
        (pd.Series(np.arange(N), dtype="Int64").iloc[10:15], 3000),
        (pd.Series(["a", "b"] * (N // 2), dtype="category").iloc[10:15], 4000),
    ],
)
def test_slices_of_other_kinds(value: Any, nbytes: int) -> None:
    assert encode(value).nbytes < nbytes


def test_slices_of_polars() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"text": TEXTS.to_pylist(), "lists": [[text] for text in TEXTS.to_pylist()]})
    assert encode(frame[50:55]).nbytes < 6000
    assert decode(encode(frame[50:55]).to_bytes()).equals(frame[50:55])
    assert encode(frame["lists"][50:55]).nbytes < 3000


def test_five_rows_beside_a_function_cost_five_rows() -> None:
    """What only cloudpickle can write is written with the same care."""
    value = [lambda: 1, TEXTS.slice(START, ROWS), VIEWS.slice(START, ROWS)]
    encoded = encode(value)
    assert encoded.nbytes < 5000
    function, texts, views = decode(encoded.to_bytes())
    assert function() == 1
    assert texts.equals(value[1])
    assert views.equals(value[2])
