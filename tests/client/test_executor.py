"""`Client.get_executor`: what `concurrent.futures` promises of executors and their futures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import os
import threading
import time
import weakref

import pytest

from holdfast import Client, LocalCluster, get_client
from tests.support.waiting import until

DEADLINE_SECONDS = 30


@pytest.fixture(scope="module")
def one():
    """A client of a cluster of one worker with one thread: what comes second waits."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def executor(one):
    executor = one.get_executor()
    yield executor
    executor.shutdown()


def wait_for(path):
    until(path.exists, "the test lets it go on")
    return path.name


@pytest.fixture
def busy(executor, tmp_path):
    """A call that runs until the test lets it go on; nothing else runs meanwhile."""
    future = executor.submit(wait_for, tmp_path / "go on")
    until(future.running, "it runs")
    yield future
    (tmp_path / "go on").touch()
    assert future.result(DEADLINE_SECONDS) == "go on"


# -- submit


def keywords(*args, **kwargs):
    return args, kwargs


def test_submit(executor):
    assert executor.submit(pow, 2, 8).result(DEADLINE_SECONDS) == 256
    assert executor.submit(pow, 2, exp=5).result(DEADLINE_SECONDS) == 32


def test_any_keywords_are_those_of_the_function(executor):
    given = executor.submit(keywords, 1, self=10, fn=5, key="x", workers="y", pure=0).result(DEADLINE_SECONDS)
    assert given == ((1,), {"self": 10, "fn": 5, "key": "x", "workers": "y", "pure": 0})
    with pytest.raises(TypeError):
        executor.submit(fn=keywords, arg=1)
    with pytest.raises(TypeError):
        executor.submit(arg=1)


def test_each_call_is_computed(executor):
    assert executor.submit(os.urandom, 8).result() != executor.submit(os.urandom, 8).result()


def fail(text):
    raise ValueError(text)


def test_what_a_call_raises(executor):
    future = executor.submit(fail, "as it should")
    error = future.exception(DEADLINE_SECONDS)
    assert isinstance(error, ValueError)
    with pytest.raises(ValueError, match="as it should"):
        future.result()
    assert (future.done(), future.running(), future.cancelled()) == (True, False, False)


def test_options_are_those_of_submit(one, cluster, client):
    worker = next(iter(client.nthreads()))
    with client.get_executor(workers=[worker], retries=1, priority=1, pure=True) as executor:
        assert executor.submit(os.urandom, 8).result() is not None
    with pytest.raises(TypeError, match="not colour"):
        client.get_executor(colour="red")


# -- map


