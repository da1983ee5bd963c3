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


def results(graph_inside):
    """A client has results under keys, each with futures of others inside, and lets go of them."""
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {key: [] for key in graph_inside})
    for key in list(graph_inside):
        cluster.finish(key, inside=graph_inside[key])
    logged = cluster.logged
    cluster.release(client, *graph_inside)
    cluster.catch_up()
    return cluster, client, logged


def test_results_that_contain_each_other_are_logged_and_stay_until_they_are_cancelled_by_force():
    cluster, client, logged = results({"a": ["b"], "b": ["c"], "c": ["a"], "other": []})
    (text,) = logged
    assert text.startswith("'c' contains a future of itself, by way of others")
    assert keys(cluster) == ["a", "b", "c"]
    cluster.handle(events.KeysCancelled(client, ["b"], False))
    cluster.catch_up()
    assert keys(cluster) == ["a", "b", "c"]
    cluster.handle(events.KeysWanted(client, ["b"]))  # by `Future("b")`
    cluster.handle(events.KeysCancelled(client, ["b"], True))
    cluster.catch_up()
    assert keys(cluster) == []
    assert not any(cluster.stores.values())


def test_what_a_cycle_keeps_that_something_else_needs_is_not_freed():
    cluster, client, _ = results({"a": ["b"], "b": ["a"]})
    other = cluster.add_client("other")
    cluster.handle(events.KeysWanted(other, ["a"]))
    cluster.publish(other, 1, "d", ["a"])
    cluster.handle(events.KeysCancelled(client, ["b"], True))
    cluster.catch_up()
    assert keys(cluster) == ["a", "b"]


def test_a_result_that_is_made_again_contains_what_the_new_run_has_put_into_it():
    cluster = Cluster(hosts=2, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"outer": [], "before": [], "after": []})
    cluster.finish("before")
    cluster.finish("after")
    cluster.finish("outer", inside=["before"])
    host = next(iter(cluster.state.tasks["outer"].where)).address
    for key in ("before", "after"):
        for address in list(cluster.state.hosts):
            cluster.copy(key, address)
    cluster.release(client, "before", "after")
    cluster.catch_up()
    assert keys(cluster) == ["before", "outer"]
    cluster.handle(events.KeysWanted(client, ["before"]))
    cluster.submit(client, {"after": []})
    cluster.run_all()
    cluster.remove_host(host)
    cluster.run_all()
    cluster.release(client, "before")
    cluster.catch_up()
    assert keys(cluster) == ["after", "outer"]  # the run of `run_all` had nothing to put into it


def test_a_run_that_fails_before_another_try_keeps_nothing():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"x": []})
    cluster.finish("x")
    cluster.submit(client, {"outer": []}, retries=1)
    cluster.err("outer", inside=["x"])
    cluster.release(client, "x")
    cluster.catch_up()
    assert keys(cluster) == ["outer"]
    cluster.finish("outer")
    cluster.release(client, "outer")
    cluster.catch_up()
    assert keys(cluster) == []


def test_an_exception_keeps_what_it_contains_as_long_as_a_task_has_failed_for_it():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"x": []})
    cluster.finish("x")
    cluster.submit(client, {"outer": [], "dependent": ["outer"]}, wants=["outer", "dependent"])
    cluster.err("outer", inside=["x"])
    cluster.release(client, "x", "outer")
    cluster.catch_up()
    assert "x" in keys(cluster)
    cluster.release(client, "dependent")
    cluster.catch_up()
    assert keys(cluster) == []
