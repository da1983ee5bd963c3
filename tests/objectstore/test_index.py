"""The object index: objects found and pinned without a message, and never freed under somebody's eyes."""

from __future__ import annotations

import gc
import mmap
import os
import re
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.objectstore import ObjectID, ObjectNotFoundError, Store, StoreServer, connect
from holdfast.objectstore.client.index_view import IndexView
from holdfast.objectstore.core.object_index import ObjectIndex
from holdfast.objectstore.shared.index import ORDERED, PROBES, index_nbytes, row_nbytes, slots_for
from tests.objectstore.test_core import unpin

pytestmark = pytest.mark.skipif(not ORDERED, reason="clients use the index where stores are seen in order")

SLOTS = 1 << 10


class Held:
    """What a pin is to the index."""

    slot = 0


class World:
    """An index, and the views that some clients have of it."""

    def __init__(self, clients: int = 2) -> None:
        self.index = ObjectIndex(SLOTS)
        memory = memoryview(bytearray(index_nbytes(SLOTS)))
        self.index.lie_in(memory)
        self.views = []
        for client in range(1, clients + 1):
            row = memoryview(bytearray(row_nbytes(SLOTS)))
            self.index.attach(client, row)
            self.views.append(IndexView(SLOTS, memory.toreadonly(), row))

    def pin(self, client: int, object_id: ObjectID) -> tuple[int, tuple[int, int] | None]:
        held = Held()
        place = self.views[client].pin(object_id, held)
        return held.slot, place


def oid(number: int) -> ObjectID:
    return ObjectID(number.to_bytes(16, "big"))


def test_an_index_has_a_slot_for_each_page_of_the_store_within_limits() -> None:
    assert slots_for(1) == 1 << 10
    assert slots_for(64 << 20) == 1 << 14
    assert slots_for((64 << 20) + 4096) == 1 << 15
    assert slots_for(1 << 50) == 1 << 20


def test_what_is_listed_is_found_and_nothing_else() -> None:
    world = World()
    slots = {n: world.index.add(oid(n), 64 * n, n) for n in range(1, 200)}
    assert len(set(slots.values())) == 199
    assert all(slots.values())
    for n, slot in slots.items():
        assert world.pin(0, oid(n)) == (slot, (64 * n, n))
        assert world.views[1].contains(oid(n))
    assert world.pin(0, oid(200)) == (0, None)
    assert not world.views[1].contains(oid(200))
    assert world.views[0].held == 199
    assert world.index.pins() == {slot: {1: 1} for slot in slots.values()}


def test_a_pin_outlives_the_deletion_and_its_end_is_to_be_told() -> None:
    world = World()
    slot = world.index.add(oid(1), 0, 1)
    world.pin(0, oid(1))
    world.pin(0, oid(1))
    world.pin(1, oid(1))
    assert not unpin(world.views[1], slot), "nobody waits for it yet"
    assert world.index.withdraw(slot), "the first client looks at it twice"
    assert world.pin(1, oid(1)) == (slot, None), "no longer found, but counted until it's taken back"
    assert not world.views[1].contains(oid(1))
    assert unpin(world.views[1], slot)
    assert world.index.pinned(slot)
    assert not unpin(world.views[0], slot), "one more"
    assert unpin(world.views[0], slot)
    assert not world.index.pinned(slot)


def test_an_open_object_is_its_writers_alone() -> None:
    world = World()
    slot = world.index.add(oid(1), 64, 5, is_open=True)
    assert world.pin(0, oid(1)) == (slot, None)
    assert not unpin(world.views[0], slot)
    world.views[0].add_own(oid(1))
    assert world.views[0].contains(oid(1))
    assert not world.views[1].contains(oid(1))
    assert world.pin(0, oid(1)) == (slot, (64, 5))
    assert world.pin(1, oid(1)) == (slot, None)
    unpin(world.views[1], slot)
    world.index.seal(slot)
    assert world.pin(1, oid(1)) == (slot, (64, 5))
    assert world.index.pins() == {slot: {1: 1, 2: 1}}


def test_a_client_that_is_gone_counts_no_more() -> None:
    world = World()
    slot = world.index.add(oid(1), 0, 1)
    world.pin(0, oid(1))
    assert world.index.pinned(slot)
    world.index.detach(1)
    assert not world.index.withdraw(slot)


def test_pins_are_counted_while_others_take_them(tmp_path: Path, child: Callable[..., subprocess.Popen[str]]) -> None:
    index = ObjectIndex(SLOTS)
    for n in range(1, SLOTS):
        index.add(oid(n), 0, 1)
    path = tmp_path / "row"
    path.write_bytes(bytes(row_nbytes(SLOTS)))
    process = child("change_counters", path, SLOTS)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with path.open("r+b") as file:
        index.attach(1, memoryview(mmap.mmap(file.fileno(), 0)))
    for _ in range(2000):
        assert all(pins == {1: 1} for pins in index.pins().values())


