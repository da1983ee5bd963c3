"""Objects on their way between hosts while room, link and holder change: what arrives is right, or it is an error.

The asker is an agent or a client without a store. The object lies in the holder's arena or in a file. Between them is
a link that stalls and breaks.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from agents import Host
from campaign import Campaign
from forking import in_fork
from scripted_scheduler import TOKEN, ScriptedScheduler
from slow_link import SlowLink
from waiting import until

from holdfast.cluster.comm.blocking import connect_blocking
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.protocol import transfer
from holdfast.cluster.transfer import pool as peer_pool
from holdfast.cluster.transfer import server
from holdfast.cluster.transfer.pool import PeerPool, fetch_bytes, push_bytes
from holdfast.objectstore import ObjectID, connect, decode, encode
from holdfast.objectstore.errors import ObjectNotFoundError, StoreError, StoreFullError

WORDS = 200_000  # as many as fit into what the kernel queues
CAPACITY = 12 << 20
ERRORS = (ConnectError, StoreError)


@pytest.fixture
def start_host():
    with contextlib.ExitStack() as stack:
        scheduler = stack.enter_context(ScriptedScheduler())
        yield lambda **options: Host(scheduler, stack, **options)


@pytest.fixture
def holder(start_host, tmp_path):
    return start_host(store_capacity=CAPACITY, spill_directory=str(tmp_path / "spill"))


def ask(how, there, object_id, *addresses):
    """Read an object in a thread; the future's result is the array."""

    def by_agent():
        with connect(there.node.info["store_socket"], name="asker") as store:
            return np.array(store.get(object_id, timeout=20, sources=list(addresses)))

    def by_client():
        data = fetch_bytes(addresses[0], object_id, token=TOKEN, timeout=20)
        if data is None:
            raise ObjectNotFoundError("it is not there")
        return np.array(decode(data))

    found = Future()

    def run():
        try:
            found.set_result({"agent": by_agent, "client": by_client}[how]())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return found


class Filler:
    """Fills what room a host's store has with other words, and keeps it full."""

    def __init__(self, host):
        self.store = connect(host.node.info["store_socket"], name="filler")
        self.views = []

    def fill(self):
        """How many objects found room."""
        count = 0
        with contextlib.suppress(StoreFullError):
            while True:
                object_id = self.store.put(np.full(WORDS, 666), timeout=0.5)
                self.views.append(self.store.get(object_id))
                count += 1
        return count

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.views.clear()
        self.store.close()


def put(host, value):
    with connect(host.node.info["store_socket"], name="maker") as store:
        return store.put(value)


def spilled(host):
    objects = host.in_loop(host.agent.store.list_objects)
    return {each["id"] for each in objects if each["state"] == "spilled"}


def put_where(host, where, value):
    """Put an object that lies in the arena, or in a file by the time that this returns."""
    object_id = put(host, value)
    if where == "file":
        with connect(host.node.info["store_socket"], name="filler") as store:
            others = []
            while object_id.hex() not in spilled(host):
                assert len(others) < 100
                others.append(store.put(np.zeros(WORDS)))
            store.delete(others)
    return object_id


def delete(host, object_id):
    host.in_loop(host.agent.store.delete, [object_id])


matrix = pytest.mark.parametrize("where", ["arena", "file"])
readers = pytest.mark.parametrize("how", ["agent", "client"])


@matrix
@readers
def test_the_room_of_an_object_that_is_on_its_way_is_nobody_elses(how, where, holder, start_host):
    there = start_host()
    value = np.arange(WORDS)
    object_id = put_where(holder, where, value)
    with SlowLink(holder.address) as link, Filler(holder) as filler:
        link.hold_next_get = True
        found = ask(how, there, object_id, link.address)
        until(lambda: holder.store_stats()["pins"] == 1 and link.asked.is_set(), "the holder pins it")
        delete(holder, object_id)
        filler.fill()
        assert holder.store_stats()["pins"] == 1 + len(filler.views)
        link.resume()
        assert np.array_equal(found.result(20), value)
        until(lambda: holder.store_stats()["pins"] == len(filler.views), "the pin ends when the reader has confirmed")
        if where == "arena":
            assert filler.fill() >= 1, "the room is free now"


@matrix
@readers
def test_a_holder_gives_up_an_asker_that_stalls_and_nothing_wrong_is_taken_for_right(
    how, where, holder, start_host, monkeypatch
):
    monkeypatch.setattr(server, "STALL_SECONDS", 0.3)
    there = start_host()
    object_id = put_where(holder, where, np.arange(WORDS))
    with SlowLink(holder.address) as link, Filler(holder) as filler:
        link.hold_next_get = True
        found = ask(how, there, object_id, link.address)
        assert link.asked.wait(10)
        delete(holder, object_id)
        until(lambda: holder.store_stats()["pins"] == 0, "the holder gives up")
        filler.fill()
        link.resume()
        with pytest.raises(ERRORS):
            found.result(20)
    assert there.store_stats()["objects"] == there.store_stats()["reserved"] == 0


