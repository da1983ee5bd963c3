"""The scheduler's process and its journal: what is written, and what another scheduler goes on with."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading

import pytest
from scheduler_peers import TOKEN, Peer, Setup

from holdfast.cluster.comm.listening import bound_socket
from holdfast.cluster.comm.loops import run
from holdfast.cluster.errors import JournalFullError
from holdfast.cluster.failures.loading import load_exception
from holdfast.cluster.journal import records
from holdfast.cluster.journal.directory import files
from holdfast.cluster.journal.recovery import read
from holdfast.cluster.scheduler.io import coming_back, journaling
from holdfast.cluster.scheduler.io.journaling import Journal
from holdfast.cluster.scheduler.io.server import Scheduler
from holdfast.cluster.scheduler.tasks.instructions import Reply
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


def test_a_host_whose_agent_lives_is_waited_for_and_one_whose_port_is_closed_is_not(state, monkeypatch):
    monkeypatch.setattr(coming_back, "PROBE_SECONDS", 0.02)

    async def main():
        async with Setup(journal=Journal.open(state)) as setup:
            with socket.create_server(("127.0.0.1", 0)) as agent:
                await setup.add_node(f"tcp://127.0.0.1:{agent.getsockname()[1]}")
                await setup.scheduler.abandon()
                async with going_on(state, recovery_seconds=60.0) as scheduler:
                    awaited = scheduler._members._coming_back._missing
                    await until(lambda: len(awaited()) == 1)
                    agent.setblocking(False)
                    for _ in range(3):  # it is tried again and again
                        tried, _ = await asyncio.get_running_loop().sock_accept(agent)
                        tried.close()
                    assert scheduler.describe()["recovering"]
                    agent.close()
                    await until(lambda: not scheduler.describe()["recovering"])

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


# -- a disk that is full


class Disk:
    """The disk of a state directory. When it is full, there is room for what is written only where a file was removed:
    the journal's reserve, if that is of use."""

    def __init__(self, monkeypatch, state):
        self.is_full = False
        self.reserve_is_of_use = True
        self._reserve = state / "journal" / "reserve"
        monkeypatch.setattr(os, "writev", self._unless_full(os.writev, lambda: self._has_reserve))
        monkeypatch.setattr(os, "posix_fallocate", self._unless_full(os.posix_fallocate, lambda: False))
        monkeypatch.setattr(journaling, "RETRY_SECONDS", 0.01)

    @property
    def _has_reserve(self):
        return self.reserve_is_of_use and not self._reserve.exists()

    def _unless_full(self, call, may):
        def limited(*arguments):
            if self.is_full and not may():
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*arguments)

        return limited


@pytest.fixture
def disk(monkeypatch, state):
    return Disk(monkeypatch, state)


async def asked(client, number, operation, **arguments):
    client.connection.send(("request", number, operation, arguments))
    return await client.next("reply")


def test_a_full_disk_takes_nothing_new_by_name_and_serves_what_is_there(state, disk):
    async def main():
        async with Setup(journal=Journal.open(state)) as setup:
            await submitted(setup, "x")
            disk.is_full = True
            await submitted(setup, "y")  # it goes into the reserve
            assert setup.scheduler.describe()["journal"]["full"]
            setup.submit("z")
            _, [(key, blob, text)], _ = await setup.client.next("erred")
            assert key == "z"
            assert isinstance(load_exception(blob, text)[0], JournalFullError)
            assert f"state directory {state} is full" in text
            record = {"name": "n", "data": b"", "keys": ["x"]}
            _, _, ok, (name, said) = await asked(setup.client, 1, "set-variable", **record)
            assert (ok, name) == (False, "JournalFullError")
            assert "Make room there" in said
            setup.client.connection.send(("release", ["x"]))
            await until(lambda: "x" not in setup.scheduler.state.tasks)
            disk.is_full = False
            await until(lambda: not setup.scheduler.describe()["journal"]["full"])
            await submitted(setup, "z")
            assert (await asked(setup.client, 2, "set-variable", name="n", data=b"", keys=[]))[2]

    run(main())


