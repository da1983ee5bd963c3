"""What locks, semaphores, queues, variables and events are told: times and numbers of every kind."""

from __future__ import annotations

import asyncio
import datetime
import math
import warnings

import numpy as np
import pytest

from holdfast import (
    BlockedTasksError,
    Client,
    Event,
    LocalCluster,
    Lock,
    MultiLock,
    Queue,
    RLock,
    Semaphore,
    Variable,
    get_client,
)
from holdfast.cluster.durations import seconds
from holdfast.cluster.worker import threads

DEADLINE_SECONDS = 60


@pytest.mark.parametrize("forever", [math.inf, 10**30, None])
def test_infinity_is_as_long_as_it_takes(run, forever):
    async def case(client, got):
        for lock in (Lock("forever", client), RLock("forever", client), MultiLock(["forever"], client)):
            assert await got(lock.acquire(timeout=forever))
            await got(lock.release())
        semaphore = Semaphore(2, "forever", client)
        assert await got(semaphore.acquire(timeout=forever))
        await got(semaphore.release())
        queue = await Queue("forever", client, maxsize=3)
        await got(queue.put(1, timeout=forever))
        assert await got(queue.get(timeout=forever)) == 1
        await got(Variable("forever", client).set(2))
        assert await got(Variable("forever", client).get(timeout=forever)) == 2
        await got(Event("forever", client).set())
        assert await got(Event("forever", client).wait(timeout=forever))

    run(case)


def test_a_time_may_be_any_number(client):
    assert not Event("no-time", client).wait(timeout=False)
    for timeout in (np.float32(0.01), np.int64(0), datetime.timedelta(milliseconds=10), -1):
        assert not Event("no-time", client).wait(timeout=timeout)
    assert seconds(True) == 1.0


@pytest.mark.parametrize("timeout", [math.nan, [1], "soon", object()])
def test_and_what_is_no_time_is_refused(client, timeout):
    for call in (
        Lock("no-time", client).acquire,
        RLock("no-time", client).acquire,
        MultiLock(["no-time"], client).acquire,
        Queue("no-time", client).get,
        Variable("no-time", client).get,
        Event("no-time", client).wait,
    ):
        with pytest.raises(ValueError, match=r"is no time|not nan"):
            call(timeout=timeout)
    assert not Lock("no-time", client).locked()


def test_numbers_may_be_numpys(client):
    with Semaphore(np.int64(2), "numpy", client) as semaphore:
        assert semaphore.max_leases == 2
    semaphore.close()
    queue = Queue("numpy", client, maxsize=np.int32(3))
    queue.put(1)
    assert queue.get(batch=np.int64(1)) == [1]
    queue.close()


@pytest.mark.parametrize("number", [2**63, 10**30])
def test_numbers_that_cannot_be_sent_are_refused_and_the_client_stays_connected(client, number):
    with pytest.raises(ValueError, match="max_leases is at most"):
        Semaphore(number, "large", client)
    with pytest.raises(ValueError, match="maxsize is at most"):
        Queue("large", client, maxsize=number)
    with pytest.raises(ValueError, match="batch is"):
        Queue("large", client).get(batch=number)
    assert client.submit(abs, -1).result(DEADLINE_SECONDS) == 1


@pytest.mark.parametrize("number", [2**63, 10**30])
def test_more_copies_and_workers_than_can_be_counted(client, number):
    client.replicate(client.submit(abs, -2), n=number)
    with pytest.raises(ValueError, match="n_workers is"):
        client.wait_for_workers(number, timeout=0)


MADE = [
    lambda client: Lock("entered", client),
    lambda client: RLock("entered", client),
    lambda client: MultiLock(["entered"], client),
    lambda client: Semaphore(1, "entered", client),
]


@pytest.mark.parametrize("make", MADE)
def test_with_in_a_task_that_is_a_coroutine_says_what_to_write(client, make):
    async def task():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = make(None)
            with pytest.raises(TypeError, match=f"use 'async with {type(made).__name__}"), made:
                raise AssertionError
            async with made:
                await asyncio.sleep(0)
                return await Lock("entered").locked()

    assert client.submit(task, pure=False).result(DEADLINE_SECONDS) == (make is not MADE[-1])


@pytest.mark.parametrize("make", MADE)
def test_and_so_it_does_in_a_coroutine_that_sync_runs(cluster, make):
    async def coroutine(client):
        made = make(client)
        with pytest.raises(TypeError, match=f"use 'async with {type(made).__name__}"), made:
            raise AssertionError
        async with made:
            return await Lock("entered", client).locked()

    with Client(cluster, set_as_default=False) as client:
        assert client.sync(coroutine, client) == (make is not MADE[-1])


def test_nothing_that_was_begun_is_left_unawaited_in_a_task_that_is_a_coroutine(client):
    async def task():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            semaphore = Semaphore(2, "unawaited")
            queue = Queue("unawaited", maxsize=2)
            async with semaphore:
                await queue.put(1)
            found = await queue.get(), await semaphore.get_value()
            await semaphore.close()
            await queue.close()
            return found, [str(warning.message) for warning in caught]

    assert client.submit(task, pure=False).result(DEADLINE_SECONDS) == ((1, 0), [])


@pytest.mark.parametrize("make", [Lock, Semaphore])
@pytest.mark.parametrize("argument", ["scheduler_rpc", "loop"])
def test_what_only_dask_needs_has_no_effect_and_says_so(client, make, argument):
    with pytest.warns(UserWarning, match=f"{argument}=<.*> has no effect: .*client") as caught:
        made = make(name="dask", client=client, **{argument: object()})
    assert caught[0].filename == __file__
    assert made.acquire(timeout=DEADLINE_SECONDS)
    made.release()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(name="dask", client=client, **{argument: None})


def test_that_a_semaphore_is_closed_too_early_is_said_where_that_is_done(run):
    async def case(client, got):
        semaphore = await Semaphore(2, "early", client)
        await got(semaphore.acquire())
        with pytest.warns(RuntimeWarning, match="one lease was not released") as caught:  # noqa: PT031
            closing = semaphore.close()
            if closing is not None:
                await closing
        assert caught[0].filename == __file__

    run(case)


def refused():
    """Each of these waits, in a task that may not."""
    said = []
    for wait in (
        lambda: Lock("refused").acquire(),
        lambda: RLock("refused").acquire(),
        lambda: MultiLock(["refused", "refused 2"]).acquire(),
        lambda: Semaphore(1, "refused").acquire(),
        lambda: Queue("refused").get(),
        lambda: Queue("refused full", maxsize=1).put(2),
        lambda: Event("refused").wait(),
        lambda: Variable("refused").get(),
    ):
        try:
            wait()
        except BlockedTasksError:
            said.append(len(get_client()._core.session._answers))
    return said


def test_a_task_that_may_not_wait_leaves_nothing_that_waits(monkeypatch):
    monkeypatch.setattr(threads, "BLOCKED_MAX", 0)
    options = {"n_workers": 1, "threads_per_worker": 1, "object_store_memory": "64 MiB", "processes": False}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        lock, semaphore = Lock("refused"), Semaphore(1, "refused")
        queue, full = Queue("refused"), Queue("refused full", maxsize=1)
        full.put(1)
        with lock, semaphore:
            assert client.submit(refused).result(timeout=DEADLINE_SECONDS) == [0] * 8
        for name in ("refused", "refused 2"):
            assert Lock(name).acquire(timeout=0)
        assert semaphore.acquire(timeout=0)
        queue.put("first")
        assert queue.get(timeout=0) == "first"
        assert full.get(timeout=0) == 1
        assert full.qsize() == 0
