"""What is scattered: containers that are taken apart, objects of one piece, and futures inside of these."""

from __future__ import annotations

import gc
import operator
import threading
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from dask.base import normalize_token, tokenize

from holdfast import CancelledError, Client, Future, wait
from holdfast.cluster import protocol
from tests.support.kinds import OUTSIDE, run_outside

Point = namedtuple("Point", "x y")


class Typed(NamedTuple):
    x: int
    y: int = 0


class Rows(list):
    pass


class Names(set):
    pass


class Frozen(frozenset):
    pass


class Line(tuple):
    __slots__ = ()


class Bunch(dict):
    """As in machine learning: its keys are attributes."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass
class Holder:
    held: Any
    more: Any = None


WHOLES = [
    Counter("aab"),
    OrderedDict(b=1, a=2),
    defaultdict(list, a=[1]),
    ChainMap({"a": 1}, {"b": 2}),
    UserDict(a=1),
    UserList([1, 2]),
    deque([1, 2], maxlen=5),
    Rows([1, 2]),
    Names({1}),
    Frozen({1}),
    Line((1, 2)),
    Bunch(a=1),
    bytearray(b"ab"),
    "text",
    np.arange(3),
    slice(1, 2),
]


@pytest.mark.parametrize("value", WHOLES, ids=lambda value: type(value).__name__)
def test_an_object_of_any_class_of_its_own_is_one_future(client, value):
    future = client.scatter(value)
    assert isinstance(future, Future)
    result = future.result()
    assert type(result) is type(value)
    assert np.array_equal(result, value) if isinstance(value, np.ndarray) else result == value
    assert client.submit(lambda v: type(v).__name__, future).result() == type(value).__name__
    (inside,) = client.scatter([value])
    assert inside.key == future.key


@pytest.mark.parametrize(
    ("container", "kind", "values"),
    [
        ([1, 2], list, [1, 2]),
        ((1, 2), tuple, [1, 2]),
        ({1}, set, [1]),
        (frozenset({1}), frozenset, [1]),
        (range(2), list, [0, 1]),
        (Point(1, 2), Point, [1, 2]),
        (Typed(1), Typed, [1, 0]),
        ([], list, []),
    ],
)
def test_these_are_taken_apart(client, container, kind, values):
    futures = client.scatter(container)
    assert type(futures) is kind
    assert client.gather(list(futures)) == values


def test_dictionaries_and_iterators_are_taken_apart(client):
    futures = client.scatter({"one": 1, ("x", 0): Counter("a")})
    assert {key: future.key for key, future in futures.items()} == {"one": "one", ("x", 0): ("x", 0)}
    assert client.gather(futures) == {"one": 1, ("x", 0): Counter("a")}
    for items in (iter([1, 2]), (i for i in (1, 2)), map(int, "12"), {1: 0, 2: 0}.keys().__iter__()):
        assert client.gather(list(client.scatter(items))) == [1, 2]


@pytest.mark.parametrize("view", [{"a": 1}.keys(), {"a": 1}.values(), {"a": 1}.items()])
def test_a_view_of_a_dictionary_is_one_object(client, view):
    assert list(client.scatter(view).result()) == list(view)


def test_what_cannot_be_pickled_says_so(client):
    with pytest.raises(TypeError, match=r"a lock can't be pickled, so it can't be scattered"):
        client.scatter(threading.Lock())


# -- futures inside of objects


def known(client, key):
    """Whether the cluster has anything under a key."""
    return bool(client.who_has().get(key))


SCATTER = {
    "an object": lambda client, future: client.scatter(Holder(future)),
    "a list in a list": lambda client, future: client.scatter([[future, 1]])[0],
    "by a key": lambda client, future: client.scatter({f"of-{future.key}": {"a": [future]}}).popitem()[1],
    "a future": lambda client, future: client.scatter(future),
    "everywhere": lambda client, future: client.scatter(Holder(future), broadcast=True),
}


def inside(value):
    while not isinstance(value, Future):
        value = value.held if isinstance(value, Holder) else next(iter(getattr(value, "values", lambda v=value: v)()))
    return value


@pytest.mark.parametrize("way", SCATTER)
class TestAFutureInside:
    def test_is_kept_and_works_for_every_client_that_gets_it(self, client, cluster, eventually, way):
        future = client.submit(operator.neg, 7, pure=False)
        key = future.key
        wait(future)
        outer = SCATTER[way](client, future)
        del future
        gc.collect()
        client.submit(int, pure=False).result()  # what was let go is heard of by now
        assert known(client, key)
        with Client(cluster, set_as_default=False) as other:
            got = inside(other.gather(outer))
            assert got.client is other
            assert got.result() == -7
            assert other.submit(operator.neg, got).result() == 7
            mine = inside(outer.result())
            assert mine.client is client
            assert mine.result() == -7
            del mine, outer
            # The other client holds it by itself.
            assert got.result() == -7
            del got
            assert eventually(lambda: not known(client, key), what="it is freed")

    def test_of_another_client_is_kept_too(self, client, cluster, way):
        with Client(cluster, set_as_default=False) as other:
            future = other.submit(operator.neg, 7, pure=False)
            outer = SCATTER[way](client, future)
            del future
        assert inside(outer.result()).result() == -7

    def test_that_was_cancelled_is_refused(self, client, way):
        future = client.submit(operator.neg, 7, pure=False)
        future.cancel()
        with pytest.raises(CancelledError):
            SCATTER[way](client, future)


class TestAPublishedObject:
    @pytest.fixture(autouse=True)
    def _unpublished(self, client):
        yield
        for name in client.list_datasets():
            client.unpublish_dataset(name)

    def test_keeps_the_futures_inside(self, client, cluster, eventually):
        futures = [client.submit(operator.neg, i, pure=False) for i in range(3)]
        keys = [future.key for future in futures]
        client.publish_dataset(x={"a": futures[0], "b": [futures[1]], "c": Holder(futures[2])})
        del futures
        with Client(cluster, set_as_default=False) as other:
            got = other.get_dataset("x")
            assert [got["a"].result(), got["b"][0].result(), got["c"].held.result()] == [0, -1, -2]
            assert {f.client for f in (got["a"], got["b"][0], got["c"].held)} == {other}
            del got
            other.unpublish_dataset("x")
            assert eventually(lambda: not any(known(other, key) for key in keys))

    def test_keeps_those_inside_of_what_it_has_futures_of(self, client, cluster, eventually):
        future = client.submit(operator.neg, 7, pure=False)
        key = future.key
        outer = client.scatter(Holder(future))
        client.publish_dataset(x=[client.scatter(Holder(outer))])
        del future, outer
        with Client(cluster, set_as_default=False) as other:
            (outermost,) = other.get_dataset("x")
            assert outermost.result().held.result().held.result() == -7
            del outermost
            other.unpublish_dataset("x")
            assert eventually(lambda: not known(other, key))


def test_a_task_reads_futures_inside_of_what_it_is_given(client):
    outer = client.scatter(Holder(client.submit(operator.neg, 7)))
    assert client.submit(lambda holder: holder.held.result(), outer).result() == -7


def test_two_of_the_same_content_are_two(client):
    future = client.submit(operator.neg, 1, key="inside-of-two")
    one, two = client.scatter([Holder(future), Holder(future)])
    assert one.key != two.key
    assert client.gather([one.result().held, two.result().held]) == [-1, -1]


def test_a_large_argument_with_futures_inside_keeps_them(client):
    array = np.full(1 << 18, None, dtype=object)
    array[0] = client.submit(operator.neg, 7, pure=False)
    call = client.submit(lambda a: a[0].result(), array)
    array[0] = None
    assert call.result() == -7


class Registered:
    """Its token is its name, whatever else is in it."""

    def __init__(self, name, more=0):
        self.name = name
        self.more = more


class Tokenized(Registered):
    def __dask_tokenize__(self):
        return "tokenized", self.name


normalize_token.register(Registered, lambda value: ("registered", value.name))


@pytest.mark.parametrize("kind", [Registered, Tokenized])
def test_a_class_says_which_of_its_values_are_the_same(client, kind):
    one, same, other = client.scatter([kind("a", 1), kind("a", 2), kind("b")])
    assert one.key == same.key != other.key
    assert one.key.endswith(tokenize(kind("a")))
    assert same.result().more == 1, "it was there"
    assert client.scatter(kind("a"), hash=False).key != one.key


def test_of_a_class_that_dask_knows_the_content_is_its_name(client):
    assert client.scatter(np.arange(3)).key == client.scatter(np.arange(3)).key != client.scatter(np.arange(4)).key


@pytest.mark.parametrize("kind", OUTSIDE)
def test_broadcast_is_to_all_hosts_or_to_so_many(two_hosts, kind):
    async def case(client, got):
        nodes = set((await got(client._request(protocol.requests.STATUS)))["nodes"])
        first = min(nodes)
        for broadcast, n in ((True, 2), (2, 2), (1, 1), (0, 1), (False, 1), (5, 2)):
            data = [np.full(10_000, broadcast), 7]
            futures = await got(client.scatter(data, broadcast=broadcast, hash=False))
            where = await got(client.who_has(futures))
            assert [len(where[future.key]) for future in futures] == [n, n]
            assert [int(np.max(each)) for each in await got(client.gather(futures))] == [int(broadcast), 7]
        only = await got(client.scatter(np.arange(10_000), broadcast=True, workers=[first], hash=False))
        assert (await got(client.who_has(only)))[only.key] == [first]
        for wrong, error in ((-1, ValueError), ("all", TypeError), (1.5, TypeError)):
            with pytest.raises(error, match="broadcast is True, False or a number of hosts"):
                await got(client.scatter(1, broadcast=wrong))

    run_outside(kind, two_hosts, case)
