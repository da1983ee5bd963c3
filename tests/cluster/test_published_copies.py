"""What is published and can't be made again outlives the host that had it."""

from __future__ import annotations

import os
import signal

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from waiting import until

from holdfast import Client, LocalCluster, futures_of
from holdfast.cluster import protocol

MB = 1_000_000


def numbers():
    return np.arange(MB)


def frame():
    return pd.DataFrame({"a": numbers(), "b": numbers() * 2.0})


def roots(client):
    """Where the large objects are that datasets hold and no task has made."""
    objects = client._request(protocol.requests.MEMORY)["objects"]
    found = {entry["key"]: set(entry["where"]) for entry in objects if entry["nbytes"] > MB and entry["where"]}
    return {key: where for key, where in found.items() if "add" not in str(key)}


def kill_host(client, address):
    os.kill(client._request(protocol.requests.STATUS)["nodes"][address]["pid"], signal.SIGKILL)
    until(lambda: address not in client._request(protocol.requests.STATUS)["nodes"], "the scheduler notices")


@pytest.fixture
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, n_hosts=2, object_store_memory="128 MiB") as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster, attach=False) as client:  # it must not depend on either store
        yield client


DATA = {
    "plain": (lambda: {"frame": frame(), "array": numbers()}, lambda got: got["frame"].a.sum() == numbers().sum()),
    "recipe": (lambda: dd.from_pandas(frame(), npartitions=3), lambda got: got.a.sum().compute() == numbers().sum()),
    "persisted": (
        lambda: da.from_array(numbers(), chunks=MB // 4).persist(),
        lambda got: got.sum().compute() == numbers().sum(),
    ),
    "made of it": (
        lambda: (da.from_array(numbers(), chunks=MB // 4) + 1).persist(),
        lambda got: got.sum().compute() == numbers().sum() + MB,
    ),
    "made of what was scattered": (
        lambda: Client.current().submit(np.add, Client.current().scatter(numbers()), 1),
        lambda got: got.result().sum() == numbers().sum() + MB,
    ),
}


def test_it_is_there_when_the_hosts_have_died_that_had_it(cluster, client):
    with Client(cluster, name="publisher") as publisher:
        data = {name: make() for name, (make, _) in DATA.items()}
        publisher.gather(futures_of(list(data.values())))
        publisher.publish_dataset(**data)
        del data
        first = set(client._request(protocol.requests.STATUS)["nodes"])
        assert all(where == first for where in roots(client).values())
        assert not client._request(protocol.requests.STATUS)["one_copy"]
    assert len(roots(client)) >= 2 + 1 + 4
    kill_host(client, next(iter(first)))
    assert all(is_right(client.get_dataset(name)) for name, (_, is_right) in DATA.items())
    until(lambda: len(client._request(protocol.requests.STATUS)["nodes"]) == 2, "there is another host")
    until(lambda: not client._request(protocol.requests.STATUS)["one_copy"], "there are two copies again")
    kill_host(client, (first & set(client._request(protocol.requests.STATUS)["nodes"])).pop())
    client.wait_for_workers(1)
    assert all(is_right(client.get_dataset(name)) for name, (_, is_right) in DATA.items())
    for name in DATA:
        client.unpublish_dataset(name)
    until(lambda: not roots(client), "nothing is left of it")
