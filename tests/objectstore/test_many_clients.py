"""Many clients at once, some of them slow or stopped, and strangers among them."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forking import in_fork

from holdfast.objectstore import Store, StoreServer, connect

CLIENTS = 64
MIB = 1 << 20


def test_sixty_four_processes_at_once_read_what_the_others_wrote(
    server: StoreServer,
    store: Store,
    child: Callable[..., Any],
    wait_until: Callable[..., Any],
    check: Callable[[], None],
) -> None:
    kept = store.get(store.put(np.arange(1000)))
    process = child("ring", server.socket_path, CLIENTS, 12)
    most = 0
    while process.poll() is None:
        most = max(most, server.stats()["clients"])
        assert store.get(store.put(most)) == most
        check()
    assert process.stdout.read() == f"{CLIENTS} of {CLIENTS} found every value right\n"
    assert process.returncode == 0
    assert most > CLIENTS // 2, "they were hardly there at once"
    wait_until(lambda: server.stats()["clients"] == server.stats()["pins"] == 1)
    stats = server.stats()
    assert (stats["reserved"], stats["deleted_but_pinned"]) == (0, 0)
    assert {item["owner"] for item in store.list()} == {"test"}
    assert (kept == np.arange(1000)).all()


@pytest.mark.parametrize(
    "doing",
    ["holding a lease", "half a frame", "replies unread", "waiting for room", "waiting for an object", "working"],
)
def test_a_client_stopped_in_the_middle_of_anything_stalls_nobody(
    server: StoreServer,
    store: Store,
    child: Callable[..., Any],
    wait_until: Callable[..., Any],
    check: Callable[[], None],
    doing: str,
) -> None:
    blocker = store.put(np.ones(50 * MIB if doing == "waiting for room" else 1, "u1"))
    process = child("be_stopped", server.socket_path, doing)
    process.stdout.readline()
    if doing == "waiting for room":
        wait_until(lambda: server.stats()["waiting_creates"] == 1)
    if doing == "waiting for an object":
        wait_until(lambda: server.stats()["waiting_gets"] == 1)
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    with connect(server.socket_path, name="late") as late:
        for i in range(100):
            object_id = store.put(np.full(100 * i, i), timeout=10)
            assert (late.get(object_id, timeout=10) == i).all()
            late.delete(object_id)
    check()
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: server.stats()["clients"] == 1)
    wait_until(lambda: server.stats()["pins"] == 0)
    check()
    store.delete(blocker)
    store.delete([meta.object_id for meta in server.inventory() if meta.object_id])
    assert store.get(store.put(np.ones(40 * MIB, "u1"), timeout=10))[-1] == 1


def test_room_for_a_stopped_client_goes_on_to_the_next(
    server: StoreServer, store: Store, child: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    blocker = store.put(np.ones(50 * MIB, "u1"))
    process = child("be_stopped", server.socket_path, "waiting for room")
    process.stdout.readline()
    wait_until(lambda: server.stats()["waiting_creates"] == 1)
    os.kill(process.pid, signal.SIGSTOP)
    with connect(server.socket_path, name="next") as other:
        (waiting, pending) = other.create_buffer(3 * MIB, timeout=10)  # overtakes
        store.delete(blocker)
        wait_until(lambda: server.stats()["waiting_creates"] == 0)  # it was given its room though it is stopped
        assert other.get(other.put(np.ones(4 * MIB, "u1"), timeout=10)).size == 4 * MIB
        waiting[:2] = b"ok"
        assert bytes(other.get(pending.seal(), timeout=10)[:2]) == b"ok"


@pytest.fixture
def public_directory() -> Iterator[str]:
    """A directory that everybody may enter."""
    directory = tempfile.mkdtemp(prefix="holdfast-test-", dir="/tmp")
    os.chmod(directory, 0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_kept_out_by_the_directory(server: StoreServer) -> None:
    assert stat.S_IMODE(os.stat(os.path.dirname(server.socket_path)).st_mode) == 0o700
    answer = in_fork(lambda: connect(server.socket_path), "nobody")
    assert answer.startswith("StoreError: ")
    assert "Permission denied" in answer
    assert server.stats()["clients"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_kept_out_by_its_credentials_where_the_directory_is_open(
    public_directory: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = os.path.join(public_directory, "store.sock")
    with StoreServer("8 MB", path) as server:
        assert "Permission denied" in in_fork(lambda: connect(path), "nobody"), "the socket's own mode"
        os.chmod(path, 0o666)
        with caplog.at_level(logging.WARNING, "holdfast.objectstore"):
            answer = in_fork(lambda: connect(path), "nobody")
        assert answer.startswith("StoreError: ")
        assert "another user" in answer
        assert f"of user {pwd.getpwnam('nobody').pw_uid}: it serves user {os.geteuid()}" in caplog.text
        assert server.stats()["clients"] == 0
        with connect(path) as store:
            assert store.get(store.put(1)) == 1
