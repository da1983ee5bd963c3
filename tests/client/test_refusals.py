"""What would be taken for something else, without a word, if it weren't refused."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import operator
import sys
import types

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from holdfast import (
    Client,
    ConnectError,
    DatasetExistsError,
    DatasetNotFoundError,
    Future,
    LocalCluster,
    futures_of,
    wait,
)
from holdfast.client.operations import submit as calls


class TestFuturesOfOthers:
    @pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"a": (1, [x])}])
    def test_as_an_argument(self, client, wrap):
        future = concurrent.futures.Future()
        with pytest.raises(TypeError, match=r"argument 1.* of str is a future of concurrent.futures.*result\(\)"):
            client.submit(str, wrap(future))
        with pytest.raises(TypeError, match=r"argument 'b' of _keep"):
            client.map(_keep, [1], b=wrap(future))
        with pytest.raises(TypeError, match=r"concurrent.futures"):
            client.compute(dask.delayed(operator.add)(1, wrap(future)))

    @pytest.mark.parametrize("fs", [None, 3, "inc-1", b"inc-1"])
    def test_what_has_no_futures_is_not_waited_for(self, fs):
        with pytest.raises(TypeError, match="wait takes a future, an iterable of futures or a dask collection"):
            wait(fs)

    def test_those_of_asyncio_and_coroutines(self, client):
        async def one():
            return 1

        loop = asyncio.new_event_loop()
        coroutine = one()
        for value in (loop.create_future(), coroutine):
            with pytest.raises(TypeError, match="await it"):
                client.submit(str, value)
        coroutine.close()
        loop.close()

    def test_those_of_libraries_that_are_not_here(self, client):
        """Ray's and distributed's pickle: the function would get what only they can read."""
        for module, name, words in [
            ("ray._raylet", "ObjectRef", "Ray"),
            ("distributed.client", "Future", "distributed"),
        ]:
            kind = type(name, (), {"__module__": module})
            with pytest.raises(TypeError, match=words):
                client.submit(str, type("Derived", (kind,), {})())

    def test_where_futures_are_looked_for(self, client):
        future = concurrent.futures.Future()
        for call in (client.gather, client.scatter, wait, futures_of, client.cancel):
            with pytest.raises(TypeError, match=r"concurrent\.futures"):
                call([future, client.submit(operator.neg, 1)])
        for call in (client.gather, client.scatter, wait):
            with pytest.raises(TypeError, match=r"concurrent\.futures"):
                call(future)

    def test_what_has_no_futures_at_all(self, client):
        with pytest.raises(TypeError, match="wait takes a future"):
            wait(5)
        assert wait([]).done == set()


def _keep(*args, **kwargs):
    return args, kwargs


class TestCallsWithoutFutures:
    @pytest.mark.parametrize("given", ["a-key", b"a-key", 3, None, operator.neg])
    def test_cancel_and_retry_say_what_they_take(self, run, given):
        async def case(client, got):
            for name in ("cancel", "retry"):
                with pytest.raises(TypeError, match=rf"{name} takes futures.*Future\(key\) is the one of a key"):
                    await got(getattr(client, name)(given))

        run(case)

    def test_what_can_be_gone_through_is_taken(self, client):
        futures = {"a": client.submit(operator.neg, 1, pure=False), "b": client.submit(operator.neg, 2, pure=False)}
        client.retry(futures.values())
        client.cancel(futures.values())
        assert all(future.cancelled() for future in futures.values())
        client.cancel([])
        client.cancel(future for future in ())

    def test_metadata_and_datasets_that_there_are_not(self, run):
        async def case(client, got):
            with pytest.raises(KeyError) as caught:
                await got(client.get_metadata(["not", "there"]))
            assert caught.value.args == (["not", "there"],)
            assert "get_metadata(keys, default)" in caught.value.__notes__[0]
            assert await got(client.get_metadata("not there", None)) is None
            with pytest.raises(TypeError, match=r"get_dataset\(name, default=None\)"):
                await got(client.get_dataset("not there", None))
            assert await got(client.get_dataset("not there", default=None)) is None

        run(case)


class TestAClientThatIsNotOpen:
    def test_each_use_says_how_to_open_it(self, client):
        unopened = Client(client.scheduler_address, asynchronous=True)
        for use in (
            lambda: unopened.submit(operator.neg, 1),
            lambda: unopened.gather([]),
            lambda: unopened.id,
            lambda: unopened.persist(da.ones(1)),
            unopened.scheduler_info,
            unopened.shutdown,
            lambda: Future("key", unopened),
        ):
            with pytest.raises(RuntimeError, match=r"'await client'.*leave asynchronous=True out"):
                use()
        with pytest.raises(TypeError, match="'async with Client"), unopened:
            pass
        assert (unopened.status, repr(unopened)) == ("newly-created", "<Client: not open>")
        with pytest.raises(TypeError, match="is a client: give its scheduler_address"):
            Client(unopened)

    def test_it_can_be_closed(self):
        async def case():
            unopened = Client("127.0.0.1:1", asynchronous=True, timeout=0.1)
            try:
                with pytest.raises(ConnectError, match="no scheduler answered"):
                    await unopened
            finally:
                await unopened.close()

        asyncio.run(case())


class TestTwoInsteadOfOne:
    def test_each_call_says_how_to_write_it(self, client):
        x, y = client.map(operator.neg, [1, 2])
        a = da.ones(4, chunks=2)
        for name, call, one, other in [
            ("wait", wait, x, y),
            ("gather", client.gather, x, y),
            ("cancel", client.cancel, x, y),
            ("compute", client.compute, a, a),
            ("persist", client.persist, a, a),
            ("scatter", client.scatter, 1, x),
            ("futures_of", futures_of, x, y),
        ]:
            with pytest.raises(TypeError, match=rf"{name}\(\[x, y\]\)"):
                call(one, other)
            with pytest.raises(TypeError, match=rf"{name}\(\[x, y\]\)"):
                call(one, [other])
        assert client.gather([x, y]) == [-1, -2]


class TestWithoutAnEnd:
    def test_with_something_that_ends_it_is_read_as_far_as_that(self, client):
        numbers = itertools.count()
        assert client.gather(client.map(operator.add, numbers, [10, 20])) == [10, 21]
        assert client.gather(client.map(operator.add, (n for n in itertools.count()), [1, 1])) == [1, 2]
        keys = (f"endless-{n}" for n in itertools.count())
        assert [f.key for f in client.map(operator.neg, [1, 2], key=keys)] == ["endless-0", "endless-1"]

    @pytest.mark.parametrize("endless", [itertools.count(), itertools.cycle([1]), itertools.repeat(1)])
    def test_what_is_known_to_have_none_is_refused(self, client, endless):
        with pytest.raises(ValueError, match=r"no end.*islice"):
            client.map(operator.neg, endless)
        for call in (client.scatter, wait):
            with pytest.raises(ValueError, match="no end"):
                call(endless)
        assert client.gather(client.map(operator.neg, itertools.repeat(1, 2))) == [-1, -1]

    def test_what_is_not_known_to_have_none_ends_at_a_limit(self, client, monkeypatch):
        monkeypatch.setattr(calls, "MAX_MAPPED", 2_000)
        with pytest.raises(ValueError, match=r"more than 2,000 calls: does an iterable have no end"):
            client.map(operator.neg, (n for n in itertools.count()))
        assert len(client.map(operator.neg, range(2_000))) == 2_000


class TestTargetsInMemory:
    @pytest.mark.parametrize("size", [10, 1_000_000])
    @pytest.mark.parametrize("source", ["ones", "from_array"])
    def test_an_array_of_this_process(self, client, size, source):
        made = da.ones(size, chunks=size // 2) if source == "ones" else da.from_array(np.ones(size), chunks=size // 2)
        target = np.zeros(size)
        for options in ({}, {"return_stored": True}):
            with pytest.raises(RuntimeError, match=r"target of store, a numpy\.ndarray, lies in the memory of this"):
                (made + 1).store(target, **options)
        with pytest.raises(RuntimeError, match="store"):
            client.compute(made.store(target, compute=False))
        with pytest.raises(RuntimeError, match="store"):
            da.store([made, made], [target, target])
        made.store(target, scheduler="sync")
        assert (target == 1).all()

    def test_a_file_that_is_mapped(self, client, tmp_path):
        target = np.memmap(tmp_path / "x", dtype=float, shape=(4,), mode="w+")
        with pytest.raises(RuntimeError, match="memmap"):
            da.ones(4, chunks=2).store(target)

    def test_what_writes_into_files_is_taken(self, client, tmp_path):
        np.save(tmp_path / "x.npy", np.zeros(4))
        da.arange(4, chunks=2).store(_File(tmp_path / "x.npy"))
        assert np.load(tmp_path / "x.npy").tolist() == [0, 1, 2, 3]

    @pytest.mark.parametrize("store", ["dict", "MemoryStore", "wrapped", "KVStore", "memory://"])
    def test_a_zarr_array_in_memory(self, client, store):
        with pytest.raises(RuntimeError, match="a zarr array whose store is in memory"):
            da.ones(4, chunks=2).store(_zarr_array(store))

    def test_a_zarr_array_in_a_directory(self, client):
        da.ones(4, chunks=2).store(_zarr_array("LocalStore"))


class _File:
    def __init__(self, path):
        self.path = path

    def __setitem__(self, index, value):
        array = np.load(self.path, mmap_mode="r+")
        array[index] = value
        array.flush()


class _ZarrArray:
    """As much of zarr's as dask's `store` needs; zarr itself isn't there for the tests."""

    def __init__(self, store):
        self.store = store

    def __setitem__(self, index, value):
        pass


