"""What the machine knows of its parts: a table that is made once, in which nothing has two answers and nothing none."""

from __future__ import annotations

import pytest
from scheduler_harness import Cluster

from holdfast.cluster.protocol.requests import LIST_DATASETS, PUBLISH, REQUESTS, SHUTDOWN, WAIT_FOR_WORKERS
from holdfast.cluster.scheduler.io.instruction_messages import MESSAGES, REPORTS
from holdfast.cluster.scheduler.machine.machine import (
    FAILURE_PAUSE_SECONDS,
    SchedulerState,
    table_of_events,
    table_of_requests,
)
from holdfast.cluster.scheduler.parts.copies import Copies
from holdfast.cluster.scheduler.parts.part import Part
from holdfast.cluster.scheduler.parts.worker_waits import WorkerWaits
from holdfast.cluster.scheduler.tasks import events, instructions
from holdfast.cluster.scheduler.tasks.holders import Client, Contents
from holdfast.cluster.scheduler.watching.reading import READERS

HOST = "tcp://host0:1"


class Listening(Part):
    """Notes what it is told."""

    name = "listening"

    def __init__(self, shared):
        super().__init__(shared)
        self.heard = []

    def host_joined(self, host):
        self.heard.append(("host joined", host.address))

    def host_ready(self, host):
        self.heard.append(("host ready", host.address))

    def host_reported(self, host):
        self.heard.append(("host reported", host.report["store"]))

    def host_left(self, host):
        assert not host.workers, "its workers have left before it"
        self.heard.append(("host left", host.address))

    def worker_joined(self, worker):
        self.heard.append(("worker joined", worker.address))

    def worker_left(self, worker):
        assert not worker.runs
        self.heard.append(("worker left", worker.address))

    def client_left(self, client):
        assert not client.hears
        self.heard.append(("client left", client.id))


@pytest.fixture
def shared():
    return SchedulerState()._shared


def test_every_request_of_the_protocol_has_one_answer():
    state = SchedulerState()
    assert len(state.requests) == len(set(state.requests))
    assert {*state.requests, *READERS, SHUTDOWN} == set(REQUESTS)


def test_every_event_has_a_handler():
    assert set(SchedulerState()._handlers) == set(events.Event.__args__)


def test_every_instruction_is_a_message_a_report_or_carried_out_by_the_server():
    carried_out = {instructions.Answer, instructions.Disconnect, instructions.Log}
    ways = [*MESSAGES, *REPORTS, *carried_out]
    assert len(ways) == len(set(ways)), "each has one way"
    assert set(ways) == set(instructions.Instruction.__args__)


def test_two_parts_that_answer_one_request_are_refused(shared):
    one, two = Part(shared), Part(shared)
    one.requests = {PUBLISH: print}
    two.requests = {PUBLISH: print}
    assert table_of_requests([one]) == {"publish": print}
    with pytest.raises(ValueError, match="two parts answer the request 'publish'"):
        table_of_requests([one, two])


def test_two_that_answer_one_event_are_refused():
    with pytest.raises(ValueError, match="two answer CopiesFailed, HostReady"):
        table_of_events(
            {events.HostReady: print, events.CopiesFailed: print, events.HostLeft: print},
            {events.CopiesFailed: print, events.HostReady: print},
        )


def test_parts_are_told_of_all_that_come_and_leave():
    cluster = Cluster()
    part = Listening(cluster.state._shared)
    hosts = cluster.state._handlers[events.HostJoined].__self__
    workers = cluster.state._handlers[events.WorkerJoined].__self__
    clients = cluster.state._handlers[events.ClientLeft].__self__
    for handlers in (hosts, workers, clients):
        handlers._parts = (part,)
    cluster.add_host()
    worker = cluster.add_worker(HOST)
    other = cluster.add_worker(HOST)
    cluster.report(HOST, store={"used": 1})
    cluster.add_client()
    cluster.remove_worker(worker)
    cluster.remove_host(HOST)
    cluster.remove_client("client")
    assert part.heard == [
        ("host joined", HOST),
        ("host ready", HOST),
        ("worker joined", worker),
        ("worker joined", other),
        ("host reported", {"used": 1}),
        ("worker left", worker),
        ("worker left", other),
        ("host left", HOST),
        ("client left", "client"),
    ]


def test_a_part_that_asks_to_follow_up_is_called_once_for_each_time_that_it_asks(shared):
    called = []

    class Asking(Part):
        name = "asking"

        def follow_up(self):
            called.append(self)
            if len(called) < 3:
                self.ask_to_follow_up()

    part = Asking(shared)
    part.ask_to_follow_up()
    part.ask_to_follow_up()
    shared.follow_up()
    assert called == [part] * 3
    shared.follow_up()
    assert len(called) == 3


def test_what_fails_is_tried_again_after_a_pause_and_keeps_nobody_else_from_going_on(monkeypatch):
    failures = []
    cluster = Cluster(hosts=2, validate=False, on_failure=lambda what, error: failures.append((what, str(error))))
    cluster.add_client()
    cluster.scatter("client", "data", HOST)
    with monkeypatch.context() as patch:
        patch.setattr(Copies, "_host_for", lambda *args: 1 / 0)
        cluster.publish("client", 1, "set", ["data"])
        assert failures == [("what parts have left to do", "division by zero")]
        cluster.request("client", 2, LIST_DATASETS())
        assert cluster.answer_of("client", 2).value == [], "it has no name before it has its copies"
    failures.clear()
    assert cluster.state.next_deadline == FAILURE_PAUSE_SECONDS
    cluster.now = FAILURE_PAUSE_SECONDS
    cluster.handle(events.TimePassed())
    assert cluster.bring_copies() == 1
    assert cluster.answer_of("client", 1).ok
    assert failures == []


def test_what_expires_and_fails_expires_again_after_a_pause(monkeypatch):
    failures = []
    cluster = Cluster(validate=False, on_failure=lambda what, error: failures.append(what))
    cluster.add_client()
    cluster.request("client", 1, WAIT_FOR_WORKERS(n=1, timeout=0.5))
    cluster.request("client", 2, WAIT_FOR_WORKERS(n=2, timeout=0.5))
    cluster.now = 0.5
    with monkeypatch.context() as patch:
        patch.setattr(WorkerWaits, "expired", lambda *args: 1 / 0)
        assert [type(each) for each in cluster.state.handle(events.TimePassed(), 0.5)] == []
    assert failures == ["what is due"]
    assert cluster.state.next_deadline == 0.5 + FAILURE_PAUSE_SECONDS
    cluster.now = cluster.state.next_deadline
    cluster.handle(events.TimePassed())
    assert [(reply.request, reply.ok) for reply in cluster.replies] == [(1, False), (2, False)]


def test_holders_say_what_they_are():
    cluster = Cluster(hosts=1, workers=1)
    cluster.add_client("a")
    cluster.scatter("a", "outer", HOST)
    cluster.submit("a", {"inner": []})
    cluster.handle(events.ReferencesFound("a", [("outer", ["inner"])]))
    cluster.publish("a", 1, "data", ["inner"])
    holders = cluster.state.tasks["inner"].holders
    assert [holder.describe() for holder in holders] == [("client", "a"), ("object", "'outer'"), ("dataset", "'data'")]
    assert [holder.hears for holder in holders] == [True, False, False]
    assert [type(holder) for holder in holders][:2] == [Client, Contents]
