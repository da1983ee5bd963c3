"""The core alone, spilling: which objects go to disk and when, what clients are told, and what views do to it."""

from __future__ import annotations

from holdfast.objectstore.client.index_view import IndexView
from holdfast.objectstore.core.spill_policy import SPILL_PAUSE_SECONDS
from holdfast.objectstore.shared.index import index_nbytes, row_nbytes
from holdfast.objectstore.shared.protocol import Share, Status
from tests.objectstore.test_core import MIB, Held, World, item, oid, unpin


def spilling_world(capacity: int = 8 * MIB, span: int = 0) -> World:
    return World(capacity, span=span, can_spill=True)


def test_room_is_made_by_spilling_what_was_used_least_recently() -> None:
    world = spilling_world()
    a, b = world.client("a"), world.client("b")
    for number in range(1, 7):
        world.put(a, number, MIB)
    assert world.status(world.get(b, 1)) is Status.OK
    world.core.unpin(b, [oid(1)])
    waiting = world.create(b, 4 * MIB, timeout=30.0)
    assert world.status(waiting) is None
    world.end_copies()
    assert world.status(waiting) is Status.OK
    assert world.states()["key-1"] == "sealed"
    assert [world.states()[f"key-{number}"] for number in (2, 3, 4, 5)] == ["spilled"] * 4


def test_what_is_looked_at_stays() -> None:
    world = spilling_world()
    a, b = world.client("a"), world.client("b")
    for number in range(1, 7):
        world.put(a, number, MIB)
        world.get(b, number)
    waiting = world.create(a, 4 * MIB, timeout=30.0)
    world.settle()
    assert not world.spills
    world.core.unpin(b, [oid(5)])
    assert not world.end_spill(), "it would make no hole that is large enough"
    world.core.unpin(b, [oid(6)])
    assert world.end_spill()
    assert world.status(waiting) is Status.OK
    assert {key for key, state in world.states().items() if state == "spilled"} == {"key-5", "key-6"}


def test_spilling_goes_on_until_the_free_bytes_are_in_one_piece() -> None:
    world = spilling_world(15 * MIB)
    a, b = world.client("a"), world.client("b")
    for number in range(12):
        world.put(a, number, MIB)
        if number % 3 == 0:
            world.get(b, number)
    waiting = world.create(b, 6 * MIB, timeout=30.0)
    world.end_copies()
    assert world.status(waiting) is None, "no six of them are in one piece"
    world.core.unpin(b, [oid(9)])
    world.end_copies()
    assert world.status(waiting) is Status.OK


def test_a_store_that_fills_up_spills_before_anybody_waits() -> None:
    world = spilling_world(100 * MIB)
    a = world.client("a")
    for number in range(80):
        world.put(a, number, MIB)
    assert not world.spills
    world.put(a, 80, MIB)
    assert world.end_spill()
    assert not world.end_spill()
    assert world.core.stats()["used"] == 70 * MIB
    assert world.core.stats()["spilled_nbytes"] == 11 * MIB


def test_an_object_that_is_got_or_deleted_while_it_is_spilled_is_not_spilled() -> None:
    world = spilling_world()
    a, b = world.client("a"), world.client("b")
    for number in range(1, 4):
        world.put(a, number, 2 * MIB)
    waiting = world.create(b, 8 * MIB, timeout=30.0)
    world.settle()
    assert set(world.states().values()) == {"spilling"}
    reply = world.reply(world.get(b, 1))
    assert reply is not None
    assert reply.payload[2] is None
    world.core.delete([oid(2)])
    assert world.end_spill()
    assert world.states() == {"key-1": "sealed", "key-3": "spilled"}
    assert len(world.in_files) == 1
    assert world.status(waiting) is None
    world.core.unpin(b, [oid(1)])
    assert world.end_spill()
    assert world.status(waiting) is Status.OK


def test_a_spilled_object_is_verified_once_for_all_that_ask() -> None:
    world = spilling_world()
    a, b = world.client("a"), world.client("b")
    world.put(a, 1, 5 * MIB)
    world.create(a, 8 * MIB, timeout=1.0)
    world.end_spill()
    first, second = world.get(a, 1), world.get(b, 1)
    gone = world.client("gone")
    world.get(gone, 1)
    world.core.disconnect(gone)
    assert world.status(first) is None
    assert len(world.verifications) == 1
    world.core.delete([oid(1)])
    world.settle()
    assert len(world.in_files) == 1, "a file was dropped under clients that wait to read it"
    world.end_verification()
    for client, request in ((a, first), (b, second)):
        reply = world.reply(request)
        assert reply is not None
        assert (reply.status, reply.payload) == (Status.OK, (0, 5 * MIB, "file-1", None))
        world.core.unpin(client, [oid(1)])
    world.settle()
    assert not world.in_files


