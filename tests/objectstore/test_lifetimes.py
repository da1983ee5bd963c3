"""How long an object's bytes stay: as long as anything that was made from them lives, whatever happens meanwhile."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from holdfast.objectstore import ObjectID, Store, StoreFullError, StoreServer, connect

ROWS = 100_000
NUMBERS = np.arange(ROWS, dtype="int64")


@pytest.fixture
def server() -> Iterator[StoreServer]:
    """A store that moves nothing to disk, so that it can be filled to the brim."""
    with StoreServer(64 << 20, spill=False) as server:
        yield server


def table() -> pa.Table:
    return pa.table({"n": NUMBERS, "half": NUMBERS / 2, "text": [f"row {i}" for i in range(ROWS)]})


def polars_slice(value: Any) -> Any:
    polars = pytest.importorskip("polars")
    return polars.from_arrow(value)["n"].slice(10, ROWS - 20).to_numpy()


def dlpack(value: Any) -> Any:
    try:
        return np.from_dlpack(value)[5:]
    except (BufferError, RuntimeError) as error:  # numpy before 2.1 can't say "read-only" in DLPack
        pytest.skip(str(error))


class Node:
    """A cycle, which only the garbage collector ends."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.itself = self


DERIVED: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    # name: what is put, what is made of what was got, what that is as an array
    "a slice": (lambda: NUMBERS, lambda a: a[10:20], np.asarray),
    "a slice of a slice": (lambda: NUMBERS, lambda a: a[10:][5:][::3], np.asarray),
    "a reshaped transpose": (lambda: NUMBERS, lambda a: a.reshape(100, -1).T[3], np.asarray),
    "another dtype of the bytes": (lambda: NUMBERS, lambda a: a.view("u1")[8:16], np.asarray),
    "a field": (lambda: NUMBERS.view([("low", "i4"), ("high", "i4")]), lambda a: a["low"][7:], np.asarray),
    "a memoryview, cast": (lambda: NUMBERS, lambda a: memoryview(a).cast("B").cast("q")[3:9], np.asarray),
    "a memoryview of a buffer": (lambda: memoryview(NUMBERS).cast("B"), lambda m: m[80:160].toreadonly(), np.asarray),
    "a frombuffer": (lambda: NUMBERS, lambda a: np.frombuffer(a, "i8", 50, 80), np.asarray),
    "an iterator": (lambda: NUMBERS, lambda a: a.flat, lambda flat: np.asarray(flat[5:9])),
    "in a cycle": (lambda: NUMBERS, lambda a: Node(a[3:]), lambda node: node.value),
    "a DLPack exchange": (lambda: NUMBERS, dlpack, np.asarray),
    "a slice of a column of a table": (table, lambda t: t["n"].slice(7, 100), lambda c: c.to_numpy()),
    "a chunk of a column": (table, lambda t: t["half"].chunk(0)[5:], lambda c: c.to_numpy()),
    "a buffer of an Arrow array": (table, lambda t: t["n"].chunk(0).buffers()[1], lambda b: np.frombuffer(b, "i8")),
    "a sliced buffer": (table, lambda t: t["n"].chunk(0).buffers()[1].slice(80), lambda b: np.frombuffer(b, "i8")),
    "numpy of an Arrow array": (table, lambda t: t["n"].chunk(0).to_numpy()[9:], np.asarray),
    "strings of a table": (
        table,
        lambda t: t["text"].slice(ROWS - 5),
        lambda c: np.array([int(text[4:]) for text in c.to_pylist()]),
    ),
    "a frame's values": (lambda: pd.DataFrame({"a": NUMBERS, "b": NUMBERS}), lambda f: f["a"].values[5:], np.asarray),
    "an index": (lambda: pd.Series(1, index=NUMBERS), lambda s: s.index[4:], np.asarray),
    "polars, sliced": (table, polars_slice, np.asarray),
    "one of a list": (lambda: [NUMBERS, {"x": NUMBERS + 1}], lambda v: v[1]["x"][2:], np.asarray),
}