def test_a_client_whose_pins_are_refused_keeps_its_pins_and_takes_no_more() -> None:
    world = World()
    slot = world.index.add(oid(1), 0, 1)
    assert not world.index.refuse_pins(2)
    assert world.pin(1, oid(1)) == (slot, None)
    world.pin(0, oid(1))
    assert world.index.refuse_pins(1)
    assert world.index.pins() == {slot: {1: 1, 2: 1}}, "what refuses pins is no pin"
    assert world.index.withdraw(slot)
    assert not world.index.refuse_pins(3), "there is no such client"


def test_slots_are_used_again_by_other_objects() -> None:
    world = World()
    first = world.index.add(oid(1), 0, 1)
    world.index.withdraw(first)
    world.index.remove(first)
    assert world.pin(0, oid(1)) == (0, None)
    assert world.index.add(oid(2), 128, 2) == first
    assert world.pin(0, oid(2)) == (first, (128, 2))


def test_a_full_index_lists_no_more() -> None:
    world = World()
    slots = [world.index.add(oid(n), 0, 1) for n in range(1, SLOTS + 10)]
    assert sum(map(bool, slots)) == SLOTS - 1, "the first isn't used"
    assert slots[-1] == 0
    world.index.withdraw(slots[0])
    world.index.remove(slots[0])
    assert world.index.add(oid(5000), 0, 1) == slots[0]


def test_an_object_whose_buckets_are_all_taken_is_not_listed() -> None:
    world = World()
    homes: dict[int, list[ObjectID]] = {}
    for n in range(1, 200_000):
        homes.setdefault(zlib.crc32(oid(n)) & (4 * SLOTS - 1), []).append(oid(n))
    crowd = max(homes.values(), key=len)
    assert len(crowd) > PROBES
    slots = [world.index.add(object_id, 0, 1) for object_id in crowd]
    assert sum(map(bool, slots)) == PROBES
    assert all(world.views[0].contains(object_id) for object_id, slot in zip(crowd, slots, strict=True) if slot)


# In a store


