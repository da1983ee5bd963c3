"""Plugins in the state machine: which workers get them, that none runs a task before, and what they keep."""

from __future__ import annotations

import pytest
from scheduler_harness import Cluster

from holdfast.cluster.protocol.records import value_of
from holdfast.cluster.protocol.requests import REGISTER_PLUGIN, RETIRE_WORKERS, UNREGISTER_PLUGIN
from holdfast.cluster.scheduler.parts import plugins
from holdfast.cluster.scheduler.tasks import events

HOST = "tcp://host0:1"
NOTHING_FAILED = {"failed": ()}


@pytest.fixture
def cluster():
    """A host with two workers, and a client."""
    cluster = Cluster(hosts=1, workers=2)
    cluster.add_client("client")
    return cluster


def register(cluster, name="one", call=b"pickle", keys=(), idempotent=False, kind="worker"):
    number = cluster.new_number()
    asked = REGISTER_PLUGIN(kind=kind, name=name, call=call, keys=keys, idempotent=idempotent)
    cluster.request("client", number, asked)
    return number


def unregister(cluster, name="one"):
    number = cluster.new_number()
    cluster.request("client", number, UNREGISTER_PLUGIN(kind="worker", name=name))
    return number


def answer(cluster, value=NOTHING_FAILED, ok=True):
    """All that have something to do have done it."""
    answered, cluster.errands = cluster.errands, []
    for errand in answered:
        if errand.peer in cluster.state.workers:
            cluster.handle(events.ErrandDone(errand.peer, errand.number, ok, value))
    return answered


def names(errand):
    return [name for name, _, _ in errand.arguments["plugins"]]


def test_those_that_are_there_are_asked_and_their_answers_are_the_client_s(cluster):
    number = register(cluster)
    assert [(errand.peer, names(errand)) for errand in cluster.errands] == [
        (worker, ["one"]) for worker in cluster.state.workers
    ]
    assert cluster.answer_of("client", number) is None
    answer(cluster)
    assert cluster.answer_of("client", number).ok
    assert cluster.outcomes["client", number] == {worker: {"value": NOTHING_FAILED} for worker in cluster.state.workers}


def test_those_that_come_later_get_all_of_them_in_order_and_no_task_before(cluster):
    for name in ("one", "two", "one"):
        register(cluster, name)
        answer(cluster)
    for worker in list(cluster.state.workers):
        cluster.remove_worker(worker)
    cluster.submit("client", {"x": ()})
    worker = cluster.add_worker(HOST)
    (errand,) = cluster.errands
    assert (errand.peer, names(errand)) == (worker, ["one", "two"])
    assert not cluster.running
    assert cluster.state.workers[worker].preparing
    answer(cluster)
    assert cluster.running == {"x": worker}


@pytest.mark.parametrize(
    ("value", "ok"), [({"failed": (("one", b"error", "its text"),)}, True), (("OSError", "no"), False)]
)
def test_a_worker_is_used_whose_plugin_has_failed_and_an_event_tells_it(cluster, value, ok):
    register(cluster)
    answer(cluster)
    worker = cluster.add_worker(HOST)
    answer(cluster, value, ok)
    assert not cluster.state.workers[worker].preparing
    (told,) = cluster.state.topics.topics[plugins.TOPIC].events.values()
    event = value_of(told.record)
    assert event["worker"] == worker
    assert event["text"] == ("its text" if ok else "no")


def test_one_that_leaves_while_it_prepares_is_forgotten(cluster):
    register(cluster)
    answer(cluster)
    worker = cluster.add_worker(HOST)
    cluster.remove_worker(worker)
    late = answer(cluster)
    assert late[0].peer == worker
    cluster.add_worker(HOST)
    cluster.remove_host(HOST)
    assert not cluster.state.waits


def test_a_worker_that_was_cut_off_is_prepared_still(cluster):
    register(cluster)
    answer(cluster)
    worker = cluster.add_worker(HOST)
    cluster.handle(events.WorkerCutOff(worker, True))
    cluster.handle(events.WorkerCutOff(worker, False))
    assert cluster.state.workers[worker].barred
    answer(cluster)
    assert not cluster.state.workers[worker].barred


def test_a_name_that_is_there_is_replaced_or_left_alone(cluster):
    register(cluster, call=b"first")
    answer(cluster)
    number = register(cluster, call=b"second", idempotent=True)
    assert cluster.answer_of("client", number).value == {}
    assert not cluster.errands
    register(cluster, call=b"third")
    assert cluster.errands[0].arguments["plugins"][0][1] == b"third"
    answer(cluster)
    cluster.add_worker(HOST)
    assert [entry[1] for entry in cluster.errands[0].arguments["plugins"]] == [b"third"]


