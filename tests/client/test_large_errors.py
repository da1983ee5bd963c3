"""Exceptions with much in them: they lie in the store, and the scheduler keeps their text."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
from scheduler_harness import Cluster

from holdfast import Client, LocalCluster, RemoteError
from holdfast.cluster import protocol
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do

LARGE = 20 << 20
COUNT = 6


class LargeError(Exception):
    """An error that takes along what it happened to."""

    def __init__(self, number, data):
        super().__init__(number, data)
        self.number = number
        self.data = data


def fail(number, nbytes=LARGE):
    raise LargeError(number, np.full(nbytes // 8, number))


def use(value):
    return value


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="256 MB") as cluster:
        yield cluster


def objects(client):
    return client._request(protocol.requests.STATUS)["nodes"].popitem()[1]["store"]["objects"]


@pytest.mark.parametrize("attach", [True, False])
def test_large_exceptions_come_back_whole_and_are_in_the_store_as_long_as_somebody_has_the_future(
    cluster, attach, eventually
):
    with Client(cluster, attach=attach, set_as_default=False) as client:
        scheduler = psutil.Process(client._core.session.scheduler["pid"])
        client.submit(use, 1).result(30)
        eventually(lambda: not objects(client))
        before = scheduler.memory_info().rss
        futures = [client.submit(fail, number, pure=False) for number in range(COUNT)]
        below = client.submit(use, futures[0])
        for number, future in enumerate(futures):
            error = future.exception(60)
            assert isinstance(error, LargeError)
            assert (error.number, error.data.nbytes, error.data[-1]) == (number, LARGE, number)
            assert future.traceback(60).tb_frame.f_code.co_name == "fail"
        with pytest.raises(LargeError):
            below.result(60)
        with pytest.raises(LargeError):
            client.gather(futures)
        del error, future
        assert objects(client) == COUNT
        listed = [each for each in client._request(protocol.requests.MEMORY)["objects"] if each["type"] == "exception"]
        assert {each["key"] for each in listed} == {future.key for future in futures}
        assert all(each["nbytes"] > LARGE for each in listed)
        assert scheduler.memory_info().rss - before < LARGE
        del futures
        eventually(lambda: objects(client) == 1)
        del below
        eventually(lambda: not objects(client))


def test_a_large_exception_for_which_there_is_no_room_is_its_text(cluster):
    with Client(cluster, set_as_default=False) as client:
        with pytest.raises(RemoteError, match="there was no room for it in the object store") as caught:
            client.submit(fail, 1, nbytes=300 << 20, pure=False).result(60)
        assert "LargeError" in str(caught.value)
        assert "in fail" in str(caught.value)
        assert len(str(caught.value)) < 100_000


def test_a_long_text_arrives_whole_as_an_argument(cluster):
    def boast():
        raise ValueError("long " * 1_000_000)

    with Client(cluster, set_as_default=False) as client:
        error = client.submit(boast, pure=False).exception(60)
        assert str(error) == "long " * 1_000_000
        assert len(error.__notes__[0]) < 1000


# -- in the state machine

OBJECT = b"e" * 16


def failed(cluster, key, object_id=OBJECT):
    worker, entry = cluster.entry(key)
    del cluster.runs[worker][entry[1]]
    cluster.stores[worker.rpartition("/")[0]].add(object_id)
    cluster.handle(events.TasksErred(worker, [(entry[6], entry[1], (object_id, LARGE), "it failed", 0.1)]))


def stored(cluster):
    return [object_id for store in cluster.stores.values() for object_id in store]


def raised(cluster, client, key):
    done = cluster.handle(events.KeysWanted(client, [key]))
    return next(item[1] for i in done if type(i) is to_do.ReportErred for item in i.items)


def test_an_exception_goes_with_the_last_task_that_failed_for_it():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"a": [], "b": ["a"], "c": ["b"]})
    failed(cluster, "a")
    cluster.catch_up()
    assert cluster.clients[client] == dict.fromkeys("abc", "erred")
    assert raised(cluster, client, "c") == (OBJECT, LARGE, ("tcp://host0:1",))
    cluster.release(client, "a", "b")
    assert stored(cluster) == [OBJECT]
    cluster.release(client, "c")
    assert not stored(cluster)
    assert not cluster.state.life.errors.table


def test_an_exception_that_nobody_is_to_see_is_deleted_at_once():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"retried": []}, retries=1)
    failed(cluster, "retried")
    assert not stored(cluster)
    cluster.release(client, "retried")
    failed(cluster, "retried")
    assert not stored(cluster)


def test_an_exception_is_copied_and_lost_with_the_hosts_that_have_it_and_its_text_is_left():
    cluster = Cluster(hosts=2, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"a": []})
    failed(cluster, "a")
    there, other = sorted(cluster.stores, key=lambda address: OBJECT not in cluster.stores[address])
    cluster.stores[other].add(OBJECT)
    cluster.handle(events.ObjectsFound(other, [OBJECT]))
    assert raised(cluster, client, "a") == (OBJECT, LARGE, (there, other))
    cluster.remove_host(there)
    assert raised(cluster, client, "a") == (OBJECT, LARGE, (other,))
    cluster.remove_host(other)
    assert raised(cluster, client, "a") == (OBJECT, LARGE, ())
    cluster.release(client, "a")
    assert not cluster.state.life.errors.table


def test_an_exception_that_names_the_object_of_a_result_takes_it_from_nobody():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"a": [], "b": []})
    object_id = cluster.finish("a")
    failed(cluster, "b", object_id)
    assert cluster.clients[client] == {"a": "memory", "b": "erred"}
    cluster.release(client, "b")
    assert stored(cluster) == [object_id]
