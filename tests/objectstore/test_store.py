"""A store and its clients, over a real socket and real shared memory."""

from __future__ import annotations

import gc
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from holdfast.objectstore import (
    ObjectID,
    ObjectNotFoundError,
    Store,
    StoreClosedError,
    StoreError,
    StoreServer,
    connect,
    decode,
    encode,
)

TABLE = pa.table({"number": np.arange(50_000), "text": [f"row {i}" for i in range(50_000)]})


def test_values_come_back_as_they_were(store: Store) -> None:
    assert store.get(store.put({"x": [1, "two", None]})) == {"x": [1, "two", None]}
    assert store.get(store.put(TABLE)).equals(TABLE)
    frame = pd.DataFrame({"x": np.arange(200.0), "text": ["t"] * 200, "when": pd.date_range("2020", periods=200)})
    pd.testing.assert_frame_equal(store.get(store.put(frame)), frame)
    large = np.random.default_rng(2).random(2_000_000)
    assert np.array_equal(store.get(store.put(large)), large)
    assert store.get(store.put(b"x" * 300_000)) == b"x" * 300_000


def test_views_are_read_only(store: Store) -> None:
    view = store.get(store.put(np.arange(10)))
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


def test_writable_views_are_isolated(server: StoreServer, store: Store) -> None:
    object_id = store.put({"a": np.arange(100_000), "b": np.arange(5)})
    first, second = store.get(object_id, writable=True), store.get(object_id, writable=True)
    first["a"][:] = -1
    second["b"][0] = 77
    with connect(server.socket_path) as other:
        seen = other.get(object_id)
        assert seen["a"][5] == 5
        assert seen["b"][0] == 0
    assert second["a"][5] == 5
    assert first["b"][0] == 0
    assert first["a"][99_999] == -1


def test_a_writable_view_outlives_the_delete(store: Store) -> None:
    object_id = store.put(np.full(500_000, 7))
    view = store.get(object_id, writable=True)
    store.delete(object_id)
    store.put(np.zeros(500_000))
    assert (view == 7).all()


def test_many_writable_views_take_no_descriptors(store: Store) -> None:
    import os

    object_id = store.put(np.arange(10))
    before = len(os.listdir("/proc/self/fd"))
    views = [store.get(object_id, writable=True) for _ in range(500)]
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert sum(int(view[1]) for view in views) == 500


def test_a_derived_view_keeps_the_object(store: Store, wait_until: Callable[..., Any]) -> None:
    object_id = store.put(TABLE)
    column = store.get(object_id).column("text").slice(100, 3)
    gc.collect()
    store.delete(object_id)
    assert not store.contains(object_id)
    for _ in range(20):
        store.delete(store.put(np.full(100_000, -1)))
    assert column.to_pylist() == ["row 100", "row 101", "row 102"]
    assert store.stats()["deleted_but_pinned"] == 1
    del column
    gc.collect()
    wait_until(lambda: store.stats()["deleted_but_pinned"] == 0)


def test_views_outlive_the_client(server: StoreServer, wait_until: Callable[..., Any]) -> None:
    store = connect(server.socket_path, name="gone")
    object_id = store.put(np.arange(300_000))
    part = store.get(object_id)[1000:2000]
    store.close()
    server.delete([object_id])
    with connect(server.socket_path) as other:
        for _ in range(5):
            other.delete(other.put(np.zeros(300_000)))
        assert part[0] == 1000
        assert other.stats()["pins"] == 1
    del part
    gc.collect()
    wait_until(lambda: server.stats()["clients"] == 0)
    assert server.stats()["used"] == 0
    with pytest.raises(StoreClosedError):
        store.put(1)


def test_a_store_that_is_forgotten_is_closed(server: StoreServer, wait_until: Callable[..., Any]) -> None:
    store = connect(server.socket_path)
    object_id = store.put(1)
    assert store.get(object_id) == 1
    del store
    gc.collect()
    wait_until(lambda: server.stats()["clients"] == 0)


def test_large_pins_go_without_another_call(server: StoreServer, store: Store, wait_until: Callable[..., Any]) -> None:
    view = store.get(store.put(np.zeros(400_000)))
    small = store.get(store.put(np.zeros(10)))
    assert server.stats()["pins"] == 2
    del view, small
    wait_until(lambda: server.stats()["pins"] == 0)


