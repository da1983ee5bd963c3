"""Objects that contain futures of others hold these, as long as anybody needs them."""

from __future__ import annotations

from scheduler_harness import Cluster

from holdfast.cluster.scheduler.tasks import events

HOST = "tcp://host0:1"


def with_contents(**options):
    """A client that has scattered ``outer``, which contains ``inner``, and holds ``outer`` only."""
    cluster = Cluster(hosts=1, workers=1, **options)
    client = cluster.add_client()
    cluster.scatter(client, "inner", HOST)
    cluster.scatter(client, "outer", HOST)
    cluster.handle(events.ReferencesFound(client, [("outer", ["inner", "unknown", "outer"])]))
    cluster.release(client, "inner")
    cluster.catch_up()
    return cluster, client


def keys(cluster):
    return sorted(cluster.state.tasks)


def test_they_stay_as_long_as_it_and_go_with_it():
    cluster, client = with_contents()
    assert keys(cluster) == ["inner", "outer"]
    cluster.release(client, "outer")
    cluster.catch_up()
    assert keys(cluster) == []
    assert not cluster.state.life.holding.contents
    assert not any(cluster.stores.values())


def test_they_stay_with_a_dataset_and_a_task_that_need_it():
    cluster, client = with_contents()
    cluster.publish(client, 1, "d", ["outer"])
    cluster.submit(client, {"use": ["outer"]})
    cluster.remove_client(client)
    cluster.catch_up()
    assert keys(cluster) == ["inner", "outer"]
    other = cluster.add_client("other")
    cluster.submit(other, {"use": ["outer"]})
    cluster.unpublish(other, 2, "d")
    cluster.catch_up()
    assert "inner" in keys(cluster)
    cluster.run_all()
    cluster.catch_up()
    assert "inner" not in cluster.state.life.results.table.values()
    assert not cluster.state.life.holding.contents


def test_contents_of_contents_go_one_after_the_other():
    cluster, client = with_contents()
    cluster.scatter(client, "outermost", HOST)
    cluster.handle(events.ReferencesFound(client, [("outermost", ["outer"])]))
    cluster.release(client, "outer")
    cluster.catch_up()
    assert keys(cluster) == ["inner", "outer", "outermost"]
    cluster.release(client, "outermost")
    cluster.catch_up()
    assert keys(cluster) == []


def test_a_client_that_cancels_one_leaves_it_to_the_object():
    cluster, client = with_contents()
    cluster.handle(events.KeysWanted(client, ["inner"]))
    cluster.handle(events.KeysCancelled(client, ["inner"], True))
    cluster.catch_up()
    assert keys(cluster) == ["inner", "outer"]


def test_what_was_cancelled_before_it_was_told_of_holds_nothing():
    cluster, client = with_contents()
    other = cluster.add_client("other")
    cluster.handle(events.ReferencesFound(other, [("outer", ["inner"]), ("gone", ["inner"])]))
    cluster.release(client, "outer")
    cluster.catch_up()
    assert keys(cluster) == []


def test_an_object_that_is_lost_for_a_while_keeps_them():
    cluster, client = with_contents(patience_seconds=5.0)
    cluster.add_host()
    cluster.copy("inner", "tcp://host1:1")
    cluster.remove_host(HOST)
    cluster.catch_up()
    assert "inner" in keys(cluster)
    cluster.release(client, "outer")
    cluster.catch_up()
    assert keys(cluster) == []


def test_their_holders_can_be_seen():
    cluster, _ = with_contents()
    assert [holder.describe() for holder in cluster.state.tasks["inner"].holders] == [("object", "'outer'")]
