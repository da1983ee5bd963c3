"""Whatever refers to bytes of the arena after the call that named them keeps them, until it is done with them.

======================================  ====================================================  ==========================
what refers to the bytes                what keeps them, until when                           tested
======================================  ====================================================  ==========================
a view, also a private one (``get``)    a pin, as long as the view or anything made of it     here, ``test_lifetimes``
a view of a file (a spilled object)     the map itself: a file is never written to again      here, ``test_spill``
an array to be filled (``create``)      its extent, as long as the array                      ``test_store``
a fork's views and arrays               pins that are kept until the fork has ended           ``test_forks``
what a process without connection has   its lifeline, as long as it has the map               ``test_orphans``
a put that is writing to a lease        the connection isn't closed before it's done          here
a put that shares what is there         its value's pins, until the server has counted it     ``test_sharing_races``
a batch that is copied to files         nobody: a copy of what was deleted meanwhile is       here, ``test_spill_races``
                                        thrown away
a transfer to another host              a pin, until the other end has confirmed              ``tests/node``
a small result that rides along         nobody: its bytes are a copy                          here
======================================  ====================================================  ==========================

In each test the reader is held up, what it refers to is deleted, and its room is filled by somebody else.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import until

from holdfast import Client, LocalCluster, wait
from holdfast.objectstore import (
    Encoded,
    ObjectNotFoundError,
    Store,
    StoreClosedError,
    StoreFullError,
    StoreServer,
    connect,
    encode,
)
from holdfast.objectstore.spill.files import SpillDirectory

MIB = 1 << 20
WORDS = 500_000  # of eight bytes
DEADLINE_SECONDS = 20.0


@pytest.fixture(params=[False, True], ids=["memory", "spilling"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreServer]:
    with StoreServer(32 * MIB, spill=request.param, spill_directory=tmp_path) as server:
        yield server


@pytest.fixture
def other(server: StoreServer) -> Iterator[Store]:
    with connect(server.socket_path, name="other") as store:
        yield store


def refill(store: Store) -> list[Any]:
    """Writes all over what is free, more than once if there is a disk; the ids of what is there."""
    ids = []
    for nbytes in (MIB, 64 << 10, 4096):
        with contextlib.suppress(StoreFullError):
            for _ in range(80):
                ids.append(store.put(np.full(nbytes, 0x99, "u1"), timeout=0))
    return ids


def check(store: Store, ids: list[Any]) -> None:
    for object_id in ids:
        assert (store.get(object_id, timeout=DEADLINE_SECONDS) == 0x99).all()


READER = """
import os, signal, sys
import numpy as np
from holdfast.objectstore import ObjectID, connect

store = connect(sys.argv[1], name="reader")
what, object_id = sys.argv[2], ObjectID.fromhex(sys.argv[3])
value = store.get_item(object_id, "b") if what == "item" else store.get(object_id, writable=what == "private")
if what == "private":
    value[:10] = 7  # a page of its own; all others are the arena's
if what == "slice":
    value = value[5:-5][::3]
if what == "table":
    value = value["b"].slice(5).to_numpy()
print("ready", flush=True)
sys.stdin.readline()
print(int((value != 7).sum()), len(value), flush=True)
"""


@pytest.mark.parametrize("what", ["view", "slice", "private", "item", "table", "spilled"])
def test_a_reader_that_is_stopped_reads_what_it_had(server: StoreServer, other: Store, what: str) -> None:
    value: Any = np.full(WORDS, 7)
    if what == "item":
        value = {"a": np.full(WORDS, 1), "b": value}
    if what == "table":
        pyarrow = pytest.importorskip("pyarrow")
        value = pyarrow.table({"a": np.full(WORDS, 1), "b": value})
    object_id = other.put(value)
    if what == "spilled":
        refill(other)
    command = [sys.executable, "-c", READER, server.socket_path, what, object_id.hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        os.kill(reader.pid, signal.SIGSTOP)
        other.delete([meta.object_id for meta in server.inventory() if meta.object_id is not None])
        ids = refill(other)
        os.kill(reader.pid, signal.SIGCONT)
        reader.stdin.write("\n")
        reader.stdin.flush()
        wrong, count = reader.stdout.readline().split()
        assert (wrong, int(count) > 100_000) == ("0", True)
        check(other, ids)
    until(lambda: server.stats()["pins"] == 0, "its pins go with it")


class SlowlyEncoded(Encoded):
    """Is in the middle of being written until it's told to go on."""

    def __init__(self, flat: bytes) -> None:
        super().__init__(flat, type_name="bytes")
        self.begun, self.go = threading.Event(), threading.Event()

    def write_into(self, target: Any) -> None:
        self.begun.set()
        assert self.go.wait(DEADLINE_SECONDS)
        super().write_into(target)