def test_releases_that_are_deferred_wake_nobody_and_go_when_they_are_settled(
    server: StoreServer, store: Store, wait_until: Callable[..., Any]
) -> None:
    view = store.get(store.put(np.zeros(400_000)))
    holdings = store._holdings
    wait_until(lambda: not holdings._armed, what="nothing is on its way")
    store.defer_releases()
    del view
    assert holdings._tokens.empty()
    assert server.stats()["pins"] == 1
    store.settle_releases()
    assert server.stats()["pins"] == 0
    view = store.get(store.put(np.zeros(400_000)))
    store.settle_releases()  # of nothing
    del view
    wait_until(lambda: server.stats()["pins"] == 0, what="the next one goes by itself")


def test_releases_that_are_deferred_go_with_the_store(server: StoreServer, wait_until: Callable[..., Any]) -> None:
    store = connect(server.socket_path)
    view = store.get(store.put(np.zeros(400_000)))
    store.defer_releases()
    store.close()
    del view
    wait_until(lambda: server.stats()["clients"] == 0)
    store.settle_releases()


def test_pins_survive_a_storm_of_threads(server: StoreServer, store: Store, wait_until: Callable[..., Any]) -> None:
    shared = [store.put(np.full(1000 * (i + 1), i)) for i in range(8)]
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        kept = []
        try:
            for step in range(150):
                number = int(rng.integers(8))
                view = store.get(shared[number], timeout=5)
                assert view[-1] == number
                if step % 3 == 0:
                    kept.append(view[5:10])
                mine = store.put(np.full(int(rng.integers(1, 30_000)), seed))
                assert store.get(mine)[0] == seed
                store.delete(mine)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    store.delete(shared)
    gc.collect()
    wait_until(lambda: server.stats()["pins"] == 0)
    stats = server.stats()
    assert stats["used"] == stats["leased_nbytes"]


def test_missing_and_deleted_objects_are_named(store: Store) -> None:
    nobody = store.new_id()
    with pytest.raises(ObjectNotFoundError, match=f"{nobody.hex()} is not in this store"):
        store.get(nobody)
    object_id = store.put(1)
    store.delete(object_id)
    with pytest.raises(ObjectNotFoundError, match="was deleted"):
        store.get(object_id)
    with pytest.raises(ObjectNotFoundError, match=r"0\.05 s after it was asked for"):
        store.get(nobody, timeout=0.05)


def test_get_waits_for_the_seal(server: StoreServer, store: Store, wait_until: Callable[..., Any]) -> None:
    with connect(server.socket_path) as other:
        object_id = other.new_id()
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(store.get(object_id, timeout=10)))
        thread.start()
        wait_until(lambda: server.stats()["waiting_gets"] == 1)
        assert store.get(store.put("meanwhile")) == "meanwhile"  # while another thread waits on the same socket
        other.put("here", object_id=object_id)
        thread.join()
        assert found == ["here"]


def test_create_is_written_in_place_and_sealed(server: StoreServer, store: Store) -> None:
    array, pending = store.create((100, 200), "float32", key="k", owner="me")
    assert array.shape == (100, 200)
    array[:] = 3
    assert store.list()[0]["state"] == "created"
    object_id = pending.seal()
    assert not array.flags.writeable
    with connect(server.socket_path) as other:
        seen = other.get(object_id)
        assert seen.dtype == np.float32
        assert (seen == 3).all()
    (item,) = store.list()
    assert (item["key"], item["owner"], item["type"]) == ("k", "me", "numpy.ndarray")
    with pytest.raises(StoreClosedError, match="before"):
        pending.seal()


@pytest.mark.parametrize(("shape", "dtype"), [((), "f8"), ((0, 4), "i4"), (7, "M8[s]"), ((2, 2), [("a", "i1")])])
def test_create_takes_any_flat_type(store: Store, shape: Any, dtype: Any) -> None:
    array, pending = store.create(shape, dtype)
    array[...] = np.zeros(array.shape, array.dtype)
    back = store.get(pending.seal())
    assert (back.shape, back.dtype) == (array.shape, np.dtype(dtype))


