"""Functions that run on workers beside their tasks, in every kind of client."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback

import numpy as np
import pytest
from waiting import until

from holdfast import Client, LocalCluster
from holdfast.cluster.errors import ConnectError


def whoami(dask_worker):
    return dask_worker.address


def add(x, y=1):
    return x + y


def test_every_worker_runs_it(run):
    async def case(client, got):
        workers = sorted(await got(client.nthreads()))
        assert await got(client.run(add, 1, y=2)) == dict.fromkeys(workers, 3)
        assert await got(client.run(whoami)) == {address: address for address in workers}

    run(case)


def test_those_that_are_named_run_it(run):
    async def case(client, got):
        workers = sorted(await got(client.nthreads()))
        assert await got(client.run(add, 1, workers=workers[0])) == {workers[0]: 2}
        assert len(await got(client.run(add, 1, workers=["localhost"]))) == 2
        with pytest.raises(ValueError, match="no worker is called 'nobody'"):
            await got(client.run(add, 1, workers=["nobody"]))

    run(case)


def test_a_coroutine_function_is_awaited(run):
    async def where(dask_worker, delay=0):
        await asyncio.sleep(delay)
        return dask_worker.name, threading.current_thread().name

    async def case(client, got):
        found = await got(client.run(where, delay=0.001))
        assert all(name in thread and thread.endswith("-loop") for name, thread in found.values())
        assert set(await got(client.run_coroutine(where))) == set(found)

    run(case)


def test_large_results_and_arguments_go_through_the_store(run):
    async def case(client, got):
        array = np.arange(200_000.0)
        (found,) = set(map(float, (await got(client.run(np.sum, array))).values()))
        assert found == array.sum()
        results = await got(client.run(np.ones, 300_000))
        assert [result.sum() for result in results.values()] == [300_000] * 2
        for result in results.values():
            result[0] = 2.0  # it is the caller's own

    run(case)


def test_what_it_raises_is_raised_with_its_traceback(run):
    def fail(dask_worker):
        return inner(dask_worker)

    def inner(worker):
        raise ValueError(f"on {worker.name}")

    async def case(client, got):
        workers = sorted(await got(client.nthreads()))
        with pytest.raises(ValueError, match=r"on .*-0") as raised:
            await got(client.run(fail))
        names = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
        assert names[-2:] == ["fail", "inner"]
        assert not {"call", "result_of", "have_done", "results_of"} & set(names)
        assert "Raised on worker" in raised.value.__notes__[0]
        errors = await got(client.run(fail, on_error="return"))
        assert list(errors) == workers
        assert {type(error) for error in errors.values()} == {ValueError}
        assert await got(client.run(fail, on_error="ignore")) == {}

    run(case)


def test_a_coroutine_function_fails_likewise(run):
    async def fail():
        await asyncio.sleep(0)
        raise KeyError("nothing")

    async def case(client, got):
        with pytest.raises(KeyError, match="nothing") as raised:
            await got(client.run(fail))
        assert traceback.extract_tb(raised.value.__traceback__)[-1].name == "fail"

    run(case)


def test_some_may_fail(client):
    def fail_on(name, dask_worker):
        if dask_worker.name.endswith(name):
            raise StopIteration(name)
        return name

    results = client.run(fail_on, "-1", on_error="return")
    assert [type(result) for result in results.values()] == [str, StopIteration]
    assert list(client.run(fail_on, "-1", on_error="ignore").values()) == ["-1"]
    with pytest.raises(StopIteration, match="-1"):
        client.run(fail_on, "-1")


def test_what_ends_programs_ends_none(client):
    before = client.run(os.getpid)
    with pytest.raises(Exception, match="SystemExit"):
        client.run(lambda: exit(3))
    assert client.run(os.getpid) == before


def test_nobody_waits_for_what_runs_in_the_background(run, tmp_path):
    def touch(path, dask_worker):
        with open(os.path.join(path, f"plain-{dask_worker.name}"), "w"):
            pass

    async def touch_later(path, dask_worker):
        while not os.path.exists(os.path.join(path, "go")):
            await asyncio.sleep(0.01)
        with open(os.path.join(path, f"later-{dask_worker.name}"), "w"):
            pass

    async def case(client, got):
        assert await got(client.run(touch, str(tmp_path), wait=False)) is None
        until(lambda: len(list(tmp_path.glob("plain-*"))) == 2, "both have run")
        assert await got(client.run(touch_later, str(tmp_path), wait=False)) is None
        assert not list(tmp_path.glob("later-*"))
        (tmp_path / "go").touch()
        until(lambda: len(list(tmp_path.glob("later-*"))) == 2, "both have run")

    run(case)


def test_many_at_once_do_not_wait_for_each_other(client, tmp_path):
    def meet(path, number, count):
        """Each waits for all others."""
        from pathlib import Path

        from tests.support.waiting import until

        Path(path, str(number)).touch()
        until(lambda: len(list(Path(path).iterdir())) == count, "all are here")
        return number

    address = min(client.nthreads())
    threads = []
    found = []
    for number in range(10):
        thread = threading.Thread(
            target=lambda number=number: found.append(client.run(meet, str(tmp_path), number, 10, workers=[address]))
        )
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join(30)
    assert sorted(each[address] for each in found) == list(range(10))


def test_it_may_use_the_client_of_its_worker(run):
    def compute(n):
        from holdfast import get_client

        client = get_client()
        return client.submit(pow, n, 2).result(timeout=20)

    async def case(client, got):
        assert set((await got(client.run(compute, 5))).values()) == {25}

    run(case)


def test_what_can_not_be_sent_says_so(run):
    async def case(client, got):
        with pytest.raises(TypeError, match="can't be pickled, so it can't be sent"):
            await got(client.run(add, threading.Lock()))
        with pytest.raises(TypeError, match="something that can be called, not 3"):
            await got(client.run(3))
        with pytest.raises(ValueError, match="on_error is one of 'raise'"):
            await got(client.run(add, 1, on_error="hide"))
        with pytest.raises(TypeError, match="workers have names"):
            await got(client.run(add, 1, workers=[3]))

    run(case)


class Unreadable:
    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise ValueError("not here")


def test_what_can_not_be_read_there_says_so(client):
    with pytest.raises(RuntimeError, match=r"can't be unpickled on worker .*ValueError: not here"):
        client.run(add, Unreadable())


def test_a_result_that_can_not_be_sent_says_so(client):
    with pytest.raises(Exception, match="pickle"):
        client.run(threading.Lock)


def test_a_worker_that_dies_meanwhile_is_an_error_of_its_own():
    def die_on(name, dask_worker):
        if dask_worker.name.endswith(name):
            os._exit(3)
        return "lives"

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, object_store_memory="64 MiB") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        results = client.run(die_on, "-1", on_error="return")
        assert next(iter(results.values())) == "lives"
        (error,) = [result for result in results.values() if result != "lives"]
        assert isinstance(error, ConnectError)
        assert "left before it had answered" in str(error)
        client.wait_for_workers(2, timeout=30)
        assert len(client.run(os.getpid)) == 2


def test_what_runs_when_its_worker_closes_keeps_nothing():
    async def for_ever():
        await asyncio.sleep(1000)

    with (
        LocalCluster(n_workers=1, processes=False, object_store_memory="64 MiB") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.run(for_ever, wait=False)
