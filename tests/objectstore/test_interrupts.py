"""An interrupt (Ctrl-C) anywhere in the client leaves a connection that works, and nothing held."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

import numpy as np
import pytest

from holdfast.objectstore import ObjectID, Store, StoreServer, connect
from tests.support.interrupts import Interrupt

LARGE = np.arange(1 << 17)


def put_small(store: Store, _: ObjectID) -> None:
    store.put(b"x" * 100)


def put_into_new_leases(store: Store, _: ObjectID) -> None:
    for _ in range(5):
        store.put(bytes(100 << 10))


def put_a_batch(store: Store, _: ObjectID) -> None:
    with store.batch():
        store.put(b"x")
        store.put(b"y")


def put_large(store: Store, _: ObjectID) -> None:
    store.put(LARGE)


def put_shared(store: Store, other: ObjectID) -> None:
    store.put(store.get(other)[100:90000])


def put_shared_and_large(store: Store, other: ObjectID) -> None:
    store.put((store.get(other)[100:90000], LARGE))


def create_and_seal(store: Store, _: ObjectID) -> None:
    array, pending = store.create(1 << 16)
    array[:] = 1
    pending.seal()


def create_and_abort(store: Store, _: ObjectID) -> None:
    store.create(1 << 16)[1].abort()


def look_at_it(store: Store, other: ObjectID) -> None:
    store.get(other)
    store.get(other, writable=True)
    store.flush()


def look_at_what_shares(store: Store, other: ObjectID) -> None:
    store.get(other)
    store.flush()


def delete(store: Store, _: ObjectID) -> None:
    store.delete(store.new_id())


SHARED = {look_at_what_shares}
WORK = [
    put_small,
    put_into_new_leases,
    put_a_batch,
    put_large,
    put_shared,
    put_shared_and_large,
    create_and_seal,
    create_and_abort,
    look_at_it,
    look_at_what_shares,
    delete,
]


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_an_interrupt_at_any_point_leaves_nothing_behind(
    server: StoreServer, wait_until: Callable[..., None], work: Callable[[Store, ObjectID], None]
) -> None:
    with connect(server.socket_path, name="other") as other:
        object_id = other.put(LARGE)
        if work in SHARED:
            object_id = other.put(other.get(object_id)[100:90000])
        interrupted = connect(server.socket_path, name="interrupted")
        work(interrupted, object_id)
        for at in itertools.count(1):
            interrupt = Interrupt("holdfast.objectstore", at)
            with contextlib.suppress(KeyboardInterrupt), interrupt.armed():
                work(interrupted, object_id)
            if interrupt.where is None:
                break

            def nothing_held() -> bool:
                stats = interrupted.stats()  # and with it, what was interrupted is answered
                return stats["pins"] == stats["reserved"] == 0

            wait_until(nothing_held, f"the end of all pins and reservations after an interrupt in {interrupt.where}")
            other.delete([ObjectID.fromhex(each["id"]) for each in other.list() if each["owner"] == "interrupted"])
        assert at > 5
        interrupted.close()
        wait_until(lambda: server.stats()["clients"] == 1, "the end of the connection")
