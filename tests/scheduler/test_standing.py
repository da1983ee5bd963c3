"""Standing errands: workers that join are sent them, and all are told when their client leaves."""

from __future__ import annotations

import pytest
from scheduler_harness import Cluster

from holdfast.cluster.protocol import requests
from holdfast.cluster.protocol.errands import FORWARD_LOGS, RECORD_TASKS
from holdfast.cluster.scheduler.parts import standing
from holdfast.cluster.scheduler.tasks.instructions import SendErrand

HOST = "tcp://host0:1"
ON, OFF = {"client": "client", "on": True}, {"client": "client", "on": False}


class Errands(Cluster):
    """A cluster that notes which errands are sent."""

    def __init__(self, *args, **options):
        self.sent = []
        super().__init__(*args, **options)

    def _apply(self, instruction):
        if isinstance(instruction, SendErrand):
            self.sent.append(instruction)
        super()._apply(instruction)

    def take(self):
        sent, self.sent = self.sent, []
        return [(each.peer, each.operation, dict(each.arguments)) for each in sent]

    def ask(self, asked):
        number = self.new_number()
        self.request("client", number, asked)
        return self.answer_of("client", number)

    def stand(self, name="x", errand=RECORD_TASKS, arguments=ON, undo=OFF):
        return self.ask(requests.STAND(name=name, operation=errand.operation, arguments=arguments, undo=undo))


@pytest.fixture
def cluster():
    cluster = Errands(hosts=1, workers=1)
    cluster.add_client()
    return cluster


def test_workers_that_join_are_sent_it_and_those_that_are_there_are_not(cluster):
    assert cluster.stand().ok
    assert cluster.take() == []
    worker = cluster.add_worker(HOST)
    assert cluster.take() == [(worker, "record-tasks", ON)]


def test_what_is_withdrawn_is_undone_everywhere_and_sent_no_more(cluster):
    cluster.stand()
    assert cluster.ask(requests.WITHDRAW(name="x")).ok
    assert cluster.take() == [(worker, "record-tasks", OFF) for worker in cluster.state.workers]
    assert cluster.ask(requests.WITHDRAW(name="x")).ok
    cluster.add_worker(HOST)
    assert cluster.take() == []


def test_what_a_client_has_left_is_undone_when_it_leaves(cluster):
    cluster.stand()
    cluster.remove_client("client")
    assert cluster.take() == [(worker, "record-tasks", OFF) for worker in cluster.state.workers]
    cluster.add_worker(HOST)
    assert cluster.take() == []


def test_another_one_of_the_same_name_takes_its_place(cluster):
    cluster.stand()
    logs = {"topic": "t", "logger": None, "level": 20}
    cluster.stand(errand=FORWARD_LOGS, arguments={**logs, "on": True}, undo={**logs, "on": False})
    worker = cluster.add_worker(HOST)
    assert cluster.take() == [(worker, "forward-logs", {**logs, "on": True})]


def test_what_can_not_stand_is_refused(cluster, monkeypatch):
    number = cluster.new_number()
    cluster.request("client", number, requests.STAND(name="x", operation="versions", arguments={}, undo={}))
    assert "is no errand that can stand" in cluster.answer_of("client", number).value[1]
    assert cluster.stand(arguments={"on": 3}).value[0] == "ProtocolError"
    assert cluster.stand(undo={}).value[0] == "ProtocolError"
    monkeypatch.setattr(standing, "MAX_OF_CLIENT", 2)
    assert [cluster.stand(name).ok for name in "abca"] == [True, True, False, True]
