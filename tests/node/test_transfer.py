"""Objects on their way between hosts: two agents with stores of their own, and peers that behave badly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from same import assert_same
from scripted_scheduler import TOKEN
from waiting import until

from holdfast.cluster.comm import entrance, frames
from holdfast.cluster.comm.addresses import parse_address
from holdfast.cluster.comm.blocking import connect_blocking, open_accepted, receive_exactly
from holdfast.cluster.comm.strangers import GREETING, expect_greeting
from holdfast.cluster.errors import AuthenticationError, ConnectError
from holdfast.cluster.protocol import cutting, transfer
from holdfast.cluster.protocol.payloads import Reference
from holdfast.cluster.transfer import fetcher, pool
from holdfast.cluster.transfer import server as server_module
from holdfast.cluster.transfer.pool import PeerPool, fetch_bytes, push_bytes
from holdfast.objectstore import ObjectID, StoreFullError, connect, decode, encode
from holdfast.objectstore.errors import StoreError

NOWHERE = ObjectID(b"never sealed, id")


@pytest.fixture
def hosts(start_host):
    """Two hosts without workers."""
    return start_host(), start_host()


def put(host, value, **options):
    with connect(host.node.info["store_socket"], name="test") as store:
        return store.put(value, **options)


@contextlib.contextmanager
def hoarding(host):
    """10 MiB of the host's store stay in memory, because they are looked at."""
    with connect(host.node.info["store_socket"], name="viewer") as store:
        view = store.get(store.put(np.zeros(10 << 20, "u1"), owner="hoarder"))
        yield
        del view


def get(host, object_id, *sources):
    with connect(host.node.info["store_socket"], name="test") as store:
        return np.array(store.get(object_id, timeout=20, sources=[source.address for source in sources]))


def copied(scheduler, host):
    return [object_id for message in host.node.received if message[0] == "copied" for object_id in message[1]]


# -- from store to store


def test_a_consumer_on_another_host_has_its_input_brought_over_once(scheduler, start_host):
    here, there = start_host(n_workers=1), start_host(n_workers=2, threads_per_worker=2)
    maker = here.worker()
    _, made = scheduler.one(maker, scheduler.task(maker, np.arange, 3_000_000, key="x"))
    object_id = made[2]

    def read(x):
        return int(x.sum()), x.flags.writeable

    tasks = {}
    for index in range(2):
        reader = there.worker(index)
        depends = [("x", object_id, None, [here.address])]
        tasks[index] = [scheduler.task(reader, read, Reference("x"), depends=depends) for _ in range(4)]
        scheduler.send(reader, ("run", tasks[index]))
    for index, some in tasks.items():
        outcomes = scheduler.outcomes(there.worker(index), [task[1] for task in some])
        assert {decode(bytes(entry[4])) for _, entry in outcomes.values()} == {(4499998500000, False)}
    scheduler.wait(lambda: copied(scheduler, there), "the scheduler hears of the copy")
    assert copied(scheduler, there) == [object_id]
    (meta,) = [m for m in there.in_loop(lambda: list(there.agent.store.inventory())) if m.object_id == object_id]
    assert (meta.key, meta.owner, meta.type_name, meta.label) == ("x", "host-0", "numpy.ndarray", made[0])


@pytest.mark.parametrize("nbytes", [1, 100, 1 << 20, 40_000_001])
def test_every_byte_arrives(hosts, nbytes):
    here, there = hosts
    data = np.random.default_rng(nbytes).integers(0, 256, nbytes, dtype="u1")
    object_id = put(here, data)
    assert np.array_equal(get(there, object_id, here), data)


