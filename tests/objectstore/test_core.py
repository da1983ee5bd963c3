"""The core alone: a pure machine, driven through everything that clients may do, and some that they may not."""

from __future__ import annotations

import contextlib
import itertools
from array import array
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.objectstore import ObjectID, StoreProtocolError
from holdfast.objectstore.client.index_view import IndexView
from holdfast.objectstore.core.core import StoreCore
from holdfast.objectstore.core.effects import (
    Answer,
    ContinueSearch,
    Drop,
    Effect,
    MoveObjects,
    ReadOthers,
    Shift,
    Spill,
    StartFetch,
    Verify,
)
from holdfast.objectstore.core.objects import SpillExtent
from holdfast.objectstore.memory.free_extents import ALIGNMENT
from holdfast.objectstore.shared.index import index_nbytes, row_nbytes
from holdfast.objectstore.shared.protocol import SealItem, Share, Status

MIB = 1 << 20


def oid(number: int) -> ObjectID:
    return ObjectID(number.to_bytes(16, "big"))


def item(number: int, offset: int, nbytes: int, *, keep: bool = False, owner: str | None = None) -> SealItem:
    return SealItem(oid(number), offset, nbytes, f"key-{number}", owner, "int", 0, b"", keep)


def unpin(view: IndexView, slot: int) -> bool:
    """Ends one pin in the index. Whether the server is to be told."""
    view.dropped.append(slot)
    waited_for = view.unpin()
    view.told()
    return slot in waited_for


