"""Which client gets which item, and that none is lost: the table of `holdfast.cluster.scheduler.parts.queues`.

The harness looks after every event whether all invariants hold, and whether what has no answer waits.
"""

from __future__ import annotations

import random

import pytest

from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.parts import queue_items, queue_waits
from holdfast.cluster.scheduler.parts import queues as queues_module
from holdfast.cluster.scheduler.tasks import events
from tests.support.journalled import Journalled

HOST = "tcp://host0:1"


@pytest.fixture
def cluster():
    return made()


def made():
    cluster = Journalled(hosts=1, workers=1)
    for name in ("a", "b", "c"):
        cluster.add_client(name)
    return cluster


def queues_of(cluster):
    return next(part for part in cluster.state.parts if part.name == "queues")


def answer(cluster, client, number):
    """The value of an answer; the names of errors."""
    reply = cluster.answer_of(client, number)
    return None if reply is None else reply.value if reply.ok else reply.value[0]


def put(cluster, client, number, text, *keys, name="q", **arguments):
    data = text.encode()
    cluster.request(client, number, requests.PUT(name=name, data=data, keys=keys, lease=number, **arguments))
    return answer(cluster, client, number)


def get(cluster, client, number, name="q", **arguments):
    """Ask for items by the number of the request; what is answered at once."""
    cluster.request(client, number, requests.GET(name=name, lease=number, **arguments))
    return got(cluster, client, number)


def got(cluster, client, number):
    given = answer(cluster, client, number)
    return [data.decode() for data, _ in given["items"]] if isinstance(given, dict) else given


def size(cluster):
    number = cluster.new_number() + 10_000
    cluster.request("a", number, requests.QUEUE_SIZE(name="q"))
    return answer(cluster, "a", number)


def confirm(cluster, client, number):
    cluster.tell(client, requests.CONFIRM_ITEMS(lease=number))


def give_up(cluster, client, number):
    cluster.tell(client, requests.GIVE_UP_ITEMS(lease=number))


def pass_time(cluster, now):
    cluster.now = now
    cluster.handle(events.TimePassed())


class TestGetting:
    def test_items_come_in_the_order_in_which_they_were_put(self, cluster):
        for number, text in enumerate("xyz"):
            assert put(cluster, "a", number, text) == 0
        assert size(cluster) == 3
        assert [get(cluster, "b", number) for number in (10, 11, 12)] == [["x"], ["y"], ["z"]]
        for number in (10, 11, 12):
            confirm(cluster, "b", number)
        assert not queues_of(cluster).queues
        assert not queues_of(cluster).handed

    def test_those_that_wait_are_served_in_the_order_in_which_they_came(self, cluster):
        for number, client in enumerate("bca", 10):
            assert get(cluster, client, number) is None
        for number, text in enumerate("xyz"):
            put(cluster, "a", number, text)
        assert [got(cluster, client, number) for number, client in enumerate("bca", 10)] == [["x"], ["y"], ["z"]]

    def test_so_many_at_a_time(self, cluster):
        assert get(cluster, "b", 10, count=3) is None
        assert get(cluster, "c", 11) is None
        for number, text in enumerate("wxyz"):
            put(cluster, "a", number, text)
        assert got(cluster, "b", 10) == ["w", "x", "y"]
        assert got(cluster, "c", 11) == ["z"]

    def test_all_that_are_there(self, cluster):
        assert get(cluster, "b", 10, at_once=True, count=500) == []
        for number, text in enumerate("xyz"):
            put(cluster, "a", number, text)
        assert get(cluster, "b", 11, at_once=True, count=2) == ["x", "y"]
        assert answer(cluster, "b", 11)["left"] == 1
        assert get(cluster, "b", 12, at_once=True, count=2) == ["z"]

    def test_no_more_than_a_megabyte_at_a_time(self, cluster, monkeypatch):
        monkeypatch.setattr(queue_waits, "MAX_ANSWER_NBYTES", 1000)
        for number in range(4):
            put(cluster, "a", number, "x" * 400)
        assert len(get(cluster, "b", 10, count=4)) == 2
        assert get(cluster, "b", 11, count=3) is not None

    def test_time_is_up(self, cluster):
        get(cluster, "b", 10, timeout=1.0)
        assert get(cluster, "c", 11, timeout=0.0) == "TimeoutError"
        pass_time(cluster, 1.0)
        assert answer(cluster, "b", 10) == "TimeoutError"
        put(cluster, "a", 1, "x")
        assert size(cluster) == 1

    def test_what_was_collected_is_first_again(self, cluster):
        get(cluster, "b", 10, count=3, timeout=1.0)
        put(cluster, "a", 1, "x")
        put(cluster, "a", 2, "y")
        assert get(cluster, "c", 11) is None
        pass_time(cluster, 1.0)
        assert got(cluster, "c", 11) == ["x"]
        assert size(cluster) == 1

    def test_a_wait_that_is_given_up_takes_nothing(self, cluster):
        get(cluster, "b", 10)
        get(cluster, "c", 11)
        give_up(cluster, "b", 10)
        put(cluster, "a", 1, "x")
        assert got(cluster, "c", 11) == ["x"]

    def test_an_answer_that_is_given_up_is_first_again(self, cluster):
        """It is under way when the client gives up."""
        for number, text in enumerate("xyz"):
            put(cluster, "a", number, text)
        get(cluster, "b", 10, count=2)
        get(cluster, "b", 11)
        give_up(cluster, "b", 11)
        give_up(cluster, "b", 10)
        assert get(cluster, "c", 12, count=3) == ["x", "y", "z"]
        confirm(cluster, "c", 12)
        give_up(cluster, "c", 12)
        assert size(cluster) == 0

    def test_what_a_client_has_not_confirmed_when_it_leaves_is_first_again(self, cluster):
        for number, text in enumerate("vwxyz"):
            put(cluster, "a", number, text)
        get(cluster, "b", 10)
        get(cluster, "b", 11, count=2)
        get(cluster, "b", 12)
        confirm(cluster, "b", 11)
        get(cluster, "b", 13, count=7)
        cluster.remove_client("b")
        assert get(cluster, "c", 14, count=3) == ["v", "y", "z"]

    def test_a_client_that_leaves_is_not_served_by_its_own_leaving(self, cluster):
        get(cluster, "b", 10, count=3)
        get(cluster, "b", 11, count=2)
        get(cluster, "c", 12, count=2)
        put(cluster, "a", 1, "x")
        put(cluster, "a", 2, "y")
        cluster.remove_client("b")
        assert got(cluster, "c", 12) == ["x", "y"]
        assert not any(reply.peer == "b" for reply in cluster.replies)

    def test_a_number_that_is_in_use_is_refused(self, cluster):
        get(cluster, "b", 10)
        cluster.request("b", 11, requests.GET(name="q", lease=10))
        assert answer(cluster, "b", 11) == "ProtocolError"
        put(cluster, "a", 1, "x")
        cluster.request("b", 12, requests.GET(name="q", lease=10))
        assert answer(cluster, "b", 12) == "ProtocolError"