def test_an_object_that_shares_its_data_arrives_whole(hosts):
    here, there = hosts
    numbers = np.arange(1_000_000.0)
    with connect(here.node.info["store_socket"], name="test") as store:
        view = store.get(store.put(numbers))
        value = [view[1:-5], "text", view[::2], view[77:500_001], view[:0]]
        object_id = store.put(value)
        encoded = store.encode(value).to_bytes()
    assert here.store_stats()["shared_nbytes"] > 11_000_000
    assert fetch_bytes(here.address, object_id, token=TOKEN) == encoded
    with connect(there.node.info["store_socket"], name="test") as store:
        got = store.get(object_id, timeout=20, sources=[here.address])
        assert_same(got, [numbers[1:-5], "text", numbers[::2], numbers[77:500_001], numbers[:0]])
    assert there.store_stats()["shared_nbytes"] == 0


def test_many_objects_and_few_connections(hosts):
    here, there = hosts
    ids = [put(here, np.full(1000, n)) for n in range(100)]
    with connect(there.node.info["store_socket"]) as store:
        for n, object_id in enumerate(ids):
            assert store.get(object_id, timeout=20, sources=[here.address])[0] == n
    assert len(here.agent._transfer_server._connections) == 1


def test_sources_are_tried_in_turn(hosts, scheduler):
    here, there = hosts
    object_id = put(here, np.arange(10))
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with connect(there.node.info["store_socket"]) as store:
        sources = [dead, there.address, here.address]
        assert store.get(object_id, timeout=20, sources=sources).sum() == 45


def test_what_nobody_has_names_what_was_tried(hosts):
    here, there = hosts
    with pytest.raises(StoreError, match=f"{here.address} does not have it"):
        get(there, NOWHERE, here)
    # The connection is still good.
    assert get(there, put(here, np.ones(3)), here).sum() == 3


def test_a_host_brings_what_it_is_told_to_and_says_what_came_of_it(hosts, scheduler):
    here, there = hosts
    ids = [put(here, np.full(1_000_000, number)) for number in range(20)]
    objects = [(object_id, [here.address]) for object_id in (*ids, NOWHERE)]
    for _ in range(2):  # the second time it has them
        scheduler.send(there.node, ("copy", objects))
        scheduler.wait(lambda: set(copied(scheduler, there)) == set(ids), "the scheduler hears of the copies")
        _, failures = scheduler.message(there.node, "not-copied")
        ((object_id, reason),) = failures
        assert object_id == NOWHERE
        assert f"{here.address} does not have it" in reason
        there.node.received.clear()
    assert get(there, ids[7])[0] == 7


def test_an_object_that_is_sealed_late_on_this_host_is_waited_for(hosts):
    here, _ = hosts
    with connect(here.node.info["store_socket"]) as store:
        object_id = store.new_id()
        found = []
        asked = threading.Thread(target=lambda: found.append(store.get(object_id, timeout=5, sources=[here.address])))
        asked.start()
        put(here, "late", object_id=object_id)
        asked.join()
    assert found == ["late"]


def test_an_object_that_is_larger_than_the_store_says_so(scheduler, start_host, eventually):
    here, there = start_host(), start_host(store_capacity=4 << 20)
    object_id = put(here, bytes(20 << 20))
    with pytest.raises(StoreError, match="more than this host's whole store"):
        get(there, object_id, here)
    eventually(lambda: here.store_stats()["pins"] == 0, what="the holder lets go when the asker hangs up")


def test_an_object_for_which_there_is_no_room_says_so(start_host, monkeypatch):
    monkeypatch.setattr(fetcher, "ROOM_SECONDS", 0.1)
    here, there = start_host(), start_host(store_capacity=16 << 20)
    object_id = put(here, bytes(10 << 20))
    with hoarding(there), pytest.raises(StoreError, match="hoarder"):
        get(there, object_id, here)
    assert there.store_stats()["reserved"] == 0


def test_a_host_that_dies_while_it_sends_is_not_the_end(hosts, scheduler):
    here, there = hosts
    object_id = put(here, np.arange(100_000))
    with Impostor(nbytes=50_000_000) as impostor, connect(there.node.info["store_socket"]) as store:
        threading.Timer(0.2, impostor.hang_up).start()
        value = store.get(object_id, timeout=20, sources=[impostor.address, here.address])
        assert value.sum() == np.arange(100_000).sum()
        del value
    assert there.store_stats()["reserved"] == 0


