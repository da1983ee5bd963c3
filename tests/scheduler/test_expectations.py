"""Keys that clients name before anything is submitted under them."""

from __future__ import annotations

import pytest
from scheduler_harness import Cluster

from holdfast.cluster.scheduler.parts import expectations
from holdfast.cluster.scheduler.tasks import events


@pytest.fixture
def cluster():
    cluster = Cluster(1, 1)
    cluster.add_client()
    cluster.add_client("other")
    return cluster


def expect(cluster, *keys, client="other"):
    cluster.clients[client].update(dict.fromkeys(keys, "pending"))
    cluster.handle(events.KeysExpected(client, keys))


def test_it_has_the_result_as_soon_as_there_is_one(cluster):
    expect(cluster, "x")
    assert cluster.clients["other"]["x"] == "pending"
    cluster.submit("client", {"x": []})
    cluster.release("client", "x")
    cluster.finish("x")
    assert cluster.clients["other"]["x"] == "memory"


def test_also_within_a_graph_of_which_that_is_not_wanted(cluster):
    expect(cluster, "x")
    cluster.submit("client", {"x": [], "y": ["x"]}, wants=["y"])
    cluster.run_all()
    assert cluster.clients["other"]["x"] == "memory"
    assert cluster.state.clients["other"] in cluster.state.tasks["x"].holders


def test_and_of_data_that_is_scattered(cluster):
    expect(cluster, "data")
    cluster.scatter("client", "data", "tcp://host0:1", chosen=True)
    assert cluster.clients["other"]["data"] == "memory"


def test_of_what_is_known_it_hears_at_once(cluster):
    cluster.submit("client", {"x": []})
    cluster.finish("x")
    expect(cluster, "x")
    assert cluster.clients["other"]["x"] == "memory"


@pytest.mark.parametrize("end", ["release", "cancel", "leave"])
def test_it_may_expect_it_no_longer(cluster, end):
    expect(cluster, "x", "y")
    if end == "release":
        cluster.release("other", "x", "y")
    elif end == "cancel":
        cluster.handle(events.KeysCancelled("other", ["x", "y"], False))
    else:
        cluster.remove_client("other")
    assert not cluster.state.expectations.table
    cluster.submit("client", {"x": []})
    assert len(cluster.state.tasks["x"].holders) == 1


def test_there_is_a_limit_that_is_told(cluster, monkeypatch):
    monkeypatch.setattr(expectations, "MAX_EXPECTED", 2)
    expect(cluster, "a", "b", "c", "a")
    assert cluster.clients["other"] == {"a": "pending", "b": "pending", "c": "cancelled"}
    assert "no more than 2" in cluster.reasons["c"]
    cluster.submit("client", {"a": []})
    expect(cluster, "c")
    assert cluster.clients["other"]["c"] == "pending"
