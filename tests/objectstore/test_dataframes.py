"""pandas frames: whatever they are made of, they come back as they were, with labels of their own."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest
from same import assert_same

from holdfast.objectstore import DecodeError, decode, encode
from holdfast.objectstore.codecs.dataframes import rebuild_frame


class Subclass(pd.DataFrame):
    """A frame of somebody's own."""

    _metadata = ["unit"]  # noqa: RUF012 - as pandas wants it

    @property
    def _constructor(self) -> Any:
        return Subclass


def there_and_back(value: Any) -> Any:
    return decode(encode(value).to_bytes())


def frame(n: int = 10) -> pd.DataFrame:
    return pd.DataFrame({"i": np.arange(n), "x": np.arange(n) * 0.5, "j": np.arange(n), "text": ["abc"] * n})


def with_attributes() -> pd.DataFrame:
    made = frame()
    made.attrs = {"unit": "m"}
    return made


WHOLE = frame(100)
FRAMES: dict[str, pd.DataFrame] = {
    "columns of a type that aren't neighbours": WHOLE,
    "a slice": WHOLE.iloc[10:20],
    "every second row": WHOLE.iloc[::2],
    "reversed columns": WHOLE[["text", "j", "x", "i"]],
    "no rows": WHOLE.iloc[:0],
    "no columns": WHOLE[[]],
    "nothing": pd.DataFrame(),
    "labels twice": pd.concat([WHOLE, WHOLE], axis=1),
    "numbers for labels": pd.DataFrame(np.ones((3, 4))),
    "labels of many kinds": pd.DataFrame(np.ones((2, 4)), columns=["a", 1, None, ("b", 2)]),
    "labels in levels": pd.DataFrame(np.ones((2, 4)), columns=pd.MultiIndex.from_product([["a", "b"], [1, 2]])),
    "dates for labels": pd.DataFrame(np.ones((2, 3)), columns=pd.date_range("2000", periods=3)),
    "missing labels": pd.DataFrame(np.ones((2, 2)), columns=pd.Index(["a", None])),
    "objects for labels": pd.DataFrame(np.ones((2, 2)), columns=pd.Index(["a", "b"], dtype=object)),
    "named labels": pd.DataFrame(np.ones((2, 2)), columns=pd.Index(["a", "b"], name="letters")),
    "labels with a tuple for a name": pd.DataFrame(np.ones((2, 2)), columns=pd.Index(["a", "b"], name=("x", 1))),
    "very many labels": pd.DataFrame(np.ones((1, 10_000))).add_prefix("column "),
    "dates in columns": pd.DataFrame({"d": pd.date_range("2000", periods=3), "e": pd.date_range("1999", periods=3)}),
    "dates in zones": pd.DataFrame({"d": pd.date_range("2000", periods=3, tz="UTC"), "x": [1, 2, 3]}),
    "categories": pd.DataFrame({"c": pd.Categorical(list("aab")), "d": pd.Categorical(list("xyz"))}),
    "periods and gaps": pd.DataFrame({"p": pd.period_range("2000", periods=3), "n": pd.array([1, None, 3], "Int64")}),
    "sparse": pd.DataFrame({"s": pd.arrays.SparseArray([0, 0, 1])}),
    "objects": pd.DataFrame({"o": [[1], {"a": 2}, None]}),
    "an index with levels": WHOLE.set_index(["i", "text"]),
    "an index with a name": WHOLE.set_index("text"),
    "attributes": with_attributes(),
    "no labels twice": frame().set_flags(allows_duplicate_labels=False),
    "a subclass": Subclass({"a": [1, 2]}),
}


@pytest.mark.parametrize("name", FRAMES)
def test_they_come_back_as_they_were(name: str) -> None:
    value = FRAMES[name]
    back = there_and_back(value)
    assert_same(back, value)
    assert back.attrs == value.attrs
    assert back.flags == value.flags
    assert back.columns.equals(value.columns)
    assert type(back.columns) is type(value.columns)
    assert back.columns.names == value.columns.names
    assert back._mgr.nblocks == value._mgr.nblocks
    assert_same(there_and_back([value, value.index])[0], value)


def test_what_one_does_to_a_frame_no_other_sees() -> None:
    one, other = frame(), frame()
    one_back, other_back = there_and_back(one), there_and_back(other)
    assert one_back.columns.array is other_back.columns.array  # the names are there once
    one_back.columns.name = "renamed"
    one_back["new"] = 1
    assert_same(other_back, other)
    assert_same(there_and_back(one), one)


def test_labels_are_those_of_the_moment() -> None:
    value = frame()
    assert there_and_back(value).columns.name is None
    value.columns.name = "renamed"
    assert there_and_back(value).columns.name == "renamed"
    assert there_and_back(value.iloc[:3]).columns.name == "renamed"
    value.columns = list("abcd")
    assert list(there_and_back(value).columns) == list("abcd")


def test_many_frames_of_many_labels_in_many_threads() -> None:
    flat = [encode(frame().add_prefix(f"{n % 300} ")).to_bytes() for n in range(600)]
    failed: list[BaseException] = []

    def read() -> None:
        try:
            for n, each in enumerate(flat):
                assert decode(each)[f"{n % 300} i"].sum() == 45
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize("parts", [(np.ones((2, 4)), (0, 2, 1)), (np.ones((1, 3)), (5, 6, 1))])
def test_damage_is_an_error(parts: tuple[Any, ...]) -> None:
    with pytest.raises(DecodeError, match="a damaged frame"):
        rebuild_frame(pd.Index(["a", "b"]), pd.RangeIndex(3), *parts)
