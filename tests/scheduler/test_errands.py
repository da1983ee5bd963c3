"""Errands in the state machine: whom they are sent to, what their clients hear, and what nobody waits for any more."""

from __future__ import annotations

import pytest
from scheduler_harness import LARGE, Cluster

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.errands import VERSIONS
from holdfast.cluster.protocol.requests import ERRAND
from holdfast.cluster.scheduler.parts import errands
from holdfast.cluster.scheduler.parts.waits import MAX_WAITING
from holdfast.cluster.scheduler.tasks import events

ANSWER = {"host": {}, "packages": {"python": "3.11"}}


@pytest.fixture
def cluster():
    """Two hosts of two workers each, and a client."""
    cluster = Cluster(hosts=2, workers=2)
    cluster.add_client("client")
    return cluster


def ask(cluster, client="client", names=None, timeout=None, operation=VERSIONS.operation, arguments=None):
    number = cluster.new_number()
    cluster.request(
        client, number, ERRAND(operation=operation, arguments=arguments or {}, names=names, timeout=timeout)
    )
    return number


def answer(cluster, errand, ok=True, value=ANSWER):
    cluster.errands.remove(errand)
    cluster.handle(events.ErrandDone(errand.peer, errand.number, ok, value))


def store(cluster, errand):
    """A worker answers with an object."""
    cluster.errands.remove(errand)
    object_id = cluster.new_object()
    cluster.values[object_id] = object_id
    cluster.nbytes[object_id] = LARGE
    host = errand.peer.rpartition("/")[0]
    cluster.stores[host].add(object_id)
    cluster.handle(events.ErrandStored(errand.peer, errand.number, object_id, LARGE, "ndarray"))
    return object_id


def workers(cluster):
    return list(cluster.state.workers)


def test_each_worker_is_asked_and_its_answer_is_passed_on_at_once(cluster):
    number = ask(cluster, arguments={"packages": ("zarr",)})
    assert [errand.peer for errand in cluster.errands] == workers(cluster)
    assert {errand.operation for errand in cluster.errands} == {"versions"}
    assert all(errand.arguments == {"packages": ("zarr",)} for errand in cluster.errands)
    *first, last = list(cluster.errands)
    for count, errand in enumerate(first, 1):
        answer(cluster, errand)
        assert len(cluster.outcomes["client", number]) == count
    assert cluster.answer_of("client", number) is None
    answer(cluster, last, ok=False, value=("OSError", "no disk"))
    assert cluster.answer_of("client", number).value == {}
    outcomes = cluster.outcomes["client", number]
    assert outcomes.pop(last.peer) == {"error": ["OSError", "no disk"]}
    assert list(outcomes.values()) == [{"value": ANSWER}] * 3


def test_workers_are_named_by_name_address_or_host(cluster):
    one = workers(cluster)[0]
    ask(cluster, names=[one])
    assert [errand.peer for errand in cluster.errands] == [one]
    cluster.errands.clear()
    ask(cluster, names=["host1"])
    assert [errand.peer for errand in cluster.errands] == workers(cluster)[2:]
    cluster.errands.clear()
    ask(cluster, names=["host1", one, "host1"])
    assert [errand.peer for errand in cluster.errands] == [one, *workers(cluster)[2:]]


def test_a_name_that_is_none_is_refused_and_nobody_is_asked(cluster):
    number = ask(cluster, names=["host1", "nobody", "nothing"])
    reply = cluster.answer_of("client", number)
    assert (reply.ok, reply.value[0]) == (False, "ValueError")
    assert "no worker is called 'nobody', 'nothing'" in reply.value[1]
    assert workers(cluster)[0] in reply.value[1]
    assert not cluster.errands


@pytest.mark.parametrize(
    ("operation", "arguments", "error", "text"),
    [
        ("fetch-coffee", {}, "ValueError", "there are run, "),
        ("versions", {"packages": 3}, "ProtocolError", "versions.packages"),
        ("versions", {"milk": True}, "ProtocolError", "milk"),
    ],
)
def test_what_is_no_errand_is_refused(cluster, operation, arguments, error, text):
    number = ask(cluster, operation=operation, arguments=arguments)
    reply = cluster.answer_of("client", number)
    assert (reply.ok, reply.value[0]) == (False, error)
    assert text in reply.value[1]
    assert not cluster.errands


def test_without_workers_there_is_nothing_to_wait_for():
    cluster = Cluster(hosts=1)
    cluster.add_client("client")
    number = ask(cluster)
    assert cluster.answer_of("client", number).value == {}


