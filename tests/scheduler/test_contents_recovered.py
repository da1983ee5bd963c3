"""What objects and exceptions contain, and what was pickled by hand, when another scheduler goes on."""

from __future__ import annotations

import pytest

from holdfast.cluster.scheduler.tasks import events
from tests.support.journalled import Journalled

SECONDS = 10.0


@pytest.fixture
def cluster():
    """A client holds ``inner``, which has its result, and ``outer``, which runs."""
    cluster = Journalled(hosts=2, workers=1)
    cluster.add_client("c")
    cluster.submit("c", {"inner": [], "outer": []})
    cluster.finish("inner")
    return cluster


def keys(cluster):
    cluster.catch_up()
    return sorted(cluster.state.tasks)


def only_outer_keeps_inner(cluster):
    cluster.release("c", "inner")
    assert keys(cluster) == ["inner", "outer"]
    (holder,) = cluster.state.tasks["inner"].holders
    cluster.release("c", "outer")
    assert keys(cluster) == []
    assert not any(cluster.stores.values())
    return holder.kind


def test_a_result_that_the_journal_knows(cluster):
    cluster.finish("outer", inside=["inner"])
    cluster.restart()
    assert only_outer_keeps_inner(cluster) == "object"


def test_a_result_that_is_made_anew_before_the_scheduler_dies(cluster):
    cluster.submit("c", {"other": []})
    cluster.finish("other")
    cluster.finish("outer", inside=["other"])
    host = next(iter(cluster.state.tasks["outer"].where)).address
    for key in ("inner", "other"):
        for address in list(cluster.state.hosts):
            cluster.copy(key, address)
    cluster.remove_host(host)
    cluster.add_worker(next(iter(cluster.state.hosts)))
    cluster.finish("outer", inside=["inner"])
    cluster.restart()
    cluster.release("c", "other")
    assert "other" not in keys(cluster)
    assert only_outer_keeps_inner(cluster) == "object"


def test_an_exception_that_the_journal_knows(cluster):
    cluster.err("outer", inside=["inner"])
    cluster.restart()
    assert only_outer_keeps_inner(cluster) == "exception"


@pytest.mark.parametrize("kind", ["object", "exception"])
def test_what_a_worker_says_that_no_scheduler_has_heard(cluster, kind):
    worker, entry = cluster.startable_entry("outer")
    serial = cluster.state.tasks["outer"].serial
    del cluster.runs[worker][entry[1]]
    said = [events.FuturesInside(worker, [(entry[1], ["inner"])])]
    if kind == "object":
        object_id = cluster.new_object()
        cluster.stores[worker.rpartition("/")[0]].add(object_id)
        said.append(events.TasksFinished(worker, [(serial, entry[1], object_id, 10, None, "bytes", 0.1)]))
    else:
        said.append(events.TasksErred(worker, [(serial, entry[1], b"exception", "it failed", 0.1)]))
    cluster.said_before += said
    cluster.restart()
    assert only_outer_keeps_inner(cluster) == kind


def lose_the_worker_of_outer(cluster, inside):
    """The run of ``outer`` has ended, and its worker has died before a scheduler has heard of it."""
    worker, _ = cluster.startable_entry("outer")
    object_id = cluster.new_object()
    cluster.stores[worker.rpartition("/")[0]].add(object_id)
    cluster.unheard_of[object_id] = cluster.state.tasks["outer"].serial, inside
    cluster.restart(lost_workers=[worker])
    return object_id


def test_a_result_whose_worker_is_gone_has_its_references_in_its_store(cluster):
    object_id = lose_the_worker_of_outer(cluster, ["inner", "unknown"])
    assert cluster.state.tasks["outer"].object_id == object_id
    assert only_outer_keeps_inner(cluster) == "object"


def test_a_result_with_too_many_references_for_its_store_is_made_again(cluster):
    object_id = lose_the_worker_of_outer(cluster, None)
    assert cluster.state.tasks["outer"].state != "memory"
    assert not any(object_id in store for store in cluster.stores.values())
    cluster.finish("outer", inside=["inner"])
    assert only_outer_keeps_inner(cluster) == "object"


def pickle_inner(cluster):
    cluster.handle(events.FuturesPickled("c", [("inner", "lease", SECONDS)], 0.0))


def test_a_lease_begins_anew(cluster):
    pickle_inner(cluster)
    cluster.release("c", "inner", "outer")
    cluster.restart(now=1_000.0)
    assert keys(cluster) == ["inner"]
    cluster.now += SECONDS - 1
    cluster.handle(events.TimePassed())
    assert keys(cluster) == ["inner"]
    cluster.handle(events.FuturesUnpickled("c", [("inner", "lease", "c", SECONDS, 1.0)]))
    assert cluster.clients["c"]["inner"] == "memory"
    cluster.release("c", "inner")
    cluster.now += 2
    cluster.handle(events.TimePassed())
    assert keys(cluster) == []
    cluster.restart()
    assert keys(cluster) == []


def test_a_lease_of_what_was_cancelled_is_none(cluster):
    pickle_inner(cluster)
    cluster.handle(events.KeysCancelled("c", ["inner"], False))
    cluster.release("c", "outer")
    cluster.catch_up()
    cluster.restart()
    assert keys(cluster) == []
