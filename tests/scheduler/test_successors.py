"""Workers that make room for another process: what means the worker of an address goes to the process that comes."""

from __future__ import annotations

import pytest
from scheduler_harness import Cluster, pass_time

from holdfast.cluster.protocol import requests
from holdfast.cluster.protocol.errands import RUN, SET_UP_PLUGINS, VERSIONS, WORKER_LOGS
from holdfast.cluster.scheduler.parts.successors import SUCCESSOR_SECONDS
from holdfast.cluster.scheduler.tasks import events

CLIENT = "client"
CALLED = {"result": b"3"}
NOTHING_FAILED = {"failed": ()}


@pytest.fixture
def cluster():
    """A host that keeps two workers, and a client."""
    cluster = Cluster()
    host = cluster.add_host(places=2)
    for place in range(2):
        cluster.add_worker(host, address=f"{host}/place{place}")
    cluster.add_client(CLIENT)
    return cluster


def ask(cluster, errand=RUN, names=None, **arguments):
    number = cluster.new_number()
    arguments = arguments or ({"call": b"call"} if errand is RUN else {})
    asked = requests.ERRAND(operation=errand.operation, arguments=arguments, names=names, timeout=None)
    cluster.request(CLIENT, number, asked)
    return number


def answer(cluster, value=CALLED):
    """All that were sent an errand, and are there still, answer."""
    sent, cluster.errands = cluster.errands, []
    for errand in sent:
        if errand.peer in cluster.state.workers:
            cluster.handle(events.ErrandDone(errand.peer, errand.number, True, value))
    return [errand.peer for errand in sent]


def kill(cluster, key="x"):
    """Have the process of a worker ended by what it runs; its address."""
    cluster.submit(CLIENT, {key: []})
    cluster.begin(key)
    worker = cluster.running[key]
    cluster.handle(events.KeysCancelled(CLIENT, [key], False, 1, ""))
    return worker


def come_again(cluster, worker):
    cluster.add_worker(worker.rpartition("/")[0], address=worker)


def restart(cluster, worker):
    number = cluster.new_number()
    cluster.request(CLIENT, number, requests.RESTART_WORKERS(workers=[worker], timeout=100.0))
    cluster.ending = []
    return number


@pytest.mark.parametrize("when", ["before it ends", "when it has ended"])
@pytest.mark.parametrize("why", ["kill", "restart"])
def test_what_is_asked_of_one_that_makes_room_is_done_by_its_successor(cluster, when, why):
    if why == "kill":
        worker = kill(cluster)
    else:
        worker = next(iter(cluster.state.workers))
        restart(cluster, worker)
    before = [ask(cluster), ask(cluster, names=[worker])] if when == "before it ends" else []
    cluster.remove_worker(worker, [], asked=True)
    numbers = before or [ask(cluster), ask(cluster, names=[worker])]
    assert worker not in answer(cluster)
    assert not any(cluster.answer_of(CLIENT, number) for number in numbers)
    come_again(cluster, worker)
    assert answer(cluster) == [worker, worker]
    for number in numbers:
        assert cluster.answer_of(CLIENT, number).ok
        assert cluster.outcomes[CLIENT, number][worker] == {"value": CALLED}
    assert len(cluster.outcomes[CLIENT, numbers[0]]) == 2


def test_what_looks_at_all_workers_does_not_wait_for_one_that_makes_room(cluster):
    worker = kill(cluster)
    (other,) = set(cluster.state.workers) - {worker}
    for _ in range(2):
        ask(cluster, WORKER_LOGS)
        assert answer(cluster, ()) == [other]
        cluster.answer_kills()


def test_one_that_is_spared_does_it_itself(cluster):
    cluster.submit(CLIENT, {"x": []})
    worker = cluster.running["x"]
    cluster.handle(events.KeysCancelled(CLIENT, ["x"], False, 1, ""))
    number = ask(cluster, names=[worker])
    assert not cluster.errands
    assert cluster.answer_kills() == []
    assert answer(cluster) == [worker]
    assert cluster.answer_of(CLIENT, number).ok


def test_what_was_sent_before_is_an_error_for_it_may_have_begun(cluster):
    cluster.submit(CLIENT, {"x": []})
    cluster.begin("x")
    worker = cluster.running["x"]
    number = ask(cluster, names=[worker])
    cluster.handle(events.KeysCancelled(CLIENT, ["x"], False, 1, ""))
    cluster.answer_kills()
    assert cluster.outcomes[CLIENT, number][worker]["error"][0] == "ConnectError"


def test_one_that_dies_by_itself_is_not_waited_for(cluster):
    worker, other = cluster.state.workers
    cluster.remove_worker(worker, [])
    ask(cluster)
    assert answer(cluster) == [other]


