"""Tasks that are to run even if no client holds them."""

from __future__ import annotations

import pytest
from scheduler_harness import Cluster

from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.instructions import Log


@pytest.fixture
def cluster():
    cluster = Cluster(1, 1)
    cluster.add_client()
    return cluster


def leave(cluster, *keys):
    cluster.handle(events.KeysUnattended("client", keys))


@pytest.mark.parametrize("end", ["release", "leave", "cancel"])
def test_they_run_whatever_their_client_does_and_nothing_is_left(cluster, end):
    cluster.submit("client", {"x": [], "y": ["x"]})
    leave(cluster, "y")
    if end == "release":
        cluster.release("client", "x", "y")
    elif end == "leave":
        cluster.remove_client("client")
    else:
        cluster.handle(events.KeysCancelled("client", ["y", "x"], False))
    cluster.finish("x")
    cluster.finish("y")
    assert not cluster.running
    cluster.catch_up()
    if end != "leave":
        cluster.remove_client("client")
    assert not cluster.state.tasks
    assert not any(cluster.stores.values())


def test_with_force_they_are_cancelled_too(cluster):
    cluster.submit("client", {"x": [], "y": ["x"]})
    leave(cluster, "y")
    cluster.handle(events.KeysCancelled("client", ["y", "x"], True))
    cluster.drop_all()
    assert not cluster.state.tasks


def test_a_failure_is_logged(cluster):
    cluster.submit("client", {"x": [], "y": ["x"]})
    leave(cluster, "y")
    cluster.release("client", "x", "y")
    worker, entry = cluster.startable_entry("x")
    del cluster.runs[worker][entry[1]]
    done = cluster.handle(events.TasksErred(worker, [(entry[6], entry[1], b"exception", "it failed", 0.1)]))
    (logged,) = [each for each in done if isinstance(each, Log)]
    assert "'y', which was to run unattended (fire_and_forget), has failed: it failed" in logged.text
    cluster.catch_up()
    assert not cluster.state.tasks


def test_what_has_ended_or_is_unknown_is_not_kept(cluster):
    cluster.submit("client", {"x": [], "y": []})
    cluster.finish("x")
    cluster.err("y")
    leave(cluster, "x", "y", "unknown")
    cluster.release("client", "x", "y")
    assert not cluster.state.tasks


def test_one_that_is_known_as_lineage_only_is_computed(cluster):
    cluster.submit("client", {"x": [], "y": ["x"]}, wants=["y"])
    cluster.run_all()
    assert cluster.state.tasks["x"].state == "released"
    leave(cluster, "x")
    assert list(cluster.running) == ["x"]
    cluster.finish("x")
    assert cluster.state.tasks["x"].state == "released"


def test_they_survive_the_loss_of_their_worker(cluster):
    cluster.submit("client", {"x": []})
    leave(cluster, "x")
    cluster.remove_client("client")
    cluster.remove_worker(cluster.running["x"])
    cluster.add_worker("tcp://host0:1")
    cluster.finish("x")
    assert not cluster.state.tasks
