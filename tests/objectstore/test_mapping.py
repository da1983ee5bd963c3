"""Dictionaries of arrays and frames: each value stands for itself, and one is read without the others."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from same import assert_same

from holdfast.objectstore import DecodeError, Store, decode, encode
from holdfast.objectstore.codecs import decode_item
from holdfast.objectstore.codecs.flat import TAG_MAPPING

N = 5000


class Named(dict[Any, Any]):
    """As dask's shuffles make them."""


class Counted:
    """Knows how many of it were unpickled."""

    made = 0

    def __reduce__(self) -> Any:
        return count, ()


def count() -> Counted:
    Counted.made += 1
    return Counted()


def frame(number: int) -> pd.DataFrame:
    index = pd.date_range("2000", periods=N, freq="s")
    return pd.DataFrame({"x": np.arange(N) * number, "text": pd.array(["abc"] * N, "string[pyarrow]")}, index=index)


MAPPINGS: dict[str, dict[Any, Any]] = {
    "frames": {i: frame(i) for i in range(5)},
    "named": Named({i: frame(i) for i in range(5)}),
    "numpy keys": {np.int64(i): np.arange(N) + i for i in range(3)},
    "of all kinds": {
        "array": np.arange(N),
        ("a", 1): pa.table({"x": np.arange(N)}),
        None: frame(1)["x"],
        1.5: np.asfortranarray(np.ones((80, 90))),
    },
}


@pytest.mark.parametrize("name", MAPPINGS)
def test_each_value_comes_back_alone_and_with_all_others(name: str, store: Store) -> None:
    mapping = MAPPINGS[name]
    flat = encode(mapping).to_bytes()
    assert flat[0] == TAG_MAPPING
    assert_same(decode(flat), mapping)
    object_id = store.put(mapping)
    assert_same(store.get(object_id), mapping)
    for key, value in mapping.items():
        assert_same(decode_item(memoryview(flat), key), value)
        assert_same(store.get_item(object_id, key), value)
    writable = store.get_item(object_id, next(iter(mapping)), writable=True)
    assert_same(writable, next(iter(mapping.values())))
    with pytest.raises(KeyError):
        store.get_item(object_id, "nobody")


def test_one_is_read_in_place_and_without_the_others(store: Store) -> None:
    counted = pd.Series([Counted()] * 10, dtype=object)
    object_id = store.put({"a": np.arange(N), "b": counted})
    Counted.made = 0
    array = store.get_item(object_id, "a")
    assert store.address_in_arena(array.ctypes.data)
    assert not Counted.made
    store.get_item(object_id, "b")
    assert Counted.made == 1
    store.delete(object_id)
    assert array[-1] == N - 1


def test_an_item_of_any_value_is_what_it_is_of_the_value(store: Store) -> None:
    for value, key in (([1, 2, 3], 1), (frame(2), "x"), (np.arange(10), 3), ({"a": 1}, "a")):
        assert_same(store.get_item(store.put(value), key), value[key])  # type: ignore[index, call-overload]
    with pytest.raises(TypeError):
        store.get_item(store.put(5), 0)


INDEX = pd.date_range("2000", periods=N, freq="s")
ODD: dict[str, dict[Any, Any]] = {
    "small arrays": {i: np.arange(10) for i in range(5)},
    "other values": {"a": np.arange(N), "b": "text"},
    "one value": {"a": np.arange(N)},
    "one value twice": dict.fromkeys("ab", np.arange(N)),
    "an index in common": {name: pd.Series(np.arange(N), INDEX) for name in "ab"},
    "missing ones made": collections.defaultdict(list, {"a": np.arange(N), "b": np.arange(N)}),
    "ordered": collections.OrderedDict({"a": np.arange(N), "b": np.arange(N)}),
    "empty": {},
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_better_in_one_pickle_is_in_one_pickle(name: str) -> None:
    flat = encode(ODD[name]).to_bytes()
    assert flat[0] != TAG_MAPPING
    assert_same(decode(flat), ODD[name])


def test_what_lies_in_the_store_is_shared_rather(store: Store) -> None:
    array = store.get(store.put(np.arange(400_000)))
    used = store.stats()["used"]
    pieces = {i: array[i * 100_000 : (i + 1) * 100_000] for i in range(4)}
    object_id = store.put(pieces)
    assert store.stats()["used"] - used < 300_000
    assert_same(store.get_item(object_id, 2), pieces[2])


def test_damage_is_an_error() -> None:
    flat = bytearray(encode(MAPPINGS["numpy keys"]).to_bytes())
    for size in (1, 10, 20, 60, 100, 1000, len(flat) - 1):
        with pytest.raises((DecodeError, EOFError, ValueError)):
            decode(bytes(flat[:size]))
    flat[16:24] = (1 << 40).to_bytes(8, "little")
    with pytest.raises(DecodeError, match="reaches beyond"):
        decode(bytes(flat))
