"""Hosts that were given up and come back with what they have: what was lost with them counts again."""

from __future__ import annotations

import pytest
from scheduler_harness import LARGE, Cluster

from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.groups import Group
from holdfast.cluster.scheduler.tasks.lost import Lost
from holdfast.cluster.scheduler.tasks.model import Task

HOST, OTHER = "tcp://host0:1", "tcp://host1:1"


@pytest.fixture
def cluster():
    cluster = Cluster(hosts=2, workers=1)
    cluster.add_client()
    return cluster


def state_of(cluster, key):
    task = cluster.state.tasks.get(key)
    return None if task is None else task.state


def where(cluster, key):
    return [host.address for host in cluster.state.tasks[key].where]


def finish_on(cluster, key, host):
    cluster.submit("client", {key: ()}, workers=[host])
    return cluster.finish(key)


def test_scattered_data_counts_again(cluster):
    object_id = cluster.scatter("client", "x", HOST)
    cluster.cut_off_host(HOST)
    assert cluster.clients["client"]["x"] == "erred"
    cluster.join_again(HOST)
    assert cluster.clients["client"]["x"] == "memory"
    task = cluster.state.tasks["x"]
    assert (task.object_id, task.nbytes, where(cluster, "x")) == (object_id, LARGE, [HOST])


@pytest.mark.parametrize("patience", [0.0, 5.0])
def test_a_copy_that_is_announced_just_after_the_only_other_one_was_lost_counts(patience):
    cluster = Cluster(hosts=2, workers=1, patience_seconds=patience)
    cluster.add_client()
    object_id = cluster.scatter("client", "x", HOST)
    cluster.submit("client", {"y": ["x"]})
    cluster.remove_host(HOST)
    cluster.stores[OTHER].add(object_id)
    cluster.handle(events.ObjectsFound(OTHER, [object_id]))
    assert cluster.clients["client"]["x"] == "memory"
    assert (where(cluster, "x"), cluster.state.tasks["x"].nbytes) == ([OTHER], LARGE)
    cluster.run_all()
    assert cluster.clients["client"]["y"] == "memory"


def test_what_a_host_has_said_of_a_copy_before_it_has_forgotten_that_does_not_count(cluster):
    """Or the copy that there is would be given up for the sake of one that there isn't."""
    object_id = cluster.scatter("client", "x", HOST)
    found, forgotten = events.ObjectsFound(OTHER, [object_id]), events.ObjectsForgotten(OTHER, [object_id])
    state, task = cluster.state, cluster.state.tasks["x"]
    state.handle(found, 0.0)
    state.life.results.forget_copy(task, state.hosts[OTHER])
    state.handle(found, 0.0)
    assert where(cluster, "x") == [HOST]
    state.handle(forgotten, 0.0)
    state.handle(found, 0.0)
    assert where(cluster, "x") == [HOST, OTHER]


def test_published_data_counts_again_though_nobody_else_holds_it(cluster):
    cluster.scatter("client", "x", HOST)
    cluster.publish("client", 1, "name", ["x"])
    cluster.bring_copies(reason="no other host has room")
    cluster.release("client", "x")
    cluster.cut_off_host(HOST)
    cluster.join_again(HOST)
    cluster.get_dataset("client", 2, "name")
    assert cluster.clients["client"]["x"] == "memory"


@pytest.mark.parametrize("way", ["released", "scattered in vain", "released meanwhile", "of two copies"])
def test_data_that_a_host_has_not_heard_it_is_to_delete_goes_when_it_is_back(cluster, way):
    """Its owner is there, and might be about to tell of it."""
    object_id = cluster.scatter("client", "x", HOST)
    if way == "released":
        cluster.release("client", "x")
    elif way == "scattered in vain":
        object_id = cluster.scatter("client", "x", HOST)  # the key has a result already
    elif way == "of two copies":
        cluster.copy("x", OTHER)
    cluster.cut_off_host(HOST)
    cluster.release("client", "x")
    cluster.away[HOST] = {object_id}
    cluster.stores[HOST] = cluster.away.pop(HOST)
    cluster.handle(events.HostJoined(HOST, {"address": HOST, "hostname": HOST, "incarnation": HOST}))
    description = {"id": object_id, "nbytes": LARGE, "owner": "client"}
    cluster.handle(events.ObjectsReported(HOST, [description, {**description, "id": b"untold" * 2 + b"...."}]))
    assert object_id not in cluster.stores[HOST]
    assert cluster.state.objects._unclaimed["client"]  # what the client may still tell of


def test_what_arrives_for_a_host_that_is_cut_off_counts_when_it_is_back(cluster):
    cluster.cut_off_host(HOST)
    cluster.scatter("client", "x", HOST)
    assert cluster.clients["client"]["x"] == "erred"
    cluster.join_again(HOST)
    assert cluster.clients["client"]["x"] == "memory"


