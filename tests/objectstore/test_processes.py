"""Several processes: what they share, and what is left of those that are killed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from forking import in_fork

from holdfast.objectstore import ObjectID, Store, StoreClosedError, StoreError, StoreServer, connect


def test_another_process_reads_in_place(store: Store, server: StoreServer, child: Callable[..., Any]) -> None:
    object_id = store.put(np.arange(1_000_000.0))
    process = child("read_and_answer", server.socket_path, object_id)
    inside, total, doubled = process.stdout.readline().split()
    assert (inside, float(total)) == ("True", 499_999_500_000.0)
    assert process.wait(20) == 0
    assert store.get(ObjectID.fromhex(doubled)).tolist() == [2.0 * i for i in range(10)]


def test_a_killed_client_loses_what_it_held_and_nothing_else(
    store: Store, server: StoreServer, child: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    object_id = store.put(np.ones(200_000))
    view = store.get(object_id)
    process = child("hold_everything", server.socket_path, object_id)
    sealed = ObjectID.fromhex(process.stdout.readline().strip())
    wait_until(lambda: server.stats()["waiting_gets"] == 1)
    assert server.stats()["reserved"] == 2
    assert server.stats()["pins"] == 2
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: server.stats()["clients"] == 1)
    stats = server.stats()
    assert (stats["pins"], stats["reserved"], stats["waiting_gets"], stats["leased_nbytes"]) == (1, 0, 0, 0)
    assert store.get(sealed) == 5, "what was sealed before stays"
    assert view.sum() == 200_000


def test_a_stopped_client_stalls_nobody(store: Store, server: StoreServer, child: Callable[..., Any]) -> None:
    process = child("stop_reading", server.socket_path)
    process.stdout.readline()
    os.kill(process.pid, signal.SIGSTOP)
    for i in range(100):
        assert store.get(store.put(i)) == i


def test_a_forked_child_is_told_to_connect_itself(store: Store) -> None:
    object_id = store.put(1)

    def put_many() -> None:
        with store.batch():
            store.put(2)

    uses: list[Callable[[], object]] = [lambda: store.get(object_id), put_many, lambda: store.create(3), store.stats]
    with store._connection._send_lock, store._connection._lock, store._holdings._lock, store._writer.lock:
        answers = [in_fork(use) for use in uses]
    assert [answer for answer in answers if "connect again in the child" not in answer] == []
    assert all(answer.startswith("StoreClosedError") for answer in answers)
    assert store.get(object_id) == 1


def test_what_a_forked_child_does_is_nothing_to_its_parents_views(store: Store, wait_until: Callable[..., Any]) -> None:
    views = [store.get(store.put(np.ones(400_000))) for _ in range(2)]
    array, pending = store.create(10)

    def let_go() -> float:
        nonlocal array, pending
        total = float(views.pop().sum())
        del array, pending
        gc.collect()
        store.close()
        return total

    assert in_fork(let_go) == "400000.0"
    wait_until(lambda: store.stats()["pins"] == 2, "what was lent to the child has come back")
    stats = store.stats()
    assert (stats["pins"], stats["reserved"], stats["clients"]) == (2, 1, 1)
    array[:] = 1
    assert store.get(pending.seal()).sum() == 10


def test_a_child_keeps_what_it_sees_of_a_killed_parent(
    store: Store, server: StoreServer, child: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    object_id = store.put(np.ones(1000))
    leased = store.stats()["leased_nbytes"]
    process = child("hold_and_fork", server.socket_path, object_id)
    grandchild, total, error = process.stdout.readline().split(maxsplit=2)
    try:
        assert float(total) == 1000
        assert "connect again in the child" in error
        wait_until(lambda: server.stats()["pins"] == 2, "the view, and what was lent to the child")
        process.kill()
        wait_until(lambda: server.stats()["clients"] == 1)
        stats = server.stats()
        assert (stats["quarantined"], stats["pins"], stats["reserved"]) == (1, 2, 1)
        (item,) = [item for item in server.list_objects() if item["id"] == object_id.hex()]
        assert item["pinned_by"] == ["victim (disconnected)"]
    finally:
        os.kill(int(grandchild), signal.SIGKILL)
    wait_until(lambda: server.stats()["quarantined"] == 0)
    stats = server.stats()
    assert (stats["pins"], stats["reserved"], stats["leased_nbytes"]) == (0, 0, leased)
    assert process.stdout.read() == ""  # until the grandchild is gone


def test_the_command_serves_and_cleans_up(socket_path: str, wait_until: Callable[..., Any]) -> None:
    command = [sys.executable, "-m", "holdfast.objectstore"]
    process = subprocess.Popen(
        [*command, "--capacity", "32MiB", "--socket", socket_path], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"serving 33.6 MB at {socket_path}\n"
        with connect(socket_path, name="etl") as store:
            view = store.get(store.put(np.zeros(10_000), key="zeros"))
            shown = subprocess.run([*command, "stats", socket_path], capture_output=True, text=True, check=True).stdout
            assert "33.6 MB" in shown
            assert "etl, zeros, numpy.ndarray; pinned by etl" in shown
            as_json = [*command, "stats", socket_path, "--json"]
            assert '"pinned_by": ["etl"]' in subprocess.run(as_json, capture_output=True, text=True, check=True).stdout
            second = subprocess.run([*command, "--socket", socket_path], capture_output=True, text=True, check=False)
            assert second.returncode == 1
            assert "another store serves" in second.stderr
            del view
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert not os.path.exists(socket_path)
        failed = subprocess.run([*command, "stats", socket_path], capture_output=True, text=True, check=False)
        assert failed.returncode == 1
        assert "no store serves" in failed.stderr
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_a_killed_server_leaves_no_memory_and_its_socket_is_replaced(
    socket_path: str, wait_until: Callable[..., Any]
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast.objectstore", "--capacity", "32MiB", "--socket", socket_path],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        with connect(socket_path) as store:
            view = store.get(store.put(np.arange(1000)))
            process.kill()
            process.wait()
            with pytest.raises(StoreClosedError, match=r"is gone|has closed"):
                store.get(store.new_id())
            assert view.sum() == 499_500
            del view
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    with pytest.raises(StoreError, match="no store serves"):
        connect(socket_path)
    with StoreServer("8 MB", socket_path), connect(socket_path) as store:
        assert store.get(store.put(1)) == 1
