"""What a definition gives: messages to send, tables of handlers, lists that are cut."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest
from messages import Maker

from holdfast.cluster.comm import frames
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol import client, cutting, requests, worker
from holdfast.cluster.protocol.client import FROM_CLIENT
from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.protocol.message import Answering, Carrier, Dispatch, Message, Request, RequestError, Vocabulary
from holdfast.cluster.protocol.shapes import Integer, Listed, Maybe, Nothing
from holdfast.cluster.protocol.vocabularies import VOCABULARIES

MESSAGES = [message for vocabulary in VOCABULARIES for message in vocabulary]
NAMES = [
    f"{vocabulary.speaker} {vocabulary.hearer} {message.operation}"
    for vocabulary in VOCABULARIES
    for message in vocabulary
]
COUNT, SAY, STOP = (
    Message("count", "Counts.", cut="numbers", unless="whole", numbers=Listed(Integer()), whole=Maybe(Integer())),
    Message("say", "Says.", number=Integer()),
    Message("stop", "Stops."),
)
WORDS = Vocabulary("a tester", "a test", COUNT, SAY, STOP)


# -- to send


@pytest.mark.parametrize("message", MESSAGES, ids=NAMES)
def test_a_message_is_built_by_a_call_of_its_definition(message):
    right = Maker(random.Random(message.operation)).message(message)
    assert message(*right[1:]) == right
    assert message.fields_of(right) == right[1:]
    with pytest.raises(TypeError, match=message.operation):
        message(*right)
    assert message.meaning.endswith(".")


def test_a_message_of_another_kind_has_no_fields_of_this_one():
    assert SAY.fields_of(STOP()) is None
    assert STOP.fields_of(STOP()) == ()
    assert STOP.is_in([SAY(1), STOP()])
    assert not STOP.is_in([SAY(1), SAY(2)])


def test_a_definition_names_fields_of_its_own():
    with pytest.raises(ValueError, match="cut='none'"):
        Message("say", "Says.", cut="none", number=Integer())
    with pytest.raises(ValueError, match="unless='none'"):
        Message("say", "Says.", unless="none", number=Integer())
    with pytest.raises(ValueError, match="two messages of one name"):
        Vocabulary("a tester", "a test", SAY, Message("say", "Again."))


def test_a_request_is_built_with_the_names_of_its_arguments():
    assert requests.WAIT_FOR_WORKERS(n=1) == ("wait-for-workers", {"n": 1})
    with pytest.raises(TypeError, match="number"):
        requests.WAIT_FOR_WORKERS(n=1, number=2)
    with pytest.raises(TypeError, match="lacks n"):
        requests.WAIT_FOR_WORKERS(timeout=1)


# -- to receive


def dispatch(**options):
    heard = []
    handlers = {
        COUNT: lambda *fields: heard.append(("count", fields)),
        SAY: lambda *fields: heard.append(("say", fields)) or "said",
        STOP: lambda *fields: heard.append(("stop", fields)),
    }
    return Dispatch(WORDS, handlers, **options), heard


def test_a_handler_gets_the_fields_behind_what_the_caller_gives():
    take, heard = dispatch()
    assert take(("say", 3)) == "said"
    assert take(("say", 4), "a peer") == "said"
    take(("stop",), "a peer")
    assert heard == [("say", (3,)), ("say", ("a peer", 4)), ("stop", ("a peer",))]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (("say", "x"), r"say\.number"),
        (("say",), r"say: number expected"),
        (("count", (1, -1), None), r"count\[1\]"),
        (("sing", 1), "a tester sent an unknown message, 'sing'"),
    ],
)
def test_a_malformed_message_reaches_no_handler(message, text):
    take, heard = dispatch()
    with pytest.raises(ProtocolError, match=text):
        take(message, "a peer")
    assert not heard


def test_a_table_that_lacks_a_handler_or_has_one_for_nothing_can_not_be_made():
    with pytest.raises(ValueError, match=r"no handler for .*stop"):
        Dispatch(WORDS, {COUNT: print, SAY: print})
    with pytest.raises(ValueError, match=r"a tester doesn't send .*submit"):
        Dispatch(WORDS, {COUNT: print, SAY: print, STOP: print, client.SUBMIT: print})


def test_a_table_of_some_messages_says_what_becomes_of_the_others():
    others = []
    take = Dispatch(WORDS, {SAY: lambda number: None}, otherwise=lambda *said: others.append(said))
    take(("stop",), "a peer")
    take(("say", 1))
    assert others == [("a peer", ("stop",))]
    with pytest.raises(ProtocolError, match="unknown message"):
        take(("sing",))
    with pytest.raises(ProtocolError, match="stop: nothing expected"):
        take(("stop", 1))


WAIT = Request("wait", "Waits.", needed={"n": Integer()}, known={"seconds": Integer()}, answer=Nothing())
LOOK = Request("look", "Looks.", answer=Nothing())


def test_a_request_reaches_its_handler_with_the_arguments_by_name():
    heard = []
    answer = Answering(
        (WAIT, LOOK),
        {WAIT: lambda peer, n, seconds=7: heard.append((peer, n, seconds)), LOOK: lambda peer: heard.append(peer)},
    )
    answer("wait", {"n": 1}, "a peer")
    answer("wait", {"n": 1, "seconds": 2}, "a peer")
    answer("look", {}, "a peer")
    assert heard == [("a peer", 1, 7), ("a peer", 1, 2), "a peer"]
    for operation, arguments, text in [
        ("wait", {}, r"wait\.n is missing"),
        ("wait", {"n": "x"}, r"wait\.n: "),
        ("look", {"n": 1}, "look has an unknown field, 'n'"),
        ("sing", {}, "no request 'sing'"),
    ]:
        with pytest.raises(RequestError, match=text):
            answer(operation, arguments, "a peer")
    assert len(heard) == 3
    assert "wait" in answer
    assert "sing" not in answer


def test_a_table_of_requests_is_whole_too():
    with pytest.raises(ValueError, match=r"no handler for .*look"):
        Answering((WAIT, LOOK), {WAIT: print})
    with pytest.raises(ValueError, match=r"nobody asks .*look"):
        Answering((WAIT,), {WAIT: print, LOOK: print})


def test_an_error_inside_a_handler_is_no_error_of_the_request():
    def handle():
        raise ProtocolError("of something else")

    with pytest.raises(ProtocolError) as caught:
        Answering((LOOK,), {LOOK: handle})("look", {})
    assert not isinstance(caught.value, RequestError)


# -- to be cut


def long(message):
    """A message whose list is longer than one may be."""
    right = list(Maker(random.Random(message.operation)).message(message))
    names = [None, *message.fields]
    if message.unless is not None:
        right[names.index(message.unless)] = None
    place = names.index(message.cut)
    right[place] = tuple([number.to_bytes(16, "big") for number in range(2 * MAX_ITEMS + 7)])
    return place, tuple(right)


CUT = [(name, message) for name, message in zip(NAMES, MESSAGES, strict=True) if message.cut is not None]


@pytest.mark.parametrize("message", [message for _, message in CUT], ids=[name for name, _ in CUT])
def test_a_long_list_goes_in_pieces_that_say_the_same(message):
    place, whole = long(message)
    pieces = list(cutting.pieces(whole))
    assert [len(piece[place]) for piece in pieces] == [MAX_ITEMS, MAX_ITEMS, 7]
    assert sum([piece[place] for piece in pieces], ()) == whole[place]
    assert {(*piece[:place], *piece[place + 1 :]) == (*whole[:place], *whole[place + 1 :]) for piece in pieces} == {
        True
    }


def test_of_several_messages_only_the_long_ones_are_cut():
    _, whole = long(client.RELEASE)
    short = client.RELEASE(["a"])
    assert cutting.in_pieces([short, whole, short]) == [short, *cutting.pieces(whole), short]
    assert cutting.in_pieces([]) == []


@pytest.mark.parametrize("message", [m for m in MESSAGES if m.cut is None and not isinstance(m, Carrier)], ids=repr)
def test_a_message_that_says_nothing_of_being_cut_is_not(message):
    right = list(Maker(random.Random(0)).message(message))
    for place in range(1, len(right)):
        many = (*right[:place], tuple(range(2 * MAX_ITEMS)), *right[place + 1 :])
        if message.operation not in {other.operation for _, other in CUT}:
            assert list(cutting.pieces(many)) == [many]


def test_what_a_message_carries_is_cut_as_it_would_be_by_itself():
    place, whole = long(client.RELEASE)
    pieces = list(cutting.pieces(worker.FROM_TASKS(*whole)))
    assert pieces == [worker.FROM_TASKS(*piece) for piece in cutting.pieces(whole)]
    assert len(pieces) > 1
    assert list(cutting.pieces(("tasks",))) == [("tasks",)]
    assert place == 1


def test_a_submit_that_wants_some_of_its_tasks_stays_whole():
    _, whole = long(client.SUBMIT)
    some = (*whole[:2], ("x",), whole[3])
    assert list(cutting.pieces(some)) == [some]


def test_the_list_that_is_cut_may_stand_anywhere(monkeypatch):
    """On the wire too, where a message is cut by its bytes."""
    monkeypatch.setitem(cutting._CUTS, "later", cutting.Cut(2, 0))
    monkeypatch.setattr(frames, "MESSAGE_TARGET_NBYTES", 1000)
    whole = ("later", "name", tuple(f"number {number}" for number in range(2000)), 5)
    assert [len(piece[2]) for piece in cutting.pieces(whole)] == [500] * 4
    (received,) = FrameReader().feed(b"".join(frames.pack([whole])))
    assert len(received) > 10
    assert sum([message[2] for message in received], ()) == whole[2]
    assert {(message[:2], message[3:]) for message in received} == {(("later", "name"), (5,))}


def test_what_is_no_message_is_not_cut():
    for nonsense in ([], [{}], [["x"] * 100], ["release"], ["submit", list(range(900))], ["release", 5]):
        assert cutting.where_cut(nonsense, 64) == 0


# -- nowhere else

ROOT = Path(__file__).parents[2]
OPERATIONS = {message.operation for message in MESSAGES}
SENDING = {"send", "send_now", "post", "leave", "leave_all", "put", "put_now", "_send", "_deliver", "_tell_clients"}


def spelled_out(tree):
    """Where a message is written out by hand: a tuple for what sends, a pattern or a comparison in what receives."""
    for node in ast.walk(tree):
        if isinstance(node, ast.MatchSequence) and node.patterns and isinstance(node.patterns[0], ast.MatchValue):
            yield node.patterns[0].value
        elif isinstance(node, ast.Compare) and isinstance(node.left, ast.Subscript):
            if isinstance(node.left.slice, ast.Constant) and node.left.slice.value == 0:
                yield from node.comparators
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            arguments = [each for argument in node.args for each in ast.walk(argument)] if name in SENDING else []
            yield from (each.elts[0] for each in arguments if isinstance(each, ast.Tuple) and each.elts)


def test_no_operation_is_written_out_elsewhere():
    found = [
        f"{path}:{first.lineno} {first.value!r}"
        for folder in ("client", "cluster")
        for path in (ROOT / folder).rglob("*.py")
        for first in spelled_out(ast.parse(path.read_text()))
        if isinstance(first, ast.Constant) and first.value in OPERATIONS
    ]
    assert not found


def test_a_message_written_out_by_hand_is_found():
    hand = "c.send(('release', ks))\nself.post([('want', [1])])\nmatch m:\n case ('run', runs): pass\nm[0] == 'drop'\n"
    assert {first.value for first in spelled_out(ast.parse(hand))} == {"run", "release", "want", "drop"}


def test_two_vocabularies_may_have_a_message_of_one_name():
    assert client.ERRED.operation == worker.ERRED.operation
    assert FROM_CLIENT.speaker == "a client"
