"""Copies where clients want them, and stores that are evened out: what hosts are told to bring and to forget."""

from __future__ import annotations

import random

import pytest
from scheduler_harness import LARGE, Cluster, pass_time_in_steps

from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.parts import carrying
from holdfast.cluster.scheduler.tasks import events


@pytest.fixture
def cluster():
    cluster = Cluster(hosts=4)
    cluster.add_client("client")
    return cluster


def hosts(cluster):
    return list(cluster.state.hosts)


def ask(cluster, asked, number=7):
    cluster.request("client", number, asked)


def answer(cluster, number=7):
    reply = cluster.answer_of("client", number)
    return None if reply is None else (reply.ok, reply.value)


def where(cluster, key):
    return {host.address for host in cluster.state.tasks[key].where}


def bring_all(cluster):
    while cluster.bring_copies():
        pass


class TestReplicate:
    def test_to_all_hosts(self, cluster):
        cluster.scatter("client", "x", hosts(cluster)[0])
        ask(cluster, requests.REPLICATE(keys=["x"]))
        assert answer(cluster) is None
        bring_all(cluster)
        assert answer(cluster) == (True, {"short": []})
        assert where(cluster, "x") == set(hosts(cluster))
        assert all(cluster.stores.values())

    def test_to_so_many_and_those_with_most_room_first(self, cluster):
        one, two, *_ = hosts(cluster)
        for n in range(3):
            cluster.scatter("client", f"y{n}", two)
        cluster.scatter("client", "x", one)
        ask(cluster, requests.REPLICATE(keys=["x"], n=3))
        bring_all(cluster)
        assert where(cluster, "x") == set(hosts(cluster)) - {two}

    def test_to_more_than_there_are_is_to_all(self, cluster):
        cluster.scatter("client", "x", hosts(cluster)[0])
        ask(cluster, requests.REPLICATE(keys=["x"], n=100))
        bring_all(cluster)
        assert answer(cluster) == (True, {"short": []})
        assert len(where(cluster, "x")) == 4

    def test_to_some_by_name(self, cluster):
        one, two, three, _ = hosts(cluster)
        worker = cluster.add_worker(three)
        cluster.scatter("client", "x", one)
        ask(cluster, requests.REPLICATE(keys=["x"], workers=["host1", worker]))
        bring_all(cluster)
        assert where(cluster, "x") == {one, two, three}
        ask(cluster, requests.REPLICATE(keys=["x"], workers=["nobody"]), 8)
        assert answer(cluster, 8)[1][0] == "NoWorkerError"

    def test_down_to_fewer(self, cluster):
        cluster.scatter("client", "x", hosts(cluster)[0])
        for host in hosts(cluster)[1:]:
            cluster.copy("x", host)
        ask(cluster, requests.REPLICATE(keys=["x"], n=1))
        assert answer(cluster) == (True, {"short": []})
        assert len(where(cluster, "x")) == 1
        assert [host for host, store in cluster.stores.items() if store] == list(where(cluster, "x"))

    def test_never_below_what_is_published(self, cluster):
        cluster.scatter("client", "x", hosts(cluster)[0])
        for host in hosts(cluster)[1:]:
            cluster.copy("x", host)
        cluster.publish("client", 6, "data", ["x"])
        ask(cluster, requests.REPLICATE(keys=["x"], n=1))
        assert len(where(cluster, "x")) == 2

    def test_never_what_a_task_waits_for(self, cluster):
        one = hosts(cluster)[0]
        cluster.add_worker(one)
        cluster.scatter("client", "x", one)
        cluster.copy("x", hosts(cluster)[1])
        cluster.submit("client", {"y": ["x"]})
        ask(cluster, requests.REPLICATE(keys=["x"], n=1))
        assert len(where(cluster, "x")) == 2

    def test_as_a_tree(self):
        cluster = Cluster(hosts=32)
        cluster.add_client("client")
        cluster.scatter("client", "x", hosts(cluster)[0])
        ask(cluster, requests.REPLICATE(keys=["x"], branching=2))
        rounds = []
        while cluster.copying:
            rounds.append(len(cluster.copying))
            cluster.bring_copies()
        assert rounds[0] == 2
        assert max(rounds) > 4, "those that have it give it on"
        assert len(rounds) <= 8
        assert len(where(cluster, "x")) == 32

    def test_a_host_that_can_t_is_passed_over_and_named_if_there_is_no_other(self, cluster):
        cluster.scatter("client", "x", hosts(cluster)[0])
        ask(cluster, requests.REPLICATE(keys=["x"], n=2))
        while cluster.bring_copies(reason="there is no room"):
            pass
        ok, value = answer(cluster)
        assert ok
        ((short),) = value["short"]
        assert (short["key"], short["copies"], short["wanted"]) == ("x", 1, 2)
        assert "there is no room" in short["reason"]

    def test_a_store_that_is_too_small(self):
        cluster = Cluster(hosts=1)
        cluster.add_client("client")
        small = cluster.add_host(capacity=LARGE // 2)
        cluster.scatter("client", "x", "tcp://host0:1")
        ask(cluster, requests.REPLICATE(keys=["x"]))
        (short,) = answer(cluster)[1]["short"]
        assert small in short["reason"]

    def test_a_host_that_dies_is_replaced(self, cluster):
        cluster.scatter("client", "x", hosts(cluster)[0])
        ask(cluster, requests.REPLICATE(keys=["x"], n=2))
        ((chosen, _),) = cluster.copying
        cluster.remove_host(chosen)
        bring_all(cluster)
        assert answer(cluster) == (True, {"short": []})
        assert len(where(cluster, "x")) == 2

    def test_the_host_that_has_it_dies(self, cluster):
        cluster.scatter("client", "x", hosts(cluster)[0])
        ask(cluster, requests.REPLICATE(keys=["x"]))
        cluster.remove_host(hosts(cluster)[0])
        bring_all(cluster)
        (short,) = answer(cluster)[1]["short"]
        assert short["copies"] == 0

    def test_to_all_is_to_those_that_are_left(self, cluster):
        one, two, *_ = hosts(cluster)
        cluster.scatter("client", "x", one)
        ask(cluster, requests.REPLICATE(keys=["x"]))
        cluster.remove_host(two)
        bring_all(cluster)
        assert answer(cluster) == (True, {"short": []})
        assert where(cluster, "x") == set(hosts(cluster))

    def test_a_small_result_that_is_not_stored_yet_is_waited_for(self, cluster):
        one = hosts(cluster)[0]
        cluster.add_worker(one)
        cluster.submit("client", {"x": []})
        cluster.finish("x", inline=b"small", nbytes=10)
        ask(cluster, requests.REPLICATE(keys=["x"], n=2))
        cluster.bring_copies(reason="nobody has it")
        assert not cluster.copying
        pass_time_in_steps(cluster, carrying.REST_SECONDS)
        bring_all(cluster)
        assert answer(cluster) == (True, {"short": []})
        assert len(where(cluster, "x")) == 2

    def test_a_small_result_that_nobody_waits_for_any_more_is_not_tried_again(self, cluster):
        cluster.add_worker(hosts(cluster)[0])
        cluster.submit("client", {"x": []})
        cluster.finish("x", inline=b"small", nbytes=10)
        ask(cluster, requests.REPLICATE(keys=["x"], n=2, timeout=3.0))
        pass_time_in_steps(cluster, 3.0)
        cluster.bring_copies(reason="nobody has it")
        pass_time_in_steps(cluster, carrying.REST_SECONDS)
        ask(cluster, requests.REPLICATE(keys=["x"], n=2), 8)
        assert cluster.copying
        bring_all(cluster)
        assert answer(cluster, 8) == (True, {"short": []})

    def test_an_unknown_key_is_refused(self, cluster):
        ask(cluster, requests.REPLICATE(keys=["nothing"]))
        assert answer(cluster)[1][0] == "CancelledError"

    def test_one_that_takes_too_long(self, cluster):
        cluster.scatter("client", "x", hosts(cluster)[0])
        ask(cluster, requests.REPLICATE(keys=["x"], timeout=3.0))
        pass_time_in_steps(cluster, 3.0)
        ok, (error, text) = answer(cluster)
        assert (ok, error) == (False, "TimeoutError")
        assert "3 copies were to be made still" in text
        bring_all(cluster)
        assert len(where(cluster, "x")) > 1

    def test_two_that_want_the_same_share_it(self, cluster):
        cluster.scatter("client", "x", hosts(cluster)[0])
        ask(cluster, requests.REPLICATE(keys=["x"], branching=10))
        ask(cluster, requests.REPLICATE(keys=["x"], branching=10), 8)
        assert len(cluster.copying) == 3
        bring_all(cluster)
        assert answer(cluster) == answer(cluster, 8) == (True, {"short": []})

    def test_a_client_that_leaves_meanwhile(self, cluster):
        cluster.add_client("other")
        cluster.scatter("client", "x", hosts(cluster)[0])
        ask(cluster, requests.REPLICATE(keys=["x"]))
        cluster.remove_client("client")
        bring_all(cluster)
        cluster.catch_up()
        assert not any(cluster.stores.values())

    def test_what_is_released_meanwhile(self, cluster):
        cluster.scatter("client", "x", hosts(cluster)[0])
        ask(cluster, requests.REPLICATE(keys=["x"]))
        cluster.release("client", "x")
        bring_all(cluster)
        assert answer(cluster)[0]
        cluster.catch_up()
        assert not any(cluster.stores.values())


def nbytes(cluster):
    return [host.nbytes for host in cluster.state.hosts.values()]


class TestRebalance:
    def test_all_of_one_host(self, cluster):
        one = hosts(cluster)[0]
        for n in range(40):
            cluster.scatter("client", f"x{n}", one)
        ask(cluster, requests.REBALANCE())
        bring_all(cluster)
        ok, value = answer(cluster)
        assert ok
        assert value == {"objects": 30, "nbytes": 30 * LARGE, "failed": 0, "reason": ""}
        assert nbytes(cluster) == [10 * LARGE] * 4
        assert all(len(where(cluster, f"x{n}")) == 1 for n in range(40))

    def test_by_how_much_stores_hold(self):
        cluster = Cluster()
        cluster.add_client()
        one, two = cluster.add_host(capacity=100 * LARGE), cluster.add_host(capacity=300 * LARGE)
        for n in range(40):
            cluster.scatter("client", f"x{n}", one)
        ask(cluster, requests.REBALANCE())
        bring_all(cluster)
        assert nbytes(cluster) == [10 * LARGE, 30 * LARGE]
        assert two

    def test_some_hosts_and_some_keys(self, cluster):
        one, two, three, _ = hosts(cluster)
        for n in range(8):
            cluster.scatter("client", f"x{n}", one)
        cluster.scatter("client", "y", two)
        ask(cluster, requests.REBALANCE(keys=["x0", "x1", "x2"], workers=["host0", "host2"]))
        bring_all(cluster)
        assert {key for n in range(8) if where(cluster, key := f"x{n}") == {three}} == {"x0", "x1", "x2"}
        assert where(cluster, "y") == {two}

    def test_even_stores_stay_as_they_are(self, cluster):
        for host in hosts(cluster):
            cluster.scatter("client", f"x{host}", host)
        ask(cluster, requests.REBALANCE())
        assert answer(cluster)[1]["objects"] == 0
        assert not cluster.copying

    def test_what_a_task_waits_for_stays(self, cluster):
        one = hosts(cluster)[0]
        cluster.add_worker(one)
        for n in range(8):
            cluster.scatter("client", f"x{n}", one)
        cluster.submit("client", {"y": [f"x{n}" for n in range(8)]})
        ask(cluster, requests.REBALANCE())
        assert answer(cluster)[1]["objects"] == 0

    def test_what_a_task_waits_for_meanwhile_is_not_forgotten(self, cluster):
        one = hosts(cluster)[0]
        cluster.add_worker(one)
        for n in range(8):
            cluster.scatter("client", f"x{n}", one)
        ask(cluster, requests.REBALANCE())
        cluster.submit("client", {"y": [f"x{n}" for n in range(8)]})
        bring_all(cluster)
        assert all(one in where(cluster, f"x{n}") for n in range(8))
        assert answer(cluster)[0]

    def test_published_data_keeps_its_two_copies(self, cluster):
        one, two, *_ = hosts(cluster)
        keys = [f"x{n}" for n in range(8)]
        for key in keys:
            cluster.scatter("client", key, one)
            cluster.copy(key, two)
        cluster.publish("client", 6, "data", keys)
        ask(cluster, requests.REBALANCE())
        bring_all(cluster)
        assert all(len(where(cluster, key)) == 2 for key in keys)
        assert nbytes(cluster) == [4 * LARGE] * 4

    def test_one_that_can_t_be_moved_is_said(self, cluster):
        one = hosts(cluster)[0]
        for n in range(8):
            cluster.scatter("client", f"x{n}", one)
        ask(cluster, requests.REBALANCE())
        while cluster.bring_copies(reason="there is no room"):
            pass
        value = answer(cluster)[1]
        assert value["objects"] == 0
        assert value["failed"] == 6
        assert "there is no room" in value["reason"]
        assert all(where(cluster, f"x{n}") == {one} for n in range(8))

    def test_on_one_host_there_is_nothing_to_do(self):
        cluster = Cluster(hosts=1)
        cluster.add_client()
        cluster.scatter("client", "x", "tcp://host0:1")
        ask(cluster, requests.REBALANCE())
        assert answer(cluster)[1]["objects"] == 0

    @pytest.mark.parametrize("dies", range(4))
    @pytest.mark.parametrize("after", range(3))
    def test_no_byte_is_lost_when_a_host_dies_in_the_middle(self, cluster, dies, after):
        one = hosts(cluster)[0]
        for n in range(40):
            cluster.scatter("client", f"x{n}", one)
        ask(cluster, requests.REBALANCE())
        for _ in range(after):
            cluster.bring_copies()
        victim = hosts(cluster)[dies]
        only_there = {f"x{n}" for n in range(40) if where(cluster, f"x{n}") == {victim}}
        cluster.remove_host(victim)
        bring_all(cluster)
        assert answer(cluster)[0]
        for n in range(40):
            assert (f"x{n}" in only_there) or cluster.state.tasks[f"x{n}"].state == "memory"

    @pytest.mark.parametrize("seed", range(20))
    def test_by_chance(self, seed):
        chance = random.Random(seed)
        cluster = Cluster()
        cluster.add_client()
        for _ in range(chance.randrange(2, 6)):
            cluster.add_host(capacity=chance.choice([60, 100, 200]) * LARGE)
        for n in range(60):
            cluster.scatter("client", f"x{n}", chance.choice(hosts(cluster)[:2]))
            if chance.random() < 0.2:
                other = chance.choice(hosts(cluster))
                if other not in where(cluster, f"x{n}"):
                    cluster.copy(f"x{n}", other)
        copies = {key: len(where(cluster, key)) for key in cluster.state.tasks}
        ask(cluster, requests.REBALANCE())
        bring_all(cluster)
        assert answer(cluster)[0]
        assert {key: len(where(cluster, key)) for key in cluster.state.tasks} == copies
        total = sum(host.nbytes for host in cluster.state.hosts.values())
        capacity = sum(host.capacity for host in cluster.state.hosts.values())
        for host in cluster.state.hosts.values():
            assert host.nbytes <= total * host.capacity / capacity * 1.05 + LARGE


def test_a_result_that_has_moved_is_read_where_it_is_and_counts_for_no_loss(cluster):
    one, two, *_ = hosts(cluster)
    object_id = cluster.scatter("client", "x", one)
    cluster.copy("x", two)
    cluster.state.life.results.forget_copy(cluster.state.tasks["x"], cluster.state.hosts[one])
    for _ in range(10):
        cluster.clients["client"]["x"] = "pending"
        cluster.handle(events.ResultsMissing("client", [("x", object_id, one)]))
        assert cluster.clients["client"]["x"] == "memory"
    assert cluster.state.tasks["x"].missing == 0
