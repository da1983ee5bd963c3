"""Workers and node agents of a real cluster whose scheduler is killed: what they have counts, and runs go on.

Executions are counted outside of the cluster, as lines of a file.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import time

import numpy as np
import psutil
import pytest
from mortal_scheduler import TOKEN, MortalScheduler
from waiting import until

from holdfast import Client, WorkerPlugin, get_client
from holdfast import wait as wait_for
from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.node import NodeAgent


class Host:
    """A node agent in a thread, and its workers in processes."""

    def __init__(self, address, stack, **options):
        self.thread = LoopThread("node-agent")
        stack.callback(self.thread.close)
        options = {"n_workers": 2, "store_capacity": 64 << 20, **options}
        self.agent = NodeAgent(address, token=TOKEN.encode(), **options)
        stack.callback(self.close)
        self.thread.run(self.agent.start(), timeout=60)

    def close(self):
        self.thread.run(self.agent.close(), timeout=20)

    def in_loop(self, function):
        async def call():
            return function()

        return self.thread.run(call())

    @property
    def is_alone(self):
        """Whether it has noticed that there is no scheduler."""
        connection = self.in_loop(lambda: self.agent._link._connection)
        return connection is None or connection.is_broken

    @property
    def pids(self):
        return self.in_loop(lambda: dict(self.agent.workers.pids))


class Runs:
    """What tasks do, and where they wait. Files, since tasks run in other processes."""

    def __init__(self, path):
        self.path = path
        path.mkdir()

    def note(self, what):
        fd = os.open(self.path / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{what}\n".encode())
        os.close(fd)

    @property
    def counts(self):
        """How often each thing was done."""
        with contextlib.suppress(FileNotFoundError):
            return collections.Counter((self.path / "log").read_text().split())
        return collections.Counter()

    def wait(self):
        while not (self.path / "open").exists():
            time.sleep(0.005)

    def open(self):
        """From now on nothing waits."""
        (self.path / "open").touch()


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path / "runs")


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def scheduler(tmp_path, stack):
    return stack.enter_context(MortalScheduler(tmp_path / "state", "--recovery-timeout", "15"))


@pytest.fixture
def host(scheduler, stack):
    return Host(scheduler.address, stack)


@pytest.fixture
def client(scheduler, host, stack):
    return stack.enter_context(Client(scheduler.address, token=TOKEN))


def make(runs, name, nbytes):
    runs.note(name)
    return np.full(nbytes, 7, "u1")


def wait(runs, name, *reads):
    runs.note(name)
    runs.wait()
    return name


def ask(runs, name):
    runs.note(name)
    return get_client().submit(wait, runs, f"{name}-child", key=f"{name}-child").result()


class Counter:
    def __init__(self):
        self.n = 0

    def add(self, runs):
        runs.note("call")
        runs.wait()
        self.n += 1
        return self.n


def test_what_is_done_is_not_done_again_and_what_runs_goes_on(scheduler, host, client, runs):
    pids = host.pids
    done = [client.submit(make, runs, f"done-{size}", size, key=f"done-{size}") for size in (10, 100_000)]
    counter = client.submit(Counter, actor=True).result()
    wait_for(done)
    asks = client.submit(ask, runs, "asks")
    until(lambda: runs.counts["asks-child"], "a task waits for another one")
    later = [client.submit(wait, runs, f"later-{n}", *done, key=f"later-{n}") for n in range(5)]
    calls = [counter.add(runs) for _ in range(3)]
    until(lambda: runs.counts["call"], "a call has begun")
    for _ in range(2):
        scheduler.restart()
        until(lambda: len(client.scheduler_info()["workers"]) == 2, "all are back")
    runs.open()
    assert asks.result() == "asks-child"
    assert client.gather(later) == [f"later-{n}" for n in range(5)]
    assert [call.result() for call in calls] == [1, 2, 3]
    assert [len(value) for value in client.gather(done)] == [10, 100_000]
    counts = runs.counts
    assert counts.pop("call") == 3
    assert set(counts.values()) == {1}
    assert host.pids == pids


def test_a_scheduler_that_dies_while_it_comes_back_is_followed_by_another(scheduler, host, client, runs):
    done = client.submit(make, runs, "done", 1000)
    wait_for(done)
    waits = [client.submit(wait, runs, f"wait-{n}", key=f"wait-{n}") for n in range(6)]
    until(lambda: runs.counts["wait-0"] and runs.counts["wait-1"], "two run")
    for pause in (0.3, 0.5, 0.7):
        scheduler.restart()
        time.sleep(pause)  # at whatever it is then
    scheduler.restart()
    runs.open()
    assert client.gather(waits) == [f"wait-{n}" for n in range(6)]
    assert len(done.result()) == 1000
    assert set(runs.counts.values()) == {1}


def test_a_worker_that_dies_while_there_is_no_scheduler_takes_only_its_runs_with_it(scheduler, host, client, runs):
    done = client.submit(make, runs, "done", 100_000)
    wait_for(done)
    waits = [client.submit(wait, runs, f"wait-{n}", key=f"wait-{n}") for n in range(2)]
    until(lambda: runs.counts["wait-0"] and runs.counts["wait-1"], "both run")
    scheduler.kill()
    until(lambda: host.is_alone, "its agent has noticed")
    address, pid = next(iter(host.pids.items()))
    os.kill(pid, signal.SIGKILL)
    until(lambda: host.pids.get(address) not in (pid, None), "another process is there")
    scheduler.begin()
    until(lambda: sum(runs.counts.values()) == 4, "what it ran runs again")
    runs.open()
    assert client.gather(waits) == ["wait-0", "wait-1"]
    assert len(done.result()) == 100_000
    assert sorted(runs.counts.values()) == [1, 1, 2]


def test_a_host_that_is_gone_is_not_waited_for_longer_than_that(tmp_path, stack, runs):
    scheduler = stack.enter_context(MortalScheduler(tmp_path / "state", "--recovery-timeout", "2"))
    stays = Host(scheduler.address, stack, n_workers=1, name="stays")
    goes = Host(scheduler.address, stack, n_workers=1, name="goes")
    client = stack.enter_context(Client(scheduler.address, token=TOKEN))
    made = [client.submit(make, runs, name, 100_000, key=name, workers=[name]) for name in ("stays", "goes")]
    wait_for(made)
    anywhere = client.submit(make, runs, "anywhere", 100_000, workers=["goes", "stays"], key="anywhere")
    wait_for(anywhere)
    scheduler.kill()
    until(lambda: stays.is_alone and goes.is_alone, "the agents have noticed")
    goes.close()
    scheduler.begin()
    assert len(client.gather([made[0], anywhere])[1]) == 100_000
    assert runs.counts["stays"] == runs.counts["goes"] == 1
    again = Host(scheduler.address, stack, n_workers=1, name="goes")
    assert len(made[1].result()) == 100_000
    assert runs.counts["goes"] == 2
    assert again.pids


def test_all_end_in_order_when_no_scheduler_comes(tmp_path, stack, eventually):
    environment = {"HOLDFAST_SCHEDULER_TIMEOUT": "1"}
    scheduler = stack.enter_context(
        MortalScheduler(tmp_path / "state", "--resume-timeout", "1", environment=environment)
    )
    host = Host(scheduler.address, stack)
    pids = host.pids
    scheduler.kill()
    eventually(host.agent.finished.is_set)
    assert "has not come back within 1 s" in host.agent.reason
    eventually(lambda: not any(map(psutil.pid_exists, pids.values())))
    assert not host.agent.run_directory.path.exists()


def test_nothing_is_left_in_stores_that_nobody_holds(scheduler, host, client, runs):
    kept = client.submit(make, runs, "kept", 100_000)
    dropped = client.map(make, [runs] * 20, [f"dropped-{n}" for n in range(20)], [100_000] * 20)
    wait_for([kept, *dropped])
    scheduler.kill()
    del dropped
    scheduler.begin()
    assert len(kept.result()) == 100_000
    until(lambda: host.in_loop(lambda: host.agent.store.count) == 1, "only what is held is there")


class Noting(WorkerPlugin):
    name = "noting"

    def __init__(self, runs):
        self.runs = runs

    def setup(self, worker):
        self.runs.note("setup")

    def teardown(self, worker):
        self.runs.note("teardown")


def test_plugins_of_workers_that_go_on_stay_as_they_are(scheduler, host, client, runs):
    client.register_plugin(Noting(runs))
    assert runs.counts == {"setup": 2}
    scheduler.restart()
    assert client.submit(abs, -1).result() == 1
    os.kill(next(iter(host.pids.values())), signal.SIGKILL)
    until(lambda: runs.counts["setup"] == 3, "the worker that comes has it")
    assert runs.counts == {"setup": 3}
