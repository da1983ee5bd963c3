"""dask's collections on a real cluster, compared with what dask computes in this thread."""

from __future__ import annotations

import asyncio
import operator
import os

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask import delayed
from dask._task_spec import TaskRef
from pandas.testing import assert_frame_equal, assert_series_equal

from holdfast import CancelledError, Client, Future, futures_of, wait


@pytest.fixture(autouse=True)
def _default(client):
    """A client is dask's default scheduler."""


@pytest.fixture(scope="module")
def pandas_frame():
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "key": random.integers(0, 20, 2000),
            "name": random.choice(["x", "y", "z"], 2000),
            "value": random.random(2000),
        }
    )


@pytest.fixture
def frame(pandas_frame):
    return dd.from_pandas(pandas_frame, npartitions=6)


def locally(collection):
    return collection.compute(scheduler="sync")


class TestArrays:
    @pytest.mark.parametrize(
        "make",
        [
            lambda x: x.sum(),
            lambda x: (x + x.T).mean(axis=0),
            lambda x: x @ x.T,
            lambda x: x.rechunk((30, 100))[::2, 1:],
            lambda x: da.concatenate([x, x * 2]).std(axis=1),
            lambda x: x.map_overlap(lambda b: b * 2, depth=1),
            lambda x: da.linalg.svd(x.rechunk((25, 100)))[1],
            lambda x: x[x > 0.5],
        ],
    )
    def test_they_are_as_computed_locally(self, make):
        x = da.from_array(np.random.default_rng(1).random((100, 100)), chunks=25)
        np.testing.assert_allclose(make(x).compute(), locally(make(x)))

    def test_what_was_stored_for_a_graph_is_kept_once_for_all_its_outputs(self, client):
        x = da.from_array(np.ones((8, 200_000)), chunks=(1, -1))
        y = (x + 1).persist()
        (keeps,) = {id(f._state.keeps): f._state.keeps for f in futures_of(y)}.values()
        assert 1 <= len(keeps) <= 8
        for _ in range(3):
            y = y.persist()
        assert all(f._state.keeps is keeps for f in futures_of(y))

    def test_data_that_is_an_output_itself_is_freed_with_its_last_future(self, client, eventually):
        x = da.from_array(np.ones((2, 200_000)), chunks=(1, -1)).persist(optimize_graph=False)
        keys = {f.key for f in futures_of(x)}
        assert keys <= set(client.who_has())
        del x
        eventually(lambda: not keys & set(client.who_has()), what="the chunks are freed")

    def test_persist(self, client):
        x = da.random.default_rng(2).random((100, 100), chunks=50)
        y = x.persist()
        assert isinstance(y, da.Array)
        assert len(futures_of(y)) == 4
        wait(y, timeout=20)
        assert (y.compute() == y.compute()).all()
        np.testing.assert_allclose((y + 1).sum().compute(), y.compute().sum() + 10_000)
        z = (y.T @ y).persist().persist()
        np.testing.assert_allclose(z.compute(), y.compute().T @ y.compute())

    def test_large_literals_do_not_pass_through_the_scheduler(self, client):
        data = np.random.default_rng(3).random((1000, 1000))
        x = da.from_array(data, chunks=500)
        posted = []
        post = client._core.session.post
        client._core.session.post = lambda message: (posted.append(message), post(message))[1]
        future = client.compute((x + 1).sum())
        np.testing.assert_allclose(future.result(timeout=20), data.sum() + 1e6)
        assert future._state.keeps
        submitted = [task for message in posted if message[0] == "submit" for task in message[1]]
        assert all(len(getattr(task[2], "data", task[2])) < 100_000 for task in submitted)