class Silent:
    """A host that says nothing to anybody."""

    def __init__(self):
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.address = f"tcp://127.0.0.1:{self.sock.getsockname()[1]}"

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.sock.close()

    def count_connections(self):
        """How many have come since the last time."""
        self.sock.setblocking(False)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self.sock.accept()[0].close()
                count += 1
        return count


@contextlib.contextmanager
def asking(host, count, source):
    """So many threads ask for an object each; all of them have their answer afterwards."""

    def ask(number):
        with contextlib.suppress(StoreError):
            get(host, ObjectID(bytes([number]) * 16), source)

    with ThreadPoolExecutor(count) as threads:
        asked = [threads.submit(ask, number) for number in range(count)]
        yield asked
        for each in asked:
            each.result()


def fetching(host):
    return len(host.agent._fetcher._running)


def test_a_host_that_does_not_answer_holds_up_nothing_that_others_give(hosts, monkeypatch, eventually):
    here, there = hosts
    monkeypatch.setattr(fetcher, "STALL_SECONDS", 15.0)
    object_id = put(here, np.arange(100))
    with Silent() as silent, asking(there, 30, silent) as asked:
        eventually(lambda: fetching(there) == 30)
        assert get(there, object_id, here).sum() == np.arange(100).sum()
        assert not any(each.done() for each in asked)
        silent.sock.close()


def test_all_that_wait_for_a_host_that_does_not_answer_wait_once(hosts, monkeypatch):
    _, there = hosts
    monkeypatch.setattr(fetcher, "STALL_SECONDS", 1.0)
    with Silent() as silent:
        with asking(there, 60, silent):
            pass
        assert silent.count_connections() < 60 / 2


class Impostor:
    """A host that announces an object, sends some of it, and no more."""

    def __init__(self, nbytes):
        self.nbytes = nbytes
        self.asked = threading.Event()
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.sock.getsockname()[1]}"
        self.connection = None
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def serve(self):
        try:
            self.connection, _ = self.sock.accept()
            self.connection.setblocking(False)
            asyncio.run(self.open())
            self.connection.setblocking(True)
            receive_exactly(self.connection, 17)
            self.connection.sendall(transfer.announcement(self.nbytes, transfer.Description("x")) + bytes(1000))
            self.asked.set()
        except OSError:
            pass

    async def open(self):
        await expect_greeting(self.connection)
        await open_accepted(self.connection, token=TOKEN, welcome=lambda role, info: {})

    def hang_up(self):
        self.connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc_info):
        self.sock.close()
        self.thread.join()
        if self.connection is not None:
            self.connection.close()


@pytest.mark.parametrize("nbytes", [50_000_000, 1 << 60])
def test_closing_breaks_off_what_is_on_its_way(start_host, nbytes):
    host = start_host()
    with Impostor(nbytes) as impostor, connect(host.node.info["store_socket"]) as store:
        errors = []

        def ask():
            try:
                store.get(NOWHERE, timeout=20, sources=[impostor.address])
            except StoreError as error:
                errors.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        assert impostor.asked.wait(10)
        host.close()
        asking.join(10)
        assert errors


# -- for processes that are no store


def test_a_process_on_no_stores_host_reads_and_writes_over_the_network(hosts):
    here, _ = hosts
    value = {"a": np.arange(1_000_000)}
    object_id = ObjectID(os.urandom(16))
    encoded = encode(value).to_bytes()
    push_bytes(here.address, object_id, encoded, ("the-key", "client-1", "dict"), token=TOKEN)
    meta = here.in_loop(here.agent.store.meta, object_id)
    assert (meta.key, meta.owner, meta.type_name, meta.nbytes) == ("the-key", "client-1", "dict", len(encoded))
    data = fetch_bytes(here.address, object_id, token=TOKEN)
    assert data == encoded
    assert np.array_equal(decode(memoryview(data))["a"], value["a"])
    assert fetch_bytes(here.address, NOWHERE, token=TOKEN) is None