def test_one_that_is_unregistered_is_taken_down_and_comes_no_more(cluster):
    register(cluster)
    answer(cluster)
    number = unregister(cluster)
    assert {errand.operation for errand in cluster.errands} == {"take-down-plugin"}
    answer(cluster)
    assert cluster.answer_of("client", number).ok
    cluster.add_worker(HOST)
    assert not cluster.errands
    refused = cluster.answer_of("client", unregister(cluster))
    assert refused.value == ["ValueError", "no worker plugin 'one' is registered; there are none"]


@pytest.mark.parametrize("asks", [register, unregister])
def test_a_worker_that_is_retired_meanwhile_need_not_answer(cluster, asks):
    """Clusters that adapt retire workers at any time."""
    if asks is unregister:
        register(cluster)
        answer(cluster)
    number = asks(cluster)
    leaver, other = cluster.state.workers
    cluster.request("client", cluster.new_number(), RETIRE_WORKERS(workers=[leaver]))
    assert [worker for worker, _ in cluster.ending] == [leaver]
    cluster.remove_worker(leaver)
    answer(cluster)
    assert cluster.answer_of("client", number).ok
    assert cluster.outcomes["client", number] == {worker: {"value": NOTHING_FAILED} for worker in (leaver, other)}


def test_nor_need_a_host_that_is_retired_meanwhile(cluster):
    number = register(cluster, kind="nanny")
    workers = list(cluster.state.workers)
    cluster.request("client", cluster.new_number(), RETIRE_WORKERS(workers=workers))
    for worker in workers:
        cluster.remove_worker(worker)
    assert cluster.closing == [HOST]
    cluster.remove_host(HOST)
    assert cluster.answer_of("client", number).ok
    assert cluster.outcomes["client", number] == {HOST: {"value": NOTHING_FAILED}}


def test_what_can_not_be_registered_is_refused(cluster, monkeypatch):
    assert "not for 'milk'" in cluster.answer_of("client", register(cluster, kind="milk")).value[1]
    assert cluster.answer_of("client", register(cluster, keys=["gone"])).value[0] == "CancelledError"
    monkeypatch.setattr(plugins, "MAX_PLUGINS", 1)
    monkeypatch.setattr(plugins, "MAX_NBYTES", 10)
    assert "would take 11 bytes" in cluster.answer_of("client", register(cluster, call=b"x" * 11)).value[1]
    register(cluster, call=b"x" * 10)
    register(cluster, call=b"y" * 10)
    assert "1 plugins are registered" in cluster.answer_of("client", register(cluster, "two", b"")).value[1]


def test_its_data_is_held_and_copied_and_goes_with_it(cluster):
    other = cluster.add_host()
    object_id = cluster.scatter("client", "data", HOST)
    register(cluster, keys=["data"])
    name, _, dependencies = cluster.errands[0].arguments["plugins"][0]
    assert (name, dependencies) == ("one", [("data", object_id, None, [HOST])])
    assert cluster.copying == [(other, object_id)]
    answer(cluster)
    cluster.remove_client("client")
    assert object_id in cluster.stores[HOST]
    cluster.add_client("client")
    unregister(cluster)
    assert object_id not in cluster.stores[HOST]


def in_places(nthreads=1):
    """A host that keeps one worker, and a client."""
    cluster = Cluster()
    host = cluster.add_host(places=1)
    worker = cluster.add_worker(host, nthreads, address=f"{host}/place0")
    cluster.add_client("client")
    return cluster, worker


def begin_anew(cluster):
    """The node ends the workers that it was told to end, and starts others."""
    ending, cluster.ending = cluster.ending, []
    for worker, again in ending:
        assert again
        cluster.remove_worker(worker, parted_first=True)
        cluster.add_worker(worker.rpartition("/")[0], address=worker)


def test_a_plugin_that_wants_another_process_has_one_and_no_task_is_charged():
    cluster, worker = in_places()
    cluster.submit("client", {"x": ()})
    for number in range(4):  # more often than a task may be charged for
        cluster.begin("x")
        register(cluster, f"one{number}")
        cluster.handle(events.RestartWanted(worker, "it says so"))
        answer(cluster)
        assert cluster.state.workers[worker].ending == "replaced"
        begin_anew(cluster)
        assert not cluster.running, "it has no plugins yet"
        answer(cluster)
        assert cluster.running == {"x": worker}
    assert cluster.state.tasks["x"].failures == 0
    assert plugins.TOPIC not in cluster.state.topics.topics


