"""Each field of each message: what is right passes, and what is wrong is refused with the field's name."""

from __future__ import annotations

import random

import pytest
from messages import Maker, mistakes, wrong_messages

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.client import FROM_CLIENT
from holdfast.cluster.protocol.limits import MAX_KEY_NBYTES
from holdfast.cluster.protocol.message import Carrier, Message, QuicklyChecked
from holdfast.cluster.protocol.opening import ROLES, check_opening
from holdfast.cluster.protocol.quick import are_keys
from holdfast.cluster.protocol.requests import REQUESTS
from holdfast.cluster.protocol.shapes import KeyShape, Listed, in_slices, key_nbytes
from holdfast.cluster.protocol.vocabularies import VOCABULARIES

MESSAGES = [(vocabulary, message) for vocabulary in VOCABULARIES for message in vocabulary]
NAMES = [f"{vocabulary.speaker} {vocabulary.hearer} {message.operation}" for vocabulary, message in MESSAGES]


@pytest.mark.parametrize(("vocabulary", "message"), MESSAGES, ids=NAMES)
def test_a_message_passes_and_one_with_a_field_that_is_wrong_is_refused_by_the_name_of_that_field(vocabulary, message):
    maker = Maker(random.Random(message.operation))
    refused = 0
    for _ in range(5):
        right = maker.message(message)
        vocabulary.check(right)
        for name, wrong in wrong_messages(message, right):
            with pytest.raises(ProtocolError) as caught:
                vocabulary.check(wrong)
            assert name in str(caught.value)
            assert message.operation in str(caught.value)
            assert len(str(caught.value)) < 1000
            refused += 1
    assert refused


@pytest.mark.parametrize("request_", REQUESTS, ids=repr)
def test_the_arguments_of_a_request(request_):
    operation, arguments = request_.operation, request_.arguments
    maker = Maker(random.Random(operation))
    for _ in range(5):
        right = maker.value(arguments)
        arguments.check(right, operation)
        for name, wrong in mistakes(arguments, right, operation):
            with pytest.raises(ProtocolError, match=operation) as caught:
                arguments.check(wrong, operation)
            assert name in str(caught.value)


def in_the_opening(path):
    return {"worker.address": "tcp://a:1/0", "worker.node": "tcp://a:1", "node.address": "tcp://a:1"}.get(path)


@pytest.mark.parametrize("role", ROLES)
def test_what_a_peer_says_about_itself(role):
    maker = Maker(random.Random(role), in_the_opening)
    for _ in range(5):
        right = maker.value(ROLES[role].info, role)
        check_opening(role, right)
        check_opening(role, {**right, "something new": (1, "two")})
        for name, wrong in mistakes(ROLES[role].info, right, role):
            with pytest.raises(ProtocolError) as caught:
                check_opening(role, wrong)
            assert name in str(caught.value)


@pytest.mark.parametrize(
    ("role", "info"),
    [
        ("client", {"id": "tcp://127.0.0.1:1/1"}),
        ("worker", {"address": "tcp://b:1/0", "name": "x", "node": "tcp://a:1", "nthreads": 1}),
        ("node", {"address": "tcp://a:1/0", "hostname": "x", "capacity": 1, "incarnation": "1"}),
        ("node", {"address": "client-1", "hostname": "x", "capacity": 1, "incarnation": "1"}),
    ],
)
def test_nobody_takes_the_name_of_a_peer_of_another_kind(role, info):
    with pytest.raises(ProtocolError, match="found"):
        check_opening(role, info)


QUICK = [
    (message.operation, shape)
    for _, message in MESSAGES
    for shape in message.fields.values()
    if isinstance(shape, Listed) and shape.quick is not None
]


@pytest.mark.parametrize("shape", [shape for _, shape in QUICK], ids=[name for name, _ in QUICK])
def test_the_quick_check_says_yes_to_nothing_that_the_slow_one_refuses_and_to_most_of_what_is_right(shape):
    slow = Listed(shape.item)
    maker = Maker(random.Random(7))
    said_yes = 0
    for _ in range(40):
        right = maker.value(shape)
        said_yes += shape.quick(right)
        for _, wrong in mistakes(shape, right, ""):
            if type(wrong) is tuple and shape.quick(wrong):
                slow.check(wrong, "")
    assert said_yes


@pytest.mark.parametrize("message", [m for _, m in MESSAGES if isinstance(m, QuicklyChecked)], ids=repr)
def test_the_quick_check_of_a_message_says_yes_to_nothing_that_the_slow_one_refuses(message):
    maker = Maker(random.Random(7))
    for _ in range(40):
        right = maker.message(message)
        assert message.quick(right)
        for _, wrong in wrong_messages(message, right):
            if message.quick(wrong):
                Message.check(message, wrong)


@pytest.mark.parametrize("n_parts", range(1, 10))
def test_the_quick_check_of_long_keys_of_many_parts(n_parts):
    checker = KeyShape()
    for length in range(MAX_KEY_NBYTES // 4 // n_parts - 4, MAX_KEY_NBYTES // 4 // n_parts + 2):
        key = ("\U0001f600" * length,) * n_parts
        if are_keys((key,)):
            checker.check(key, "")
    assert are_keys((("k" * 1000,) * min(n_parts, 8),))


def test_a_key_that_is_as_large_as_may_be():
    KeyShape().check("k" * MAX_KEY_NBYTES, "key")
    KeyShape().check(("k" * (MAX_KEY_NBYTES - 100), 1, None, True, 2.5, b"x"), "key")
    with pytest.raises(ProtocolError, match=r"key: a key of up to 2,097,152 bytes expected, one of 2,097,153 found"):
        KeyShape().check("k" * (MAX_KEY_NBYTES + 1), "key")
    assert key_nbytes("\u20ac") == 3


def test_keys_are_cut_by_number_and_by_size():
    assert [len(part) for part in in_slices(list(range(25)), 10)] == [10, 10, 5]
    assert [len(part) for part in in_slices(["k" * 100] * 7, 10, 250)] == [2, 2, 2, 1]
    assert [len(part) for part in in_slices(["k" * 1000] * 2, 10, 250)] == [1, 1]
    assert not list(in_slices([], 10))


def test_an_unknown_message_is_named():
    with pytest.raises(ProtocolError, match="a client sent an unknown message, 'sing'"):
        FROM_CLIENT.check(("sing", 1))


@pytest.mark.parametrize("name", [{}, {"a": 1}, (), None, 7, b"submit", 2.5], ids=repr)
def test_what_is_carried_has_a_text_for_its_name(name):
    carriers = [(vocabulary, message) for vocabulary, message in MESSAGES if isinstance(message, Carrier)]
    assert carriers
    for vocabulary, message in carriers:
        with pytest.raises(ProtocolError, match=f"{message.operation}: the name of a message expected, .* found"):
            vocabulary.check((message.operation, name, 1))
