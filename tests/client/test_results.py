"""Values in and out of a real cluster: gather, scatter, and when they are freed."""

from __future__ import annotations

import collections
import operator

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from holdfast import Client, LocalCluster, NoWorkerError, futures_of
from holdfast.objectstore.errors import StoreFullError


def in_arena(client, array):
    store, _ = client._core.stores.local
    address = array.__array_interface__["data"][0]
    return store.address_in_arena(address)


class TestGather:
    def test_containers_keep_their_shape(self, client):
        one, two = client.map(operator.neg, [1, 2])
        point = collections.namedtuple("point", "x y")
        assert client.gather(one) == -1
        assert client.gather([one, [two, one], 7]) == [-1, [-2, -1], 7]
        assert client.gather((one, {two})) == (-1, {-2})
        assert client.gather({"a": one, "b": {"c": (two,)}}) == {"a": -1, "b": {"c": (-2,)}}
        assert client.gather(point(one, two)) == point(-1, -2)
        assert list(client.gather(iter([one, [two]]))) == [-1, [-2]]

    def test_errors_raise_or_are_skipped(self, client):
        good, bad = client.submit(operator.neg, 1), client.submit(operator.truediv, 1, 0)
        with pytest.raises(ZeroDivisionError):
            client.gather([good, bad])
        assert client.gather([good, bad, {"a": bad, "b": good}], errors="skip") == [-1, {"b": -1}]
        assert client.gather(bad, errors="skip") is None
        with pytest.raises(ValueError, match="errors"):
            client.gather(good, errors="ignore")

    def test_a_large_result_is_read_in_place(self, client):
        array = client.submit(np.arange, 1_000_000).result(timeout=20)
        assert in_arena(client, array)
        view = client.submit(np.arange, 1_000_000).result(writable=False)
        assert in_arena(client, view)
        assert not view.flags.writeable
        table = client.submit(lambda: pa.table({"x": np.arange(1_000_000)})).result(timeout=20)
        store, _ = client._core.stores.local
        assert store.address_in_arena(table["x"].chunk(0).buffers()[1].address)

    def test_what_was_read_stays_when_the_future_and_the_client_are_gone(self, cluster):
        with Client(cluster, set_as_default=False) as client:
            array = client.submit(np.arange, 1_000_000).result(timeout=20)
        assert array.sum() == 499999500000

    def test_a_client_without_a_store_reads_over_the_network(self, remote):
        array = remote.submit(np.arange, 1_000_000).result(timeout=20)
        assert array.sum() == 499999500000
        assert remote._core.stores.local is None
        arrays = remote.gather(remote.map(np.full, [1000] * 5, range(5)))
        assert [a[0] for a in arrays] == [0, 1, 2, 3, 4]

    def test_between_hosts(self, two_hosts):
        with Client(two_hosts, set_as_default=False) as client:
            first, second = client.nthreads()
            one = client.submit(np.arange, 300_000, workers=first)
            two = client.submit(np.negative, one, workers=second)
            assert client.gather([one, two])[1][-1] == -299_999
            assert client.submit(np.array_equal, one, one, workers=second).result(timeout=20)


