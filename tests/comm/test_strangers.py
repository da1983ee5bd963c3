"""Strangers that come to a port of a cluster, and strangers that answer where one was looked for."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import http.server
import logging
import socket
import ssl
import threading

import pytest

from holdfast import ConnectError
from holdfast.cluster.comm.addresses import parse_address
from holdfast.cluster.comm.blocking import connect_blocking
from holdfast.cluster.comm.connecting import NoAnswerError, connect
from holdfast.cluster.comm.strangers import GREETING, StrangerError
from holdfast.cluster.deploy.ask import wait_for_scheduler
from tests.comm.server import TOKEN, Server

#: The first message of either end of dask's distributed, 2026.8.
DISTRIBUTED = (
    b":\0\0\0\0\0\0\0" + b"\1\0\0\0\0\0\0\0" + b"*\0\0\0\0\0\0\0"
    b"\x83\xabcompression\xc0\xa6python\x93\x03\x0b\x07\xafpickle-protocol\x05"
)


async def say(address: str, what: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*parse_address(address))
    writer.write(what)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("what", "named", "answer"),
    [
        (DISTRIBUTED, "a client or worker of dask's distributed: connect with holdfast.Client", b""),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(3000), "a browser, or another HTTP client", b"HTTP/1.1 400 "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "a browser, or another HTTP client", b"HTTP/1.1 400 "),
        (b"\x16\x03\x01\x00\xf8" + bytes(100), "a client that wants TLS", b"\x15\x03"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH client", b""),
        (b"*1\r\n$4\r\nPING\r\n", "a Redis client", b"-ERR this is a port of a Holdfast cluster"),
        (b"HOLD the line\r\n", "the other end does not speak Holdfast's protocol", b""),
    ],
)
def test_every_stranger_is_answered_at_once_and_named_in_the_log(what, named, answer, caplog):
    async def main():
        async with Server() as server:
            given = await say(server.listener.address, what)
            assert given.startswith(answer)
            assert bool(given) == bool(answer)
            async with asyncio.timeout(10):
                while named not in caplog.text:
                    await asyncio.sleep(0.002)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())


def test_a_browser_shows_what_this_is():
    async def main():
        async with Server() as server:

            def browse():
                connection = http.client.HTTPConnection(*parse_address(server.listener.address), timeout=10)
                with contextlib.closing(connection):
                    connection.request("GET", "/status", headers={"X-Long": "x" * 20_000})
                    answer = connection.getresponse()
                    return answer.status, answer.read().decode()

            return await asyncio.to_thread(browse)

    status, text = asyncio.run(main())
    assert status == 400
    assert "a port of a Holdfast cluster" in text
    assert "holdfast status" in text


def test_a_client_of_tls_gets_an_alert():
    async def main():
        async with Server() as server:

            def shake_hands():
                with socket.create_connection(parse_address(server.listener.address), 10) as sock:
                    ssl.create_default_context().wrap_socket(sock, server_hostname="x")

            with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
                await asyncio.to_thread(shake_hands)

    asyncio.run(main())


def test_a_greeting_may_come_byte_by_byte():
    async def main():
        async with Server() as server:
            reader, writer = await asyncio.open_connection(*parse_address(server.listener.address))
            for byte in GREETING:
                writer.write(bytes((byte,)))
                await writer.drain()
                await asyncio.sleep(0)
            async with asyncio.timeout(10):
                assert await reader.read(1000)
            writer.close()

    asyncio.run(main())


class _Answers:
    """A server that says something when somebody has connected, or when they have said something."""

    def __init__(self, what: bytes, first: bool) -> None:
        self.what, self.first = what, first
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.sock.getsockname()[1]}"
        self.connections: list[socket.socket] = []
        self.thread = threading.Thread(target=self.serve)

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.sock.accept()
                self.connections.append(connection)
                with contextlib.suppress(OSError):
                    if self.first or connection.recv(1000):
                        connection.sendall(self.what)
                    if self.what:
                        connection.shutdown(socket.SHUT_WR)

    def __enter__(self) -> _Answers:
        self.thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self.thread.join()
        for connection in self.connections:
            connection.close()


def both_ways(address: str, timeout: float = 10) -> list[ConnectError]:
    """What connecting raises, in an event loop and without one."""
    with pytest.raises(ConnectError) as asynchronous:
        asyncio.run(connect(address, token=TOKEN, role="client", info={}, timeout=timeout))
    with pytest.raises(ConnectError) as blocking:
        connect_blocking(address, token=TOKEN, role="client", info={}, timeout=timeout)
    return [asynchronous.value, blocking.value]


@pytest.mark.parametrize(
    ("what", "first", "named"),
    [
        (DISTRIBUTED, True, "a scheduler or worker of dask's distributed"),
        (b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n", False, "an HTTP server"),
        (b"\x15\x03\x01\x00\x02\x02\x46", False, "a server that wants TLS"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", True, "an SSH server"),
        (b"-ERR unknown command 'HOLDFAST'\r\n", False, "a Redis server"),
        (b"\0\0\x12\x04\0\0\0\0\0" + bytes(18), True, "a gRPC or HTTP/2 server, as Ray's are"),
        (b"220 mail.example.org ESMTP\r\n", True, "a mail or FTP server"),
        (bytes(range(200, 250)), True, "what answers at"),
    ],
)
def test_a_stranger_that_answers_is_named(what, first, named):
    with _Answers(what, first) as server:
        for error in both_ways(server.address):
            assert isinstance(error, StrangerError)
            assert str(error).startswith(named)
            assert server.address in str(error)
        if named != "what answers at":
            with pytest.raises(StrangerError, match=named):  # at once, and not after a minute
                wait_for_scheduler(server.address, timeout=60, token=TOKEN)


def test_a_web_server_of_pythons():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            for error in both_ways(f"127.0.0.1:{server.server_port}"):
                assert str(error).startswith("an HTTP server answers at")
        finally:
            server.shutdown()
            thread.join()


class _Quiet(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def test_a_stranger_that_says_nothing():
    with _Answers(b"", False) as server:
        asynchronous, blocking = both_ways(server.address, timeout=0.3)
    assert isinstance(asynchronous, NoAnswerError)
    assert "somebody listens there and says nothing: it is stopped, or waits for another protocol" in str(asynchronous)
    assert "has not answered within 0.3 s" in str(blocking)
