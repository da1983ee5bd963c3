"""What comes over the socket is believed only after it was checked."""

from __future__ import annotations

import logging
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.objectstore import Store, StoreError, StoreProtocolError, StoreServer, connect
from holdfast.objectstore.server.client_connection import UNREAD_NBYTES_MAX, ClientConnection
from holdfast.objectstore.shared.frames import MessageReader, pack
from holdfast.objectstore.shared.protocol import Op, Status, parse_request

MIB = 1 << 20


class Raw:
    """A client that says whatever it is told to say."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(path)
        data, fds, _, _ = socket.recv_fds(self.sock, 256, 2)
        (self.hello,) = MessageReader(1000).feed(data)
        for fd in fds:
            os.close(fd)

    def send(self, *message: Any) -> None:
        self.sock.sendall(pack(message))

    def ask(self, *message: Any) -> Any:
        self.send(*message)
        return next(MessageReader(1 << 20).feed(self.sock.recv(1 << 16)))

    def is_closed(self) -> bool:
        try:
            return self.sock.recv(1 << 16) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def raw(server: StoreServer) -> Iterator[Raw]:
    raw = Raw(server.socket_path)
    yield raw
    raw.close()


ID = bytes(16)

BAD_FRAMES = {
    "too long": struct.pack(">I", 1 << 31),
    "not msgpack": struct.pack(">I", 1) + b"\xc1",
    "not an array": pack("text"),  # type: ignore[arg-type]
    "empty": pack([]),
    "deep": struct.pack(">I", 2000) + b"\x91" * 2000,
    "unknown op": pack([99, 1]),
    "op as text": pack(["GET", 1]),
    "too few fields": pack([Op.GET, 1]),
    "negative": pack([Op.CREATE, 1, -5, 1.0, None]),
    "nothing": pack([Op.CREATE, 1, 0, 1.0, None]),
    "huge": pack([Op.CREATE, 1, 1 << 63, 1.0, None]),
    "float size": pack([Op.CREATE, 1, 5.5, 1.0, None]),
    "not a number": pack([Op.CREATE, 1, 100, float("nan"), None]),
    "short id": pack([Op.GET, 1, b"abc", None, []]),
    "text id": pack([Op.GET, 1, "x" * 16, None, []]),
    "sources that aren't": pack([Op.GET, 1, ID, None, [5]]),
    "too many ids": pack([Op.DELETE, 1, [ID] * 10_001]),
    "a seal of nobody's bytes": pack([Op.SEAL, [[ID, 0, 100, None, None, None, False]]]),
    "a seal far away": pack([Op.SEAL, [[ID, 1 << 60, 100, None, None, None, False]]]),
    "a seal with too few fields": pack([Op.SEAL, [[ID, 0, 100]]]),
    "a long key": pack([Op.SEAL, [[ID, 0, 100, "x" * 5000, None, None, False]]]),
    "an unpin of nothing": pack([Op.UNPIN, [ID]]),
    "an abort of nothing": pack([Op.ABORT, [0]]),
    "a lease of nobody's": pack([Op.LEASE, 1, 10, 100, 1.0, [4096]]),
    "a lease too small": pack([Op.LEASE, 1, 100, 10, 1.0, []]),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_bad_frame_closes_that_connection_only(
    server: StoreServer, store: Store, raw: Raw, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    object_id = store.put(np.arange(1000))
    with caplog.at_level(logging.WARNING, "holdfast.objectstore"):
        raw.send(Op.ATTACH, "mallory")
        raw.sock.sendall(BAD_FRAMES[name])
        assert raw.is_closed()
    assert "client 'mallory': it broke the protocol" in caplog.text
    assert store.get(object_id)[-1] == 999
    assert server.stats()["clients"] == 1


def test_one_client_cannot_touch_what_is_anothers(server: StoreServer, store: Store) -> None:
    array, pending = store.create((100,))
    view = store.get(store.put(np.arange(1000)))
    (mine,) = [item for item in store.list() if item["state"] == "sealed"]
    for frame in (
        [Op.SEAL, [[ID, 0, 864, None, None, None, False]]],
        [Op.ABORT, [0]],
        [Op.UNPIN, [bytes.fromhex(mine["id"])]],
    ):
        raw = Raw(server.socket_path)
        raw.send(*frame)
        assert raw.is_closed()
        raw.close()
    array[:] = 1
    assert store.get(pending.seal()).sum() == 100
    assert view.sum() == 499_500


def test_frames_may_come_in_pieces_and_together(raw: Raw) -> None:
    frames = pack([Op.CONTAINS, 1, ID]) + pack([Op.CONTAINS, 2, ID])
    for at in range(len(frames) - 1):
        raw.sock.sendall(frames[at : at + 1])
    raw.sock.sendall(frames[-1:])
    reader, answers = MessageReader(1000), []
    while len(answers) < 2:
        answers += reader.feed(raw.sock.recv(1000))
    assert answers == [[1, 0, False], [2, 0, False]]


def test_a_client_that_never_reads_is_closed(server: StoreServer, store: Store, wait_until: Callable[..., Any]) -> None:
    with store.batch():
        for i in range(3000):
            store.put(i)
    raw = Raw(server.socket_path)
    raw.sock.setblocking(False)
    frame = b"".join(pack([Op.LIST, i, 0]) for i in range(20))

    def closed() -> bool:
        try:
            raw.sock.send(frame)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    wait_until(closed)
    assert store.get(store.put(1)) == 1
    raw.close()


def test_a_client_that_asks_for_very_much_in_one_piece_is_closed_before_all_of_it_is_made() -> None:
    class Unread:
        """A transport whose other end reads nothing."""

        nbytes = 0

        def write(self, data: bytes) -> None:
            self.nbytes += len(data)

        def get_write_buffer_size(self) -> int:
            return self.nbytes

        def abort(self) -> None: ...

    asked: list[int] = []
    ended: list[bool] = []

    def answer(connection: ClientConnection, request: int) -> None:
        asked.append(request)
        connection.send(request, Status.OK, bytes(1 * MIB))

    connection = ClientConnection(
        1,
        "greedy",
        1,
        handlers={Op.STATS: answer},
        settle=lambda: None,
        unsent={},
        forget=lambda _, hung_up: ended.append(hung_up),
    )
    connection.connection_made(Unread())  # type: ignore[arg-type]
    connection.data_received(b"".join(pack([Op.STATS, request]) for request in range(1000)))
    assert ended == [True]
    assert len(asked) * MIB < 2 * UNREAD_NBYTES_MAX


def test_the_socket_is_private(server: StoreServer) -> None:
    path = Path(server.socket_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_another_user_is_refused(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(StoreError, match="serves another user"):
        connect(server.socket_path)
    assert f"it serves user {other}" in caplog.text


def test_the_arena_of_a_reader_cannot_be_written_or_shrunk(server: StoreServer) -> None:
    import mmap

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(server.socket_path)
    _, (read_only, writable), _, _ = socket.recv_fds(sock, 256, 2)
    with pytest.raises(PermissionError):
        mmap.mmap(read_only, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(PermissionError):
        os.ftruncate(writable, 4096)
    os.close(read_only)
    os.close(writable)
    sock.close()


def test_what_is_no_store_is_told(socket_path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(socket_path)
        listener.listen()
        with pytest.raises(StoreError, match=r"within 0\.1 s"):
            connect(socket_path, timeout=0.1)
    with pytest.raises(StoreError, match="no store serves"):
        connect(socket_path)
    Path(socket_path).unlink()
    Path(socket_path).write_text("")
    with pytest.raises(StoreError, match="is not a socket"), StoreServer("1 MB", socket_path):
        pass


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text()
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=8),
    max_leaves=12,
)


@pytest.mark.long
@given(st.one_of(JUNK, st.lists(JUNK, max_size=8).map(lambda rest: [1 + len(rest) % 12, *rest])))
@settings(max_examples=500)
def test_any_junk_is_parsed_or_refused(message: Any) -> None:
    try:
        op, fields = parse_request(msgpack.unpackb(msgpack.packb(message)))
    except StoreProtocolError:
        return
    assert isinstance(op, Op)
    assert isinstance(fields, list)


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 7))
@settings(max_examples=200)
def test_frames_are_the_same_however_they_are_cut(bodies: list[bytes], step: int) -> None:
    stream = b"".join(pack([body]) for body in bodies)
    reader, found = MessageReader(1000), []
    for at in range(0, len(stream), step):
        found += reader.feed(stream[at : at + step])
    assert found == [[body] for body in bodies]
