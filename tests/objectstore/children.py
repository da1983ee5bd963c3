"""What the tests' other processes do: ``python children.py FUNCTION SOCKET ...``, a line for each answer."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sys
import time
from typing import Any

import numpy as np

from holdfast.objectstore import ObjectID, StoreClosedError, connect
from holdfast.objectstore.protocol import Op, pack


def say(*words: object) -> None:
    print(*words, flush=True)


def read_and_answer(path: str, object_id: str) -> None:
    """Reads an object, and puts another that is made of it."""
    with connect(path, name="reader") as store:
        view = store.get(ObjectID.fromhex(object_id), timeout=20)
        say(store.address_in_arena(view.ctypes.data), view.sum(), store.put(view[:10] * 2))


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


def work_until_killed(path: str, seed: str) -> None:
    """Does a bit of everything, as fast as it can."""
    rng = random.Random(seed)
    store = connect(path, name=f"victim {seed}")
    kept: list[Any] = []
    ids: list[ObjectID] = []
    say("ready")
    while True:
        size = rng.choice([10, 1000, 20_000, 300_000])
        ids.append(store.put(np.full(size, int(seed))))
        if rng.random() < 0.5:
            kept.append(store.get(rng.choice(ids))[: size // 2])
        if rng.random() < 0.3:
            array, pending = store.create((size,))
            array[0] = 1
            if rng.random() < 0.5:
                ids.append(pending.seal())
            kept.append(array)
        if len(ids) > 10:
            store.delete(ids[:9])
            kept, ids = kept[-5:], ids[9:]


def stop_reading(path: str) -> None:
    """Connects, and does nothing more."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    say("ready")
    time.sleep(1000)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
