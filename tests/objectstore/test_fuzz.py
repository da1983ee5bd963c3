"""Anything at all on the socket: what comes of it for the sender, and that nothing comes of it for anybody else.

``HOLDFAST_FUZZ=20`` sends twenty times as much, for campaigns.
"""

from __future__ import annotations

import array
import contextlib
import logging
import os
import random
import resource
import select
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.objectstore import Store, StoreProtocolError, StoreServer, connect
from holdfast.objectstore.shared.frames import MessageReader, pack
from holdfast.objectstore.shared.protocol import Op, parse_request

TIMES = float(os.environ.get("HOLDFAST_FUZZ", "1"))
LIVE_MESSAGES = int(4000 * TIMES)
CONNECTIONS = 8
PER_CONNECTION = 60
MIB = 1 << 20
ANSWER_SECONDS = 0.002  # as long as an answer is looked out for; some never come

ids = st.binary(min_size=16, max_size=16)
numbers = st.integers(0, 1 << 62)
texts = st.none() | st.text(max_size=20)
seals = st.tuples(ids, numbers, numbers, texts, texts, texts, numbers, st.binary(max_size=20), st.booleans()).map(list)
VALID = st.one_of(
    st.tuples(st.just(Op.ATTACH), st.text(max_size=50)),
    st.tuples(st.just(Op.SEAL), st.lists(seals, max_size=4)),
    st.tuples(
        st.just(Op.SHARE),
        numbers,
        seals,
        numbers,
        st.lists(st.tuples(numbers, ids, numbers, numbers).map(list), max_size=4),
    ),
    st.tuples(st.just(Op.LEASE), numbers, numbers, numbers, st.floats(0, 1e9), st.lists(numbers, max_size=4)),
    st.tuples(st.just(Op.CREATE), numbers, numbers, st.floats(0, 1e9), st.none() | ids),
    st.tuples(st.just(Op.ABORT), st.lists(numbers, max_size=4)),
    st.tuples(st.just(Op.GET), numbers, ids, st.none() | st.floats(0, 1e9), st.lists(st.text(), max_size=3)),
    st.tuples(st.just(Op.UNPIN), st.lists(ids, max_size=4)),
    st.tuples(st.just(Op.LAST_UNPIN), st.lists(numbers, max_size=4)),
    st.tuples(st.just(Op.CONTAINS), numbers, ids),
    st.tuples(st.just(Op.DELETE), numbers, st.lists(ids, max_size=4)),
    st.tuples(st.just(Op.STATS), numbers),
    st.tuples(st.just(Op.LIST), numbers, numbers),
).map(list)


@given(VALID)
@settings(max_examples=int(300 * TIMES))
def test_every_valid_request_is_understood_as_it_was_meant(message: list[Any]) -> None:
    (received,) = MessageReader(1 << 20).feed(pack(message))
    op, fields = parse_request(received)
    assert op is message[0]
    assert [list(field) if isinstance(field, tuple) else field for field in fields][:1] == message[1:2] or op is Op.SEAL


