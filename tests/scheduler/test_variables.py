"""The value of a variable, the clients that wait for one, and how long it holds its tasks."""

from __future__ import annotations

import pytest
from scheduler_harness import Cluster

from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.parts import variables as variables_module
from holdfast.cluster.scheduler.tasks import events

HOST = "tcp://host0:1"


@pytest.fixture
def cluster():
    cluster = Cluster(hosts=1, workers=1)
    for name in ("a", "b", "c"):
        cluster.add_client(name)
    return cluster


def variables_of(cluster):
    return next(part for part in cluster.state.parts if part.name == "variables")


def answer(cluster, client, number):
    reply = cluster.answer_of(client, number)
    return None if reply is None else reply.value if reply.ok else reply.value[0]


def put(cluster, client, number, text, *keys):
    cluster.request(client, number, requests.SET_VARIABLE(name="v", data=text.encode(), keys=keys))


def get(cluster, client, number, **arguments):
    cluster.request(client, number, requests.GET_VARIABLE(name="v", lease=number, **arguments))
    return got(cluster, client, number)


def got(cluster, client, number):
    given = answer(cluster, client, number)
    return given["data"].decode() if isinstance(given, dict) else given


def holders(cluster, key):
    task = cluster.state.tasks.get(key)
    return [] if task is None else [holder.describe() for holder in task.holders]


def test_all_that_wait_get_what_it_is_set_to(cluster):
    assert get(cluster, "b", 1) is None
    assert get(cluster, "c", 2) is None
    put(cluster, "a", 3, "x")
    assert (got(cluster, "b", 1), got(cluster, "c", 2)) == ("x", "x")
    put(cluster, "a", 4, "y")
    assert get(cluster, "b", 5) == "y"
    cluster.request("c", 6, requests.DELETE_VARIABLE(name="v"))
    cluster.request("c", 7, requests.DELETE_VARIABLE(name="v"))
    assert get(cluster, "b", 8) is None


def test_time_is_up_or_it_is_not_waited_for(cluster):
    assert get(cluster, "b", 1, timeout=0.0) == "TimeoutError"
    get(cluster, "b", 2, timeout=1.0)
    cluster.now = 1.0
    cluster.handle(events.TimePassed())
    assert answer(cluster, "b", 2) == "TimeoutError"


def test_a_wait_that_is_given_up_is_over(cluster):
    get(cluster, "b", 1)
    cluster.tell("c", requests.END_READING(lease=1))
    assert len(cluster.state.waits) == 1
    cluster.tell("b", requests.END_READING(lease=1))
    assert len(cluster.state.waits) == 0
    get(cluster, "b", 2)
    cluster.remove_client("b")
    assert len(cluster.state.waits) == 0


def test_it_holds_its_tasks_and_its_readers_have_the_time_to_take_them(cluster):
    cluster.scatter("a", "old", HOST)
    cluster.scatter("a", "new", HOST)
    put(cluster, "a", 1, "x", "old")
    cluster.release("a", "old")
    assert holders(cluster, "old") == [("variable", "'v'")]
    assert get(cluster, "b", 2) == "x"
    put(cluster, "a", 3, "y", "new")
    cluster.release("a", "new")
    assert holders(cluster, "old") == [("variable", "'v'")]
    cluster.handle(events.KeysWanted("b", ["old"]))
    cluster.tell("b", requests.END_READING(lease=2))
    assert holders(cluster, "old") == [("client", "b")]
    cluster.release("b", "old")
    assert list(cluster.state.tasks) == ["new"]
    cluster.request("c", 4, requests.DELETE_VARIABLE(name="v"))
    assert not cluster.state.tasks


def test_a_client_that_leaves_reads_no_more(cluster):
    cluster.scatter("a", "data", HOST)
    get(cluster, "b", 1)
    put(cluster, "a", 2, "x", "data")
    cluster.release("a", "data")
    cluster.request("c", 3, requests.DELETE_VARIABLE(name="v"))
    assert holders(cluster, "data") == [("variable", "'v'")]
    cluster.remove_client("b")
    assert not cluster.state.tasks


def test_a_value_without_keys_is_read_at_once(cluster):
    put(cluster, "a", 1, "x")
    get(cluster, "b", 2)
    assert not variables_of(cluster).readings


def test_a_number_that_is_in_use_is_refused(cluster):
    get(cluster, "b", 1)
    cluster.request("b", 2, requests.GET_VARIABLE(name="other", lease=1))
    assert answer(cluster, "b", 2) == "ProtocolError"


def test_there_may_be_so_much(cluster, monkeypatch):
    monkeypatch.setattr(variables_module, "MAX_VARIABLES", 1)
    put(cluster, "a", 1, "x")
    put(cluster, "a", 2, "y")
    cluster.request("a", 3, requests.SET_VARIABLE(name="w", data=b"z", keys=()))
    assert answer(cluster, "a", 3) == "RuntimeError"
    monkeypatch.setattr(variables_module, "MAX_VARIABLES_NBYTES", 2000)
    put(cluster, "a", 4, "x" * 2000)
    assert answer(cluster, "a", 4) == "RuntimeError"
    assert get(cluster, "a", 5) == "y"