def test_data_that_was_lost_may_be_scattered_once_more(cluster):
    first = cluster.scatter("client", "x", HOST)
    cluster.cut_off_host(HOST)
    second = cluster.scatter("client", "x", OTHER)
    assert cluster.clients["client"]["x"] == "memory"
    cluster.join_again(HOST)
    assert where(cluster, "x") == [OTHER]
    assert cluster.stores[OTHER] == {second}
    assert first not in cluster.stores[HOST]


def test_a_result_that_is_being_made_again_is_taken_from_the_host_that_is_back(cluster):
    object_id = finish_on(cluster, "x", HOST)
    cluster.state.tasks["x"].requirements = None  # let it run anywhere
    cluster.cut_off_host(HOST)
    assert cluster.running["x"].startswith(OTHER)
    worker, (_, run_id, *_) = cluster.entry("x")
    cluster.join_again(HOST)
    assert cluster.dropped[worker] == [run_id]
    assert cluster.state.tasks["x"].object_id == object_id
    made_again = cluster.finish("x")  # it had begun: nobody wants what it made
    assert made_again not in cluster.stores[OTHER]
    assert where(cluster, "x") == [HOST]


def test_what_waits_for_a_result_that_is_back_runs_with_it(cluster):
    finish_on(cluster, "x", HOST)  # nobody else may run it
    cluster.cut_off_host(HOST)
    assert state_of(cluster, "x") == "no-worker"
    cluster.submit("client", {"y": ["x"]})
    assert state_of(cluster, "y") == "waiting"
    cluster.join_again(HOST)
    assert cluster.running["y"].startswith(OTHER)
    cluster.finish("y")
    assert cluster.clients["client"] == {"x": "memory", "y": "memory"}


def test_what_failed_for_the_loss_runs_again_and_hears_of_it(cluster):
    cluster.scatter("client", "x", HOST)
    cluster.submit("client", {"y": ["x"], "z": ["x", "y"]})
    cluster.cut_off_host(HOST)
    assert cluster.clients["client"] == dict.fromkeys("xyz", "erred")
    told = []
    for _ in cluster.begin_to_join_again(HOST):
        told.append(dict(cluster.clients["client"]))
    assert told[-1] == {"x": "memory", "y": "erred", "z": "erred"}  # until it has said all that it has
    assert cluster.clients["client"] == {"x": "memory", "y": "pending", "z": "pending"}
    cluster.run_all()
    assert cluster.clients["client"] == dict.fromkeys("xyz", "memory")


def test_what_failed_for_the_loss_and_is_back_itself_does_not_run(cluster):
    cluster.scatter("client", "x", HOST)
    cluster.submit("client", {"y": ["x"]}, workers=[HOST])
    cluster.finish("y")
    cluster.cut_off_host(HOST)
    assert cluster.clients["client"] == {"x": "erred", "y": "erred"}
    cluster.join_again(HOST)
    assert cluster.clients["client"] == {"x": "memory", "y": "memory"}
    assert not cluster.running


def test_what_failed_for_reasons_of_its_own_stays_failed(cluster):
    cluster.scatter("client", "x", HOST)
    cluster.submit("client", {"y": ["x"]})
    cluster.err("y")
    cluster.cut_off_host(HOST)
    cluster.join_again(HOST)
    assert cluster.clients["client"] == {"x": "memory", "y": "erred"}


@pytest.mark.parametrize("released", ["before", "while it's away"])
def test_what_nobody_wants_any_more_is_deleted(cluster, released):
    object_id = cluster.scatter("client", "x", HOST)
    if released == "before":
        cluster.release("client", "x")
        cluster.stores[HOST].add(object_id)  # the word of it was lost with the connection
    cluster.cut_off_host(HOST)
    cluster.release("client", "x")
    cluster.join_again(HOST)
    assert not cluster.stores[HOST]


def test_what_was_made_again_meanwhile_is_deleted(cluster):
    finish_on(cluster, "x", HOST)
    cluster.state.tasks["x"].requirements = None
    cluster.cut_off_host(HOST)
    made_again = cluster.finish("x")
    cluster.join_again(HOST)
    assert not cluster.stores[HOST]
    assert cluster.stores[OTHER] == {made_again}


def test_a_key_that_is_used_again_does_not_get_the_value_of_its_first_life(cluster):
    cluster.scatter("client", "x", HOST)
    cluster.cut_off_host(HOST)
    cluster.release("client", "x")
    cluster.submit("client", {"x": ()})
    cluster.join_again(HOST)
    assert state_of(cluster, "x") == "processing"
    assert not cluster.stores[HOST]