def test_map(executor):
    assert list(executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
    assert list(executor.map(pow, range(10), range(10), chunksize=3)) == list(map(pow, range(10), range(10)))
    assert list(executor.map(pow, range(10), range(5))) == list(map(pow, range(5), range(5)))
    assert list(executor.map(abs, [])) == []


def test_map_raises_where_the_error_is(executor):
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_has_a_timeout(executor, busy):
    with pytest.raises(TimeoutError):
        list(executor.map(abs, [-1], timeout=0.05))


@pytest.mark.parametrize("options", [{"chunksize": 0}, {"buffersize": 0}, {"buffersize": -1}])
def test_map_refuses_sizes_that_are_none(executor, options):
    with pytest.raises(ValueError, match="at least 1"):
        executor.map(abs, [1], **options)
    with pytest.raises(TypeError, match="buffersize"):
        executor.map(abs, [1], buffersize="1")


def test_map_takes_no_more_than_the_buffer_holds(executor):
    taken = iter(range(1_000_000_000))
    results = executor.map(abs, taken, buffersize=3)
    assert next(taken) == 3
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert next(taken) == 7
    results.close()
    assert list(executor.map(pow, itertools.count(), [1, 2], buffersize=5)) == [0, 1]


def touch(path):
    path.touch()


def test_calls_run_though_nobody_takes_their_results(executor, tmp_path):
    paths = [tmp_path / str(n) for n in range(3)]
    executor.map(touch, paths)
    executor.submit(touch, tmp_path / "more")
    gc.collect()
    until(lambda: all(path.exists() for path in [*paths, tmp_path / "more"]), "they run")


# -- running and cancelling


def test_what_runs_is_not_cancelled_and_what_waits_is(executor, busy, tmp_path):
    waiting = executor.submit(touch, tmp_path / "never")
    assert (busy.running(), busy.cancel(), busy.cancelled()) == (True, False, False)
    assert (waiting.running(), waiting.done()) == (False, False)
    assert waiting.cancel()
    assert (waiting.cancelled(), waiting.done(), waiting.running(), waiting.cancel()) == (True, True, False, True)
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.result()
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.exception()


def test_what_is_done_is_not_cancelled(executor):
    future = executor.submit(abs, -1)
    assert future.result(DEADLINE_SECONDS) == 1
    assert not future.cancel()


def test_waiting_has_a_limit(executor, busy):
    with pytest.raises(concurrent.futures.TimeoutError, match="wait_for"):
        busy.result(timeout=0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        busy.exception(timeout=0.01)


def test_callbacks(executor, busy):
    called = []
    done = executor.submit(abs, -1)
    cancelled = executor.submit(abs, -2)
    for future in (done, cancelled, busy):
        future.add_done_callback(lambda future: called.append(future))
    cancelled.cancel()
    until(lambda: called == [cancelled], "its callback is called")
    late = []
    cancelled.add_done_callback(late.append)
    assert late == [cancelled]


def test_wait_and_as_completed(executor, busy):
    waiting, cancelled = executor.submit(abs, -1), executor.submit(abs, -2)
    done, not_done = concurrent.futures.wait([busy, waiting], timeout=0.01)
    assert (done, not_done) == (set(), {busy, waiting})
    cancelled.cancel()
    done, _ = concurrent.futures.wait([busy, waiting, cancelled], return_when=concurrent.futures.FIRST_COMPLETED)
    assert done == {cancelled}
    with pytest.raises(concurrent.futures.TimeoutError):
        list(concurrent.futures.as_completed([busy], timeout=0.01))


def test_wait_for_all_and_for_the_first_that_fails(executor):
    futures = [executor.submit(abs, -1), executor.submit(fail, "first")]
    done, _ = concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION)
    assert futures[1] in done
    assert set(concurrent.futures.as_completed(futures)) == set(futures)
    assert concurrent.futures.wait(futures).done == set(futures)


def test_asyncio_can_wrap_them(executor):
    async def main():
        return await asyncio.wrap_future(executor.submit(abs, -1))

    async def in_executor():
        return await asyncio.get_running_loop().run_in_executor(executor, abs, -2)

    assert asyncio.run(main()) == 1
    assert asyncio.run(in_executor()) == 2


# -- the end


def test_after_the_end_nothing_is_taken(one):
    executor = one.get_executor()
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(abs, 1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(abs, [1])
    assert one.submit(abs, -1).result() == 1


def test_the_end_waits_for_what_was_submitted(one, tmp_path):
    with one.get_executor() as executor:
        future = executor.submit(wait_for, tmp_path / "go")
        executor.map(touch, [tmp_path / "mapped"])
        threading.Timer(0.05, (tmp_path / "go").touch).start()
    assert future.done()
    assert (tmp_path / "mapped").exists()


def test_or_does_not(one, tmp_path):
    executor = one.get_executor()
    future = executor.submit(wait_for, tmp_path / "go")
    executor.shutdown(wait=False)
    assert not future.done()
    (tmp_path / "go").touch()
    assert future.result(DEADLINE_SECONDS) == "go"


def test_the_end_cancels_what_has_not_begun(one, tmp_path):
    executor = one.get_executor()
    running = executor.submit(wait_for, tmp_path / "go")
    until(running.running, "it runs")
    waiting = [executor.submit(abs, n) for n in range(10)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    assert not running.cancelled()
    (tmp_path / "go").touch()
    assert running.result(DEADLINE_SECONDS) == "go"


def test_when_the_client_is_closed_what_is_pending_is_cancelled(cluster, tmp_path):
    client = Client(cluster, set_as_default=False)
    executor = client.get_executor()
    future = executor.submit(wait_for, tmp_path / "go")
    client.close()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(DEADLINE_SECONDS)
    executor.shutdown()
    (tmp_path / "go").touch()


def test_nothing_is_kept_of_what_has_ended(executor):
    future = executor.submit(abs, -1)
    assert future.result() == 1
    until(lambda: not executor._ends, "it is forgotten")
    gone = weakref.ref(future)
    del future
    gc.collect()
    assert gone() is None


# -- in other kinds of clients


def in_task():
    with get_client().get_executor() as executor:
        futures = [executor.submit(abs, -n) for n in range(3)]
        return [future.result() for future in futures], list(executor.map(abs, range(3)))


def test_in_a_task_on_a_worker_of_one_thread(one):
    assert one.submit(in_task, pure=False).result(DEADLINE_SECONDS) == ([0, 1, 2], [0, 1, 2])


def test_in_an_asynchronous_client(cluster):
    async def main():
        async with Client(cluster, asynchronous=True, set_as_default=False) as client:
            executor = client.get_executor()
            assert await asyncio.wrap_future(executor.submit(pow, 2, 3)) == 8
            with pytest.raises(ValueError, match="as it should"):
                await asyncio.wrap_future(executor.submit(fail, "as it should"))
            cancelled = executor.submit(time.sleep, 0.1)
            assert cancelled.cancel()
            with pytest.raises(TypeError, match=r"Client\.map"):
                executor.map(abs, [1])
            executor.submit(abs, -1)
            with pytest.raises(RuntimeError, match=r"shutdown\(wait=False\)"):
                executor.shutdown()

    asyncio.run(main())