class TestScatter:
    def test_containers_are_taken_apart(self, client):
        assert client.gather(client.scatter([1, 2])) == [1, 2]
        assert isinstance(client.scatter((1, 2)), tuple)
        assert client.gather(client.scatter({3, 4})) == {3, 4}
        named = client.scatter({"x": 1, "y": 2})
        assert {name: future.key for name, future in named.items()} == {"x": "x", "y": "y"}
        assert client.gather(named) == {"x": 1, "y": 2}
        assert client.gather(client.scatter(iter([1, 2]))).__next__() == 1
        assert client.gather(client.scatter(range(3))) == [0, 1, 2]
        assert client.scatter("text").result(timeout=20) == "text"

    def test_it_is_there_at_once_and_can_be_used(self, client):
        array = np.arange(500_000)
        future = client.scatter(array)
        assert future.done()
        assert in_arena(client, future.result())
        assert client.submit(np.sum, future).result(timeout=20) == array.sum()
        frame = pd.DataFrame({"x": range(1000)})
        assert client.submit(len, client.scatter(frame)).result(timeout=20) == 1000

    @pytest.mark.parametrize("size", [10, 1000, 500_000])
    def test_the_same_content_is_one_object(self, client, size):
        one, two = client.scatter(np.arange(size)), client.scatter(np.arange(size))
        other = client.scatter(np.arange(size), hash=False)
        assert one.key == two.key != other.key
        assert one.object_id == two.object_id != other.object_id

    @pytest.mark.parametrize("hash", [True, False])
    def test_a_key_that_is_in_use_keeps_its_value(self, client, hash):
        one = client.scatter({"x": 1}, hash=hash)["x"]
        assert client.scatter({"x": 1}, hash=hash)["x"].result(timeout=20) == 1
        with pytest.raises(ValueError, match=r"'x' is in use .* another key, or release"):
            client.scatter({"x": 2}, hash=hash)
        assert one.result(timeout=20) == 1
        del one
        two = client.scatter({"x": 2}, hash=hash)["x"]
        assert two.result(timeout=20) == 2
        assert client.submit(operator.neg, two).result(timeout=20) == -2

    def test_to_chosen_hosts(self, two_hosts):
        with Client(two_hosts, set_as_default=False) as client:
            workers = list(client.nthreads())
            nodes = sorted(client.has_what())
            for worker in workers:
                future = client.scatter(np.full(10_000, 7.0), workers=worker, hash=False)
                assert client.who_has(future)[future.key] == [worker.rpartition("/")[0]]
                assert client.submit(np.sum, future).result(timeout=20) == 70_000
            future = client.scatter(np.full(10_000, 8.0), broadcast=True)
            assert sorted(client.who_has(future)[future.key]) == nodes
            with pytest.raises(NoWorkerError, match="nobody"):
                client.scatter(1, workers="nobody")

    def test_without_a_store_by_turns(self, two_hosts):
        with Client(two_hosts, attach=False, set_as_default=False) as client:
            futures = client.scatter([np.full(10_000, float(i)) for i in range(4)])
            assert {tuple(nodes) for nodes in client.who_has(futures).values()} == {
                (node,) for node in client.has_what()
            }
            assert client.gather(client.map(np.max, futures)) == [0, 1, 2, 3]
            assert client.gather(futures)[2][0] == 2

    def test_past_a_host_that_has_just_died(self, two_hosts, monkeypatch):
        with Client(two_hosts, attach=False, set_as_default=False) as client:
            session = client._core.session
            # As long as the scheduler has not noticed it yet.
            monkeypatch.setattr(session, "nodes", {"tcp://127.0.0.1:1": {"hostname": "gone"}, **session.nodes})
            futures = [client.scatter(np.full(10_000, float(i)), hash=False) for i in range(6)]
            assert client.gather(client.map(np.max, futures)) == [0, 1, 2, 3, 4, 5]

    def test_more_than_there_is_room_for(self, client):
        with pytest.raises(StoreFullError):
            client.scatter(np.zeros(400 << 20, dtype="u1"), hash=False, timeout=0.2)

    def test_what_cant_be_pickled(self, client):
        import threading

        with pytest.raises(TypeError, match="lock can't be pickled"):
            client.scatter(threading.Lock())


class TestFreeing:
    def test_the_last_future_frees_the_object_in_every_store(self, two_hosts, eventually):
        with Client(two_hosts, set_as_default=False) as client:
            future = client.scatter(np.zeros(100_000), broadcast=True, hash=False)
            another = client.submit(np.negative, future)
            another.result(timeout=20)
            keys = {future.key, another.key}
            assert keys <= set(client.who_has())
            del another
            future.release()
            eventually(lambda: not keys & set(client.who_has()), what="the scheduler forgets them")
            store, _ = client._core.stores.local
            eventually(
                lambda: not any(o["key"] in keys and o["pins"] == 0 for o in store.list()), what="so does the store"
            )

    def test_a_dependency_lives_as_long_as_it_is_needed(self, client, eventually):
        first = client.submit(np.arange, 100_000, pure=False)
        second = client.submit(np.sum, first)
        key = first.key
        del first
        assert second.result(timeout=20) == 4999950000
        eventually(lambda: key not in client.who_has())

    def test_a_future_that_a_function_uses_lives_as_long_as_its_tasks(self, client, eventually):
        names = {"__name__": "__main__", "data": client.scatter(np.arange(100_000))}
        exec("def f():\n    return type(data).__name__", names)
        key = names["data"].key
        future = client.submit(names["f"], pure=False)
        assert future.result(timeout=20) == "Future"
        names["data"] = None
        del future
        eventually(lambda: key not in client.who_has(), what="the object is freed")

    def test_a_task_that_makes_the_worker_s_client_keeps_none_of_its_arguments(self, eventually):
        with (
            LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            data = client.scatter(np.ones(1_000_000))

            def total(array):
                Client.current()
                return float(array.sum())

            assert client.submit(total, data).result(timeout=20) == 1_000_000
            del data
            client.submit(operator.neg, 1).result(timeout=20)
            eventually(lambda: not client.store.stats()["deleted_but_pinned"], what="the argument is not pinned")

    def test_a_client_that_closes_lets_go_of_everything(self, cluster, client, eventually):
        with Client(cluster, set_as_default=False) as other:
            future = other.scatter(np.zeros(100_000), hash=False)
            eventually(lambda: future.key in client.who_has())
        eventually(lambda: future.key not in client.who_has())


def test_futures_of_containers(client):
    one, two = client.map(operator.neg, [1, 2])
    assert futures_of([one, {"a": (two, one)}]) == [one, two]
    assert futures_of([]) == []
