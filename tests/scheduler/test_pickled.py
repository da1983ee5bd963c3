"""Leases: what keeps the results of futures that users have pickled by hand."""

from __future__ import annotations

from scheduler_harness import Cluster, pass_time

from holdfast.cluster.protocol.limits import MAX_PICKLED
from holdfast.cluster.scheduler.parts import pickled
from holdfast.cluster.scheduler.tasks import events

SECONDS = 10.0


def with_a_pickled_future():
    """A client that has pickled the future of ``x``, which has its result."""
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"x": ()})
    cluster.run_all()
    pickle(cluster, client, "x")
    return cluster, client


def pickle(cluster, client, key, lease="lease", seconds=SECONDS):
    cluster.handle(events.FuturesPickled(client, [(key, lease, seconds)], 1_800_000_000.0, "app.py:12 in main"))


def unpickle(cluster, client, key, lease="lease", left=SECONDS, seconds=SECONDS, pickler="client"):
    cluster.clients[client][key] = "pending"
    cluster.handle(events.FuturesUnpickled(client, [(key, lease, pickler, seconds, left)]))
    return cluster.clients[client][key]


def keys(cluster):
    cluster.catch_up()
    return sorted(cluster.state.tasks)


def test_it_is_kept_for_its_time_and_not_longer():
    cluster, client = with_a_pickled_future()
    cluster.remove_client(client)
    pass_time(cluster, SECONDS - 1)
    assert keys(cluster) == ["x"]
    pass_time(cluster, 2)
    assert keys(cluster) == []
    assert not any(cluster.stores.values())


def test_each_client_that_unpickles_it_in_time_holds_it():
    cluster, client = with_a_pickled_future()
    cluster.remove_client(client)
    others = [cluster.add_client("two"), cluster.add_client("three")]
    assert [unpickle(cluster, other, "x", left=5) for other in others] == ["memory", "memory"]
    pass_time(cluster, 2 * SECONDS)
    cluster.release("two", "x")
    assert keys(cluster) == ["x"]
    cluster.release("three", "x")
    assert keys(cluster) == []


def test_after_that_it_is_cancelled_and_says_why():
    cluster, client = with_a_pickled_future()
    cluster.release(client, "x")
    pass_time(cluster, 2 * SECONDS)
    other = cluster.add_client("two")
    assert unpickle(cluster, other, "x", left=0) == "cancelled"
    assert "the result was kept for 10 s after that" in cluster.reasons["x"]
    assert "HOLDFAST_PICKLED_LEASE" in cluster.reasons["x"]
    assert unpickle(cluster, other, "x", left=0, seconds=0) == "cancelled"
    assert "nothing is kept for that" in cluster.reasons["x"]


def test_it_lasts_as_long_as_its_client_has_the_future_itself():
    cluster, client = with_a_pickled_future()
    pass_time(cluster, 100 * SECONDS)
    other = cluster.add_client("two")
    assert unpickle(cluster, other, "x", left=0) == "memory"
    cluster.release(other, "x")
    cluster.release(client, "x")
    assert keys(cluster) == ["x"]
    pass_time(cluster, SECONDS)
    assert keys(cluster) == []


def test_pickled_again_it_begins_anew():
    cluster, client = with_a_pickled_future()
    pass_time(cluster, SECONDS - 1)
    pickle(cluster, client, "x")
    cluster.release(client, "x")
    pass_time(cluster, SECONDS - 1)
    assert keys(cluster) == ["x"]
    pass_time(cluster, 2)
    assert keys(cluster) == []


def test_a_pickle_may_be_read_before_the_scheduler_hears_of_it():
    cluster = Cluster(hosts=1, workers=1)
    client, other = cluster.add_client(), cluster.add_client("two")
    assert unpickle(cluster, other, "x") == "pending"
    cluster.submit(client, {"x": ()})
    pickle(cluster, client, "x")
    cluster.release(client, "x")
    cluster.run_all()
    assert cluster.clients[other]["x"] == "memory"
    pass_time(cluster, 2 * pickled.EARLY_SECONDS)
    assert keys(cluster) == ["x"]


def test_a_pickle_that_the_scheduler_never_hears_of_is_not_awaited_for_ever():
    cluster = Cluster(hosts=1, workers=1)
    cluster.add_client()
    other = cluster.add_client("two")
    assert unpickle(cluster, other, "x") == "pending"
    pass_time(cluster, pickled.EARLY_SECONDS + 1)
    assert cluster.clients[other]["x"] == "cancelled"
    assert unpickle(cluster, other, "x", pickler="somebody who has left") == "cancelled"
    assert "nothing keeps the result any more" in cluster.reasons["x"]
    assert unpickle(cluster, other, "x") == "pending"
    cluster.remove_client(other)
    pass_time(cluster, pickled.EARLY_SECONDS + 1)


def test_what_its_client_cancels_is_not_kept():
    cluster, client = with_a_pickled_future()
    cluster.handle(events.KeysCancelled(client, ["x"], False))
    assert keys(cluster) == []
    other = cluster.add_client("two")
    assert unpickle(cluster, other, "x") == "cancelled"
    assert "was cancelled before it was unpickled" in cluster.reasons["x"]


def test_what_another_client_cancels_is_kept_unless_by_force():
    cluster, client = with_a_pickled_future()
    other = cluster.add_client("two")
    cluster.release(client, "x")
    cluster.handle(events.KeysCancelled(other, ["x"], False))
    assert keys(cluster) == ["x"]
    cluster.handle(events.KeysCancelled(other, ["x"], True))
    assert keys(cluster) == []


def test_a_key_that_is_pickled_stands_for_what_it_stood_for():
    cluster, client = with_a_pickled_future()
    cluster.release(client, "x")
    cluster.submit(client, {"x": ()}, payload=b"other")
    other = cluster.add_client("two")
    before = cluster.state.tasks["x"].object_id
    assert unpickle(cluster, other, "x") == "memory"
    assert cluster.read[other]["x"] == before


def test_it_is_said_what_keeps_it():
    cluster, client = with_a_pickled_future()
    cluster.release(client, "x")
    (holder,) = cluster.state.tasks["x"].holders
    kind, name = holder.describe()
    assert kind == "pickled future"
    assert name == "until 2027-01-15 08:00:00 UTC, of the client client, by the line app.py:12 in main"


def test_there_is_a_limit_which_the_client_is_told_of_once(monkeypatch):
    monkeypatch.setattr(pickled, "MAX_PICKLED", 2)
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {f"x{i}": () for i in range(4)})
    for i in range(4):
        pickle(cluster, client, f"x{i}", f"lease {i}")
    assert len(cluster.warnings[client]) == 1
    assert "publish the results" in cluster.warnings[client][0]
    assert MAX_PICKLED >= 10_000
