"""Clients without a connection: what they may still see or write stays theirs as long as they have it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.objectstore import Store, StoreFullError, StoreServer, connect
from holdfast.objectstore.shared.frames import pack
from holdfast.objectstore.shared.protocol import Op

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
    assert f"is kept while process {process.pid}, or a fork of it, may look at it" in caplog.text
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


def test_a_client_that_waits_for_that_room_gets_it_when_the_process_ends(
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


def test_what_a_process_looks_at_is_kept_when_it_closes_all_its_descriptors(
    server: StoreServer, store: Store, wait_until: Callable[..., Any]
) -> None:
    object_id = store.put(np.full(3_000_000, 7))
    script = (
        "import os, signal, sys\n"
        "from holdfast.objectstore import ObjectID, connect\n"
        f"view = connect({server.socket_path!r}).get(ObjectID.fromhex({object_id.hex()!r}))\n"
        "os.closerange(3, 1024)\n"
        "print('closed', flush=True)\n"
        "sys.stdin.readline()\n"
        "print((view != 7).sum(), flush=True)\n"
        "sys.stdin.readline()\n"
        "os._exit(0)\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "closed\n"
        wait_until(lambda: server.stats()["clients"] == 1)
        store.delete(object_id)
        fill(store)
        process.stdin.write("look\n")
        process.stdin.flush()
        assert process.stdout.readline() == "0\n", "others' bytes show in its view"
    wait_until(lambda: server.stats()["quarantined"] == 0)
    assert server.stats()["pins"] == 0


def test_what_a_living_process_looks_at_is_kept_however_its_connection_ends(
    server: StoreServer, store: Store, wait_until: Callable[..., Any]
) -> None:
    failing = connect(server.socket_path)
    object_id = store.put(np.ones(3_000_000))
    view, (array, pending) = failing.get(object_id), failing.create(10)
    failing._connection._fail("as if it were broken")
    wait_until(lambda: server.stats()["clients"] == 1)
    store.delete(object_id)
    fill(store)
    array[:] = 7
    assert (view == 1).all(), "others' bytes show in its view"
    assert (server.stats()["quarantined"], server.stats()["reserved"]) == (1, 1)
    failing.close()
    assert server.stats()["quarantined"] == 1, "it's closed, and has its views still"
    del view, array, pending, failing
    gc.collect()
    wait_until(lambda: server.stats()["quarantined"] == 0)
    assert (server.stats()["pins"], server.stats()["reserved"]) == (0, 0)


def test_a_clients_lifeline_is_closed_once_and_takes_no_bytes(
    server: StoreServer, wait_until: Callable[..., Any]
) -> None:
    def pipes() -> int:
        open_files = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        return sum(target.startswith("pipe:") for target in open_files)

    before = pipes()
    stores = [connect(server.socket_path) for _ in range(5)]
    held = [store.create(10) for store in stores]
    assert pipes() == before + 10, "both ends of each are in this process"
    for store in stores:
        store._connection._socket.sendall(pack(["nonsense"]))
        os.write(store._maps._lifeline_fd, bytes(10_000))
    wait_until(lambda: server.stats()["clients"] == 0)
    assert (server.stats()["quarantined"], server.stats()["reserved"]) == (5, 5)
    del held
    for store in stores:
        store.close()
    del store, stores
    wait_until(lambda: server.stats()["quarantined"] == 0)
    assert pipes() == before


def test_a_client_that_holds_nothing_is_gone_at_once(server: StoreServer, wait_until: Callable[..., Any]) -> None:
    with connect(server.socket_path) as store:
        store._connection._socket.sendall(pack([Op.GET, 1, b"short", None, []]))
        wait_until(lambda: server.stats()["clients"] == 0)
        assert server.stats()["quarantined"] == 0