class TestFrames:
    @pytest.mark.parametrize(
        "make",
        [
            lambda f: f.groupby("key").value.mean(),
            lambda f: f.groupby(["key", "name"]).agg({"value": ["sum", "count"]}),
            lambda f: f.value.rolling(5).mean(),
            lambda f: f.assign(double=f.value * 2).double.sum(),
            lambda f: f.name.value_counts(),
            lambda f: f.set_index("key").value.sum(),
            lambda f: f.describe(),
        ],
    )
    def test_they_are_as_computed_locally(self, frame, make):
        got, expected = make(frame).compute(), locally(make(frame))
        if isinstance(expected, pd.DataFrame):
            assert_frame_equal(got.sort_index(), expected.sort_index())
        elif isinstance(expected, pd.Series):
            assert_series_equal(got.sort_index(), expected.sort_index())
        else:
            assert got == pytest.approx(expected)

    def test_shuffle(self, frame, pandas_frame):
        assert dask.config.get("dataframe.shuffle.method") == "tasks"
        shuffled = frame.shuffle("key").persist()
        assert_frame_equal(shuffled.compute().sort_index(), pandas_frame, check_dtype=False)
        where = shuffled.map_partitions(lambda part: part[["key"]].drop_duplicates()).compute()
        assert not where.key.duplicated().any()

    def test_merge(self, frame, pandas_frame):
        other = pd.DataFrame({"key": range(20), "label": list("abcdefghijklmnopqrst")})
        small = frame.merge(other, on="key").compute()
        large = frame.merge(dd.from_pandas(other, npartitions=3), on="key", how="left").compute()
        expected = pandas_frame.merge(other, on="key").sort_values(["key", "value"]).reset_index(drop=True)
        for got in (small, large):
            assert_frame_equal(got.sort_values(["key", "value"]).reset_index(drop=True), expected, check_dtype=False)

    def test_sorting(self, frame, pandas_frame):
        by_value = frame.set_index("value").compute()
        assert by_value.index.is_monotonic_increasing
        assert len(by_value) == len(pandas_frame)
        assert frame.sort_values("value").head(3, npartitions=-1).value.tolist() == sorted(pandas_frame.value)[:3]

    def test_persist_pins_partitions_and_goes_on_from_them(self, frame, pandas_frame):
        persisted = frame[frame.key > 3].persist()
        assert len(futures_of(persisted)) == 6
        assert_frame_equal(persisted.compute(), pandas_frame[pandas_frame.key > 3], check_dtype=False)
        mean = persisted.groupby("name").value.mean().compute()
        expected = pandas_frame[pandas_frame.key > 3].groupby("name").value.mean()
        assert_series_equal(mean.sort_index(), expected, check_index_type=False)
        again = persisted.assign(two=2).persist()
        del persisted
        assert again.two.sum().compute() == 2 * (pandas_frame.key > 3).sum()

    def test_partitions_are_read_in_place(self, client, frame):
        persisted = frame.persist()
        store, _ = client._core.stores.local
        part = futures_of(persisted)[0].result(timeout=20, writable=False)
        assert store.address_in_arena(part["value"].to_numpy().__array_interface__["data"][0])


def test_bags():
    bag = db.from_sequence(range(100), npartitions=5)
    assert bag.map(lambda x: x % 7).frequencies().compute() == locally(bag.map(lambda x: x % 7).frequencies())
    assert sorted(bag.foldby(lambda x: x % 3, operator.add).compute()) == [(0, 1683), (1, 1617), (2, 1650)]
    grouped = dict(bag.groupby(lambda x: x % 3).compute())
    assert sorted(grouped[1]) == list(range(1, 100, 3))
    assert bag.filter(lambda x: x > 50).persist().count().compute() == 49


class TestDelayed:
    def test_graphs_of_calls(self):
        @delayed
        def add(x, y):
            return x + y

        total = add(add(1, 2), delayed(sum)([add(3, 4), 5]))
        assert total.compute() == 15
        assert dask.compute({"a": [total, 1], "b": total + 1}) == ({"a": [15, 1], "b": 16},)
        assert delayed({"a": total})["a"].compute() == 15
        assert delayed(dict)(x=add(1, 1), y=[add(2, 2)]).compute() == {"x": 2, "y": [4]}

    def test_futures_among_the_arguments(self, client):
        future = client.submit(operator.neg, 3)
        assert delayed(operator.add)(future, 1).compute() == -2
        assert delayed(sum)([future, future]).compute() == -6

    def test_persist(self):
        value = delayed(operator.neg)(3).persist()
        assert futures_of(value)[0].result(timeout=20) == -3
        assert (value + 1).compute() == -2

    def test_an_error_is_the_task_s_own(self):
        with pytest.raises(ZeroDivisionError):
            delayed(operator.truediv)(1, 0).compute()

    def test_a_function_that_cant_be_pickled_is_named(self):
        import threading

        with pytest.raises(TypeError, match="lock"):
            delayed(operator.neg)(threading.Lock()).compute()


