"""`Client.loop` and `Client.sync`: coroutines in the loop of a client, where the client is an asynchronous one."""

from __future__ import annotations

import asyncio
import threading

import dask.array as da
import numpy as np
import pytest
from tornado.ioloop import IOLoop

from holdfast import Client, futures_of, wait
from tests.support.kinds import DEADLINE_SECONDS

LARGE = 4 << 20


async def all_that_waits(client):
    """What a library does in the loop: each call that waits elsewhere is awaited."""
    assert client.asynchronous
    assert await client.submit(pow, 2, 10) == 1024
    futures = client.map(abs, range(-5, 0))
    done, _ = await wait(futures)
    assert len(done) == 5
    assert await client.gather(futures) == [5, 4, 3, 2, 1]
    scattered = await client.scatter(np.arange(LARGE // 8))
    assert int(await client.submit(np.sum, scattered)) == (LARGE // 8 - 1) * (LARGE // 16)
    x = client.persist(da.ones(100, chunks=10))
    assert await client.compute(x.sum()) == 100
    assert len(futures_of(x)) == 10
    with pytest.raises(TimeoutError, match=r"9 workers"):
        await client.wait_for_workers(9, timeout="10 ms")
    assert "workers" in await client.scheduler_info()
    with pytest.raises(LookupError):
        await client.submit(fail)
    return "the end"


def fail():
    raise LookupError


def test_a_coroutine_runs_in_the_loop_with_an_asynchronous_client(run_outside_of_tasks):
    async def case(client, got):
        before = client.asynchronous
        assert await got(client.sync(all_that_waits, client)) == "the end"
        assert client.asynchronous is before
        assert await got(client.sync(lambda x, *, y: x + y, 1, y=2)) == 3
        with pytest.raises(LookupError):
            await got(client.sync(raises, client))
        assert await got(client.submit(abs, -1).result()) == 1

    async def raises(client):
        await client.submit(fail)

    run_outside_of_tasks(case)


def test_it_ends_in_time(run_outside_of_tasks):
    async def case(client, got):
        cancelled = asyncio.Event()

        async def for_ever():
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        with pytest.raises(TimeoutError, match=r"for_ever was not done within 0\.05 s"):
            await got(client.sync(for_ever, callback_timeout="50 ms"))
        with pytest.raises(TimeoutError, match="theirs"):
            await got(client.sync(raises_timeout, callback_timeout=DEADLINE_SECONDS))
        assert cancelled.is_set() or await got(client.sync(cancelled.wait))

    async def raises_timeout():
        raise TimeoutError("theirs")

    run_outside_of_tasks(case)


def test_the_loop_takes_callbacks_of_tornado(run_outside_of_tasks):
    async def case(client, got):
        loop = client.loop
        assert isinstance(loop, IOLoop)
        assert client.loop is loop
        called = threading.Event()
        loop.add_callback(called.set)
        assert await asyncio.to_thread(called.wait, DEADLINE_SECONDS)
        assert await got(client.sync(lambda: IOLoop.current() is loop and client.loop is loop))

    run_outside_of_tasks(case)


def test_asynchronous_is_what_the_client_is(client):
    with pytest.raises(ValueError, match="a blocking one here"):
        client.sync(abs, -1, asynchronous=True)
    assert client.sync(abs, -1, asynchronous=False) == 1


def test_a_client_is_not_closed_in_its_own_loop(client):
    async def close():
        await client.close()

    with pytest.raises(RuntimeError, match="close it in another thread"):
        client.sync(close)
    assert client.submit(abs, -1).result() == 1


def test_a_closed_client_has_no_loop(cluster):
    with Client(cluster, set_as_default=False) as client:
        loop = client.loop
    for use in (lambda: client.loop, lambda: client.sync(abs, -1)):
        with pytest.raises(RuntimeError, match="the client is closed"):
            use()
    del loop


def test_two_clients_in_one_loop(cluster, client):
    async def both(one, other):
        assert not other.asynchronous
        theirs = other.submit(pow, 2, 3)
        return await one.gather([one.submit(abs, -1), theirs])

    with Client(cluster, set_as_default=False) as other:
        assert client.sync(both, client, other) == [1, 8]