class TestPutting:
    def test_a_put_waits_for_room(self, cluster):
        assert put(cluster, "a", 1, "x", maxsize=1) == 1
        assert put(cluster, "a", 2, "y") is None
        assert put(cluster, "b", 3, "z", timeout=1.0) is None
        assert get(cluster, "c", 10) == ["x"]
        assert answer(cluster, "a", 2) == 1
        pass_time(cluster, 1.0)
        assert answer(cluster, "b", 3) == "TimeoutError"
        assert get(cluster, "c", 11) == ["y"]
        assert size(cluster) == 0

    def test_a_getter_of_more_than_there_is_room_for_gets_it(self, cluster):
        cluster.request("a", 100, requests.OPEN_QUEUE(name="q", maxsize=1))
        for number, text in enumerate("xyz"):
            put(cluster, "a", number, text)
        assert get(cluster, "c", 10, count=3) == ["x", "y", "z"]

    def test_it_is_not_waited_for(self, cluster):
        put(cluster, "a", 1, "x", maxsize=1)
        assert put(cluster, "a", 2, "y", timeout=0.0) == "TimeoutError"
        assert size(cluster) == 1

    def test_one_that_is_given_up_while_it_waits_is_not_put(self, cluster):
        put(cluster, "a", 1, "x", maxsize=1)
        put(cluster, "a", 2, "y")
        give_up(cluster, "a", 2)
        give_up(cluster, "a", 1)
        assert get(cluster, "c", 10) == ["x"]
        assert size(cluster) == 0

    def test_one_name_has_one_size(self, cluster):
        put(cluster, "a", 1, "x")
        assert put(cluster, "a", 2, "y", maxsize=3) == 3
        cluster.request("a", 3, requests.PUT(name="q", data=b"z", keys=(), lease=3, maxsize=2))
        assert cluster.answer_of("a", 3).value == [
            "ValueError",
            "the queue 'q' has maxsize=3, and can't have maxsize=2 as well",
        ]
        assert put(cluster, "a", 4, "z") == 3

    def test_quietly_it_is_put_whatever_the_size_is(self, cluster):
        cluster.request("a", 1, requests.OPEN_QUEUE(name="q", maxsize=1))
        for _ in range(3):
            cluster.tell("a", requests.PUT_QUIETLY(name="q", data=b"x", keys=()))
        assert size(cluster) == 3
        assert put(cluster, "a", 2, "y") is None
        get(cluster, "b", 10, count=2)
        assert answer(cluster, "a", 2) is None
        get(cluster, "b", 11)
        assert answer(cluster, "a", 2) == 1

    def test_there_may_be_so_much(self, cluster, monkeypatch):
        monkeypatch.setattr(queue_items, "MAX_QUEUED_ITEMS", 2)
        put(cluster, "a", 1, "x", maxsize=1)
        put(cluster, "a", 2, "y")
        assert put(cluster, "b", 3, "z") == "RuntimeError"
        cluster.tell("b", requests.PUT_QUIETLY(name="q", data=b"z", keys=()))
        reply = cluster.replies[-1]
        assert (reply.peer, reply.ok, reply.value[0]) == ("b", False, "RuntimeError")
        assert "have 2 items" in reply.value[1]
        monkeypatch.setattr(queue_items, "MAX_QUEUED_ITEMS", 10)
        monkeypatch.setattr(queue_items, "MAX_QUEUED_NBYTES", 1000)
        assert put(cluster, "b", 4, "z" * 1000, timeout=0.0) == "RuntimeError"
        monkeypatch.setattr(queues_module, "MAX_QUEUES", 1)
        cluster.request("b", 5, requests.OPEN_QUEUE(name="another", maxsize=1))
        assert answer(cluster, "b", 5) == "RuntimeError"