def test_a_pool_reuses_connections_and_survives_their_end(hosts):
    here, _ = hosts
    object_id = put(here, "x")
    pool = PeerPool(TOKEN)
    try:
        for _ in range(5):
            assert decode(bytes(pool.fetch_bytes(here.address, object_id))) == "x"
        assert len(here.agent._transfer_server._connections) == 1
        for sock in list(here.agent._transfer_server._connections):
            sock.shutdown(socket.SHUT_RDWR)
        assert decode(bytes(pool.fetch_bytes(here.address, object_id))) == "x"
    finally:
        pool.close()


def test_what_does_not_fit_is_refused_in_the_stores_words(start_host, monkeypatch):
    monkeypatch.setattr(server_module, "ROOM_SECONDS", 0.1)
    host = start_host(store_capacity=16 << 20)
    pool = PeerPool(TOKEN)
    try:
        with hoarding(host), pytest.raises(StoreFullError, match="hoarder"):
            pool.push_bytes(host.address, NOWHERE, bytes(10 << 20))
        with pytest.raises(StoreFullError, match="whole store"):
            pool.push_bytes(host.address, NOWHERE, bytes(20 << 20))
        # The connection is still good.
        pool.push_bytes(host.address, NOWHERE, encode("small").to_bytes())
        assert decode(bytes(pool.fetch_bytes(host.address, NOWHERE))) == "small"
    finally:
        pool.close()


def test_spilled_objects_are_brought_over_and_damaged_ones_are_not_there(start_host, tmp_path):
    here, there = start_host(store_capacity=32 << 20, spill_directory=str(tmp_path)), start_host()
    ids = [put(here, np.full(4 << 20, number, "u1")) for number in range(12)]
    until(lambda: here.store_stats()["spilled"] >= 5, "objects are on disk")
    lost = tmp_path.joinpath(next(iter(tmp_path.glob("holdfast-spill-*"))), "1")
    lost_number = lost.read_bytes()[-1]
    os.truncate(lost, 1000)
    for number, object_id in enumerate(ids):
        if number == lost_number:
            with pytest.raises(StoreError, match=object_id.hex()):
                get(there, object_id, here)
            assert not here.in_loop(here.agent.store.contains, object_id)
        else:
            assert (get(there, object_id, here) == number).all()


def test_a_push_that_breaks_off_leaves_nothing(hosts, eventually):
    here, _ = hosts
    sock, _ = connect_blocking(here.address, token=TOKEN, role="peer", info={}, timeout=5)
    sock.sendall(transfer.put(NOWHERE, 1 << 20, transfer.Description()))
    assert pool.receive_verdict(sock) is None
    sock.sendall(bytes(1000))
    assert here.store_stats()["reserved"] == 1
    sock.close()
    eventually(lambda: here.store_stats()["reserved"] == 0)
    assert here.store_stats()["objects"] == 0


# -- peers that don't behave


def test_without_the_token_nobody_reads(hosts):
    here, _ = hosts
    object_id = put(here, "secret")
    with pytest.raises(AuthenticationError):
        fetch_bytes(here.address, object_id, token=b"not the token at all")


def test_other_roles_and_nonsense_are_refused(hosts, eventually):
    here, _ = hosts
    with pytest.raises(ConnectError, match="transfer port"):
        connect_blocking(here.address, token=TOKEN, role="client", info={}, timeout=5)
    sock, _ = connect_blocking(here.address, token=TOKEN, role="peer", info={}, timeout=5)
    sock.sendall(b"?")
    assert sock.recv(1) == b""
    sock.close()
    with socket.create_connection(("127.0.0.1", int(here.address.rpartition(":")[2]))) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        raw.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            while raw.recv(1000):
                pass
    eventually(lambda: not here.agent._transfer_server._connections)


