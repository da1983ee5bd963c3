"""``get(id, writable=True)``: memory of the caller's own, of which only what is written is copied."""

from __future__ import annotations

import gc
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdfast.objectstore import ObjectID, Store, StoreServer, connect

PAGE = mmap.PAGESIZE
NBYTES = 40_000_000


def private_dirty(address: int) -> int:
    """The bytes of the mapping around an address that are copies of this process's own."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start <= address < end
        elif inside and first == "Private_Dirty:":
            return int(rest[0]) << 10
    raise AssertionError(f"nothing is mapped at {address:#x}")


def address_of(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


def test_only_pages_that_are_written_are_copied(store: Store) -> None:
    view = store.get(store.put(np.ones(NBYTES // 8)), writable=True)
    assert view.sum() == NBYTES // 8  # reading copies nothing
    assert private_dirty(address_of(view)) == 0
    view[NBYTES // 16] = 2
    assert private_dirty(address_of(view)) == PAGE
    view[NBYTES // 16 + 1] = 3
    assert private_dirty(address_of(view)) <= 2 * PAGE
    view[:] = 4
    assert private_dirty(address_of(view)) >= NBYTES


def test_writes_are_seen_by_nobody_else(server: StoreServer, store: Store, child: Callable[..., Any]) -> None:
    array = np.arange(100_000)
    object_id = store.put(array)
    reader = store.get(object_id)
    first, second = store.get(object_id, writable=True), store.get(object_id, writable=True)
    first[:] = -1
    second[0] = 77
    assert np.array_equal(reader, array)
    assert np.array_equal(store.get(object_id), array)
    assert np.array_equal(second[1:], array[1:])
    assert (first == -1).all()
    process = child("read_and_answer", server.socket_path, object_id.hex())
    _, total, made = process.stdout.readline().split()
    assert int(total) == array.sum()
    assert np.array_equal(store.get(ObjectID.fromhex(made), timeout=20), array[:10] * 2)


def test_neighbours_on_the_same_page_are_untouched(store: Store) -> None:
    ids = [store.put(np.full(4, i)) for i in range(100)]
    views = [store.get(object_id, writable=True) for object_id in ids]
    for view in views[::2]:
        view[:] = -1
    for i, object_id in enumerate(ids):
        assert store.get(object_id).tolist() == [i] * 4
        assert views[i].tolist() == [i if i % 2 else -1] * 4


@pytest.mark.parametrize(
    "value",
    [
        {"nested": [np.arange(1000.0), np.asfortranarray(np.ones((20, 30)))]},
        np.zeros(50, [("a", "i4"), ("b", "f8")]),
        np.ma.array(np.arange(1000), mask=False),
        memoryview(bytes(1000)),
    ],
    ids=["nested", "records", "masked", "memoryview"],
)
def test_arrays_of_every_kind_can_be_written(store: Store, value: Any) -> None:
    object_id = store.put(value)
    back = store.get(object_id, writable=True)
    for part in back["nested"] if isinstance(back, dict) else [back]:
        if isinstance(part, np.ma.MaskedArray):
            part[3] = np.ma.masked
        if isinstance(part, memoryview):
            assert not part.readonly
            part[0] = 1
        else:
            assert part.flags.writeable
            part[...] = np.ones((), part.dtype)
    fresh = store.get(object_id)
    for part in fresh["nested"] if isinstance(fresh, dict) else [fresh]:
        assert part.readonly if isinstance(part, memoryview) else not part.flags.writeable


def test_frames_can_be_changed_in_place(store: Store) -> None:
    frame = pd.DataFrame({"x": np.arange(1000.0), "text": ["t"] * 1000})
    object_id = store.put(frame)
    mine = store.get(object_id, writable=True)
    mine.loc[5, "x"] = -1.0
    mine["x"] *= 2
    assert mine.loc[5, "x"] == -2
    pd.testing.assert_frame_equal(store.get(object_id), frame)


def test_two_thousand_at_once(store: Store) -> None:
    """More than the descriptors a process has by default: each takes a mapping and no descriptor."""
    object_id = store.put(np.arange(10))
    before = len(os.listdir("/proc/self/fd"))
    views = [store.get(object_id, writable=True) for _ in range(2000)]
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    for i, view in enumerate(views):
        view[0] = i
    assert [int(view[0]) for view in views] == list(range(2000))


def test_a_view_keeps_the_object_and_lets_it_go(store: Store, wait_until: Callable[..., Any]) -> None:
    view = store.get(store.put({"a": np.arange(300_000), "b": np.arange(10)}), writable=True)["b"][2:]
    store.flush()
    assert store.stats()["pins"] == 1
    assert view.tolist() == list(range(2, 10))
    del view
    gc.collect()
    wait_until(lambda: store.stats()["pins"] == 0, "the unpin")


def test_views_stay_as_they_are_after_the_delete(store: Store) -> None:
    object_id = store.put(np.full(500_000, 7))
    view = store.get(object_id, writable=True)
    view[0] = 8
    store.delete(object_id)
    others = [store.put(np.zeros(500_000)) for _ in range(4)]
    assert view[0] == 8
    assert (view[1:] == 7).all()
    view[1] = 9
    assert not any(store.get(other).any() for other in others)


def test_views_stay_as_they_are_after_the_close(server: StoreServer) -> None:
    with connect(server.socket_path) as store:
        view = store.get(store.put(np.full(500_000, 7)), writable=True)
    assert (view == 7).all()
    view[0] = 8
    with connect(server.socket_path) as store:
        for _ in range(4):
            store.put(np.zeros(500_000))
        assert view[0] == 8
        assert (view[1:] == 7).all()
