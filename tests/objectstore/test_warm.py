"""A process that writes large objects has their pages mapped before it writes; one that reads does not."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from holdfast.objectstore import Store, StoreServer, connect
from holdfast.objectstore.client import warm
from holdfast.objectstore.memory.arena import Arena
from holdfast.objectstore.system.pages import HUGE_PAGE, PAGE

MIB = 1 << 20
CAPACITY = 64 * MIB
HEADROOM = CAPACITY // 4


def mapped_nbytes(store: Store, offset: int = 0, nbytes: int = CAPACITY, *, to_read: bool = False) -> int:
    """The pages of the writable map, or of the other one, that this process's page tables hold."""
    start = store._maps.address if to_read else store._maps.writable_address
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        pagemap.seek((start + offset) // PAGE * 8)
        entries = pagemap.read(nbytes // PAGE * 8)
    return PAGE * sum(entry >> 63 for (entry,) in struct.iter_unpack("Q", entries))


def warming() -> bool:
    return any(thread.name == "holdfast-store-warm" for thread in threading.enumerate())


def test_the_headroom_is_mapped_before_the_first_large_object(wait_until: Callable[..., Any]) -> None:
    with StoreServer(CAPACITY) as server, connect(server.socket_path) as store:
        store.warm()
        wait_until(lambda: not warming(), "the end of the thread")
        assert HEADROOM - 2 * HUGE_PAGE <= mapped_nbytes(store) <= HEADROOM
        resident = os.fstat(server.arena_fd).st_blocks * 512
        assert resident <= HEADROOM  # mapping what isn't there would have made it


def test_huge_pages_are_mapped_to_be_read_too_before_anything_is_written_there(wait_until: Callable[..., Any]) -> None:
    scratch = Arena(HUGE_PAGE)
    kernel_makes_them = scratch.make_huge_page(0)
    scratch.close()
    with StoreServer(CAPACITY) as server, connect(server.socket_path) as store:
        wait_until(lambda: server.stats()["resident"] == HEADROOM, "the server's headroom")
        store.warm()
        wait_until(lambda: not warming(), "the end of the thread")
        mapped = mapped_nbytes(store, to_read=True)
        assert mapped == HEADROOM if kernel_makes_them else mapped < HEADROOM


def test_a_process_that_reads_and_writes_small_objects_maps_nothing_ahead(wait_until: Callable[..., Any]) -> None:
    with StoreServer(CAPACITY) as server, connect(server.socket_path) as store:
        store.get(store.put(b"small"))
        wait_until(lambda: server.stats()["resident"] > HEADROOM - 4 * MIB, "the server's headroom")
        assert not warming()
        assert mapped_nbytes(store) < MIB


def test_a_large_object_sets_it_going(wait_until: Callable[..., Any]) -> None:
    with StoreServer(CAPACITY) as server, connect(server.socket_path) as store:
        store.put(np.ones(8 * MIB, "u1"))
        wait_until(lambda: mapped_nbytes(store) > 8 * MIB + HEADROOM - 2 * HUGE_PAGE, "the headroom's map")
        wait_until(lambda: not warming(), "the end of the thread")


def test_mapping_changes_no_byte_and_maps_all_of_an_extent(store: Store) -> None:
    array, pending = store.create_buffer(9 * MIB + 12345)
    array[:3] = b"abc"
    assert pending._extent is not None
    offset = pending._extent.offset
    store._warmer.now(offset, 9 * MIB + 12345)
    assert mapped_nbytes(store, offset, 9 * MIB) == 9 * MIB
    assert bytes(array[:3]) == b"abc"
    assert not np.any(array[3:])
    del array
    pending.abort()


@pytest.mark.parametrize("broken", ["pagemap", "populate"])
def test_without_the_kernels_help_puts_are_right_all_the_same(
    store: Store, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken == "pagemap":
        really_open = os.open

        def refuse(path: Any, *arguments: Any, **keywords: Any) -> int:
            if path == "/proc/self/pagemap":
                raise PermissionError(path)
            return really_open(path, *arguments, **keywords)

        monkeypatch.setattr(warm.os, "open", refuse)
    else:
        monkeypatch.setattr(warm, "populate", lambda address, nbytes: False)
    values = np.arange(3 * MIB, dtype="u4")
    assert (store.get(store.put(values)) == values).all()


def test_closing_while_it_maps_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "_PAUSE_SECONDS_MIN", 30.0)
    with StoreServer(CAPACITY) as server, connect(server.socket_path) as store:
        store.warm()
        assert warming()
        store.close()
        assert not warming()


def test_a_store_that_dies_ends_it(wait_until: Callable[..., Any]) -> None:
    with StoreServer(CAPACITY) as server:
        store = connect(server.socket_path)
        store.warm()
    wait_until(lambda: not warming(), "the end of the thread")
    store.close()