@pytest.mark.long
@given(st.lists(VALID, min_size=1, max_size=3), st.data())
@settings(max_examples=int(500 * TIMES))
def test_frames_with_any_bytes_changed_are_parsed_or_refused(messages: list[list[Any]], data: st.DataObject) -> None:
    stream = bytearray(b"".join(map(pack, messages)))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(stream) - 1))
        stream[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        stream = stream or bytearray(1)
    parse_all(bytes(stream), data.draw(st.integers(1, 200)))


@pytest.mark.long
@given(st.binary(max_size=400), st.integers(1, 200))
@example(b"\x00\x00\x00\x05\xdd\xff\xff\xff\xff", 3)  # an array that claims four billion items
@example(b"\x00\x00\x00\x05\xc6\xff\xff\xff\xff", 9)
@settings(max_examples=int(500 * TIMES))
def test_arbitrary_bytes_are_parsed_or_refused(stream: bytes, step: int) -> None:
    parse_all(stream, step)


def parse_all(stream: bytes, step: int) -> None:
    reader = MessageReader(4096)
    with contextlib.suppress(StoreProtocolError):
        for at in range(0, len(stream), step):
            for message in reader.feed(stream[at : at + step]):
                op, fields = parse_request(message)
                assert isinstance(op, Op)
                assert isinstance(fields, list)
    assert sum(map(len, reader.received)) <= len(stream)


class Mallory:
    """Says things to a server that a client wouldn't, and some that it would."""

    def __init__(self, path: str, rng: random.Random, known: list[bytes]) -> None:
        self.rng = rng
        self.known = known
        self.sent = 0
        self.extents: list[tuple[int, int]] = []  # that it was given
        self._frames = MessageReader(1 << 30)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(path)
        _, fds, _, _ = socket.recv_fds(self.sock, 256, 6)
        *others, self.lifeline_fd, sentinel_fd = fds  # it keeps its lifeline until the process ends
        for fd in (*others, sentinel_fd):
            os.close(fd)
        self.sock.setblocking(False)

    def number(self) -> int:
        rng = self.rng
        return rng.choice([0, 1, 63, 64, 4096, 100_000, MIB, 1 << 32, 1 << 62, rng.randrange(64 * MIB)])

    def identity(self) -> bytes:
        return self.rng.choice(self.known) if self.rng.random() < 0.6 else self.rng.randbytes(16)

    def request(self) -> list[Any]:
        """A valid one, mostly about what isn't its own."""
        rng, number = self.rng, self.number
        op = rng.choice(list(Op))
        takes = op in (Op.SEAL, Op.SHARE, Op.ABORT) and self.extents and rng.random() < 0.8
        own = self.extents.pop() if takes else None
        if op is Op.ATTACH:
            return [op, rng.choice(["mallory", "", "x" * 4096, "\n\0'"])]
        if op is Op.SEAL:
            place = own or (number(), number())
            item = [rng.randbytes(16), *place, None, rng.choice([None, "o"]), None, rng.random() < 0.5]
            return [op, [item] if own else [item] * rng.choice([0, 0, 0, 1, 2])]
        if op is Op.SHARE and (own or rng.random() < 0.2):
            # A header of its own, something that is somebody's, and then the rest of what it was given.
            nbytes = rng.choice([1, 64, 4096, 70_000])
            offset, room = own or (number(), 64)
            shares = [[64, rng.choice(self.known), rng.choice([0, 0, 64, number()]), nbytes]]
            if rng.random() < 0.1:
                shares = [[number(), self.identity(), number(), number()] for _ in range(rng.choice([0, 1, 3, 1024]))]
            item = [rng.randbytes(16), offset, room, None, None, None, rng.random() < 0.1]
            return [op, 1, item, -(-nbytes // 64) * 64 + room if room > 64 else 64 + nbytes, shares]
        if op is Op.LEASE:
            least = rng.choice([1, 1000, 4096])
            want = rng.choice([least, 65536, number()])
            return [op, 1, least, want, rng.choice([0, 0.01, 5]), [0] * (rng.random() < 0.05)]
        if op is Op.CREATE:
            for_id = rng.choice([None, self.identity()])
            return [op, 1, rng.choice([1, 1000, 100_000, MIB, 1 << 32]), rng.choice([0, 0.01, 5]), for_id]
        if op is Op.GET:
            return [op, 1, self.identity(), rng.choice([None, 0, 0.01, 5]), rng.choice([[], ["somewhere"]])]
        if op is Op.DELETE:
            return [op, 1, [rng.randbytes(16)]]
        if op is Op.CONTAINS:
            return [op, 1, self.identity()]
        if op is Op.ABORT:
            return [op, [own[0]] if own else [number()] * rng.choice([0, 0, 0, 1])]
        if op is Op.UNPIN:
            return [op, [self.identity()] * rng.choice([0, 0, 0, 1])]
        if op is Op.LAST_UNPIN:
            return [op, [number() for _ in range(rng.choice([0, 1, 5]))]]
        if op is Op.LIST:
            return [op, 1, number()]
        return [rng.choice([Op.STATS, Op.HEADROOM]), 1]

    def mutated(self) -> bytes:
        frame = bytearray(pack(self.request()))
        for _ in range(self.rng.choice([1, 1, 2, 5])):
            frame[self.rng.randrange(4, len(frame))] = self.rng.randrange(256)
        return bytes(frame)

    def wrong_field(self) -> bytes:
        message = self.request()
        wrong = [None, -1, 1 << 63, 1.5, float("nan"), "x" * 5000, b"", [[]] * 5, {}, [[[1]]], True]
        message[self.rng.randrange(len(message))] = self.rng.choice(wrong)
        return pack(message)

    def garbage(self) -> bytes:
        body = self.rng.randbytes(self.rng.choice([1, 4, 100, 3000]))
        return body if self.rng.random() < 0.3 else struct.pack(">I", len(body)) + body

    def huge_length(self) -> bytes:
        return struct.pack(">I", self.rng.choice([0, 16 << 20, (16 << 20) + 1, (1 << 32) - 1])) + b"\xc0" * 10

    def say_something(self) -> bool:
        """One message. Whether the server still listens."""
        rng = self.rng
        kinds = [self.mutated, self.wrong_field, self.garbage, self.huge_length]
        data = pack(self.request()) if rng.random() < 0.95 else rng.choice(kinds)()
        self.sent += 1
        try:
            if rng.random() < 0.02:  # descriptors that nobody asked for
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, self.sock.fileno()]))]
                self.sock.sendmsg([data], rights)
            else:
                cut = rng.randrange(len(data)) if rng.random() < 0.02 else len(data)
                self.sock.sendall(data[:cut])
            if rng.random() < 0.02:
                self.sock.shutdown(rng.choice([socket.SHUT_WR, socket.SHUT_RD]))
            if rng.random() < 0.5:
                select.select([self.sock], [], [], ANSWER_SECONDS)
                data = self.sock.recv(1 << 16)
                for answer in self._frames.feed(data):
                    if answer[1] == 0 and len(answer) == 4 and type(answer[2]) is int:
                        self.extents.append((answer[2], answer[3]))
                return bool(data)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


