"""What the tests' other processes do: ``python children.py FUNCTION SOCKET ...``, a line for each answer."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from holdfast.objectstore import (
    ObjectID,
    ObjectNotFoundError,
    StoreClosedError,
    StoreFullError,
    StoreServer,
    connect,
)
from holdfast.objectstore.shared.frames import pack
from holdfast.objectstore.shared.protocol import Op


def say(*words: object) -> None:
    print(*words, flush=True)


def read_and_answer(path: str, object_id: str) -> None:
    """Reads an object, and puts another that is made of it."""
    with connect(path, name="reader") as store:
        view = store.get(ObjectID.fromhex(object_id), timeout=20)
        say(store.address_in_arena(view.ctypes.data), view.sum(), store.put(view[:10] * 2))


def share_and_wait(path: str, object_id: str) -> None:
    """Puts a part of an object, says whether that was shared, and waits to be killed."""
    store = connect(path, name="victim")
    view = store.get(ObjectID.fromhex(object_id), timeout=20)
    before = store.stats()["shared_nbytes"]
    shared = store.put(view["x"][10_000:])
    say(shared, "shared" if store.stats()["shared_nbytes"] > before else "copied")
    time.sleep(1000)


def share_and_check(path: str, seed: str, steps: str) -> None:
    """Puts ranges of numbers, and parts of those that it gets, over and over; each has to be the range that it was.

    Looks at more than the store has room for, so it lets go of that where a full store says that it's in the way.
    """
    rng = random.Random(int(seed))
    known: dict[ObjectID, tuple[int, int]] = {}
    views: list[tuple[int, int, np.ndarray]] = []

    def look_away() -> None:
        for first, count, view in views:
            assert np.array_equal(view, np.arange(first, first + count)), (first, count)
        views.clear()

    def put(value: Any) -> ObjectID:
        try:
            return store.put(value, timeout=2)
        except StoreFullError as error:
            if "walled in by" not in str(error) and "while it's looked at" not in str(error):
                raise
            look_away()
            return store.put(value, timeout=60)

    with connect(path, name=f"sharer {seed}", timeout=60) as store:
        for _ in range(int(steps)):
            kind = rng.random()
            if kind < 0.3 or not known:
                first, count = rng.randrange(1 << 40), rng.choice([100, 9_000, 50_000, 400_000])
                known[put(np.arange(first, first + count))] = first, count
            elif kind < 0.35:
                for object_id in rng.sample(sorted(known), len(known) // 2):
                    store.delete(object_id)
                    del known[object_id]
            else:
                object_id = rng.choice(list(known))
                first, count = known[object_id]
                value = store.get(object_id, writable=rng.random() < 0.1)
                value = value["part"] if isinstance(value, dict) else value
                assert np.array_equal(value, np.arange(first, first + count)), (first, count)
                skip = rng.randrange(count // 4 + 1)
                length = rng.randint(min(count - skip, count // 2), count - skip)
                part = value[skip : skip + length]
                part = {"part": part, "rest": np.zeros(rng.choice([1, 40_000]))} if rng.random() < 0.5 else part
                known[put(part)] = first + skip, length
                views.append((first, count, value))
            if len(views) > 10:
                look_away()
        store.delete(known)
    say("every range was right")


def hold_everything(path: str, object_id: str) -> None:
    """Takes one of each kind of thing that a client can hold, then waits to be killed."""
    store = connect(path, name="victim")
    held: list[Any] = [store.get(ObjectID.fromhex(object_id)), store.create((500_000,)), store.create((10,))]
    held.append([store.put(i) for i in range(10)])
    say(held[3][5])
    store.get(store.new_id(), timeout=1000)


def hold_and_fork(path: str, object_id: str) -> None:
    """Holds things, and has a child that outlives it."""
    store = connect(path, name="victim")
    view = store.get(ObjectID.fromhex(object_id))
    held = [store.create((10,)), store.put(1)]
    if os.fork() == 0:
        try:
            store.put(2)
        except StoreClosedError as error:
            say(os.getpid(), view.sum(), error)
    time.sleep(1000)
    del held


def be_hung_up_on(path: str, object_id: str, how: str) -> None:
    """Holds things, makes the server hang up, and looks at its view again for each SIGUSR1."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    store = connect(path, name="victim")
    view = store.get(ObjectID.fromhex(object_id))
    array, pending = store.create(1_000_000)
    sock = store._connection._socket
    if how == "exits":
        sock.sendall(bytes(3) + b"\x01\xc1")
        os._exit(0)
    say("ready")
    if how == "garbage":
        sock.sendall(bytes(3) + b"\x01\xc1")
    else:
        with contextlib.suppress(OSError):
            while True:
                sock.sendall(pack([Op.LIST, 1, 0]))
    while True:
        signal.sigwait([signal.SIGUSR1])
        array[:] = 7
        say(view.sum())
    del pending


