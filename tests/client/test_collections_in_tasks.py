"""dask collections inside of tasks: computed there; what can't be computed there yet says so."""

from __future__ import annotations

import operator

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask import delayed

from holdfast import Client, futures_of


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
    return Client.current().get_dataset(name).sum().compute()


@pytest.mark.parametrize("name", ["array", "frame", "bag"])
@pytest.mark.parametrize(
    "use",
    [
        lambda x: x.sum().compute(),
        lambda x: x.compute(),
        lambda x: dask.compute({"x": [x.sum()]}),
        lambda x: x.persist(),
        lambda x: delayed(len)(x).compute(),
        lambda x: Client.current().persist(x).sum().compute(),
    ],
)
def test_one_on_futures_is_refused_with_what_to_do(client, name, use):
    collection = client.get_dataset(name)
    with pytest.raises(NotImplementedError, match=r"the task '.*' computes .* stands on futures .*submit\(function"):
        client.submit(use, collection).result()


@pytest.mark.parametrize("name", ["array", "frame", "bag"])
def test_a_dataset_likewise(client, name):
    with pytest.raises(NotImplementedError, match="the task 'dataset_sum-"):
        client.submit(dataset_sum, name).result()


def test_what_it_says_to_do_works(client):
    array = client.get_dataset("array")
    assert client.submit(lambda parts: sum(part.sum() for part in parts), futures_of(array)).result() == 45
    assert client.submit(operator.neg, array.sum().compute()).result() == -45
    assert client.submit(operator.neg, client.compute(array.sum())).result() == -45


def test_one_without_futures_is_computed_in_the_task(client):
    with pytest.raises(NotImplementedError):
        client.submit(dataset_sum, "array").result()  # which changes nothing for others
    assert client.submit(dataset_sum, "lazy").result() == 45
    assert client.submit(lambda: da.ones(3).sum().compute()).result() == 3
    assert client.submit(lambda: db.range(4, npartitions=2).map(operator.neg).compute()).result() == [0, -1, -2, -3]
    assert client.submit(lambda: delayed(operator.neg)(1).compute()).result() == -1


def test_a_client_that_a_task_opens_works(cluster, client):
    address = cluster.scheduler_address

    def with_default(array):
        with Client(address) as own:
            return array.sum().compute(), own.get_dataset("frame").sum().compute()

    def without_default():
        with Client(address, set_as_default=False) as own:
            array = own.get_dataset("array")
            total = own.compute(array.sum()).result()
            with pytest.raises(NotImplementedError):
                array.sum().compute()
            return total

    assert client.submit(with_default, client.get_dataset("array")).result() == (45, 45)
    assert client.submit(without_default).result() == 45
    assert isinstance(np.asarray(client.get_dataset("array")), np.ndarray)
