"""The session over a transport that is no connection: what a client needs of whatever carries its messages."""

from __future__ import annotations

import asyncio
import threading

import pytest

from holdfast import CancelledError, ConnectError
from holdfast.client.core.session import Session
from holdfast.client.core.waits import Ask, Ready
from holdfast.client.drivers.blocking import BLOCKING
from holdfast.cluster import protocol
from holdfast.cluster.errors import ProtocolError
from tests.support.waiting import until

DEADLINE_SECONDS = 20


class Timer:
    def __init__(self, seconds, function):
        self.seconds = seconds
        self.function = function
        self.cancelled = False

    def cancel(self):
        self.cancelled = True

    def __call__(self):
        if not self.cancelled:
            self.function()


class Wire:
    """Carries messages to the test, in the test's thread or any other."""

    def __init__(self):
        self.sent = []
        self.soon = []
        self.call_soon = self.soon.append
        self.closed = self.is_full = self.is_current = False
        self.receiver = None

    def start(self, receiver):
        self.receiver = receiver

    def send(self, messages, queue, taken):
        self.sent += messages
        del queue[taken]

    def read_while(self, waits, timeout):
        return not waits()

    def wake_reader(self):
        pass

    def call_later(self, seconds, function):
        timer = Timer(seconds, function)
        self.soon.append(timer)
        return timer

    def close(self):
        self.closed = True
        self.receiver.on_close(None)

    def leave_to_parent(self):
        self.closed = True

    def turn(self):
        """What the transport's thread does."""
        due = self.soon[:]
        del self.soon[:]
        for function in due:
            function()

    def operations(self):
        return [message[0] for message in self.sent]


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def session(wire):
    session = Session(wire, "tcp://somewhere:1", {"scheduler": {"id": "s"}, "nodes": [{"address": "n"}]})
    session.start()
    return session


def one(effect):
    return (yield effect)


def hold(session, key):
    with session.table.lock:
        state, _ = session.table.state_of(key)
        state.holders += 1
    session.post(protocol.client.WANT((key,)))
    return state


def test_it_knows_what_it_was_welcomed_with(session):
    assert session.scheduler == {"id": "s"}
    assert set(session.nodes) == {"n"}


def test_what_is_posted_leaves_with_the_next_turn_in_order_and_each_once(session, wire):
    hold(session, "a")
    hold(session, "b")
    assert wire.sent == []
    wire.turn()
    wire.turn()
    assert wire.operations()[:3] == ["turn", "want", "want"]
    count = len(wire.sent)
    wire.turn()
    assert len(wire.sent) == count


def test_requests_alone_need_no_turn_and_what_is_posted_after_them_has_its_own(session, wire):
    session.tell(protocol.requests.RELEASE_LOCKS, lease=1)
    session.tell(protocol.requests.RELEASE_LOCKS, lease=2)
    session.send_posted()
    assert wire.operations() == ["request", "request"]
    state = hold(session, "a")
    session.tell(protocol.requests.RELEASE_LOCKS, lease=3)
    session.send_posted()
    assert wire.operations()[2:] == ["turn", "want", "request"]
    assert wire.sent[2][1] == state.since
    session.tell(protocol.requests.RELEASE_LOCKS, lease=4)
    session.send_posted()
    assert wire.operations()[5:] == ["request"]
    later = hold(session, "b")
    session.send_posted()
    assert wire.sent[6:] == [("turn", later.since), ("want", ("b",))]
    assert later.since > state.since


def test_a_report_of_an_earlier_life_of_a_key_is_stale_also_after_requests(session, wire):
    state = hold(session, "a")
    session.send_posted()
    ((_, turn),) = [message for message in wire.sent if message[0] == "turn"]
    session.table.drop(state)
    session.table.settle_all()
    session.send_posted()
    session.tell(protocol.requests.RELEASE_LOCKS, lease=1)
    session.send_posted()
    again = hold(session, "a")
    wire.receiver.on_batch((("cancelled", ("a",), "in its first life", turn),))
    assert again.status == "pending"
    session.send_posted()
    ((_, turn),) = [message for message in wire.sent if message[0] == "turn"][-1:]
    wire.receiver.on_batch((("cancelled", ("a",), "in its second life", turn),))
    assert again.status == "cancelled"


def test_a_transport_that_is_full_keeps_it_waiting(session, wire):
    wire.is_full = True
    hold(session, "a")
    wire.turn()
    assert wire.sent == []
    wire.is_full = False
    wire.receiver.on_room()
    wire.turn()
    assert "want" in wire.operations()


