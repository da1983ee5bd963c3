"""Taking back what waits behind a run that takes longer than expected."""

from __future__ import annotations

import pytest
from scheduler_harness import SMALL, Cluster, pass_time
from simulated_cluster import MB, SimulatedCluster

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.scheduler.placing.recall import HELD_UP_SECONDS
from holdfast.cluster.scheduler.tasks import events

INLINE = b"0123456789"


def known_to_be_short(cluster: Cluster, client: str, name: str = "f") -> None:
    """Tasks of this name have been seen to take a millisecond."""
    cluster.submit(client, {(name, "known"): []})
    cluster.finish((name, "known"), nbytes=SMALL, inline=INLINE)


def held_up(cluster: Cluster, client: str, count: int = 3, **options) -> None:
    """``("f", 0)`` runs on the only worker, and others like it are behind it."""
    known_to_be_short(cluster, client)
    cluster.submit(client, {("f", n): [] for n in range(count)}, **options)
    assert len(cluster.running) == count


@pytest.fixture
def cluster():
    return Cluster(hosts=1, workers=1)


@pytest.fixture
def client(cluster):
    return cluster.add_client()


def test_what_waits_behind_a_long_run_goes_to_a_worker_that_is_idle(cluster, client):
    held_up(cluster, client)
    idle = cluster.add_worker("tcp://host0:1")
    assert cluster.state.next_deadline == pytest.approx(cluster.now + HELD_UP_SECONDS)
    pass_time(cluster, HELD_UP_SECONDS)
    assert any(cluster.dropped.values())
    cluster.drop_all()
    assert cluster.running[("f", 1)] == cluster.running[("f", 2)] == idle
    assert cluster.running[("f", 0)] != idle
    assert cluster.state.next_deadline is None
    cluster.run_all()
    assert set(cluster.clients[client].values()) == {"memory"}


def test_nothing_is_taken_back_while_nobody_is_idle(cluster, client):
    held_up(cluster, client)
    assert cluster.state.next_deadline is None
    pass_time(cluster, 100)
    assert not any(cluster.dropped.values())


def test_nothing_is_taken_back_from_a_worker_that_gets_on(cluster, client):
    held_up(cluster, client, count=8)
    cluster.add_worker("tcp://host0:1")
    for n in range(4):
        pass_time(cluster, HELD_UP_SECONDS * 0.9)
        cluster.finish(("f", n), nbytes=SMALL, inline=INLINE)
    assert not any(cluster.dropped.values())


def test_a_run_that_had_started_before_its_worker_was_told_ends_there(cluster, client):
    held_up(cluster, client)
    cluster.add_worker("tcp://host0:1")
    pass_time(cluster, HELD_UP_SECONDS)
    cluster.finish(("f", 1))
    assert cluster.clients[client][("f", 1)] == "memory"
    cluster.run_all()
    assert set(cluster.clients[client].values()) == {"memory"}


def test_nothing_more_is_sent_to_a_worker_that_is_held_up(cluster, client):
    held_up(cluster, client)
    idle = cluster.add_worker("tcp://host0:1")
    pass_time(cluster, HELD_UP_SECONDS)
    cluster.drop_all()
    cluster.submit(client, {("f", n): [] for n in range(3, 20)})
    assert {cluster.running.get(("f", n), idle) for n in range(3, 20)} == {idle}


def test_a_line_is_taken_back_as_a_whole_and_what_is_behind_the_long_run_stays(cluster, client):
    for name in "fgh":
        known_to_be_short(cluster, client, name)
    graph = {("f", "long"): [], ("g", 0): [("f", "long")], ("f", 1): [], ("g", 1): [("f", 1)], ("h", 1): [("g", 1)]}
    cluster.submit(client, graph)
    assert cluster.running.keys() == graph.keys()
    idle = cluster.add_worker("tcp://host0:1")
    pass_time(cluster, HELD_UP_SECONDS)
    cluster.drop_all()
    where = cluster.running
    assert {key for key, worker in where.items() if worker == idle} == {("f", 1), ("g", 1), ("h", 1)}
    assert where[("g", 0)] == where[("f", "long")]
    cluster.run_all()
    assert set(cluster.clients[client].values()) == {"memory"}


def test_what_costs_more_to_bring_than_the_wait_is_expected_to_last_stays_until_the_wait_is_longer(cluster, client):
    known_to_be_short(cluster, client)
    cluster.submit(client, {"data": []})
    cluster.finish("data", nbytes=200 * MB)  # a fifth of a second from host to host
    cluster.submit(client, {("f", 0): ["data"], ("f", 1): ["data"]})
    elsewhere = cluster.add_host()
    idle = cluster.add_worker(elsewhere)
    for _ in range(3):
        pass_time(cluster, HELD_UP_SECONDS)
        assert not any(cluster.dropped.values())
        assert cluster.state.next_deadline == pytest.approx(cluster.now + HELD_UP_SECONDS)
    pass_time(cluster, 2 * HELD_UP_SECONDS)
    cluster.drop_all()
    assert cluster.running[("f", 1)] == idle


def test_what_the_idle_worker_may_not_run_stays(cluster, client):
    (here,) = cluster.runs
    held_up(cluster, client, workers=[here])
    cluster.add_worker("tcp://host0:1")
    pass_time(cluster, HELD_UP_SECONDS)
    assert not any(cluster.dropped.values())
    assert cluster.state.next_deadline is None


def test_a_worker_that_drops_what_it_was_not_told_to_is_refused(cluster, client):
    held_up(cluster, client)
    worker, entry = cluster.entry(("f", 2))
    with pytest.raises(ProtocolError, match="not told to drop"):
        cluster.handle(events.RunsDropped(worker, [entry[1]]))


def test_what_is_released_while_it_is_taken_back_is_gone(cluster, client):
    held_up(cluster, client)
    cluster.add_worker("tcp://host0:1")
    pass_time(cluster, HELD_UP_SECONDS)
    cluster.release(client, ("f", 1))
    cluster.drop_all()
    assert ("f", 1) not in cluster.state.tasks


def test_the_death_of_a_worker_that_is_held_up_leaves_nothing_waiting(cluster, client):
    held_up(cluster, client)
    (worker,) = cluster.runs
    cluster.add_worker("tcp://host0:1")
    pass_time(cluster, HELD_UP_SECONDS)
    cluster.remove_worker(worker)
    cluster.run_all()
    assert set(cluster.clients[client].values()) == {"memory"}


def test_an_idle_worker_comes_before_one_that_has_room_for_more(cluster, client):
    known_to_be_short(cluster, client)
    cluster.submit(client, {("f", 0): []})
    first = cluster.running[("f", 0)]
    idle = cluster.add_worker("tcp://host0:1")
    cluster.submit(client, {("f", 1): []})
    assert cluster.running == {("f", 0): first, ("f", 1): idle}


@pytest.mark.parametrize(("hosts", "nthreads"), [(1, 1), (2, 1), (1, 2)])
def test_a_rare_long_task_among_short_ones_holds_up_nothing_else(hosts, nthreads):
    cluster = SimulatedCluster(
        hosts, 2, nthreads=nthreads, seconds=lambda key: 60.0 if key[1] == 150 else 0.001, nbytes=lambda key: SMALL
    )
    cluster.run({("f", n): () for n in range(200)}, [("f", n) for n in range(200)])
    assert max(at for key, at in cluster.finished_at.items() if key[1] != 150) < 1.0