class TestFuturesAsAWhole:
    """A future that is all there is of a collection, of a partition of it, or of a delayed value."""

    def test_delayed(self, client):
        future = client.submit(operator.neg, -5)
        assert delayed(operator.add)(delayed(future), 1).compute() == 6
        assert delayed(future).compute() == delayed(future).persist().compute() == 5
        assert delayed(sum)([future, delayed(future), 1]).compute() == 11

    def test_frames(self, client):
        meta = pd.DataFrame({"a": [1]})
        frame = dd.from_delayed(client.map(lambda i: pd.DataFrame({"a": [i]}), range(4)), meta=meta)
        assert frame.a.sum().compute() == 6
        persisted = frame.persist()
        assert len(futures_of(persisted)) == 4
        assert persisted.a.max().compute() == 3

    def test_arrays(self, client):
        future = client.submit(np.ones, 5)
        array = da.from_delayed(future, (5,), float)
        assert array.sum().compute() == 5.0
        assert futures_of(array) == [future]
        assert array.persist().sum().compute() == 5.0

    def test_bags(self, client):
        assert db.from_delayed(client.map(lambda i: [i], range(4))).sum().compute() == 6

    def test_they_are_published(self, client):
        meta = pd.DataFrame({"a": [1]})
        client.publish_dataset(
            delayed_future=delayed(client.submit(operator.neg, -7)),
            frame_of_futures=dd.from_delayed(client.map(lambda i: pd.DataFrame({"a": [i]}), range(3)), meta=meta),
        )
        try:
            assert client.get_dataset("delayed_future").compute() == 7
            assert client.get_dataset("frame_of_futures").a.sum().compute() == 3
        finally:
            client.unpublish_dataset("delayed_future")
            client.unpublish_dataset("frame_of_futures")

    def test_a_future_is_equal_to_itself_only(self, client):
        future = client.submit(operator.neg, 1)
        same = Future(future.key, client)
        assert future == future
        assert future != same
        assert len({future, same, TaskRef(future.key)}) == 3
        assert TaskRef(future.key) != future
        assert str(future) == repr(future)


class TestCompute:
    def test_futures_for_collections(self, client, frame, pandas_frame):
        x = da.ones(10, chunks=5)
        future = client.compute(x.sum())
        assert isinstance(future, Future)
        assert future.result(timeout=20) == 10
        bag = db.from_sequence([1, 2])
        mixed = [x.sum(), delayed(operator.neg)(1), 7, bag.sum(), frame.value.max(), x.mean()]
        assert client.gather(client.compute(mixed)) == [10, -1, 7, 3, pandas_frame.value.max(), 1]
        assert client.gather(client.compute([x.sum()] * 2)) == [10, 10]
        assert client.compute(x.sum(), sync=True) == 10
        assert client.compute([[x.sum(), {"y": x.mean()}]], sync=True) == [[10, {"y": 1}]]

    def test_persist_of_several(self, client, frame, pandas_frame):
        x, y = client.persist([da.ones(10, chunks=5), frame])
        assert isinstance(x, da.Array)
        assert len(y.compute()) == 2000
        a, b = dask.persist(x + 1, {"inside": frame.value})
        assert a.sum().compute() == 20
        assert b["inside"].compute().tolist() == pandas_frame.value.tolist()
        with pytest.raises(TypeError, match="dask collections"):
            client.persist([1])

    def test_without_optimization(self, client, frame, pandas_frame):
        x = da.ones(10, chunks=5) + 1
        assert client.compute(x.sum(), optimize_graph=False).result(timeout=20) == 20
        assert x.sum().compute(optimize_graph=False) == 20
        assert client.persist(x, optimize_graph=False).sum().compute() == 20

    def test_workers_and_annotations(self, client):
        from holdfast.cluster.worker.context import current_worker

        for address in client.nthreads():
            # dask tokenizes equal functions alike: the address makes the calls differ.
            def where(_, at=address):
                return current_worker().address

            assert client.compute(delayed(where)(address), workers=address).result(timeout=20) == address
            assert client.compute(delayed(where)(1, address), workers={address: address}) is not None
            with dask.annotate(workers=address):
                value = delayed(where)(address, "annotated")
            assert value.compute(optimize_graph=False) == address

    def test_a_second_compute_of_what_is_held_costs_no_task(self, client):
        x = da.random.default_rng(4).random(10, chunks=5)
        future = client.compute(x.sum())
        assert client.compute(x.sum()).result(timeout=20) == future.result(timeout=20)

    def test_cancelling_a_collection(self, client):
        x = da.ones(10, chunks=5).persist()
        wait(x, timeout=20)
        client.cancel(x)
        with pytest.raises(CancelledError):
            futures_of(x)
        with pytest.raises((CancelledError, ValueError)):
            x.sum().compute()


