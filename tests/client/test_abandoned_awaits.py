"""Awaits that nobody goes on with: cancelled, garbage, or on a loop that is closed. Nothing of them is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import warnings

import numpy as np
import pytest
import uvloop

from holdfast import Client, ConnectError, LocalCluster
from holdfast.client.drivers.effects import Elsewhere
from tests.support.waiting import until

LARGE = 4 << 20
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def store(client):
    """The store of this host, as another client sees it."""
    return client.store


class TestStoredData:
    @pytest.mark.parametrize("attach", [True, False], ids=["here", "elsewhere"])
    @pytest.mark.parametrize("hashed", [True, False], ids=["hashed", "not hashed"])
    def test_of_a_scatter_that_is_cancelled_at_any_step(self, cluster, store, attach, hashed):
        async def main():
            async with Client(cluster, asynchronous=True, set_as_default=False, attach=attach) as client:
                for n_turns in range(4):
                    scattering = asyncio.ensure_future(client.scatter(np.full(LARGE // 8, n_turns), hash=hashed))
                    for _ in range(n_turns + 1):
                        await asyncio.sleep(0)
                        await client.scheduler_info()
                    scattering.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await scattering
                    del scattering
                await asyncio.to_thread(until, lambda: not store.list(), "nothing is in the store")

        asyncio.run(main())

    def test_of_a_scatter_that_is_cancelled_while_its_token_is_made(self, cluster, store, monkeypatch):
        reached = []

        async def main():
            wait = Elsewhere.wait

            async def interrupted(effect):
                if effect.undo is None:  # not the write
                    reached.append(len(store.list()))
                    raise asyncio.CancelledError
                return await wait(effect)

            async with Client(cluster, asynchronous=True, set_as_default=False) as client:
                with monkeypatch.context() as patched:
                    patched.setattr(Elsewhere, "wait", interrupted)
                    with pytest.raises(asyncio.CancelledError):
                        await client.scatter(np.ones(LARGE // 8))
                assert reached == [1]
                await asyncio.to_thread(until, lambda: not store.list(), "nothing is in the store")

        asyncio.run(main())

    def test_of_a_coroutine_that_is_thrown_away(self, cluster, store):
        async def main():
            async with Client(cluster, asynchronous=True, set_as_default=False) as client:
                scattering = client.scatter(np.ones(LARGE), hash=False)
                scattering.send(None)
                scattering.close()
                await asyncio.to_thread(until, lambda: not store.list(), "nothing is in the store")
                assert await client.submit(abs, -1) == 1

        asyncio.run(main())


class TestAClosedLoop:
    @pytest.mark.parametrize("loop", LOOPS)
    def test_with_awaits_that_were_pending(self, cluster, loop):
        loop = LOOPS[loop]()
        loop.set_exception_handler(lambda loop, context: None)  # which would log the tasks

        async def begin():
            client = await Client(cluster, asynchronous=True, set_as_default=False)
            future = client.submit(abs, -1, resources={"nobody has": 1}, pure=False)
            waiting = [asyncio.ensure_future(call) for call in (future.result(), client.wait_for_workers(99))]
            await asyncio.sleep(0)
            return client, future, waiting

        client, future, waiting = loop.run_until_complete(begin())
        loop.close()
        core = client._core
        core.resources.close_elsewhere("the process ends")
        assert core.session.transport.closed
        assert future.cancelled()
        del waiting
        gc.collect()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_fork_in_a_coroutine_has_no_part_in_the_client(cluster, loop):
    def is_refused(call):
        try:
            call().send(None)
        except ConnectError as error:
            return "belongs to the parent process" in str(error)
        return False

    def in_child(client, pending):
        calls = (client.scheduler_info, lambda: client.scatter(1), lambda: client.gather([pending]), pending.result)
        refused = [is_refused(call) for call in calls]
        with pytest.raises(StopIteration):
            client.close().send(None)  # does nothing
        return all(refused)

    async def main():
        async with Client(cluster, asynchronous=True, set_as_default=False) as client:
            pending = client.submit(abs, -1, resources={"nobody has": 1}, pure=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # later Pythons warn of forks beside threads
                pid = os.fork()
            if not pid:
                code = 1
                try:
                    code = 0 if in_child(client, pending) else 2
                finally:
                    os._exit(code)
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert await client.gather(client.map(abs, range(-20, 0))) == list(range(20, 0, -1))
            assert (await client.submit(np.ones, LARGE // 8)).sum() == LARGE // 8
            assert not pending.done()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


def test_the_connection_of_a_store_that_is_gone_is_closed_with_the_last_view():
    async def main():
        cluster = await asyncio.to_thread(LocalCluster, n_workers=1, threads_per_worker=1, object_store_memory="64 MiB")
        client = await Client(cluster, asynchronous=True, set_as_default=False)
        view = await client.submit(np.arange, LARGE // 8)
        connection = client.store._connection
        await asyncio.to_thread(cluster.close)
        await client.close()
        return view, connection

    view, connection = asyncio.run(main())
    assert view[7] == 7
    del view
    gc.collect()
    until(lambda: connection.descriptor == -1, "its socket is closed")
