"""Processes that stand still for several times as long as a node may be silent, and go on."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest
from campaign import Campaign
from pausing import Data, N, given_up, is_back, make, pids_of_workers, processes_of, stopped, total
from waiting import DEADLINE_SECONDS, until

from holdfast import Client, LocalCluster, ObjectLostError, wait
from holdfast.client.stores import access as store_access

SILENCE_SECONDS = 1.0
PAUSE_SECONDS = 3 * SILENCE_SECONDS


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("HOLDFAST_SILENCE_TIMEOUT", str(SILENCE_SECONDS))
    with LocalCluster(2, 1, n_hosts=2, object_store_memory="64 MiB") as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster, attach=False) as client:
        yield client


def pause(*pids, seconds=PAUSE_SECONDS):
    with stopped(*pids):
        time.sleep(seconds)


def test_a_scheduler_that_was_stopped_gives_nobody_up(cluster, client, tmp_path):
    pids = pids_of_workers(client)
    data = [Data(client, node["address"], tmp_path / "runs") for node in cluster.nodes[:1]]
    for _ in range(2):
        with stopped(cluster.scheduler_pid):
            later = client.submit(total, data[0].scattered, pure=False)
            time.sleep(PAUSE_SECONDS)
        assert later.result(DEADLINE_SECONDS) == N
        data[0].check()
    assert pids_of_workers(client) == pids


def test_a_cluster_that_was_stopped_as_a_whole_goes_on(cluster, client, tmp_path):
    pids = pids_of_workers(client)
    data = Data(client, cluster.nodes[0]["address"], tmp_path / "runs")
    for _ in range(2):
        running = client.submit(time.sleep, 0.5, pure=False)
        pause(*processes_of(cluster))
        assert running.result(DEADLINE_SECONDS) is None
        data.check()
    assert pids_of_workers(client) == pids


def test_a_machine_that_sleeps_wakes_up_with_its_client(cluster, client):
    script = f"""
        from holdfast import Client
        with Client({cluster.scheduler_address!r}) as client:
            future = client.scatter(list(range(1000)), hash=False)
            print("ready", flush=True)
            input()
            print(client.submit(sum, future).result(), flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "ready\n"
        pause(child.pid, *processes_of(cluster))
        said, _ = child.communicate("\n", DEADLINE_SECONDS)
    assert said == f"{sum(range(1000))}\n"


def test_a_client_that_was_stopped_still_has_what_it_holds(cluster, client):
    script = f"""
        from holdfast import Client
        with Client({cluster.scheduler_address!r}) as client:
            future = client.submit(pow, 3, 4)
            print(future.result(), flush=True)
            input()
            print(future.result(), client.submit(sum, [future, future]).result(), flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "81\n"
        pause(child.pid)
        assert child.communicate("\n", DEADLINE_SECONDS)[0] == "81 162\n"


def test_an_agent_that_was_stopped_comes_back_with_all_that_it_has(cluster, client, tmp_path):
    node = cluster.nodes[0]
    data = Data(client, node["address"], tmp_path / "runs")
    for _ in range(2):
        with stopped(node["pid"]):
            until(lambda: given_up(client, node["address"]), "it is given up")
            assert client.submit(pow, 2, 5, pure=False).result(DEADLINE_SECONDS) == 32  # the other one works on
        data.check(made_again=True)
        until(lambda: is_back(client, node["address"]), "it comes back")


def test_what_failed_because_an_agent_was_stopped_is_done_when_it_is_back(cluster, client):
    node = cluster.nodes[0]
    scattered = client.scatter(make(1), hash=False, workers=[node["address"]])
    with stopped(node["pid"]):
        until(lambda: given_up(client, node["address"]), "it is given up")
        first = client.submit(total, scattered, pure=False)
        second = client.submit(total, scattered, scattered, pure=False)
        both = client.submit(sum, [first, second], pure=False)
        with pytest.raises(ObjectLostError):
            both.result(DEADLINE_SECONDS)
    until(lambda: both.status == "finished", "what failed for the loss runs again")
    assert client.gather([first, second, both]) == [N, 2 * N, 3 * N]


def test_an_agent_that_is_stopped_for_less_is_not_missed(cluster, client, tmp_path):
    pids = pids_of_workers(client)
    node = cluster.nodes[0]
    data = Data(client, node["address"], tmp_path / "runs")
    for _ in range(3):
        pause(node["pid"], seconds=SILENCE_SECONDS / 2)
        data.check()
    assert pids_of_workers(client) == pids


def test_a_client_on_the_host_of_an_agent_that_was_stopped_reads_its_store_again(cluster):
    with Client(cluster) as client:
        assert client.store is not None
        address = client._core.stores.local[1]
        pid = next(node["pid"] for node in cluster.nodes if node["address"] == address)
        scattered = client.scatter(make(1), hash=False, workers=[address])
        with stopped(pid):
            until(lambda: given_up(client, address), "it is given up")
        until(lambda: is_back(client, address), "it comes back")
        assert (scattered.result(DEADLINE_SECONDS) == make(1)).all()
        more = client.scatter(make(2), hash=False, workers=[address])
        assert client.submit(total, scattered, more, pure=False).result(DEADLINE_SECONDS) == 3 * N


def test_a_client_on_the_host_of_a_stopped_agent_reads_what_other_hosts_have(cluster, monkeypatch):
    monkeypatch.setattr(store_access, "LOOK_SECONDS", 1.0)
    with Client(cluster) as client:
        address = client._core.stores.local[1]
        pids = {node["address"]: node["pid"] for node in cluster.nodes}
        pid = pids.pop(address)
        (other,) = pids
        there = client.submit(make, 3, workers=[other], pure=False)
        wait(there)
        with stopped(pid):
            assert (there.result(DEADLINE_SECONDS) == make(3)).all()


def test_a_client_reads_what_is_made_again_for_a_stopped_agent(cluster, client, monkeypatch):
    monkeypatch.setattr(store_access, "SILENCE_SECONDS", 2 * SILENCE_SECONDS)
    node = cluster.nodes[0]
    there = client.submit(make, 3, workers=[node["address"]], allow_other_workers=True, pure=False)
    wait(there)
    with stopped(node["pid"]):
        assert (there.result(DEADLINE_SECONDS) == make(3)).all()


def test_when_the_scheduler_is_gone_for_good_while_an_agent_is_stopped_the_agent_ends(monkeypatch):
    monkeypatch.setenv("HOLDFAST_SCHEDULER_TIMEOUT", "0")
    with LocalCluster(2, 1, n_hosts=2, object_store_memory="64 MiB") as cluster:
        one, other = (node["pid"] for node in cluster.nodes)
        with stopped(one):
            os.kill(cluster.scheduler_pid, signal.SIGKILL)
            until(lambda: not psutil.pid_exists(other), "the other one ends at once")
            assert psutil.pid_exists(one)
        until(lambda: not psutil.pid_exists(one), "it ends when it goes on")


def test_campaign_of_pauses(cluster):
    """Scheduler and agents stand still at random under a load of results that are checked."""
    victims = [cluster.scheduler_pid, *(node["pid"] for node in cluster.nodes)]
    over = threading.Event()
    with Campaign("pauses", share=0.3) as campaign:

        def interfere():
            chance = campaign.random
            while not over.is_set():
                chosen = chance.sample(victims, chance.choice([1, 1, 1, 2, 3]))
                with stopped(*chosen):
                    over.wait(chance.choice([0.05, 0.3, 1.5, 2.5]))
                campaign.counts["pauses"] += 1
                over.wait(chance.uniform(0.1, 1.5))

        with Client(cluster, attach=False) as client:
            kept = [
                client.scatter(make(number), hash=False, workers=[node["address"]])
                for number, node in enumerate(cluster.nodes)
            ]
            client.publish_dataset(kept, name="kept")
            interferer = threading.Thread(target=interfere)
            interferer.start()
            try:
                number = 0
                while campaign.goes_on():
                    number += 1
                    arrays = client.map(make, range(number, number + 10), pure=False)
                    sums = [client.submit(total, *pair, pure=False) for pair in itertools.pairwise(arrays)]
                    for index, future in enumerate(sums):
                        assert future.result(DEADLINE_SECONDS * 2) == N * (2 * (number + index) + 1), "wrong"
                        campaign.counts["checked"] += 1
                    try:
                        assert client.submit(total, *kept, pure=False).result(DEADLINE_SECONDS * 2) == N
                        campaign.counts["checked"] += 1
                    except ObjectLostError:
                        campaign.counts["lost while a host was away"] += 1
            finally:
                over.set()
                interferer.join()
            until(lambda: len(client.nthreads()) == 2, "all are back", 60)
            for number, future in enumerate(client.get_dataset("kept")):
                assert (future.result(DEADLINE_SECONDS) == make(number)).all()
                campaign.counts["checked"] += 1
