"""What the status says of tasks and requests that wait: some of each, and what for."""

from __future__ import annotations

from typing import Any

import pytest
from scheduler_harness import Cluster

from holdfast.cluster.protocol.answers import merged
from holdfast.cluster.protocol.requests import (
    ACQUIRE_LOCKS,
    GET,
    OPEN_QUEUE,
    RETIRE_WORKERS,
    STATUS,
    WAIT_FOR_EVENT,
    WAIT_FOR_WORKERS,
)
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.watching import introspection, waiting


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster(hosts=2, workers=2)
    cluster.add_client()
    return cluster


def status(cluster: Cluster) -> dict[str, Any]:
    steps = introspection.status(cluster.state, {}, {}, [])
    fragments = []
    while True:
        try:
            fragments.append(next(steps))
        except StopIteration as end:
            found: dict[str, Any] = merged([*filter(None, fragments), end.value])
            return found


def test_tasks_are_listed_with_what_they_wait_for(cluster: Cluster) -> None:
    cluster.submit("client", {"a": (), "b": (), ("c", 1): ["a", "b"], "d": [("c", 1)]})
    cluster.submit("client", {"e": ()}, resources={"GPU": 8})
    listed = {each["key"]: (each["state"], each["for"]) for each in status(cluster)["waiting"]}
    assert listed["('c', 1)"] == ("waiting", "for a (processing) and 1 more")
    assert listed["d"] == ("waiting", "for ('c', 1) (waiting)")
    state, reason = listed["e"]
    assert state == "no-worker"
    assert reason.startswith("for a worker with 8 GPU")
    cluster.submit("client", {f"more-{n}": () for n in range(100)})
    report = status(cluster)
    assert len(report["waiting"]) == waiting.MAX_LISTED
    assert ("ready", "for room on a worker") in {(each["state"], each["for"]) for each in report["waiting"]}
    cluster.run_all()
    assert [each["key"] for each in status(cluster)["waiting"]] == ["e"]


def test_requests_are_listed_with_whose_they_are_and_for_how_long(cluster: Cluster) -> None:
    assert status(cluster)["waits"] == []
    cluster.request("client", 1, WAIT_FOR_WORKERS(n=9, timeout=5.0))
    cluster.request("client", 2, WAIT_FOR_EVENT(name="go", wait=1, timeout=None))
    cluster.request("client", 3, ACQUIRE_LOCKS(names=["x"], lease=1))
    cluster.request("client", 4, ACQUIRE_LOCKS(names=["x", ("y", 1)], lease=2, timeout=None))
    cluster.now = 2.0
    cluster.handle(events.TimePassed())
    cluster.request("client", 5, STATUS())  # of another one that looks
    report = status(cluster)
    assert [(wait["what"], wait["client"], wait["seconds_left"]) for wait in report["waits"]] == [
        ("9 workers", "client", 3.0),
        ("the event 'go'", "client", None),
        ("the lock 'x', ('y', 1)", "client", None),
    ]
    assert report["n_waits"] == len(report["waits"]) + 1


def test_no_more_are_listed_than_people_read(cluster: Cluster) -> None:
    for number in range(50):
        cluster.request("client", number, WAIT_FOR_WORKERS(n=9, timeout=None))
    report = status(cluster)
    assert (len(report["waits"]), report["n_waits"]) == (waiting.MAX_LISTED, 50)


def test_every_kind_of_wait_says_what_it_waits_for(cluster: Cluster) -> None:
    """Others than these fall back on the name of their kind."""
    cluster.request("client", 1, OPEN_QUEUE(name="q", maxsize=1))
    cluster.request("client", 2, GET(name="q", lease=1, count=1, timeout=None))
    cluster.submit("client", {"a": ()})
    (worker,) = cluster.running.values()
    cluster.request("client", 3, RETIRE_WORKERS(workers=[worker], grace=10.0))
    assert {wait["what"] for wait in status(cluster)["waits"]} == {
        "items of the queue 'q'",
        "the end of 1 workers, which are retired",
    }