class TestGet:
    def test_legacy_graphs(self, client):
        graph = {"x": 1, "y": (operator.add, "x", 10), ("z", 0): (sum, ["x", "y", 3]), "alias": "y", "l": ["x", "y"]}
        assert client.get(graph, "y") == 11
        assert client.get(graph, [["x", ("z", 0)], "alias"]) == [[1, 15], 11]
        assert client.get(graph, ["l", "l"]) == [[1, 11], [1, 11]]
        futures = client.get(graph, ["y", "alias"], sync=False)
        assert futures[0].key == futures[1].key == "y"

    def test_a_key_that_is_not_there(self, client):
        with pytest.raises(ValueError, match="'nope'"):
            client.get({"x": 1}, "nope")
        with pytest.raises(ValueError, match="alias of itself"):
            client.get({"x": "y", "y": "x"}, "x")

    def test_futures_in_a_graph(self, client):
        future = client.submit(operator.neg, 3)
        assert client.get({"f": future, "y": (operator.add, "f", 1)}, ["y", "f"]) == [-2, -3]
        assert client.get({"y": (sum, [future, 1])}, "y") == -2

    def test_a_graph_larger_than_a_message(self, client, monkeypatch):
        from holdfast.client.operations import graphs

        monkeypatch.setattr(graphs, "MAX_ITEMS", 7)
        graph = {("x", i): (operator.add, ("x", i - 1), 1) if i else 0 for i in range(60)}
        graph["total"] = (sum, [("x", i) for i in range(0, 60, 3)])
        assert client.get(graph, ["total", ("x", 59)]) == [sum(range(0, 60, 3)), 59]

    def test_nothing_stays_behind(self, client, eventually):
        da.ones((100, 100), chunks=10).sum().compute()
        eventually(lambda: not client._core.table.states, what="no key is held")


class TestTheDefault:
    def test_the_last_one_that_was_opened_is_the_default_until_it_is_closed(self, client, cluster):
        assert Client.current() is client
        second = Client(cluster)
        third = Client(cluster)
        assert dask.config.get("scheduler") is third
        second.close()
        assert Client.current() is third
        third.close()
        assert Client.current() is client
        assert dask.config.get("scheduler") is client
        client.close()
        assert dask.config.get("scheduler", None) is None
        assert dask.config.get("dataframe.shuffle.method", None) is None
        with pytest.raises(ValueError, match="no client"):
            Client.current()

    @pytest.mark.parametrize("name", ["distributed", "dask.distributed"])
    def test_dasks_names_for_its_own_mean_the_client_while_one_is_open(self, client, name):
        x = dask.delayed(os.getpid)()
        assert x.compute(scheduler=name) != os.getpid()
        with dask.config.set({"scheduler": name}):
            assert x.compute() != os.getpid()
            assert len(futures_of(dask.persist(x))) == 1
        client.close()
        with pytest.raises(RuntimeError, match="no Client active"):
            x.compute(scheduler=name)

    def test_dasks_name_for_its_own_in_an_asynchronous_client(self, cluster):
        async def case():
            async with Client(cluster.scheduler_address, asynchronous=True):
                with pytest.raises(RuntimeError, match=r"write 'await client.compute\(collection\)'"):
                    dask.delayed(os.getpid)().compute(scheduler="distributed")

        asyncio.run(case())

    def test_a_scheduler_chosen_by_the_user_is_left_alone(self, client, cluster):
        with dask.config.set({"scheduler": "sync"}):
            client.close()
            assert dask.config.get("scheduler") == "sync"
        with dask.config.set({"scheduler": "sync", "dataframe.shuffle.method": "disk"}):
            with Client(cluster) as again:
                assert dask.config.get("scheduler") is again
                assert dask.config.get("dataframe.shuffle.method") == "disk"
            assert dask.config.get("scheduler") == "sync"

    def test_one_that_was_closed_meanwhile_does_not_come_back(self, client, cluster):
        with dask.config.set({"scheduler": "sync"}):
            client.close()
        assert dask.config.get("scheduler") is client  # so dask says that it is closed, and computes nothing elsewhere
        with Client(cluster):
            assert dask.delayed(operator.neg)(3).compute() == -3
        assert dask.config.get("scheduler", None) is None

    def test_a_scheduler_for_one_call(self, cluster):
        with Client(cluster, set_as_default=False) as other:
            assert da.ones(10, chunks=5).sum().compute(scheduler=other) == 10
