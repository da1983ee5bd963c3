"""New processes for workers: what is cancelled, what stays, and when the client is answered."""

from __future__ import annotations

import pytest
from scheduler_harness import Cluster

from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.tasks import events

ONE, TWO = "tcp://host0:1", "tcp://host1:1"


@pytest.fixture
def cluster():
    cluster = Cluster(hosts=2, workers=2)
    cluster.add_client("client")
    return cluster


def answer(cluster, request=7):
    reply = cluster.answer_of("client", request)
    return None if reply is None else (reply.ok, reply.value)


def begin_anew(cluster):
    """Nodes do what they were told."""
    ending, cluster.ending = cluster.ending, []
    for worker, _ in ending:
        if worker in cluster.runs:
            cluster.remove_worker(worker, parted_first=True)
    for worker, again in ending:
        if again:
            cluster.add_worker(worker.rpartition("/")[0], address=worker)


def test_all_futures_are_cancelled_and_all_workers_are_new(cluster):
    cluster.add_client("other")
    cluster.scatter("client", "data", ONE)
    cluster.submit("client", {"x": [], "y": ["x"]})
    cluster.submit("other", {"z": []})
    before = dict(cluster.state.workers)
    cluster.request("client", 7, requests.RESTART())
    assert cluster.clients == {
        "client": {"data": "cancelled", "x": "cancelled", "y": "cancelled"},
        "other": {"z": "cancelled"},
    }
    assert cluster.reasons["z"] == "the cluster was restarted by client"
    assert {worker for worker, again in cluster.ending if again} == set(before)
    assert answer(cluster) is None
    begin_anew(cluster)
    assert answer(cluster) == (True, {"workers": dict.fromkeys(before, "OK")})
    assert cluster.state.workers.keys() == before.keys()
    assert all(cluster.state.workers[address] is not worker for address, worker in before.items())
    cluster.catch_up()
    assert not cluster.state.tasks
    assert not any(cluster.stores.values())
    cluster.submit("client", {"x": []})
    cluster.run_all()
    assert cluster.clients["client"]["x"] == "memory"


def test_datasets_stay_and_what_they_lack_is_computed(cluster):
    cluster.submit("client", {"done": [], "to do": ["done"]})
    cluster.finish("done")
    cluster.begin("to do")
    cluster.publish("client", 6, "data", ["done", "to do"])
    cluster.request("client", 7, requests.RESTART())
    begin_anew(cluster)
    assert answer(cluster)[0]
    assert {key: task.state for key, task in cluster.state.tasks.items()} == {"done": "memory", "to do": "processing"}
    assert cluster.state.tasks["to do"].failures == cluster.state.tasks["to do"].suspected == 0
    cluster.run_all()
    cluster.get_dataset("client", 8, "data")
    assert cluster.clients["client"]["to do"] == "memory"


def test_it_need_not_wait_for_the_new_ones(cluster):
    workers = list(cluster.state.workers)
    cluster.request("client", 7, requests.RESTART(wait_for_workers=False))
    for worker in workers:
        assert answer(cluster) is None
        cluster.remove_worker(worker, parted_first=True)
    assert answer(cluster)[0]


@pytest.mark.parametrize("left", [False, True])
def test_one_that_takes_too_long_is_named(cluster, left):
    first, *others = list(cluster.state.workers)
    cluster.request("client", 7, requests.RESTART(timeout=5.0))
    cluster.ending = [(worker, True) for worker in others]
    begin_anew(cluster)
    if left:
        cluster.remove_worker(first, parted_first=True)
    cluster.now = 5.0
    cluster.handle(events.TimePassed())
    ok, (error, text) = answer(cluster)
    assert (ok, error) == (False, "TimeoutError")
    assert text.startswith(f"{first} {'has ended, and is not there again' if left else 'has not ended'} in time")


