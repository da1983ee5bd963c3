"""Workers of a real cluster go, and their hosts with them, and nothing is lost."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
from waiting import until

from holdfast import Client, LocalCluster, NotCopiedError, NoWorkerError, get_client, get_worker
from holdfast.cluster import protocol

MB = 1_000_000


@pytest.fixture(params=[True, False], ids=["processes", "in process"])
def cluster(request):
    with LocalCluster(
        n_workers=4, threads_per_worker=1, n_hosts=2, object_store_memory="128 MiB", processes=request.param
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client


def hosts(client):
    return list(client._request(protocol.requests.STATUS)["nodes"])


def pids(client):
    return {each["pid"] for each in client._request(protocol.requests.STATUS)["nodes"].values()}


def slow(seconds):
    time.sleep(seconds)
    return os.getpid()


def test_a_worker_goes_for_good(client):
    worker, *others = client.nthreads()
    going = client.retire_workers(worker)
    assert list(going) == [worker]
    assert sorted(client.nthreads()) == sorted(others)
    assert len(hosts(client)) == 2
    assert client.gather(client.map(abs, range(20))) == list(range(20))
    until(lambda: worker not in client.scheduler_info()["places"], "its host keeps no worker there")


def retire_own():
    get_client().retire_workers([get_worker().address], grace=0)


def test_a_task_does_not_retire_its_own_worker(client):
    with pytest.raises(RuntimeError, match="a task can't retire its own worker"):
        client.submit(retire_own).result()
    assert len(client.nthreads()) == 4


def test_a_host_goes_with_its_last_worker_and_what_it_has_moves(cluster, client):
    first, second = hosts(client)
    data = [client.scatter(np.full(MB // 4, n), workers=[first], hash=False) for n in range(8)]
    made = client.map(lambda n: np.full(MB // 4, n), range(8), workers=[first])
    client.gather(made)
    assert all(first in where for where in client.who_has(data).values())
    client.retire_workers([first])
    assert hosts(client) == [second]
    assert all(where == [second] for where in client.who_has([*data, *made]).values())
    assert [int(value[0]) for value in client.gather([*data, *made])] == [*range(8), *range(8)]
    again = client.scatter(np.arange(MB))
    assert client.who_has(again) == {again.key: [second]}
    assert client.submit(np.sum, again).result() == MB * (MB - 1) // 2


def test_what_runs_ends_and_what_waits_runs_elsewhere(client):
    first, second = hosts(client)
    running = client.map(slow, [0.7] * 4, pure=False)
    until(lambda: sum(w["processing"] for w in client.scheduler_info()["workers"].values()) == 4, "they run")
    waiting = client.map(abs, range(30))
    client.retire_workers([first])
    assert len(client.gather(running)) == 4
    assert client.gather(waiting) == list(range(30))
    assert hosts(client) == [second]


def test_what_does_not_end_runs_once_more_elsewhere(client):
    first, second = hosts(client)
    future = client.submit(slow, 2.0, workers=[first], allow_other_workers=True)
    until(lambda: any(w["processing"] for w in client.scheduler_info()["workers"].values()), "it runs")
    client.retire_workers([first], grace="0.2 s")
    assert hosts(client) == [second]
    assert isinstance(future.result(timeout=20), int)


def test_what_can_not_be_moved_is_named_and_all_goes_on():
    with LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as cluster, Client(cluster) as c:
        data = c.scatter(np.arange(MB), hash=False)
        with pytest.raises(NotCopiedError, match=f"{data.key}.*there is no other host"):
            c.retire_workers(list(c.nthreads()))
        assert c.submit(np.sum, data).result() == MB * (MB - 1) // 2
        with pytest.raises(NoWorkerError, match="no worker or host 'nobody'"):
            c.retire_workers("nobody")
        with pytest.raises(ValueError, match="say the same"):
            c.retire_workers("one", names="two")
        with pytest.raises(ValueError, match="n= choose workers"):
            c.retire_workers("one", n=2)
        with pytest.raises(ValueError, match="n is a number of workers"):
            c.retire_workers(n=-1)


def test_objects_of_one_that_only_stopped_taking_tasks_are_elsewhere(client):
    first, second = hosts(client)
    data = client.scatter(np.arange(MB), workers=[first], hash=False)
    client.retire_workers([first], close_workers=False)
    assert set(client.who_has(data)[data.key]) == {first, second}
    assert len(client.nthreads()) == 4
    assert set(client.gather(client.map(lambda n: n, range(20)))) == set(range(20))


def test_while_clients_put_data_into_its_store(client):
    first, _ = hosts(client)
    stop = threading.Event()
    kept = []

    def put():
        while not stop.is_set():
            kept.append(client.scatter(np.full(10_000, len(kept)), hash=False))

    thread = threading.Thread(target=put)
    thread.start()
    try:
        until(lambda: len(kept) > 20, "it puts")
        client.retire_workers([first])
        before = len(kept)
        until(lambda: len(kept) > before + 20, "it goes on")
    finally:
        stop.set()
        thread.join()
    assert [int(value[0]) for value in client.gather(kept)] == list(range(len(kept)))
