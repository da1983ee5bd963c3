"""Processes of one host find the Unix socket beside a TCP socket, and only those that are to."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from holdfast.cluster.comm import shortcut
from holdfast.cluster.comm.listening import bound_socket
from holdfast.cluster.comm.loops import run
from tests.comm.server import Server


@contextlib.contextmanager
def listening(host):
    """A port of the host, and the shortcut's socket."""
    with contextlib.closing(bound_socket(host, 0)) as tcp:
        port = tcp.getsockname()[1]
        shorter = shortcut.listening(host, port)
        assert shorter is not None
        with shorter:
            yield port, shorter


@pytest.mark.parametrize(
    ("listens", "connects", "found"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.2", True),
        ("127.0.0.1", "127.0.0.2", False),  # another address: it may be another cluster's
        ("0.0.0.0", "203.0.113.1", False),  # another host's
    ],
)
def test_it_stands_for_the_address_that_is_listened_to(listens, connects, found):
    with listening(listens) as (port, shorter):
        sock = shortcut.connected(connects, port)
        assert (sock is not None) is found
        if sock is not None:
            with sock, shorter.accept()[0] as accepted:
                accepted.send(b"x")
                sock.setblocking(True)
                assert sock.recv(1) == b"x"


def test_it_leaves_nothing_behind():
    with listening("127.0.0.1") as (port, _):
        pass
    assert shortcut.connected("127.0.0.1", port) is None
    with shortcut.listening("127.0.0.1", port):  # the name is free again
        pass


def test_where_the_name_is_taken_there_is_none():
    with listening("127.0.0.1") as (port, _):
        assert shortcut.listening("127.0.0.1", port) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_process_is_not_trusted():
    with contextlib.closing(bound_socket("127.0.0.1", 0)) as tcp:
        port = tcp.getsockname()[1]
    os.seteuid(65534)
    try:
        theirs = shortcut.listening("127.0.0.1", port)
    finally:
        os.seteuid(0)
    with theirs:
        assert shortcut.connected("127.0.0.1", port) is None


def test_connections_take_it():
    async def main():
        async with Server() as server:
            conn = await server.connect()
            await server.until(lambda: server.connections)
            for end in (conn, server.connections[0]):
                assert end._transport.get_extra_info("socket").family == socket.AF_UNIX
                assert end.peer == "this host"
            conn.abort()

    run(main())