def test_create_refuses_objects(store: Store) -> None:
    with pytest.raises(ValueError, match="put it instead"):
        store.create(3, object)


def test_what_is_created_is_never_reused_while_it_can_be_written(store: Store, wait_until: Callable[..., Any]) -> None:
    array, pending = store.create(1000)
    object_id = pending.seal()
    store.delete(object_id)
    assert store.stats()["deleted_but_pinned"] == 1
    del array, pending
    wait_until(lambda: store.stats()["used"] == 0)
    array, pending = store.create(1000)
    pending.abort()
    assert store.stats()["reserved"] == 1
    del array
    wait_until(lambda: store.stats()["used"] == 0)


def test_pending_as_a_context_manager(store: Store, wait_until: Callable[..., Any]) -> None:
    array, pending = store.create(10)
    with pending:
        array[:] = 1
    assert store.get(pending.object_id)[0] == 1
    del array
    array, pending = store.create(10)
    with pytest.raises(KeyError), pending:
        raise KeyError
    del array
    wait_until(lambda: store.stats()["reserved"] == 0)
    assert not store.contains(pending.object_id)


def test_create_buffer(store: Store) -> None:
    view, pending = store.create_buffer(5000)
    view[:5] = b"hello"
    back = store.get(pending.seal())
    assert isinstance(back, memoryview)
    assert bytes(back[:5]) == b"hello"
    assert back.nbytes == 5000


def test_encoded_values_go_in_and_out_as_they_are(store: Store) -> None:
    encoded = encode({"a": np.arange(100)})
    object_id = store.put_encoded(encoded, key="k", type_name="special")
    buffer = store.get_buffer(object_id)
    assert buffer.size == encoded.nbytes
    assert store.address_in_arena(buffer.address)
    assert decode(buffer)["a"].sum() == 4950
    assert store.list()[0]["type"] == "special"


def test_names_that_cannot_be_sent_are_escaped_or_refused(server: StoreServer, store: Store) -> None:
    with connect(server.socket_path, name="\udcff") as other, store.batch():
        before = store.put("seen")
        store.put_encoded(encode("text"), key="bad \ud800 name", owner="\udc80", type_name="\ud8000")
        array, pending = store.create(3, key="\ud800", owner="\ud800")
        array[:] = 1
        pending.seal()
        view = other.get(before, timeout=20)
        with pytest.raises(ValueError, match="4096 are allowed"):
            store.put(1, key="\ud800" * 1000)
        with pytest.raises(TypeError, match="not bytes"):
            store.put(1, key=b"k")  # type: ignore[arg-type]
    assert view == "seen"
    names = [(item["key"], item["owner"], item["type"]) for item in store.list()]
    assert names[1:] == [
        ("bad \\ud800 name", "\\udc80", "\\ud8000"),
        ("\\ud800", "\\ud800", "numpy.ndarray"),
    ]


def test_a_batch_is_announced_at_its_end_or_before_any_request(server: StoreServer, store: Store) -> None:
    store.put(0)
    with store.batch():
        ids = [store.put(i) for i in range(1000)]
        assert server.stats()["objects"] == server.count == 1
        assert store.get(ids[7]) == 7
        ids += [store.put(i) for i in range(1000, 1500)]
    assert [store.get(object_id) for object_id in ids] == list(range(1500))


def test_many_small_objects_fill_leases_and_give_them_back(server: StoreServer, store: Store) -> None:
    ids = [store.put(np.full(i % 500, i)) for i in range(3000)]
    assert all(store.get(ids[i])[0] == i for i in range(1, 3000, 97) if i % 500)
    store.delete(ids)
    stats = store.stats()
    assert stats["used"] == stats["leased_nbytes"] <= server.stats()["capacity"] // 16