@readers
def test_an_asker_with_a_slow_link_is_waited_for_as_long_as_it_takes_something(how, holder, start_host, monkeypatch):
    monkeypatch.setattr(server, "STALL_SECONDS", 0.4)
    there = start_host()
    value = np.arange(WORDS)
    object_id = put(holder, value)
    with SlowLink(holder.address, rate=1_200_000) as link:
        assert np.array_equal(ask(how, there, object_id, link.address).result(20), value)


@matrix
@readers
@pytest.mark.parametrize("left", [100, 1_000_000, None])
def test_an_object_whose_holder_dies_before_its_last_word_is_not_used(
    how, where, left, holder, start_host, monkeypatch
):
    monkeypatch.setattr(peer_pool, "OPENING_SECONDS", 0.1)  # the link lets nothing more pass: it is given up sooner
    there = start_host()
    value = np.arange(WORDS)
    object_id = put_where(holder, where, value)
    nbytes = len(fetch_bytes(holder.address, object_id, token=TOKEN))
    meta = holder.in_loop(holder.agent.store.meta, object_id)
    announced = len(
        transfer.announcement(nbytes, transfer.Description(meta.key, meta.owner, meta.type_name, meta.label))
    )
    with SlowLink(holder.address) as link:
        link.hold_next_get = True
        found = ask(how, there, object_id, link.address)
        assert link.asked.wait(10)
        link.cut_after(announced + (nbytes if left is None else left))
        link.resume()
        with pytest.raises(ERRORS):
            found.result(20)
    until(lambda: holder.store_stats()["pins"] == 0, "the holder lets go")
    assert there.store_stats()["objects"] == there.store_stats()["reserved"] == 0
    assert np.array_equal(ask(how, there, object_id, holder.address).result(20), value)


