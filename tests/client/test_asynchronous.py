"""The asynchronous client: on asyncio, uvloop and tornado, and the same cases as of a blocking one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import operator
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref

import dask
import dask.array as da
import numpy as np
import pytest
import tornado.gen
import tornado.ioloop
from scripted_scheduler import TOKEN, ScriptedScheduler

from holdfast import CancelledError, Client, ConnectError, DatasetNotFoundError, Future, LocalCluster, futures_of, wait
from holdfast.client.drivers.effects import WouldWaitError
from tests.support.kinds import DEADLINE_SECONDS, LOOPS, in_tornado
from tests.support.waiting import until

LARGE = 4 << 20


@pytest.fixture
def opened(cluster):
    """Runs ``case(client)`` with an asynchronous client."""

    def run(case, **options):
        async def main():
            async with Client(cluster, asynchronous=True, set_as_default=False, **options) as client:
                await asyncio.wait_for(case(client), DEADLINE_SECONDS)

        asyncio.run(main())

    return run


def never(client):
    """A future that isn't done before somebody ends it."""
    return client.submit(abs, -1, resources={"what nobody has": 1}, pure=False)


def fail(code):
    raise LookupError(code)


class TestInEachKind:
    def test_calls_and_results(self, run):
        async def case(client, got):
            total = client.submit(sum, [1, 2, 3])
            assert isinstance(total, Future)
            assert await got(client.submit(pow, total, 2).result()) == 36
            squares = client.map(pow, range(20), [2] * 20)
            assert await got(client.gather(squares)) == [i**2 for i in range(20)]
            assert await got(client.gather({"a": [total], "b": (total, squares[3])})) == {"a": [6], "b": (6, 9)}
            assert list(await got(client.gather(iter(squares)))) == [i**2 for i in range(20)]
            assert total.done()
            assert total.status == "finished"

        run(case)

    def test_results_that_are_large(self, run):
        async def case(client, got):
            array = await got(client.submit(np.arange, LARGE // 8).result())
            assert int(array[-1]) == LARGE // 8 - 1
            texts = await got(client.submit(lambda: [str(i) for i in range(200_000)]).result())
            assert texts[-1] == "199999"
            (again,) = await got(client.gather([client.submit(np.ones, LARGE // 8)], writable=False))
            assert not again.flags.writeable

        run(case)

    def test_without_a_store_of_this_host(self, run_outside_of_tasks):
        async def case(client, got):
            scattered = await got(client.scatter(np.arange(LARGE // 8)))
            assert await got(client.submit(np.sum, scattered).result()) == (LARGE // 8 - 1) * (LARGE // 16)
            assert (await got(scattered.result()))[7] == 7
            # This much travels with the task where it can't be stored at once.
            assert await got(client.submit(np.sum, np.ones(100_000)).result()) == 100_000

        run_outside_of_tasks(case, attach=False)

    def test_what_fails(self, run):
        async def case(client, got):
            failed = client.submit(fail, 7)
            with pytest.raises(LookupError, match="7") as caught:
                await got(failed.result())
            frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
            assert frames[0] == "case"
            assert frames[-1] == "fail"
            assert not [name for name in frames if name in ("read", "send", "drive", "result")]
            assert isinstance(await got(failed.exception()), LookupError)
            assert (await got(failed.traceback())).tb_frame is not None
            assert await got(client.gather([failed, client.submit(abs, -1)], errors="skip")) == [1]
            with pytest.raises(LookupError):
                await got(client.gather([failed]))
            with pytest.raises(ValueError, match="errors is"):
                await got(client.gather([failed], errors="perhaps"))

        run(case)

    def test_waiting(self, run):
        async def case(client, got):
            quick, slow = client.submit(abs, -1), never(client)
            done, not_done = await got(wait([quick, slow], timeout=20, return_when="FIRST_COMPLETED"))
            assert (done, not_done) == ({quick}, {slow})
            with pytest.raises(TimeoutError, match=r"not done within 0\.05 s"):
                await got(wait([slow], timeout="50 ms"))
            with pytest.raises(TimeoutError, match=r"not done within 0\.05 s"):
                await got(slow.result(timeout="50 ms"))
            assert not slow._state.waiters
            await got(client.cancel(slow))
            assert slow.cancelled()
            with pytest.raises(CancelledError):
                await got(slow.result())
            other = never(client)
            await got(other.cancel())
            assert other.cancelled()

        run(case)

    def test_scattered_values(self, run):
        async def case(client, got):
            futures = await got(client.scatter({"a": 1, "b": np.arange(3)}))
            assert set(futures) == {"a", "b"}
            assert (await got(client.gather(futures)))["a"] == 1
            listed = await got(client.scatter(list(range(50))))
            assert await got(client.gather(listed)) == list(range(50))
            array = np.arange(LARGE // 8)
            one, two = await got(client.scatter([array, array.copy()]))
            assert one.key == two.key
            inner = await got(client.scatter([[listed[7]]]))
            (((future,),),) = [await got(client.gather(inner))]
            assert await got(future.result()) == 7
            with pytest.raises(TypeError, match="can't be pickled"):
                await got(client.scatter(threading.Lock()))

        run(case)

    def test_collections_of_dask(self, run):
        async def case(client, got):
            x = da.arange(1000, chunks=100)
            persisted = client.persist(x + 1)
            assert len(futures_of(persisted)) == 10
            future = client.compute(persisted.sum())
            assert await got(future.result()) == 500_500
            assert await got(client.compute([x.max(), 3], sync=True)) == [999, 3]
            assert await got(client.get({"x": (sum, [1, 2]), "y": (pow, "x", 2)}, ["x", "y"])) == [3, 9]
            assert await got(client.get({"x": (sum, [1, 2])}, "x", sync=False).result()) == 3
            delayed = dask.delayed(operator.add)(1, dask.delayed(operator.neg)(5))
            assert await got(client.compute(delayed).result()) == -4

        run(case)

    def test_datasets(self, run):
        async def case(client, got):
            x = client.persist(da.ones(1000, chunks=100))
            large = np.arange(LARGE // 8)
            await got(client.publish_dataset(x=x, large={"array": large}))
            assert set(await got(client.list_datasets())) == {"x", "large"}
            again = await got(client.get_dataset("x"))
            assert await got(client.compute(again.sum()).result()) == 1000
            assert np.array_equal((await got(client.get_dataset("large")))["array"], large)
            assert await got(client.get_dataset("none", default=3)) == 3
            with pytest.raises(DatasetNotFoundError):
                await got(client.get_dataset("none"))
            for name in ("x", "large"):
                await got(client.unpublish_dataset(name))
            assert await got(client.list_datasets()) == ()

        run(case)

    def test_what_there_is(self, run):
        async def case(client, got):
            await got(client.wait_for_workers(2, timeout=20))
            with pytest.raises(TimeoutError, match="3 workers, 2 are there"):
                await got(client.wait_for_workers(3, timeout="50 ms"))
            with pytest.raises(ValueError, match="number of workers"):
                await got(client.wait_for_workers("many"))
            assert list((await got(client.nthreads())).values()) == [1, 1]
            assert await got(client.ncores()) == await got(client.nthreads())
            info = await got(client.scheduler_info())
            assert set(info["workers"]) == set(await got(client.nthreads()))
            future = await got(client.scatter(np.arange(1000)))
            ((node, keys),) = (await got(client.has_what())).items()
            assert await got(client.who_has(future)) == {future.key: [node]}
            assert future.key in keys
            assert await got(client.who_has()) == await got(client.who_has([future]))

        run(case)

    def test_futures_of_another_client(self, run_outside_of_tasks, cluster):
        with Client(cluster, set_as_default=False) as other:

            async def case(client, got):
                theirs = other.submit(pow, 2, 5)
                assert await got(client.gather([theirs, client.submit(abs, -1)])) == [32, 1]
                done, _ = await got(wait([client.submit(abs, -2), other.submit(abs, -3)], timeout=20))
                assert len(done) == 2
                assert await got(client.submit(operator.neg, theirs).result()) == -32
                await got(client.cancel([theirs, never(other)]))
                assert theirs.cancelled()

            run_outside_of_tasks(case)

    def test_a_client_is_closed(self, run_outside_of_tasks):
        async def case(client, got):
            future = never(client)
            done = client.submit(abs, -1)
            await got(done.result())
            await got(client.close())
            assert client.closed
            assert "closed" in repr(client)
            with pytest.raises(CancelledError):
                await got(future.result())
            for call in (client.who_has, client.scheduler_info, lambda: client.scatter(1)):
                with pytest.raises(ConnectError, match="closed"):
                    await got(call())
            with pytest.raises(ConnectError, match="closed"):
                client.submit(abs, -1)
            assert await got(done.result()) == 1
            await got(client.close())

        run_outside_of_tasks(case)


class TestOnALoop:
    def test_a_future_is_awaited(self, opened):
        async def case(client):
            assert await client.submit(pow, 2, 10) == 1024
            assert await asyncio.gather(*client.map(abs, range(-50, 0))) == list(range(50, 0, -1))
            assert client.asynchronous
            assert future_of(client).client is client

        def future_of(client):
            return client.submit(abs, -1)

        opened(case)

    def test_one_of_a_blocking_client_is_not(self, client):
        async def case():
            with pytest.raises(TypeError, match=r"blocking client.*result\(\).*asynchronous=True"):
                await client.submit(abs, -1)
            with pytest.raises(TypeError, match="blocking"):
                await client

        asyncio.run(case())

    def test_a_coroutine_of_tornado_yields_what_it_waits_for(self, cluster):
        @tornado.gen.coroutine
        def main():
            client = yield Client(cluster, asynchronous=True, set_as_default=False)
            first = yield client.submit(abs, -1)
            second, third = yield [client.submit(abs, -2).result(), client.gather(client.submit(abs, -3))]
            yield client.close()
            raise tornado.gen.Return([first, second, third])

        assert in_tornado(main) == [1, 2, 3]

    @pytest.mark.parametrize("loop", LOOPS)
    def test_it_has_no_thread(self, cluster, loop):
        before = set(threading.enumerate())

        async def case():
            async with Client(cluster, asynchronous=True, set_as_default=False) as client:
                future = client.submit(pow, 2, 3)
                assert await future == 8
                assert await client.gather(client.map(abs, range(100))) == list(range(100))
                array = await client.scatter(np.ones(LARGE // 8))
                assert (await array).sum() == LARGE // 8
                await client.scheduler_info()
                called = asyncio.get_running_loop().create_future()
                future.add_done_callback(lambda done: called.set_result((done, threading.current_thread())))
                assert await called == (future, threading.current_thread())
                return set(threading.enumerate())

        new = LOOPS[loop](case()) - before
        assert not [thread.name for thread in new if not thread.name.startswith(("asyncio_", "uvloop_"))]

    def test_other_coroutines_run_while_it_waits_and_reads(self, opened):
        async def case(client):
            turns = 0

            async def count():
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            counting = asyncio.ensure_future(count())
            await client.submit(time.sleep, 0.05, pure=False)
            after_waiting, turns = turns, 0
            assert len(await client.submit(lambda: [str(i) for i in range(300_000)])) == 300_000
            counting.cancel()
            assert after_waiting > 20
            assert turns > 20

        opened(case)

    def test_an_await_that_is_cancelled_leaves_all_in_order(self, opened):
        async def case(client):
            slow = never(client)
            for call in (slow.result, lambda: client.gather([slow]), lambda: wait([slow]), slow.exception):
                waiting = asyncio.ensure_future(call())
                await asyncio.sleep(0)
                assert slow._state.waiters
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert not slow._state.waiters
            asking = asyncio.ensure_future(client.wait_for_workers(99))
            await asyncio.sleep(0)
            assert client._core.session._answers
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert not client._core.session._answers
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await slow
            await client.cancel(slow)
            assert await client.submit(abs, -1) == 1

        opened(case)

    def test_a_put_that_is_cancelled_leaves_no_object(self, opened):
        async def case(client):
            putting = asyncio.ensure_future(client.scatter(np.ones(LARGE), hash=False))
            await asyncio.sleep(0.001)
            putting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await putting
            del putting
            await asyncio.to_thread(lambda: until(lambda: len(client.store.list()) == 0, "nothing is in the store"))

        opened(case)

    def test_what_another_client_has_just_submitted(self, opened, cluster):
        with Client(cluster, set_as_default=False) as other:

            async def case(client):
                theirs = other.submit(time.sleep, 0.1, pure=False)
                with pytest.raises(WouldWaitError, match=r"wait\(future\)"):
                    client.submit(abs, theirs)
                await client.gather([theirs])
                assert await client.submit(str, theirs) == "None"

            opened(case)

    def test_data_that_can_t_be_sent_with_a_task_is_refused_where_there_is_no_store(self, opened, monkeypatch):
        monkeypatch.setattr("holdfast.client.operations.storing.MAX_PAYLOAD_NBYTES", 1 << 20)

        async def case(client):
            array = np.ones(LARGE // 8)
            with pytest.raises(WouldWaitError, match=r"await client\.scatter"):
                client.submit(np.sum, array)
            assert await client.submit(np.sum, await client.scatter(array)) == LARGE // 8

        opened(case, attach=False)

    def test_a_call_in_another_loop_or_thread(self, opened):
        async def case(client):
            future = client.submit(abs, -1)
            await future

            def elsewhere():
                with pytest.raises(RuntimeError, match="where none is running"):
                    client.scheduler_info()
                with pytest.raises(RuntimeError, match="on another one"):
                    asyncio.run(await_it())
                return asyncio.run_coroutine_threadsafe(await_it(), loop).result(20)

            async def await_it():
                return await client.submit(pow, 2, 3)

            loop = asyncio.get_running_loop()
            assert await asyncio.to_thread(elsewhere) == 8

        opened(case)

    def test_a_coroutine_that_is_never_awaited_is_named(self, opened):
        async def case(client):
            with pytest.warns(RuntimeWarning, match=r"'holdfast\.gather' was never awaited"):
                client.gather([client.submit(abs, -1)])

        opened(case)

    def test_one_that_is_not_open(self, cluster):
        client = Client(cluster, asynchronous=True)
        assert repr(client) == "<Client: not open>"
        with pytest.raises(RuntimeError, match="await client"):
            client.submit(abs, -1)
        with pytest.raises(TypeError, match="async with"), client:
            pass

    def test_one_that_is_opened_twice(self, cluster):
        async def case():
            client = Client(cluster, asynchronous=True, set_as_default=False)
            opening = asyncio.ensure_future(client._open())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="await it once"):
                await client
            assert await opening is client
            assert await client is client
            await client.close()

        asyncio.run(case())

    def test_there_is_nobody_to_connect_with(self):
        async def case():
            with pytest.raises(ConnectError, match="tried"):
                await Client("127.0.0.1:1", asynchronous=True, timeout="100 ms", token=TOKEN)
            opening = asyncio.ensure_future(Client("127.0.0.1:1", asynchronous=True, timeout=60, token=TOKEN)._open())
            await asyncio.sleep(0.01)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening

        asyncio.run(case())

    def test_the_scheduler_goes(self):
        async def case():
            scheduler = ScriptedScheduler()
            await asyncio.to_thread(scheduler.__enter__)
            client = await Client(scheduler.address, asynchronous=True, token=TOKEN, set_as_default=False)
            waiting = asyncio.ensure_future(client.submit(abs, -1).result())
            asking = asyncio.ensure_future(client.scheduler_info())
            await asyncio.sleep(0)
            await asyncio.to_thread(scheduler.__exit__, None, None, None)
            for each in (waiting, asking):
                with pytest.raises(ConnectError, match="lost"):
                    await each
            with pytest.raises(ConnectError, match="lost"):
                await client.scheduler_info()
            await client.close()

        asyncio.run(case())

    def test_a_client_that_is_closed_while_others_wait(self, cluster):
        async def case():
            client = await Client(cluster, asynchronous=True, set_as_default=False)
            waiting = asyncio.ensure_future(never(client).result())
            asking = asyncio.ensure_future(client.wait_for_workers(99))
            await asyncio.sleep(0)
            await client.close()
            with pytest.raises(CancelledError):
                await waiting
            with pytest.raises(ConnectError, match="closed"):
                await asking

        asyncio.run(case())

    def test_the_datasets_as_a_mapping(self, opened):
        async def case(client):
            await client.publish_dataset(client.submit(abs, -7), name="seven")
            assert [name async for name in client.datasets] == ["seven"]
            assert await (await client.datasets["seven"]) == 7
            for call in (lambda: list(client.datasets), lambda: client.datasets.__setitem__("a", 1)):
                with pytest.raises(TypeError, match="await client"):
                    call()
            assert "await" in repr(client.datasets)
            await client.unpublish_dataset("seven")

        opened(case)

    def test_it_starts_a_cluster_and_ends_it(self):
        async def case():
            async with Client(
                n_workers=1, threads_per_worker=1, object_store_memory="64 MiB", asynchronous=True
            ) as client:
                assert Client.current() is client
                assert dask.config.get("scheduler") is client
                with pytest.raises(RuntimeError, match="asynchronous Client"):  # dask sees what it is
                    da.ones(3).sum().compute()
                assert await client.compute(da.ones(3).sum()) == 3
                assert await client.submit(pow, 2, 3) == 8
            assert client.cluster.closed

        asyncio.run(case())

    def test_shutdown(self):
        with LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as cluster:

            async def case():
                client = await Client(cluster, asynchronous=True, set_as_default=False)
                await client.shutdown()
                assert client.closed

            asyncio.run(case())


class TestWithoutAnEnd:
    """Clients that nobody closes leave nothing behind."""

    def sockets(self):
        gc.collect()
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return sorted(os.readlink(link) for link in links if os.path.lexists(link))

    @pytest.mark.parametrize("loop", LOOPS)
    def test_one_that_is_garbage_on_its_loop(self, cluster, loop):
        async def case():
            await asyncio.sleep(0)
            before = len(self.sockets())
            client = await Client(cluster, asynchronous=True, set_as_default=False)
            assert await client.submit(abs, -1) == 1
            session = client._core.session
            del client
            gc.collect()
            while not session.transport.closed:
                await asyncio.sleep(0.001)
            assert len(self.sockets()) <= before

        LOOPS[loop](case())

    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    def test_one_whose_loop_is_closed(self, cluster, loop):
        before = len(self.sockets())

        async def case():
            client = await Client(cluster, asynchronous=True, set_as_default=False)
            assert await client.submit(abs, -1) == 1
            return client

        client = LOOPS[loop](case())
        with pytest.raises(RuntimeError, match="event loop"):
            client.scheduler_info()
        del client
        until(lambda: len(self.sockets()) <= before, "its sockets are closed")

    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    def test_one_whose_loop_ends_in_order_is_closed_and_no_default(self, cluster, loop):
        async def case():
            return await Client(cluster, asynchronous=True)

        client = LOOPS[loop](case())
        assert client.closed
        assert dask.base.get_scheduler() is None  # dask computes without it

    def test_one_whose_loop_is_closed_without_a_word_is_no_default(self, cluster):
        async def opened():
            return await Client(cluster, asynchronous=True)

        def left_behind():
            loop = asyncio.new_event_loop()
            client = loop.run_until_complete(opened())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            return weakref.ref(client._core)

        with Client(cluster) as before:
            core = left_behind()
            assert core() is not None
            assert Client.current() is before
            assert dask.config.get("scheduler") is before
        core = left_behind()
        with pytest.raises(ValueError, match="no client"):
            Client.current()
        assert dask.config.get("scheduler", None) is None
        until(lambda: gc.collect() is not None and core() is None, "nothing keeps it")
        left_behind()
        with Client(cluster) as after:
            assert dask.config.get("scheduler") is after
        assert dask.config.get("scheduler", None) is None

    def test_one_of_a_process_that_ends(self, cluster):
        code = (
            "import asyncio, sys\n"
            "from holdfast import Client\n"
            "async def main():\n"
            "    global client\n"
            "    client = await Client(sys.argv[1], asynchronous=True, token=sys.argv[2])\n"
            "    print(await client.submit(pow, 2, 3))\n"
            "asyncio.run(main())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, cluster.scheduler_address, cluster.token.decode()],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.stdout, done.stderr, done.returncode) == ("8\n", "", 0)

    def test_an_interrupt_ends_the_await(self, cluster):
        async def case():
            async with Client(cluster, asynchronous=True, set_as_default=False) as client:
                slow = never(client)
                asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
                try:
                    await slow
                finally:
                    await client.cancel(slow)

        with pytest.raises(KeyboardInterrupt):
            asyncio.run(case())
