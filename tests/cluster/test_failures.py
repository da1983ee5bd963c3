"""What dies, and what happens then: workers, hosts and clients are killed for real."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from pausing import stopped
from waiting import DEADLINE_SECONDS, until

from holdfast import Client, KilledWorker, LocalCluster, ObjectLostError, wait
from holdfast.client.stores.access import StoreAccess
from holdfast.cluster import protocol
from holdfast.cluster.processes import run_directory
from holdfast.objectstore.system import forks


def inc(x):
    return x + 1


def make(nbytes, *_):
    return np.ones(nbytes // 8)


def make_pieces(number, n):
    return {k: np.full(1000, number + k) for k in range(n)}


def total(arrays):
    return int(sum(array.sum() for array in arrays))


def touch_then_wait(started, release):
    """Say that this runs, and in which process; return when told to."""
    with open(started, "a") as file:
        file.write(f"{os.getpid()}\n")
    while not os.path.exists(release):
        time.sleep(0.01)
    return os.getpid()


def meet(folder, n_all, number):
    """Return when as many as ``n_all`` run at once, with this process and an array."""
    (folder / str(number)).touch()
    until(lambda: len(list(folder.iterdir())) >= n_all, "the others run too")
    return os.getpid(), make(80_000)


def link(folder, number, *before):
    """A link of a chain, which leaves a line in a file whenever it is made."""
    with open(folder / str(number), "a") as file:
        file.write("made\n")
    return np.full(20_000, number) if not before else before[0] + 1


def suicide(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def stored(client):
    """How many objects the stores hold, by their own account."""
    return sum(node["store"].get("objects", 1) for node in client._request(protocol.requests.STATUS)["nodes"].values())


@pytest.fixture
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, object_store_memory="128 MiB") as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client


def test_a_killed_workers_task_runs_elsewhere_and_its_results_stay(client, tmp_path):
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    finished = client.map(meet, [meeting] * 2, [2] * 2, range(2), pure=False)
    pids = [pid for pid, _ in client.gather(finished)]
    assert len(set(pids)) == 2
    started, release = tmp_path / "started", tmp_path / "release"
    future = client.submit(touch_then_wait, str(started), str(release), pure=False)
    first = int(until(lambda: started.exists() and started.read_text().strip(), "the task starts"))
    assert first in pids
    os.kill(first, signal.SIGKILL)
    until(lambda: len(started.read_text().split()) == 2, "the task starts again")
    release.touch()
    assert future.result(DEADLINE_SECONDS) != first
    # Nothing was computed again: the very same objects are still there.
    assert [(pid, array.sum()) for pid, array in client.gather(finished)] == [(pid, 10_000) for pid in pids]
    client.wait_for_workers(2, timeout=DEADLINE_SECONDS)


def test_a_task_that_kills_its_workers_is_given_up_and_the_cluster_goes_on(client):
    future = client.submit(suicide, pure=False)
    dependent = client.submit(inc, future)
    with pytest.raises(KilledWorker, match=r"suicide-.*3 workers that died.*killed by SIGKILL"):
        future.result(DEADLINE_SECONDS)
    with pytest.raises(KilledWorker, match="suicide-"):
        dependent.result(DEADLINE_SECONDS)
    assert client.submit(inc, 1).result(DEADLINE_SECONDS) == 2


@pytest.mark.parametrize("n_workers", [1, 2])
def test_many_tasks_that_kill_their_workers_take_nothing_from_others(n_workers):
    with (
        LocalCluster(n_workers, 1, object_store_memory="64 MiB") as cluster,
        Client(cluster) as client,
        Client(cluster, set_as_default=False) as other,
    ):
        killers = client.map(os._exit, range(12), pure=False)
        theirs = other.map(inc, range(100), pure=False)
        for killer in killers:
            with pytest.raises(KilledWorker, match=r"3 workers that died.*exited with code"):
                killer.result(4 * DEADLINE_SECONDS)
        assert other.gather(theirs) == list(range(1, 101))
        assert other.submit(inc, 1, pure=False).result(DEADLINE_SECONDS) == 2
        client.wait_for_workers(n_workers, timeout=DEADLINE_SECONDS)
        (node,) = cluster.describe()["nodes"].values()
        assert sum(place["deaths"] for place in node["places"].values()) >= 36


def kill_agents():
    for entry in run_directory.running("node"):
        os.kill(entry["pid"], signal.SIGKILL)
    signal.pause()


def test_a_task_that_kills_its_hosts_agent_takes_nothing_from_others():
    with LocalCluster(1, 1, object_store_memory="64 MiB") as cluster, Client(cluster) as client:
        others = client.map(inc, range(20))
        assert client.gather(others) == list(range(1, 21))
        with pytest.raises(KilledWorker, match=r"kill_agents-.*3 workers that died"):
            client.submit(kill_agents, pure=False).result(4 * DEADLINE_SECONDS)
        assert client.submit(sum, others).result(DEADLINE_SECONDS) == 210
        until(lambda: [node["deaths"] for node in cluster.describe()["nodes"].values()] == [3], "the third is told of")


def test_tasks_wait_for_a_worker_that_is_started_again_however_long_it_takes(monkeypatch):
    monkeypatch.setenv("HOLDFAST_NO_WORKER_TIMEOUT", "0.2")
    with LocalCluster(1, 1, object_store_memory="64 MiB") as cluster, Client(cluster) as client:

        def place():
            (node,) = cluster.describe()["nodes"].values()
            return next(iter(node["places"].values()))

        (directory,) = (Path(entry["directory"]) for entry in run_directory.running("node"))
        pid = client.submit(os.getpid).result(DEADLINE_SECONDS)
        hidden = (directory / "store.sock").rename(directory / "hidden")  # no worker can start any more
        os.kill(pid, signal.SIGKILL)
        until(lambda: place()["deaths"] > 2, "it was tried again")
        future = client.submit(inc, 1)
        here = client.submit(inc, 2, workers=[cluster.nodes[0]["address"]])
        until(lambda: place()["deaths"] > 4, "it was tried again")
        assert "could not start" in place()["last_death"]
        assert (future.status, here.status) == ("pending", "pending")
        hidden.rename(directory / "store.sock")
        assert client.gather([future, here]) == [2, 3]
        until(lambda: place()["state"] == "running", "it says that it is ready")
        places = client.scheduler_info()["places"]
        assert [(how["name"], how["state"]) for how in places.values()] == [(place()["name"], "running")]


def test_objects_of_a_worker_that_died_before_it_could_report_them_are_deleted(client):
    client.wait_for_workers(2, timeout=DEADLINE_SECONDS)

    def put_and_die():
        from holdfast.cluster.worker.context import current_worker

        current_worker().store.put(np.ones(100_000))
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(KilledWorker):
        client.submit(put_and_die, pure=False).result(DEADLINE_SECONDS)
    until(lambda: stored(client) == 0, "the orphans are deleted")


def test_a_client_that_is_killed_leaves_nothing_held_but_what_it_published(cluster, client):
    script = f"""
        import os, signal, numpy as np
        from holdfast import Client, wait
        client = Client({cluster.scheduler_address!r})
        held = client.scatter([np.ones(100_000) for _ in range(5)], hash=False)
        kept = client.submit(np.ones, 100_000)
        wait([kept, *held])
        client.publish_dataset([kept], name="kept")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=DEADLINE_SECONDS, check=False)
    assert done.returncode == -signal.SIGKILL
    until(lambda: stored(client) == 1, "what only the client held is freed")
    (future,) = client.get_dataset("kept")
    assert future.result(DEADLINE_SECONDS).sum() == 100_000
    del future
    client.unpublish_dataset("kept")
    until(lambda: stored(client) == 0, "the dataset's object is freed")


