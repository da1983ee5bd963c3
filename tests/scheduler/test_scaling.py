"""How many workers the scheduler finds right, and how a host comes to more of them."""

from __future__ import annotations

from typing import Any

import pytest
from scheduler_harness import LARGE, Cluster

from holdfast.cluster.protocol.requests import ADD_WORKERS
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.instructions import AddWorkers
from holdfast.cluster.scheduler.watching.scaling import TASKS_SEEN, UNKNOWN_SECONDS, adaptive_target


def busy(workers: int, tasks: int, nthreads: int = 1) -> Cluster:
    cluster = Cluster(hosts=1)
    for _ in range(workers):
        cluster.add_worker("tcp://host0:1", nthreads=nthreads)
    cluster.submit(cluster.add_client(), {("x", i): () for i in range(tasks)})
    return cluster


def test_nothing_to_do_needs_nobody() -> None:
    assert adaptive_target(busy(3, 0).state) == 0


def test_tasks_of_unknown_length_count_for_half_a_second() -> None:
    state = busy(1, 101).state
    assert adaptive_target(state, target_duration=5.0) == round(101 * UNKNOWN_SECONDS / 5.0 + 0.5)
    assert adaptive_target(state, target_duration=0.5) == 101


def test_more_than_can_have_a_task_each_is_of_no_use() -> None:
    state = busy(1, 4).state
    for group in state.life.groups.table.values():
        group.record(1000.0, 1)
    assert adaptive_target(state) == 4


def test_a_cluster_without_workers_needs_one_for_the_first_task() -> None:
    assert adaptive_target(busy(0, 1).state) == 1


def test_threads_are_counted_by_the_worker() -> None:
    state = busy(1, 40, nthreads=4).state
    assert adaptive_target(state, target_duration=0.5) == 10


def test_no_busy_worker_is_one_too_many() -> None:
    state = busy(3, 3).state
    assert all(worker.runs for worker in state.workers.values())
    assert adaptive_target(state, target_duration=3600.0) == 3


def test_of_very_many_tasks_some_speak_for_all() -> None:
    state = busy(1, TASKS_SEEN + 5_000).state
    assert adaptive_target(state, target_duration=UNKNOWN_SECONDS) == TASKS_SEEN + 5_000


def test_room_for_results_counts_where_workers_bring_some() -> None:
    cluster = Cluster()
    host = cluster.add_host(capacity=4 * LARGE)
    for _ in range(2):
        cluster.add_worker(host)
    client = cluster.add_client()
    assert adaptive_target(cluster.state, brings_memory=True) == 0
    cluster.submit(client, {"x": ()})
    cluster.finish("x")
    assert adaptive_target(cluster.state, brings_memory=True) == 1
    assert adaptive_target(cluster.state) == 0
    cluster.submit(client, {"y": (), "z": ()})
    cluster.finish("y")
    cluster.finish("z")
    assert adaptive_target(cluster.state, brings_memory=True) == 4


def test_a_host_is_told_to_keep_more_workers_and_says_which_places_it_has() -> None:
    cluster = Cluster()
    host = cluster.add_host()
    client = cluster.add_client()
    cluster.submit(client, {"x": ()}, workers=["late"])
    assert cluster.state.tasks["x"].state == "no-worker"
    instructions = cluster.state.handle(
        events.Requested(client, 1, ADD_WORKERS.operation, {"node": host, "indices": [3, 4]}), cluster.now
    )
    assert [each for each in instructions if isinstance(each, AddWorkers)] == [AddWorkers(host, [3, 4])]
    cluster.handle(events.PlacesChanged(host, [(f"{host}/3", "late", 2, {})]))
    assert cluster.state.tasks["x"].state == "ready", "a worker of this name is to come"
    assert cluster.state.hosts[host].description["nthreads"] == 2
    cluster.handle(events.PlacesChanged(host, []))
    assert cluster.state.tasks["x"].state == "no-worker"


def test_a_host_that_is_not_there_gets_no_workers() -> None:
    cluster = Cluster()
    client = cluster.add_client()
    arguments: dict[str, Any] = {"node": "tcp://nowhere:1", "indices": [0]}
    (reply,) = cluster.state.handle(events.Requested(client, 1, ADD_WORKERS.operation, arguments), cluster.now)
    assert not reply.ok
    assert "there is no host tcp://nowhere:1" in reply.value[1]
    cluster.handle(events.PlacesChanged("tcp://nowhere:1", []))


@pytest.mark.parametrize("tasks", [0, 3])
def test_it_is_asked_for_as_often_as_one_likes(tasks: int) -> None:
    state = busy(1, tasks).state
    assert adaptive_target(state) == adaptive_target(state) == min(1, tasks)