@pytest.mark.parametrize("gone", ["worker", "host"])
def test_one_that_leaves_before_it_has_answered_has_an_error(cluster, gone):
    number = ask(cluster)
    leaver = cluster.errands[0].peer
    if gone == "worker":
        cluster.remove_worker(leaver)
    else:
        cluster.remove_host(leaver.rpartition("/")[0])
    outcomes = cluster.outcomes["client", number]
    assert len(outcomes) == (1 if gone == "worker" else 2)
    error, text = outcomes[leaver]["error"]
    assert error == "ConnectError"
    assert f"{leaver} left before it had answered" in text
    for errand in list(cluster.errands):
        if errand.peer in cluster.state.workers:
            answer(cluster, errand)
    assert cluster.answer_of("client", number).ok


def test_what_has_not_come_at_the_deadline_is_a_timeout_and_dropped_when_it_comes(cluster):
    number = ask(cluster, timeout=5.0)
    first, *late = list(cluster.errands)
    answer(cluster, first)
    cluster.now = 5.0
    assert cluster.state.next_deadline == 5.0
    cluster.handle(events.TimePassed())
    outcomes = cluster.outcomes["client", number]
    assert outcomes[first.peer] == {"value": ANSWER}
    assert [outcomes[errand.peer]["error"][0] for errand in late] == ["TimeoutError"] * 3
    assert "'versions' has not ended after 5 s" in outcomes[late[0].peer]["error"][1]
    assert cluster.answer_of("client", number).ok
    answer(cluster, late[0])
    object_id = store(cluster, late[1])
    assert all(object_id not in objects for objects in cluster.stores.values())
    assert len(cluster.outcomes["client", number]) == 4


def test_an_answer_of_another_is_dropped(cluster):
    number = ask(cluster)
    errand = cluster.errands[0]
    other = workers(cluster)[1]
    cluster.handle(events.ErrandDone(other, errand.number, True, ANSWER))
    cluster.handle(events.ErrandDone(other, 10**6, True, ANSWER))
    assert ("client", number) not in cluster.outcomes


def test_an_answer_that_is_none_of_its_errand_is_the_fault_of_its_sender(cluster):
    number = ask(cluster)
    errand = cluster.errands[0]
    for ok, value in ((True, {"host": {}}), (True, None), (False, "no"), (False, ("OSError", 3))):
        with pytest.raises(ProtocolError):
            cluster.handle(events.ErrandDone(errand.peer, errand.number, ok, value))
    assert ("client", number) not in cluster.outcomes
    answer(cluster, errand)
    assert cluster.outcomes["client", number] == {errand.peer: {"value": ANSWER}}


def test_an_answer_in_a_store_is_held_by_the_client_and_goes_with_it(cluster):
    number = ask(cluster)
    errand = cluster.errands[0]
    host = errand.peer.rpartition("/")[0]
    object_id = store(cluster, errand)
    key = cluster.outcomes["client", number][errand.peer]["key"]
    assert cluster.state.tasks[key].object_id == object_id
    assert [holder.id for holder in cluster.state.tasks[key].holders] == ["client"]
    assert object_id in cluster.stores[host]
    cluster.release("client", key)
    assert object_id not in cluster.stores[host]
    # Also when the client leaves without having heard of it.
    object_id = store(cluster, cluster.errands[0])
    assert any(object_id in objects for objects in cluster.stores.values())
    cluster.remove_client("client")
    assert all(object_id not in objects for objects in cluster.stores.values())


def test_a_client_that_has_left_hears_nothing(cluster):
    number = ask(cluster)
    cluster.remove_client("client")
    for errand in list(cluster.errands):
        answer(cluster, errand)
    assert ("client", number) not in cluster.outcomes
    assert not cluster.state.waits


def test_how_many_may_be_under_way_is_limited(cluster, monkeypatch):
    monkeypatch.setattr(errands, "MAX_OF_ONE", 2)
    numbers = [ask(cluster, names=[workers(cluster)[0]]) for _ in range(3)]
    assert len(cluster.errands) == 2
    error, text = cluster.outcomes["client", numbers[2]][workers(cluster)[0]]["error"]
    assert error == "RuntimeError"
    assert "2 errands to do already" in text
    assert cluster.answer_of("client", numbers[2]).ok
    monkeypatch.setattr(errands, "MAX_UNDER_WAY", 5)
    refused = ask(cluster)
    assert cluster.answer_of("client", refused).value[0] == "RuntimeError"
    assert "2 errands are under way" in cluster.answer_of("client", refused).value[1]
    answer(cluster, cluster.errands[0])
    ask(cluster)
    assert len(cluster.errands) == 5


def test_so_is_how_many_one_client_waits_for(cluster, monkeypatch):
    monkeypatch.setattr(errands, "MAX_OF_ONE", 2 * MAX_WAITING)
    for _ in range(MAX_WAITING):
        ask(cluster, names=[workers(cluster)[0]])
    refused = ask(cluster)
    assert cluster.answer_of("client", refused).value[0] == "RuntimeError"
