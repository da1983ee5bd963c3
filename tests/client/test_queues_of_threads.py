"""Queues of Python's in the place of containers: of `Client.map`, `Client.scatter` and `Client.gather`."""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
import weakref

import pytest

from holdfast import Client, ConnectError, Future
from tests.support.waiting import until

SECONDS = 30


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "holdfast-queue"]


def taken(source, number):
    return [source.get(timeout=SECONDS) for _ in range(number)]


@pytest.mark.parametrize("kind", [queue.Queue, queue.LifoQueue, queue.SimpleQueue])
def test_what_is_put_is_submitted_and_read_as_it_comes(client, kind):
    numbers = kind()
    futures = client.map(abs, numbers)
    results = client.gather(client.map(str, futures))
    for i in range(5):
        numbers.put(-i)
        assert results.get(timeout=SECONDS) == str(i)
    assert isinstance(futures, queue.Queue)
    assert results.empty()


def test_one_item_of_each_queue(client):
    bases, exponents = queue.Queue(), queue.Queue()
    powers = client.map(pow, bases, exponents, key="powers")
    for i in range(3):
        bases.put(i)
        exponents.put(2)
    futures = taken(powers, 3)
    assert client.gather(futures) == [0, 1, 4]
    assert all(isinstance(future, Future) and future.key.startswith("powers-") for future in futures)


def test_what_is_scattered(client):
    values = queue.Queue()
    results = client.gather(client.map(sum, client.scatter(values)))
    values.put([1, 2])
    values.put([3, 4])
    assert taken(results, 2) == [3, 7]


def test_what_fails_is_raised_in_its_turn(client):
    numbers = queue.Queue()
    results = client.gather(client.map(lambda x: 1 // x, numbers))
    for i in (1, 0, 1):
        numbers.put(i)
    assert results.get(timeout=SECONDS) == 1
    with pytest.raises(ZeroDivisionError):
        results.get(timeout=SECONDS)
    assert results.get(timeout=SECONDS) == 1
    futures = client.map(abs, locks := queue.Queue())
    locks.put(threading.Lock())
    with pytest.raises(TypeError, match="can't be pickled"):
        futures.get(timeout=SECONDS)
    skipped = client.gather(client.map(lambda x: 1 // x, source := queue.Queue()), errors="skip")
    source.put(0)
    source.put(1)
    assert skipped.get(timeout=SECONDS) == 1


def test_what_can_t_be(client, cluster):
    lock = threading.Lock()
    with pytest.raises(TypeError, match="not queues and other iterables"):
        client.map(pow, queue.Queue(), [1, 2])
    with pytest.raises(TypeError, match="begin with a text"):
        client.map(abs, queue.Queue(), key=["a", "b"])
    with pytest.raises(TypeError, match="can't be pickled"):
        client.map(lambda x: lock, queue.Queue())

    async def case():
        async with Client(cluster, asynchronous=True, set_as_default=False) as other:
            with pytest.raises(TypeError, match="in a coroutine"):
                other.map(abs, queue.Queue())
            with pytest.raises(TypeError, match="in a coroutine"):
                await other.gather(queue.Queue())

    asyncio.run(case())


def test_the_thread_ends_with_the_client(cluster):
    numbers = queue.Queue()
    with Client(cluster, set_as_default=False) as client:
        futures = client.map(abs, numbers)
        numbers.put(-1)
        future = futures.get(timeout=SECONDS)
        assert threads()
    until(lambda: not threads(), "its thread has ended")
    with pytest.raises(ConnectError):
        client.map(abs, numbers)
    del future


def test_a_client_that_is_garbage_ends(cluster):
    numbers = queue.Queue()
    client = Client(cluster, set_as_default=False)
    core = weakref.ref(client._core)
    futures = client.map(abs, numbers)
    del client

    def gone():
        gc.collect()
        return core() is None and not threads()

    until(gone, "the client and its thread have gone")
    assert futures.empty()
