"""Connections: the opening in all its outcomes, coalescing, limits, and ends."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct

import pytest

from holdfast.cluster.comm import blocking, entrance, frames, opening, shortcut, strangers
from holdfast.cluster.comm.addresses import format_address, parse_address
from holdfast.cluster.comm.connecting import connect
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.comm.listening import bound_socket
from holdfast.cluster.comm.loops import LoopThread, run
from holdfast.cluster.comm.opening import Refused
from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.errors import AuthenticationError, ConnectError, VersionMismatchError
from tests.comm import server

TOKEN = server.TOKEN


shared = False


@pytest.fixture(autouse=True, params=["loop", "shared"])
def _transport(request, monkeypatch):
    """All that is tested here is true whichever transport the connecting end has."""
    monkeypatch.setitem(globals(), "shared", request.param == "shared")


@pytest.fixture(autouse=True, params=["shortcut", "tcp"])
def _socket(request, monkeypatch):
    """... and on either kind of socket."""
    if request.param == "tcp":
        monkeypatch.setattr(shortcut, "listening", lambda host, port: None)  # as where the name is taken


class Server(server.Server):
    def connect(self, **options):
        return super().connect(**{"shared": shared, **options})


def test_both_ends_learn_about_each_other_and_one_turn_is_one_frame():
    async def main():
        async with Server() as server:
            conn = await server.connect()
            assert conn.info == {"role": "client"}
            received = []
            conn.start(received.append, lambda error: None)
            for i in range(100):
                conn.send(("op", i))
            await server.until(lambda: server.batches)
            assert server.batches == [tuple(("op", i) for i in range(100))]
            assert server.connections[0].info == {"id": "me"}
            conn.close()
            await server.until(lambda: server.ends)
            assert server.ends == [None]

    run(main())


def test_messages_that_come_before_start_are_not_lost():
    async def main():
        async with Server() as server:
            conn = await server.connect()
            async with asyncio.timeout(10):
                while not server.connections:
                    await asyncio.sleep(0)
            server.connections[0].send(("early",))
            server.connections[0].close()
            async with asyncio.timeout(10):
                while not conn.closed:
                    await asyncio.sleep(0)
            received, ends = [], []
            conn.start(received.append, ends.append)
            assert received == [(("early",),)]
            assert ends == [None]

    run(main())


def test_what_is_sent_in_the_turn_of_the_welcome_comes_after_it():
    async def main():
        class Eager(Server):
            def connected(self, conn):
                conn.send(("at once",))
                super().connected(conn)

        async with Eager() as server:
            conn = await server.connect()
            received = asyncio.get_running_loop().create_future()
            conn.start(received.set_result, lambda error: None)
            assert await asyncio.wait_for(received, 10) == (("at once",),)
            conn.abort()

    run(main())


def test_a_large_payload_crosses_as_it_is():
    async def main():
        payload = bytes(range(256)) * 40_000
        async with Server() as server:
            conn = await server.connect()
            conn.send(("op", frames.raw(payload)))
            await server.until(lambda: server.batches)
            assert server.batches[0][0][1] == payload
            conn.abort()

    run(main())


def test_a_wrong_token_is_refused_with_the_way_out():
    async def main():
        async with Server() as server:
            with pytest.raises(AuthenticationError, match="HOLDFAST_TOKEN"):
                await server.connect(token=b"x" * 32)
            assert not server.connections

    run(main())


def test_a_listener_that_does_not_know_the_token_is_not_trusted():
    async def impostor(reader, writer):
        hello = ("hello", opening.MAGIC, opening.PROTOCOL_VERSION, bytes(32))
        writer.write(b"".join(frames.pack([hello])))
        await reader.read(1000)
        writer.write(b"".join(frames.pack([("welcome", bytes(32), {}, None, None)])))
        writer.close()

    async def main():
        server = await asyncio.start_server(impostor, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        with pytest.raises(AuthenticationError, match="does not know"):
            await connect(f"{host}:{port}", token=TOKEN, role="client", info={}, timeout=5)
        server.close()

    run(main())


def test_another_version_is_named_on_both_ends(caplog):
    async def main():
        async with Server() as server:

            async def old_client():
                reader, writer = await asyncio.open_connection(*parse_address(server.listener.address))
                writer.write(strangers.GREETING)
                await reader.read(1000)
                hello = ("hello", opening.MAGIC, 0, "client", bytes(32), b"", {})
                writer.write(b"".join(frames.pack([hello])))
                answer = FrameReader().feed(await reader.read(1000))
                writer.close()
                return answer[0][0]

            assert (await old_client())[:2] == ("refused", "version")

    async def old_listener(reader, writer):
        writer.write(b"".join(frames.pack([("hello", opening.MAGIC, 99, bytes(32))])))
        await reader.read(1000)
        writer.close()

    async def against_old_listener():
        server = await asyncio.start_server(old_listener, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        with pytest.raises(VersionMismatchError, match=r"version 99.*same version of holdfast"):
            await connect(f"{host}:{port}", token=TOKEN, role="client", info={}, timeout=5)
        server.close()

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "version" in caplog.text
    run(against_old_listener())


def test_a_proof_is_good_for_one_role_one_side_and_one_opening():
    one = opening._proof(TOKEN, "connector", "client", b"a" * 32, b"b" * 32)
    assert one != opening._proof(TOKEN, "listener", "client", b"a" * 32, b"b" * 32)
    assert one != opening._proof(TOKEN, "connector", "worker", b"a" * 32, b"b" * 32)
    assert one != opening._proof(TOKEN, "connector", "client", b"c" * 32, b"b" * 32)


def test_a_refusal_by_the_application_reaches_the_other_end():
    def welcome(role, info):
        raise Refused("role", "no room")

    async def main():
        async with Server(welcome) as server:
            with pytest.raises(ConnectError, match="no room"):
                await server.connect()

    run(main())


def test_nobody_there_says_what_was_tried_for_how_long():
    async def main():
        sock = bound_socket("127.0.0.1", 0)
        address = format_address(*sock.getsockname())
        sock.close()
        with pytest.raises(ConnectError, match=r"no scheduler answered at tcp:.*: tried \d+ times in 0\.\d s"):
            await connect(address, token=TOKEN, role="client", info={}, timeout=0.5)

    run(main())


def test_somebody_else_there():
    async def web_server(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(100))
        writer.close()

    async def main():
        server = await asyncio.start_server(web_server, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        with pytest.raises(ConnectError, match="an HTTP server answers at"):
            await connect(f"{host}:{port}", token=TOKEN, role="client", info={}, timeout=5)
        server.close()

    run(main())


@pytest.mark.parametrize("greeting", [b"", strangers.GREETING])
@pytest.mark.parametrize("stream", [b"GET / HTTP/1.1\r\n\r\n" + bytes(100), struct.pack("<II", 1 << 20, 0), bytes(8)])
def test_garbage_closes_that_connection_with_a_reason_and_nothing_else(stream, greeting, caplog):
    async def main():
        async with Server() as server:
            good = await server.connect()
            reader, writer = await asyncio.open_connection(*parse_address(server.listener.address))
            writer.write(greeting + stream)
            async with asyncio.timeout(10):
                await reader.read()  # the hello, if it has been greeted
                assert await reader.read() == b""
            writer.close()
            good.send(("still here",))
            await server.until(lambda: server.batches)
            good.abort()

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "closing the connection" in caplog.text


def test_a_silent_peer_is_given_up(monkeypatch, caplog):
    monkeypatch.setattr(entrance, "OPENING_TIMEOUT_SECONDS", 0.1)

    async def main():
        async with Server() as server:
            for greeting in (b"", strangers.GREETING):
                reader, writer = await asyncio.open_connection(*parse_address(server.listener.address))
                writer.write(greeting)
                async with asyncio.timeout(10):
                    assert bool(await reader.read()) == bool(greeting)
                writer.close()

    run(main())
    assert "opening took longer" in caplog.text


def test_a_handler_that_fails_ends_its_connection_only(caplog):
    async def main():
        async with Server() as server:
            bad, good = await server.connect(), await server.connect()
            await server.until(lambda: len(server.connections) == 2)
            server.connections[0]._on_batch = lambda batch: 1 / 0
            bad.send(("op",))
            await server.until(lambda: server.ends)
            good.send(("op",))
            await server.until(lambda: server.batches)
            for conn in (bad, good):
                conn.abort()

    run(main())
    assert "ZeroDivisionError" in caplog.text


def test_a_message_that_cannot_be_packed_closes_the_connection_instead_of_losing_its_neighbours(caplog):
    async def main():
        async with Server() as server:
            conn = await server.connect()
            ends = []
            conn.start(lambda batch: None, ends.append)
            conn.send(("fine",))
            conn.send(("bad", 2**70))
            await server.until(lambda: server.ends)
            assert "could not be sent" in str(ends[0])

    run(main())


def test_an_address_of_another_host_is_named():
    with pytest.raises(ConnectError, match=r"203\.0\.113\.7 is no address of this host; choose one that is"):
        bound_socket("203.0.113.7", 0)


def test_a_port_in_use_is_named():
    sock = bound_socket("127.0.0.1", 0)
    port = sock.getsockname()[1]
    with sock, pytest.raises(ConnectError, match=f"port {port} of 127.0.0.1 is in use"):
        bound_socket("127.0.0.1", port)


def test_the_ends_of_a_plain_socket_speak_with_each_other_and_leave_what_follows():
    with LoopThread("accept") as thread, socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)

        async def accept():
            loop = asyncio.get_running_loop()
            sock, _ = await loop.sock_accept(server)
            with sock:
                await strangers.expect_greeting(sock)
                result = await blocking.open_accepted(sock, token=TOKEN, welcome=lambda role, info: {"capacity": 1})
                assert await loop.sock_recv(sock, 5) == b"bytes"
                await loop.sock_sendall(sock, b"!")
                return result

        accepted = asyncio.run_coroutine_threadsafe(accept(), thread.loop)
        host, port = server.getsockname()
        sock, info = blocking.connect_blocking(f"{host}:{port}", token=TOKEN, role="peer", info={"id": "x"}, timeout=5)
        with sock:
            sock.sendall(b"bytes")
            assert sock.recv(1) == b"!"
            with pytest.raises(ConnectError, match="closed"):
                blocking.receive_exactly(sock, 1)
        assert info == {"capacity": 1}
        assert accepted.result(10) == ("peer", {"id": "x"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://a:1", ("a", 1)),
        ("a:1", ("a", 1)),
        ("a", ("a", 8786)),
        ("[::1]:2", ("::1", 2)),
        ("[::1]", ("::1", 8786)),
    ],
)
def test_addresses(text, expected):
    assert parse_address(text) == expected
    assert parse_address(format_address(*expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "http://a:1", "a:b", "a:99999", ":1", "tcp://", "8786", "tcp://8786", "a..b:1", "a" * 64 + ":1"]
)
def test_what_is_no_address_is_told_what_one_looks_like(text):
    with pytest.raises(ValueError, match=r"HOST:PORT|unknown scheme"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://localhost:8787/status", "the scheduler has no web page"),
        ("tls://a:8786", r"docs/security\.md"),
        ("ray://a:10001", "a cluster of Ray's"),
        ("inproc://a/1", r"LocalCluster\(processes=False\)"),
    ],
)
def test_addresses_of_other_kinds_are_known(text, words):
    with pytest.raises(ValueError, match=rf"unknown scheme '.*{words}.*HOST:PORT"):
        parse_address(text)


class TestTokens:
    @pytest.fixture(autouse=True)
    def token_file(self, tmp_path, monkeypatch):
        monkeypatch.delenv("HOLDFAST_TOKEN", raising=False)
        monkeypatch.setenv("HOLDFAST_TOKEN_FILE", str(tmp_path / "deep" / "token"))
        return tmp_path / "deep" / "token"

    def test_the_first_start_makes_one_that_only_the_user_reads(self, token_file):
        token = load_token(create=True)
        assert len(token) >= 32
        assert token_file.stat().st_mode & 0o777 == 0o600
        assert load_token() == load_token(create=True) == token
        assert list(token_file.parent.iterdir()) == [token_file]

    def test_without_one_the_way_out_is_named(self, token_file):
        with pytest.raises(AuthenticationError, match="copy the file"):
            load_token()

    def test_a_file_that_others_can_read_is_refused(self, token_file):
        load_token(create=True)
        token_file.chmod(0o644)
        with pytest.raises(AuthenticationError, match="chmod 600"):
            load_token()

    def test_one_in_a_directory_that_cannot_be_written_is_used(self, monkeypatch):
        token = load_token(create=True)

        def refuse(*args, **kwargs):
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr(os, "open", refuse)
        assert load_token(create=True) == token

    def test_where_none_can_be_made_the_way_out_is_named(self, token_file):
        token_file.parent.parent.joinpath("deep").write_text("a file where the directory would be")
        with pytest.raises(AuthenticationError, match="HOLDFAST_TOKEN_FILE"):
            load_token(create=True)

    def test_a_short_one_is_refused(self, monkeypatch):
        monkeypatch.setenv("HOLDFAST_TOKEN", "abc")
        with pytest.raises(AuthenticationError, match="shorter"):
            load_token()


def test_a_loop_thread_refuses_to_wait_for_itself():
    with LoopThread("test") as thread:

        async def wait_for_myself():
            thread.run(asyncio.sleep(0))

        with pytest.raises(RuntimeError, match="own thread"):
            thread.run(wait_for_myself())
    thread.close()
    thread.call_soon(print)
