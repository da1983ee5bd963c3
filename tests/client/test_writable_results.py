"""What a user gets is theirs to change: for each kind of value, however it's got, and seen by nobody else."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from same import assert_same
from scipy import sparse

from holdfast import Client, LocalCluster, wait

N = 40_000  # of eight bytes: more than is ever copied
FEW = 20  # rides along in a message
SIZES = [FEW, N]


@pytest.fixture(scope="module")
def shared(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def far(cluster: LocalCluster) -> Iterator[Client]:
    """As on a host without a store."""
    with Client(cluster, attach=False, set_as_default=False) as client:
        yield client


def times(n: int) -> Any:
    return pd.date_range("2020", periods=n, freq="h")


def frozen(n: int) -> Any:
    """pandas' columns are such arrays, and whatever is read in a task: what its maker wanted can't be told."""
    array = np.arange(n)
    array.flags.writeable = False
    return array


def _first_column(frame: Any) -> None:
    frame.iloc[3, 0] = frame.iloc[5, 0]
    frame["more"] = 1


def _add_to_column(frame: Any) -> None:
    frame["a"] += 1
    frame.loc[frame.index[2], "b"] = -1.5


def _set(at: Any, value: Any) -> Callable[[Any], None]:
    def change(values: Any) -> None:
        values[at] = value

    return change


def _set_row(series: Any) -> None:
    series.iloc[3] = series.iloc[5]


def _mask(array: Any) -> None:
    array[3] = np.ma.masked
    array[4] = 7


def _each(change: Callable[[Any], None], *keys: Any) -> Callable[[Any], None]:
    def change_all(values: Any) -> None:
        for key in keys:
            change(values[key])

    return change_all


def _sort(array: Any) -> None:
    array[::-1].sort()


def _change_data(matrix: Any) -> None:
    matrix.data *= 2
    matrix.data[3] = 9


def _change_within(value: Any) -> None:
    value["list"][0][3] = -1
    value["list"][1]["a"] *= 2
    value["tuple"][0].iloc[3] = 11


#: What is made of a length, and a change to it.
KINDS: dict[str, tuple[Callable[[int], Any], Callable[[Any], None]]] = {
    "array": (np.arange, _set(2, -1)),
    "array that is sorted in place": (lambda n: np.arange(n) % 7, _sort),
    "floats": (lambda n: np.arange(float(n)).reshape(4, -1), lambda a: a.__iadd__(1)),
    "Fortran order": (lambda n: np.asfortranarray(np.arange(n).reshape(4, -1)), _set((1, 2), -1)),
    "strided": (lambda n: np.arange(2 * n)[::2], _set(2, -1)),
    "read-only when it was made": (frozen, _set(2, -1)),
    "broadcast": (lambda n: np.broadcast_to(1.5, (n,)), _set(2, -1)),
    "structured": (lambda n: np.zeros(n, [("a", "i4"), ("b", "f8")]), _set(1, (5, 2.5))),
    "records": (lambda n: np.zeros(n, [("a", "i4"), ("b", "f8")]).view(np.recarray), _set(1, (5, 2.5))),
    "matrix": (lambda n: np.matrix(np.arange(n).reshape(4, -1)), _set((1, 2), -1)),
    "dates": (lambda n: np.arange(n).astype("M8[s]"), _set(1, np.datetime64("2001"))),
    "objects": (lambda n: pd.Series([{i} for i in range(n)], dtype=object), lambda series: series.iloc[3].add(-1)),
    "masked": (lambda n: np.ma.masked_array(np.arange(n), np.arange(n) % 9 == 1), _mask),
    "sparse": (lambda n: sparse.random(n // 4, 40, 0.2, "csr", random_state=0), _change_data),
    "memoryview": (lambda n: memoryview(bytearray(8 * n)), _set(1, 5)),
    "memoryview with a shape": (lambda n: memoryview(np.arange(n).reshape(4, -1)), _set((1, 1), 5)),
    "bytearray": (lambda n: bytearray(8 * n), _set(1, 5)),
    "list of arrays": (lambda n: [np.arange(n), np.ones(n)], _each(_set(2, -1), 0, 1)),
    "dictionary of arrays": (lambda n: {"a": np.arange(n), "b": np.ones(n)}, _each(_set(2, -1), "a", "b")),
    "frames in a dictionary": (
        lambda n: {i: pd.DataFrame({"a": np.arange(n), "b": np.ones(n)}) for i in range(2)},
        _each(_add_to_column, 0, 1),
    ),
    "containers": (
        lambda n: {
            "list": [np.arange(n), pd.DataFrame({"a": np.ones(n)})],
            "tuple": (pd.Series(np.arange(n)),),
        },
        _change_within,
    ),
    "frame": (lambda n: pd.DataFrame({"a": np.arange(n), "b": np.ones(n), "c": np.arange(n) * 2}), _add_to_column),
    "series": (lambda n: pd.Series(np.arange(float(n)), name="x"), _set_row),
    "frame of texts": (lambda n: pd.DataFrame({"a": [f"text {i}" for i in range(n)], "b": np.ones(n)}), _first_column),
    "frame in Arrow": (
        lambda n: pa.table({"a": np.arange(n), "b": [f"t{i}" for i in range(n)]}).to_pandas(types_mapper=pd.ArrowDtype),
        _first_column,
    ),
    "frame out of Arrow": (lambda n: pa.table({"a": np.arange(n), "b": np.ones(n)}).to_pandas(), _add_to_column),
    "dates with a zone": (lambda n: pd.Series(times(n).tz_localize("UTC")), _set_row),
    "periods": (lambda n: pd.Series(times(n).to_period("h")), _set_row),
    "intervals": (lambda n: pd.Series(pd.interval_range(0, n, n)), _set_row),
    "categories": (lambda n: pd.Series(pd.Categorical.from_codes(np.arange(n) % 3, ["a", "b", "c"])), _set_row),
    "differences of time": (lambda n: pd.Series(pd.to_timedelta(np.arange(n), "s")), _set_row),
    "nullable": (lambda n: pd.Series(np.arange(n), dtype="Int64"), _set(3, pd.NA)),
    "nullable array": (lambda n: pd.array(np.arange(n), "Int64"), _set(3, pd.NA)),
    "sparse column": (lambda n: pd.Series(pd.arrays.SparseArray(np.arange(n) % 3)), lambda s: s.__setitem__("x", 1)),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["here", "far"])
def test_every_kind_can_be_changed(shared: Client, far: Client, kind: str, n: int, where: str) -> None:
    make, change = KINDS[kind]
    client = shared if where == "here" else far
    future = client.submit(make, n, pure=False)
    expected = np.array(make(n)) if kind in ("broadcast", "read-only when it was made") else make(n)
    change(expected)
    mine, untouched, view = future.result(timeout=20), future.result(), future.result(writable=False)
    change(mine)
    assert_same(mine, expected)
    for other in (untouched, view, future.result(), client.submit(lambda value: value, future).result()):
        assert_same(other, make(n))


@pytest.mark.parametrize("n", SIZES)
def test_a_task_that_asks_for_views_gets_views(cluster: LocalCluster, shared: Client, far: Client, n: int) -> None:
    x = da.arange(n, chunks=n)
    future = shared.submit(np.arange, n)
    with Client(cluster, writable=False, set_as_default=False) as reader:
        views = {
            "result": future.result(writable=False),
            "gather": shared.gather([future], writable=False)[0],
            "gather of an iterator": next(shared.gather(iter([future]), writable=False)),
            "compute": shared.compute(x, sync=True, writable=False),
            "dask's compute": x.compute(writable=False),
            "get": shared.get({"x": (np.arange, n)}, "x", writable=False),
            "far away": far.submit(np.arange, n).result(writable=False),
            "a client that asks": reader.submit(np.arange, n).result(timeout=20),
        }
        for how, view in views.items():
            assert not view.flags.writeable, how
            with pytest.raises(ValueError, match="read-only"):
                view[0] = 1
        mine = reader.submit(np.arange, n).result(writable=True)
    mine[0] = 1
    assert shared.store is not None
    assert all(shared.store.address_in_arena(views[how].ctypes.data) == (n == N) for how in ("result", "gather"))


@pytest.mark.parametrize("n", SIZES)
def test_however_it_is_got(shared: Client, n: int) -> None:
    x = da.ones(n, chunks=n)
    persisted = x.persist()
    future = shared.submit(np.ones, n)
    wait(future)
    shared.publish_dataset(x=persisted)
    ways: dict[str, Callable[[], Any]] = {
        "result": future.result,
        "gather": lambda: shared.gather({"a": future})["a"],
        "an iterator": lambda: next(shared.gather(iter([future]))),
        "compute": lambda: shared.compute(x, sync=True),
        "dask's compute": x.compute,
        "np.asarray": lambda: np.asarray(persisted),
        "get": lambda: shared.get({"x": (np.ones, n)}, "x"),
        "dataset": lambda: shared.get_dataset("x").compute(),
        "scatter": lambda: shared.scatter(np.ones(n)).result(),
    }
    try:
        for how, get in ways.items():
            first, second = get(), get()
            first[:] = 5
            assert (first == 5).all(), how
            assert (second == 1).all(), how
    finally:
        shared.unpublish_dataset("x")
    frame = dd.from_pandas(pd.DataFrame({"a": np.arange(n), "b": np.ones(n)}), npartitions=2)
    computed = frame.compute()
    computed["a"] += 1
    computed.loc[0, "b"] = 7
    assert computed.a.sum() == n * (n + 1) // 2
    assert float(shared.submit(np.ones, ()).result()) == 1


def test_a_future_that_is_gathered_twice_has_one_result(shared: Client) -> None:
    future = shared.submit(np.arange, N)
    one, (other,) = shared.gather([future, (future,)])
    assert one is other


def stored_nbytes(client: Client) -> int:
    assert client.store is not None
    stats = client.store.stats()
    return int(stats["used"] - stats["leased_nbytes"])


@pytest.mark.parametrize(
    "again",
    [
        lambda client, value: client.scatter(value),
        lambda client, value: client.scatter(value, hash=False),
        lambda client, value: client.scatter({"named": value})["named"],
        lambda client, value: client.submit(lambda value: value, value),
    ],
    ids=["scatter", "without a hash", "by name", "an argument"],
)
@pytest.mark.parametrize(
    "make",
    [np.arange, lambda n: pd.DataFrame({"a": np.arange(n), "b": np.ones(n)}), lambda n: pa.table({"a": np.arange(n)})],
    ids=["array", "frame", "table"],
)
def test_what_was_not_written_still_shares_its_data(
    shared: Client, again: Callable[[Client, Any], Any], make: Callable[[int], Any]
) -> None:
    n = 200_000
    future = shared.submit(make, n, pure=False)
    value = future.result(timeout=20)
    before = stored_nbytes(shared)
    other = again(shared, value)
    assert_same(other.result(timeout=20), make(n))
    assert stored_nbytes(shared) - before < n
    if isinstance(value, pa.Table):
        return
    del other
    gc.collect()
    value[:] = 5
    changed = again(shared, value)
    assert_same(changed.result(timeout=20), value)
    assert_same(future.result(), make(n))


def test_the_same_content_has_the_same_name_wherever_it_lies(shared: Client) -> None:
    first = shared.scatter(np.arange(N))
    value = first.result()
    assert shared.scatter(value).key == first.key
    value[0] = 5
    assert shared.scatter(value).key != first.key
    assert shared.scatter({"k": first.result()})["k"].key == "k"
    named = shared.scatter({"k": np.arange(N)})["k"]
    assert (shared.scatter({"k": named.result()})["k"].result() == np.arange(N)).all()


def test_a_result_stays_when_everything_else_is_gone(cluster: LocalCluster) -> None:
    """What wasn't written is the store's memory still, which nobody else may have meanwhile."""
    with Client(cluster, set_as_default=False) as client:
        future = client.submit(np.full, 1_000_000, 7)
        mine = future.result(timeout=20)
        mine[:1000] = 8
        del future
        others = [client.submit(np.full, 1_000_000, i, pure=False) for i in range(60)]
        wait(others)
        assert (mine[:1000] == 8).all()
        assert (mine[1000:] == 7).all()
        del others
    assert (mine[1000:] == 7).all()