def fill_to_the_brim(path: str) -> None:
    """Another client puts until nothing fits any more."""
    with connect(path, name="filler") as filler:
        for nbytes in (4 << 20, 256 << 10, 8192, 64):
            while True:
                try:
                    filler.put(np.full(nbytes, 0xAB, "u1"), timeout=0)
                except StoreFullError:
                    break


@pytest.mark.parametrize("name", DERIVED)
def test_whatever_is_made_from_a_view_keeps_the_object(
    server: StoreServer, wait_until: Callable[..., Any], name: str
) -> None:
    make, derive, read = DERIVED[name]
    with connect(server.socket_path, name="other") as other:
        store = connect(server.socket_path, name="viewer")
        object_id = other.put(make())
        value = store.get(object_id)
        derived = derive(value)
        expected = np.array(read(derived))
        del value
        gc.collect()
        store.flush()
        assert other.stats()["pins"] == 1, "the first view has gone, not the last"
        other.delete(object_id)
        fill_to_the_brim(server.socket_path)
        assert (read(derived) == expected).all()
        store.close()
        assert other.stats()["deleted_but_pinned_by"] == ["viewer"]
        fill_to_the_brim(server.socket_path)
        assert (read(derived) == expected).all()
        del store, derived
        gc.collect()
        wait_until(lambda: other.stats()["pins"] == 0)
        assert other.stats()["deleted_but_pinned"] == 0


def test_views_outlive_the_server() -> None:
    with StoreServer("8 MB") as server:
        store = connect(server.socket_path)
        view = store.get(store.put(NUMBERS))[5:]
        writable = store.get(store.put(NUMBERS), writable=True)
    assert (view == NUMBERS[5:]).all(), "mapped memory stays"
    writable[:5] = -1
    assert writable[:6].tolist() == [-1] * 5 + [5]
    store.close()
    assert (view == NUMBERS[5:]).all()


def test_each_of_many_views_counts(store: Store, wait_until: Callable[..., Any]) -> None:
    object_id = store.put(NUMBERS)
    views = [store.get(object_id)[i:] for i in range(200)]
    random.Random(1).shuffle(views)
    store.delete(object_id)
    while views:
        assert store.stats()["deleted_but_pinned"] == 1
        view = views.pop()
        assert (view == NUMBERS[-len(view) :]).all()
        del view
        del views[-20:]
    wait_until(lambda: store.stats()["deleted_but_pinned"] == 0)
    assert store.stats()["object_nbytes"] == 0


def churn(path: str, seed: int, rounds: int) -> None:
    """Puts, gets, slices, deletes, and now and then a fork that does the same; nothing is left of it."""
    rng = random.Random(seed)
    with connect(path, name=f"churn {seed}") as store:
        ids: list[ObjectID] = []
        views: list[Any] = []
        for _ in range(rounds):
            work = rng.random()
            if work < 0.4 or not ids:
                value = rng.randrange(1000)
                ids.append(store.put(np.full(rng.choice([3, 1000, 30_000]), value), key=str(value)))
            elif work < 0.7:
                view = store.get(rng.choice(ids))
                start = rng.randrange(len(view))
                views.append((view[0].item(), view[start : start + 50][::2]))
            elif work < 0.9:
                store.delete(ids.pop(rng.randrange(len(ids))))
            elif views:
                value, view = views.pop(rng.randrange(len(views)))
                assert (view == value).all()
        assert all((view == value).all() for value, view in views)
        store.delete(ids)


def test_threads_processes_and_forks_leave_nothing(
    server: StoreServer,
    store: Store,
    child: Callable[..., Any],
    wait_until: Callable[..., Any],
    check: Callable[[], None],
) -> None:
    kept = store.get(store.put(NUMBERS))[1:]
    children = [child("churn_with_forks", server.socket_path, seed) for seed in range(2)]
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            churn(server.socket_path, seed, 400)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    for process in children:
        assert process.wait(30) == 0, process.stdout.read()
    wait_until(lambda: server.stats()["clients"] == 1)
    check()
    stats = store.stats()
    assert (stats["pins"], stats["reserved"], stats["objects"], stats["deleted_but_pinned"]) == (1, 0, 1, 0)
    assert stats["used"] - stats["leased_nbytes"] - stats["object_nbytes"] < 4096, "room that is nobody's"
    assert (kept == NUMBERS[1:]).all()
