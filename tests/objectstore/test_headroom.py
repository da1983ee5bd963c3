"""Free pages are made ahead of demand: up to a limit, only while the store is used, and nothing is left running."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from holdfast.objectstore import StoreServer, connect
from holdfast.objectstore.memory import filling, headroom
from holdfast.objectstore.memory.arena import Arena
from holdfast.objectstore.system.memory_limits import available_memory, memory_limit

MIB = 1 << 20
CAPACITY = 64 * MIB
HEADROOM = CAPACITY // 4


def resident(server: StoreServer) -> int:
    """The arena's memory, read without asking the server: a question would count as use."""
    return os.fstat(server.arena_fd).st_blocks * 512


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


@pytest.fixture
def quiet(wait_until: Callable[..., Any]) -> Iterator[Callable[[StoreServer], None]]:
    """Waits until a server has made its headroom and rests."""

    def wait(server: StoreServer) -> None:
        wait_until(lambda: not server._upkeep.headroom.busy, "the end of the pass")  # type: ignore[union-attr]

    yield wait
    wait_until(lambda: not any(name.startswith("holdfast-store") for name in threads()), "the end of all threads")


def test_a_store_that_nobody_uses_makes_no_pages() -> None:
    with StoreServer(CAPACITY) as server:
        assert not server._upkeep.headroom.busy  # type: ignore[union-attr]
        assert resident(server) == 0


def test_the_first_client_starts_it_and_it_ends_at_the_limit(quiet: Callable[[StoreServer], None]) -> None:
    with StoreServer(CAPACITY) as server, connect(server.socket_path) as store:
        store.stats()
        quiet(server)
        assert resident(server) == HEADROOM
        assert "holdfast-store-headroom" not in threads()


def test_what_is_taken_from_the_headroom_is_made_up_for(
    quiet: Callable[[StoreServer], None], wait_until: Callable[..., Any]
) -> None:
    with StoreServer(CAPACITY) as server, connect(server.socket_path) as store:
        object_id = store.put(np.zeros(10 * MIB, "u1"))
        wait_until(lambda: resident(server) > 10 * MIB + HEADROOM - filling._PIECE_NBYTES, "the headroom")
        store.delete(object_id)
        quiet(server)
        # A put of what was freed, and of what was made, takes pages that are there.
        before = resident(server)
        store.put(np.zeros(20 * MIB, "u1"))
        assert resident(server) == before


def test_little_memory_means_a_small_headroom(
    monkeypatch: pytest.MonkeyPatch, quiet: Callable[[StoreServer], None]
) -> None:
    monkeypatch.setattr(headroom, "available_memory", lambda: 60 * MIB)
    with StoreServer(CAPACITY) as server, connect(server.socket_path) as store:
        store.stats()
        quiet(server)
        assert 4 * MIB <= resident(server) <= 6 * MIB


def test_no_memory_means_no_headroom(monkeypatch: pytest.MonkeyPatch, quiet: Callable[[StoreServer], None]) -> None:
    monkeypatch.setattr(headroom, "available_memory", lambda: 0)
    with StoreServer(CAPACITY) as server, connect(server.socket_path) as store:
        store.stats()
        quiet(server)
        assert resident(server) == 0


def test_what_an_idle_store_gives_back_is_not_made_again_before_it_is_used(
    quiet: Callable[[StoreServer], None], wait_until: Callable[..., Any]
) -> None:
    with StoreServer(CAPACITY, trim_after_seconds=0.2) as server, connect(server.socket_path) as store:
        store.stats()
        wait_until(lambda: resident(server) > 0, "the first pages")
        wait_until(lambda: resident(server) == 0, "the trim")
        assert not server._upkeep.headroom.busy  # type: ignore[union-attr]
        store.stats()
        wait_until(lambda: resident(server) > 0, "pages after the next use")


def test_closing_while_pages_are_made_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "_PIECE_NBYTES", 64 << 10)
    with StoreServer(512 * MIB) as server, connect(server.socket_path) as store:
        store.stats()
        deadline = time.monotonic() + 20
        while not resident(server):
            assert time.monotonic() < deadline
    assert "holdfast-store-headroom" not in threads()


def test_what_was_written_to_meanwhile_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    arena = Arena(8 * MIB)
    made = []

    def make_huge_page(offset: int) -> bool:
        made.append(offset)
        if offset == 0:
            arena.view[3 * MIB] = 1  # somebody was given it, and writes
        return arena.populate(offset, 2 * MIB)

    monkeypatch.setattr(arena, "make_huge_page", make_huge_page)
    filling.fill(arena, [(0, 8 * MIB)], lambda: 8 * MIB, lambda _: False)
    assert made == [0, 4 * MIB, 6 * MIB]
    arena.close()


def test_without_huge_pages_all_is_made_of_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    arena = Arena(8 * MIB)
    tried = []

    def refuse(offset: int) -> bool:
        tried.append(offset)
        return not arena.populate(offset, filling.PAGE)  # as the kernel leaves it when it can't

    monkeypatch.setattr(arena, "make_huge_page", refuse)
    filling.fill(arena, [(0, 8 * MIB)], lambda: 8 * MIB, lambda _: False)
    assert tried == [0]
    assert arena.resident_nbytes() == 8 * MIB
    arena.close()


def test_a_hole_is_made_in_huge_pages_and_its_edges_in_small_pieces() -> None:
    huge = filling.HUGE_PAGE
    start, end = 3 * huge - 5 * filling.PAGE, 6 * huge + 300 * filling.PAGE
    for may_be_huge in (True, False):
        at, pieces = start, []
        while at < end:
            pieces.append(filling._piece(at, end, may_be_huge))
            assert at % huge + pieces[-1] <= huge
            at += pieces[-1]
        assert sum(pieces) == end - start
        assert pieces.count(huge) == (3 if may_be_huge else 0)
        assert all(piece == huge or piece <= filling._PIECE_NBYTES for piece in pieces)


def test_holes_are_the_whole_pages_between_what_is_there() -> None:
    page = filling.PAGE
    assert filling._holes((64, 10 * page), []) == [(page, 9 * page)]
    assert filling._holes((0, 10 * page), [(0, 2 * page), (5 * page, page)]) == [
        (2 * page, 3 * page),
        (6 * page, 4 * page),
    ]
    assert filling._holes((100, 64), []) == []


def test_available_memory_is_part_of_what_there_is() -> None:
    assert 0 < available_memory() <= memory_limit()
