"""Actors whose worker dies, or whose caller does; and calls over connections that are cut."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest
from cutting_proxy import CuttingProxy

from holdfast import ActorLostError, Client, LocalCluster
from holdfast.cluster.protocol import requests
from tests.support.waiting import until


class Counter:
    """Counts, and can die."""

    def __init__(self, n=0):
        self.n = n
        self.seen = []

    def add(self, k=1):
        self.n += k
        return self.n

    def note(self, item, data=None):
        self.seen.append(item)
        return item

    def pid(self):
        return os.getpid()

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    def gate(self, path):
        while not os.path.exists(path):
            time.sleep(0.005)


class Deadly:
    """Kills the process in which it is made."""

    def __init__(self):
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, object_store_memory="128 MiB") as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client


def test_pending_and_later_calls_fail_and_name_the_actor_the_worker_and_why(client):
    future = client.submit(Counter, key="mortal", actor=True)
    counter = future.result()
    reader = client.submit(lambda counter, x: x, counter, client.submit(time.sleep, 0.5), pure=False)
    calls = [counter.die(), counter.add(), counter.add(client.submit(time.sleep, 0.5, pure=False))]
    for call in (*calls, counter.add()):
        with pytest.raises(ActorLostError) as caught:
            call.result(timeout=30)
        for part in ("the actor Counter ('mortal')", "worker", "tcp://", "SIGKILL"):
            assert part in str(caught.value)
    with pytest.raises(ActorLostError, match="mortal"):
        _ = counter.n
    until(lambda: future.status == "error", "the future of the actor fails")
    with pytest.raises(ActorLostError):
        future.result()
    with pytest.raises(ActorLostError):
        reader.result()
    assert client.submit(Counter, key="another", actor=True).result().add().result() == 1


def test_a_constructor_that_kills_its_workers_is_given_up(client):
    with pytest.raises(Exception, match="was running on 3 workers that died"):
        client.submit(Deadly, actor=True).result(timeout=60)


def test_the_calls_of_a_client_that_has_left_are_dropped(client, cluster, tmp_path):
    counter = client.submit(Counter, actor=True).result()
    path = str(tmp_path / "go")
    client.publish_dataset(counted=counter)
    with Client(cluster, set_as_default=False) as other:
        same = other.get_dataset("counted")
        same.gate(path)
        for _ in range(10):
            same.add()
    own = counter.add(100)
    until(lambda: client._core.session.ask(requests.STATUS, 10)["clients"] == 1, "the other one has left")
    open(path, "w").close()
    assert own.result(timeout=30) == 100
    client.unpublish_dataset("counted")


def test_a_call_is_made_once_and_in_order_however_often_connections_are_cut():
    chance = random.Random(5)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as cluster,
        CuttingProxy(cluster.scheduler_address, chance, (2_000, 60_000)) as proxy,
        Client(proxy.address, token=cluster.token, attach=False, set_as_default=False) as client,
    ):
        counter = client.submit(Counter, actor=True).result(timeout=30)
        futures = []
        for number in range(600):
            futures.append(counter.note(number, b"x" * 200))
            if number % 20 == 0:
                futures[-1].result(timeout=30)
        assert [future.result(timeout=30) for future in futures] == list(range(600))
        assert counter.seen == list(range(600))
        assert sum(proxy.cuts.values()) > 3, "nothing was cut"


def test_an_actor_does_not_outlive_its_cluster_and_leaves_nothing_behind():
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB")
    client = Client(cluster)
    counter = client.submit(Counter, actor=True).result()
    pid = counter.pid().result()
    waits = counter.gate("/nowhere")

    def wait():
        with pytest.raises((OSError, ActorLostError)):
            waits.result()

    thread = threading.Thread(target=wait)
    thread.start()
    cluster.close()
    thread.join(30)
    assert not thread.is_alive()
    client.close()
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the worker has ended")
