"""Requests that wait: each is answered exactly once, in time or at its deadline, in the order in which they came.

The harness looks after every event whether what has no answer waits, and whether what waits has no answer.
"""

from __future__ import annotations

import pytest
from scheduler_harness import Cluster

from holdfast.cluster.protocol.requests import MEMORY, STATUS, WAIT_FOR_WORKERS
from holdfast.cluster.scheduler.parts import waits as waits_module
from holdfast.cluster.scheduler.parts.inquiries import REPORT_SECONDS
from holdfast.cluster.scheduler.parts.worker_waits import WAIT_FOR_WORKERS_SECONDS
from holdfast.cluster.scheduler.tasks import events
from tests.support.journalled import Journalled

HOST = "tcp://host0:1"


@pytest.fixture
def cluster():
    cluster = Cluster(hosts=1, workers=1, address="tcp://10.0.0.1:8786")
    cluster.add_client()
    return cluster


def wait_for_workers(cluster, number, n, timeout=None, client="client"):
    cluster.request(client, number, WAIT_FOR_WORKERS(n=n, timeout=timeout))


def pass_time(cluster, now):
    cluster.now = now
    cluster.handle(events.TimePassed())


def answers(cluster):
    return [(reply.request, reply.ok, reply.value) for reply in cluster.replies]


class TestWorkers:
    def test_there_may_be_enough_already(self, cluster):
        wait_for_workers(cluster, 1, 1)
        wait_for_workers(cluster, 2, 0)
        assert answers(cluster) == [(1, True, 1), (2, True, 1)]
        assert cluster.state.next_deadline is None

    def test_waits_for_so_many_are_answered_in_the_order_in_which_they_began(self, cluster):
        for number, n in enumerate([3, 2, 3, 2, 4]):
            wait_for_workers(cluster, number, n)
        cluster.add_worker(HOST)
        assert answers(cluster) == [(1, True, 2), (3, True, 2)]
        cluster.add_worker(HOST)
        assert answers(cluster)[2:] == [(0, True, 3), (2, True, 3)]
        assert [wait.request for wait in cluster.state.waits] == [4]

    def test_time_is_up_for_each_at_its_own_deadline(self, cluster):
        wait_for_workers(cluster, 1, 2, timeout=5.0)
        wait_for_workers(cluster, 2, 3)
        wait_for_workers(cluster, 3, 4, timeout=1.0)
        assert cluster.state.next_deadline == 1.0
        pass_time(cluster, 1.0)
        ((number, ok, (error, text)),) = answers(cluster)
        assert (number, ok, error) == (3, False, "TimeoutError")
        assert text == ("waited 1 s for 4 workers, 1 are there; 'holdfast start --address 10.0.0.1:8786' adds some")
        assert cluster.state.next_deadline == 5.0
        pass_time(cluster, WAIT_FOR_WORKERS_SECONDS)
        assert [number for number, _, _ in answers(cluster)] == [3, 1, 2]
        assert cluster.state.next_deadline is None

    def test_time_that_is_up_at_once(self, cluster):
        wait_for_workers(cluster, 1, 2, timeout=0.0)
        assert cluster.state.next_deadline == cluster.now
        pass_time(cluster, cluster.now)
        assert [ok for _, ok, _ in answers(cluster)] == [False]

    def test_what_waits_for_others_says_so_in_its_definition(self, cluster, monkeypatch):
        monkeypatch.setattr(WAIT_FOR_WORKERS, "waits", False)
        wait_for_workers(cluster, 1, 2, timeout=0.5)
        with pytest.raises(AssertionError, match="'wait-for-workers' isn't said to wait"):
            wait_for_workers(cluster, 2, 2, timeout=5.0)


