"""Private maps: how many there are, where they begin, which of their pages were written, and what a put makes of it."""

from __future__ import annotations

import gc
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdfast.objectstore import Store, StoreServer, connect
from holdfast.objectstore.client import arena_maps, private_maps
from holdfast.objectstore.client.private_maps import COPIED_NBYTES_MAX, PrivateMaps
from holdfast.objectstore.system import page_table
from holdfast.objectstore.system.file_maps import FileMap, memory_file
from holdfast.objectstore.system.page_table import PageTable
from holdfast.objectstore.system.pages import HUGE_PAGE

PAGE = mmap.PAGESIZE
MEDIUM = COPIED_NBYTES_MAX  # words: eight times as many bytes as are copied
N = 100_000


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], PrivateMaps]:
    """Stores that are connected from now on are in a process that may have so many maps."""

    def limited(max_map_count: int) -> PrivateMaps:
        maps = PrivateMaps(max_map_count)
        monkeypatch.setattr(arena_maps, "MAPS", maps)
        return maps

    return limited


def maps_of_this_process() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


# How many


def test_a_hundred_thousand_small_ones_take_no_maps(store: Store) -> None:
    ids = [store.put(np.full(100, i)) for i in range(1000)]
    before = maps_of_this_process()
    values = [store.get(object_id, writable=True) for object_id in ids for _ in range(100)]
    assert maps_of_this_process() < before + 100
    for i, value in enumerate(values):
        value[0] = i
    assert [int(value[0]) for value in values] == list(range(100_000))
    assert all(value[1] == i // 100 for i, value in enumerate(values))


def test_beyond_a_share_of_the_limit_they_are_copied(server: StoreServer, maps: Callable[[int], PrivateMaps]) -> None:
    others = maps_of_this_process()
    limited = maps(2 * others + 4000)
    with connect(server.socket_path) as store:
        object_id = store.put(np.arange(MEDIUM // 8 + 1))
        before = maps_of_this_process()
        values = [store.get(object_id, writable=True) for _ in range(10_000)]
        assert 1000 < len(limited) <= others + 2000
        assert maps_of_this_process() - before <= len(limited) + 100  # what is copied comes from the heap
        for i, value in enumerate(values):
            value[0] = i
        assert [int(value[0]) for value in values] == list(range(10_000))
        assert all(value[-1] == MEDIUM // 8 for value in values)
        del values
        gc.collect()
        assert len(limited) == 0
        value = store.get(object_id, writable=True)
        assert value[-1] == MEDIUM // 8
        assert len(limited) == 1


def test_maps_that_others_have_count(server: StoreServer, maps: Callable[[int], PrivateMaps]) -> None:
    limited = maps(maps_of_this_process())
    with connect(server.socket_path) as store:
        value = store.get(store.put(np.arange(N)), writable=True)
        assert len(limited) == 0
        assert not store.address_in_arena(value.ctypes.data)
        value[0] = 5
        assert value.sum() == np.arange(N).sum() + 5


@pytest.mark.parametrize("n", [N, 1_000_000])
def test_what_the_kernel_refuses_to_map_is_copied(store: Store, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    object_id = store.put(np.arange(n))

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(private_maps._PrivateMap, "__init__", refuse)
    first, second = store.get(object_id, writable=True), store.get(object_id, writable=True)
    first[:] = 1
    assert (second == np.arange(n)).all()
    assert not store.address_in_arena(first.ctypes.data)


def test_another_reason_than_too_little_memory_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    object_id = store.put(np.arange(N))

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(private_maps._PrivateMap, "__init__", refuse)
    with pytest.raises(PermissionError):
        store.get(object_id, writable=True)


def test_a_limit_that_cant_be_read_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_maps, "Path", lambda name: Path("/nowhere"))
    assert private_maps._kernels_limit() == 65_530


def test_what_is_copied_keeps_nothing_in_the_store(store: Store) -> None:
    object_id = store.put({"a": np.arange(100), "b": [np.ones(100)]})
    value = store.get(object_id, writable=True)
    store.flush()
    assert store.stats()["pins"] == 0
    store.delete(object_id)
    store.put(np.zeros(1_000_000))
    value["b"][0][0] = 5
    assert value["a"].sum() + value["b"][0].sum() == 4950 + 104


# Where


@pytest.mark.parametrize("n", [N, 400_000, 1_000_000])
def test_huge_pages_can_be_mapped_as_such(store: Store, n: int) -> None:
    store.put(b"something before it")
    object_id = store.put(np.arange(n))
    view, mine = store.get(object_id), store.get(object_id, writable=True)
    offset = view.ctypes.data - store.arena_address
    assert mine.ctypes.data % (HUGE_PAGE if n > N else PAGE) == offset % (HUGE_PAGE if n > N else PAGE)
    (line,) = [
        line for line in Path("/proc/self/maps").read_text().splitlines() if _begins_before(line, mine.ctypes.data)
    ]
    start, end = (int(part, 16) for part in line.split()[0].split("-"))
    assert line.split()[1] == "rw-p"
    if n > N:
        assert start % HUGE_PAGE == 0
        assert end % HUGE_PAGE == 0


def _begins_before(line: str, address: int) -> bool:
    start, end = (int(part, 16) for part in line.split()[0].split("-"))
    return start <= address < end


def test_a_map_takes_one_of_the_maps_that_a_process_may_have(store: Store) -> None:
    ids = [store.put(np.arange(300_000)) for _ in range(10)]

    def maps(*words: str) -> int:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return sum(all(word in line for word in words) for line in lines)

    reserved = maps("---p")  # what a map was aligned in, if it were left
    values = [store.get(object_id, writable=True) for object_id in ids]
    assert 1 <= maps("rw-p", "holdfast-arena") <= len(values)
    assert maps("---p") == reserved
    del values
    gc.collect()
    assert maps("rw-p", "holdfast-arena") == 0


def test_what_is_copied_or_cant_be_changed_takes_no_map(store: Store) -> None:
    import pyarrow as pa

    table = pa.table({"a": np.arange(N)})
    before = len(private_maps.MAPS)
    for value in (table, table.to_batches()[0], bytes(N), bytearray(N), "text" * N):
        object_id = store.put(value)
        got = store.get(object_id, writable=True)
        assert got == value
        assert len(private_maps.MAPS) == before
        if isinstance(value, bytearray):
            got[0] = 1
            assert store.get(object_id) == value
    assert store.address_in_arena(store.get(store.put(table), writable=True)["a"].chunk(0).buffers()[1].address)


# What was written


@pytest.fixture
def pages() -> Iterator[FileMap]:
    """A private map of sixteen pages."""
    fd = memory_file("holdfast-test", 16 * PAGE)
    pages = FileMap(fd, 0, 16 * PAGE, flags=mmap.MAP_PRIVATE, writable=True)
    os.close(fd)
    yield pages
    del pages


def test_the_kernel_tells_which_pages_were_written(store: Store) -> None:
    mine = store.get(store.put(np.zeros(HUGE_PAGE, "u1")), writable=True)
    address = mine.ctypes.data
    with PageTable() as table:
        assert table.written(address, mine.nbytes) == []
        assert mine.sum() == 0
        assert table.written(address, mine.nbytes) == []
        for at in (0, 10_000, HUGE_PAGE - 1):
            mine[at] = 1
        pages = [(address + at) // PAGE * PAGE for at in (0, 10_000, HUGE_PAGE - 1)]
        assert table.written(address, mine.nbytes) == pages
        assert table.written(address + 10_000, 1) == pages[1:2]
        assert table.written(address + 2 * PAGE + 10_000, 10) == []


def test_pages_that_were_swapped_out_were_written(tmp_path: Path) -> None:
    present, swapped, of_a_file = 1 << 63, 1 << 62, 1 << 61
    entries = [0, present, swapped, present | of_a_file, swapped | of_a_file, of_a_file, present | 5, swapped | 7]
    path = tmp_path / "pagemap"
    path.write_bytes(struct.pack(f"={len(entries)}Q", *entries))
    with PageTable(str(path)) as table:
        assert table.written(0, len(entries) * PAGE) == [1 * PAGE, 2 * PAGE, 6 * PAGE, 7 * PAGE]
        assert table.written(0, len(entries) * PAGE + 1) is None, "it ends before"
    with PageTable(str(tmp_path / "nothing")) as table:
        assert table.written(0, PAGE) is None
        assert not table.is_mapped(0)


def test_a_page_table_that_says_nothing_is_not_believed(tmp_path: Path) -> None:
    assert page_table.is_truthful()
    path = tmp_path / "pagemap"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # zeros, whatever is asked
    assert not page_table.is_truthful(str(path))
    assert not page_table.is_truthful(str(tmp_path / "nothing"))


# Put again


def test_what_was_not_written_is_shared_and_what_was_is_not(store: Store, taken: Callable[[], int]) -> None:
    base = store.put(np.arange(N))
    mine = store.get(base, writable=True)
    assert mine.sum() == np.arange(N).sum()
    before = taken()
    clean, part = store.put(mine), store.put({"x": mine[N // 4 : N // 2]})
    assert taken() - before < 2 * PAGE
    mine[N - 1] = -1
    written, first_half = store.put(mine), store.put(mine[: N // 2])
    assert N * 8 <= taken() - before < N * 9, "one copy of the whole, none of the half that wasn't written"
    mine[:] = 7
    assert (store.get(clean) == np.arange(N)).all()
    assert (store.get(part)["x"] == np.arange(N // 4, N // 2)).all()
    assert store.get(written).tolist() == [*range(N - 1), -1]
    assert (store.get(first_half) == np.arange(N // 2)).all()
    assert (store.get(base) == np.arange(N)).all()


def test_of_a_frame_each_block_counts_for_itself(store: Store, taken: Callable[[], int]) -> None:
    frame = pd.DataFrame({"a": np.arange(N), "b": np.arange(float(N)), "c": np.arange(N).astype("M8[s]")})
    mine = store.get(store.put(frame), writable=True)
    before = taken()
    mine.loc[:, "b"] = -1.0  # whose pages at the ends have ends of the others
    mine.loc[0, "b"] = 5.0
    other = store.put(mine)
    assert N * 8 <= taken() - before < N * 9
    frame["b"] = -1.0
    frame.loc[0, "b"] = 5.0
    pd.testing.assert_frame_equal(store.get(other), frame)


def test_a_page_at_the_end_counts_by_what_is_written_there(store: Store, taken: Callable[[], int]) -> None:
    mine = store.get(store.put(np.arange(N)), writable=True)
    part = mine[1001:-1001]
    before = taken()
    mine[1000] = mine[-1001] = -1
    assert (store.get(store.put(part)) == np.arange(1001, N - 1001)).all()
    assert taken() - before < 2 * PAGE
    mine[1001] = -1
    assert store.get(store.put(part))[0] == -1
    assert taken() - before > N


def test_where_nothing_tells_it_is_copied(
    store: Store, taken: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = store.get(store.put(np.arange(N)), writable=True)
    before = taken()
    monkeypatch.setattr(arena_maps, "is_truthful", lambda: False)
    assert (store.get(store.put(mine)) == np.arange(N)).all()
    assert taken() - before >= N * 8


def test_what_shares_data_can_be_written_too(store: Store, taken: Callable[[], int]) -> None:
    """An object in several segments: each is a map of its own."""
    base = store.get(store.put(np.arange(N)))
    shared = store.put([base[: N // 2], base[: N // 2], base[N // 2 :]])
    one, same, other = store.get(shared, writable=True)
    one[0] = other[0] = -1
    assert same[0] == 0, "plain pickles make two arrays of two views as well"
    assert [part[0] for part in store.get(shared)] == [0, 0, N // 2]
    before = taken()
    again = store.put([one, same])
    assert N * 4 <= taken() - before < N * 5
    assert [part[0] for part in store.get(again)] == [-1, 0]


def test_another_store_of_the_process_copies(server: StoreServer, store: Store, taken: Callable[[], int]) -> None:
    mine = store.get(store.put(np.arange(N)), writable=True)
    before = taken()
    with connect(server.socket_path) as other:
        assert (other.get(other.put(mine)) == np.arange(N)).all()
        assert taken() - before >= N * 8


# Files


def test_what_was_moved_to_disk_can_be_written(tmp_path: Path) -> None:
    with StoreServer(8 << 20, spill_directory=tmp_path) as server, connect(server.socket_path) as store:
        small, large = store.put(np.arange(1000)), store.put(np.arange(N))
        others = [store.put(np.zeros(1 << 20, "u1")) for _ in range(16)]
        for object_id, n in ((small, 1000), (large, N)):
            one, two = store.get(object_id, writable=True), store.get(object_id, writable=True)
            assert not store.address_in_arena(one.ctypes.data), "it is in a file"
            one[:] = -1
            two[0] = 5
            assert (one == -1).all()
            assert two.tolist() == [5, *range(1, n)]
            again = store.put(one)
            assert (store.get(object_id) == np.arange(n)).all()
            assert (store.get(again) == -1).all()
        store.delete(others)
