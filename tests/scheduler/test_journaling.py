"""The scheduler's process and its journal: what is written, and what another scheduler goes on with."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest
from scheduler_peers import TOKEN, Peer, Setup

from holdfast.cluster.comm.listening import bound_socket
from holdfast.cluster.comm.loops import run
from holdfast.cluster.scheduler.io.journaling import Journal
from holdfast.cluster.scheduler.io.server import Scheduler
from holdfast.objectstore.errors import HoldfastError


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@contextlib.asynccontextmanager
async def going_on(path, **options):
    """A scheduler that goes on from a state directory, with nobody else."""
    scheduler = Scheduler(
        token=TOKEN,
        sock=bound_socket("127.0.0.1", 0),
        journal=Journal.open(path),
        validate=True,
        **{"recovery_seconds": 0.05, **options},
    )
    await scheduler.start()
    try:
        yield scheduler
    finally:
        await scheduler.abandon()
        await scheduler._listener.close()


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def submitted(setup, key):
    setup.submit(key)
    await until(lambda: key in setup.scheduler.state.tasks)


def test_what_a_client_holds_is_known_to_the_next_scheduler(state):
    async def main():
        async with Setup(journal=Journal.open(state)) as setup:
            await submitted(setup, "x")
            await setup.scheduler.abandon()
        async with going_on(state) as scheduler:
            assert [task.key for task in scheduler.state.clients["me"].holds] == ["x"]

    run(main())


def test_no_two_schedulers_have_the_same_epoch(state):
    async def main():
        epochs = []
        for _ in range(2):
            async with going_on(state) as scheduler:
                epochs.append(scheduler.describe()["epoch"])
        (cluster, first), (same, second) = (epoch.split("/") for epoch in epochs)
        assert (cluster, int(first) + 1) == (same, int(second))

    run(main())


def test_clients_are_not_heard_before_hosts_have_had_their_time(state):
    async def main():
        async with Setup(journal=Journal.open(state)) as setup:
            await submitted(setup, "x")
            await setup.scheduler.abandon()
        async with going_on(state, recovery_seconds=60.0) as scheduler:
            assert scheduler.describe()["recovering"]
            client = await Peer.join(scheduler, "client", id="new")
            client.connection.send(("request", 1, "list-datasets", {}))
            node = await Peer.join_as_node(scheduler)
            await until(lambda: scheduler.state.hosts)
            assert not client.messages
            node.connection.send(("ready",))
            await client.next("reply")
            assert not scheduler.describe()["recovering"]

    run(main())


def test_a_scheduler_that_nobody_is_to_come_back_to_serves_at_once(state):
    async def main():
        async with going_on(state, recovery_seconds=60.0) as scheduler:
            client = await Peer.join(scheduler, "client", id="new")
            client.connection.send(("request", 1, "list-datasets", {}))
            await client.next("reply")

    run(main())


def test_clients_that_do_not_come_back_have_left(state):
    async def main():
        async with Setup(journal=Journal.open(state)) as setup:
            await submitted(setup, "x")
            await setup.scheduler.abandon()
        async with going_on(state, client_resume_seconds=0.05) as scheduler:
            await until(lambda: not scheduler.state.clients and not scheduler.state.tasks)

    run(main())


def test_a_cluster_that_was_stopped_in_order_leaves_nothing_to_come_back_to(state):
    async def main():
        async with Setup(journal=Journal.open(state)) as setup:
            await submitted(setup, "x")
        async with going_on(state) as scheduler:
            assert not scheduler.state.tasks
            assert not scheduler.state.clients

    run(main())


def test_a_directory_has_one_scheduler(state):
    async def main():
        async with going_on(state):
            with pytest.raises(HoldfastError, match=rf"belongs to a scheduler that runs \(process {os.getpid()}\)"):
                Journal.open(state)

    run(main())
