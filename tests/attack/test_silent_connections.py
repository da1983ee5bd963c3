"""Many processes connect and never show that they know the token: they take nothing from peers that have shown it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket

import pytest
from agents import Host
from flood import flood
from scripted_scheduler import TOKEN, ScriptedScheduler
from waiting import until

from holdfast.cluster.comm import entrance, limited_log, shortcut
from holdfast.cluster.comm.addresses import parse_address
from holdfast.cluster.comm.blocking import connect_blocking
from holdfast.cluster.comm.connecting import connect
from holdfast.cluster.comm.loops import run
from holdfast.cluster.comm.strangers import GREETING
from holdfast.cluster.errors import AuthenticationError
from holdfast.cluster.transfer.pool import PeerPool, fetch_bytes, push_bytes
from holdfast.objectstore import ObjectID

SILENT = 400
TRANSFERS = 12
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def scheduler():
    with ScriptedScheduler() as scheduler:
        yield scheduler


@pytest.fixture
def host(scheduler):
    with contextlib.ExitStack() as stack:
        yield Host(scheduler, stack)


def bring(host, number):
    """Put an object into the store of a host over the network."""
    object_id = ObjectID(number.to_bytes(16, "little"))
    data = object_id * 1000
    push_bytes(host.address, object_id, data, token=TOKEN)
    return object_id, data


@pytest.mark.parametrize("source", [HERE, ELSEWHERE])
def test_objects_travel_and_new_peers_are_let_in_while_silent_connections_flood_the_port(host, source):
    server = host.agent._transfer_server
    with contextlib.closing(PeerPool(TOKEN)) as pool:
        object_id, data = bring(host, 0)
        assert pool.fetch_bytes(host.address, object_id) == data
        until(lambda: len(server._connections) == 1, "only the connection that is kept is left")
        (kept,) = server._connections
        with flood(host.address, SILENT, source) as end:
            until(lambda: server._entrance.unopened == entrance.UNOPENED_MAX, "the silent ones are in")
            for number in range(1, TRANSFERS):
                object_id, data = bring(host, number)
                assert fetch_bytes(host.address, object_id, token=TOKEN) == data
                assert pool.fetch_bytes(host.address, object_id) == data
                assert server._entrance.unopened <= entrance.UNOPENED_MAX
            assert host.in_loop(lambda: kept in server._connections), "a peer that has opened is not closed for those"
            assert end() > SILENT, "those that were closed have come again"


@pytest.mark.parametrize("source", [HERE, ELSEWHERE])
def test_a_scheduler_lets_peers_in_while_silent_connections_flood_its_port(scheduler, source, monkeypatch):
    monkeypatch.setattr(shortcut, "connected", lambda host, port: None)

    async def come():
        connection = await connect(scheduler.address, token=TOKEN, role="client", info={"address": "x"}, timeout=20)
        connection.close()

    with flood(scheduler.address, SILENT, source):
        for _ in range(TRANSFERS):
            run(come())
    assert len(scheduler.peers) == TRANSFERS


def test_silent_connections_of_one_address_do_not_close_those_of_another(host, monkeypatch):
    monkeypatch.setattr(entrance, "UNOPENED_MAX", 8)
    monkeypatch.setattr(entrance, "OPENING_LEAST_SECONDS", 0.01)
    with socket.create_connection(parse_address(host.address)) as slow:
        slow.sendall(GREETING)
        until(lambda: host.agent._transfer_server._entrance.unopened == 1, "it is opening")
        with flood(host.address, 100, ELSEWHERE) as end:
            until(lambda: host.agent._transfer_server._entrance.unopened == 8, "the silent ones are in")
            for number in range(1, 20):
                bring(host, number)
            assert end() > 100
        slow.setblocking(False)
        assert slow.recv(1000), "it has been greeted"
        with pytest.raises(BlockingIOError):
            slow.recv(1000)


def test_what_is_said_of_connections_that_are_turned_away_is_limited(host, monkeypatch, caplog):
    monkeypatch.setattr(limited_log, "LINES", 5)
    with caplog.at_level(logging.WARNING):
        for _ in range(25):
            with pytest.raises(AuthenticationError):
                connect_blocking(host.address, token=b"x" * 32, role="peer", info={}, timeout=10)
        host.close()
    refused = [line for line in caplog.messages if line.startswith("refused a connection")]
    assert len(refused) == 5
    assert "20 more lines were left out of the kind 'refused a connection from %s: %s'" in caplog.messages


def test_a_period_of_limited_lines_ends_by_itself(monkeypatch, caplog):
    monkeypatch.setattr(limited_log, "LINES", 2)
    monkeypatch.setattr(limited_log, "PERIOD_SECONDS", 0.05)

    async def main():
        log = limited_log.LimitedLog(logging.getLogger("holdfast.test"))
        for number in range(5):
            log.warning("number %d", number)
        log.warning("another kind")
        async with asyncio.timeout(10):
            while len(caplog.messages) < 4:
                await asyncio.sleep(0.01)
        log.warning("number %d", 5)
        log.end_period()

    run(main())
    left_out = "3 more lines were left out of the kind 'number %d'"
    assert caplog.messages == ["number 0", "number 1", "another kind", left_out, "number 5"]