@pytest.mark.parametrize("nbytes", [1000, 2 * MIB], ids=["into a lease", "into room of its own"])
def test_a_store_that_is_closed_while_it_writes_writes_into_nobodys_object(
    server: StoreServer, other: Store, nbytes: int
) -> None:
    store = connect(server.socket_path, name="closed")
    slow = SlowlyEncoded(encode(bytes(nbytes)).to_bytes())

    def put(store: Store, encoded: Encoded) -> None:
        with contextlib.suppress(StoreClosedError):
            store.put_encoded(encoded)

    writing = threading.Thread(target=put, args=(store, slow))
    writing.start()
    assert slow.begun.wait(DEADLINE_SECONDS)
    closing = threading.Thread(target=store.close)
    closing.start()
    ids = refill(other)
    slow.go.set()
    writing.join()
    closing.join()
    check(other, ids)
    del slow, store
    gc.collect()
    until(lambda: server.stats()["clients"] == 1, "it's closed when it has written")
    until(lambda: server.stats()["reserved"] == server.stats()["quarantined"] == 0, "nothing of it is left")


def test_what_is_deleted_while_it_is_copied_to_a_file_is_not_read_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copier reads what others write by then: the room was given to them."""
    begun, go = threading.Event(), threading.Event()
    write = SpillDirectory.write

    def write_slowly(*arguments: Any) -> Any:
        begun.set()
        assert go.wait(DEADLINE_SECONDS)
        return write(*arguments)

    with StoreServer(32 * MIB, spill_directory=tmp_path) as server, connect(server.socket_path) as store:
        monkeypatch.setattr(SpillDirectory, "write", write_slowly)
        ids = [store.put(np.full(4 * MIB, number, "u1")) for number in range(7)]
        assert begun.wait(DEADLINE_SECONDS)
        states = {item["id"]: item["state"] for item in store.list()}
        spilling = [object_id for object_id in ids if states[object_id.hex()] == "spilling"]
        assert spilling
        store.delete(spilling)
        fresh = [store.put(np.full(4 * MIB, 50 + number, "u1"), timeout=0) for number in range(len(spilling))]
        go.set()
        until(lambda: not any(item["state"] == "spilling" for item in store.list()), "the batch has ended")
        for object_id in spilling:
            with pytest.raises(ObjectNotFoundError):
                store.get(object_id)
        for number, object_id in enumerate(ids):
            if object_id not in spilling:
                assert (store.get(object_id) == number).all()
        for number, object_id in enumerate(fresh):
            assert (store.get(object_id) == 50 + number).all()


def test_small_results_are_copies_of_what_they_show(tmp_path: Path) -> None:
    """A part of a dependency that rides along, and one that is stored a while later, when that is gone."""
    with (
        LocalCluster(1, 1, object_store_memory="32 MiB", spill_directory=tmp_path) as cluster,
        Client(cluster) as client,
    ):
        whole = client.submit(np.full, WORDS, 7)
        parts = client.map(lambda array, n: array[n : n + 100], [whole] * 20, range(20))
        wait(parts)
        del whole
        results = client.map(np.full, [WORDS] * 16, range(100, 116), pure=False)
        wait(results)
        again = client.map(lambda array: array.copy(), parts)
        assert all((part == 7).all() for part in client.gather([*parts, *again]))
        for number, result in enumerate(results):
            assert (result.result(DEADLINE_SECONDS) == 100 + number).all()


def forked(look: Callable[[], object]) -> tuple[int, int, int]:
    """A child that says what ``look`` returns when it's asked: its id, and the ends of the pipes."""
    asked, ask = os.pipe()
    told, tell = os.pipe()
    if (pid := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            os.read(asked, 1)
            os.write(tell, str(look()).encode())
        os._exit(0)
    os.close(asked)
    os.close(tell)
    return pid, ask, told


@pytest.mark.parametrize("writable", [False, True], ids=["read-only", "private"])
def test_a_fork_reads_what_was_spilled_when_its_file_is_gone(tmp_path: Path, writable: bool) -> None:
    with StoreServer(32 * MIB, spill_directory=tmp_path) as server, connect(server.socket_path) as store:
        object_id = store.put(np.full(WORDS, 7))
        ids = [store.put(np.full(30 * MIB, 0x99, "u1"), timeout=DEADLINE_SECONDS)]  # there is no room for both
        values = [store.get(object_id, writable=writable)]
        assert not store.address_in_arena(values[0].ctypes.data)
        pid, ask, told = forked(lambda: int((values[0] != 7).sum()))
        values.clear()
        store.delete([object_id, *ids])
        refill(store)
        os.write(ask, b"?")
        assert os.read(told, 100) == b"0"
        os.waitpid(pid, 0)
        os.close(ask)
        os.close(told)
        until(lambda: server.stats()["deleted_but_pinned"] == 0, "its file is gone when the fork has ended")
