"""Workers that are stopped, or in a call into C that lets nobody else in: what waits for them, and what becomes of it.

Each task writes a line into a file when it begins, so what has run is counted where nobody can be mistaken. All of them
are of one function, which is known to be short, so that many are sent ahead to each worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import time
from collections import Counter, deque

import psutil
import pytest
from command_line import holdfast
from waiting import until

from holdfast import Client, LocalCluster
from holdfast.cluster import protocol
from holdfast.cluster.comm.listening import bound_socket
from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.deploy.ask import ask
from holdfast.cluster.node import NodeAgent
from holdfast.cluster.scheduler.io.server import Scheduler
from holdfast.cluster.scheduler.placing.placement import PREFETCH_SECONDS
from holdfast.cluster.scheduler.tasks.instructions import TellRevoked

SEVERAL = [f"t{n}" for n in range(300)]
#: How long a call lasts that lets nobody in: longer than it takes to be seen.
CALL_SECONDS = 8.0


def work(folder, name):
    """Say that this task has begun, and in which process; then do what its name says."""
    with open(folder / "begun", "a") as file:
        file.write(f"{name} {os.getpid()}\n")
    if name.startswith("hold"):
        while not (folder / f"let go of {name}").exists():
            time.sleep(0.01)
    elif name == "sleep":
        ctypes.PyDLL(None).usleep(int(CALL_SECONDS * 1e6))  # no other thread may run meanwhile
    elif name == "compute":
        end = time.monotonic() + CALL_SECONDS
        deque(itertools.takewhile(end.__gt__, iter(time.monotonic, None)), maxlen=0)  # nor here: all of it is C
    return name


class Begun:
    """What has begun: how often, and where."""

    def __init__(self, folder):
        self._file = folder / "begun"

    def lines(self):
        text = self._file.read_text() if self._file.exists() else ""
        return [(name, int(pid)) for name, pid in (line.rsplit(" ", 1) for line in text.splitlines())]

    def where(self, name):
        """The process in which it began last; None if in none yet."""
        return dict(self.lines()).get(name)

    def others(self, pid):
        """What began elsewhere."""
        return {name for name, where in self.lines() if where != pid}

    def counts(self):
        return Counter(name for name, _ in self.lines())


@contextlib.contextmanager
def stopped(pid):
    """A process is stopped meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


class Cluster:
    """Worker processes, with their agent and scheduler in a loop of this process."""

    def __init__(self, stack, **options):
        self._token = token = load_token(create=True)
        self._thread = thread = LoopThread("cluster")
        stack.callback(thread.close)

        async def make():
            scheduler = Scheduler(token=token, sock=bound_socket("127.0.0.1", 0), validate=True, **options)
            await scheduler.start()
            return scheduler

        self.scheduler = thread.run(make())
        stack.callback(lambda: thread.run(self.scheduler.close(), timeout=20))
        agent = NodeAgent(self.address, token=token, n_workers=2, store_capacity=64 << 20, name="host")
        stack.callback(lambda: thread.run(agent.close(), timeout=20))
        thread.run(agent.start(), timeout=60)
        self.n_revoked = 0
        carry_out = self.scheduler._carry_out

        def counting(instructions):
            told = [instruction for instruction in instructions if isinstance(instruction, TellRevoked)]
            self.n_revoked += sum(len(instruction.run_ids) for instruction in told)
            carry_out(instructions)

        self.scheduler._carry_out = counting

    @property
    def address(self):
        return self.scheduler.address

    def object_id(self, key):
        return self._in_loop(lambda: self.scheduler.state.tasks[key].object_id)

    def expected_seconds(self, key):
        return self._in_loop(lambda: self.scheduler.state.tasks[key].group.expected_seconds)

    def both_have_several(self):
        """Whether both workers were sent more than they can have begun, by the scheduler's books."""
        return self._in_loop(lambda: all(len(worker.runs) > 1 for worker in self.scheduler.state.workers.values()))

    def all_done(self):
        """Whether no worker has anything to do, by the scheduler's books."""
        return self._in_loop(lambda: not any(worker.runs for worker in self.scheduler.state.workers.values()))

    def _in_loop(self, function):
        async def call():
            return function()

        return self._thread.run(call())

    def conditions(self):
        """What the workers are doing, by what `status` says."""
        (node,) = ask(self.address, protocol.requests.STATUS, token=self._token)["nodes"].values()
        return sorted(worker["condition"] for worker in node["workers"].values())


@pytest.fixture(scope="module")
def cluster():
    with contextlib.ExitStack() as stack:
        yield Cluster(stack)


@pytest.fixture
def client(cluster):
    with Client(cluster.address) as client:
        until(lambda: cluster.conditions() == ["running", "running"], "both workers hear")
        cluster.n_revoked = 0
        yield client


@pytest.fixture
def begun(client, cluster, tmp_path):
    """With the scheduler knowing that tasks are short."""

    def learnt():
        futures = client.map(work, [tmp_path] * 50, ["learn"] * 50, pure=False)
        client.gather(futures)
        return cluster.expected_seconds(futures[0].key) < PREFETCH_SECONDS / 10

    until(learnt, "tasks are known to be short")
    (tmp_path / "begun").unlink()
    return Begun(tmp_path)