class TestClosing:
    def test_all_that_is_in_it_goes_and_all_that_wait_are_told(self, cluster):
        put(cluster, "a", 1, "x", maxsize=1)
        put(cluster, "a", 2, "y")
        cluster.request("b", 3, requests.CLOSE_QUEUE(name="q"))
        assert answer(cluster, "a", 2) == "RuntimeError"
        assert get(cluster, "b", 10) is None
        cluster.request("b", 4, requests.CLOSE_QUEUE(name="q"))
        assert answer(cluster, "b", 10) == "RuntimeError"
        cluster.request("b", 5, requests.CLOSE_QUEUE(name="q"))
        assert not queues_of(cluster).queues

    def test_what_is_given_back_to_it_is_forgotten(self, cluster):
        put(cluster, "a", 1, "x")
        get(cluster, "b", 10)
        cluster.request("a", 3, requests.CLOSE_QUEUE(name="q"))
        put(cluster, "a", 4, "y")
        give_up(cluster, "b", 10)
        assert get(cluster, "b", 11) == ["y"]


class TestFutures:
    def holders(self, cluster, key="data"):
        task = cluster.state.tasks.get(key)
        return [] if task is None else [holder.describe() for holder in task.holders]

    def test_an_item_holds_its_tasks_until_its_getter_does(self, cluster):
        cluster.scatter("a", "data", HOST)
        put(cluster, "a", 1, "x", "data")
        cluster.release("a", "data")
        assert self.holders(cluster) == [("queue", "'q'")]
        get(cluster, "b", 10)
        assert answer(cluster, "b", 10)["items"] == [(b"x", ("data",))]
        assert self.holders(cluster) == [("queue", "'q'")]
        cluster.handle(events.KeysWanted("b", ["data"]))
        confirm(cluster, "b", 10)
        assert self.holders(cluster) == [("client", "b")]
        cluster.release("b", "data")
        assert not cluster.state.tasks

    @pytest.mark.parametrize("end", ["closed", "confirmed", "left"])
    def test_what_nobody_has_any_more_goes(self, cluster, end):
        cluster.scatter("a", "data", HOST)
        put(cluster, "a", 1, "x", "data")
        cluster.release("a", "data")
        if end != "closed":
            get(cluster, "b", 10)
        if end == "left":
            cluster.remove_client("b")
            assert self.holders(cluster) == [("queue", "'q'")]
        if end == "confirmed":
            confirm(cluster, "b", 10)
        else:
            cluster.request("c", 20, requests.CLOSE_QUEUE(name="q"))
        cluster.catch_up()
        assert not cluster.state.tasks

    def test_a_put_that_is_given_up_holds_nothing(self, cluster):
        cluster.scatter("a", "data", HOST)
        put(cluster, "a", 1, "x", maxsize=1)
        put(cluster, "a", 2, "y", "data")
        cluster.release("a", "data")
        cluster.remove_client("a")
        cluster.catch_up()
        assert not cluster.state.tasks

    def test_of_a_key_that_is_gone_the_getter_hears(self, cluster):
        put(cluster, "a", 1, "x", "gone")
        get(cluster, "b", 10)
        cluster.clients["b"]["gone"] = "pending"
        cluster.handle(events.KeysWanted("b", ["gone"]))
        assert cluster.clients["b"]["gone"] == "cancelled"
        confirm(cluster, "b", 10)


