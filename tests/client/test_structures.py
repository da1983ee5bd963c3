"""Futures in the fields of objects among the arguments reach the function as values."""

from __future__ import annotations

import operator
from collections import Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import attrs
import pytest
from dask import delayed

from holdfast import CancelledError, Client, Future

made = []


class Pair(NamedTuple):
    first: Any
    second: Any = 0


class Described(Pair):
    def __new__(cls, first, second):
        made.append(cls)
        return super().__new__(cls, first, second)


Point = namedtuple("Point", "x y")


@dataclass
class Plain:
    first: Any
    second: Any = 0


@dataclass(frozen=True)
class Frozen:
    first: Any
    second: Any = 0


@dataclass(slots=True)
class Slots:
    first: Any
    second: Any = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeywordOnly:
    first: Any
    second: Any = 0


@dataclass
class Strict:
    """Refuses what isn't a number, whenever it's made."""

    first: Any
    second: Any = field(init=False, default=0)
    never_set: Any = field(init=False, repr=False)

    def __post_init__(self):
        made.append(self.first)
        if self.first.__class__ is not int and not isinstance(self.first, Future):
            raise TypeError(f"{self.first!r} is no number")


@attrs.define
class Attrs:
    first: Any
    second: Any = 0


@attrs.frozen
class AttrsFrozen:
    first: Any
    second: Any = 0


@attrs.define(slots=False, kw_only=True)
class AttrsStrict:
    first: Any = attrs.field(validator=attrs.validators.instance_of((int, Future)))
    second: Any = attrs.field(init=False, default=0)


@dataclass
class Nested:
    first: Any
    second: Any = 0


class Other:
    """Of no kind that has fields."""

    def __init__(self, first):
        self.first = first


def first_of(structure):
    return structure.first


def kind_and_first_of(structure):
    return type(structure).__name__, structure.first, structure.second


MAKERS = [
    Pair,
    lambda x: Described(x, 0),
    Plain,
    Frozen,
    Slots,
    lambda x: KeywordOnly(first=x),
    Strict,
    Attrs,
    AttrsFrozen,
    lambda x: AttrsStrict(first=x),
]


@pytest.fixture
def future(client):
    return client.submit(operator.neg, 7)


@pytest.mark.parametrize("make", MAKERS)
class TestAFieldIsAValue:
    def test_in_submit(self, client, future, make):
        structure = make(future)
        assert client.submit(kind_and_first_of, structure).result() == (type(structure).__name__, -7, 0)
        assert structure.first is future  # what the caller has is as it was

    def test_inside_others(self, client, future, make):
        structure = make(future)
        call = client.submit(lambda x, *, k: x["s"][0].first.first + k.first, {"s": [Nested(structure)]}, k=structure)
        assert call.result() == -14

    def test_in_map(self, client, future, make):
        assert client.gather(client.map(first_of, [make(future), make(1)])) == [-7, 1]
        assert client.gather(client.map(lambda x, k: x + k.first, [1, 2], k=make(future))) == [-6, -5]

    def test_in_a_graph(self, client, future, make):
        graph = {
            "a": (first_of, make(future)),
            "b": (sum, [(first_of, make(future)), "a"]),
            "c": make(future),
            "d": (first_of, "c"),
        }
        assert client.get(graph, ["a", "b", "d"]) == [-7, -14, -7]


@pytest.mark.parametrize("make", [Pair, Plain, Frozen, Slots, Attrs, AttrsFrozen, lambda x: AttrsStrict(first=x)])
def test_in_delayed(client, future, make):
    assert delayed(first_of)(make(future)).compute() == -7
    assert delayed(lambda s: s[0]["k"].first)([{"k": make(future)}]).compute() == -7


@pytest.mark.parametrize(
    "container",
    [
        lambda x: OrderedDict(a=x),
        lambda x: defaultdict(list, a=x),
        lambda x: Counter(a=x),
        lambda x: deque([x], maxlen=3),
        lambda x: type("Rows", (list,), {"__reduce__": lambda self: (list, (list(self),))})([x]),
        lambda x: Point(x, {"y": [x]}),
    ],
)
def test_in_a_container_of_a_class_of_its_own(client, future, container):
    value = container(future)
    assert client.submit(lambda c: c, value).result() == container(-7)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: {"a": x}.values(),
        lambda x: {"a": x}.items(),
        lambda x: iter([x]),
        lambda x: iter({"a": x}.items()),
        lambda x: zip([x], [1], strict=True),
        lambda x: enumerate((x,)),
        lambda x: map(operator.neg, [x]),
    ],
)
def test_in_a_view_or_an_iterator(client, future, view):
    assert client.submit(list, view(future)).result() == list(view(-7))


def test_an_object_of_any_other_class_has_the_future(client, future):
    assert client.submit(lambda o: (type(o.first).__name__, o.first.result()), Other(future)).result() == ("Future", -7)
    assert client.submit(lambda o: type(o["a"]).__name__, UserDict(a=future)).result() == "Future"
    both = client.submit(lambda o, s: (type(o.first.first).__name__, s.first), Other(Plain(future)), Plain(1))
    assert both.result() == ("Future", 1)


def test_no_constructor_is_called(client, future):
    structure = Strict(future)
    made.clear()
    assert client.submit(kind_and_first_of, structure).result() == ("Strict", -7, 0)
    assert not made
    assert client.submit(lambda s: s.first, Strict(3)).result() == 3


def test_an_object_without_futures_is_itself(client):
    structure = Plain([1, Frozen(2)])
    assert client.submit(lambda s: s.first[1].first, structure).result() == 2
    # The same object twice is one object there as well.
    assert client.submit(operator.is_, structure, structure).result()


def test_a_structure_that_contains_itself(client, future):
    structure = Plain(future)
    structure.second = structure
    assert client.submit(lambda s: (s.second is s, s.first), structure).result() == (True, -7)


def test_it_waits_for_them_and_fails_with_them(client):
    with pytest.raises(ZeroDivisionError):
        client.submit(first_of, Plain(client.submit(operator.truediv, 1, 0))).result()
    cancelled = client.submit(operator.neg, 1)
    cancelled.cancel()
    with pytest.raises(CancelledError):
        client.submit(first_of, Frozen(cancelled))


def test_the_same_call_has_the_same_key(client, future):
    assert client.submit(first_of, Plain(future)).key == client.submit(first_of, Plain(future)).key
    assert client.submit(first_of, Plain(future)).key != client.submit(first_of, Plain(client.submit(int))).key


def test_of_another_client(cluster, client):
    with Client(cluster, set_as_default=False) as other:
        call = client.submit(first_of, Plain(other.submit(operator.neg, 7)))
        assert call.result() == -7