def test_a_copy_of_what_others_have_counts_again(cluster):
    cluster.scatter("client", "x", HOST)
    cluster.copy("x", OTHER)
    cluster.cut_off_host(HOST)
    assert where(cluster, "x") == [OTHER]
    cluster.join_again(HOST)
    assert where(cluster, "x") == [OTHER, HOST]


@pytest.mark.parametrize("may_live", [True, False])
def test_tasks_are_not_charged_for_hosts_that_come_back(cluster, may_live):
    cluster.submit("client", {"x": ()}, workers=[HOST, OTHER])
    for _ in range(5):
        host = cluster.running["x"].rpartition("/")[0]
        cluster.cut_off_host(host, may_live=may_live)
        assert cluster.state.tasks["x"].failures == (not may_live)
        cluster.join_again(host)
        cluster.add_worker(host)
    assert cluster.state.tasks["x"].failures == 0
    cluster.finish("x")


@pytest.fixture
def patient():
    cluster = Cluster(hosts=2, workers=1, patience_seconds=5.0)
    cluster.add_client()
    return cluster


def test_data_of_a_host_that_is_back_soon_is_awaited_with_all_that_needs_it(patient):
    patient.scatter("client", "x", HOST)
    patient.submit("client", {"y": ["x"]})
    patient.submit("client", {"z": ["y"]})
    patient.cut_off_host(HOST)
    patient.now += 4.9
    patient.handle(events.TimePassed())
    assert state_of(patient, "x") == "lost"
    assert patient.clients["client"] == dict.fromkeys("xyz", "pending")
    patient.join_again(HOST)
    assert patient.clients["client"]["x"] == "memory"
    patient.run_all()
    assert patient.clients["client"] == dict.fromkeys("xyz", "memory")
    assert patient.state.next_deadline is None


def test_data_of_a_host_that_is_not_back_soon_is_given_up_and_counts_again_all_the_same(patient):
    patient.scatter("client", "x", HOST)
    patient.now += 100.0
    patient.cut_off_host(HOST)
    patient.submit("client", {"y": ["x"]})
    assert patient.state.next_deadline == 105.0
    patient.now = 105.0
    patient.handle(events.TimePassed())
    patient.catch_up()
    assert patient.clients["client"] == {"x": "erred", "y": "erred"}
    patient.join_again(HOST)
    patient.run_all()
    assert patient.clients["client"] == {"x": "memory", "y": "memory"}


def test_data_that_is_awaited_is_forgotten_when_nobody_wants_it(patient):
    patient.scatter("client", "x", HOST)
    patient.cut_off_host(HOST)
    patient.release("client", "x")
    assert not patient.state.tasks
    assert patient.state.next_deadline is None
    patient.join_again(HOST)
    assert not patient.stores[HOST]


def test_data_that_is_awaited_may_be_scattered_once_more_or_computed(patient):
    patient.scatter("client", "x", HOST)
    patient.scatter("client", "y", HOST)
    patient.cut_off_host(HOST)
    patient.scatter("client", "x", OTHER)
    assert patient.clients["client"]["x"] == "memory"
    patient.submit("client", {"y": ()})
    patient.now += 5.0
    patient.handle(events.TimePassed())
    patient.run_all()
    assert patient.clients["client"]["y"] == "memory"


def test_data_that_is_awaited_and_can_be_computed_by_now_is_forgotten_with_what_it_would_read(patient):
    patient.scatter("client", "x", HOST)
    patient.cut_off_host(HOST)
    patient.submit("client", {"a": (), "x": ["a"]}, wants=["x"])
    patient.release("client", "x")
    assert not patient.state.tasks


def test_what_arrives_for_a_host_that_is_cut_off_is_awaited(patient):
    patient.cut_off_host(HOST)
    patient.scatter("client", "x", HOST)
    assert patient.clients["client"]["x"] == "pending"
    patient.join_again(HOST)
    assert patient.clients["client"]["x"] == "memory"


def test_tasks_are_charged_for_hosts_in_whose_places_others_come(cluster):
    cluster.submit("client", {"x": ()}, workers=[HOST, OTHER])
    host = cluster.running["x"].rpartition("/")[0]
    cluster.remove_host(host)
    cluster.handle(events.HostJoined(host, {"incarnation": "another", "capacity": LARGE}))
    assert cluster.state.tasks["x"].failures == 1


def test_the_table_of_what_was_lost_has_a_limit():
    lost = Lost(limit=2)
    tasks = [Task(key, 1, Group("group"), "client") for key in range(4)]
    for task in tasks:
        lost.add(task, bytes([task.key]))
    assert len(lost) == len(lost.objects) == 2
    assert [lost.claim(bytes([task.key])) for task in tasks] == [None, None, *tasks[2:]]
    assert not lost.objects