def _zarr_array(kind):
    made = {
        "dict": dict,
        "MemoryStore": lambda: type("MemoryStore", (), {})(),
        "LocalStore": lambda: _LocalStore(),
        "wrapped": lambda: types.SimpleNamespace(_store=type("MemoryStore", (), {})()),
        "KVStore": lambda: types.SimpleNamespace(_mutable_mapping={}),
        "memory://": lambda: types.SimpleNamespace(fs=types.SimpleNamespace(protocol=("memory",))),
    }
    array = _ZarrArray(made[kind]())
    array.__class__ = _InZarr if kind != "LocalStore" else _ZarrArray
    return array


class _InZarr(_ZarrArray):
    pass


_InZarr.__module__ = "zarr.core.array"


class _LocalStore:
    pass


class TestDatasetNames:
    def test_an_empty_one(self, client):
        for call in (
            lambda: client.publish_dataset(1, name=""),
            lambda: client.publish_dataset(**{"": 1}),
            lambda: client.get_dataset(""),
            lambda: client.unpublish_dataset(""),
            lambda: client.datasets.__setitem__("", 1),
        ):
            with pytest.raises(ValueError, match=r"name of a dataset.*empty"):
                call()
        assert client.list_datasets() == ()

    def test_errors_are_those_of_a_mapping(self, client):
        client.publish_dataset(taken=1)
        try:
            with pytest.raises(KeyError) as caught:
                client.publish_dataset(taken=2)
            assert isinstance(caught.value, DatasetExistsError)
            assert isinstance(caught.value, ValueError)
            assert str(caught.value).startswith("a dataset 'taken' is published already")
            with pytest.raises(KeyError) as missing:
                client.datasets["nope"]
            assert isinstance(missing.value, DatasetNotFoundError)
            assert str(missing.value).startswith("no dataset 'nope'")
        finally:
            client.unpublish_dataset("taken")