def test_a_result_whose_file_is_damaged_is_computed_again(tmp_path):
    with (
        LocalCluster(1, 1, object_store_memory="32 MiB", spill_directory=tmp_path) as cluster,
        Client(cluster) as client,
    ):
        futures = client.map(np.full, [500_000] * 12, range(12), pure=False)
        wait(futures)
        paths = list(tmp_path.glob("holdfast-spill-*/[0-9]*"))
        assert len(paths) >= 4
        for path in paths:
            os.truncate(path, 1000)
        total = client.submit(np.sum, futures[0])  # a worker finds it out, then the client
        assert total.result(DEADLINE_SECONDS) == 0
        for number, future in enumerate(futures):
            assert (future.result(DEADLINE_SECONDS) == number).all()


class TestTwoHosts:
    @pytest.fixture
    def cluster(self):
        with LocalCluster(n_workers=2, threads_per_worker=1, n_hosts=2, object_store_memory="128 MiB") as cluster:
            yield cluster

    @pytest.fixture
    def client(self, cluster):
        with Client(cluster, attach=False) as client:  # it must not depend on either store
            yield client

    def kill_host(self, client, address):
        info = client._request(protocol.requests.STATUS)["nodes"][address]
        os.kill(info["pid"], signal.SIGKILL)
        until(lambda: address not in client._request(protocol.requests.STATUS)["nodes"], "the scheduler notices")

    def test_what_a_killed_host_held_is_computed_again(self, client):
        one, two = client._request(protocol.requests.STATUS)["nodes"]
        base = client.submit(make, 800_000, workers=[one], allow_other_workers=True, pure=False)
        sums = client.submit(np.sum, base)
        assert sums.result(DEADLINE_SECONDS) == 100_000
        assert list(client.who_has([base])[base.key]) == [one]
        self.kill_host(client, one)
        assert base.result(DEADLINE_SECONDS).sum() == 100_000
        assert list(client.who_has([base])[base.key]) == [two]

    def test_pieces_of_what_a_killed_host_held_are_of_what_is_computed_again(self, client):
        one, two = client._request(protocol.requests.STATUS)["nodes"]
        n = 10
        groups = {("group", i): (make_pieces, i, n) for i in range(n)}
        hosts = {key: [one if key[1] < n // 2 else two] for key in groups}
        futures = client.get(groups, list(groups), restrictions=hosts, loose_restrictions=True, sync=False)
        wait(futures)
        self.kill_host(client, one)
        graph = dict(zip(groups, futures, strict=True))
        graph |= {("piece", k, i): (operator.getitem, ("group", i), k) for i in range(n) for k in range(n)}
        graph |= {("out", k): (total, [("piece", k, i) for i in range(n)]) for k in range(n)}
        results = client.get(graph, [("out", k) for k in range(n)], sync=False)
        assert client.gather(results) == [1000 * sum(i + k for i in range(n)) for k in range(n)]

    def test_a_deep_chain_is_made_again_only_as_far_as_needed(self, client, tmp_path):
        one, two = client._request(protocol.requests.STATUS)["nodes"]
        links = [client.submit(link, tmp_path, 0, workers=[two], allow_other_workers=True, pure=False)]
        for number in range(1, 40):
            host = two if number < 20 else one
            links.append(
                client.submit(link, tmp_path, number, links[-1], workers=[host], allow_other_workers=True, pure=False)
            )
        last, kept = links[-1], links[19]
        wait(last, DEADLINE_SECONDS)
        where = client.who_has([kept, last])
        assert two in where[kept.key]
        assert list(where[last.key]) == [one]
        del links
        until(lambda: stored(client) <= 3, "the links between these are there no more")
        self.kill_host(client, one)
        assert (last.result(DEADLINE_SECONDS) == 39).all()
        made = [(tmp_path / str(number)).read_text().count("made") for number in range(40)]
        assert made == [1] * 20 + [2] * 20

    def test_objects_move_while_work_goes_on(self, client):
        one, two = client._request(protocol.requests.STATUS)["nodes"]
        data = [client.scatter(np.full(50_000, n), workers=[one], hash=False) for n in range(8)]
        sums = [client.submit(total, [each], pure=False) for _ in range(40) for each in data]
        while not all(future.done() for future in sums):
            client.replicate(data, n=2)
            client.rebalance(data)
            client.replicate(data, n=1)
        more = [client.submit(total, [each], pure=False) for _ in range(40) for each in data]
        client.retire_workers(workers=[one], close_workers=True)
        assert client.gather(sums) == client.gather(more) == [50_000 * n for n in range(8)] * 40
        assert all(list(where) == [two] for where in client.who_has(data).values())
        assert client.gather([client.submit(total, [each], pure=False) for each in data]) == client.gather(more[:8])

    @pytest.mark.parametrize("broadcast", [False, True])
    def test_what_is_scattered_while_a_host_dies_goes_to_another(self, cluster, client, broadcast, monkeypatch):
        nodes = client._request(protocol.requests.STATUS)["nodes"]
        one = next(iter(nodes))
        process = psutil.Process(nodes[one]["pid"])
        found_out, write_to = threading.Event(), StoreAccess._write_to

        def write(*args, **options):
            try:
                return write_to(*args, **options)
            finally:
                found_out.set()

        monkeypatch.setattr(StoreAccess, "_write_to", write)
        data = [np.full(100_000, number) for number in range(4)]
        with ThreadPoolExecutor(1) as pool:
            with stopped(cluster.scheduler_pid):  # so that nobody is told before it's found out
                process.kill()
                until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "it is dead")
                scattering = pool.submit(client.scatter, data, hash=False, broadcast=broadcast)
                assert found_out.wait(DEADLINE_SECONDS)
            futures = scattering.result(DEADLINE_SECONDS)
        assert all((array == number).all() for number, array in enumerate(client.gather(futures)))
        assert one not in {node for nodes in client.who_has(futures).values() for node in nodes}
        assert client.submit(total, futures).result(DEADLINE_SECONDS) == 600_000

    def test_copies_outlive_a_host_and_lost_data_is_named(self, client):
        one, two = client._request(protocol.requests.STATUS)["nodes"]
        both = client.scatter(np.arange(100_000), hash=False, broadcast=True)
        only = client.scatter(np.arange(100_001), hash=False, workers=[one])
        until(lambda: set(client.who_has([both])[both.key]) == {one, two}, "both hosts have a copy")
        self.kill_host(client, one)
        assert both.result(DEADLINE_SECONDS)[-1] == 99_999
        with pytest.raises(ObjectLostError, match="Scatter it once more"):
            only.result(DEADLINE_SECONDS)
        with pytest.raises(ObjectLostError):
            client.submit(np.sum, only).result(DEADLINE_SECONDS)


@pytest.mark.parametrize(("ending", "code"), [("return", 0), ("raise", 1), ("exit", 3), ("say", 1)])
def test_a_process_that_a_task_forks_is_nobodys_worker(ending, code):
    def fork():
        if (pid := os.fork()) == 0:
            if ending == "raise":
                raise ValueError("in the child")
            if ending != "return":
                sys.exit(3 if ending == "exit" else "in the child")
            return 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    with LocalCluster(n_workers=1, threads_per_worker=1) as cluster, Client(cluster) as client:
        assert client.submit(fork).result(timeout=30) == code
        assert client.submit(pow, 2, 3).result(timeout=30) == 8


def test_what_a_fork_of_a_task_is_told_at_once_is_not_told_its_worker():
    """It has the worker's signal handlers for a moment, and the descriptor that wakes the worker's loop."""

    def fork_and_terminate():
        forks._watch.leave_to_parent = lambda: time.sleep(0.2)  # which is longer now
        if (pid := os.fork()) == 0:
            time.sleep(60)
        os.kill(pid, signal.SIGTERM)
        return os.getpid(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    with LocalCluster(n_workers=1, threads_per_worker=1) as cluster, Client(cluster) as client:
        pid, code = client.submit(fork_and_terminate).result(timeout=30)
        assert code == -signal.SIGTERM
        assert client.submit(os.getpid, pure=False).result(timeout=30) == pid