def held_up(client, begun, folder, how):
    """A worker that is in a task, with others behind it; the futures, and the worker's process."""
    first = client.submit(work, folder, how, pure=False)
    pid = until(lambda: begun.where(how), f"{how} has begun")
    return first, pid


def test_what_was_sent_ahead_to_a_stopped_worker_runs_elsewhere_once(client, cluster, begun, tmp_path):
    first, pid = held_up(client, begun, tmp_path, "hold")
    second, _ = held_up(client, begun, tmp_path, "hold the other")
    more = client.map(work, [tmp_path] * 300, SEVERAL, pure=False)
    until(cluster.both_have_several, "tasks are sent ahead to both workers")
    with stopped(pid):
        (tmp_path / "let go of hold the other").touch()
        assert client.gather([second, *more]) == ["hold the other", *SEVERAL]
        assert begun.others(pid) == {"hold the other", *SEVERAL}
        assert cluster.n_revoked > 0
        until(lambda: cluster.conditions() == ["running", "stopped"], "status shows it")
        assert "stopped for" in holdfast("status", "--address", cluster.address)
        assert not first.done()
        # It gets nothing new either.
        assert client.gather(client.map(work, [tmp_path] * 20, ["more"] * 20, pure=False)) == ["more"] * 20
    (tmp_path / "let go of hold").touch()
    assert first.result() == "hold"
    counts = begun.counts()
    assert counts.pop("more") == 20
    assert counts == dict.fromkeys(["hold", "hold the other", *SEVERAL], 1)
    until(lambda: cluster.conditions() == ["running", "running"], "both hear")
    until(lambda: _runs_on(client, begun, tmp_path, pid), "it is of use again")


def _runs_on(client, begun, folder, pid):
    client.gather(client.map(work, [folder] * 50, ["again"] * 50, pure=False))
    return begun.where("again") == pid or ("again", pid) in begun.lines()


def test_a_stopped_worker_that_has_begun_nothing_loses_all(client, begun, tmp_path):
    pid = begun_by_any(client, begun, tmp_path)
    with stopped(pid):
        more = client.map(work, [tmp_path] * 300, SEVERAL, pure=False)
        assert client.gather(more) == SEVERAL
        assert begun.others(pid) >= {*SEVERAL}
    assert all(begun.counts()[name] == 1 for name in SEVERAL)


def begun_by_any(client, begun, folder):
    client.submit(work, folder, "any", pure=False).result()
    return begun.where("any")


@pytest.mark.parametrize("how", ["sleep", "compute"])
def test_what_waits_behind_a_call_that_lets_nobody_in_runs_elsewhere_once(client, cluster, begun, tmp_path, how):
    first, pid = held_up(client, begun, tmp_path, how)
    more = client.map(work, [tmp_path] * 300, SEVERAL, pure=False)
    assert client.gather(more) == SEVERAL
    assert not first.done(), "the call was too short to show anything"
    assert begun.others(pid) == {*SEVERAL}
    assert cluster.n_revoked > 0
    doing = {"sleep": "blocked", "compute": "computing"}[how]
    until(lambda: first.done() or doing in cluster.conditions(), "status shows it")
    assert not first.done(), "status did not show it in time"
    assert first.result() == how
    assert begun.counts() == dict.fromkeys([how, *SEVERAL], 1)


def test_what_a_stopped_worker_has_begun_runs_elsewhere_after_a_time_and_has_one_result(tmp_path):
    with contextlib.ExitStack() as stack:
        cluster = Cluster(stack, stopped_seconds=2.0)
        client = stack.enter_context(Client(cluster.address))
        begun = Begun(tmp_path)
        first, pid = held_up(client, begun, tmp_path, "hold")
        with stopped(pid):
            until(lambda: begun.counts()["hold"] == 2, "it runs elsewhere as well")
            assert begun.where("hold") != pid
            (tmp_path / "let go of hold").touch()
            assert first.result() == "hold"
            object_id = cluster.object_id(first.key)
        until(cluster.all_done, "the late outcome has come")
        assert cluster.object_id(first.key) == object_id
        assert first.result() == "hold"
        until(lambda: cluster.conditions() == ["running", "running"], "both hear")
        assert begun.counts() == {"hold": 2}


def test_a_late_result_is_used_if_there_is_no_other(tmp_path):
    with contextlib.ExitStack() as stack:
        cluster = Cluster(stack, stopped_seconds=2.0)
        client = stack.enter_context(Client(cluster.address))
        begun = Begun(tmp_path)
        first, pid = held_up(client, begun, tmp_path, "hold")
        with stopped(pid):
            until(lambda: begun.counts()["hold"] == 2, "it runs elsewhere as well")
            other = begun.where("hold")
            assert other != pid
        with stopped(other):
            (tmp_path / "let go of hold").touch()
            assert first.result() == "hold"
            object_id = cluster.object_id(first.key)
        until(cluster.all_done, "the other outcome has come")
        assert cluster.object_id(first.key) == object_id
        assert first.result() == "hold"


def test_a_stopped_worker_ends_with_its_agent():
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, object_store_memory="64 MiB")
    with cluster, Client(cluster) as client:
        worker = client.submit(os.getpid, pure=False).result()
        with stopped(worker):
            os.kill(cluster.nodes[0]["pid"], signal.SIGKILL)
            until(lambda: not psutil.pid_exists(worker), "the worker has ended")
