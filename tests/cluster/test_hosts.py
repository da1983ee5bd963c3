"""Objects on several hosts: read in place where they are, brought over once where they are not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from waiting import until

from holdfast import Client, LocalCluster, wait
from holdfast.cluster import protocol


def make(nbytes, seed=0):
    return np.random.default_rng(seed).integers(0, 255, nbytes, "u1")


def look(array, *_):
    """The array's sum, and whether it lies in the arena of the worker that runs this."""
    from holdfast.cluster.worker.context import current_worker

    address = array.__array_interface__["data"][0]
    return int(array.sum()), current_worker().store.address_in_arena(address), array.flags.writeable


def make_table(nbytes):
    return pa.table({name: make(nbytes // 4, seed) for seed, name in enumerate("abcd")})


def used(*_):
    """The bytes that are taken in the store of the worker that runs this."""
    from holdfast.cluster.worker.context import current_worker

    stats = current_worker().store.stats()
    return stats["used"] - stats["leased_nbytes"]


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=4, threads_per_worker=1, n_hosts=2, object_store_memory="128 MiB") as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client


@pytest.fixture
def nodes(client):
    return list(client._request(protocol.requests.STATUS)["nodes"])


def objects_in(client, node):
    return client._request(protocol.requests.STATUS)["nodes"][node]["store"].get("objects", 1)


def test_the_result_lies_in_the_store_of_the_host_that_made_it(client, nodes):
    for node in nodes:
        future = client.submit(make, 1_000_000, workers=[node], pure=False)
        wait(future)
        assert list(client.who_has([future])[future.key]) == [node]


def test_what_a_task_gives_on_of_its_input_is_not_copied(client, nodes):
    here = {"workers": [nodes[0]], "pure": False}
    table = client.submit(make_table, 50_000_000, **here)
    wait(table)
    before = client.submit(used, **here).result()
    column = client.submit(lambda table: table["b"], table, **here)
    few = client.submit(lambda table: {"rows": table.slice(1000, 10_000_000), "n": 1}, table, **here)
    wait([column, few])
    assert client.submit(used, **here).result() - before < 100_000
    expected = pa.chunked_array([make(12_500_000, 1)])
    elsewhere = client.submit(lambda column: column.slice(5), column, workers=[nodes[1]], pure=False)
    assert elsewhere.result().equals(expected.slice(5))
    del table
    assert column.result().equals(expected)
    assert few.result()["rows"]["b"].equals(expected.slice(1000, 10_000_000))
    del few, elsewhere  # whose result was brought here too
    until(lambda: client.submit(used, **here).result() < before - 37_000_000, "only the column is left")
    assert column.result().equals(expected)


def test_consumers_on_the_same_host_read_in_place(client, nodes):
    future = client.submit(make, 1_000_000, workers=[nodes[0]], pure=False)
    expected = int(make(1_000_000).sum())
    readers = [worker for worker in client.nthreads() if worker.startswith(nodes[0])]
    assert len(readers) == 2
    results = [client.submit(look, future, workers=[worker], pure=False) for worker in readers]
    assert client.gather(results) == [(expected, True, False)] * 2
    assert list(client.who_has([future])[future.key]) == [nodes[0]]


def test_a_host_that_needs_it_gets_one_copy_for_all_its_workers(client, nodes):
    future = client.submit(make, 10_000_000, workers=[nodes[0]], pure=False)
    wait(future)
    expected = int(make(10_000_000).sum())
    readers = [worker for worker in client.nthreads() if worker.startswith(nodes[1])]
    results = [client.submit(look, future, i, workers=[worker], pure=False) for i in range(5) for worker in readers]
    assert client.gather(results) == [(expected, True, False)] * 10
    assert set(client.who_has([future])[future.key]) == set(nodes)
    memory = client._request(protocol.requests.MEMORY)
    assert [set(o["where"]) for o in memory["objects"] if o["key"] == future.key] == [set(nodes)]


def test_the_client_gets_what_lies_elsewhere_into_its_own_hosts_store(client, nodes):
    futures = [client.submit(make, 1_000_000, node, workers=[nodes[node]], pure=False) for node in range(2)]
    for seed, array in enumerate(client.gather(futures)):
        assert (array == make(1_000_000, seed)).all()
        assert client.store.address_in_arena(array.__array_interface__["data"][0])


def test_a_client_on_no_stores_host_reads_and_scatters_too(cluster, nodes):
    with Client(cluster, attach=False, set_as_default=False) as client:
        assert client.store is None
        data = make(1_000_000, 7)
        future = client.scatter(data, hash=False)
        assert (future.result() == data).all()
        total, in_place, _ = client.submit(look, future).result()
        assert total == int(data.sum())
        assert in_place
        futures = [client.submit(make, 1_000_000, node, workers=[nodes[node]], pure=False) for node in range(2)]
        for seed, array in enumerate(client.gather(futures)):
            assert (array == make(1_000_000, seed)).all()


def test_the_last_future_frees_the_object_in_every_store(client, nodes):
    future = client.submit(make, 1_000_000, workers=[nodes[0]], pure=False)
    client.submit(look, future, workers=[nodes[1]], pure=False).result()
    key = future.key
    until(lambda: len(client.who_has()[key]) == 2, "the scheduler knows of both copies")
    del future
    # The stores say how many they hold with every heartbeat.
    until(lambda: not any(objects_in(client, node) for node in nodes), "the stores are empty")
    assert not client.who_has()