def send_in_fork(path: str, seed: int, known: list[bytes]) -> tuple[int, int]:
    """A process that says things over many connections, and ends: its id, and where it tells how many they were."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    sent = -1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        rng = random.Random(seed)
        crowd = [Mallory(path, rng, known) for _ in range(CONNECTIONS)]
        speaking = crowd
        for _ in range(PER_CONNECTION):
            speaking = [mallory for mallory in speaking if mallory.say_something()]
        sent = sum(mallory.sent for mallory in crowd)
    finally:
        os.write(write, b"%d" % sent)
        os._exit(0)


def test_a_live_server_bears_anything_and_an_honest_client_notices_nothing(
    server: StoreServer,
    store: Store,
    wait_until: Callable[..., Any],
    check: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    view = store.get(store.put(np.arange(10_000)))
    known = [bytes.fromhex(item["id"]) for item in store.list()]
    sent = connections = puts = hung_up = kept = resident = 0
    with caplog.at_level(logging.WARNING, "holdfast.objectstore"):
        while sent < LIVE_MESSAGES:
            pid, counts = send_in_fork(server.socket_path, rng.randrange(1 << 32), known)
            connections += CONNECTIONS
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                object_id = store.put(np.full(rng.choice([10, 1000, 20_000]), puts))
                got = store.get(object_id)
                assert (got == puts).all()
                store.delete(object_id)
                assert (got == puts).all()
                del got
                puts += 1
                check()
            count = int(os.read(counts, 20))
            os.close(counts)
            assert count > 0, "the sender failed"
            sent += count
            wait_until(lambda: server.stats()["clients"] == 1 and not server.stats()["quarantined"])
            check()
            stats = server.stats()
            assert stats["reserved"] == stats["waiting_gets"] == stats["waiting_creates"] == 0
            for record in caplog.records:
                text = record.getMessage()
                hung_up += text.startswith("Closing the store's connection to client '")
                kept += text.startswith("What client '")
                assert text.startswith(("Closing the store's connection to client '", "What client '")), text
            caplog.clear()
            store.delete([meta.object_id for meta in server.inventory() if meta.object_id not in (None, *known)])
            if sent > LIVE_MESSAGES // 2 and not resident:
                resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{sent} messages over {connections} connections, {hung_up} of them hung up on, {kept} of them quarantined")
    print(f"{puts} objects put, read and deleted meanwhile")
    assert connections / 3 < hung_up <= connections, "one reason for each that was closed"
    assert 0 < kept < hung_up
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
    assert grown < 64 << 10, f"{grown} KiB more in the second half"
    assert (view == np.arange(10_000)).all()
    del view
    wait_until(lambda: server.stats()["pins"] == 0)


def test_what_is_hung_up_on_is_said_once(server: StoreServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "holdfast.objectstore"), connect(server.socket_path, name="mallory") as store:
        store._connection._socket.sendall(pack([99]) * 100)
        with contextlib.suppress(OSError):
            while store._connection._socket.recv(1 << 16):
                pass
    assert [record.getMessage() for record in caplog.records] == [
        "Closing the store's connection to client 'mallory': it broke the protocol: no request 99 with 0 fields"
    ]
