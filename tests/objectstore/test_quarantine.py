"""Clients that the server hangs up on: what they may still see or write stays theirs while their processes live."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.objectstore import Store, StoreFullError, StoreServer, connect
from holdfast.objectstore.protocol import Op, pack

MIB = 1 << 20


@pytest.fixture
def server() -> Iterator[StoreServer]:
    """A store that moves nothing to disk, so that it can be filled."""
    with StoreServer(64 << 20, spill=False) as server:
        yield server


def fill(store: Store) -> tuple[list[Any], str]:
    """Puts until nothing fits any more; the ids, and what the store said then."""
    ids = []
    for nbytes in (MIB, 8192):
        while True:
            try:
                ids.append(store.put(np.full(nbytes, 99, "u1"), timeout=0))
            except StoreFullError as error:
                text = str(error)
                break
    return ids, text


@pytest.mark.parametrize("how", ["garbage", "unread replies"])
def test_it_keeps_its_views_and_its_reservations_until_its_process_ends(
    server: StoreServer,
    store: Store,
    child: Callable[..., Any],
    wait_until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    with store.batch():
        extra = [store.put(i) for i in range(2000)]
    object_id = store.put(np.ones(3_000_000))
    with caplog.at_level(logging.WARNING, "holdfast.objectstore"):
        process = child("be_hung_up_on", server.socket_path, object_id, how)
        process.stdout.readline()
        wait_until(lambda: server.stats()["clients"] == 1)
    assert "Closing the store's connection to client 'victim'" in caplog.text
    assert f"is kept until process {process.pid} ends" in caplog.text
    stats = server.stats()
    assert (stats["quarantined"], stats["pins"], stats["reserved"]) == (1, 1, 1)
    store.delete([object_id, *extra])
    filling, text = fill(store)
    assert "client 'victim (hung up on)' 8.0 MB not yet sealed" in text
    assert "24.0 MB deleted but still viewed by 'victim (hung up on)'" in text
    process.send_signal(signal.SIGUSR1)
    assert float(process.stdout.readline()) == 3_000_000, "others' bytes show in its view"
    assert all((store.get(i) == 99).all() for i in filling), "it wrote into others' objects"
    process.kill()
    wait_until(lambda: server.stats()["quarantined"] == 0)
    wait_until(lambda: server.stats()["pins"] == 0)
    stats = server.stats()
    assert (stats["reserved"], stats["deleted_but_pinned"]) == (0, 0)
    store.delete(filling)
    store.close()
    wait_until(lambda: server.stats()["used"] == 0)


def test_who_waits_for_that_room_gets_it_when_the_process_ends(
    server: StoreServer, store: Store, child: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    object_id = store.put(np.ones(6_000_000))
    process = child("be_hung_up_on", server.socket_path, object_id, "garbage")
    process.stdout.readline()
    wait_until(lambda: server.stats()["quarantined"] == 1)
    store.delete(object_id)
    with pytest.raises(StoreFullError):
        store.put(np.zeros(40 * MIB, "u1"), timeout=0)
    process.kill()
    assert store.get(store.put(np.zeros(40 * MIB, "u1"), timeout=20)).nbytes == 40 * MIB


def test_nothing_is_kept_for_a_process_that_has_ended(
    server: StoreServer, store: Store, child: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    object_id = store.put(np.ones(1000))
    process = child("be_hung_up_on", server.socket_path, object_id, "exits")
    assert process.wait(20) == 0
    wait_until(lambda: server.stats()["clients"] == 1 and server.stats()["quarantined"] == 0)
    stats = server.stats()
    assert (stats["pins"], stats["reserved"]) == (0, 0)


def test_nothing_is_kept_where_the_process_cannot_be_watched(
    server: StoreServer,
    store: Store,
    child: Callable[..., Any],
    wait_until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(pid: int) -> int:
        raise OSError("out of descriptors")

    monkeypatch.setattr(os, "pidfd_open", fail)
    process = child("be_hung_up_on", server.socket_path, store.put(np.ones(1000)), "garbage")
    process.stdout.readline()
    wait_until(lambda: server.stats()["clients"] == 1)
    stats = server.stats()
    assert (stats["quarantined"], stats["pins"], stats["reserved"]) == (0, 0, 0)


def test_several_clients_of_one_process_share_a_descriptor(server: StoreServer, wait_until: Callable[..., Any]) -> None:
    stores = [connect(server.socket_path) for _ in range(5)]
    held = [store.create(10) for store in stores]
    for store in stores:
        store._connection._socket.sendall(pack(["nonsense"]))
    wait_until(lambda: server.stats()["clients"] == 0)
    assert (server.stats()["quarantined"], server.stats()["reserved"]) == (5, 5)
    del held
    for store in stores:
        store.close()
    open_files = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    assert open_files.count("anon_inode:[pidfd]") == 1


def test_who_holds_nothing_is_gone_at_once(server: StoreServer, wait_until: Callable[..., Any]) -> None:
    with connect(server.socket_path) as store:
        store._connection._socket.sendall(pack([Op.GET, 1, b"short", None, []]))
        wait_until(lambda: server.stats()["clients"] == 0)
        assert server.stats()["quarantined"] == 0
