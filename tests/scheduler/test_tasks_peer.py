"""The client that a worker's tasks share, as the scheduler sees it: over the worker's connection, and gone with it."""

from __future__ import annotations

import asyncio

import pytest
from scheduler_peers import WORKER, Peer, Setup

from holdfast.cluster.errors import ConnectError
from holdfast.cluster.naming import id_of_tasks

TASKS = id_of_tasks(WORKER)


def run(main, **options):
    async def all_of_it():
        async with Setup(**options) as setup:
            setup.worker.connection.send(("tasks-opened",))
            assert (await setup.worker.next("tasks"))[1:2] == ("nodes",)
            await main(setup)

    asyncio.run(all_of_it())


async def said(worker, operation):
    """What the tasks are told next of an operation."""
    await worker.until(lambda: any(m[:2] == ("tasks", operation) for m in worker.messages))
    message = next(m for m in worker.messages if m[:2] == ("tasks", operation))
    worker.messages.remove(message)
    return message[2:]


def test_it_hears_of_the_nodes_and_is_answered():
    async def main(setup):
        setup.worker.connection.send(("tasks", "request", 1, "who-has", {"keys": []}))
        assert await said(setup.worker, "reply") == (1, True, {})
        await setup.add_node("tcp://127.0.0.1:2")
        added, removed = await said(setup.worker, "nodes")
        assert ([node["address"] for node in added], removed) == (["tcp://127.0.0.1:2"], ())
        assert not setup.client.gone

    run(main)


def test_it_submits_and_holds_like_any_client():
    async def main(setup):
        send = setup.worker.connection.send
        send(("tasks", "functions", [(b"f" * 16, b"blob")]))
        send(("tasks", "submit", [("x", b"f" * 16, b"args", ())], None, {}, ""))
        ((_, run_id, *_, serial),) = (await setup.worker.next("run"))[1]
        send(("finished", [(serial, run_id, b"o" * 16, 1, b"v", "int", 0.0)]))
        (result,), _ = await said(setup.worker, "memory")
        assert result[0] == "x"
        assert setup.scheduler.state.tasks["x"].holders == (setup.scheduler.state.clients[TASKS],)
        send(("tasks", "release", ["x"]))
        async with asyncio.timeout(20):
            while "x" in setup.scheduler.state.tasks:
                await asyncio.sleep(0.001)

    run(main)


def test_one_that_says_what_can_not_be_is_closed_and_its_worker_stays():
    async def main(setup):
        send = setup.worker.connection.send
        send(("tasks", "submit", [("x", b"?" * 16, b"args", ())], None, {}, ""))
        (reason,) = await said(setup.worker, "closing")
        assert "a function that was never sent" in reason
        send(("tasks", "release", ["x"]))  # was on its way
        send(("tasks-opened",))
        await said(setup.worker, "nodes")
        send(("tasks", "request", 2, "who-has", {"keys": []}))
        assert await said(setup.worker, "reply") == (2, True, {})
        assert not setup.gone

    run(main)


@pytest.mark.parametrize("how", ["worker", "node"])
def test_it_leaves_with_its_worker(how):
    async def main(setup):
        state = setup.scheduler.state
        assert state.clients[TASKS].worker is state.workers[WORKER]
        peer = setup.worker if how == "worker" else setup.node
        peer.connection.abort()
        async with asyncio.timeout(20):
            while TASKS in state.clients:
                await asyncio.sleep(0.001)
        assert WORKER not in state.workers
        assert TASKS not in setup.scheduler._peers

    run(main)


def test_no_peer_that_connects_can_have_its_name():
    async def main(setup):
        with pytest.raises(ConnectError, match=r"client\.id"):
            await Peer.join(setup.scheduler, "client", id=TASKS, name="me")

    run(main)
