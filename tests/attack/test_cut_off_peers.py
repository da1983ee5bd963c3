"""Peers that are cut off while something waits: tasks for other tasks, clients for results, hosts for each other.

The connections are cut at random under way, or all at a time, for less or for longer than the scheduler waits.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter

import numpy as np
import pytest
from campaign import Campaign
from cut_world import World
from waiting import until

from holdfast import CancelledError, Client, LocalCluster, get_client
from holdfast.cluster import protocol
from holdfast.cluster.errors import ConnectError

DEADLINE_SECONDS = 60.0
#: A campaign on a busy machine goes on until it has seen so many.
LEAST_CUTS = 30
#: How long a worker or host, and a client, may be cut off where a test waits until that is over.
SHORT_SECONDS = 1.5
SEED = 7


@pytest.fixture
def cluster():
    with LocalCluster(2, 1, object_store_memory="256 MiB") as cluster:
        yield cluster


@pytest.fixture
def impatient(monkeypatch):
    """A cluster that waits for nobody for long."""
    monkeypatch.setenv("HOLDFAST_RESUME_TIMEOUT", str(SHORT_SECONDS))
    monkeypatch.setenv("HOLDFAST_CLIENT_RESUME_TIMEOUT", str(SHORT_SECONDS))
    monkeypatch.setenv("HOLDFAST_SCHEDULER_TIMEOUT", "0")
    with LocalCluster(1, 1, object_store_memory="64 MiB") as cluster:
        yield cluster


@pytest.fixture
def observer(cluster):
    with Client(cluster, attach=False) as client:
        yield client


@contextlib.contextmanager
def client_of(world, **options):
    with Client(world.links["client"].address, attach=False, **options) as client:
        yield client


def refuse_and_cut(*links):
    for link in links:
        link.refuse()
        link.cut()


def let_in(*links):
    for link in links:
        link.refuse(False)


def condition_of(client, worker):
    return client.scheduler_info()["workers"].get(worker, {}).get("condition")


def far_workers(client, world):
    def found():
        workers = [name for name in client.nthreads() if name.startswith(world.agent.address)]
        return workers if len(workers) == 2 else None

    return until(found, "the far workers are there")


def note(path, name):
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{name}\n".encode())
    os.close(descriptor)


def noted(path):
    return Counter(path.read_text().split()) if path.exists() else Counter()


# -- tasks that wait for tasks


def tree(path, name, n):
    """The sum of a tree of tasks, each of which waits for two others."""
    note(path, name)
    if n < 2:
        return n
    client = get_client()
    return sum(client.gather([client.submit(tree, path, f"{name}.{k}", n - k, pure=False) for k in (1, 2)]))


def names_of(name, n):
    return [name] if n < 2 else [name, *names_of(f"{name}.1", n - 1), *names_of(f"{name}.2", n - 2)]


def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def test_campaign_of_cuts_while_tasks_wait_for_tasks(cluster, tmp_path, monkeypatch):
    path = tmp_path / "runs"
    campaign = Campaign("connections cut while tasks wait for tasks", share=0.1)
    with (
        World(campaign.random, cluster, monkeypatch, (500, 5_000)) as world,
        client_of(world) as client,
    ):
        until(lambda: len(client.nthreads()) == 4, "the workers are there")
        # To import what the tasks need may take a worker seconds.
        client.gather([client.submit(fibonacci, 1, workers=[name], pure=False) for name in client.nthreads()])
        with campaign:
            _plant_trees(client, world, path, campaign)


def _plant_trees(client, world, path, campaign):
    expected: Counter[str] = Counter()
    number = 0
    while campaign.goes_on() or world.cuts.total() < LEAST_CUTS:
        trees = []
        for n in (4, 5, 6):
            number += 1
            expected.update(names_of(f"t{number}", n))
            trees.append((n, client.submit(tree, str(path), f"t{number}", n, pure=False)))
        for n, future in trees:
            assert future.result(DEADLINE_SECONDS) == fibonacci(n), "wrong"
            campaign.counts["checked"] += 1
    world.calm()
    assert noted(path) == expected, "each task ran once"
    until(
        lambda: all(worker["blocked"] == 0 for worker in client.scheduler_info()["workers"].values()),
        "no task is believed to wait any more",
    )
    assert not client._request(protocol.requests.STATUS)["absent"]
    campaign.counts["tasks"] += expected.total()
    campaign.counts.update(world.cuts)


def wait_in_task(path, name, gate):
    """A task that waits for another one, which waits outside."""
    note(path, name)
    client = get_client()
    return client.submit(hold, path, f"{name}.child", gate, pure=False).result() + 1


def hold(path, name, gate):
    note(path, name)
    while not os.path.exists(gate):
        time.sleep(0.01)
    return 1


def test_a_task_that_has_lent_its_slot_goes_on_after_a_cut(cluster, observer, tmp_path, monkeypatch):
    path, gate = tmp_path / "runs", tmp_path / "gate"
    with World(random.Random(SEED), cluster, monkeypatch, None) as world:
        workers = far_workers(observer, world)
        futures = [
            observer.submit(wait_in_task, str(path), f"w{index}", str(gate), workers=[worker], pure=False)
            for index, worker in enumerate(workers)
        ]
        until(lambda: noted(path).total() == 4, "all have begun")
        link = world.links["node"]
        for _ in range(3):
            refuse_and_cut(link)
            until(lambda: all(condition_of(observer, worker) == "cut off" for worker in workers), "they are cut off")
            let_in(link)
            until(lambda: all(condition_of(observer, worker) != "cut off" for worker in workers), "they are back")
        refuse_and_cut(link)
        gate.touch()
        let_in(link)
        assert observer.gather(futures) == [2, 2]
        assert set(noted(path).values()) == {1}
        assert observer.submit(os.getpid, workers=workers[:1], pure=False).result(DEADLINE_SECONDS)


# -- workers and hosts that die meanwhile


def run_where(path, name, gate):
    """Runs until the gate is there; whose process it was."""
    hold(path, f"{name}:{os.getpid()}", gate)
    return os.getpid()


def pid_of(client, worker):
    return client.submit(os.getpid, workers=[worker], pure=False).result(DEADLINE_SECONDS)


def test_a_worker_that_dies_while_its_host_is_cut_off_is_replaced_when_the_host_is_back(
    cluster, observer, tmp_path, monkeypatch
):
    path, gate = tmp_path / "runs", tmp_path / "gate"
    with World(random.Random(SEED), cluster, monkeypatch, None) as world:
        worker, other = far_workers(observer, world)
        doomed = observer.submit(run_where, str(path), "d", str(gate), workers=[worker, other], pure=False)
        until(lambda: noted(path).total() == 1, "it has begun")
        ((begun, _),) = noted(path).items()
        pid = int(begun.rpartition(":")[2])
        link = world.links["node"]
        refuse_and_cut(link)
        until(lambda: condition_of(observer, worker) == condition_of(observer, other) == "cut off", "they are cut off")
        os.kill(pid, signal.SIGKILL)
        gate.touch()
        let_in(link)
        assert doomed.result(DEADLINE_SECONDS) != pid
        until(lambda: len(observer.nthreads()) == 4, "the worker was started again")
        assert not observer._request(protocol.requests.STATUS)["absent"]


def test_what_a_host_that_is_gone_was_running_runs_elsewhere_when_its_time_is_over(impatient, tmp_path, monkeypatch):
    """The host says nothing, and nothing refuses a connection there."""
    path, gate = tmp_path / "runs", tmp_path / "gate"
    with Client(impatient, attach=False) as client, World(random.Random(SEED), impatient, monkeypatch, None) as world:
        workers = far_workers(client, world)
        futures = [
            client.submit(
                run_where, str(path), f"h{index}", str(gate), workers=workers, allow_other_workers=True, pure=False
            )
            for index in range(2)
        ]
        until(lambda: noted(path).total() == 2, "both have begun")
        pids = {int(name.rpartition(":")[2]) for name in noted(path)}
        refuse_and_cut(world.links["node"])
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        gate.touch()
        assert not pids & set(client.gather(futures))
        let_in(world.links["node"])
        until(lambda: len(client.nthreads()) == 3, "the host is back with new workers")


def test_a_worker_that_dies_behind_a_proxy_that_does_not_tell_is_replaced(cluster, observer, tmp_path, monkeypatch):
    """For the scheduler the connection of the dead worker is whole."""
    with World(random.Random(SEED), cluster, monkeypatch, None) as world:
        worker, _ = far_workers(observer, world)
        pid = pid_of(observer, worker)
        path, gate = tmp_path / "runs", tmp_path / "gate"
        future = observer.submit(run_where, str(path), "w", str(gate), workers=[worker], pure=False)
        until(lambda: noted(path), "it runs")
        world.links["node"].keep_silent()
        os.kill(pid, signal.SIGKILL)
        gate.touch()
        assert future.result(DEADLINE_SECONDS) != pid, "another worker has taken its place"


# -- clients


def test_requests_that_wait_are_answered_after_cuts(cluster, tmp_path, monkeypatch):
    gate = tmp_path / "gate"
    with World(random.Random(SEED), cluster, monkeypatch, None) as world, client_of(world) as client:
        link = world.links["client"]
        future = client.submit(hold, str(tmp_path / "runs"), "x", str(gate), pure=False)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waits = [
                pool.submit(client.publish_dataset, future, name="published"),
                pool.submit(client.wait_for_workers, 4, DEADLINE_SECONDS),
                pool.submit(future.result, DEADLINE_SECONDS),
                pool.submit(client.gather, [future]),
            ]
            for _ in range(10):
                link.cut()
                assert len(client.nthreads()) >= 2
            refuse_and_cut(link)
            gate.touch()
            let_in(link)
            outcomes = [wait.result(DEADLINE_SECONDS) for wait in waits]
        assert outcomes[2:] == [1, [1]]
        assert client.get_dataset("published").result(DEADLINE_SECONDS) == 1


def test_large_results_are_gathered_and_scattered_while_all_is_cut(cluster, monkeypatch):
    n = 150_000
    with World(random.Random(SEED), cluster, monkeypatch, None) as world, client_of(world) as client:
        workers = far_workers(client, world)
        over = threading.Event()

        def cut():
            while not over.wait(0.05):
                for link in world.links.values():
                    link.cut()

        cutting = threading.Thread(target=cut)
        cutting.start()
        try:
            for round_ in range(4):
                arrays = client.map(np.full, [n] * 8, range(8), workers=workers, pure=False)
                scattered = client.scatter([np.full(n, 8 + index) for index in range(4)], hash=False, workers=workers)
                for index, value in enumerate(client.gather([*arrays, *scattered])):
                    assert (value == np.full(n, index)).all(), round_
        finally:
            over.set()
            cutting.join()


def test_a_client_that_is_cut_off_for_too_long_ends_in_order(impatient, monkeypatch):
    with (
        Client(impatient, attach=False) as observer,
        World(random.Random(SEED), impatient, monkeypatch, None) as world,
        client_of(world) as client,
    ):
        held = client.submit(pow, 2, 10, pure=False)
        assert held.result() == 1024
        pending = client.submit(time.sleep, 600, pure=False)
        link = world.links["client"]
        refuse_and_cut(link)
        with pytest.raises((CancelledError, ConnectError), match=r"could not be taken up again within 1.5 s"):
            pending.result(DEADLINE_SECONDS)
        assert held.result() == 1024, "what is there can be read"
        with pytest.raises(ConnectError, match=f"scheduler at {link.address}"):
            client.nthreads()
        until(lambda: observer._request(protocol.requests.STATUS)["clients"] == 1, "its keys are nobody's")
        let_in(link)
        with client_of(world) as another:
            assert another.submit(pow, 2, 3).result(DEADLINE_SECONDS) == 8


def test_a_client_may_be_closed_while_it_is_cut_off(impatient, monkeypatch):
    with (
        Client(impatient, attach=False) as observer,
        World(random.Random(SEED), impatient, monkeypatch, None) as world,
    ):
        with client_of(world) as client:
            client.submit(pow, 2, 10, pure=False).result()
            refuse_and_cut(world.links["client"])
            began = time.monotonic()
        assert time.monotonic() - began < DEADLINE_SECONDS / 2
        until(lambda: observer._request(protocol.requests.STATUS)["clients"] == 1, "it has left")


def test_a_process_that_is_forked_while_its_client_is_cut_off_is_none_of_the_cluster(cluster, observer, monkeypatch):
    with World(random.Random(SEED), cluster, monkeypatch, None) as world, client_of(world) as client:
        link = world.links["client"]
        held = client.submit(pow, 2, 10, pure=False)
        assert held.result() == 1024
        refuse_and_cut(link)
        pid = os.fork()
        if pid == 0:
            try:
                client.submit(pow, 2, 3)
            except ConnectError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        let_in(link)
        assert client.submit(pow, 2, 3).result(DEADLINE_SECONDS) == 8
        assert observer._request(protocol.requests.STATUS)["clients"] == 2


def test_many_awaits_of_an_asynchronous_client_go_on_after_cuts(cluster, monkeypatch):
    async def main(world):
        link = world.links["client"]
        client = await Client(link.address, asynchronous=True, attach=False)
        try:
            for _ in range(5):
                futures = [client.submit(pow, index, 2, pure=False) for index in range(200)]
                awaits = [asyncio.ensure_future(future.result()) for future in futures]
                awaits += [asyncio.ensure_future(client.who_has(futures[:3])) for _ in range(20)]
                await asyncio.to_thread(refuse_and_cut, link)
                awaits += [asyncio.ensure_future(client.gather(futures[:10]))]
                later = [client.submit(pow, index, 3, pure=False) for index in range(50)]
                await asyncio.to_thread(let_in, link)
                async with asyncio.timeout(DEADLINE_SECONDS):
                    done = await asyncio.gather(*awaits)
                    assert done[:200] == [index**2 for index in range(200)]
                    assert done[-1] == [index**2 for index in range(10)]
                    assert await client.gather(later) == [index**3 for index in range(50)]
        finally:
            await client.close()

    with World(random.Random(SEED), cluster, monkeypatch, None) as world:
        asyncio.run(main(world))


def test_a_host_may_leave_while_it_is_cut_off(impatient, monkeypatch):
    with (
        Client(impatient, attach=False) as observer,
        World(random.Random(SEED), impatient, monkeypatch, None) as world,
    ):
        far_workers(observer, world)
        refuse_and_cut(world.links["node"])
        world._thread.run(world.agent.close(), timeout=DEADLINE_SECONDS)
        until(lambda: len(observer.nthreads()) == 1, "it has left")
        assert observer.submit(pow, 2, 3, pure=False).result(DEADLINE_SECONDS) == 8


def test_a_cluster_is_stopped_while_peers_are_cut_off(monkeypatch):
    monkeypatch.setenv("HOLDFAST_CLIENT_RESUME_TIMEOUT", str(SHORT_SECONDS))
    monkeypatch.setenv("HOLDFAST_RESUME_TIMEOUT", str(SHORT_SECONDS))
    with contextlib.ExitStack() as stack:
        cluster = LocalCluster(1, 1, object_store_memory="64 MiB")
        world = stack.enter_context(World(random.Random(SEED), cluster, monkeypatch, None))
        client = stack.enter_context(client_of(world))
        far_workers(client, world)
        pending = client.submit(time.sleep, 600, pure=False)
        refuse_and_cut(*world.links.values())
        cluster.close()
        with pytest.raises((CancelledError, ConnectError)):
            pending.result(DEADLINE_SECONDS)
