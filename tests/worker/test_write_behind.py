"""Small results: kept for a while, then stored, unless nobody wants them by then."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from holdfast.cluster.worker import write_behind as nurseries
from holdfast.cluster.worker.write_behind import WriteBehind
from holdfast.objectstore import Store, StoreError, StoreServer, connect, encode


@pytest.fixture
def write_behind(store):
    write_behind = WriteBehind(store, "holdfast-write-behind-test")
    yield write_behind
    write_behind.close()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(nurseries, "AGE_SECONDS", 0.02)


def add(write_behind, value, key="key", type_name="int"):
    object_id = write_behind.add(key, 1, encode(value).to_bytes(), type_name)
    write_behind.tend()
    return object_id


def test_what_nobody_wants_in_time_is_never_stored(write_behind, server, store, quick, eventually):
    gone = [add(write_behind, number) for number in range(100)]
    kept = add(write_behind, "kept")
    write_behind.discard(gone)
    eventually(lambda: store.contains(kept), what="the one that lives is stored")
    assert server.stats()["sealed"] == 1


def test_what_lives_is_stored_as_it_was_made(write_behind, store, quick, eventually):
    key = ("x" * 300, 1)
    object_id = add(write_behind, [1, 2], key, "list")
    eventually(lambda: store.contains(object_id), what="it is stored")
    assert store.get(object_id) == [1, 2]
    (described,) = store.list()
    assert described["type"] == "list"
    assert described["owner"] == "test"
    assert described["key"].startswith("('xxx")
    assert len(described["key"]) == 200


def test_nothing_is_stored_at_once(write_behind, server):
    for number in range(100):
        add(write_behind, number)
    assert server.stats()["sealed"] == 0


def test_what_was_stored_is_deleted_there(write_behind, store, quick, eventually):
    object_id = add(write_behind, 1)
    eventually(lambda: store.contains(object_id), what="it is stored")
    write_behind.discard([object_id])
    eventually(lambda: not store.contains(object_id), what="it is deleted")


def test_room_is_limited_and_comes_back(write_behind, monkeypatch):
    monkeypatch.setattr(nurseries, "MAX_NBYTES", 10_000)
    taken = []
    while (object_id := add(write_behind, 1)) is not None:
        taken.append(object_id)
    assert 10 < len(taken) < 100
    write_behind.discard(taken[:1])
    assert add(write_behind, 1) is not None
    assert add(write_behind, 1) is None


def test_its_thread_sleeps_while_there_is_nothing(write_behind, quick, eventually):
    assert not write_behind._awake
    write_behind.discard([add(write_behind, 1)])
    eventually(lambda: not write_behind._awake, what="it sleeps again")
    object_id = write_behind.add("key", 7, encode(2).to_bytes(), "int")
    assert not write_behind._awake, "the thread that adds has something better to do"
    write_behind.tend()
    assert write_behind._awake
    write_behind.discard([object_id])


def test_a_full_store_is_waited_for(monkeypatch, quick, eventually):
    monkeypatch.setattr(nurseries, "_PUT_TIMEOUT_SECONDS", 0.02)
    with StoreServer(1 << 20, spill=False) as server, connect(server.socket_path) as store:
        write_behind = WriteBehind(store, "holdfast-write-behind-test")
        try:
            fills = [store.put(np.zeros(300_000, "u1")) for _ in range(3)]
            while not isinstance(fills[-1], Exception):
                try:
                    fills.append(store.put(np.zeros(20_000, "u1"), timeout=0))
                except Exception as error:
                    fills.append(error)
            fills.pop()
            object_ids = [add(write_behind, b"x" * 2000) for _ in range(100)]
            eventually(lambda: write_behind._old, what="a round")
            assert all(write_behind._young.get(i) or write_behind._old.get(i) or store.contains(i) for i in object_ids)
            store.delete(fills)
            eventually(lambda: all(map(store.contains, object_ids)), what="all are stored")
        finally:
            write_behind.close()


def test_a_store_that_fails_once_is_asked_again(write_behind, store, quick, monkeypatch, eventually):
    put_encoded = Store.put_encoded
    failures = []

    def fail_once(self, *arguments, **options):
        if not failures:
            failures.append(options["object_id"])
            raise StoreError("it does not answer")
        return put_encoded(self, *arguments, **options)

    monkeypatch.setattr(Store, "put_encoded", fail_once)
    object_ids = [add(write_behind, number) for number in range(3)]
    eventually(lambda: sum(map(store.contains, object_ids)) == 2, what="the others are stored")
    assert not store.contains(failures[0])


def test_many_threads_lose_none_and_leave_none(write_behind, server, store, quick, eventually):
    kept: list[bytes] = []

    def work(number):
        for round_ in range(300):
            object_ids = [add(write_behind, (number, round_, n)) for n in range(5)]
            kept.append(object_ids.pop())
            write_behind.discard(object_ids)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: server.stats()["objects"] == len(kept) == 1200, what="those that live are stored, no others")
    assert all(map(store.contains, kept))
    assert write_behind._nbytes == 0
    write_behind.discard(kept)
    eventually(lambda: server.stats()["objects"] == 0, what="none is left")


def test_a_store_that_is_gone_ends_it(quick, eventually):
    with StoreServer(1 << 20) as server:
        store = connect(server.socket_path)
        write_behind = WriteBehind(store, "holdfast-write-behind-test")
        add(write_behind, 1)
    eventually(lambda: not write_behind.thread.is_alive(), what="its thread has ended")
    write_behind.close()
    store.close()


# -- in a worker


def test_a_small_result_that_is_discarded_never_reaches_the_store(scheduler, start_worker, server, eventually):
    _, peer = start_worker()
    sealed = server.stats()["sealed"]
    _, entry = scheduler.one(peer, scheduler.task(peer, pow, 2, 10))
    object_id, inline = entry[2], entry[4]
    assert inline is not None
    scheduler.send(peer, ("discard", [object_id]))
    scheduler.value(peer, scheduler.task(peer, abs, -1))
    assert server.stats()["sealed"] == sealed


def test_a_large_result_is_there_when_it_is_announced(scheduler, start_worker, server):
    _, peer = start_worker()
    _, entry = scheduler.one(peer, scheduler.task(peer, np.zeros, 1000))
    assert entry[4] is None
    assert server.contains(entry[2])


def test_without_room_a_small_result_is_stored_at_once(scheduler, start_worker, server, store, monkeypatch, eventually):
    monkeypatch.setattr(nurseries, "MAX_NBYTES", 0)
    _, peer = start_worker()
    _, entry = scheduler.one(peer, scheduler.task(peer, pow, 2, 10))
    assert store.get(entry[2], timeout=10) == 1024
