"""dask collections inside of tasks: what is computed there is computed on the cluster."""

from __future__ import annotations

import operator
import os
import threading

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask import delayed

from holdfast import Client, futures_of, get_client


@pytest.fixture(autouse=True)
def _datasets(client):
    client.publish_dataset(
        array=da.arange(10, chunks=5).persist(),
        frame=dd.from_pandas(pd.DataFrame({"a": range(10)}), npartitions=2).a.persist(),
        bag=db.from_sequence(range(10), npartitions=2).persist(),
        lazy=da.arange(10, chunks=5),
    )
    yield
    for name in client.list_datasets():
        client.unpublish_dataset(name)


def dataset_sum(name):
    return get_client().get_dataset(name).sum().compute()


@pytest.mark.parametrize("name", ["array", "frame", "bag"])
@pytest.mark.parametrize(
    "use",
    [
        lambda x: x.sum().compute(),
        lambda x: sum(x.compute()),
        lambda x: dask.compute({"x": [x.sum()]})[0]["x"][0],
        lambda x: x.persist().sum().compute(),
        lambda x: delayed(sum)(x).compute(),
        lambda x: get_client().persist(x).sum().compute(),
        lambda x: get_client().compute(x.sum()).result(),
    ],
)
def test_one_on_futures_is_computed_on_the_cluster(client, name, use):
    assert client.submit(use, client.get_dataset(name)).result() == 45


@pytest.mark.parametrize("name", ["array", "frame", "bag", "lazy"])
def test_a_dataset_likewise(client, name):
    assert client.submit(dataset_sum, name).result() == 45


def test_one_without_futures_likewise(client):
    assert client.submit(lambda: da.ones(3).sum().compute()).result() == 3
    assert client.submit(lambda: db.range(4, npartitions=2).map(operator.neg).compute()).result() == [0, -1, -2, -3]
    assert client.submit(lambda: delayed(operator.neg)(1).compute()).result() == -1


def test_its_tasks_are_the_clusters(client):
    """And not threads of the worker: with annotations they go where these say."""

    def where(address):
        with dask.annotate(workers=[address]):
            return delayed(os.getpid, pure=False)().compute()

    there = {address: client.submit(os.getpid, workers=address, pure=False).result() for address in client.nthreads()}
    for address in there:
        assert {other: client.submit(where, other, workers=address).result() for other in there} == there


def test_what_a_task_persists_stays_in_the_cluster(client):
    def persisted():
        return len(futures_of(da.ones(4, chunks=2).persist())), in_a_thread(
            lambda: len(futures_of(da.ones(4, chunks=2).persist()))
        )

    assert client.submit(persisted).result() == (2, [0])


def test_the_scheduler_that_computes_can_be_chosen(client):
    def with_threads():
        return os.getpid(), delayed(os.getpid)().compute(scheduler="synchronous")

    here, there = client.submit(with_threads).result()
    assert here == there


def in_a_thread(compute):
    results = []
    thread = threading.Thread(target=lambda: results.append(compute()))
    thread.start()
    thread.join()
    return results


def test_a_thread_that_a_task_has_started_computes_in_threads(client):
    assert client.submit(in_a_thread, lambda: int(da.ones(3).sum().compute())).result() == [3]


def test_and_nothing_on_futures(client):
    def compute(array):
        def refused():
            with pytest.raises(NotImplementedError, match="only the task's own thread has a client") as caught:
                array.sum().compute()
            return str(caught.value)

        return in_a_thread(refused)

    (text,) = client.submit(compute, client.get_dataset("array")).result()
    assert "stands on futures" in text


def test_what_it_is_given_as_values_works_as_before(client):
    array = client.get_dataset("array")
    assert client.submit(lambda parts: sum(part.sum() for part in parts), futures_of(array)).result() == 45
    assert client.submit(operator.neg, array.sum().compute()).result() == -45
    assert client.submit(operator.neg, client.compute(array.sum())).result() == -45


def test_a_frame_is_shuffled_by_tasks(client):
    def shuffled():
        frame = dd.from_pandas(pd.DataFrame({"a": range(20), "b": [n % 3 for n in range(20)]}), npartitions=4)
        return frame.groupby("b").a.apply(lambda a: a.sum(), meta=("a", "int64")).compute().to_dict()

    expected = pd.DataFrame({"a": range(20), "b": [n % 3 for n in range(20)]}).groupby("b").a.sum().to_dict()
    assert client.submit(shuffled).result() == expected


def test_a_client_that_a_task_opens_works(cluster, client):
    address = cluster.scheduler_address

    def with_default(array):
        with Client(address) as own:
            return array.sum().compute(), own.get_dataset("frame").sum().compute()

    def without_default():
        with Client(address, set_as_default=False) as own:
            array = own.get_dataset("array")
            return own.compute(array.sum()).result() + array.sum().compute()

    assert client.submit(with_default, client.get_dataset("array")).result() == (45, 45)
    assert client.submit(without_default).result() == 90
    assert isinstance(np.asarray(client.get_dataset("array")), np.ndarray)


def by_name(name):
    x = da.ones(10, chunks=5) + 1
    persisted = dask.persist(x, scheduler=name)[0]
    with dask.config.set(scheduler=name):
        assert persisted.sum().compute() == 20
    assert len(futures_of(persisted)) == 2  # it stays in the cluster
    return x.sum().compute(scheduler=name)


@pytest.mark.parametrize("name", ["distributed", "dask.distributed"])
def test_dasks_names_for_its_own_mean_the_client_of_the_task(client, name):
    assert client.submit(by_name, name, pure=False).result() == 20


async def in_a_coroutine(scheduler):
    x = da.ones(10, chunks=5) + 1
    with pytest.raises(RuntimeError, match=r"write 'await client.compute\(collection\)'"):
        x.sum().compute(scheduler=scheduler)
    return await get_client().compute(x.sum())


@pytest.mark.parametrize("scheduler", [None, "distributed"])
@pytest.mark.parametrize("processes", [True, False])
def test_a_coroutine_hears_that_it_would_block_its_loop(scheduler, processes):
    with Client(n_workers=1, threads_per_worker=1, processes=processes, object_store_memory="64 MiB") as client:
        assert client.submit(in_a_coroutine, scheduler).result() == 20
