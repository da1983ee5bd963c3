"""Large data in what is sent goes into a store, and the scheduler's memory doesn't grow with it."""

from __future__ import annotations

import functools
import gc
import operator
import os
import subprocess
import sys
import textwrap

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import psutil
import pytest

from holdfast import Client, DatasetExistsError, futures_of
from holdfast.cluster import protocol

MB = 1_000_000
#: What is sent in these tests is larger, and the scheduler's memory grows by less.
GROWTH_NBYTES = 12 * MB


def numbers(nbytes=24 * MB, seed=0):
    return np.random.default_rng(seed).random(nbytes // 8)


def frame(nbytes=24 * MB, columns=4):
    values = numbers(nbytes).reshape(-1, columns)
    return pd.DataFrame(values, columns=[f"c{i}" for i in range(columns)])


def texts(count=240_000):
    return pd.DataFrame({"text": pd.Series([f"{i:>100}" for i in range(count)], dtype=object)})


class Model:
    """Has data, and a method that is sent with it."""

    def __init__(self, weights):
        self.weights = weights

    def total(self, factor):
        return factor * len(self.weights)


def total(data, factor=1):
    return factor * len(data)


def large_objects(client, nbytes=MB):
    return [entry for entry in client._request(protocol.requests.MEMORY)["objects"] if entry["nbytes"] >= nbytes]


@pytest.fixture(autouse=True)
def _unpublished(cluster, eventually):
    """Each test begins and ends with empty stores."""
    yield
    gc.collect()
    with Client(cluster, set_as_default=False) as client:
        for name in client.list_datasets():
            client.unpublish_dataset(name)
        eventually(lambda: not large_objects(client), what="nobody holds the data")


@pytest.fixture
def growth(client):
    """How many bytes the scheduler's memory has grown by."""
    scheduler = psutil.Process(client._request(protocol.requests.STATUS)["scheduler"]["pid"])
    before = scheduler.memory_info().rss
    return lambda: scheduler.memory_info().rss - before


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and (one == other if type(one[0]) is int else all(map(same, one, other)))
    if isinstance(one, (pd.DataFrame, pd.Series)):
        return one.equals(other)
    if type(one) in (int, bytes, str):
        return one == other
    return bool(np.all(np.asarray(one) == np.asarray(other)))


DATA = {
    "a frame": frame,
    "an array": numbers,
    "bytes": lambda: numbers().tobytes(),
    "frames in a dictionary": lambda: {"a": frame(12 * MB), "b": frame(12 * MB, 2), "n": 1},
    "objects in a frame": texts,
    "very many columns": lambda: frame(columns=10_000),
    "very many small arrays": lambda: [np.full(100, i) for i in range(30_000)],
    "very many numbers": lambda: [*range(4 * MB)],
    "in an object": lambda: Model(numbers()).__dict__,
}


@pytest.mark.parametrize("make", DATA.values(), ids=DATA)
def test_published_data_lies_in_the_store(client, cluster, growth, make):
    data = make()
    client.publish_dataset(data=data)
    assert growth() < GROWTH_NBYTES
    objects = large_objects(client)
    assert sum(entry["nbytes"] for entry in objects) > 15 * MB
    holders = [[(holder["kind"], holder["name"]) for holder in entry["holders"]] for entry in objects]
    assert all(("dataset", "'data'") in each for each in holders)
    with Client(cluster, set_as_default=False) as other:
        assert same(other.get_dataset("data"), data)


def test_what_others_get_lies_in_the_store_too(client, cluster):
    client.publish_dataset(data={"frame": frame(), "array": numbers()})
    with Client(cluster, set_as_default=False) as other:
        got = other.get_dataset("data")
        gc.collect()
        client.unpublish_dataset("data")
        assert same(got, {"frame": frame(), "array": numbers()})
        store = other.store
        assert store.stats()["pinned_nbytes" if "pinned_nbytes" in store.stats() else "used"] >= 48 * MB


RECIPES = {
    "dd.from_pandas": lambda: (dd.from_pandas(frame(), npartitions=8, sort=False).c0.sum(), frame().c0.sum()),
    "dd.from_pandas of texts": lambda: (dd.from_pandas(texts(), npartitions=4).text.str.len().sum(), 24 * MB),
    "da.from_array": lambda: (da.from_array(numbers(), chunks=50_000).max(), numbers().max()),
    "da.from_array of one chunk": lambda: (da.from_array(numbers(), chunks=-1).max(), numbers().max()),
    "delayed": lambda: (dask.delayed(total)(numbers()), len(numbers())),
    "delayed, in a list": lambda: (dask.delayed(total)([numbers(), b"x" * 24 * MB]), 2),
    "a bag": lambda: (db.from_sequence([numbers(8 * MB, i) for i in range(3)], npartitions=3).map(len).sum(), 3 * MB),
    "many middling arguments": lambda: (
        dask.delayed(sum)([dask.delayed(total)(np.full(6_000, i)) for i in range(800)]),
        4_800_000,
    ),
}


@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_the_data_of_a_graph_goes_through_the_store(client, cluster, growth, make):
    recipe, expected = make()
    assert np.isclose(client.compute(recipe).result(60), expected)
    client.publish_dataset(recipe, name="recipe")
    assert growth() < GROWTH_NBYTES
    with Client(cluster, set_as_default=False) as other:
        assert np.isclose(other.compute(other.get_dataset("recipe")).result(60), expected)
    assert growth() < GROWTH_NBYTES


def closure_of(data):
    return lambda factor: factor * len(data)


def default_of(data):
    def function(factor, data=data):
        return factor * len(data)

    return function


FUNCTIONS = {
    "a closure": closure_of,
    "a default": default_of,
    "a partial": lambda data: functools.partial(total, data),
    "a method": lambda data: Model(data).total,
    "a closure in a partial": lambda data: functools.partial(closure_of(data)),
}
CONTENTS = {"array": numbers, "bytes": lambda: numbers().tobytes(), "list": lambda: [*range(6 * MB)]}


@pytest.mark.parametrize(
    ("kind", "content"),
    [(kind, content) for kind in FUNCTIONS for content in CONTENTS if content != "list" or kind == "a closure"],
)
def test_the_data_of_a_function_goes_through_the_store(client, growth, kind, content):
    make, data = FUNCTIONS[kind], CONTENTS[content]()
    futures = client.map(make(data), range(8))
    assert client.gather(futures) == [factor * len(data) for factor in range(8)]
    graph = {("r", i): (make(data), i) for i in range(3)}
    assert client.get(graph, list(graph)) == [i * len(data) for i in range(3)]
    assert growth() < GROWTH_NBYTES


def test_arguments_of_any_kind_go_through_the_store(client, growth):
    data = numbers()
    for argument in (data, data.tobytes(), [data], {"a": {"b": data}}, [*range(4 * MB)]):
        assert client.submit(total, argument, pure=False).result(60) == len(argument)
    assert growth() < GROWTH_NBYTES


class TestOneObject:
    """A constant is an object once, however many tasks share it."""

    SHARED = {  # noqa: RUF012
        "an argument": lambda data: [dask.delayed(total)(data, i) for i in range(50)],
        "in a list": lambda data: [dask.delayed(operator.getitem)([data, i], 1) for i in range(50)],
        "in partials": lambda data: [dask.delayed(functools.partial(total, data))(i) for i in range(50)],
        "in closures": lambda data: [dask.delayed(closure_of(data), pure=False)(i) for i in range(50)],
        "in methods": lambda data: [dask.delayed(Model(data).total, pure=False)(i) for i in range(50)],
    }

    @pytest.mark.parametrize("make", SHARED.values(), ids=SHARED)
    @pytest.mark.parametrize("kind", [np.ndarray, bytes])
    def test_in_a_graph(self, client, make, kind):
        data = numbers(4 * MB)
        futures = client.compute(make(data.tobytes() if kind is bytes else data))
        client.gather(futures)
        if make is self.SHARED["in methods"] and kind is bytes:
            return  # 50 objects of a user's class, each with bytes of its own
        assert len(large_objects(client)) == 1

    def test_in_two_graphs_and_calls(self, client):
        data = numbers()
        one = client.compute(dask.delayed(total)(data))
        other = client.compute(dask.delayed(total)(data.copy(), 2))
        third = client.submit(total, data, 3)
        assert client.gather([one, other, third]) == [factor * len(data) for factor in (1, 2, 3)]
        assert len(large_objects(client)) == 1

    def test_but_not_when_it_was_changed_between(self, client):
        data = np.ones(MB)
        first = client.submit(np.sum, data)
        recipe = dask.delayed(lambda: data.sum(), pure=False)()
        before = client.compute(recipe)
        assert client.gather([first, before]) == [MB, MB]
        data[:] = 2
        assert client.submit(np.sum, data).result(60) == 2 * MB
        assert client.compute(dask.delayed(lambda: data.sum(), pure=False)()).result(60) == 2 * MB

    @pytest.mark.parametrize("count", [5, 100_000])
    def test_but_not_when_the_iterable_that_is_mapped_over_fills_one_buffer_again_and_again(self, client, count):
        def buffers():
            buffer = np.zeros(count)
            for i in range(4):
                buffer[:] = i
                yield buffer

        repeated = [np.ones(count)] * 4
        assert client.gather(client.map(np.max, buffers())) == [0, 1, 2, 3]
        assert client.gather(client.map(np.dot, buffers(), repeated)) == [0, count, 2 * count, 3 * count]

    def test_the_same_call_twice_is_one_computation(self, client):
        one = client.submit(np.sum, numbers())
        assert client.submit(np.sum, numbers()).key == one.key
        assert client.submit(np.sum, numbers(seed=1)).key != one.key


def test_a_task_that_writes_to_the_data_of_its_function_writes_to_its_own_copy(client):
    data = np.ones(MB)

    def write(value):
        data[:] += value
        return data.sum()

    assert client.gather(client.map(write, [1, 2, 1, 2], pure=False)) == [2 * MB, 3 * MB, 2 * MB, 3 * MB]
    assert data.sum() == MB


def test_a_persisted_collection_is_published_without_further_objects(client):
    x = da.ones((1000, 1000), chunks=(100, 1000)).persist()
    client.gather(futures_of(x))
    before = {entry["key"] for entry in client._request(protocol.requests.MEMORY)["objects"]}
    client.publish_dataset(x=x)
    assert {entry["key"] for entry in client._request(protocol.requests.MEMORY)["objects"]} == before


def test_from_where_there_is_no_store(remote, cluster, growth):
    remote.publish_dataset(data={"frame": frame(), "text": "small"})
    assert same(remote.get_dataset("data")["frame"], frame())
    assert remote.submit(total, numbers(), 2).result(60) == 2 * len(numbers())
    assert remote.submit(closure_of(numbers()), 2).result(60) == 2 * len(numbers())
    assert growth() < GROWTH_NBYTES


class TestAllOrNothing:
    def test_a_taken_name(self, client, eventually):
        client.publish_dataset(b="taken")
        with pytest.raises(DatasetExistsError, match="'b'"):
            client.publish_dataset(a=numbers(), b=numbers(), c=3)
        assert client.list_datasets() == ("b",)
        assert client.get_dataset("b") == "taken"
        gc.collect()
        eventually(lambda: not large_objects(client), what="nothing is left in the store")

    def test_what_cannot_be_pickled(self, client, eventually):
        import threading

        with pytest.raises(TypeError, match="'b' can't be pickled"):
            client.publish_dataset(a=numbers(), b=threading.Lock())
        assert client.list_datasets() == ()
        gc.collect()
        eventually(lambda: not large_objects(client), what="nothing is left in the store")

    def test_all(self, client):
        client.publish_dataset(a=1, b=2)
        client.publish_dataset(a=3, c=4, override=True)
        assert dict(client.datasets) == {"a": 3, "b": 2, "c": 4}

    def test_a_publisher_that_dies_in_the_middle(self, client, cluster, eventually):
        code = f"""
            import os
            import numpy as np
            from holdfast import Client
            client = Client({cluster.scheduler_address!r})
            ask = client._core.session.ask
            client._core.session.ask = lambda *args, **kwargs: os._exit(7)
            client.publish_dataset(a=np.ones(5_000_000), b=np.zeros(5_000_000))
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=60, env=os.environ)
        assert done.returncode == 7
        assert client.list_datasets() == ()
        eventually(lambda: client.store.stats()["object_nbytes"] < 10 * MB, what="nothing is left in the store")
        assert not large_objects(client)
