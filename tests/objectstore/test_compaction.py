"""Holes that are made for requests: what is moved for them, what goes to disk, and what they're walled in by."""

from __future__ import annotations

import itertools
import random
import resource

import pytest

from holdfast.objectstore.core.effects import Answer, ContinueSearch, Punch
from holdfast.objectstore.core.obstacles import Obstacle, obstacles
from holdfast.objectstore.core.windows import SLICE
from holdfast.objectstore.memory.free_extents import ALIGNMENT, LARGE_NBYTES, PAGE, footprint
from holdfast.objectstore.shared.protocol import Share, Status
from holdfast.objectstore.system.memory_limits import address_span
from tests.objectstore.test_core import MIB, World, item, oid
from tests.objectstore.test_spill_core import Viewer, spilling_world


def checkered(capacity: int = 8 * MIB) -> tuple[World, int, Viewer]:
    """A store of which every other megabyte is free, the client that has put the objects 0, 2, 4..., and a viewer."""
    world = World(capacity)
    viewer, a = Viewer(world, "viewer"), world.client("a")
    for number in range(capacity // MIB):
        world.put(a, number, MIB)
    world.core.delete([oid(number) for number in range(1, capacity // MIB, 2)])
    world.settle()
    return world, a, viewer


def offset_of(world: World, number: int) -> int:
    record = world.core._table.find(oid(number))
    assert record is not None
    return record.offset


def test_what_is_in_the_way_is_moved_and_found_at_its_new_place() -> None:
    world, a, viewer = checkered()
    waiting = world.create(a, 2 * MIB, timeout=30.0)
    world.settle()
    ((moved,),) = (move.shifts for move in world.moves)
    assert world.states()[f"key-{moved.source // MIB}"] == "moving"
    assert world.status(waiting) is None
    assert world.end_move()
    assert world.status(waiting) is Status.OK
    assert offset_of(world, moved.source // MIB) == moved.target
    assert viewer.view.pin(oid(moved.source // MIB), Pin()) == (moved.target, MIB)
    assert world.written_at(moved.target, MIB) == {moved.source // MIB}
    assert world.core.stats()["moved_total_nbytes"] == MIB


class Pin:
    """What a pin is to the index."""

    slot = 0


@pytest.mark.parametrize("how", ["by message", "in the index", "in the index, and no more", "deleted", "cut short"])
def test_a_move_is_called_off(how: str) -> None:
    world, a, viewer = checkered()
    waiting = world.create(a, 2 * MIB, timeout=30.0)
    world.settle()
    (shift,) = world.moves[0].shifts
    number = shift.source // MIB
    slot = 0
    if how == "by message":
        assert world.answer(world.get(a, number)) == (shift.source, MIB, None, None)
    elif how.startswith("in the index"):
        slot = viewer.look_at(number)
        assert slot
    elif how == "deleted":
        world.core.delete([oid(number)])
    if how == "in the index, and no more":
        viewer.look_away(slot)
    assert world.end_move(done=how != "cut short")
    if how == "deleted":
        assert world.status(waiting) is Status.OK
        assert world.core.stats()["used"] == 5 * MIB
    elif how == "in the index, and no more":
        assert offset_of(world, number) == shift.target
    else:
        assert offset_of(world, number) == shift.source
        assert world.status(waiting) is None
        assert number * MIB not in [shift.source for move in world.moves for shift in move.shifts] or how == "cut short"
    world.end_copies()
    assert world.status(waiting) is Status.OK, "another window was found"


def test_an_object_that_lends_meanwhile_stays() -> None:
    world, a, _ = checkered()
    own, _ = world.lease(a, 64, 4096)
    waiting = world.create(a, 2 * MIB, timeout=30.0)
    world.settle()
    (shift,) = world.moves[0].shifts
    number = shift.source // MIB
    world.core.share(a, world.request(), item(100, own, 64), 64 + 8192, [Share(64, oid(number), 0, 8192)])
    world.end_move()
    assert offset_of(world, number) == shift.source
    world.end_copies()
    assert world.status(waiting) is Status.OK


def test_nobody_gets_into_a_hole_that_is_made_for_another() -> None:
    world, a, _ = checkered()
    large = world.create(a, 2 * MIB, timeout=30.0)
    small = [world.create(a, 32 << 10, timeout=30.0) for _ in range(8)]
    assert [world.status(request) for request in small] == [Status.OK] * 8
    late = world.create(a, MIB, timeout=30.0)
    assert world.status(late) is None, "it isn't its turn"
    assert world.end_move()
    assert (world.status(large), world.status(late)) == (Status.OK, Status.OK)


def test_what_has_no_other_place_goes_to_disk() -> None:
    world = spilling_world(8 * MIB)
    a = world.client("a")
    for number in range(5):
        world.put(a, number, MIB + MIB // 2)
    world.core.delete([oid(1), oid(3)])
    waiting = world.create(a, 4 * MIB, timeout=30.0)
    world.end_copies()
    assert world.status(waiting) is Status.OK
    assert world.core.stats()["spilled_nbytes"] <= 3 * MIB


def test_without_a_disk_objects_move_where_there_is_room_for_them() -> None:
    world, a, _ = checkered()
    waiting = world.create(a, 4 * MIB, timeout=30.0)
    world.end_copies()
    assert world.status(waiting) is Status.OK
    larger = World(9 * MIB)
    b = larger.client("b")
    for number in range(6):
        larger.put(b, number, (1 + number % 2) * MIB)
    larger.core.delete([oid(0), oid(2), oid(4)])
    waiting = larger.create(b, 2 * MIB, timeout=30.0)
    larger.end_copies()
    assert larger.status(waiting) is None
    larger.core.delete([oid(3)])
    assert larger.status(waiting) is Status.OK


def test_small_objects_that_stay_leave_the_room_for_large_ones_in_one_piece() -> None:
    world = World(16 * MIB)
    a, b = world.client("a"), world.client("b")
    number = itertools.count()
    small, large = [], []
    for _ in range(12):
        large.append(next(number))
        world.put(a, large[-1], MIB)
        offset, _ = world.lease(b, 1000, 16 << 10)
        small.append(next(number))
        world.core.seal(b, [item(small[-1], offset, 1000)])
        world.get(b, small[-1])
        world.core.disconnect(b)
        b = world.client("b")
    kept = [world.get(a, each) for each in small]
    assert {world.status(request) for request in kept} == {Status.OK}
    world.core.delete([oid(each) for each in large])
    world.settle()
    assert world.core.stats()["largest_free"] > 15 * MIB


def test_a_side_that_is_full_takes_from_the_other_one() -> None:
    world = World(4 * MIB)
    a = world.client("a")
    for number in range(4):
        world.put(a, number, MIB)
    world.core.delete([oid(1)])
    lease, nbytes = world.lease(a, 1000, 32 << 10)
    assert MIB <= lease < lease + nbytes <= 2 * MIB
    world.core.delete([oid(0), oid(2), oid(3)])
    world.core.disconnect(a)
    world.settle()
    b = world.client("b")
    small = [world.lease(b, 1000, 64 << 10)[0] for _ in range(4)]
    assert min(small) >= 3 * MIB
    world.core.disconnect(b)
    assert world.status(world.create(world.client("c"), 4 * MIB)) is Status.OK


def test_what_is_walled_in_lies_apart_and_its_pages_go_with_it() -> None:
    world = spilling_world(8 * MIB, span=32 * MIB)
    a, viewer = world.client("a"), world.client("viewer")
    for number in range(8):
        world.put(a, number, 900_000)
        if number % 2:
            world.get(viewer, number)
    world.core.delete([oid(number) for number in range(0, 8, 2)])
    world.end_copies()
    request = world.create(a, 2 * MIB, timeout=30.0)
    reply = world.reply(request)
    assert reply is not None
    assert reply.payload[0] >= 8 * MIB
    assert world.core.stats()["apart"] == 2 * MIB
    assert world.status(world.create(a, 5 * MIB)) is Status.FULL, "bytes are limited all the same"
    world.core.abort(a, reply.payload[0])
    world.settle()
    assert Punch(reply.payload[0], 2 * MIB) in world.effects
    assert world.core.stats()["apart"] == 0


def test_where_addresses_are_limited_there_are_none_to_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert address_span(8 * MIB) == 32 * MIB
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 40, resource.RLIM_INFINITY))
    assert address_span(8 * MIB) == 8 * MIB


def test_for_what_is_walled_in_as_much_goes_to_disk_as_is_missing() -> None:
    world = spilling_world(8 * MIB, span=32 * MIB)
    a, viewer = world.client("a"), world.client("viewer")
    for number in range(8):
        world.put(a, number, MIB)
        world.get(viewer, number)
    for number in (0, 2, 4, 6):
        world.core.unpin(viewer, [oid(number)])
    waiting = world.create(a, 3 * MIB, timeout=30.0)
    world.end_copies()
    assert world.status(waiting) is Status.OK
    assert world.core.stats()["apart"] == 3 * MIB
    assert world.core.stats()["spilled_nbytes"] <= 4 * MIB


def test_the_error_names_what_walls_a_request_in() -> None:
    world = spilling_world(8 * MIB)
    etl, viewer = world.client("etl"), world.client("viewer")
    for number in range(6):
        world.put(etl, number, MIB)
    for number in (0, 2, 3, 5):
        world.core.delete([oid(number)])
    world.get(viewer, 1)
    world.get(viewer, 4)
    waiting = world.create(etl, 4 * MIB, timeout=30.0)
    world.end_copies()
    world.pass_time(30)
    reply = world.reply(waiting)
    assert reply is not None
    assert reply.status is Status.FULL
    assert reply.payload[0] == (
        "4.2 MB requested, 6.3 MB free of 8.4 MB, the largest piece 3.1 MB after 30 s; the best place for it is walled"
        " in by 1.0 MB of 'key-1' looked at by 'viewer': it fits as soon as these are let go of; largest holders:"
        " client 'etl' 2.1 MB (2 objects); 2.1 MB can't go to disk while it's looked at, most of it by 'viewer' 2.1 MB"
    )
    world.create(etl, MIB)
    late = world.create(etl, 4 * MIB, timeout=30.0)
    world.pass_time(30)
    reply = world.reply(late)
    assert reply is not None
    assert "1.0 MB not yet sealed by 'etl'" in reply.payload[0] or "looked at by 'viewer'" in reply.payload[0]


def test_the_wall_is_the_one_with_the_fewest_bytes() -> None:
    stones = [
        Obstacle(0, 4 * MIB, None),
        Obstacle(4 * MIB, 6 * MIB, "a"),
        Obstacle(6 * MIB, 9 * MIB, None),
        Obstacle(9 * MIB, 9 * MIB + 4096, "b"),
        Obstacle(9 * MIB + 4096, 10 * MIB, "c"),
        Obstacle(10 * MIB, 12 * MIB, None),
    ]
    assert obstacles(reversed(stones), 5 * MIB) == [("c", MIB - 4096), ("b", 4096)]
    assert obstacles(stones, 4 * MIB) == []
    assert obstacles(stones, 13 * MIB) == []


def test_a_search_among_very_many_objects_lets_the_loop_answer() -> None:
    count = 5 * SLICE
    world = World(count * 2 * LARGE_NBYTES)
    a = world.client("a")
    for number in range(2 * count):
        world.core.create(a, world.request(), LARGE_NBYTES, 0.0)
        (reply,) = world.core.drain()
        assert isinstance(reply, Answer)
        world.core.seal(a, [item(number, reply.payload[0], LARGE_NBYTES)])
        if number % 2:
            world.core.pin(a, oid(number))
    world.core.delete([oid(number) for number in range(0, 2 * count, 2)])
    world.core.drain()
    world.core.create(a, world.request(), 2 * LARGE_NBYTES, 30.0)
    turns = 0
    while effects := world.core.drain():
        assert effects == [ContinueSearch()]
        turns += 1
        world.core.continue_search()
    assert turns > 2
    assert world.core.next_deadline() < world.now + 1, "it isn't searched for again at once"  # type: ignore[operator]
    world.core.unpin(a, [oid(1)])
    assert world.core.drain() == []
    world.now = world.core.next_deadline() or 0
    world.core.expire()
    assert world.core.drain() == [ContinueSearch()]


class History:
    """Clients that put, look, share and delete at random, in a store with a disk."""

    def __init__(self, seed: int, capacity: int = 8 * MIB, span: int = 0) -> None:
        self.random = random.Random(seed)
        self.world = spilling_world(capacity, span)
        self.capacity = capacity
        self.viewer = Viewer(self.world, "viewer")
        self.client = self.world.client("client")
        self.numbers = itertools.count(1)
        self.slots: list[int] = []
        self.asked: list[int] = []
        self.reserved: list[int] = []

    def step(self) -> None:
        world, draw = self.world, self.random
        alive = [record.object_id for record in world.core._table.records()]
        number = int.from_bytes(draw.choice(alive), "big") if alive else 0
        steps = ["put"] * 8 + ["look"] * 8 + ["ask"] * 4
        steps += ["small", "share", "reserve", "delete", "away", "copies", "move"]
        match draw.choice(steps):
            case "put":
                self.put(draw.choice([5_000, 60_000, 300_000, 300_000, MIB // 2]))
            case "small":
                other = world.client("small")
                request = world.request()
                world.core.lease(other, request, 1000, 64 << 10, 0.0, [])
                reply = world.reply(request)
                if reply is not None and reply.status is Status.OK:
                    self.seal(other, reply.payload[0], 1000)
                world.core.disconnect(other)
            case "look" if number and len(self.slots) < 14:
                if slot := self.viewer.look_at(number):
                    self.slots.append(slot)
            case "ask" if number and len(self.asked) < 8:
                if world.status(world.get(self.client, number)) is Status.OK:
                    self.asked.append(number)
                while world.verifications:
                    world.end_verification()
                    self.asked.append(number)
            case "share" if number:
                self.share(number)
            case "reserve" if len(self.reserved) < 2:
                reply = world.reply(world.create(self.client, draw.choice([1000, 200_000])))
                if reply is not None and reply.status is Status.OK:
                    self.reserved.append(reply.payload[0])
            case "delete" if number:
                world.core.delete(draw.sample(alive, len(alive) // 4 + 1))
            case "away":
                self.look_away(draw.randrange(3))
            case "copies":
                world.end_copies()
            case "move":
                world.end_move(done=draw.random() < 0.9)

    def put(self, nbytes: int) -> None:
        reply = self.world.reply(self.world.create(self.client, nbytes))
        if reply is not None and reply.status is Status.OK:
            self.seal(self.client, reply.payload[0], nbytes)

    def seal(self, client: int, offset: int, nbytes: int) -> None:
        number = next(self.numbers)
        self.world.write(offset, nbytes, number)
        self.world.core.seal(client, [item(number, offset, nbytes)])

    def share(self, lender: int) -> None:
        record = self.world.core._table.find(oid(lender))
        reply = self.world.reply(self.world.create(self.client, 64))
        if record is None or reply is None or reply.status is not Status.OK:
            return
        first = self.random.randrange(record.own_nbytes)
        nbytes = self.random.randint(1, record.own_nbytes - first)
        request, number = self.world.request(), next(self.numbers)
        shares = [Share(64, oid(lender), first, nbytes)]
        try:
            self.world.core.share(self.client, request, item(number, reply.payload[0], 64), 64 + nbytes, shares)
        except Exception:
            self.world.core.abort(self.client, reply.payload[0])
            return
        if self.world.answer(request) == (False,):
            self.world.core.abort(self.client, reply.payload[0])

    def look_away(self, count: int) -> None:
        for slot in self.slots[:count]:
            self.viewer.look_away(slot)
        del self.slots[:count]
        for number in self.asked[:count]:
            self.world.core.unpin(self.client, [oid(number)])
        del self.asked[:count]
        for offset in self.reserved[:count]:
            self.world.core.abort(self.client, offset)
        del self.reserved[:count]

    def what_stays(self) -> bytearray:
        """By brute force: for each line of the arena whether it can't go: it's not free, and a user of it stays."""
        core = self.world.core
        fixed = bytearray(core.allocator.span // ALIGNMENT)

        def fix(offset: int, nbytes: int) -> None:
            first, last = offset // ALIGNMENT, -(-(offset + nbytes) // ALIGNMENT)
            fixed[first:last] = b"\1" * (last - first)

        for record, pins in core._table.pins_of([*core._table.records(), *core._table.doomed()]):
            if pins and record.in_file is None:
                fix(record.offset, footprint(record.own_nbytes))
                for segment in record.segments:
                    fix(segment.offset, segment.nbytes)
        for client in core._clients.values():
            for offset, reserved in client.reserved.items():
                fix(offset, footprint(reserved.nbytes))
            for lease in client.leases:
                fix(lease.cursor, lease.end - lease.cursor)
        return fixed

    def check_bytes(self) -> None:
        """Each object that's in the arena in one piece has the bytes that were written."""
        for record in self.world.core._table.records():
            if record.in_file is None and not record.segments:
                number = int.from_bytes(record.object_id, "big")
                assert self.world.written_at(record.offset, record.own_nbytes) == {number}

    def largest_window(self, align: int) -> int:
        """The bytes of the largest stretch of what can go that begins at a multiple of ``align``."""
        largest = start = 0
        fixed = self.what_stays()[: self.capacity // ALIGNMENT] + b"\1"
        while (end := fixed.find(1, start)) >= 0:
            begins = -(-start * ALIGNMENT // align) * align
            largest = max(largest, end * ALIGNMENT - begins)
            start = end + 1
        return largest


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("span", [0, 32 * MIB])
def test_a_request_for_an_eighth_is_granted_while_a_third_can_go_and_is_not_walled_in(seed: int, span: int) -> None:
    history = History(seed, span=span)
    granted = walled_in = 0
    for _ in range(60):
        for _ in range(history.random.randrange(12)):
            history.step()
        history.check_bytes()
        world = history.world
        nbytes = history.random.choice([history.capacity // 8, history.capacity // 8, history.capacity // 20])
        window = history.largest_window(PAGE if nbytes >= LARGE_NBYTES else ALIGNMENT)
        if history.what_stays().count(1) * ALIGNMENT > history.capacity * 2 // 3:
            history.look_away(3)
            continue
        request = world.create(history.client, nbytes, timeout=30.0)
        world.end_copies()
        reply = world.reply(request)
        if span or window >= footprint(nbytes):
            assert reply is not None, "it waits, though there is a window"
            assert reply.status is Status.OK
            granted += 1
            if history.random.random() < 0.5:
                history.seal(history.client, reply.payload[0], nbytes)
            else:
                world.core.abort(history.client, reply.payload[0])
        elif reply is None:
            walled_in += 1
            world.pass_time(31)
            reply = world.reply(request)
            assert reply is not None
            assert reply.status is Status.FULL
            assert "walled in by" in reply.payload[0]
        else:
            world.core.abort(history.client, reply.payload[0])
        assert world.core.allocator.used_nbytes <= history.capacity
    stats = history.world.core.stats()
    print(f"{granted} granted, {walled_in} walled in, {stats['moved_total_nbytes']} moved, {stats['apart']} apart")
    assert granted > 30
