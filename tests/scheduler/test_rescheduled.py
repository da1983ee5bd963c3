"""Tasks that want to be run again, on another worker if there is one that may run them."""

from __future__ import annotations

import pytest
from scheduler_harness import Cluster

from holdfast.cluster.scheduler.machine.rescheduled import _COUNTED_MIN, MAX_RESCHEDULES, Rescheduled
from holdfast.cluster.scheduler.tasks.groups import Group
from holdfast.cluster.scheduler.tasks.model import Task


def started(**options):
    cluster = Cluster(2, 1, **options)
    cluster.add_client()
    return cluster


def test_it_goes_to_another_worker():
    cluster = started()
    cluster.submit("client", {"x": []})
    seen = [cluster.reschedule("x") for _ in range(4)]
    assert seen == [seen[0], seen[1]] * 2
    assert seen[0] != seen[1]
    cluster.finish("x")
    assert cluster.clients["client"]["x"] == "memory"


def test_it_waits_for_another_worker_that_is_busy():
    cluster = started()
    cluster.submit("client", {"x": [], "y": []})
    cluster.submit("client", {"z": []})
    cluster.reschedule("x")
    assert set(cluster.running) == {"y", "z"}
    cluster.finish("y")
    assert set(cluster.running) == {"x", "z"}


def test_it_runs_on_the_same_if_there_is_no_other():
    cluster = Cluster(1, 1)
    cluster.add_client()
    cluster.submit("client", {"x": []})
    assert cluster.reschedule("x") == cluster.running["x"]


def test_only_where_it_may_run():
    cluster = started()
    other, named = cluster.runs
    cluster.submit("client", {"x": []}, workers=[named])
    for _ in range(3):
        assert cluster.reschedule("x") == named
    third = cluster.add_worker("tcp://host0:1", resources={"GPU": 1})
    cluster.submit("client", {"g": []}, resources={"GPU": 1})
    for _ in range(3):
        assert cluster.reschedule("g") == third
    cluster.finish("x")
    cluster.submit("client", {"l": []}, workers=[named, other])
    assert {cluster.reschedule("l") for _ in range(2)} == {named, other}


def test_if_the_other_worker_leaves_it_comes_back():
    cluster = started()
    cluster.submit("client", {"x": []})
    first = cluster.reschedule("x")
    cluster.remove_worker(cluster.running["x"])
    assert cluster.running["x"] == first


def test_it_takes_no_retry_and_is_no_failure():
    cluster = started()
    cluster.submit("client", {"x": []}, retries=1)
    for _ in range(5):
        cluster.reschedule("x")
    assert cluster.state.tasks["x"].retries == 1
    assert cluster.state.tasks["x"].failures == 0


def test_it_fails_when_it_was_run_too_often_and_may_be_retried():
    cluster = started()
    cluster.submit("client", {"x": [], "y": ["x"]})
    for _ in range(MAX_RESCHEDULES - 1):
        cluster.reschedule("x")
        assert cluster.clients["client"]["x"] == "pending"
    cluster.reschedule("x")
    assert cluster.clients["client"] == {"x": "erred", "y": "erred"}
    assert "was run 1,000 times" in cluster.reasons["x"]


def test_one_that_is_not_wanted_any_more_ends():
    cluster = started()
    cluster.submit("client", {"x": []})
    cluster.release("client", "x")
    cluster.reschedule("x")
    assert not cluster.running
    assert "x" not in cluster.state.tasks


@pytest.mark.parametrize("state", ["memory", "forgotten"])
def test_those_that_have_ended_are_not_counted_for_ever(state):
    rescheduled = Rescheduled()
    group = Group("x")
    for n in range(5 * _COUNTED_MIN):
        task = Task(f"x-{n}", n, group, "client")
        assert rescheduled.may_run_again(task)
        task.state = state
    assert len(rescheduled._runs) <= _COUNTED_MIN + 1