def test_a_host_that_dies_meanwhile_is_not_waited_for(cluster):
    cluster.request("client", 7, requests.RESTART())
    workers = [worker.address for worker in cluster.state.hosts[ONE].workers]
    cluster.remove_host(ONE)
    cluster.ending = [(worker, again) for worker, again in cluster.ending if worker not in workers]
    begin_anew(cluster)
    ok, value = answer(cluster)
    assert ok
    assert {worker for worker, status in value["workers"].items() if status == "removed"} == set(workers)


def test_without_workers_it_is_answered_at_once():
    cluster = Cluster(hosts=1)
    cluster.add_client("client")
    cluster.scatter("client", "x", ONE)
    cluster.request("client", 7, requests.RESTART())
    assert answer(cluster) == (True, {"workers": {}})
    assert cluster.clients["client"]["x"] == "cancelled"


def test_some_workers_and_what_they_ran_runs_again(cluster):
    worker = cluster.state.hosts[ONE].workers.copy().popitem()[0].address
    cluster.submit("client", {"x": []}, workers=[worker], allow_other_workers=True)
    cluster.begin("x")
    cluster.request("client", 7, requests.RESTART_WORKERS(workers=[worker]))
    begin_anew(cluster)
    assert answer(cluster) == (True, {worker: "OK"})
    task = cluster.state.tasks["x"]
    assert (task.state, task.failures, task.suspected) == ("processing", 0, 0)
    cluster.run_all()
    assert cluster.clients["client"]["x"] == "memory"


def test_some_workers_that_take_too_long(cluster):
    worker = next(iter(cluster.state.workers))
    cluster.request("client", 7, requests.RESTART_WORKERS(workers=[worker], timeout=1.0))
    cluster.now = 1.0
    cluster.handle(events.TimePassed())
    assert answer(cluster) == (True, {worker: "timed out"})


def test_a_task_that_would_end_itself_is_refused(cluster):
    cluster.submit("client", {"parent": []})
    worker, _ = cluster.entry("parent")
    tasks = cluster.submit_in("parent", {"child": []})
    cluster.request(tasks, 8, requests.RESTART())
    assert cluster.answer_of(tasks, 8).value[0] == "RuntimeError"
    cluster.request(tasks, 9, requests.RESTART_WORKERS(workers=[worker]))
    assert cluster.answer_of(tasks, 9).value[0] == "RuntimeError"
    assert not cluster.ending


def test_one_that_is_being_retired_is_restarted_and_its_successor_goes_as_well(cluster):
    worker = next(iter(cluster.state.workers))
    cluster.submit("client", {"x": []}, workers=[worker])
    cluster.begin("x")
    cluster.request("client", 6, requests.RETIRE_WORKERS(workers=[worker]))
    cluster.request("client", 7, requests.RESTART())
    begin_anew(cluster)
    assert answer(cluster)[0]
    begin_anew(cluster)
    while (due := cluster.state.next_deadline) is not None and cluster.answer_of("client", 6) is None:
        cluster.now = max(cluster.now, due)
        cluster.handle(events.TimePassed())
        begin_anew(cluster)
    assert worker not in cluster.state.workers


def test_workers_that_are_scaled_away_meanwhile_are_not_waited_for():
    cluster = Cluster(hosts=0, workers=0)
    cluster.add_client("client")
    host = cluster.add_host()
    first, second, third = addresses = [cluster.add_worker(host) for _ in range(3)]

    def keep(*kept):
        cluster.handle(events.PlacesChanged(host, [(address, address, 1, {}) for address in kept]))

    keep(*addresses)
    cluster.request("client", 7, requests.RESTART())
    cluster.ending = []
    keep(first, third)  # before it has left
    cluster.remove_worker(second, parted_first=True)
    cluster.remove_worker(first, parted_first=True)
    cluster.remove_worker(third, parted_first=True)
    keep(third)  # when it has left
    assert answer(cluster) is None
    cluster.add_worker(host, address=third)
    assert answer(cluster) == (True, {"workers": {first: "removed", second: "removed", third: "OK"}})