def again(cluster):
    """Another scheduler takes the place of this one."""
    cluster.restart()
    cluster.replies = []
    return cluster


def test_another_scheduler_goes_on_with_them(cluster):
    put(cluster, "a", 1, "x", maxsize=1)
    put(cluster, "c", 2, "y")
    put(cluster, "a", 3, "z")
    get(cluster, "b", 10)
    other = again(cluster)
    assert get(other, "c", 11, count=2) == ["y", "z"]
    give_up(other, "c", 11)
    give_up(other, "b", 10)
    assert get(other, "c", 12, count=3) == ["x", "y", "z"]
    assert get(other, "c", 13) is None
    assert get(other, "a", 14) is None
    other = again(other)
    put(other, "b", 20, "v")
    put(other, "b", 21, "w")
    assert (got(other, "c", 13), got(other, "a", 14)) == (["v"], ["w"])


def test_what_waits_keeps_its_place_its_time_and_what_it_has(cluster):
    for number, timeout in [(1, None), (2, 9.0), (3, None)]:
        put(cluster, "a" if number < 3 else "b", number, f"item {number}", name="full", maxsize=1, timeout=timeout)
    put(cluster, "a", 4, "had", name="q")
    get(cluster, "c", 10, name="q", count=2, timeout=5.0)
    get(cluster, "b", 11, name="q")
    cluster.now = 4.0
    other = again(again(cluster))
    other.handle(events.TimePassed())
    assert other.state.next_deadline == 5.0
    other.now = 5.0
    other.handle(events.TimePassed())
    assert answer(other, "c", 10) == "TimeoutError"
    assert got(other, "b", 11) == ["had"], "what the one before it had is the first again"
    assert get(other, "c", 12, name="full", count=3) == ["item 1", "item 2", "item 3"]
    assert other.answer_of("b", 3).ok


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("order", [(10, 11, 12), (12, 11, 10), (11, 12, 10)])
def test_items_that_come_back_are_queued_in_the_order_in_which_they_came(cluster, order, restarts):
    for number in range(1, 6):
        put(cluster, "a", number, f"item {number}")
    for number, client in ((10, "a"), (11, "b"), (12, "c")):
        get(cluster, client, number)
    if restarts:
        cluster.restart()
    for number in order:
        give_up(cluster, "abc"[number - 10], number)
    assert get(cluster, "a", 20, count=5) == [f"item {number}" for number in range(1, 6)]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_item_is_confirmed_by_one_client_or_still_there(seed):
    chance = random.Random(seed)
    cluster = made()
    put_texts, taken, open_leases = [], [], {}
    cluster.request("a", 1_000_000, requests.OPEN_QUEUE(name="q", maxsize=chance.choice([0, 2])))
    for number in range(1, 200):
        step, client = chance.random(), chance.choice("abc")
        if step < 0.3:
            put(cluster, client, number, f"{number}", timeout=chance.choice([None, 0.0, 1.0]))
        elif step < 0.4:
            cluster.tell(client, requests.PUT_QUIETLY(name="q", data=str(number).encode(), keys=()))
            put_texts.append(str(number))
        elif step < 0.7:
            options = {"count": chance.choice([1, 1, 3]), "timeout": chance.choice([None, 0.0, 1.0])}
            get(cluster, client, number, at_once=chance.random() < 0.2, **options)
            open_leases[number] = client
        elif step < 0.85 and open_leases:
            lease = chance.choice(list(open_leases))
            client = open_leases.pop(lease)
            items = got(cluster, client, lease)
            if isinstance(items, list) and chance.random() < 0.7:
                taken += items
                confirm(cluster, client, lease)
            else:
                give_up(cluster, client, lease)
        elif step < 0.95:
            pass_time(cluster, cluster.now + 0.5)
        else:
            cluster.remove_client(client)
            cluster.add_client(client)
            open_leases = {lease: of for lease, of in open_leases.items() if of != client}
        if chance.random() < 0.05:
            replies = cluster.replies
            cluster = again(cluster)
            cluster.replies = replies
    put_texts += [str(reply.request) for reply in cluster.replies if reply.ok and type(reply.value) is int]
    for client in "abc":
        cluster.remove_client(client)
    cluster.add_client("a")
    left = []
    for number in range(5000, 6000):
        items = get(cluster, "a", number, at_once=True, count=10)
        if not items:
            break
        left += items
    assert sorted(taken + left) == sorted(put_texts)
