"""Cancelling what no worker has, and what is told of tasks to those that wait for them."""

from __future__ import annotations

from scheduler_harness import FUNCTION, Cluster

from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.watching import futures


def started():
    cluster = Cluster(1, 1)
    cluster.add_client()
    cluster.add_client("other")
    cluster.submit("client", {"a": [], "b": [], "c": ["b"]})
    return cluster


def ask(cluster, asked, client="client"):
    number = cluster.new_number()
    cluster.request(client, number, asked)
    return cluster.answer_of(client, number).value


def read(cluster, reader, *arguments):
    given = getattr(futures, reader)(cluster.state, *arguments)
    if not hasattr(given, "send"):
        return given
    while True:
        try:
            next(given)
        except StopIteration as end:
            return end.value


def test_only_what_has_not_begun_is_cancelled():
    cluster = started()
    assert list(cluster.running) == ["a"]
    assert ask(cluster, requests.CANCEL_UNSTARTED(keys=["a", "b", "unknown"])) == ["b"]
    assert cluster.clients["client"] == {"a": "pending", "b": "cancelled", "c": "cancelled"}
    cluster.finish("a")
    assert ask(cluster, requests.CANCEL_UNSTARTED(keys=["a"])) == []


def test_nor_what_others_hold():
    cluster = started()
    assert ask(cluster, requests.CANCEL_UNSTARTED(keys=["b"]), client="other") == []
    cluster.submit("other", {"b": []})
    assert ask(cluster, requests.CANCEL_UNSTARTED(keys=["b"]), client="other") == ["b"]
    cluster.run_all()
    assert cluster.clients["client"]["c"] == "memory"


def test_what_has_begun_is_told():
    cluster = started()
    assert read(cluster, "begun", ["a", "b", "unknown"]) == ["a"]


def test_how_a_key_is_computed_and_what_is_to_blame():
    cluster = started()
    assert read(cluster, "recipe", "c", False) == {
        "key": "c",
        "function": b"pickle",
        "payload": b"args",
        "dependencies": ["b"],
    }
    assert FUNCTION in cluster.state.life.functions.table
    assert read(cluster, "recipe", "c", True) is None
    cluster.finish("a")
    cluster.err("b")
    assert read(cluster, "recipe", "c", True)["key"] == "b"
    cluster.scatter("client", "data", "tcp://host0:1")
    assert read(cluster, "recipe", "data", False) is None
    assert read(cluster, "recipe", "unknown", False) is None


def test_how_far_keys_are_and_all_that_they_need():
    cluster = started()
    none = {"memory": 0, "erred": 0, "waiting": 0, "processing": 0}
    found = read(cluster, "progress", ["a", "c", "unknown"])
    assert found["counts"] == {
        "a": {**none, "processing": 1},
        "b": {**none, "waiting": 1},
        "c": {**none, "waiting": 1},
    }
    assert (found["failures"], found["gone"]) == ([], 1)
    cluster.finish("a")
    cluster.err("b")
    found = read(cluster, "progress", ["a", "c"])
    assert found["counts"] == {"a": {**none, "memory": 1}, "c": {**none, "erred": 1}}
    assert found["failures"] == [("c", "it failed")]


def test_many_are_looked_at_in_steps():
    cluster = started()
    keys = [("k", n) for n in range(2_000)]
    cluster.submit("client", {key: keys[n - 1 : n] for n, key in enumerate(keys)}, wants=[keys[-1]])
    cluster.catch_up()
    steps = futures.progress(cluster.state, [keys[-1]])
    assert sum(1 for _ in steps) == 4