def test_what_a_client_holds_already_is_not_taken_from_it_by_a_full_disk(state, disk):
    async def main():
        async with Setup(journal=Journal.open(state)) as setup:
            await submitted(setup, "x")
            disk.is_full = True
            await submitted(setup, "y")
            setup.client.connection.send(("submit", [(key, b"f" * 16, b"args", ()) for key in "xz"], None, {}, ""))
            _, errors, _ = await setup.client.next("erred")
            assert [key for key, _, _ in errors] == ["z"]

    run(main())


def test_nothing_leaves_that_could_not_be_written_and_all_goes_on_when_there_is_room(state, disk):
    async def main():
        async with Setup(journal=Journal.open(state), validate=False) as setup:
            disk.is_full, disk.reserve_is_of_use = True, False
            setup.submit("x")
            await until(lambda: setup.scheduler.describe()["journal"]["stuck"])
            other = await Peer.join(setup.scheduler, "client", id="other")
            _, _, ok, report = await asked(other, 1, "status")  # which is answered at any time
            assert ok
            assert "is full" in report["scheduler"]["journal"]["stuck"]
            other.connection.send(("request", 2, "list-datasets", {}))
            assert not [message for message in setup.worker.messages if message[0] == "run"]
            disk.is_full = False
            assert (await setup.worker.next("run"))[1][0][0] == "x"
            await other.next("reply")
            await setup.scheduler.abandon()
        async with going_on(state) as scheduler:
            assert "x" in scheduler.state.tasks

    run(main())


def test_a_journal_that_can_not_be_written_for_long_ends_the_cluster_and_stays(state, disk, monkeypatch):
    monkeypatch.setattr(journaling, "GIVE_UP_SECONDS", 0.05)

    async def main():
        async with Setup(journal=Journal.open(state)) as setup:
            await submitted(setup, "x")
            disk.is_full, disk.reserve_is_of_use = True, False
            setup.submit("y")
            _, reason = await setup.client.next("closing")
            assert f"state directory {state} is full" in reason
            setup.node.connection.close()
            async with asyncio.timeout(20):
                await setup.scheduler.finished.wait()
        disk.is_full = False
        async with going_on(state) as scheduler:
            assert set(scheduler.state.tasks) == {"x"}

    run(main())


# -- what has to survive a power cut


def test_a_publisher_is_answered_when_the_disk_has_it(state, monkeypatch):
    synced = threading.Event()
    sync = os.fdatasync

    def wait(descriptor):
        assert synced.wait(20)
        sync(descriptor)

    async def main():
        async with Setup(journal=Journal.open(state)) as setup:
            await submitted(setup, "x")
            monkeypatch.setattr(os, "fdatasync", wait)
            # As the part does that publishes.
            setup.scheduler.state.decisions.note(records.put("datasets", "d", None))
            setup.client.connection.send(("request", 1, "list-datasets", {}))
            setup.scheduler._carry_out([Reply("me", 2, True, None)])
            assert (await setup.client.next("reply"))[1] == 1
            synced.set()
            assert (await setup.client.next("reply"))[1] == 2

    run(main())


def test_a_temporary_state_is_never_synced(state, monkeypatch):
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: pytest.fail("it was synced"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: pytest.fail("it was synced"))

    async def main():
        async with Setup(journal=Journal.open(state, is_temporary=True)) as setup:
            await submitted(setup, "x")

    run(main())


# -- summing up


def test_closed_files_are_summed_up_beside_the_scheduler(state, monkeypatch):
    monkeypatch.setattr(journaling, "MOST_LOGS", 3)

    async def main():
        for _ in range(3):
            async with going_on(state):
                pass
        async with going_on(state) as scheduler:
            await until(lambda: [file.is_summary for file in files(state)] == [True, False])
            assert not scheduler.describe()["journal"]["damage"]
        assert read(state).damage == []

    run(main())