class TestInquiries:
    def test_all_hosts_are_asked_and_the_answer_has_what_they_say(self, cluster):
        other = cluster.add_host()
        cluster.request("client", 1, STATUS())
        assert cluster.reports == [HOST, other]
        cluster.report(HOST, store={"used": 5})
        assert cluster.replies == []
        cluster.report(other, store={"used": 7})
        (reply,) = cluster.replies
        assert reply.ok
        assert {host: node["store"]["used"] for host, node in reply.value["nodes"].items()} == {HOST: 5, other: 7}

    def test_a_host_that_says_nothing_keeps_nobody_waiting_for_long(self, cluster):
        cluster.report(HOST, store={"used": 3})
        cluster.request("client", 1, MEMORY())
        assert cluster.state.next_deadline == REPORT_SECONDS
        pass_time(cluster, REPORT_SECONDS)
        (reply,) = cluster.replies
        assert reply.value["stores"] == {HOST: {"used": 3}}
        cluster.report(HOST, store={"used": 4})
        assert len(cluster.replies) == 1

    def test_a_host_that_leaves_is_not_waited_for(self, cluster):
        cluster.request("client", 1, STATUS())
        cluster.remove_host(HOST)
        (reply,) = cluster.replies
        assert reply.value["nodes"] == {}

    def test_without_hosts_there_is_nothing_to_wait_for(self):
        cluster = Cluster()
        cluster.add_client()
        cluster.request("client", 1, STATUS())
        assert cluster.replies[0].value["tasks"] == {}

    def test_one_report_answers_all_that_wait_for_it(self, cluster):
        cluster.request("client", 1, STATUS())
        cluster.request("client", 2, MEMORY())
        cluster.report(HOST)
        assert [number for number, _, _ in answers(cluster)] == [1, 2]


class TestClients:
    def test_with_its_client_a_wait_has_gone(self, cluster):
        other = cluster.add_client("other")
        wait_for_workers(cluster, 1, 2, client=other)
        cluster.request(other, 2, STATUS())
        wait_for_workers(cluster, 1, 2)
        cluster.remove_client(other)
        assert [wait.client for wait in cluster.state.waits] == ["client"]
        assert cluster.state.waits.of(other) == []
        cluster.report(HOST)
        cluster.add_worker(HOST)
        assert [reply.peer for reply in cluster.replies] == ["client"]
        assert cluster.state.next_deadline is None

    def test_a_client_may_have_so_many_waits_and_others_as_many(self, cluster, monkeypatch):
        monkeypatch.setattr(waits_module, "MAX_WAITING", 3)
        other = cluster.add_client("other")
        wait_for_workers(cluster, 1, 2)
        cluster.request("client", 2, STATUS())
        wait_for_workers(cluster, 3, 2)
        for number, asked in enumerate([WAIT_FOR_WORKERS(n=2), MEMORY()], 4):
            cluster.request("client", number, asked)
            reply = cluster.answer_of("client", number)
            assert (reply.ok, reply.value[0]) == (False, "RuntimeError")
            assert "3 requests of this client wait already" in reply.value[1]
        wait_for_workers(cluster, 1, 2, client=other)
        assert len(cluster.state.waits) == 4
        cluster.report(HOST)
        wait_for_workers(cluster, 6, 2)
        assert [wait.request for wait in cluster.state.waits.of("client")] == [1, 3, 6]

    def test_a_publisher_does_not_publish_what_it_could_not_wait_for(self, cluster, monkeypatch):
        monkeypatch.setattr(waits_module, "MAX_WAITING", 1)
        wait_for_workers(cluster, 1, 2)
        cluster.publish("client", 2, "data", [])
        assert cluster.answer_of("client", 2).value[0] == "RuntimeError"
        assert not cluster.state.datasets.published
        cluster.add_worker(HOST)
        cluster.publish("client", 3, "data", [])
        assert cluster.answer_of("client", 3).ok


class TestAnotherScheduler:
    """Clients pose what waits to the next scheduler again, with the time that is left."""

    def test_each_is_answered_there_in_the_same_order_and_at_the_same_deadline(self):
        cluster = Journalled(hosts=2)
        cluster.add_client()
        cluster.add_worker(HOST)
        cluster.scatter("client", "x", HOST)
        cluster.publish("client", 1, "data", ["x"])
        wait_for_workers(cluster, 2, 3, timeout=5.0)
        wait_for_workers(cluster, 3, 2, timeout=7.0)
        cluster.request("client", 4, STATUS())
        cluster.now = 0.5
        cluster.restart(now=100.0)
        assert [wait.request for wait in cluster.state.waits] == [1, 2, 3, 4]
        cluster.handle(events.TimePassed())
        assert cluster.bring_copies() == 1
        assert answers(cluster) == [(1, True, None)]
        for host in cluster.state.hosts:
            cluster.report(host)
        assert cluster.answer_of("client", 4).ok
        cluster.add_worker(HOST)
        assert cluster.answer_of("client", 3).ok
        assert cluster.state.next_deadline == 104.5
        pass_time(cluster, 104.5)
        assert not cluster.answer_of("client", 2).ok
        assert not cluster.state.waits
