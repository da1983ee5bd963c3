"""A connection alone: what threads share of it, and what an interrupt leaves of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast.objectstore import ObjectID, StoreClosedError, StoreError
from holdfast.objectstore.client.connection import StoreConnection
from holdfast.objectstore.shared.frames import MessageReader, pack
from holdfast.objectstore.shared.protocol import SEALS_PER_FRAME, Op, SealItem, Status


class Line:
    """A connection, and the server's end of its socket in the test's hands."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(20)
        self.sock = InterruptedSocket(fileno=ours.detach())
        self.connection = StoreConnection(self.sock, "here")
        self.frames = MessageReader(1 << 20)

    def ask(self, timeout: float | None = 20, undo: Callable[[list[Any]], None] | None = None) -> list[Any]:
        return self.connection.call(Op.STATS, timeout=timeout, undo=undo)

    def requests(self) -> list[Any]:
        """What has been sent: all of it, as these are small and sent in one piece."""
        return list(self.frames.feed(self.peer.recv(1 << 16)))

    def answer(self, number: int, *fields: Any) -> None:
        self.peer.sendall(pack((number, Status.OK, *fields)))


class InterruptedSocket(socket.socket):
    """Is interrupted when it sends for the first time, if it is told so."""

    interrupt = False

    def send(self, *args: Any) -> int:
        if self.interrupt:
            self.interrupt = False
            raise KeyboardInterrupt
        return super().send(*args)


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.connection.close()
    line.peer.close()


def test_a_thread_that_waits_while_another_reads_has_a_deadline_too(line: Line, wait_until: Callable[..., Any]) -> None:
    failures: list[BaseException] = []

    def read() -> None:
        try:
            line.ask(timeout=None)
        except StoreClosedError as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: line.connection._someone_reads)

    def wait() -> None:
        try:
            line.ask(timeout=0.05)
        except StoreError as error:
            failures.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    waiter.join(5)
    told = list(failures)
    line.peer.close()
    waiter.join()
    reader.join()
    assert "doesn't answer" in str(told[0])


def test_a_request_that_was_interrupted_while_it_was_sent_is_undone(line: Line) -> None:
    undone: list[Any] = []
    line.sock.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        line.ask(undo=undone.append)
    line.connection.flush()
    assert line.requests() == [[Op.STATS, 1]]
    line.answer(1, "granted")
    line.answer(2, "mine")
    assert line.ask() == ["mine"]
    assert undone == [["granted"]]


def test_what_was_received_survives_an_interrupt(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    undone: list[Any] = []

    def interrupt(data: bytes) -> Any:
        monkeypatch.undo()
        raise KeyboardInterrupt

    second = pack((2, Status.OK, "mine"))
    line.peer.sendall(pack((1, Status.OK, "granted")) + second[:5])
    monkeypatch.setattr("holdfast.objectstore.shared.frames.msgpack.unpackb", interrupt)
    with pytest.raises(KeyboardInterrupt):
        line.ask(undo=undone.append)
    line.peer.sendall(second[5:])
    assert line.ask() == ["mine"]
    assert undone == [["granted"]]


def test_seals_outlive_what_fails_or_is_interrupted_before_they_are_sent(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = SealItem(ObjectID(bytes(16)), 0, 1, None, None, None, 0, b"", False)

    def interrupt(message: Any) -> bytes:
        monkeypatch.undo()
        raise KeyboardInterrupt

    for _ in range(SEALS_PER_FRAME + 1):
        line.connection.queue_seal(item)
    with pytest.raises(TypeError):
        line.connection.call(Op.GET, object(), timeout=1)
    monkeypatch.setattr("holdfast.objectstore.client.connection.pack", interrupt)
    with pytest.raises(KeyboardInterrupt):
        line.connection.flush()
    line.connection.flush()
    assert [len(items) for _, items in line.requests()] == [SEALS_PER_FRAME, 1]