def test_a_damaged_file_loses_its_object_and_the_id_may_come_again() -> None:
    world = spilling_world()
    a, b = world.client("a"), world.client("b")
    world.put(a, 1, 5 * MIB)
    world.create(a, 8 * MIB, timeout=1.0)
    world.end_spill()
    requests = [world.get(client, 1) for client in (a, b)]
    world.settle()
    world.end_verification("file-1 is damaged", lost=True)
    for request in requests:
        reply = world.reply(request)
        assert reply is not None
        assert reply.status is Status.UNREADABLE
        assert reply.payload == ("file-1 is damaged",)
    assert not world.in_files
    missed = world.get(a, 1)
    world.read_others()
    assert world.status(missed) is Status.NOT_FOUND
    world.core.disconnect(a)
    world.put(b, 1, 100)
    assert world.status(world.get(b, 1)) is Status.OK


def test_when_spilling_fails_it_pauses_and_a_full_store_says_why() -> None:
    world = spilling_world()
    a, b = world.client("a"), world.client("b")
    for number in range(1, 4):
        world.put(a, number, 2 * MIB)
    waiting = world.create(b, 8 * MIB, timeout=SPILL_PAUSE_SECONDS + 1)
    world.end_spill(written=1, error="/disk: it is full")
    assert sorted(world.states().values()) == ["sealed", "sealed", "spilled"]
    assert not world.spills
    reply = world.reply(world.create(a, 8 * MIB))
    assert reply is not None
    assert reply.status is Status.FULL
    assert reply.payload[0].endswith("client 'a' 4.2 MB (2 objects); spilling to disk failed: /disk: it is full")
    assert world.status(waiting) is None
    world.pass_time(SPILL_PAUSE_SECONDS)
    assert world.end_spill()
    assert world.status(waiting) is Status.OK
    assert world.core.stats()["spill_error"] is None


class Viewer:
    """A client that looks at objects on the object_index."""

    def __init__(self, world: World, name: str) -> None:
        object_index = world.core.index
        index = memoryview(bytearray(index_nbytes(object_index.slots)))
        object_index.lie_in(index)
        row = memoryview(bytearray(row_nbytes(object_index.slots)))
        self.world = world
        self.client = world.client(name)
        self.view = IndexView(object_index.slots, index, row)
        object_index.attach(self.client, row)

    def look_at(self, number: int) -> int:
        """Its slot, or 0 if it can't be looked at without asking."""
        held = Held()
        place = self.view.pin(oid(number), held)
        assert (place is None) == (held.slot == 0)
        return held.slot

    def look_away(self, slot: int) -> bool:
        """Whether the store is told, since it waits for that."""
        if not unpin(self.view, slot):
            return False
        self.world.core.last_unpins([slot])
        self.world.settle()
        return True


def test_what_is_looked_at_in_the_index_stays_and_its_end_is_told() -> None:
    world = spilling_world()
    viewer, a = Viewer(world, "viewer"), world.client("a")
    for number in range(1, 4):
        world.put(a, number, 2 * MIB)
    slots = [viewer.look_at(number) for number in range(1, 4)]
    assert not viewer.look_away(slots[2]), "nobody waits for it yet"
    slots[2] = viewer.look_at(3)
    waiting = world.create(a, 4 * MIB, timeout=30.0)
    world.settle()
    assert not world.spills
    again = viewer.look_at(1)
    assert again == slots[0], "what is waited for is found as ever"
    assert not viewer.look_away(again), "one more"
    assert viewer.look_away(slots[0])
    assert not world.end_spill(), "it would make no hole that is large enough"
    assert viewer.look_away(slots[1])
    world.end_copies()
    assert world.status(waiting) is Status.OK
    assert world.states() == {"key-1": "spilled", "key-2": "spilled", "key-3": "sealed", None: "created"}
    assert viewer.look_at(1) == 0, "it was moved: the server knows where to"
    assert viewer.look_at(3) == slots[2]


def test_a_view_that_is_taken_while_an_object_is_copied_keeps_it_in_memory() -> None:
    world = spilling_world()
    viewer, a = Viewer(world, "viewer"), world.client("a")
    world.put(a, 1, 5 * MIB)
    waiting = world.create(a, 8 * MIB, timeout=30.0)
    world.settle()
    assert world.states()["key-1"] == "spilling"
    slot = viewer.look_at(1)
    assert slot, "reading does the copy no harm"
    assert world.end_spill()
    assert world.states()["key-1"] == "sealed"
    assert not world.in_files, "the copy was in vain"
    assert world.status(waiting) is None
    assert not world.spills, "it isn't tried again and again"
    other = viewer.look_at(1)
    assert other == slot
    assert not viewer.look_away(other)
    assert viewer.look_away(slot)
    assert world.end_spill()
    assert world.status(waiting) is Status.OK


