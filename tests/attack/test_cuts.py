"""Links that stall or are cut between a host or a client and the rest of the cluster."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from campaign import Campaign
from pausing import Data, N, given_up, is_back, make, pids_of_workers, total
from proxy import Proxy
from waiting import DEADLINE_SECONDS, until

from holdfast import Client, LocalCluster
from holdfast.cluster.deploy.cluster_processes import LocalProcesses
from holdfast.cluster.deploy.plan import NodePlan

SILENCE_SECONDS = 1.0


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("HOLDFAST_SILENCE_TIMEOUT", str(SILENCE_SECONDS))
    with LocalCluster(1, 1, object_store_memory="64 MiB") as cluster:
        yield cluster


@pytest.fixture
def link(cluster):
    with Proxy(cluster.scheduler_address) as proxy:
        yield proxy


@pytest.fixture
def far(cluster, link):
    """A host at the other end of the link."""
    processes = LocalProcesses(cluster.token)
    processes.scheduler_address = link.address
    processes.start_nodes([NodePlan(1, 1, 64 << 20, name="far")], DEADLINE_SECONDS)
    yield processes
    link.resume()
    processes.stop(10)


@pytest.fixture
def node(far):
    return far.places[0].info["address"]


@pytest.fixture
def client(cluster):
    with Client(cluster, attach=False) as client:
        yield client


def test_a_host_whose_connections_are_cut_is_back_at_once_with_all_that_it_has(client, link, node, tmp_path):
    data = Data(client, node, tmp_path / "runs")
    for _ in range(5):
        link.cut()
        data.check(made_again=True)
    until(lambda: is_back(client, node), "it comes back")


def test_a_link_that_stalls_for_less_than_a_silence_is_none_the_worse(client, link, node, tmp_path):
    pids = pids_of_workers(client)
    data = Data(client, node, tmp_path / "runs")
    for _ in range(3):
        link.stall()
        time.sleep(SILENCE_SECONDS / 2)
        link.resume()
        data.check()
    assert pids_of_workers(client) == pids


def test_a_host_behind_a_link_that_stalls_for_longer_comes_back(client, link, node, tmp_path):
    data = Data(client, node, tmp_path / "runs")
    link.stall()
    until(lambda: given_up(client, node), "it is given up")
    link.resume()
    data.check(made_again=True)
    until(lambda: is_back(client, node), "it comes back")


def test_a_task_that_runs_on_a_host_that_is_cut_off_is_done_all_the_same(client, link, node):
    futures = [client.submit(lambda i: time.sleep(0.3) or i, i, pure=False) for i in range(6)]
    link.stall()
    until(lambda: given_up(client, node), "it is given up")
    link.resume()
    assert client.gather(futures) == list(range(6))
    until(lambda: is_back(client, node), "it comes back")


def test_a_client_behind_a_link_that_stalls_has_what_it_holds(cluster, link):
    with Client(link.address, attach=False) as client:
        held = client.submit(make, 5, pure=False)
        link.stall()
        later = client.submit(total, held, pure=False)
        time.sleep(3 * SILENCE_SECONDS)
        link.resume()
        assert later.result(DEADLINE_SECONDS) == 5 * N
        assert (held.result(DEADLINE_SECONDS) == make(5)).all()


def test_campaign_of_cuts(cluster, client, link, far, node):
    """A link stalls and is cut, and the agent behind it is stopped, at random under a load of checked results."""
    over = threading.Event()
    kept = client.scatter(make(1), hash=False, workers=[node])
    client.publish_dataset([kept], name="kept")
    with Campaign("cuts", share=0.2) as campaign:

        def interfere():
            chance = campaign.random
            while not over.is_set():
                fault = chance.choice(["stall", "cut", "both", "stop"])
                agent = far.places[0].child
                if fault == "stop":
                    agent.send_signal(signal.SIGSTOP)
                if fault in ("stall", "both"):
                    link.stall()
                if fault in ("cut", "both"):
                    link.cut()
                over.wait(chance.choice([0.01, 0.3, 1.5]))
                link.resume()
                agent.send_signal(signal.SIGCONT)
                campaign.counts[fault] += 1
                over.wait(chance.uniform(0.05, 1.0))

        interferer = threading.Thread(target=interfere)
        interferer.start()
        try:
            number = 0
            while campaign.goes_on():
                number += 1
                arrays = client.map(make, range(number, number + 10), pure=False)
                sums = [client.submit(total, array, array, pure=False) for array in arrays]
                for index, future in enumerate(sums):
                    assert future.result(2 * DEADLINE_SECONDS) == 2 * N * (number + index), "wrong"
                    campaign.counts["checked"] += 1
        finally:
            over.set()
            interferer.join()
        until(lambda: is_back(client, node), "it is back", 60)
        (future,) = client.get_dataset("kept")
        assert (future.result(DEADLINE_SECONDS) == make(1)).all()
        campaign.counts["checked"] += 1
    assert far.places[0].child.returncode is None