def test_one_that_wants_that_each_time_is_refused_in_the_end():
    cluster, worker = in_places()
    register(cluster)
    for _ in range(plugins.MAX_STARTS):
        cluster.handle(events.RestartWanted(worker, "it says so"))
        answer(cluster)
        begin_anew(cluster)
    cluster.handle(events.RestartWanted(worker, "it says so"))
    answer(cluster)
    assert not cluster.ending
    (event,) = [event for event in notes(cluster) if event["action"] == "plugin-failed"]
    assert event["text"] == "the worker wants to start again (it says so), and did so 3 times in a row: it goes on"
    cluster.submit("client", {"x": ()})
    assert cluster.running == {"x": worker}
    cluster.handle(events.RestartWanted("tcp://gone:1/0", "it says so"))


def of_hosts(cluster, name="one"):
    """Register a plugin of hosts, which the hosts that are there set up."""
    register(cluster, name, kind="nanny")
    return answer_of_hosts(cluster)


def answer_of_hosts(cluster, value=NOTHING_FAILED, ok=True):
    answered = [errand for errand in cluster.errands if errand.peer in cluster.state.hosts]
    cluster.errands = [errand for errand in cluster.errands if errand not in answered]
    for errand in answered:
        cluster.handle(events.ErrandDone(errand.peer, errand.number, ok, value))
    return answered


def notes(cluster):
    return [value_of(told.record) for told in cluster.state.topics.topics[plugins.TOPIC].events.values()]


def test_a_host_that_comes_has_its_plugins_before_its_workers_have_theirs_and_tasks(cluster):
    assert [errand.peer for errand in of_hosts(cluster)] == [HOST]
    register(cluster, "two")
    answer(cluster)
    cluster.remove_host(HOST)
    cluster.submit("client", {"x": ()})
    host = cluster.add_host()
    worker = cluster.add_worker(host)
    (errand,) = cluster.errands
    assert (errand.peer, names(errand), errand.arguments["first"]) == (host, ["one"], True)
    assert cluster.state.workers[worker].preparing
    answer_of_hosts(cluster)
    (errand,) = cluster.errands
    assert (errand.peer, names(errand)) == (worker, ["two"])
    assert not cluster.running
    answer(cluster)
    assert cluster.running == {"x": worker}


@pytest.mark.parametrize(
    ("value", "ok"), [({"failed": (("one", b"error", "its text"),)}, True), (("OSError", "no"), False)]
)
def test_a_host_is_used_whose_plugin_has_failed_and_an_event_tells_it(cluster, value, ok):
    of_hosts(cluster)
    host = cluster.add_host()
    worker = cluster.add_worker(host)
    answer_of_hosts(cluster, value, ok)
    assert not cluster.state.workers[worker].preparing
    (event,) = notes(cluster)
    assert (event["worker"], event["text"]) == (host, "its text" if ok else "no")


def test_a_host_that_leaves_while_it_prepares_is_forgotten(cluster):
    of_hosts(cluster)
    host = cluster.add_host()
    cluster.add_worker(host)
    (errand,) = cluster.errands
    cluster.remove_host(host)
    cluster.handle(events.ErrandDone(host, errand.number, True, NOTHING_FAILED))
    assert not cluster.state.waits


def test_a_nanny_that_has_died_gets_the_plugins_again_but_not_for_ever(cluster):
    cluster.handle(events.NannyLeft(HOST, "killed"))
    assert not cluster.errands
    of_hosts(cluster)
    cluster.handle(events.NannyLeft(HOST, "killed"))
    (errand,) = answer_of_hosts(cluster)
    assert (names(errand), errand.arguments["again"]) == (["one"], True)
    for _ in range(plugins.MAX_STARTS):
        cluster.handle(events.NannyLeft(HOST, "killed"))
        assert len(answer_of_hosts(cluster, ("ConnectError", "it ended"), False)) == 1
    cluster.handle(events.NannyLeft(HOST, "killed"))
    assert not cluster.errands
    (event,) = notes(cluster)
    assert "has ended 3 times with its plugins" in event["text"]
    cluster.remove_host(HOST)
    cluster.handle(events.NannyLeft(HOST, "late"))
    assert not cluster.errands
