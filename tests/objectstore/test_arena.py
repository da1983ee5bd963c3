"""The arena's memory: made in huge pages where the kernel can, and mapped so that they can be mapped as such."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from holdfast.objectstore import StoreServer, connect
from holdfast.objectstore.memory.arena import Arena
from holdfast.objectstore.memory.headroom import Headroom
from holdfast.objectstore.system import pages as system_pages
from holdfast.objectstore.system.file_maps import FileMap, memory_file
from holdfast.objectstore.system.pages import HUGE_PAGE, PAGE, is_hole, is_resident

MIB = 1 << 20
CAPACITY = 64 * MIB


@pytest.fixture
def pages() -> Iterator[Arena]:
    made = Arena(4 * HUGE_PAGE)
    yield made
    made.close()


@pytest.fixture
def unit(pages: Arena) -> int:
    """What one access maps of memory that was made in the largest pages there are: how many bytes."""
    return HUGE_PAGE if pages.make_huge_page(3 * HUGE_PAGE) else PAGE


def mapped(address: int, nbytes: int) -> int:
    """The bytes of a range that this process's page tables hold."""
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        pagemap.seek(address // PAGE * 8)
        entries = pagemap.read(nbytes // PAGE * 8)
    return PAGE * sum(entry >> 63 for (entry,) in struct.iter_unpack("Q", entries))


def test_one_access_maps_a_page_that_was_made_as_a_huge_one(pages: Arena, unit: int) -> None:
    pages.make_huge_page(HUGE_PAGE)
    looking = FileMap(pages.fd, 0, pages.nbytes, flags=mmap.MAP_SHARED, writable=True, alignment=HUGE_PAGE)
    view = np.ctypeslib.as_array((ctypes.c_ubyte * pages.nbytes).from_address(looking.address))
    assert view[HUGE_PAGE + 5 * PAGE] == 0
    view[HUGE_PAGE + 5 * PAGE] = 1
    assert mapped(looking.address, pages.nbytes) == unit
    assert pages.view[HUGE_PAGE + 5 * PAGE] == 1


def test_a_huge_page_takes_up_the_memory_of_one_and_changes_no_byte(pages: Arena, unit: int) -> None:
    before = pages.resident_nbytes()
    pages.make_huge_page(0)
    assert pages.resident_nbytes() == before + unit
    pages.view[100] = 1
    pages.make_huge_page(0)  # there is one already
    assert pages.resident_nbytes() == before + unit
    assert pages.view[100] == 1


def test_a_kernel_that_makes_none_is_no_error(pages: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_pages, "_MADV_COLLAPSE", 12345)
    assert not pages.make_huge_page(0)
    assert pages.resident_nbytes() <= PAGE
    assert pages.populate(0, HUGE_PAGE)
    assert pages.resident_nbytes() == HUGE_PAGE


def test_part_of_a_huge_page_can_be_given_back(pages: Arena) -> None:
    pages.make_huge_page(0)
    pages.populate(0, HUGE_PAGE)
    pages.view[: 2 * PAGE] = b"x" * (2 * PAGE)
    pages.punch(PAGE, HUGE_PAGE - PAGE)
    assert pages.resident_nbytes() == PAGE
    assert bytes(pages.view[: 2 * PAGE]) == b"x" * PAGE + bytes(PAGE)


def test_a_map_begins_where_it_is_asked_to_and_leaves_nothing() -> None:
    def maps() -> int:
        with open("/proc/self/maps") as lines:
            return sum("holdfast-test" in line for line in lines)

    fd = memory_file("holdfast-test", 3 * PAGE)
    try:
        kept = [FileMap(fd, 0, 3 * PAGE, flags=mmap.MAP_SHARED, writable=False, alignment=HUGE_PAGE) for _ in range(3)]
        assert all(each.address % HUGE_PAGE == 0 for each in kept)
        assert maps() == 3
        kept.clear()
        assert maps() == 0
        with pytest.raises(OSError, match="mapping memory"):
            FileMap(-1, 0, PAGE, flags=mmap.MAP_SHARED, writable=False, alignment=HUGE_PAGE)
        with pytest.raises(OSError, match="mapping memory"):
            FileMap(-1, 0, PAGE, flags=mmap.MAP_SHARED, writable=False)
    finally:
        os.close(fd)


def test_what_is_there_and_what_is_not_is_known_page_by_page(pages: Arena) -> None:
    pages.populate(PAGE, 3 * PAGE)
    assert is_resident(pages.fd, PAGE, 3 * PAGE)
    assert is_resident(pages.fd, PAGE + 1, 1)
    assert not is_resident(pages.fd, PAGE, 3 * PAGE + 1)
    assert not is_resident(pages.fd, 0, 2 * PAGE)
    assert is_hole(pages.fd, 0, PAGE)
    assert is_hole(pages.fd, 4 * PAGE, HUGE_PAGE)
    assert not is_hole(pages.fd, 0, PAGE + 1)
    assert not is_hole(pages.fd, 3 * PAGE + 7, HUGE_PAGE)


def test_the_headroom_is_of_huge_pages(unit: int, wait_until: Callable[..., Any]) -> None:
    with StoreServer(CAPACITY) as server, connect(server.socket_path) as store:
        store.stats()
        wait_until(lambda: not server._upkeep.headroom.busy, "the end of the pass")  # type: ignore[union-attr]
        start = store._maps.writable_address
        before = mapped(start, CAPACITY // 4)
        store._maps.writable_view[5 * HUGE_PAGE] = 0
        assert mapped(start, CAPACITY // 4) == before + unit


def test_a_large_object_makes_those_that_are_not_there(unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Headroom, "touch", lambda self: None)
    with StoreServer(CAPACITY) as server, connect(server.socket_path) as store, connect(server.socket_path) as reader:
        values = np.arange(20 * MIB, dtype="u1")
        object_id = store.put(values)
        seen = reader.get(object_id)
        middle = seen[10 * MIB :].ctypes.data // HUGE_PAGE * HUGE_PAGE
        assert seen[10 * MIB] == values[10 * MIB]
        nearby = mapped(middle, HUGE_PAGE)
        assert nearby == HUGE_PAGE if unit == HUGE_PAGE else nearby < HUGE_PAGE
        assert (seen == values).all()