@pytest.fixture
def remote() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its socket."""
    command = [sys.executable, "-m", "holdfast.objectstore", "--capacity", "64MB"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        match = re.search(r" at (\S+)", process.stdout.readline())
        assert match
        yield process, match[1]
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(20)
        process.stdout.close()


def test_a_get_needs_no_word_from_the_server(remote: tuple[subprocess.Popen[str], str]) -> None:
    process, path = remote
    with connect(path) as writer, connect(path) as reader:
        ids = [writer.put(np.full(1000, n)) for n in range(50)]
        ids.append(writer.put(np.arange(1_000_000)))
        writer.stats()
        process.send_signal(signal.SIGSTOP)
        values = [reader.get(object_id) for object_id in ids]
        assert [int(value[0]) for value in values] == [*range(50), 0]
        assert reader.get(ids[7], writable=True).sum() == 7000
        assert all(reader.address_in_arena(value.ctypes.data) for value in values)
        assert reader.contains(ids[3])
        process.send_signal(signal.SIGCONT)
        assert writer.stats()["pins"] >= 51, "the server sees the pins that it was never told of"
        by_id = {item["id"]: item for item in writer.list()}
        assert by_id[ids[-1].hex()]["pins"] == 1
        assert len(by_id[ids[-1].hex()]["pinned_by"]) == 1


def test_what_was_put_is_there_at_once_for_its_writer(remote: tuple[subprocess.Popen[str], str]) -> None:
    process, path = remote
    with connect(path) as writer, connect(path) as reader:
        array, pending = writer.create(100_000)
        array[:] = 7
        buffer, pending_buffer = writer.create_buffer(100_000)
        process.send_signal(signal.SIGSTOP)
        object_id, buffer_id = pending.seal(), pending_buffer.seal()
        assert writer.contains(object_id)
        view = writer.get(object_id)
        assert view.ctypes.data - writer.arena_address < 64_000_000
        assert view.sum() == 700_000
        assert writer.get(buffer_id).nbytes == buffer.nbytes
        process.send_signal(signal.SIGCONT)
        reader.delete(object_id)
        writer.stats()  # the seal was read by now, if it wasn't before
        assert reader.put(np.zeros(7_000_000)), "it takes nearly all, and nothing that is looked at"
        assert view.sum() == 700_000


def test_a_deleted_object_goes_with_its_last_view(
    store: Store, server: StoreServer, wait_until: Callable[..., Any]
) -> None:
    with connect(server.socket_path, name="other") as other:
        object_id = store.put(np.arange(100_000))
        store.stats()
        view, late = other.get(object_id), store.get(object_id)[5:10]
        store.delete(object_id)
        with pytest.raises(ObjectNotFoundError):
            other.get(object_id)
        assert server.stats()["deleted_but_pinned"] == 1
        assert server.stats()["deleted_but_pinned_by"] == ["other", "test"]
        del view
        gc.collect()
        assert late.tolist() == [5, 6, 7, 8, 9]
        wait_until(lambda: server.stats()["deleted_but_pinned_by"] == ["test"])
        del late
        gc.collect()
        wait_until(lambda: server.stats()["deleted_but_pinned"] == 0)
        wait_until(lambda: server.stats()["pins"] == 0)


def test_more_objects_than_the_index_has_slots_are_read_all_the_same(wait_until: Callable[..., Any]) -> None:
    with StoreServer("4 MiB") as server, connect(server.socket_path) as store:
        with store.batch():
            ids = [store.put(n) for n in range(3000)]
        assert [store.get(object_id) for object_id in ids] == list(range(3000))
        wait_until(lambda: server.stats()["pins"] == 0)
        store.delete(ids)
        assert server.stats()["object_nbytes"] == 0


def test_the_pins_of_a_killed_process_go(
    remote: tuple[subprocess.Popen[str], str], wait_until: Callable[..., Any]
) -> None:
    _, path = remote
    with connect(path) as store:
        object_id = store.put(np.arange(200_000))
        store.stats()
        pid = os.fork()
        if pid == 0:
            try:
                held = [connect(path).get(object_id) for _ in range(3)]
                assert len(held) == 3
                signal.pause()
            finally:
                os._exit(1)
        try:
            wait_until(lambda: store.stats()["pins"] == 3)
            store.delete(object_id)
            assert store.stats()["deleted_but_pinned"] == 1
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        wait_until(lambda: store.stats()["deleted_but_pinned"] == 0)
        assert store.stats()["pins"] == 0


READER = """
import sys, random, numpy as np
from holdfast.objectstore import ObjectID, ObjectNotFoundError, connect
rng = random.Random(int(sys.argv[2]))
with connect(sys.argv[1], name="reader") as store:
    kept, reads = [], 0
    for line in sys.stdin:
        ids = [(int(n), ObjectID.fromhex(i)) for n, i in (word.split(":") for word in line.split())]
        for n, object_id in rng.choices(ids, k=3 * len(ids)):
            try:
                value = store.get(object_id)
            except ObjectNotFoundError:
                continue
            kept.append((n, value))
            reads += 1
            if len(kept) > 20:
                number, old = kept.pop(rng.randrange(len(kept)))
                assert (old == number).all(), (number, old)
        print("ok", flush=True)
    assert all((value == number).all() for number, value in kept)
    print(reads, flush=True)
"""


def test_readers_race_with_deletions_and_never_see_another_objects_bytes(wait_until: Callable[..., Any]) -> None:
    """The store is small, so what is deleted is written over at once, and slots are used again and again."""
    with StoreServer("16 MiB") as server, connect(server.socket_path, name="writer") as store:
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", READER, server.socket_path, str(seed)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for seed in range(2)
        ]
        number = 0
        for _ in range(60):
            numbered = []
            for _ in range(20):
                number += 1
                numbered.append((number, store.put(np.full(9_000, number))))
            line = " ".join(f"{n}:{object_id}" for n, object_id in numbered) + "\n"
            for reader in readers:
                assert reader.stdin is not None
                reader.stdin.write(line)
                reader.stdin.flush()
            for _, object_id in numbered:  # while they read
                store.delete(object_id)
            for reader in readers:
                assert reader.stdout is not None
                assert reader.stdout.readline() == "ok\n"
        reads = []
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.close()
            assert reader.stdout is not None
            reads.append(int(reader.stdout.readline()))
            assert reader.wait(20) == 0
            reader.stdout.close()
        assert min(reads) > 0, "they never won, so nothing was shown"
        wait_until(lambda: server.stats()["pins"] == 0)
        wait_until(lambda: server.stats()["object_nbytes"] == 0)


def test_threads_share_one_row(store: Store, server: StoreServer, wait_until: Callable[..., Any]) -> None:
    ids = [store.put(np.full(100, n)) for n in range(20)]
    store.stats()
    failures: list[BaseException] = []

    def read(seed: int) -> None:
        try:
            for turn in range(2000):
                n = (turn * 7 + seed) % 20
                assert store.get(ids[n])[50] == n
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    wait_until(lambda: server.stats()["pins"] == 0)
