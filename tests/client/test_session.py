"""The session over a transport that is no connection: what a client needs of whatever carries its messages."""

from __future__ import annotations

import asyncio
import threading

import pytest

from holdfast import CancelledError, ConnectError
from holdfast.client.core import session as session_module
from holdfast.client.core.answers import Answer
from holdfast.client.core.calls import Call
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
        self.closed = self.is_full = self.is_current = self.is_broken = False
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


# -- another scheduler


def asking(session, request, **arguments):
    """What asks in a thread of its own."""
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(BLOCKING.run(one(Ask(session, request, None, **arguments)))), daemon=True
    )
    before = len(session._answers)
    thread.start()
    until(lambda: len(session._answers) > before and list(session._answers.values())[-1].asked_again() is not None)
    return thread, answers


def said_to_the_next(session, wire):
    """What the session says when it goes on with another scheduler, after what was posted before."""
    session.send_posted(100)
    count = len(wire.sent)
    session.on_rejoin({"scheduler": {"id": "s", "pid": 2, "epoch": "s/2"}, "nodes": []})
    while session._has_posted:
        session.send_posted(100)
    return wire.sent[count:]


def test_another_scheduler_is_told_all_keys_that_are_held(session, wire, monkeypatch):
    states = [hold(session, f"key-{number}") for number in range(1201)]
    session.table.cancelled(["key-0"], CancelledError("gone"))
    said = said_to_the_next(session, wire)
    pieces = [message for message in said if message[0] == "rejoined"]
    assert [len(keys) for _, _, keys, _, _ in pieces] == [500, 500, 200]
    assert [is_last for _, _, _, is_last, _ in pieces] == [False, False, True]
    assert {key for _, _, keys, _, _ in pieces for key in keys} == {state.key for state in states[1:]}
    assert session.scheduler["pid"] == 2


def test_without_keys_one_message_says_so(session, wire):
    said = said_to_the_next(session, wire)
    assert [message for message in said if message[0] == "rejoined"] == [("rejoined", "s/2", [], True, [])]


def test_requests_without_an_answer_are_posed_again_with_the_time_that_is_left(session, wire):
    first, first_answers = asking(session, protocol.requests.WHO_HAS, keys=["a"])
    second, second_answers = asking(session, protocol.requests.WAIT_FOR_EVENT, name="e", wait=1, timeout=50.0)
    posed = [message for message in wire.sent if message[0] == "request"]
    # The beginning of an answer, of which no more will come.
    session.on_batch((("part", posed[0][1], {"a": ["lost"]}),))
    said = said_to_the_next(session, wire)
    again = [message for message in said if message[0] == "request"]
    assert [message[1] for message in again] == [message[1] for message in posed]
    assert again[0] == posed[0]
    assert 0 < again[1][3]["timeout"] < 50.0
    session.on_batch((("reply", again[0][1], True, {"a": ["n"]}), ("reply", again[1][1], True, True)))
    for thread in (first, second):
        thread.join(DEADLINE_SECONDS)
    assert first_answers == [{"a": ["n"]}]
    assert second_answers == [True]
    assert [message for message in said_to_the_next(session, wire) if message[0] == "request"] == []


def test_what_some_have_answered_is_kept_when_all_are_asked_again(session, wire):
    """Another scheduler knows nothing of that: it can only say what the others have come to, or that nobody knows."""
    asking_all, answers = asking(session, protocol.requests.ERRAND, operation="run", arguments={})
    (number,) = session._answers
    session.on_batch((("part", number, {"a": {"value": 1}}), ("part", number, {"b": {"key": "large"}})))
    said = said_to_the_next(session, wire)
    assert [message[2] for message in said if message[0] == "rejoined"] == [["large"]], "its client keeps what it got"
    for address in "abc":
        session.on_batch((("part", number, {address: {"error": ["ConnectError", "unknown"]}}),))
    session.on_batch((("reply", number, True, {}),))
    asking_all.join(DEADLINE_SECONDS)
    assert answers == [{"a": {"value": 1}, "b": {"key": "large"}, "c": {"error": ["ConnectError", "unknown"]}}]


