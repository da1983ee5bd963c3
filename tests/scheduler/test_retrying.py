"""Tasks that have failed run again when a client wants it, and so does what they have failed for."""

from __future__ import annotations

import pytest
from scheduler_harness import Cluster

from holdfast.cluster.scheduler.tasks import events, retrying


@pytest.fixture
def cluster():
    cluster = Cluster(1, 1, nthreads=4)
    cluster.add_client()
    cluster.add_client("other")
    return cluster


def retry(cluster, *keys, client="client"):
    told = cluster.clients[client]
    told.update({key: "pending" for key in keys if told.get(key) == "erred"})
    cluster.handle(events.KeysRetried(client, keys))


def test_a_failed_task_runs_again(cluster):
    cluster.submit("client", {"x": []})
    cluster.err("x")
    retry(cluster, "x")
    assert (cluster.clients["client"]["x"], list(cluster.running)) == ("pending", ["x"])
    cluster.finish("x")
    assert cluster.clients["client"]["x"] == "memory"


def test_and_what_it_has_failed_for_though_nobody_holds_that(cluster):
    cluster.submit("client", {"a": [], "b": ["a"], "c": ["b"]}, wants=["c"])
    cluster.err("a")
    assert cluster.clients["client"]["c"] == "erred"
    retry(cluster, "c")
    assert "a" in cluster.running
    cluster.run_all()
    assert cluster.clients["client"]["c"] == "memory"


def test_and_what_other_clients_hold_of_it_and_they_are_told(cluster):
    cluster.submit("client", {"a": [], "b": ["a"], "c": ["a"]}, wants=["b"])
    cluster.submit("other", {"a": [], "c": ["a"]})
    cluster.err("a")
    assert cluster.clients["other"] == {"a": "erred", "c": "erred"}
    retry(cluster, "b")
    assert cluster.clients["other"] == {"a": "pending", "c": "pending"}
    cluster.run_all()
    assert cluster.clients["client"]["b"] == "memory"
    assert cluster.clients["other"] == {"a": "memory", "c": "memory"}


def test_of_two_that_failed_below_both_run_again(cluster):
    cluster.submit("client", {"a": [], "b": [], "c": ["a", "b"], "d": ["c", "a"]})
    cluster.err("a")
    cluster.err("b")
    retry(cluster, "d")
    assert set(cluster.clients["client"].values()) == {"pending"}
    cluster.run_all()
    assert set(cluster.clients["client"].values()) == {"memory"}


def test_no_client_hears_of_the_old_error_again(cluster):
    """A client that waits for what it retries would take it for the new one."""
    cluster.submit("client", {"a": [], "b": [], "c": ["a", "b"]})
    cluster.err("a")
    cluster.err("b")
    told = cluster.clients["client"]
    told.update(dict.fromkeys("abc", "pending"))
    done = cluster.handle(events.KeysRetried("client", ["c", "b", "a"]))
    assert not [each for each in done if type(each).__name__ == "ReportErred"]


def test_one_that_fails_again_says_so(cluster):
    cluster.submit("client", {"a": [], "b": ["a"]})
    for text in ("once", "twice"):
        cluster.err("a", text)
        assert cluster.clients["client"] == {"a": "erred", "b": "erred"}
        assert cluster.reasons == {"a": text, "b": text}
        retry(cluster, "b")


def test_what_has_not_failed_is_left_alone_and_its_client_told(cluster):
    cluster.submit("client", {"x": [], "y": []})
    cluster.finish("x")
    cluster.clients["client"]["x"] = "pending"
    retry(cluster, "x", "y", "unknown")
    assert cluster.clients["client"] == {"x": "memory", "y": "pending", "unknown": "cancelled"}
    assert list(cluster.running) == ["y"]


def test_what_depends_on_something_unknown_has_failed_for_good(cluster):
    cluster.submit("client", {"x": ["nothing"], "y": ["x"]})
    retry(cluster, "y", "x")
    assert cluster.clients["client"] == {"x": "erred", "y": "erred"}
    assert not cluster.running


def test_data_that_is_lost_is_lost_still(cluster):
    host = next(iter(cluster.state.hosts))
    cluster.scatter("client", "data", host)
    cluster.submit("client", {"x": ["data"]})
    cluster.remove_host(host)
    retry(cluster, "x")
    cluster.catch_up()
    assert cluster.clients["client"] == {"data": "erred", "x": "erred"}


def test_one_that_killed_workers_may_do_so_as_often_again(cluster):
    cluster.submit("client", {"x": []})

    def kill():
        deaths = 0
        while cluster.clients["client"]["x"] == "pending":
            cluster.remove_worker(cluster.running["x"], ["x"], "x")
            cluster.add_worker("tcp://host0:1")
            deaths += 1
        return deaths

    first = kill()
    retry(cluster, "x")
    assert kill() == first


def test_retries_of_the_task_are_not_given_anew(cluster):
    cluster.submit("client", {"x": []}, retries=1)
    cluster.err("x")
    cluster.err("x")
    assert cluster.clients["client"]["x"] == "erred"
    retry(cluster, "x")
    cluster.err("x")
    assert cluster.clients["client"]["x"] == "erred"


@pytest.mark.parametrize("limit", [1, 3])
def test_a_long_chain_in_pieces(limit):
    cluster = Cluster(1, 1, follow_up_limit=limit)
    cluster.add_client()
    keys = [f"k{n:02}" for n in range(20)]
    cluster.submit("client", {key: keys[max(0, n - 1) : n] for n, key in enumerate(keys)})
    cluster.err(keys[0])
    cluster.catch_up()
    assert set(cluster.clients["client"].values()) == {"erred"}
    retry(cluster, keys[-1])
    assert cluster.catch_up() >= len(keys) // limit - 2
    cluster.run_all()
    assert set(cluster.clients["client"].values()) == {"memory"}


def test_below_so_many_the_rest_fails_again_and_says_so(cluster, monkeypatch):
    monkeypatch.setattr(retrying, "MAX_LOOKED_AT", 3)
    keys = [f"k{n}" for n in range(8)]
    cluster.submit("client", {key: keys[max(0, n - 1) : n] for n, key in enumerate(keys)})
    cluster.err(keys[0])
    retry(cluster, keys[-1])
    cluster.catch_up()
    assert cluster.clients["client"][keys[-1]] == "erred"


def test_large_exceptions_go_when_what_raised_them_runs_again(cluster):
    cluster.submit("client", {"x": []})
    worker, entry = cluster.startable_entry("x")
    del cluster.runs[worker][entry[1]]
    object_id = cluster.new_object()
    cluster.stores["tcp://host0:1"].add(object_id)
    cluster.handle(events.TasksErred(worker, [(entry[6], entry[1], (object_id, 100_000), "large", 0.1)]))
    retry(cluster, "x")
    assert not cluster.stores["tcp://host0:1"]
    cluster.finish("x")