@pytest.mark.parametrize("what", ["nobody comes", "no place", "host"])
def test_a_successor_that_does_not_come_is_an_error(cluster, what):
    worker = kill(cluster)
    number = ask(cluster, names=[worker])
    cluster.answer_kills()
    host = worker.rpartition("/")[0]
    if what == "nobody comes":
        pass_time(cluster, SUCCESSOR_SECONDS - 1)
        assert cluster.answer_of(CLIENT, number) is None
        pass_time(cluster, 1)
        text = f"{worker} has left, and for 30 s no other process has taken its place"
    elif what == "no place":
        cluster.handle(events.PlacesChanged(host, []))
        text = f"no worker is kept at {worker} any more"
    else:
        cluster.remove_host(host)
        text = f"the host of {worker} has left"
    assert cluster.outcomes[CLIENT, number] == {worker: {"error": ["ConnectError", text]}}
    ask(cluster)
    assert worker not in answer(cluster)


def test_an_agent_that_does_not_end_a_process_keeps_nobody_waiting_for_ever(cluster):
    worker = kill(cluster)
    number = ask(cluster, names=[worker])
    pass_time(cluster, SUCCESSOR_SECONDS)
    assert "is about to be ended" in cluster.outcomes[CLIENT, number][worker]["error"][1]
    again = ask(cluster, VERSIONS, names=[worker])
    cluster.answer_kills()
    come_again(cluster, worker)
    answer(cluster, {"host": {}, "packages": {}})
    assert cluster.answer_of(CLIENT, again).ok


def test_one_that_is_closed_is_not_asked(cluster):
    worker, other = cluster.state.workers
    cluster.request(CLIENT, 7, requests.RETIRE_WORKERS(workers=[worker], grace=0.0))
    assert cluster.ending == [(worker, False)]
    ask(cluster)
    assert answer(cluster) == [other]


def test_a_plugin_is_set_up_by_a_successor_once_and_the_client_is_answered(cluster):
    worker = kill(cluster)
    (other,) = set(cluster.state.workers) - {worker}
    cluster.request(CLIENT, 7, requests.REGISTER_PLUGIN(kind="worker", name="one", call=b"pickle", keys=[]))
    assert sorted(errand.peer for errand in cluster.errands) == sorted([worker, other])
    cluster.answer_kills()
    answer(cluster, NOTHING_FAILED)
    assert cluster.outcomes[CLIENT, 7] == {address: {"value": NOTHING_FAILED} for address in (worker, other)}
    come_again(cluster, worker)
    assert [(errand.peer, errand.operation) for errand in cluster.errands] == [(worker, SET_UP_PLUGINS.operation)]


def test_a_function_waits_until_a_worker_that_comes_has_its_plugins_and_what_looks_at_it_does_not(cluster):
    cluster.request(CLIENT, 7, requests.REGISTER_PLUGIN(kind="worker", name="one", call=b"pickle", keys=[]))
    answer(cluster, NOTHING_FAILED)
    worker = kill(cluster)
    ask(cluster, names=[worker])
    ask(cluster, WORKER_LOGS, names=[worker])
    cluster.answer_kills()
    come_again(cluster, worker)
    ask(cluster, names=[worker])
    assert [errand.operation for errand in cluster.errands] == ["set-up-plugins", "worker-logs"]
    (set_up, _), cluster.errands = cluster.errands, []
    cluster.handle(events.ErrandDone(worker, set_up.number, True, NOTHING_FAILED))
    assert [errand.operation for errand in cluster.errands] == ["run", "run"]


def test_one_that_makes_room_is_restarted_and_retired_by_its_address(cluster):
    worker = kill(cluster)
    cluster.answer_kills()
    number = restart(cluster, worker)
    assert not cluster.ending
    come_again(cluster, worker)
    assert cluster.answer_of(CLIENT, number).value == {worker: "OK"}
    worker = kill(cluster, "y")
    cluster.answer_kills()
    cluster.request(CLIENT, 8, requests.RETIRE_WORKERS(workers=[worker], grace=0.0))
    assert cluster.ending == [(worker, False)], "no other process is to come"
    host = worker.rpartition("/")[0]
    cluster.handle(
        events.PlacesChanged(host, [p for p in cluster.state.hosts[host].description["places"] if p[0] != worker])
    )
    assert list(cluster.answer_of(CLIENT, 8).value) == [worker]


def test_a_restart_of_all_waits_for_one_that_is_on_its_way(cluster):
    worker = kill(cluster)
    cluster.answer_kills()
    (other,) = cluster.state.workers
    cluster.request(CLIENT, 7, requests.RESTART())
    assert cluster.ending == [(other, True)]
    cluster.remove_worker(other, parted_first=True)
    come_again(cluster, other)
    assert cluster.answer_of(CLIENT, 7) is None
    come_again(cluster, worker)
    assert cluster.answer_of(CLIENT, 7).value == {"workers": {worker: "OK", other: "OK"}}


def test_one_that_is_restarted_is_retired_all_the_same(cluster):
    worker, _ = cluster.state.workers
    restart(cluster, worker)
    cluster.request(CLIENT, 8, requests.RETIRE_WORKERS(workers=[worker], close_workers=False))
    assert list(cluster.answer_of(CLIENT, 8).value) == [worker]