@pytest.mark.parametrize("nbytes", [1000, transfer.COPIED_NBYTES, transfer.COPIED_NBYTES + 1, 3_000_000])
def test_an_asker_that_leaves_at_any_time_leaves_no_pin(nbytes, holder):
    object_id = ObjectID(b"of an exact size")
    push_bytes(holder.address, object_id, bytes(nbytes), token=TOKEN)
    for read in (0, 100, nbytes // 2, nbytes):
        sock, _ = connect_blocking(holder.address, token=TOKEN, role="peer", info={}, timeout=5)
        with sock:
            sock.sendall(transfer.get(object_id))
            left = read
            while left:
                left -= len(sock.recv(left))
    until(lambda: holder.store_stats()["pins"] == 0, "the pins end")
    until(lambda: not holder.agent._transfer_server._connections, "the connections end")


def test_a_forked_child_and_its_parent_each_receive_what_they_ask_for(holder):
    values = {put(holder, np.full(WORDS, number)): number for number in range(2)}
    mine, childs = values

    forked = multiprocessing.get_context("fork").Event()

    def read(object_id):
        assert forked.wait(10)
        for _ in range(30):
            array = decode(pool.fetch_bytes(holder.address, object_id, timeout=5))
            assert (array == values[object_id]).all()
        return "all right"

    def read_in_child():
        forked.set()
        return read(childs)

    with contextlib.closing(PeerPool(TOKEN)) as pool, ThreadPoolExecutor(1) as thread:
        pool.fetch_bytes(holder.address, mine)
        parents = thread.submit(read, mine)
        assert in_fork(read_in_child) == parents.result(30) == "all right"


# -- other bytes


class Flip:
    """Changes one byte in the middle of each large piece."""

    def __call__(self, data):
        if len(data) < 10_000:
            return data
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_a_byte_that_changes_on_its_way_is_found_and_another_source_is_asked(holder, start_host, caplog):
    there = start_host()
    value = np.arange(WORDS)
    object_id = put(holder, value)
    with SlowLink(holder.address, change=Flip()) as link:
        with pytest.raises(ConnectError, match=f"what came from {link.address} is damaged"):
            fetch_bytes(link.address, object_id, token=TOKEN)
        with pytest.raises(StoreError, match=f"what came from {link.address} is damaged"):
            ask("agent", there, object_id, link.address).result(20)
        assert there.store_stats()["objects"] == there.store_stats()["reserved"] == 0
        found = ask("agent", there, object_id, link.address, holder.address)
        assert np.array_equal(found.result(20), value)
    assert f"brought to {there.address}: what came from {link.address} is damaged" in caplog.text


def test_what_is_brought_is_not_taken_if_a_byte_has_changed(holder, caplog):
    data = encode(np.arange(WORDS)).to_bytes()
    object_id = ObjectID(b"brought, brought")
    pool = PeerPool(TOKEN, name="client-1")
    with SlowLink(holder.address, change_sent=Flip()) as link, contextlib.closing(pool):
        with pytest.raises(StoreError, match=f"what came to {holder.address} is damaged"):
            pool.push_bytes(link.address, object_id, data)
        assert holder.store_stats()["objects"] == holder.store_stats()["reserved"] == 0
        pool.push_bytes(link.address, object_id, data[:5000])  # the connection is still good
    assert f"brought by client-1: what came to {holder.address} is damaged" in caplog.text
    push_bytes(holder.address, object_id, data, token=TOKEN)


@pytest.mark.parametrize("words", [1000, 2_000_000])
@readers
def test_a_file_that_changes_while_it_is_sent_is_found(how, words, start_host, tmp_path, monkeypatch):
    holder, there = start_host(store_capacity=32 << 20, spill_directory=str(tmp_path)), start_host()
    object_id = put_where(holder, "file", np.arange(words))
    pin = holder.agent.store.pin

    async def pin_and_damage(wanted):
        pinned = await pin(wanted)
        with open(pinned.in_file.path, "r+b") as file:
            file.seek(pinned.in_file.offset + words * 6)
            file.write(b"other bytes")
        return pinned

    monkeypatch.setattr(holder.agent.store, "pin", pin_and_damage)
    with pytest.raises(ERRORS, match="other bytes than were written"):
        ask(how, there, object_id, holder.address).result(20)
    assert not holder.in_loop(holder.agent.store.contains, object_id)
    assert there.store_stats()["objects"] == there.store_stats()["reserved"] == 0


# -- all of it at random


def test_campaign_objects_change_places_while_they_travel(start_host, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "STALL_SECONDS", 0.3)
    holder = start_host(store_capacity=24 << 20, spill_directory=str(tmp_path))
    there = start_host(store_capacity=64 << 20, spill_directory=str(tmp_path))
    with (
        Campaign("objects between hosts", share=0.3) as campaign,
        SlowLink(holder.address) as link,
        SlowLink(holder.address, rate=12_500_000) as slow,
        connect(holder.node.info["store_socket"], name="maker") as store,
        connect(there.node.info["store_socket"], name="asker") as asking,
        contextlib.closing(PeerPool(TOKEN, name="client")) as pool,
        ThreadPoolExecutor(8) as threads,
    ):
        number = 0

        def read(how, address, object_id):
            if how == "agent":
                return np.array(asking.get(object_id, timeout=10, sources=[address]))
            data = pool.fetch_bytes(address, object_id, timeout=10)
            if data is None:
                raise ObjectNotFoundError("deleted before it was asked for")
            return decode(data)

        while campaign.goes_on():
            made = {}
            for _ in range(campaign.random.randrange(2, 10)):
                number += 1
                words = int(2 ** campaign.random.uniform(6, 19))
                made[store.put(np.full(words, number))] = number, words
            asked = {}
            for object_id, expected in made.items():
                how = campaign.random.choice(["agent", "client"])
                address = campaign.random.choice([link, link, slow]).address
                asked[threads.submit(read, how, address, object_id)] = expected
            happens = campaign.random.choice(["nothing", "stall", "pause", "cut", "cut later"])
            if happens in ("stall", "pause"):
                link.hold()
            elif happens == "cut later":
                link.cut_after(campaign.random.randrange(1, 1 << 21))
            time.sleep(campaign.random.uniform(0, 0.003))
            if campaign.random.random() < 0.7:
                delete_some(holder, made, campaign.random)
            with contextlib.suppress(StoreFullError):
                for _ in range(campaign.random.randrange(6)):
                    store.put(np.full(campaign.random.randrange(1, 1 << 19), -1), timeout=0.05)
            if happens == "stall":
                until(lambda: holder.store_stats()["pins"] == 0, "the holder gives up")
            elif happens == "cut":
                link.cut()
            link.resume()
            for found, (value, words) in asked.items():
                try:
                    array = found.result(30)
                except ERRORS:
                    campaign.counts["errors"] += 1
                    continue
                campaign.counts["objects checked"] += 1
                assert len(array) == words
                assert (array == value).all(), f"{happens}: {np.unique(array)} in place of {value}"
            link.cut_after(None)
            campaign.counts[happens] += 1
            holder.in_loop(holder.agent.store.delete, [ObjectID(m.object_id) for m in inventory(holder)])
        until(lambda: holder.store_stats()["pins"] == 0, "no pin is left")
    assert campaign.counts["objects checked"]


def inventory(host):
    return host.in_loop(lambda: list(host.agent.store.inventory()))


def delete_some(host, object_ids, chance: random.Random):
    host.in_loop(host.agent.store.delete, [each for each in object_ids if chance.random() < 0.7])
