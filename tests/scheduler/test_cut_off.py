"""Peers whose connection is broken and may be taken up again: what the scheduler makes of them meanwhile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from scheduler_peers import NODE, WORKER, Peer, Setup

from holdfast.cluster.comm import connecting as connecting_module
from holdfast.cluster.comm import shortcut
from holdfast.cluster.comm.loops import run
from holdfast.cluster.durations import seconds_of_variable
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.scheduler.io.membership import Membership

LONG_SECONDS = 600.0


@pytest.fixture(autouse=True)
def way(monkeypatch):
    """All connections are over the network, and there is a way back when this says so."""
    monkeypatch.setattr(shortcut, "connected", lambda host, port: None)
    back = asyncio.Event()
    try_once = connecting_module._Return._try

    async def when_there_is_a_way(self, connection):
        return await try_once(self, connection) if back.is_set() else ConnectError("no way")

    monkeypatch.setattr(connecting_module._Return, "_try", when_there_is_a_way)
    return back


async def cut(scheduler, peer, name):
    """Break the connection of a peer, and wait until both ends know."""
    async with asyncio.timeout(20):
        peer.connection._transport.abort()
        while not (name not in scheduler._peers or scheduler._peers[name].is_cut_off):
            await asyncio.sleep(0.001)


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def test_a_worker_that_is_cut_off_gets_nothing_new_and_is_said_to_be_until_it_is_back(way):
    async def main():
        async with Setup() as setup:
            await cut(setup.scheduler, setup.worker, WORKER)
            worker = setup.scheduler.state.workers[WORKER]
            assert worker.barred
            setup.submit("x")
            setup.client.connection.send(("request", 1, "info", {}))
            said = (await setup.client.next("reply"))[3]["workers"][WORKER]
            assert said["condition"] == "cut off"
            assert not worker.runs
            way.set()
            ((key, *_),) = (await setup.worker.next("run"))[1]
            assert key == "x"
            assert not worker.barred
            assert not setup.worker.gone

    run(main())


def test_what_was_under_way_to_a_worker_and_from_it_arrives_when_it_is_back(way):
    async def main():
        async with Setup() as setup:
            setup.submit("x")
            ((_, run_id, *_, serial),) = (await setup.worker.next("run"))[1]
            await cut(setup.scheduler, setup.worker, WORKER)
            setup.worker.connection.send(("finished", [(serial, run_id, b"i" * 16, 3, b"abc", "bytes", 0.1)]))
            setup.worker.connection.flush()
            setup.scheduler._send(WORKER, ("discard", [b"i" * 16]))
            way.set()
            await setup.client.next("memory")
            await setup.worker.next("discard")

    run(main())


def test_a_worker_that_is_cut_off_and_has_ended_as_its_node_says_leaves_at_once():
    async def main():
        async with Setup(resume_seconds=LONG_SECONDS) as setup:
            await cut(setup.scheduler, setup.worker, WORKER)
            setup.node.connection.send(("exited", WORKER, "killed", [], None, False, False, None, ""))
            await until(lambda: WORKER not in setup.scheduler.state.workers)

    run(main())


def test_the_end_of_the_process_before_does_not_end_one_that_is_cut_off(way):
    async def main():
        async with Setup(resume_seconds=LONG_SECONDS) as setup:
            await cut(setup.scheduler, setup.worker, WORKER)
            setup.node.connection.send(("exited", WORKER, "killed", [], None, False, False, 1, ""))
            way.set()
            await until(lambda: not setup.scheduler.state.workers[WORKER].barred)
            assert not setup.worker.gone

    run(main())


def test_a_worker_in_the_place_of_one_that_is_cut_off_takes_it():
    async def main():
        async with Setup(resume_seconds=LONG_SECONDS) as setup:
            await cut(setup.scheduler, setup.worker, WORKER)
            successor = await setup.add_worker()
            setup.submit("x")
            await successor.next("run")
            setup.worker.connection.abort()

    run(main())


@pytest.mark.parametrize(("pid", "to_end"), [(17, 0), (18, 17)])
def test_of_a_worker_that_joins_anew_the_process_is_not_ended_unless_it_is_another_one(pid, to_end):
    """It may have joined and not got the welcome."""

    async def main():
        async with Setup(resume_seconds=LONG_SECONDS) as setup:
            setup.worker.connection.close()
            await until(lambda: WORKER not in setup.scheduler._peers)
            await setup.node.next("parted")
            info = {"address": WORKER, "name": "here-0", "node": NODE, "nthreads": 1, "incarnation": pid}
            setup.worker = await Peer.join(setup.scheduler, "worker", pid=17, **{**info, "incarnation": 17})
            await cut(setup.scheduler, setup.worker, WORKER)
            successor = await Peer.join(setup.scheduler, "worker", pid=pid, **info)
            _, _, ended = await setup.node.next("parted")
            assert ended == to_end
            setup.submit("x")
            await successor.next("run")
            setup.worker.connection.abort()

    run(main())


def test_a_node_that_is_cut_off_and_at_whose_port_nobody_listens_leaves_at_once():
    async def main():
        async with Setup(resume_seconds=LONG_SECONDS) as setup:
            await cut(setup.scheduler, setup.node, NODE)
            await until(lambda: NODE not in setup.scheduler.state.hosts)

    run(main())


def test_peers_that_are_not_back_in_time_leave(way):
    async def main():
        async with Setup(resume_seconds=0.05, client_resume_seconds=0.05) as setup:
            await cut(setup.scheduler, setup.worker, WORKER)
            await cut(setup.scheduler, setup.client, "me")
            await until(lambda: not setup.scheduler.state.workers and not setup.scheduler.state.clients)
            await until(lambda: setup.worker.gone and setup.client.gone)
            way.set()
            setup.worker = await setup.add_worker()
            setup.client = await Peer.join(setup.scheduler, "client", id="me")

    run(main())


def test_what_a_client_holds_is_there_when_it_is_back(way):
    async def main():
        async with Setup() as setup:
            setup.submit("x")
            ((_, run_id, *_, serial),) = (await setup.worker.next("run"))[1]
            await cut(setup.scheduler, setup.client, "me")
            setup.worker.connection.send(("finished", [(serial, run_id, b"i" * 16, 3, b"abc", "bytes", 0.1)]))
            await until(lambda: setup.scheduler.state.tasks["x"].state == "memory")
            assert "me" in setup.scheduler.state.clients
            way.set()
            await setup.client.next("memory")
            setup.client.connection.send(("release", ["x"]))
            await until(lambda: "x" not in setup.scheduler.state.tasks)

    run(main())


def test_a_host_that_comes_back_while_the_cluster_ends_is_told(way, monkeypatch):
    async def no_probe(members, node):
        """Somebody listens at its port."""

    monkeypatch.setattr(Membership, "_probe", no_probe)

    async def main():
        async with Setup() as setup:
            await cut(setup.scheduler, setup.node, NODE)
            closing = asyncio.ensure_future(setup.scheduler.close())
            await setup.client.next("closing")
            way.set()
            await setup.node.next("close")
            setup.node.connection.close()
            await closing

    run(main())


def test_a_host_whose_agent_ends_has_left_though_its_port_was_open_a_moment_longer(way):
    async def main():
        async with Setup() as setup:
            tries = []
            ended = asyncio.Event()

            async def take(reader, writer):
                """Take a connection as the kernel does for a process that is ending."""
                tries.append(writer)
                if len(tries) == 2:
                    server.close()
                    ended.set()
                writer.transport.abort()

            server = await asyncio.start_server(take, "127.0.0.1", 0)
            address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            node = await setup.add_node(address)
            await cut(setup.scheduler, node, address)
            await ended.wait()
            await until(lambda: address not in setup.scheduler.state.hosts)
            node.connection.close()

    run(main())


@pytest.mark.parametrize(
    ("variable", "value", "needed"),
    [
        ("HOLDFAST_RESUME_TIMEOUT", "soon", "a time from 0 to 1e+06 s"),
        ("HOLDFAST_CLIENT_RESUME_TIMEOUT", "inf", "a time from 0 to 1e+06 s"),
        ("HOLDFAST_SILENCE_TIMEOUT", "soon", "a time from 0 on"),
        ("HOLDFAST_NO_WORKER_TIMEOUT", "nan", "a time from 0 on"),
        ("HOLDFAST_RECOVERY_TIMEOUT", "-1", "a time from 0 on"),
        ("HOLDFAST_SCHEDULER_TIMEOUT", "soon", "a time from 0 on"),
        ("HOLDFAST_EVENTS_LOG_LENGTH", "many", "a number from 1 to"),
    ],
)
def test_a_variable_that_says_nothing_useful_is_named_when_the_scheduler_starts(variable, value, needed):
    command = [sys.executable, "-m", "holdfast.cluster.scheduler", "--port", "0"]
    done = subprocess.run(
        command, env={**os.environ, variable: value}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert variable in done.stderr
    assert repr(value) in done.stderr
    assert needed in done.stderr
    assert "usage:" not in done.stderr


def test_variables_take_times_as_text(monkeypatch):
    monkeypatch.setenv("HOLDFAST_SILENCE_TIMEOUT", "1 minute")
    assert seconds_of_variable("HOLDFAST_SILENCE_TIMEOUT", 30.0) == 60.0
    monkeypatch.setenv("HOLDFAST_SILENCE_TIMEOUT", "")
    assert seconds_of_variable("HOLDFAST_SILENCE_TIMEOUT", 30.0) == 30.0


@pytest.mark.parametrize("role", ["client", "worker"])
def test_without_a_grace_a_peer_whose_connection_breaks_has_left(role):
    async def main():
        async with Setup(resume_seconds=0.0, client_resume_seconds=0.0) as setup:
            peer, known = {
                "client": (setup.client, setup.scheduler.state.clients),
                "worker": (setup.worker, setup.scheduler.state.workers),
            }[role]
            peer.connection._transport.abort()
            await until(lambda: not known)

    run(main())