class World:
    """A core, a clock, some clients, and the arena's memory: the number of the object that was written to each line."""

    def __init__(self, capacity: int = 8 * MIB, **options: Any) -> None:
        self.now = 100.0
        self.memory = array("q", bytes(max(capacity, options.get("span", 0)) // ALIGNMENT * 8))
        self.core = StoreCore(capacity, clock=lambda: self.now, **options)
        self.requests = 0
        self.effects: list[Effect] = []
        self.files = 0
        self.spills: list[Spill] = []  # those that are under way
        self.moves: list[MoveObjects] = []
        self.verifications: list[Verify] = []
        self.in_files: set[SpillExtent] = set()  # those that are on disk

    def client(self, name: str) -> int:
        return self.core.connect(name)

    def settle(self) -> list[Effect]:
        fresh: list[Effect] = []
        while effects := self.core.drain():
            fresh += effects
        self.effects += fresh
        for effect in fresh:
            if isinstance(effect, Spill):
                assert not self.spills, "two batches at once"
                self.spills.append(effect)
            elif isinstance(effect, MoveObjects):
                assert not self.moves, "two batches at once"
                self.moves.append(effect)
                for shift in effect.shifts:
                    self.copy(shift, shift.nbytes // 2)
            elif isinstance(effect, ContinueSearch):
                self.core.continue_search()
                fresh += self.settle()
            elif isinstance(effect, Verify):
                self.verifications.append(effect)
            elif isinstance(effect, Drop):
                self.in_files.remove(effect.extent)
        self.core.check()
        return fresh

    def reply(self, request: int) -> Answer | None:
        self.settle()
        found = [e for e in self.effects if isinstance(e, Answer) and e.request == request]
        assert len(found) <= 1, "a request was answered twice"
        return found[0] if found else None

    def request(self) -> int:
        self.requests += 1
        return self.requests

    def create(self, client: int, nbytes: int, timeout: float = 0.0, number: int | None = None) -> int:
        request = self.request()
        self.core.create(client, request, nbytes, timeout, None if number is None else oid(number))
        return request

    def write(self, offset: int, nbytes: int, number: int) -> None:
        """What a client does with what it was given."""
        lines = -(-nbytes // ALIGNMENT)
        self.memory[offset // ALIGNMENT : offset // ALIGNMENT + lines] = array("q", [number]) * lines

    def written_at(self, offset: int, nbytes: int) -> set[int]:
        """The numbers of the objects whose bytes these are."""
        return set(self.memory[offset // ALIGNMENT : -(-(offset + nbytes) // ALIGNMENT)])

    def copy(self, shift: Shift, nbytes: int) -> None:
        """The first bytes of what is moved."""
        source, target, lines = shift.source // ALIGNMENT, shift.target // ALIGNMENT, -(-nbytes // ALIGNMENT)
        self.memory[target : target + lines] = self.memory[source : source + lines]

    def put(self, client: int, number: int, nbytes: int, **names: object) -> int:
        reply = self.reply(self.create(client, nbytes))
        assert reply is not None
        assert reply.status is Status.OK, reply
        offset: int = reply.payload[0]
        self.write(offset, nbytes, number)
        self.core.seal(client, [item(number, offset, nbytes, **names)])  # type: ignore[arg-type]
        self.settle()
        return offset

    def get(self, client: int, number: int, timeout: float | None = None, sources: list[str] | None = None) -> int:
        request = self.request()
        self.core.get(client, request, oid(number), timeout, sources or [])
        return request

    def ask(self, client: int, number: int) -> int:
        request = self.request()
        self.core.ask(client, request, oid(number))
        return request

    def read_others(self) -> None:
        self.settle()
        for effect in self.effects:
            if isinstance(effect, ReadOthers):
                self.core.others_read(effect.wait)

    def lease(self, client: int, nbytes: int, want: int, done: list[int] | None = None) -> tuple[int, int]:
        request = self.request()
        self.core.lease(client, request, nbytes, want, 0.0, done or [])
        reply = self.reply(request)
        assert reply is not None
        assert reply.status is Status.OK
        return reply.payload[0], reply.payload[1]

    def status(self, request: int) -> Status | None:
        reply = self.reply(request)
        return None if reply is None else reply.status

    def answer(self, request: int) -> tuple[object, ...] | None:
        reply = self.reply(request)
        return None if reply is None else reply.payload

    def end_spill(self, *, written: int = 1000, error: str | None = None) -> bool:
        """Ends the batch that is under way: the first ``written`` objects are in files."""
        self.settle()
        if not self.spills:
            return False
        extents: list[SpillExtent | None] = []
        for nbytes, _ in self.spills.pop().layouts:
            self.files += 1
            extents.append(SpillExtent(f"file-{self.files}", 0, nbytes, 0) if len(extents) < written else None)
        self.in_files.update(extent for extent in extents if extent is not None)
        self.core.spill_done(extents, error)
        self.settle()
        return True

    def end_move(self, *, done: bool = True) -> bool:
        """Ends the moves that are under way."""
        self.settle()
        if not self.moves:
            return False
        for shift in self.moves.pop().shifts:
            self.copy(shift, shift.nbytes if done else 0)
        self.core.moved(done=done)
        self.settle()
        return True

    def end_copies(self) -> None:
        """Ends moves and batches until there are no more of them."""
        while self.end_move() or self.end_spill():
            pass

    def end_verification(self, error: str | None = None, *, lost: bool = False) -> None:
        self.settle()
        self.core.verified(self.verifications.pop(0).extent, error, lost=lost)
        self.settle()

    def states(self) -> dict[str, str]:
        return {item["key"]: item["state"] for item in self.core.describe()}

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.core.expire()
        self.settle()


def test_an_object_is_found_once_it_is_sealed() -> None:
    world = World()
    a, b = world.client("a"), world.client("b")
    missed, asked = world.get(b, 1), world.ask(b, 1)
    assert world.status(missed) is None, "a seal may be on its way"
    world.read_others()
    assert world.status(missed) is Status.NOT_FOUND
    assert world.answer(asked) == (False,)
    early, asked = world.get(b, 1), world.ask(b, 1)
    offset = world.put(a, 1, 5000)
    world.read_others()
    for request in (early, world.get(b, 1)):
        reply = world.reply(request)
        assert reply is not None
        assert (reply.client, reply.status, reply.payload) == (b, Status.OK, (offset, 5000, None, None))
    assert world.answer(asked) == world.answer(world.ask(b, 1)) == (True,)
    asked = world.ask(b, 2)
    world.core.delete([oid(1), oid(2)])
    assert world.answer(asked) == world.answer(world.ask(b, 1)) == (False,)
    gone = world.ask(b, 3)
    world.core.disconnect(b)
    world.read_others()
    assert world.reply(gone) is None


def test_a_get_with_a_timeout_waits_for_the_seal() -> None:
    world = World()
    a, b = world.client("a"), world.client("b")
    waiting, hopeless = world.get(b, 1, timeout=5.0), world.get(b, 2, timeout=5.0)
    assert world.status(waiting) is None
    world.put(a, 1, 100)
    assert world.status(waiting) is Status.OK
    assert world.core.next_deadline() == world.now + 5.0
    world.pass_time(5.0)
    reply = world.reply(hopeless)
    assert reply is not None
    assert reply.status is Status.NOT_FOUND
    assert oid(2).hex() in reply.payload[0]
    assert world.core.next_deadline() is None


def test_a_pinned_object_outlives_its_delete_and_is_invisible() -> None:
    world = World()
    a, b = world.client("a"), world.client("b")
    world.put(a, 1, MIB)
    world.get(b, 1)
    world.get(b, 1)
    world.core.delete([oid(1)])
    assert not world.core.contains(oid(1))
    reply = world.reply(world.get(a, 1))
    assert reply is not None
    assert "was deleted" in reply.payload[0]
    assert world.core.stats()["deleted_but_pinned_nbytes"] == MIB
    assert world.core.stats()["deleted_but_pinned_by"]
    world.core.unpin(b, [oid(1)])
    assert world.core.stats()["used"] == MIB
    world.core.unpin(b, [oid(1)])
    assert world.core.stats()["used"] == 0


def test_a_seal_after_its_delete_vanishes() -> None:
    world = World()
    a = world.client("a")
    waiting = world.get(a, 1, timeout=9.0)
    world.core.delete([oid(1)])
    assert world.status(waiting) is Status.NOT_FOUND
    world.put(a, 1, 1000)
    assert not world.core.contains(oid(1))
    assert world.core.stats()["used"] == 0


def test_what_is_forgotten_may_come_again_and_what_is_looked_at_stays() -> None:
    world = World()
    a, b = world.client("a"), world.client("b")
    world.put(a, 1, 1000)
    world.put(a, 2, 1000)
    world.get(b, 2)
    assert world.core.forget([oid(1), oid(2), oid(3)]) == [oid(2)]
    assert not world.core.contains(oid(1))
    assert world.core.contains(oid(2))
    world.put(a, 1, 1000)
    assert world.core.contains(oid(1))
    world.core.unpin(b, [oid(2)])
    assert world.core.forget([oid(2)]) == []


def test_tombstones_are_bounded_and_the_oldest_go_first() -> None:
    world = World(tombstone_limit=10)
    world.core.delete([oid(number) for number in range(15)])
    assert world.core.stats()["tombstones"] == 10
    a = world.client("a")
    world.put(a, 0, 100)
    world.put(a, 14, 100)
    assert world.core.contains(oid(0))
    assert not world.core.contains(oid(14))


def test_the_second_seal_of_an_id_is_dropped() -> None:
    world = World()
    a, b = world.client("a"), world.client("b")
    first = world.put(a, 1, 1000)
    world.put(b, 1, 1000)
    reply = world.reply(world.get(a, 1))
    assert reply is not None
    assert reply.payload[0] == first
    assert world.core.stats()["objects"] == 1


def test_a_client_that_dies_loses_everything_and_nobody_else_anything() -> None:
    world = World()
    a, b = world.client("a"), world.client("b")
    world.put(a, 1, 1000)
    world.get(a, 1)
    world.get(b, 1)
    world.create(a, MIB)
    world.lease(a, 100, MIB)
    blocked = world.create(a, 8 * MIB, timeout=10.0)
    world.get(a, 9, timeout=10.0)
    world.core.delete([oid(1)])
    world.core.disconnect(a)
    world.settle()
    stats = world.core.stats()
    assert (stats["pins"], stats["reserved"], stats["leased_nbytes"], stats["waiting_creates"]) == (1, 0, 0, 0)
    assert stats["waiting_gets"] == 0
    assert world.status(blocked) is None
    world.core.disconnect(b)
    world.settle()
    assert world.core.stats()["used"] == 0


def test_what_does_not_fit_waits_its_turn() -> None:
    world = World(capacity=4 * MIB)
    a, b = world.client("a"), world.client("b")
    world.put(a, 1, 3 * MIB)
    large, next_one = world.create(b, 2 * MIB, timeout=30.0), world.create(b, MIB, timeout=30.0)
    assert world.status(large) is None
    assert world.status(next_one) is None, "it would fit, but it isn't its turn"
    world.core.delete([oid(1)])
    assert world.status(large) is Status.OK
    assert world.status(next_one) is Status.OK


def test_small_requests_overtake_a_large_one_for_a_bounded_number_of_bytes() -> None:
    world = World(capacity=4 * MIB)
    a, b = world.client("a"), world.client("b")
    world.put(a, 1, 2 * MIB)
    world.put(a, 2, MIB)
    large = world.create(b, 3 * MIB, timeout=30.0)
    lease = world.request()
    world.core.lease(a, lease, 1000, 64 << 10, 30.0, [])
    reply = world.reply(lease)
    assert reply is not None, "a small request waits behind a large one"
    assert (reply.status, reply.payload[1]) == (Status.OK, 64 << 10)
    small = [world.create(a, 32 << 10, timeout=30.0) for _ in range(20)]
    granted = [request for request in small if world.status(request) is Status.OK]
    assert len(granted) == (3 * MIB // 8 - (64 << 10)) // (32 << 10), "the large one would starve"
    assert granted == small[: len(granted)]
    world.core.delete([oid(2)])
    assert world.status(small[-1]) is None
    assert world.core.stats()["waiting_creates"] == 21 - len(granted)
    for request in granted:
        answer = world.reply(request)
        assert answer is not None
        world.core.abort(a, answer.payload[0])
    world.core.delete([oid(1)])
    assert world.status(large) is Status.OK, "it got its room as soon as it was there"
    world.core.disconnect(b)
    assert world.status(small[-1]) is Status.OK


def test_what_waits_behind_a_large_one_is_served_when_room_appears_for_it_only() -> None:
    world = World(capacity=4 * MIB)
    a, b = world.client("a"), world.client("b")
    full = world.put(a, 1, 4 * MIB - 4096) + 4096
    assert full
    rest = world.reply(world.create(a, 4096))
    assert rest is not None
    large, small = world.create(b, 2 * MIB, timeout=30.0), world.create(b, 1000, timeout=30.0)
    assert (world.status(large), world.status(small)) == (None, None)
    world.core.abort(a, rest.payload[0])
    assert (world.status(large), world.status(small)) == (None, Status.OK)


def test_when_the_first_in_line_gives_up_the_next_is_served() -> None:
    world = World(capacity=4 * MIB)
    a, b = world.client("a"), world.client("b")
    world.put(a, 1, 3 * MIB)
    large, small = world.create(b, 2 * MIB, timeout=3.0), world.create(a, 1000, timeout=30.0)
    world.pass_time(3.0)
    assert world.status(large) is Status.FULL
    assert world.status(small) is Status.OK


def test_a_full_store_names_its_holders() -> None:
    world = World(capacity=8 * MIB)
    etl, viewer, writer = world.client("etl"), world.client("viewer"), world.client("writer")
    for number in range(3):
        world.put(etl, number, MIB)
    world.put(etl, 9, MIB, owner="reports")
    world.get(viewer, 9)
    world.core.delete([oid(9)])
    world.create(writer, 2 * MIB)
    reply = world.reply(world.create(viewer, 4 * MIB))
    assert reply is not None
    assert reply.status is Status.FULL
    assert reply.payload[0] == (
        "4.2 MB requested, 2.1 MB free of 8.4 MB; largest holders: client 'etl' 3.1 MB (3 objects),"
        " client 'writer' 2.1 MB not yet sealed, client 'reports' 1.0 MB (1 object);"
        " 1.0 MB deleted but still viewed by 'viewer'"
    )


def test_what_can_never_fit_fails_at_once() -> None:
    world = World(capacity=4 * MIB)
    reply = world.reply(world.create(world.client("a"), 4 * MIB + 1, timeout=30.0))
    assert reply is not None
    assert reply.status is Status.FULL
    assert "more than the 4.2 MB that the store has" in reply.payload[0]


def test_small_objects_are_sealed_inside_a_lease() -> None:
    world = World()
    a = world.client("a")
    offset, nbytes = world.lease(a, 100, 64 << 10)
    world.core.seal(a, [item(1, offset, 100), item(2, offset + 128, 64), item(3, offset + 256, 1)])
    world.settle()  # checks that the skipped bytes are free
    assert world.core.stats()["objects"] == 3
    world.lease(a, 100, 64 << 10, done=[offset + nbytes])
    world.core.disconnect(a)
    world.core.delete([oid(1), oid(2), oid(3)])
    world.settle()
    assert world.core.stats()["used"] == 0


def test_a_lease_takes_less_when_there_is_less() -> None:
    world = World(capacity=2 * MIB)
    a = world.client("a")
    world.put(a, 1, 2 * MIB - 8192)
    _, nbytes = world.lease(a, 5000, 60 << 10)
    assert 5000 <= nbytes <= 8192


def test_one_fetch_however_many_ask() -> None:
    world = World(can_fetch=True)
    a, b = world.client("a"), world.client("b")
    first, second = world.get(a, 1, sources=["peer"]), world.get(b, 1, sources=["peer"])
    patient = world.get(b, 1, timeout=50.0)
    fetches = [effect for effect in world.effects if isinstance(effect, StartFetch)]
    world.settle()
    fetches = [effect for effect in world.effects if isinstance(effect, StartFetch)]
    assert fetches == [StartFetch(oid(1), ["peer"])]
    world.core.fetch_done(oid(1), "peer is gone")
    reply = world.reply(first)
    assert reply is not None
    assert (reply.status, reply.payload) == (Status.FETCH_FAILED, ("peer is gone",))
    assert world.status(second) is Status.FETCH_FAILED
    assert world.status(patient) is None
    world.put(a, 1, 10)
    assert world.status(patient) is Status.OK


def started(world: World) -> list[list[str]]:
    world.settle()
    return [effect.sources for effect in world.effects if isinstance(effect, StartFetch)]


def test_sources_that_only_a_later_asker_knows_are_tried_too() -> None:
    world = World(can_fetch=True)
    a, b = world.client("a"), world.client("b")
    first = world.get(a, 1, sources=["dead"])
    others = [world.get(b, 1, sources=["dead", "alive"]), world.get(b, 1, sources=["alive", "third"])]
    same = world.get(b, 1, sources=["dead"])
    world.core.fetch_done(oid(1), "dead is gone")
    assert [world.status(request) for request in (first, same)] == [Status.FETCH_FAILED] * 2
    assert [world.status(request) for request in others] == [None, None]
    assert started(world) == [["dead"], ["alive"]]
    world.put(a, 1, 10)
    assert [world.status(request) for request in others] == [Status.OK] * 2
    world.core.fetch_done(oid(1), None)
    assert started(world) == [["dead"], ["alive"]]


def test_no_source_is_tried_twice_for_one_asker() -> None:
    world = World(can_fetch=True)
    a = world.client("a")
    requests = [world.get(a, 1, sources=sources) for sources in (["1"], ["1", "2"], ["2", "1", "3"], ["3"])]
    for number in "123":
        world.core.fetch_done(oid(1), f"{number} is gone")
    assert started(world) == [["1"], ["2"], ["3"]]
    assert [world.status(request) for request in requests] == [Status.FETCH_FAILED] * 4
    assert world.core.stats()["fetches"] == 0
    cancelled = [world.get(a, 2, sources=["1"]), world.get(a, 2, sources=["2"])]
    world.core.fetch_done(oid(2), "cancelled", try_others=False)
    assert [world.status(request) for request in cancelled] == [Status.FETCH_FAILED] * 2


def test_forged_claims_break_the_protocol() -> None:
    world = World()
    a, b = world.client("a"), world.client("b")
    reply = world.reply(world.create(a, 5000))
    assert reply is not None
    offset = reply.payload[0]
    lease, nbytes = world.lease(a, 100, 64 << 10)
    world.put(a, 1, 100)
    with pytest.raises(StoreProtocolError, match="not its own"):
        world.core.seal(b, [item(7, offset, 5000)])
    with pytest.raises(StoreProtocolError, match="were reserved"):
        world.core.seal(a, [item(7, offset, 4999)])
    with pytest.raises(StoreProtocolError, match="not its own"):
        world.core.seal(b, [item(7, lease, 64)])
    with pytest.raises(StoreProtocolError, match="not its own"):
        world.core.seal(a, [item(7, lease + nbytes - 64, 65)])
    with pytest.raises(StoreProtocolError, match="not its own"):
        world.core.seal(a, [item(7, lease + 1, 10)])
    world.core.seal(a, [item(8, lease + 128, 10)])
    with pytest.raises(StoreProtocolError, match="not its own"):
        world.core.seal(a, [item(9, lease, 10)])
    with pytest.raises(StoreProtocolError, match="nothing is reserved"):
        world.core.abort(b, offset)
    named = world.reply(world.create(a, 5000, number=10))
    assert named is not None
    with pytest.raises(StoreProtocolError, match="another object"):
        world.core.seal(a, [item(7, named.payload[0], 5000)])
    with pytest.raises(StoreProtocolError, match="no pin"):
        world.core.unpin(b, [oid(1)])
    with pytest.raises(StoreProtocolError, match="no lease"):
        world.core.lease(b, 99, 1, 1, 0.0, [lease + nbytes])
    world.settle()


class Held:
    """What a pin is to the index."""

    slot = 0


def test_a_share_keeps_its_stretch_when_the_lender_goes() -> None:
    world = World()
    a, b = world.client("a"), world.client("b")
    lent = world.put(a, 1, MIB)
    reply = world.reply(world.create(b, 128))
    assert reply is not None
    own = reply.payload[0]
    request = world.request()
    world.core.share(b, request, item(2, own, 128), 64 + 8192 + 64, [Share(64, oid(1), 4096, 8192)])
    reply = world.reply(request)
    assert reply is not None
    assert reply.payload == (True,)
    assert world.core.stats()["shared_nbytes"] == 8192
    world.core.delete([oid(1)])
    world.settle()
    assert world.core.stats()["used"] == 128 + 8192
    assert world.core.stats()["shared_nbytes"] == 0
    reply = world.reply(world.get(a, 2))
    assert reply is not None
    segments = ((0, own, 64), (64, lent + 4096, 8192), (64 + 8192, own + 64, 64))
    assert reply.payload == (own, 64 + 8192 + 64, None, segments)
    world.core.delete([oid(2)])
    assert world.core.stats()["used"] == 128 + 8192, "somebody looks at it"
    world.core.unpin(a, [oid(2)])
    world.settle()
    assert world.core.stats()["used"] == 0


def test_what_is_shared_has_to_be_there_and_the_lenders() -> None:
    world = World()
    a, b = world.client("a"), world.client("b")
    world.put(a, 1, 10_000)
    offset, _ = world.lease(b, 1000, 4096)
    good = Share(64, oid(1), 0, 5000)
    unknown = world.request()
    world.core.share(b, unknown, item(2, offset, 64), 5064, [good._replace(lender=oid(9))])
    reply = world.reply(unknown)
    assert reply is not None
    assert reply.payload == (False,)
    forged = [good._replace(at=5001), good._replace(at=1 << 60), good._replace(nbytes=0), good._replace(start=0)]
    for share in forged:
        with pytest.raises(StoreProtocolError):
            world.core.share(b, world.request(), item(2, offset, 64), 5064, [share])
        world.core.check()
    for wrong in (item(2, offset, 65), item(2, offset + 1, 64), item(2, 0, 64), item(1, offset, 64, keep=True)):
        with pytest.raises(StoreProtocolError):
            world.core.share(b, world.request(), wrong, 5064, [good])
        world.core.check()
    request = world.create(b, 64, number=3)
    reply = world.reply(request)
    assert reply is not None
    with pytest.raises(StoreProtocolError, match="for the whole of an object"):
        world.core.share(b, world.request(), item(3, reply.payload[0], 64), 5064, [good])
    assert world.core.stats()["objects"] == 1
    world.core.disconnect(b)
    world.core.delete([oid(1)])
    world.settle()
    assert world.core.stats()["used"] == 0


class CoreMachine(RuleBasedStateMachine):
    """Three clients do what they like, come and go; ``check`` holds throughout, and nothing is left at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(capacity=2 * MIB, span=8 * MIB, can_fetch=True, can_spill=True)
        self.clients = [self.world.client(f"client {i}") for i in range(3)]
        self.leases: dict[int, list[int]] = {}
        self.numbers = 0
        self.sharers: set[str] = set()  # they aren't in the index
        self.index = memoryview(bytearray(index_nbytes(self.world.core.index.slots)))
        self.world.core.index.lie_in(self.index)
        self.views = [self.view_of(client) for client in self.clients]
        # What each looks at: number, slot, offset and size.
        self.on_index: list[list[tuple[int | None, int, int, int]]] = [[], [], []]
        self.pinned_at: dict[ObjectID, int] = {}  # where objects were when somebody first asked to look at them
        self.last_unpins: list[int] = []  # that are on their way

    def view_of(self, client: int) -> IndexView:
        index = self.world.core.index
        row = memoryview(bytearray(row_nbytes(index.slots)))
        index.attach(client, row)
        return IndexView(index.slots, self.index, row)

    @rule(which_client=st.integers(0, 2), back=st.integers(0, 8))
    def pin_on_index(self, which_client: int, back: int) -> None:
        number, pin = max(0, self.numbers - back), Held()
        if (place := self.views[which_client].pin(oid(number), pin)) is not None:
            self.on_index[which_client].append((number, pin.slot, *place))
        elif pin.slot:
            self.on_index[which_client].append((None, pin.slot, 0, 0))

    @rule(which_client=st.integers(0, 2))
    def pin_what_is_being_copied(self, which_client: int) -> None:
        for record in self.world.core.describe():
            if record["state"] in ("spilling", "moving") and record["id"] not in self.sharers:
                pin = Held()
                place = self.views[which_client].pin(ObjectID.fromhex(record["id"]), pin)
                assert place is not None
                self.on_index[which_client].append((int(record["id"], 16), pin.slot, *place))

    @rule(which_client=st.integers(0, 2), slot=st.integers(1, 8))
    def pin_by_mistake(self, which_client: int, slot: int) -> None:
        """The slot was another object's when it was found, or the state is read after it changed twice."""
        self.views[which_client]._row[slot] += 1
        self.views[which_client].held += 1
        self.on_index[which_client].append((None, slot, 0, 0))

    @rule(which_client=st.integers(0, 2), which=st.integers(0, 5), at_once=st.booleans())
    def unpin_on_index(self, which_client: int, which: int, at_once: bool) -> None:
        if self.on_index[which_client]:
            _, slot, *_ = self.on_index[which_client].pop(which % len(self.on_index[which_client]))
            if unpin(self.views[which_client], slot):
                self.last_unpins.append(slot)
        if at_once:
            self.last_unpins_arrive()

    @rule()
    def last_unpins_arrive(self) -> None:
        self.world.core.last_unpins(self.last_unpins)
        self.last_unpins.clear()

    @rule(slots=st.lists(st.integers(0, 1 << 40), max_size=3))
    def look_for_nothing(self, slots: list[int]) -> None:
        self.world.core.last_unpins(slots)

    @rule(which_client=st.integers(0, 2), nbytes=st.integers(1, MIB), seal=st.booleans(), keep=st.booleans())
    def put(self, which_client: int, nbytes: int, seal: bool, keep: bool) -> None:
        client = self.clients[which_client]
        reply = self.world.reply(self.world.create(client, nbytes))
        assert reply is not None
        if reply.status is Status.OK and seal:
            self.numbers += 1
            self.world.write(reply.payload[0], nbytes, self.numbers)
            self.world.core.seal(client, [item(self.numbers, reply.payload[0], nbytes, keep=keep)])

    @rule(which_client=st.integers(0, 2), nbytes=st.integers(1, MIB), looks=st.booleans(), deleted=st.booleans())
    def put_open(self, which_client: int, nbytes: int, looks: bool, deleted: bool) -> None:
        """The writer looks at what it has sealed before the server reads the seal."""
        number, view = self.numbers + 1, self.views[which_client]
        reply = self.world.reply(self.world.create(self.clients[which_client], nbytes, number=number))
        assert reply is not None
        if reply.status is not Status.OK:
            return
        self.numbers = number
        for each in self.views:
            pin = Held()
            assert each.pin(oid(number), pin) is None, "it isn't sealed"
            unpin(each, pin.slot)
        if looks:
            view.add_own(oid(number))
            pin = Held()
            assert view.pin(oid(number), pin) == (reply.payload[0], nbytes)
            self.on_index[which_client].append((number, pin.slot, reply.payload[0], nbytes))
        if deleted:
            self.world.core.delete([oid(number)])
        self.world.write(reply.payload[0], nbytes, number)
        self.world.core.seal(self.clients[which_client], [item(number, reply.payload[0], nbytes)])

    @rule(which_client=st.integers(0, 2))
    def fill_up(self, which_client: int) -> None:
        before = -1
        while before < self.numbers:
            before = self.numbers
            self.put(which_client, 300_000, seal=True, keep=False)

    @rule(
        which_client=st.integers(0, 2),
        parts=st.lists(st.tuples(st.integers(0, 8), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4),
        rest=st.integers(0, 100),
    )
    def share(self, which_client: int, parts: list[tuple[int, float, float]], rest: int) -> None:
        """An object with a header, parts of others, and some more of its own."""
        client, core = self.clients[which_client], self.world.core
        reply = self.world.reply(self.world.create(client, 64 + rest))
        assert reply is not None
        if reply.status is not Status.OK:
            return
        offset = reply.payload[0]
        known = {entry["id"]: entry for entry in core.describe() if entry["state"] != "created"}
        lenders = [*known, oid(0).hex()]
        shares, start, states = [], 64, set()
        for back, first, length in parts:
            lender = lenders[-1 - back % len(lenders)]
            entry = known.get(lender, {"nbytes": 100, "state": "nowhere"})
            at = int(first * entry["nbytes"])
            share = Share(start, ObjectID.fromhex(lender), at, max(1, int(length * (entry["nbytes"] - at))))
            states.add(entry["state"])
            shares.append(share)
            start += -(-share.nbytes // 64) * 64
        request = self.world.request()
        end = start + rest if rest else shares[-1].start + shares[-1].nbytes
        try:
            core.share(client, request, item(self.numbers + 1, offset, 64 + rest), end, shares)
        except StoreProtocolError:  # not within one piece of the lender's
            core.abort(client, offset)
            return
        reply = self.world.reply(request)
        assert reply is not None
        if reply.payload == (True,):
            self.numbers += 1
            self.sharers.add(oid(self.numbers).hex())
        else:
            assert not states <= {"sealed", "spilling", "moving"}, "the others are all there"
            core.abort(client, offset)

    @rule(which_client=st.integers(0, 2), nbytes=st.integers(1, MIB), timeout=st.floats(0.1, 5))
    def wait_for_room(self, which_client: int, nbytes: int, timeout: float) -> None:
        self.world.create(self.clients[which_client], nbytes, timeout)

    @rule(which_client=st.integers(0, 2), nbytes=st.integers(1, 60_000), skip=st.integers(0, 3))
    def put_small(self, which_client: int, nbytes: int, skip: int) -> None:
        client = self.clients[which_client]
        lease = self.leases.get(client)
        if lease is None or lease[0] + nbytes + 64 * (skip + 1) > lease[1]:
            done = [lease[2]] if lease is not None and lease[2] else []
            request = self.world.request()
            self.world.core.lease(client, request, nbytes, MIB, 0.0, done)
            self.leases.pop(client, None)
            reply = self.world.reply(request)
            assert reply is not None
            if reply.status is not Status.OK:
                return
            offset, granted = reply.payload
            lease = self.leases[client] = [offset, offset + granted, offset + granted]
        offset = lease[0] + 64 * skip
        if offset + nbytes <= lease[1]:
            self.numbers += 1
            self.world.write(offset, nbytes, self.numbers)
            self.world.core.seal(client, [item(self.numbers, offset, nbytes)])
            lease[0] = offset + -(-nbytes // 64) * 64

    @rule(which_client=st.integers(0, 2), back=st.integers(-2, 8), timeout=st.one_of(st.none(), st.floats(0.1, 5)))
    def get(self, which_client: int, back: int, timeout: float | None) -> None:
        self.world.get(self.clients[which_client], max(0, self.numbers - back), timeout)

    @rule(which_client=st.integers(0, 2), back=st.integers(-2, 8))
    def ask(self, which_client: int, back: int) -> None:
        self.world.ask(self.clients[which_client], max(0, self.numbers - back))

    @rule()
    def others_are_read(self) -> None:
        self.world.read_others()

    @rule(which_client=st.integers(0, 2), back=st.integers(-2, 3), sources=st.lists(st.sampled_from("abc"), min_size=1))
    def fetch(self, which_client: int, back: int, sources: list[str]) -> None:
        self.world.get(self.clients[which_client], max(0, self.numbers - back), None, sources)

    @rule(number=st.integers(0, 30), fine=st.booleans())
    def fetch_ends(self, number: int, fine: bool) -> None:
        self.world.core.fetch_done(oid(number), None if fine else "failed")

    @rule(which_client=st.integers(0, 2), back=st.integers(0, 8))
    def unpin(self, which_client: int, back: int) -> None:
        with contextlib.suppress(StoreProtocolError):
            self.world.core.unpin(self.clients[which_client], [oid(max(0, self.numbers - back))])

    @rule(back=st.integers(-2, 8))
    def delete(self, back: int) -> None:
        self.world.core.delete([oid(max(0, self.numbers - back))])

    @rule(written=st.integers(0, 5), error=st.booleans())
    def a_spill_ends(self, written: int, error: bool) -> None:
        self.world.end_spill(written=written, error="the disk is full" if error else None)

    @rule(done=st.booleans())
    def a_move_ends(self, done: bool) -> None:
        self.world.end_move(done=done)

    @rule(which_client=st.integers(0, 2), back=st.integers(0, 8))
    def wait_for_room_between(self, which_client: int, back: int) -> None:
        """Somebody looks away from all but one object, and somebody waits for half of the room."""
        for view, held in zip(self.views, self.on_index, strict=True):
            while held:
                unpin(view, held.pop()[1])
        self.world.core.last_unpins(range(1, 100))
        self.pin_on_index(which_client, back)
        self.world.create(self.clients[which_client], MIB // 2 + 64 * back, 5.0)

    @rule(error=st.booleans(), lost=st.booleans())
    def a_verification_ends(self, error: bool, lost: bool) -> None:
        if self.world.verifications:
            self.world.end_verification("it is damaged" if error else None, lost=error and lost)

    @rule(seconds=st.floats(0.01, 3))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(which_client=st.integers(0, 2))
    def die(self, which_client: int) -> None:
        client = self.clients[which_client]
        self.world.core.disconnect(client)
        self.leases.pop(client, None)
        self.clients[which_client] = self.world.client("another")
        self.views[which_client] = self.view_of(self.clients[which_client])
        self.on_index[which_client].clear()

    @invariant()
    def the_books_agree(self) -> None:
        self.world.settle()
        found = {entry["id"]: entry for entry in self.world.core.describe() if entry["id"]}
        for number, _, offset, nbytes in itertools.chain(*self.on_index):
            if number is not None:
                assert found[oid(number).hex()]["pins"] > 0, "what somebody looks at is gone"
                assert found[oid(number).hex()]["state"] != "spilled", "what somebody looks at has moved"
                assert self.world.written_at(offset, nbytes) == {number}, "what somebody looks at was written over"
        self.everything_is_what_was_written()
        for entry in found.values():
            if entry["state"] in ("spilled", "doomed"):
                assert not self.views[0].contains(ObjectID.fromhex(entry["id"]))

    def everything_is_what_was_written(self) -> None:
        table = self.world.core._table
        for record in [*table.records(), *table.doomed()]:
            if record.in_file is None and not record.segments:
                number = int.from_bytes(record.object_id, "big")
                assert self.world.written_at(record.offset, record.own_nbytes) == {number}
            if record.pins and record.in_file is None:
                at = self.pinned_at.setdefault(record.object_id, record.offset)
                assert record.offset == at, "what somebody has asked to look at has moved"
            else:
                self.pinned_at.pop(record.object_id, None)

    def teardown(self) -> None:
        for client in self.clients:
            self.world.core.disconnect(client)
        self.world.core.delete([oid(number) for number in range(self.numbers + 1)])
        self.world.end_copies()
        while self.world.verifications:
            self.world.end_verification()
        self.world.settle()
        assert not self.world.in_files
        stats = self.world.core.stats()
        assert (stats["used"], stats["pins"], stats["waiting_gets"], stats["waiting_creates"]) == (0, 0, 0, 0)


TestCore = CoreMachine.TestCase
TestCore.settings = settings(max_examples=150, stateful_step_count=50)