def test_idle_connections_make_room_for_new_ones(hosts, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    here, _ = hosts
    object_id = put(here, "x")
    pools = [PeerPool(TOKEN) for _ in range(5)]
    try:
        for _ in range(3):
            for pool in pools:
                assert decode(bytes(pool.fetch_bytes(here.address, object_id, timeout=10))) == "x"
        assert len(here.agent._transfer_server._connections) <= 2
    finally:
        for pool in pools:
            pool.close()


def test_a_connection_that_falls_idle_while_others_wait_makes_room_for_them(hosts, monkeypatch, eventually):
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 1)
    here, _ = hosts
    server = here.agent._transfer_server
    object_id = put(here, "x")
    busy, _ = connect_blocking(here.address, token=TOKEN, role="peer", info={}, timeout=5)
    with busy, ThreadPoolExecutor(1) as executor:
        eventually(lambda: server._idle)  # its thread waits for what it says
        busy.sendall(transfer.GET)
        eventually(lambda: not server._idle)
        other = executor.submit(fetch_bytes, here.address, object_id, token=TOKEN, timeout=10)
        eventually(lambda: server._waiting)
        busy.sendall(object_id)
        assert decode(bytes(other.result())) == "x"


def test_a_reader_that_stops_reading_does_not_hold_up_the_end(start_host):
    host = start_host()
    object_id = put(host, bytes(50 << 20))
    sock, _ = connect_blocking(host.address, token=TOKEN, role="peer", info={}, timeout=5)
    sock.sendall(transfer.get(object_id))
    assert pool.receive_announcement(sock) is not None
    host.close()
    sock.close()


def test_a_transfer_that_waits_for_room_does_not_hold_up_the_end(start_host, eventually):
    host = start_host(store_capacity=16 << 20)
    with hoarding(host):
        sock, _ = connect_blocking(host.address, token=TOKEN, role="peer", info={}, timeout=5)
        sock.sendall(transfer.put(NOWHERE, 10 << 20, transfer.Description()))
        eventually(lambda: host.store_stats()["waiting_creates"] == 1)
        started = time.monotonic()
        host.close()
        assert time.monotonic() - started < server_module.ROOM_SECONDS / 2
        sock.close()


def test_an_opening_has_a_deadline_however_much_is_said(hosts, monkeypatch, eventually):
    monkeypatch.setattr(entrance, "OPENING_TIMEOUT_SECONDS", 0.3)
    here, _ = hosts
    unopened = here.agent._transfer_server._entrance
    with socket.create_connection(parse_address(here.address)) as sock:
        sock.sendall(GREETING + frames.MAX_OPENING_NBYTES.to_bytes(4, "little") + bytes(4))

        def drip():
            with contextlib.suppress(OSError):
                sock.sendall(b"\0")
            return not unopened.unopened

        eventually(lambda: unopened.unopened)
        eventually(drip)


def test_what_a_peer_has_put_is_reported_piece_by_piece_as_far_as_it_is_there_still(scheduler, start_host, monkeypatch):
    monkeypatch.setattr(server_module, "PUT_COUNT", 4)
    monkeypatch.setattr(cutting, "MAX_ITEMS", 2)
    host = start_host()
    pool = PeerPool(TOKEN, name="client-1")
    ids = [ObjectID(bytes([n]) * 16) for n in range(20)]
    left = ids[7:12]
    for object_id in ids:
        pool.push_bytes(host.address, object_id, encode("x").to_bytes())
        if object_id not in left:
            host.in_loop(host.agent.store.delete, [object_id])
    pool.close()
    reports = [scheduler.message(host.node, "left") for _ in range(3)]
    said = [tuple({"id": object_id} for object_id in left[start : start + 2]) for start in (0, 2, 4)]
    assert reports == [("left", objects, "client-1", None) for objects in said]