def churn_with_forks(path: str, seed: str) -> None:
    """Works as the threads of the test do, while forks of it do too, some of them with views of their parent."""
    sys.path.insert(0, os.path.dirname(__file__))
    from test_lifetimes import churn

    with connect(path, name="parent") as store:
        object_id = store.put(np.arange(10_000))
        view = store.get(object_id)
        store.delete(object_id)
        pids = []
        for number in range(3):
            pids.append(os.fork())
            if not pids[-1]:
                try:
                    churn(path, 100 * int(seed) + number, 200)
                    os._exit(0 if view.sum() == 49_995_000 else 1)
                finally:
                    os._exit(2)
        churn(path, int(seed) + 50, 200)
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
        assert statuses == [0, 0, 0], statuses
        assert view.sum() == 49_995_000


def nursery(path: str) -> None:
    """Forks a process that works until it's killed for each seed that comes in, and says its id. Reaps the dead."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for seed in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.stdin.close()
            try:
                work_until_killed(path, int(seed))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        say(pid)


def work_until_killed(path: str, seed: int) -> None:
    """Does a bit of everything, as fast as it can. What of it is held in the end varies with the seed."""
    rng = random.Random(seed)
    store = connect(path, name=f"victim {seed}")
    kept: list[Any] = []
    ids = [store.put(seed)]

    def put() -> None:
        ids.append(store.put(np.full(rng.choice([10, 1000, 20_000, 300_000]), seed)))

    def put_batch() -> None:
        with store.batch():
            ids.extend(store.put(i) for i in range(rng.randrange(100)))

    def get() -> None:
        kept.append(store.get(rng.choice(ids)))
        if isinstance(kept[-1], np.ndarray):
            kept[-1] = kept[-1][: len(kept[-1]) // 2]

    def get_writable() -> None:
        value = store.get(rng.choice(ids), writable=True)
        if isinstance(value, np.ndarray):
            value[:] = 0
        kept.append(value)

    def create() -> None:
        array, pending = store.create((rng.choice([10, 20_000]),))
        array[0] = 1
        if rng.random() < 0.5:
            ids.append(pending.seal())
        kept.append((array, pending))

    def create_buffer() -> None:
        view, pending = store.create_buffer(rng.choice([100, 300_000]))
        view[:5] = b"hello"
        if rng.random() < 0.5:
            ids.append(pending.seal())
        kept.append((view, pending))

    def delete() -> None:
        store.delete([ids.pop(rng.randrange(len(ids))) for _ in range(len(ids) // 2)])

    def wait_for_an_object() -> None:
        with contextlib.suppress(ObjectNotFoundError):
            store.get(store.new_id(), timeout=rng.choice([0, 0.001, 0.02]))

    def wait_for_room() -> None:
        with contextlib.suppress(StoreFullError):
            store.create_buffer(63 << 20, timeout=rng.choice([0, 0.001, 0.02]))

    def put_again() -> None:
        value = store.get(rng.choice(ids))
        if isinstance(value, np.ndarray):
            ids.append(store.put(value[rng.randrange(len(value) // 2) :]))

    def look() -> None:
        store.stats()
        store.list()

    def forget() -> None:
        del kept[: len(kept) // 2]

    works = [put, put, put_batch, get, get, get_writable, create, create_buffer, delete, forget, look]
    works += [put_again, wait_for_an_object, wait_for_room]
    while True:
        with contextlib.suppress(StoreFullError):
            rng.choice(works)()
        if len(kept) > 20:
            kept.clear()


def ring(path: str, clients: str, rounds: str) -> None:
    """Many processes, each of which puts objects that its neighbour reads, checks and deletes, once all are there."""
    present = [ObjectID((1 << 64 | number).to_bytes(16, "big")) for number in range(int(clients))]

    def name_of(number: int, turn: int) -> ObjectID:
        return ObjectID((number * 1000 + turn + 1).to_bytes(16, "big"))

    def work(number: int) -> None:
        with connect(path, name=f"client {number}", timeout=60) as store:
            store.put(None, object_id=present[number])
            for each in present:
                store.get(each, timeout=60)
            for turn in range(int(rounds)):
                size = (10, 3000, 20_000)[(number + turn) % 3]
                store.put(np.full(size, number * turn), object_id=name_of(number, turn))
                theirs = name_of((number + 1) % int(clients), turn)
                assert (store.get(theirs, timeout=60) == (number + 1) % int(clients) * turn).all()
                store.delete(theirs)

    pids = []
    for number in range(int(clients)):
        pids.append(os.fork())
        if not pids[-1]:
            try:
                work(number)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
    right = [os.waitpid(pid, 0)[1] for pid in pids].count(0)
    with connect(path) as store:
        store.delete(present)
    say(f"{right} of {clients} found every value right")


def be_stopped(path: str, doing: str) -> None:
    """Is in the middle of something when it's stopped."""
    store = connect(path, name="stopped")
    if doing == "working":
        say("ready")
        work_until_killed(path, 1)
    held = [store.put(1)]
    sock = store._connection._socket
    if doing == "half a frame":
        sock.sendall(pack([Op.DELETE, 1, [bytes(16)] * 1000])[:9000])
    elif doing == "replies unread":
        for _ in range(2000):
            sock.sendall(pack([Op.STATS, 1]))
    say("ready")
    if doing == "waiting for room":
        held.append(store.create_buffer(40 << 20, timeout=1000))
    elif doing == "waiting for an object":
        store.get(store.new_id(), timeout=1000)
    time.sleep(1000)