def test_an_object_that_is_deleted_while_it_is_copied_lives_while_it_is_looked_at() -> None:
    world = spilling_world()
    viewer, a = Viewer(world, "viewer"), world.client("a")
    world.put(a, 1, 5 * MIB)
    waiting = world.create(a, 8 * MIB, timeout=30.0)
    world.settle()
    slot = viewer.look_at(1)
    world.core.delete([oid(1)])
    assert world.end_spill()
    assert world.states() == {"key-1": "doomed"}
    assert not world.in_files
    assert viewer.look_away(slot)
    assert world.status(waiting) is Status.OK


def test_what_was_looked_at_in_the_index_gets_a_second_chance() -> None:
    world = spilling_world(100 * MIB)
    viewer, a = Viewer(world, "viewer"), world.client("a")
    for number in range(80):
        world.put(a, number, MIB)
    for number in (1, 3):
        viewer.look_away(viewer.look_at(number))
    world.put(a, 80, MIB)
    world.end_copies()
    gone = [number for number in range(81) if world.states()[f"key-{number}"] == "spilled"]
    assert gone == [0, 2, *range(4, 13)]
    world.create(a, 100 * MIB, timeout=30.0)
    world.end_copies()
    assert set(world.states().values()) == {"spilled", "created"}


def test_a_client_that_waits_for_the_room_of_a_dead_viewer_is_served() -> None:
    world = spilling_world()
    viewer, a = Viewer(world, "viewer"), world.client("a")
    world.put(a, 1, 5 * MIB)
    viewer.look_at(1)
    waiting = world.create(a, 8 * MIB, timeout=30.0)
    world.settle()
    assert not world.spills
    world.core.disconnect(viewer.client)
    assert world.end_spill()
    assert world.status(waiting) is Status.OK


def test_a_pin_that_was_asked_for_outlasts_one_in_the_index() -> None:
    world = spilling_world()
    viewer, a = Viewer(world, "viewer"), world.client("a")
    world.put(a, 1, 5 * MIB)
    slot = viewer.look_at(1)
    waiting = world.create(a, 8 * MIB, timeout=30.0)
    world.settle()
    assert world.status(world.get(a, 1)) is Status.OK
    viewer.look_away(slot)
    assert not world.end_spill()
    world.core.unpin(a, [oid(1)])
    assert world.end_spill()
    assert world.status(waiting) is Status.OK


def test_a_full_store_names_the_readers_of_what_stands_in_the_way() -> None:
    world = spilling_world()
    viewer, a, b = Viewer(world, "viewer"), world.client("a"), world.client("b")
    for number in range(1, 4):
        world.put(a, number, 2 * MIB)
        viewer.look_at(number)
    world.get(b, 1)
    reply = world.reply(world.create(a, 8 * MIB))
    assert reply is not None
    assert reply.status is Status.FULL
    assert reply.payload[0].endswith(
        "6.3 MB can't go to disk while it's looked at, most of it by 'viewer' 6.3 MB, 'b' 2.1 MB"
    )


def test_of_objects_that_share_their_bytes_no_more_go_than_have_to() -> None:
    world = spilling_world(8 * MIB)
    a = world.client("a")
    own, _ = world.lease(a, 64, 4096)
    world.put(a, 1, 4 * MIB)
    for number in range(8):  # each has half a MiB of one that is gone, the first one its end
        share = Share(64, oid(1), (7 - number) * MIB // 2, MIB // 2)
        world.core.share(a, world.request(), item(2 + number, own + 64 * number, 64), 64 + MIB // 2, [share])
    world.core.delete([oid(1)])
    waiting = world.create(a, 5 * MIB, timeout=30.0)
    assert world.end_spill()
    assert world.status(waiting) is Status.OK
    assert world.core.stats()["spilled"] == 3, world.core.stats()


def test_objects_that_have_all_their_bytes_in_common_go_together() -> None:
    world = spilling_world(8 * MIB)
    a = world.client("a")
    own, _ = world.lease(a, 64, 4096)
    world.put(a, 1, 4 * MIB)
    for number in (2, 3):
        share = Share(64, oid(1), 0, 4 * MIB)
        world.core.share(a, world.request(), item(number, own + 64 * number, 64), 64 + 4 * MIB, [share])
    waiting = world.create(a, 7 * MIB, timeout=30.0)
    world.end_copies()
    assert world.status(waiting) is Status.OK
    assert world.core.stats()["spilled"] == 3
    assert world.core.stats()["shared_nbytes"] == 0


def test_what_went_to_disk_meanwhile_is_not_shared() -> None:
    world = spilling_world(8 * MIB)
    a, b = world.client("a"), world.client("b")
    own, _ = world.lease(b, 64, 4096)
    world.put(a, 1, MIB)
    world.create(a, 7 * MIB + 1, timeout=0.5)
    assert world.end_spill()
    for deleted in (False, True):
        if deleted:
            world.get(b, 1)
            world.end_verification()
            world.core.delete([oid(1)])
        request = world.request()
        world.core.share(b, request, item(2, own, 64), 64 + 8192, [Share(64, oid(1), 0, 8192)])
        reply = world.reply(request)
        assert reply is not None
        assert reply.payload == (False,)
    assert not world.core.contains(oid(2))