class TestMethodsOfDask:
    NAMES = ("array.rechunk.method", "dataframe.shuffle.method")

    def test_they_need_no_distributed(self, cluster, monkeypatch):
        """With a default client of distributed's beside ours, dask chooses what only that one can run."""
        monkeypatch.setitem(sys.modules, "distributed", types.SimpleNamespace(default_client=lambda: object()))
        before = [dask.config.get(name, None) for name in self.NAMES]
        with Client(cluster) as client:
            assert [dask.config.get(name) for name in self.NAMES] == ["tasks", "tasks"]
            x = da.ones((60, 60), chunks=(1, 60)).rechunk((60, 1))
            assert float(client.compute(x.sum()).result(timeout=60)) == 3600
            frame = dd.from_pandas(pd.DataFrame({"a": range(10), "b": range(10)}), npartitions=3)
            assert len(client.compute(frame.shuffle("a")).result(timeout=60)) == 10
        assert [dask.config.get(name, None) for name in self.NAMES] == before

    def test_what_the_user_chose_stays_unless_only_distributed_has_it(self, cluster):
        with dask.config.set({"array.rechunk.method": "p2p", "dataframe.shuffle.method": "disk"}):
            with Client(cluster):
                assert [dask.config.get(name) for name in self.NAMES] == ["tasks", "disk"]
            assert [dask.config.get(name) for name in self.NAMES] == ["p2p", "disk"]


class TestClustersThatAreNone:
    def test_one_that_is_closed_fails_at_once(self):
        with LocalCluster(n_workers=1, processes=False, object_store_memory="64 MiB") as cluster:
            pass
        with pytest.raises(ConnectError, match=r"LocalCluster\(closed\) can't be connected to: make another one"):
            Client(cluster, timeout="1 h")
        with pytest.raises(ConnectError, match="closed"):
            cluster.get_client()

    def test_a_client_and_a_cluster_of_others(self, client):
        with pytest.raises(TypeError, match=r"is a client: give its scheduler_address"):
            Client(client)
        with pytest.raises(TypeError, match=r"is a class: make a cluster with it, LocalCluster\(\.\.\.\)"):
            Client(LocalCluster)
        other = type("LocalCluster", (), {"__module__": "distributed.deploy.local", "scheduler_address": "tcp://x:1"})()
        with pytest.raises(TypeError, match=r"LocalCluster is a cluster of distributed, .*holdfast\.LocalCluster"):
            Client(other)
