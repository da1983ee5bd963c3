"""Processes that put parts of what they get, in a store that is too small for all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.objectstore import StoreServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    with StoreServer("24 MiB", spill_directory=tmp_path) as server:
        yield server


def test_many_clients_that_share_and_spill_read_what_was_put(
    server: StoreServer, child: Callable[..., Any], check: Callable[[], None], wait_until: Callable[..., Any]
) -> None:
    sharers = [child("share_and_check", server.socket_path, seed, 400) for seed in range(3)]
    shared = 0
    while any(sharer.poll() is None for sharer in sharers):
        check()
        shared = max(shared, server.stats()["shared_nbytes"])
    for sharer in sharers:
        assert sharer.stdout.read() == "every range was right\n"
    assert shared > 1 << 20
    assert server.stats()["spilled_total_nbytes"] > 0
    wait_until(lambda: server.stats()["used"] == server.stats()["spilled"] == 0, "everything is gone")
    assert server.stats()["shared_nbytes"] == 0