def test_a_question_is_answered(session, wire):
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(BLOCKING.run(one(Ask(session, protocol.requests.WHO_HAS, 20, keys=[]))))
    )
    asking.start()
    until(lambda: "request" in wire.operations(), "it has asked, in its own thread")
    (number,) = [message[1] for message in wire.sent if message[0] == "request"]
    wire.receiver.on_batch((protocol.client.REPLY(number, True, {}),))
    asking.join(DEADLINE_SECONDS)
    assert answers == [{}]


def test_a_question_is_answered_on_a_loop(session, wire):
    async def main():
        asking = asyncio.ensure_future(Ask(session, protocol.requests.WHO_HAS, 20, keys=[]).wait())
        await asyncio.sleep(0)
        (number,) = [message[1] for message in wire.sent if message[0] == "request"]
        threading.Thread(target=wire.receiver.on_batch, args=((protocol.client.REPLY(number, True, {}),),)).start()
        assert await asking == {}
        with pytest.raises(TimeoutError, match=r"has not answered after 0\.01 s"):
            await Ask(session, protocol.requests.WHO_HAS, 0.01, keys=[]).wait()

    asyncio.run(main())


def test_results_end_a_wait(session, wire):
    states = [hold(session, "a"), hold(session, "b")]

    async def main():
        waiting = asyncio.ensure_future(Ready(session, states, DEADLINE_SECONDS).wait())
        first = asyncio.ensure_future(Ready(session, states, DEADLINE_SECONDS, first=True).wait())
        await asyncio.sleep(0)
        wire.receiver.on_batch((protocol.client.MEMORY((("a", bytes(16), 1, b"x", ()),), 10),))
        assert await first
        assert len(states[1].waiters) == 1  # nothing is left of the one that is over
        assert not waiting.done()
        wire.receiver.on_batch((protocol.client.MEMORY((("b", bytes(16), 1, b"x", ()),), 10),))
        assert await waiting

    asyncio.run(main())
    assert BLOCKING.run(one(Ready(session, states, None)))


def test_what_a_coroutine_waits_for_is_sent_at_the_end_of_its_turn_with_all_that_is_posted_then(session, wire):
    """However long the pause is in which the loop waits for more to send: event loops make it longer."""
    wire.is_current = True
    hold(session, "a")
    wire.turn()
    (pause,) = wire.soon
    assert pause.seconds > 0

    async def main():
        waiting = []
        for key in ("b", "c"):
            state = hold(session, key)
            waiting.append(asyncio.ensure_future(Ready(session, [state], DEADLINE_SECONDS).wait()))
            await asyncio.sleep(0)
            assert wire.operations().count("want") == 1
        assert [timer.seconds for timer in wire.soon if not timer.cancelled] == [0]
        wire.turn()
        assert wire.operations().count("want") == 3
        for key in ("b", "c"):
            wire.receiver.on_batch((protocol.client.MEMORY(((key, bytes(16), 1, b"x", ()),), 10),))
        assert await asyncio.gather(*waiting) == [True, True]

    asyncio.run(main())


def test_nothing_waits_in_the_thread_that_would_have_to_hear(session, wire):
    state = hold(session, "a")
    wire.is_current = True
    for effect in (Ready(session, [state], None), Ask(session, protocol.requests.WHO_HAS, keys=[])):
        with pytest.raises(RuntimeError, match="event loop that it would wait for"):
            BLOCKING.run(one(effect))


def test_when_the_transport_ends_every_wait_ends(session, wire):
    ended = []
    session.on_end = lambda: ended.append(1)
    state = hold(session, "a")
    wire.receiver.on_close(OSError("cut"))
    assert ended == [1]
    assert (state.status, type(state.reason)) == ("lost", ConnectError)
    with pytest.raises(ConnectError, match=r"tcp://somewhere:1 was lost: cut"):
        BLOCKING.run(one(Ask(session, protocol.requests.WHO_HAS, keys=[])))


def test_it_is_closed_with_what_was_left_to_say(session, wire):
    state = hold(session, "a")
    session.end("the client was closed")
    assert "want" in wire.operations()
    assert wire.closed
    assert (state.status, type(state.reason)) == ("cancelled", CancelledError)


def test_a_thread_that_waits_leaves_what_is_malformed_to_the_transports(session, wire):
    """What is wrong is said where it ends the connection, and not by the call that happens to read it."""
    for malformed in (("memory",), ("memory", 1, 2), ("memory", ((1,),), 1), ("reply", 1)):
        with pytest.raises(ProtocolError):
            wire.receiver.on_batch_elsewhere((malformed,))
    assert not wire.receiver.on_batch_elsewhere((protocol.client.KEPT(("a",)),))