def put_and_read_back(path: str, seed: str, nbytes: str) -> None:
    """Puts arrays and tables of so many bytes together, reads each again, in another order."""
    rng = np.random.default_rng(int(seed))
    put: list[tuple[ObjectID, int, int]] = []
    with connect(path, name=f"filler {seed}") as store:
        left = int(nbytes)
        while left > 0:
            count, start = int(rng.choice([100, 5000, 100_000, 400_000])), int(rng.integers(1 << 40))
            value = np.arange(start, start + count)
            put.append((store.put(pa.table({"x": value}) if len(put) % 2 else value), start, count))
            left -= value.nbytes
        for at in rng.permutation(len(put)):
            object_id, start, count = put[at]
            value = store.get(object_id)
            array = value["x"].to_numpy() if at % 2 else value
            assert np.array_equal(array, np.arange(start, start + count)), (seed, at)
        say("fine")


def change_counters(path: str, slots: str) -> None:
    """Raises and lowers all the counters of the row that is in this file."""
    with open(path, "r+b") as file:
        row = memoryview(mmap.mmap(file.fileno(), 0))[: 4 * int(slots)].cast("I")
    say("ready")
    while True:
        for slot in range(1, int(slots)):
            row[slot] ^= 1


def read_at_random(path: str, seed: str) -> None:
    """Reads objects of those that it's told of, holds each against its checksum, and some views of them again later."""
    rng = random.Random(int(seed))
    known: list[tuple[ObjectID, int]] = []
    told_all = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            object_id, checksum = line.split()
            known.append((ObjectID.fromhex(object_id), int(checksum)))
        told_all.set()

    def verify(value: np.ndarray[Any, Any], checksum: int) -> None:
        assert xxhash.xxh3_64_intdigest(value) == checksum, "these are other bytes"

    threading.Thread(target=listen, daemon=True).start()
    kept: list[tuple[np.ndarray[Any, Any], int]] = []
    in_arena = in_files = 0
    with connect(path, name=f"reader {seed}") as store:
        while not told_all.is_set() or in_arena + in_files < 300:
            if not known:
                continue
            object_id, checksum = known[-1 - int(rng.expovariate(0.02)) % len(known)]
            value = store.get(object_id)
            verify(value, checksum)
            if store.address_in_arena(value.ctypes.data):
                in_arena += 1
            else:
                in_files += 1
            kept.append((value, checksum))
            if len(kept) > 8:
                verify(*kept.pop(rng.randrange(len(kept))))
        for view in kept:
            verify(*view)
        say(in_arena, in_files)


def serve_with_small_files(path: str, directory: str, nbytes: str) -> None:
    """A store that may write no file larger than this."""
    with StoreServer("32 MiB", path, spill_directory=directory):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(nbytes), resource.RLIM_INFINITY))
        say("serving")
        time.sleep(1000)


def stop_reading(path: str) -> None:
    """Connects, and does nothing more."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    say("ready")
    time.sleep(1000)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