def test_list_and_stats_tell_what_there_is(server: StoreServer, store: Store) -> None:
    kept = store.get(store.put(np.zeros(100), key="x-1", owner="etl"))
    store.put("text")
    with connect(server.socket_path, name="looker") as other:
        first, second = other.list()
        stats = other.stats()
    assert first["key"] == "x-1"
    assert first["owner"] == "etl"
    assert first["type"] == "numpy.ndarray"
    assert first["pins"] == 1
    assert first["pinned_by"] == ["test"]
    assert 0 <= first["age"] < 60
    assert second["owner"] == "test"
    assert stats["objects"] == 2
    assert stats["clients"] == 2
    assert stats["held_by"].keys() == {"etl", "test"}
    assert kept.sum() == 0


def test_list_reads_page_by_page(store: Store) -> None:
    with store.batch():
        for i in range(5200):
            store.put(i)
    assert len(store.list()) == 5200


def test_several_servers_and_clients_in_one_process(server: StoreServer) -> None:
    with StoreServer("8 MB") as second, connect(server.socket_path) as a, connect(second.socket_path) as b:
        in_a, in_b = a.put("a"), b.put("b")
        assert a.get(in_a) == "a"
        assert b.get(in_b) == "b"
        assert not a.contains(in_b)


def test_the_end_of_the_server_is_told_and_views_stay(wait_until: Callable[..., Any]) -> None:
    with StoreServer("8 MB") as server:
        store = connect(server.socket_path)
        view = store.get(store.put(np.arange(1000)))
        path = server.socket_path
    with pytest.raises(StoreClosedError):
        store.get(store.new_id())
    with pytest.raises(StoreError, match="no store serves"):
        connect(path)
    assert view.sum() == 499_500
    store.close()
    del view


def test_ids_are_unique_and_readable() -> None:
    from holdfast.objectstore.shared.ids import IDMinter

    mint, other = IDMinter(), IDMinter()
    ids = {mint() for _ in range(1000)} | {other() for _ in range(1000)}
    assert len(ids) == 2000
    one = ids.pop()
    assert ObjectID.fromhex(str(one)) == one
    assert pickle.loads(pickle.dumps(one)) == one
    assert isinstance(pickle.loads(pickle.dumps(one)), ObjectID)
    assert one.hex() in repr(one)
    with pytest.raises(ValueError, match="16 bytes"):
        ObjectID(b"short")


def test_interrupted_waits_leave_nothing_behind(
    server: StoreServer, store: Store, wait_until: Callable[..., Any]
) -> None:
    object_id = store.new_id()

    def interrupt() -> None:
        wait_until(lambda: server.stats()["waiting_gets"] == 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    # A background job of a shell begins with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            store.get(object_id, timeout=30)
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    store.put("late", object_id=object_id)
    assert store.get(store.put(1)) == 1
    wait_until(lambda: store.stats()["pins"] == 0)


def test_what_one_client_has_put_another_gets_at_once(server: StoreServer) -> None:
    """The seal and the get come over two sockets, which the server reads in any order."""
    with connect(server.socket_path) as writer, connect(server.socket_path) as reader:
        for number in range(5000):
            object_id = writer.put(number)
            assert reader.contains(object_id) if number % 2 else reader.get(object_id) == number
        assert not reader.contains(writer.new_id())
        with pytest.raises(ObjectNotFoundError, match="is not in this store"):
            reader.get(writer.new_id())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda store: store.get("0" * 32),
        lambda store: store.get(b"short"),
        lambda store: store.contains(None),
        lambda store: store.delete("0" * 32),
        lambda store: store.delete([store.new_id(), 5]),
        lambda store: store.put(1, object_id=b"short"),
        lambda store: store.get(store.new_id(), timeout=-1),
        lambda store: store.get(store.new_id(), timeout=float("nan")),
        lambda store: store.get(store.new_id(), timeout="1"),
        lambda store: store.put(bytes(1 << 20), timeout=-1),
        lambda store: store.create((-2, -3)),
        lambda store: store.create(1 << 62),
        lambda store: store.create_buffer(-1000),
    ],
)
def test_a_wrong_argument_is_the_callers_error_and_breaks_nothing(store: Store, wrong: Callable[[Store], Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        wrong(store)
    assert store.get(store.put(1)) == 1
    assert store.stats()["reserved"] == 0


def test_an_endless_timeout_is_a_long_one(store: Store) -> None:
    assert len(store.get(store.put(bytes(1 << 20), timeout=float("inf")), timeout=float("inf"))) == 1 << 20
