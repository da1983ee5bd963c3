"""Which peer is heard next: pieces, turns, and the order of what one peer says."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.cluster.comm.loops import run
from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.cutting import pieces
from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.scheduler.io import inbox as inbox_module
from holdfast.cluster.scheduler.io.inbox import Inbox, Inboxes


class Pretended:
    """A connection that notes whether it is read from."""

    peer = "tcp://127.0.0.1:1"

    def __init__(self):
        self.reading = True
        self.error = None

    def pause(self):
        self.reading = False

    def resume(self):
        self.reading = True

    def abort(self, error):
        self.error = error


class Clock:
    """Time passes when a message is handled: as much as a turn has."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(inbox_module, "time", clock)
    return clock


def make(log, clock, name="", fail=()):
    connection = Pretended()

    def handle(message):
        clock.now += inbox_module.TURN_SECONDS
        log.append((name, *message[:1], len(message[1]) if len(message) > 1 else 0))
        for error in fail:
            raise error

    return Inbox(connection, handle, lambda error: log.append((name, "left", 0))), connection


def test_what_does_not_fit_into_a_turn_goes_on_in_the_next_and_others_are_heard_in_between(clock):
    async def main():
        log = []
        inboxes = Inboxes()
        one, connection = make(log, clock, "one")
        other, other_connection = make(log, clock, "other")
        inboxes.received(one, [("release", list(range(3 * MAX_ITEMS)))])
        assert log == [("one", "release", MAX_ITEMS)]
        assert not connection.reading
        inboxes.received(other, [("release", [1])])
        while len(log) < 4:
            await asyncio.sleep(0)
        assert log.index(("other", "release", 1)) == 2
        assert log.count(("one", "release", MAX_ITEMS)) == 3
        assert connection.reading
        assert other_connection.reading

    run(main())


def test_a_peer_that_says_little_in_several_messages_waits_for_one_turn_of_one_that_says_much(clock):
    """Each of the two has its share of a turn, however many messages that is."""

    async def main():
        log = []

        def handle_much(message):
            log.append("much")
            clock.now += inbox_module.TURN_SECONDS

        def handle_little(message):
            log.append("little")
            clock.now += inbox_module.SHARE_SECONDS / 10

        inboxes = Inboxes()
        much, little = Inbox(Pretended(), handle_much, None), Inbox(Pretended(), handle_little, None)
        inboxes.received(much, [("release", [1])] * 10)
        inboxes.received(little, [("turn", 1), ("release", [1]), ("turn", 2), ("request", 1)])
        while len(log) < 14:
            await asyncio.sleep(0)
        first = log.index("little")
        assert first <= 2
        assert log[first : first + 4] == ["little"] * 4

    run(main())


def test_a_peer_that_says_much_in_short_messages_has_no_more_of_a_turn_than_its_share(clock):
    async def main():
        log = []

        def note(name):
            def handle(message):
                log.append(name)
                clock.now += inbox_module.SHARE_SECONDS / 10

            return handle

        inboxes = Inboxes()
        one, other = Inbox(Pretended(), note("one"), None), Inbox(Pretended(), note("other"), None)
        one.add([("turn", n) for n in range(100)])
        inboxes.received(other, [("turn", 1)])  # which is handled at once
        inboxes.go_on(one)
        inboxes.received(other, [("turn", 2)])
        while len(log) < 102:
            await asyncio.sleep(0)
        assert log[0] == "other"
        assert log[1:].index("other") <= 12

    run(main())


def test_what_else_the_loop_does_in_a_turn_takes_nothing_from_the_time_for_messages(clock):
    async def main():
        log = []

        def handle(message):
            log.append(message[0])
            clock.now += inbox_module.TURN_SECONDS / 4

        inboxes = Inboxes()
        one, other = Inbox(Pretended(), handle, None), Inbox(Pretended(), handle, None)
        inboxes.received(one, [("want", [1])])
        clock.now += 1.0  # in the same turn
        inboxes.received(other, [("release", [1])])
        assert log == ["want", "release"]

    run(main())


def test_a_turn_is_one_turn_of_the_loop_however_often_its_clock_is_looked_at(clock):
    async def main():
        loop = asyncio.get_running_loop()
        log = []

        def handle(message):
            log.append(message[0])
            clock.now += inbox_module.TURN_SECONDS
            began = loop.time()
            while loop.time() == began:
                loop.call_later(1, log.append, "late").cancel()  # uvloop looks at the clock for it

        inboxes = Inboxes()
        one, other = (Inbox(Pretended(), handle, None) for _ in range(2))
        inboxes.received(one, [("want", [1])])
        inboxes.received(other, [("release", [1])])
        assert log == ["want"]
        while len(log) < 2:
            await asyncio.sleep(0)
        assert log == ["want", "release"]

    run(main())


def test_a_peer_has_left_when_all_has_been_handled_that_it_had_sent(clock):
    async def main():
        log = []
        inboxes = Inboxes()
        one, _ = make(log, clock)
        inboxes.received(one, [("want", [1]), ("release", [1]), ("want", [1, 2])])
        inboxes.ended(one, None)
        while len(log) < 4:
            await asyncio.sleep(0)
        assert [operation for _, operation, _ in log] == ["want", "release", "want", "left"]

    run(main())


@pytest.mark.parametrize("error", [ProtocolError("no"), RuntimeError("a fault of its own")])
def test_a_message_that_can_not_be_handled_ends_its_connection_and_takes_those_behind_it_along(clock, error):
    async def main():
        log = []
        inboxes = Inboxes()
        one, connection = make(log, clock, fail=[error])
        inboxes.received(one, [("want", [1]), ("want", [2])])
        assert connection.error is error
        inboxes.ended(one, error)
        while ("", "left", 0) not in log:
            await asyncio.sleep(0)
        assert log == [("", "want", 1), ("", "left", 0)]

    run(main())


def test_leaving_that_fails_does_no_harm_to_others(clock, caplog):
    async def main():
        log = []
        inboxes = Inboxes()
        one, _ = make(log, clock)

        def leave(error):
            raise RuntimeError("a fault of its own")

        inboxes.ended(Inbox(Pretended(), None, leave), None)
        inboxes.received(one, [("want", [1])])
        assert log

    run(main())
    assert "taking leave" in caplog.text


def test_pieces_say_the_same_one_after_the_other():
    keys = list(range(2 * MAX_ITEMS + 1))
    cut = list(pieces(("cancel", keys, True, None, "")))
    assert [message[0] for message in cut] == ["cancel"] * 3
    assert all(message[2] is True for message in cut)
    assert [key for message in cut for key in message[1]] == keys


@pytest.mark.parametrize(
    "message",
    [
        ("release", [1]),
        ("release",),
        ("release", 5),
        ("submit", list(range(MAX_ITEMS + 1)), [1], {}),
        ("submit", list(range(MAX_ITEMS + 1))),
        ("request", 1, "info", {}),
    ],
)
def test_what_can_not_be_cut_stays_whole(message):
    assert list(pieces(message)) == [message]
