"""Tasks that are coroutines: each runs on a loop of its own, and lends its slot while it waits for others."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
import time
import traceback

import dask
import numpy as np
import pytest
from dask._task_spec import List, Task, TaskRef

from holdfast import BlockedTasksError, Client, LocalCluster, Queue, as_completed, get_client, get_worker, secede, wait
from holdfast.cluster.worker import threads
from tests.support.waiting import until

DEADLINE_SECONDS = 60


@pytest.fixture(scope="module")
def one():
    """A client of a cluster of one worker with one thread."""
    options = {"n_workers": 1, "threads_per_worker": 1, "object_store_memory": "64 MiB"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield client


async def add(x, y):
    await asyncio.sleep(0)
    return x + y


class Adder:
    async def __call__(self, x, y):
        return await add(x, y)

    async def method(self, x, y):
        return await add(x, y)


def wrapped(x, y):
    return add(x, y)


@pytest.mark.parametrize("function", [add, Adder(), Adder().method, functools.partial(add), wrapped])
def test_the_result_is_what_the_coroutine_returns(run, function):
    async def case(client, got):
        assert await got(client.submit(function, 1, y=client.submit(abs, -2)).result()) == 3
        assert await got(client.gather(client.map(function, [1, 2], [3, 4]))) == [4, 6]

    run(case)


def test_in_graphs_too(run):
    async def case(client, got):
        graph = {"x": (add, 1, 2), "y": (abs, "x"), "z": (add, "x", "y")}
        assert await got(client.get(graph, ["y", "z"])) == [3, 6]
        delayed = dask.delayed(add)
        assert await got(client.compute(delayed(delayed(1, 2), 3)).result()) == 6

    run(case)


def inc(x):
    return x + 1


ADDED = Task("added", add, 1, 2)


@pytest.mark.parametrize(
    "node",
    [
        Task.fuse(ADDED, Task("inc", inc, TaskRef("added"))),
        Task.fuse(ADDED, Task("between", inc, TaskRef("added")), Task("inc", add, TaskRef("between"), 0)),
        Task("inc", inc, Task(None, add, 1, 2)),
        Task("inc", inc, Task(None, Adder(), 1, y=2)),
        Task("inc", sum, List(Task(None, functools.partial(add, 1), 2), 1)),
        (inc, (add, 1, 2)),
    ],
)
def test_a_part_of_a_node_is_awaited_where_it_stands(run, node):
    async def case(client, got):
        futures = client.get({"inc": node}, ["inc"], sync=False)
        assert await got(client.gather(futures)) == [4]

    run(case)


async def fail(text):
    await asyncio.sleep(0)
    raise ValueError(text)


async def fail_below(text):
    await fail(text)


def test_what_it_raises_comes_with_its_own_frames(run):
    async def case(client, got):
        with pytest.raises(ValueError, match="as it should") as raised:
            await got(client.submit(fail_below, "as it should", pure=False).result())
        names = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
        assert names[-2:] == ["fail_below", "fail"]
        assert "run_until_complete" not in names[names.index("case") + 1 :]

    run(case)


async def give_up():
    asyncio.current_task().cancel()
    await asyncio.sleep(60)


def test_one_that_cancels_itself_has_failed(one):
    with pytest.raises(Exception, match="CancelledError"):
        one.submit(give_up, pure=False).result(DEADLINE_SECONDS)
    assert one.submit(add, 1, 2, pure=False).result(DEADLINE_SECONDS) == 3


async def write_into(array):
    await asyncio.sleep(0)
    array += 1
    return float(array.sum())


def test_one_that_writes_into_what_it_reads_gets_a_view_of_its_own(one):
    array = one.scatter(np.zeros(100_000))
    assert one.submit(write_into, array).result(DEADLINE_SECONDS) == 100_000
    assert not array.result().any()


# -- its client


async def use_client():
    client = get_client()
    assert client.asynchronous
    assert client is get_worker().client
    first, second = client.map(abs, [-1, -2], pure=False)
    assert await first == 1
    assert await second.result() == 2
    assert await client.gather([first, second]) == [1, 2]
    done, _ = await wait([first, second])
    assert done == {first, second}
    assert {future async for future in as_completed([first, second])} == {first, second}
    large = await client.scatter(np.arange(100_000))
    assert await client.submit(np.sum, large) == 4999950000
    assert await client.submit(np.sum, np.arange(100_001)) == 5000050000  # which is stored at the call
    assert len(await client.nthreads()) == 1
    values = await asyncio.gather(*client.map(abs, range(5), pure=False))
    with pytest.raises(ZeroDivisionError):
        await client.submit(divmod, 1, 0, pure=False)
    return values


def test_it_has_an_asynchronous_client(one):
    assert one.submit(use_client, pure=False).result(DEADLINE_SECONDS) == list(range(5))


def use_blocking_client():
    assert not get_client().asynchronous
    return get_client().submit(abs, -1, pure=False).result()


def test_and_other_tasks_of_the_same_worker_a_blocking_one(one):
    assert one.submit(use_client, pure=False).result(DEADLINE_SECONDS)
    assert one.submit(use_blocking_client, pure=False).result(DEADLINE_SECONDS) == 1


async def argument(holding):
    return await holding[0].future


class Holding:
    def __init__(self, future):
        self.future = future


def test_futures_that_it_is_given_can_be_awaited(one):
    assert one.submit(argument, [Holding(one.submit(abs, -1))]).result(DEADLINE_SECONDS) == 1


async def fib(n):
    if n < 2:
        return n
    client = get_client()
    return sum(await client.gather([client.submit(fib, n - k, pure=False) for k in (1, 2)]))


def test_a_tree_of_them_ends_on_a_worker_of_one_thread(one):
    assert one.submit(fib, 9, pure=False).result(DEADLINE_SECONDS) == 34


async def chain(depth):
    return 0 if not depth else 1 + await get_client().submit(chain, depth - 1, pure=False)


def test_too_many_that_wait_are_an_error_where_they_wait(monkeypatch):
    monkeypatch.setattr(threads, "BLOCKED_MAX", 5)
    options = {"n_workers": 1, "threads_per_worker": 1, "object_store_memory": "64 MiB", "processes": False}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        with pytest.raises(BlockedTasksError, match=r"5 tasks of its worker wait already.*as arguments"):
            client.submit(chain, 6).result(timeout=DEADLINE_SECONDS)
        assert client.submit(chain, 5, pure=False).result(timeout=DEADLINE_SECONDS) == 5
        assert client.submit(catch, pure=False).result(timeout=DEADLINE_SECONDS) == "caught"


async def catch():
    try:
        await chain(6)
    except BlockedTasksError:
        return "caught"


async def ticks_while_it_waits(path):
    """Something else goes on in the loop while it waits for another task."""
    ticks = 0
    waiting = asyncio.ensure_future(get_client().submit(until_there, path, pure=False).result())
    while not waiting.done():
        ticks += 1
        if ticks == 3:
            path.touch()
        await asyncio.sleep(0.001)
    return ticks >= 3 and await waiting


def until_there(path):
    until(path.exists, "the other one makes it")
    return True


def test_its_loop_goes_round_while_it_waits(client, tmp_path):
    assert client.submit(ticks_while_it_waits, tmp_path / "go on", pure=False).result(DEADLINE_SECONDS)


async def seceding(path):
    secede()
    while not path.exists():
        await asyncio.sleep(0.001)
    return "seceded"


def test_it_may_secede(one, tmp_path):
    future = one.submit(seceding, tmp_path / "go on")
    assert one.submit(abs, -1, pure=False).result(DEADLINE_SECONDS) == 1
    (tmp_path / "go on").touch()
    assert future.result(DEADLINE_SECONDS) == "seceded"


async def in_time():
    client = get_client()
    future = client.submit(time.sleep, 0.2, pure=False)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(future.result(), 0.01)
    with pytest.raises(TimeoutError, match="not done within"):
        await future.result(timeout=0.01)
    await client.cancel(future)
    return future.status


def test_an_await_may_be_cancelled(client):
    assert client.submit(in_time, pure=False).result(DEADLINE_SECONDS) == "cancelled"


async def leave_something():
    asyncio.ensure_future(asyncio.sleep(3600))  # noqa: RUF006
    return threading.current_thread().name


def test_what_it_leaves_on_its_loop_ends_with_it(one):
    names = one.gather([one.submit(leave_something, pure=False) for _ in range(3)])
    assert all(name.startswith("holdfast-task-") for name in names)


# -- when it is cancelled


async def go_on(begun, go, ended):
    begun.touch()
    while not go.exists():
        await asyncio.sleep(0.001)
    ended.touch()


def test_one_that_runs_goes_on_when_it_is_cancelled(run, tmp_path):
    begun, go, ended = (tmp_path / name for name in ("begun", "go", "ended"))

    async def case(client, got):
        future = client.submit(go_on, begun, go, ended, pure=False)
        while not begun.exists():
            await got(client.nthreads())
        await got(client.cancel(future))
        assert future.cancelled()
        go.touch()
        while not ended.exists():
            await got(client.nthreads())
        for path in (begun, go, ended):
            path.unlink()

    run(case)


def test_or_ends_with_its_process(client, tmp_path):
    begun, go, ended = (tmp_path / name for name in ("begun", "go", "ended"))
    future = client.submit(go_on, begun, go, ended, pure=False)
    until(begun.exists, "it runs")
    future.cancel(kill=True)
    go.touch()
    assert client.submit(abs, -1, pure=False).result(DEADLINE_SECONDS) == 1
    assert not ended.exists()


# -- what it waits for by others than its client


async def by_wrapping():
    executor = get_client().get_executor(pure=False)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wrap_future(executor.submit(divmod, 1, 0))
    return await asyncio.gather(*[asyncio.wrap_future(executor.submit(abs, -n)) for n in range(3)])


async def by_the_executor():
    executor = get_client().get_executor(pure=False)
    loop = asyncio.get_running_loop()
    return [await loop.run_in_executor(executor, abs, -n) for n in range(3)]


async def by_a_blocking_call():
    executor = get_client().get_executor(pure=False)
    return [executor.submit(abs, -n).result() for n in range(3)]


async def by_concurrent_futures():
    return waits_as_concurrent_futures_do()


async def by_a_thread():
    futures = get_client().map(abs, range(0, -3, -1), pure=False)
    return [await asyncio.to_thread(future.result) for future in futures]


async def by_a_thread_that_uses_the_client():
    assert get_client().asynchronous
    return await asyncio.to_thread(use_the_client)


def use_the_client():
    client = get_client()
    assert not client.asynchronous
    assert client is get_worker().client
    assert {future.result() for future in as_completed(client.map(abs, [1, 2], pure=False))} == {1, 2}
    assert len(wait(client.map(abs, [1, 2], pure=False)).done) == 2
    waits_as_concurrent_futures_do()
    return client.gather(client.map(abs, range(0, -3, -1), pure=False))


async def by_a_thread_of_its_own_pool():
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, use_the_client)


async def by_a_queue():
    queue = Queue()
    futures = get_client().map(queue.put, range(3), pure=False, key="put")
    items = [await queue.get() for _ in futures]
    return sorted(items)


def waits_as_concurrent_futures_do():
    """Of a plain function too."""
    executor = get_client().get_executor(pure=False)
    assert len(concurrent.futures.wait([executor.submit(abs, -n) for n in range(3)]).done) == 3
    first = concurrent.futures.wait([executor.submit(abs, -n) for n in range(3)], return_when="FIRST_COMPLETED")
    assert first.done
    assert not concurrent.futures.wait([executor.submit(abs, -1)], timeout=0).done
    completed = concurrent.futures.as_completed([executor.submit(abs, -n) for n in range(3)])
    return sorted(future.result() for future in completed)


@pytest.mark.parametrize(
    "task",
    [
        by_wrapping,
        by_the_executor,
        by_a_blocking_call,
        by_concurrent_futures,
        by_a_thread,
        by_a_thread_that_uses_the_client,
        by_a_thread_of_its_own_pool,
        by_a_queue,
        waits_as_concurrent_futures_do,
    ],
)
def test_its_slot_is_lent_whatever_it_waits_by(one, task):
    future = one.submit(task, pure=False)
    try:
        assert future.result(DEADLINE_SECONDS) == [0, 1, 2]
    finally:
        future.cancel(kill=not future.done())


async def chain_of_executors(depth):
    if not depth:
        return 0
    executor = get_client().get_executor(pure=False)
    return 1 + await asyncio.wrap_future(executor.submit(chain_of_executors, depth - 1))


async def chain_of_threads(depth):
    if not depth:
        return 0
    return 1 + await asyncio.to_thread(get_client().submit(chain_of_threads, depth - 1, pure=False).result)


@pytest.mark.parametrize("task", [chain_of_executors, chain_of_threads])
def test_and_it_hears_of_it_if_it_can_not_be_lent(monkeypatch, task):
    monkeypatch.setattr(threads, "BLOCKED_MAX", 5)
    options = {"n_workers": 1, "threads_per_worker": 1, "object_store_memory": "64 MiB", "processes": False}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        with pytest.raises(BlockedTasksError, match=r"5 tasks of its worker wait already.*as arguments"):
            client.submit(task, 6, pure=False).result(timeout=DEADLINE_SECONDS)
        assert client.submit(task, 5, pure=False).result(timeout=DEADLINE_SECONDS) == 5


async def leave_a_thread_that_waits():
    future = get_client().submit(abs, -1, pure=False, workers="nobody", allow_other_workers=False)
    asyncio.ensure_future(asyncio.to_thread(future.result))  # noqa: RUF006
    await asyncio.sleep(0)
    return "left"


def test_a_thread_that_waits_ends_with_it(one):
    assert one.submit(leave_a_thread_that_waits, pure=False).result(DEADLINE_SECONDS) == "left"