def test_what_is_given_up_while_all_is_posed_again_is_given_up_behind_that(session, wire, monkeypatch):
    """Else the scheduler would hear that a lease is given up, and then be asked for it."""
    thread, _ = asking(session, protocol.requests.GET, name="q", lease=7)
    (answer,) = session._answers.values()
    gives_up = threading.Event()

    def give_up():
        answer.give(True, {"items": (), "left": 0})
        session._wake_reader()
        thread.join(DEADLINE_SECONDS)
        session.tell(protocol.requests.GIVE_UP_ITEMS, lease=7)
        gives_up.set()

    def asked_again(answer, original=Answer.asked_again):
        asked = original(answer)
        threading.Thread(target=give_up, daemon=True).start()
        gives_up.wait(0.2)  # which it is not, as long as others are posed
        return asked

    monkeypatch.setattr(Answer, "asked_again", asked_again)
    session.send_posted(100)
    count = len(wire.sent)
    session.on_rejoin({"scheduler": {"id": "s", "pid": 2, "epoch": "s/2"}, "nodes": []})
    assert gives_up.wait(DEADLINE_SECONDS)
    session.send_posted(100)
    assert [message[2] for message in wire.sent[count:] if message[0] == "request"] == ["get", "give-up-items"]


def test_what_is_said_of_an_answer_after_it_is_no_part_of_it(session):
    thread, answers = asking(session, protocol.requests.WHO_HAS, keys=["a"])
    (number,) = session._answers
    answer = session._answers[number]
    answer.give(True, {"a": ["n"]})
    answer.begin({"a": ["twice"]})
    session._wake_reader()
    thread.join(DEADLINE_SECONDS)
    assert answers == [{"a": ["n"]}]


def test_topics_are_subscribed_to_again(session, wire):
    session.subscriptions.put("topic", lambda told: None)
    said = said_to_the_next(session, wire)
    assert [message[2:] for message in said if message[0] == "request"] == [("subscribe", {"topic": "topic"})]


def test_calls_without_an_answer_are_made_again_in_their_order(session, wire):
    calls = [Call(f"call-{number}", (), session.table) for number in range(3)]
    for number, call in enumerate(calls):
        session.calls.begin(number % 2, "method", b"payload", [], call)
    session.send_posted()
    made = [message for message in wire.sent if message[0] == "call"]
    session.on_batch((("called", ((1, True, b"value", None, "", ()),)),))
    said = said_to_the_next(session, wire)
    (rejoined,) = [message for message in said if message[0] == "rejoined"]
    assert rejoined[4] == [2, 3]
    assert [message for message in said if message[0] == "call"] == made[1:]
    assert said.index(rejoined) < said.index(made[1])


def test_nodes_are_known_on_while_the_scheduler_waits_for_them(session):
    session.on_rejoin({"scheduler": {"recovering": True}, "nodes": [{"address": "m"}]})
    assert set(session.nodes) == {"n", "m"}
    session.on_rejoin({"scheduler": {"recovering": False}, "nodes": [{"address": "m"}]})
    assert set(session.nodes) == {"m"}


def test_a_request_that_was_given_a_time_does_not_wait_longer_for_a_scheduler_that_is_away(session, wire, monkeypatch):
    monkeypatch.setattr(session_module, "ANSWER_SECONDS", 0.01)
    wire.is_broken = True
    with pytest.raises(TimeoutError, match="there is no connection with it at tcp://somewhere:1"):
        session.ask(protocol.requests.WAIT_FOR_EVENT, None, name="e", wait=1, timeout=0.01)

    async def main():
        with pytest.raises(TimeoutError, match="there is no connection"):
            await session.ask_on_loop(protocol.requests.WAIT_FOR_EVENT, None, name="e", wait=1, timeout=0.01)
        # One that is there is slow, and answers in the end.
        wire.is_broken = False
        waiting = asyncio.ensure_future(
            session.ask_on_loop(protocol.requests.WAIT_FOR_EVENT, None, name="e", wait=1, timeout=0.0)
        )
        while not session._answers:
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        (number,) = session._answers
        session.on_batch((("reply", number, True, False),))
        assert await waiting is False

    asyncio.run(main())
