"""``put`` of what lies in the arena: it isn't copied, and lives as long as anybody wants it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from same import assert_same

from holdfast.objectstore import ObjectID, ObjectNotFoundError, Store, StoreProtocolError, StoreServer, connect
from holdfast.objectstore.core.sharing import Sharing
from holdfast.objectstore.shared.layout import Layout, Segment, lay_out

polars = pytest.importorskip("polars")
sparse = pytest.importorskip("scipy.sparse")

N = 100_000
LITTLE = 64 << 10
NUMBERS = np.arange(float(N))
TEXTS = pa.array([None if i % 1000 == 7 else f"text {i}" for i in range(N)])
WITH_NULLS = pa.array(NUMBERS, mask=np.arange(N) % 10 == 3)
LISTS = pa.ListArray.from_arrays(pa.array(np.arange(0, N + 1, 2, dtype="int32")), pa.array(NUMBERS))
TABLE = pa.table({"numbers": NUMBERS, "nulls": WITH_NULLS, "texts": TEXTS}, metadata={"made": "here"})
CHUNKED = pa.concat_tables([TABLE, TABLE.slice(500, 50_000), TABLE.slice(0, 3)])
FRAME = pd.DataFrame({"a": NUMBERS, "b": NUMBERS + 1, "c": np.arange(N)})
ARROW_FRAME = TABLE.to_pandas(types_mapper=pd.ArrowDtype)

#: What is put, and what of it is put again.
CASES: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "array": (NUMBERS, lambda value: value),
    "slice of an array": (NUMBERS, lambda value: value[1001:-77]),
    "other shape": (NUMBERS, lambda value: value.reshape(-1, 100)[3:]),
    "other type": (NUMBERS, lambda value: value.view("M8[ns]")[5:]),
    "Fortran order": (np.asfortranarray(NUMBERS.reshape(100, -1)), lambda value: value),
    "columns of an array in Fortran order": (np.asfortranarray(NUMBERS.reshape(-1, 4)), lambda value: value[:, 1:3]),
    "structured": (np.zeros(N, [("a", "i4"), ("b", "U3")]), lambda value: value[10:]),
    "masked": (np.ma.masked_array(NUMBERS, NUMBERS > 50), lambda value: value),
    "memoryview": (memoryview(bytes(2 * N)), lambda value: value[100:]),
    "memoryview with a shape": (memoryview(NUMBERS), lambda value: value),
    "buffer": (pa.py_buffer(bytes(2 * N)), lambda value: value.slice(1000)),
    "pieces in a dict": (NUMBERS, lambda value: {"x": value[:20_000], "y": [value[20_000:50_000], 1], "z": value[:9]}),
    "the same piece often": (NUMBERS, lambda value: [value[:20_000] for _ in range(100)]),
    "pieces of objects in a list": ([NUMBERS, NUMBERS + 1], lambda value: [value[1], value[0][::-1][::-1]]),
    "table": (TABLE, lambda value: value),
    "column": (TABLE, lambda value: value.column("texts")),
    "columns": (TABLE, lambda value: value.select(["texts", "nulls"])),
    "slice of a table": (TABLE, lambda value: value.slice(40, 90_000)),
    "chunked table": (CHUNKED, lambda value: value),
    "slice of a chunked table": (CHUNKED, lambda value: value.slice(99_000, 30_000)),
    "batch": (TABLE, lambda value: value.to_batches()[0]),
    "Arrow array": (TABLE, lambda value: value.column("numbers").chunk(0)[800:]),
    "list array": (LISTS, lambda value: value),
    "dictionary": (TEXTS.dictionary_encode(), lambda value: value),
    "struct": (pa.StructArray.from_arrays([NUMBERS, TEXTS], ["a", "b"]), lambda value: value[8:90_000]),
    "views of texts": (TEXTS.cast(pa.string_view()), lambda value: value[7:]),
    "tensor": (pa.Tensor.from_numpy(NUMBERS.reshape(100, -1)), lambda value: value),
    "frame": (FRAME, lambda value: value),
    "series": (FRAME, lambda value: value["b"]),
    "rows of a series": (FRAME, lambda value: value["b"][100:90_000]),
    "Arrow-backed frame": (ARROW_FRAME, lambda value: value),
    "Arrow-backed series": (ARROW_FRAME, lambda value: value["texts"]),
    "rows of an Arrow-backed frame": (ARROW_FRAME, lambda value: value[800:90_000]),
    "sparse": (sparse.csr_array(NUMBERS.reshape(100, -1)), lambda value: value),
    "polars frame": (polars.DataFrame({"a": NUMBERS}), lambda value: value),
    "polars frame with texts": (polars.DataFrame({"a": NUMBERS, "b": TEXTS}), lambda value: value),
    "polars series": (polars.Series("a", NUMBERS), lambda value: value[50:]),
}


@pytest.mark.parametrize("name", CASES)
def test_what_lies_in_the_arena_is_not_copied_again(
    name: str, store: Store, taken: Callable[[], int], check: Callable[[], None], wait_until: Callable[..., Any]
) -> None:
    value, part_of = CASES[name]
    base = store.put(value)
    part = part_of(store.get(base))
    expected = part_of(value)
    before = taken()
    object_id = store.put(part)
    check()
    # A bitmap that doesn't begin with a byte has to be made anew: one bit in 64 of what it is for.
    assert taken() - before < LITTLE
    assert store.stats()["shared_nbytes"] >= 100_000
    assert_same(store.get(object_id), expected)
    mine = store.get(object_id, writable=True)
    assert_same(mine, expected)
    if isinstance(mine, np.ndarray):
        mine[...] = np.zeros((), mine.dtype)
    elif isinstance(mine, memoryview):
        mine.cast("B")[:] = bytes(mine.nbytes)
    del mine
    assert_same(store.get(object_id), expected)
    assert bytes(store.get_buffer(object_id)) == store.encode(part).to_bytes()
    (listed,) = [item for item in store.list() if item["id"] == object_id.hex()]
    assert listed["nbytes"] == store.encode(part).nbytes
    del part
    store.delete(base)
    wait_until(lambda: store.stats()["pins"] == 0)
    store.put(np.full(1_000_000, 7.0))  # onto whatever is free now
    check()
    assert_same(store.get(object_id), expected)
    store.delete(object_id)
    store.delete([ObjectID.fromhex(item["id"]) for item in store.list()])
    wait_until(lambda: taken() == 0, "everything is free")
    assert store.stats()["shared_nbytes"] == 0
    assert not store._holdings.views, "what nobody looks at is still noted"


@pytest.mark.parametrize(
    "part_of",
    [
        lambda store, view: view.reshape(-1, 100)[:, :50],
        lambda store, view: view[::2],
        lambda store, view: view + 0,
        lambda store, view: view.tobytes(),
        lambda store, view: store.create(N)[0],
        lambda store, view: np.negative(view, out=store.get(store.put(view), writable=True)),
    ],
    ids=["rows cut short", "every other", "made of it", "bytes", "still to be sealed", "written to"],
)
def test_what_is_no_piece_of_an_object_is_copied(
    part_of: Callable[[Store, Any], Any], store: Store, taken: Callable[[], int], check: Callable[[], None]
) -> None:
    view = store.get(store.put(NUMBERS))
    part = part_of(store, view)
    before = taken()
    object_id = store.put(part)
    check()
    assert taken() - before >= len(part) * 8 / 8
    assert np.array_equal(np.asarray(store.get(object_id)), np.asarray(part))


def test_a_sealed_array_is_shared_like_any_other(store: Store, taken: Callable[[], int]) -> None:
    array, pending = store.create(N)
    array[:] = NUMBERS
    pending.seal()
    before = taken()
    object_id = store.put({"half": array[: N // 2]})
    assert taken() - before < LITTLE
    pending = None  # type: ignore[assignment]
    del array
    assert (store.get(object_id)["half"] == NUMBERS[: N // 2]).all()


def test_only_what_is_shared_outlives_the_object_that_it_came_from(
    store: Store, taken: Callable[[], int], check: Callable[[], None], wait_until: Callable[..., Any]
) -> None:
    table = pa.table({name: np.random.default_rng(0).random(500_000) for name in "abcdefgh"})
    base = store.put(table)
    whole = taken()
    column = store.put(store.get(base)["c"])
    store.delete(base)
    wait_until(lambda: taken() < whole / 8 + LITTLE, "all but one column is free")
    check()
    assert taken() > whole / 9
    # There is room for one of these behind the table. The other one goes to where five columns were.
    created = [store.create(5 * 495_000, timeout=0) for _ in range(2)]
    assert store.get(column).equals(table["c"])
    del created
    store.delete(column)
    wait_until(lambda: taken() == 0)


def test_an_object_that_borrows_from_a_borrower_needs_neither(
    store: Store, taken: Callable[[], int], check: Callable[[], None], wait_until: Callable[..., Any]
) -> None:
    first = store.put(NUMBERS)
    second = store.put({"most": store.get(first)[1000:], "own": NUMBERS + 1})
    third = store.put([store.get(second)["most"][:50_000], store.get(second)["own"][50_000:]])
    before = taken()
    fourth = store.put(store.get(third)[0][10_000:20_000])
    assert taken() - before < LITTLE
    for object_id in (first, third, second):
        store.delete(object_id)
        check()
        assert (store.get(fourth) == NUMBERS[11_000:21_000]).all()
    wait_until(lambda: taken() < 80_000 + LITTLE, "only the last one's bytes are left")
    store.delete(fourth)
    wait_until(lambda: taken() == 0)


def test_views_of_either_keep_only_that(
    store: Store, taken: Callable[[], int], check: Callable[[], None], wait_until: Callable[..., Any]
) -> None:
    base = store.put(NUMBERS)
    object_id = store.put(store.get(base)[50_000:])
    whole, half = store.get(base), store.get(object_id)[:10]
    store.delete([base, object_id])
    check()
    assert (whole == NUMBERS).all()
    del whole
    wait_until(lambda: taken() < 400_000 + LITTLE)
    assert (half == NUMBERS[50_000:50_010]).all()
    del half
    wait_until(lambda: taken() == 0)


def test_another_process_reads_it_and_shares_it_on(
    server: StoreServer, store: Store, child: Callable[..., Any], check: Callable[[], None]
) -> None:
    object_id = store.put({"x": store.get(store.put(NUMBERS))[20_000:]})
    process = child("share_and_wait", server.socket_path, object_id)
    answer = process.stdout.readline().split()
    theirs = ObjectID.fromhex(answer[0])
    assert answer[1] == "shared"
    store.delete(object_id)
    process.send_signal(signal.SIGKILL)
    process.wait()
    check()
    assert (store.get(theirs) == NUMBERS[30_000:]).all()


def test_an_object_that_was_deleted_before_it_came_vanishes(
    store: Store, taken: Callable[[], int], check: Callable[[], None]
) -> None:
    view = store.get(store.put(NUMBERS))
    before = taken()
    object_id = store.new_id()
    store.delete(object_id)
    store.put(view[10:], object_id=object_id)
    check()
    assert taken() == before
    with pytest.raises(ObjectNotFoundError):
        store.get(object_id)


def test_one_that_comes_twice_is_there_once(store: Store, taken: Callable[[], int], check: Callable[[], None]) -> None:
    view = store.get(store.put(NUMBERS))
    before = taken()
    object_id = store.put(view[10:])
    assert store.put(view[10:], object_id=object_id) == object_id
    check()
    assert taken() - before < LITTLE
    assert (store.get(object_id) == NUMBERS[10:]).all()


def test_what_the_server_does_not_know_any_more_is_copied(
    store: Store, taken: Callable[[], int], check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    view = store.get(store.put(NUMBERS))
    holder = object()
    for own in (1, 100_000):  # in a lease, and in an extent of its own
        store._holdings.views.clear()
        store._holdings.views.add(holder, store.new_id(), ((64, view.ctypes.data - store.arena_address, view.nbytes),))
        before = taken()
        object_id = store.put([view, np.zeros(own)])
        check()
        assert taken() - before >= view.nbytes
        assert store.stats()["reserved"] == 0
        assert_same(store.get(object_id), [NUMBERS, np.zeros(own)])


def test_another_store_of_this_process_has_its_own_view_of_things(
    server: StoreServer, store: Store, taken: Callable[[], int]
) -> None:
    view = store.get(store.put(NUMBERS))
    before = taken()
    with connect(server.socket_path) as other:
        assert (other.get(other.put(view)) == NUMBERS).all()
    assert taken() - before >= view.nbytes, "it was copied, as if it came from anywhere"


def test_a_full_store_says_what_is_counted_twice(store: Store) -> None:
    view = store.get(store.put(np.zeros(5_000_000)))
    store.put(view)
    with pytest.raises(Exception, match=r"80\.0 MB \(2 objects\); 40\.0 MB of it are shared, and counted more than"):
        store.create(5_000_000, timeout=0)


# Segments


def test_segments_cover_the_encoding_in_order() -> None:
    shared = [Segment(128, 10_000, 70), Segment(320, 5_000, 64)]
    segments = lay_out(450, 64_000, 128 + 64 + 450 - 384, shared)
    assert segments == (
        Segment(0, 64_000, 128),
        Segment(128, 10_000, 70),
        Segment(256, 64_128, 64),
        Segment(320, 5_000, 64),
        Segment(384, 64_192, 66),
    )
    assert [zeros for _, zeros in Layout(450, segments).with_gaps()] == [0, 58, 0, 0, 0]
    assert [zeros for _, zeros in Layout(256, lay_out(256, 0, 128, [Segment(128, 10_000, 70)])).with_gaps()] == [0, 58]


@pytest.mark.parametrize(
    ("nbytes", "own_nbytes", "shared"),
    [
        (200, 72, [(0, 128)]),
        (200, 72, [(60, 128)]),
        (200, 100, [(64, 128)]),
        (200, 64, [(64, 137)]),
        (200, 64, [(64, 0)]),
        (1000, 64, [(64, 100), (128, 100)]),
        (1000, 64, [(640, 100), (64, 100)]),
    ],
    ids=["no header", "unaligned", "too much of its own", "too long", "empty", "overlapping", "out of order"],
)
def test_segments_that_do_not_fit_are_refused(nbytes: int, own_nbytes: int, shared: list[tuple[int, int]]) -> None:
    with pytest.raises(StoreProtocolError):
        lay_out(nbytes, 64_000, own_nbytes, [Segment(start, 0, length) for start, length in shared])


# Stretches

LINES = 50
ranges = st.tuples(st.integers(0, LINES - 1), st.integers(1, LINES)).map(
    lambda pair: (64 * pair[0] + pair[1] % 7, min(64 * (LINES - pair[0]) - pair[1] % 7, 64 * pair[1] - 5))
)


def lines(offset: int, nbytes: int) -> Iterator[int]:
    return iter(range(offset // 64, (offset + nbytes + 63) // 64))


@given(st.lists(st.tuples(ranges, st.integers(0, 5))))
def test_what_leaves_frees_what_nobody_else_uses(steps: list[tuple[tuple[int, int], int]]) -> None:
    freed: list[int] = []
    sharing = Sharing(64 * LINES, lambda offset, nbytes: freed.extend(lines(offset, nbytes)))
    users = [0] * LINES
    inside: list[tuple[int, int]] = []
    for used, leaves in steps:
        sharing.enter(*used)
        inside.append(used)
        for line in lines(*used):
            users[line] += 1
        for _ in range(min(leaves, len(inside))):
            used = inside.pop(leaves * 7 % len(inside))
            freed.clear()
            sharing.leave(*used)
            gone = []
            for line in lines(*used):
                users[line] -= 1
                gone += [line] if not users[line] else []
            assert freed == gone
        counted = [0] * LINES
        for start, end, count in sharing.stretches():
            for line in lines(start, end - start):
                counted[line] = count
        assert counted == users
        assert sharing.shared_nbytes == 64 * sum(max(0, count - 1) for count in users)
