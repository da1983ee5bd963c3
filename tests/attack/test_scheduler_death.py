"""The scheduler is killed in the middle of a cluster's work: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future as Promise
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import SMALL, address_in, descendants, holdfast, services
from counting import Tally, first, noted, second
from waiting import DEADLINE_SECONDS, until

from holdfast import Client, ConnectError, Event, LocalCluster, Lock, Queue, Variable, wait

TASKS = 10_000
#: Workers that a command starts import what tests submit.
FINDS_TESTS = {"PYTHONPATH": os.pathsep.join(sys.path)}
#: Restarts, on a machine that is busy with other tests.
PATIENCE_SECONDS = 3 * DEADLINE_SECONDS


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=2, object_store_memory="128 MiB") as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture
def beside() -> Iterator[Callable[..., Promise[Any]]]:
    """``beside(function, *arguments)``: in a thread of its own."""
    with ThreadPoolExecutor(10) as threads:
        yield threads.submit


def kill(cluster: LocalCluster) -> int:
    """Kill the scheduler that there is; returns its process id."""
    pid = cluster.scheduler_pid
    os.kill(pid, signal.SIGKILL)
    return pid


def kill_again(cluster: LocalCluster, lives: tuple[float, ...]) -> None:
    """Kill the scheduler, and each that follows it when it has lived for so many seconds."""
    killed = kill(cluster)
    for seconds in lives:
        until(lambda killed=killed: cluster.scheduler_pid != killed, "another one is started")
        time.sleep(seconds)  # not to wait for something: to kill it wherever it is then
        killed = kill(cluster)


@pytest.mark.parametrize(
    "lives",
    [
        pytest.param((), id="once"),
        pytest.param((0.0, 0.15), id="while-the-next-starts"),
        pytest.param((0.3, 0.35, 0.4, 0.5), id="while-others-come-back"),
        pytest.param((2.0,), id="twice"),
    ],
)
def test_a_graph_is_computed_once_and_all_others_go_on(
    cluster: LocalCluster,
    client: Client,
    beside: Callable[..., Promise[Any]],
    tmp_path: Path,
    lives: tuple[float, ...],
) -> None:
    path, calls = str(tmp_path / "runs"), str(tmp_path / "calls")
    with Client(cluster, set_as_default=False) as other, Client(cluster, set_as_default=False) as third:
        data = client.scatter(list(range(100)), hash=False)
        client.publish_dataset(data, name="data")
        Variable("variable", client=client).set(client.submit(pow, 3, 4, pure=False))
        lock = Lock("lock", client=other)
        assert lock.acquire()
        tally = client.submit(Tally, calls, actor=True).result(PATIENCE_SECONDS)
        assert tally.add(1).result(PATIENCE_SECONDS) == 1

        ones = client.map(first, range(TASKS // 2), path=path, pure=False)
        twos = client.map(second, ones, path=path, pure=False)
        last = client.submit(sum, twos, pure=False)
        in_result = beside(other.submit(_one_more, last).result, PATIENCE_SECONDS)
        in_get = beside(lambda: Queue("queue", client=third).get(timeout=PATIENCE_SECONDS))
        wants_lock = beside(lambda: Lock("lock", client=third).acquire(timeout=PATIENCE_SECONDS))
        calling = [tally.add(number) for number in range(2, 50)]
        until(lambda: noted(path).total() > TASKS // 10, "some have run")
        kill_again(cluster, lives)
        calling += [tally.add(number) for number in range(50, 100)]

        expected = sum(range(1, TASKS // 2 + 1))
        assert last.result(PATIENCE_SECONDS) == expected
        assert in_result.result(PATIENCE_SECONDS) == expected + 1
        assert client.gather(twos) == list(range(1, TASKS // 2 + 1))
        runs = noted(path)
        assert [what for what, count in runs.items() if count != 1] == []
        assert len(runs) == TASKS
        assert [call.result(PATIENCE_SECONDS) for call in calling] == list(itertools.accumulate(range(1, 100)))[1:]
        assert set(noted(calls).values()) == {1}
        assert not in_get.done()
        Queue("queue", client=client).put("item", timeout=PATIENCE_SECONDS)
        assert in_get.result(PATIENCE_SECONDS) == "item"
        assert not wants_lock.done()
        lock.release()
        assert wants_lock.result(PATIENCE_SECONDS)
        assert third.gather(third.get_dataset("data")) == list(range(100))
        assert Variable("variable", client=third).get().result(PATIENCE_SECONDS) == 81
    # What nobody holds is gone.
    ones.clear(), twos.clear()
    last.release()
    until(lambda: len(client.scheduler_info()["workers"]) == 2)
    until(lambda: not [key for key in _keys(client) if key.startswith(("first", "second", "sum"))], "they are gone")


def _one_more(number: int) -> int:
    return number + 1


def _keys(client: Client) -> list[str]:
    return [str(key) for key in client.who_has()]


def test_what_is_finished_is_not_computed_again_and_what_is_deleted_stays_deleted(
    cluster: LocalCluster, client: Client, tmp_path: Path
) -> None:
    path = str(tmp_path / "runs")
    kept = client.map(first, range(100), path=path, pure=False)
    gone = client.map(first, range(100, 200), path=path, pure=False)
    wait([*kept, *gone])
    del gone
    kill(cluster)
    assert client.gather(kept) == list(range(100))
    assert set(noted(path).values()) == {1}
    until(lambda: len(_keys(client)) == 100, "what was released is gone")


def test_a_client_that_has_left_meanwhile_leaves_nothing(cluster: LocalCluster, client: Client, tmp_path: Path) -> None:
    held = client.submit(first, 1, path=str(tmp_path / "runs"), pure=False)
    assert held.result(PATIENCE_SECONDS) == 1
    kill(cluster)
    client.close()
    with Client(cluster, set_as_default=False) as other:
        until(lambda: _keys(other) == [], "its results are gone", PATIENCE_SECONDS)


def test_a_worker_that_dies_with_the_scheduler_is_missed(cluster: LocalCluster, client: Client, tmp_path: Path) -> None:
    path = str(tmp_path / "runs")
    pids = set(client.run(os.getpid).values())
    futures = [client.submit(_wait_for_event, n, path, pure=False) for n in range(4)]
    until(lambda: noted(path).total() == 4, "all of them run")
    killed = kill(cluster)
    os.kill(pids.pop(), signal.SIGKILL)
    until(lambda: cluster.scheduler_pid != killed)
    Event("go", client=client).set()
    assert client.gather(futures) == list(range(4))
    assert sorted(noted(path).values()) in ([1, 1, 2, 2], [1, 1, 1, 2], [1, 1, 1, 1])


def _wait_for_event(number: int, path: str) -> int:
    first(number, path)
    Event("go").wait()
    return number


def test_a_function_is_called_once_by_each_worker_and_what_came_of_it_is_said_or_that_nobody_knows(
    cluster: LocalCluster, client: Client, beside: Callable[..., Promise[Any]], tmp_path: Path
) -> None:
    path = str(tmp_path / "calls")
    quick, slow = sorted(client.scheduler_info()["workers"])
    calling = beside(lambda: client.run(_noted_by, path, quick, on_error="return"))
    until(lambda: noted(path).total() == 2, "both are called")
    until(lambda: _has_answered(client, quick), "one has answered")
    kill(cluster)
    results = calling.result(PATIENCE_SECONDS)
    assert results[quick] == quick
    assert isinstance(results[slow], ConnectError)
    assert slow in str(results[slow])
    assert "not called again" in str(results[slow])
    Event("go", client=client).set()
    assert noted(path).total() == 2
    assert client.run(os.getpid).keys() == {quick, slow}


def _noted_by(path: str, quick: str, dask_worker: Any) -> str:
    first(0, path)
    if dask_worker.address != quick:
        Event("go").wait()
    return str(dask_worker.address)


def _has_answered(client: Client, address: str) -> bool:
    return any(address in part for answer in client._core.session._answers.values() for part in answer._fragments)


def test_when_no_scheduler_comes_everything_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, beside: Callable[..., Promise[Any]]
) -> None:
    monkeypatch.setenv("HOLDFAST_SCHEDULER_TIMEOUT", "2")
    with LocalCluster(1, 1, object_store_memory="64 MiB") as cluster, Client(cluster, set_as_default=False) as client:
        future = client.submit(time.sleep, 1000)
        waiting = beside(lambda: future.exception(timeout=PATIENCE_SECONDS))
        over = threading.Event()
        beside(lambda: _kill_all_the_time(cluster, over))
        try:
            error = waiting.exception(PATIENCE_SECONDS) or waiting.result()
            assert "scheduler" in str(error)
            until(lambda: "it is given up" in repr(cluster), "the cluster says so", PATIENCE_SECONDS)
        finally:
            over.set()


def test_a_head_that_was_killed_with_all_its_processes_goes_on_when_it_is_started_again(
    tmp_path: Path, beside: Callable[..., Promise[Any]]
) -> None:
    path, state = str(tmp_path / "runs"), str(tmp_path / "state")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    head = ("start", "--head", "--port", port, "--state-directory", state, "--name", "head", *SMALL)
    try:
        address = address_in(holdfast(*head, **FINDS_TESTS))
        of_head = [*descendants(), *(psutil.Process(service["pid"]) for service in services())]
        holdfast("start", "--address", address, "--name", "other", *SMALL, **FINDS_TESTS)
        with Client(address, set_as_default=False) as client:
            (there,) = [name for name, info in client.scheduler_info()["workers"].items() if _is_of(info, "other")]
            kept = client.map(first, range(20), path=path, workers=[there], pure=False)
            assert client.gather(kept) == list(range(20))
            later = client.submit(_wait_for_event, 20, path, workers=[there], pure=False)
            until(lambda: noted(path)["first 20"] == 1, "it runs")
            in_get = beside(lambda: Queue("queue", client=client).get(timeout=PATIENCE_SECONDS))
            for number in (signal.SIGSTOP, signal.SIGKILL):  # all at one time: none tells others
                for process in of_head:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, number)
            psutil.wait_procs(of_head, DEADLINE_SECONDS)
            assert address_in(holdfast(*head, **FINDS_TESTS)) == address
            Event("go", client=client).set()
            assert client.gather([*kept, later]) == list(range(21))
            Queue("queue", client=client).put("item", timeout=PATIENCE_SECONDS)
            assert in_get.result(PATIENCE_SECONDS) == "item"
            assert set(noted(path).values()) == {1}
            assert client.submit(pow, 2, 5, pure=False).result(PATIENCE_SECONDS) == 32
    finally:
        holdfast("stop")


def _is_of(worker: dict[str, Any], host: str) -> bool:
    return str(worker["name"]).startswith(host)


def _kill_all_the_time(cluster: LocalCluster, over: threading.Event) -> None:
    while not over.wait(0.005):
        try:
            kill(cluster)
        except ProcessLookupError:
            continue
