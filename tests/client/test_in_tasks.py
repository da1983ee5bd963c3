"""The client inside tasks: tasks that submit tasks and wait for them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import types

import dask.array as da
import pytest

from holdfast import BlockedTasksError, Client, KilledWorker, LocalCluster, get_client, wait
from holdfast.client.core.registry import registry
from holdfast.cluster.worker import threads

DEADLINE_SECONDS = 60


@contextlib.contextmanager
def started(**options):
    options = {"n_workers": 1, "threads_per_worker": 1, "object_store_memory": "64 MiB", **options}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def client():
    """Of a cluster of one worker with one thread, which has a GPU."""
    with started(resources={"GPU": 1}) as client:
        yield client


@pytest.fixture(scope="module")
def larger():
    """Of a cluster of two workers with two threads each."""
    with started(n_workers=2, threads_per_worker=2) as client:
        yield client


def fib(n, pure):
    if n < 2:
        return n
    client = get_client()
    futures = [client.submit(fib, n - k, pure, pure=pure) for k in (1, 2)]
    return sum(client.gather(futures))


def worker_of(client):
    (worker,) = client.scheduler_info()["workers"].values()
    return worker


# -- trees of tasks


@pytest.mark.parametrize("pure", [True, False])
def test_a_tree_of_tasks_ends_on_a_worker_of_one_thread(client, pure):
    assert client.submit(fib, 12, pure, pure=False).result(timeout=DEADLINE_SECONDS) == 144


@pytest.mark.parametrize("pure", [True, False])
def test_and_on_workers_of_several_threads(larger, pure):
    futures = [larger.submit(fib, 12, pure, pure=False) for _ in range(2)]
    assert larger.gather(futures) == [144, 144]


def test_and_if_a_worker_is_killed_in_the_middle(larger, eventually):
    future = larger.submit(fib, 12, False, pure=False)
    pids = [larger.submit(os.getpid, workers=worker, pure=False).result() for worker in larger.nthreads()]

    def blocked():
        return sum(worker["blocked"] for worker in larger.scheduler_info()["workers"].values())

    eventually(lambda: future.done() or blocked() > 3, what="some of them wait")
    os.kill(min(pids), signal.SIGKILL)
    assert future.result(timeout=DEADLINE_SECONDS) == 144


def test_many_trees_at_a_time_go_into_the_depth(client):
    """If the roots began all at once, more tasks would wait than may."""
    futures = client.map(fib, [2] * 1100, [False] * 1100, pure=False)
    assert client.gather(futures) == [1] * 1100


def chain(depth):
    return 0 if not depth else 1 + get_client().submit(chain, depth - 1, pure=False).result()


def test_a_long_chain_ends(client):
    assert client.submit(chain, 200, pure=False).result(timeout=DEADLINE_SECONDS) == 200


def die():
    os._exit(3)


def die_below(n):
    client = get_client()
    return client.gather([client.submit(die, pure=False) for _ in range(n)])


@pytest.mark.parametrize("n", [1, 2])
def test_one_whose_children_kill_its_worker_fails_in_the_end(client, n):
    """They go with the worker, since only the task held them: so it is the task that is given up."""
    with pytest.raises(KilledWorker, match=r"'die_below-.*was running on 3 workers that died"):
        client.submit(die_below, n, pure=False).result(timeout=DEADLINE_SECONDS)
    assert client.submit(fib, 5, False, pure=False).result(timeout=DEADLINE_SECONDS) == 5


# -- what waits, and what else can be done


def wait_for_two():
    client = get_client()
    first, second = client.map(time.sleep, [0, 0], pure=False)
    done, not_done = wait([first, second])
    return len(done), len(not_done)


def fail_below():
    return get_client().submit(divmod, 1, 0).result()


def scatter_below():
    client = get_client()
    future = client.scatter(list(range(10_000)))
    return client.submit(sum, future).result(), len(client.gather(future))


def call_back():
    called = threading.Event()
    future = get_client().submit(abs, -1, pure=False)
    future.add_done_callback(lambda future: called.set())
    wait(future)  # which lends the slot, as `threading.Event.wait` can't
    return called.wait(DEADLINE_SECONDS)


def in_time(timeout):
    future = get_client().submit(time.sleep, 30, pure=False)
    try:
        future.result(timeout=timeout)
    except TimeoutError:
        future.cancel()
        return "late"
    return "in time"


def test_whatever_waits_may_wait_there(client):
    assert client.submit(wait_for_two).result() == (2, 0)
    with pytest.raises(ZeroDivisionError):
        client.submit(fail_below).result()
    assert client.submit(scatter_below).result() == (sum(range(10_000)), 10_000)
    assert client.submit(call_back).result()


def test_a_wait_may_have_an_end(larger):
    assert larger.submit(in_time, 0.01).result() == "late"


class Holding:
    """An object in which a future stays a future."""

    def __init__(self, future):
        self.future = future


def unpack(holding):
    return holding.future.result() + 1


def test_futures_that_a_task_is_given_are_its_clients(client):
    assert client.submit(unpack, Holding(client.submit(abs, -1))).result() == 2


def ask():
    client = get_client()
    client.wait_for_workers(1)
    return len(client.nthreads()), client.id, client is get_client(), repr(client)


def test_the_tasks_of_a_worker_share_a_client_that_is_no_users(client):
    nthreads, id, same, text = client.submit(ask, pure=False).result()
    assert (nthreads, same) == (1, True)
    assert id.endswith("/tasks")
    assert client.scheduler_address in text
    assert client.submit(ask, pure=False).result()[1] == id


def test_outside_of_tasks_it_is_the_client_that_was_opened_last(client):
    assert get_client() is Client.current()


# -- what is lent, and what is said of it


def with_gpu():
    return get_client().submit(os.getpid, resources={"GPU": 1}, pure=False).result()


def test_a_task_that_waits_lends_its_resources(client):
    pid = client.submit(with_gpu, resources={"GPU": 1}).result(timeout=DEADLINE_SECONDS)
    assert pid == client.submit(os.getpid, pure=False).result()


def wait_for_sleeper(path):
    return get_client().submit(sleep_until, path, pure=False).result()


def sleep_until(path):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not os.path.exists(path):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return "awake"


def test_status_tells_what_runs_from_what_waits(client, tmp_path, eventually):
    path = str(tmp_path / "go on")
    future = client.submit(wait_for_sleeper, path)
    eventually(lambda: (worker_of(client)["processing"], worker_of(client)["blocked"]) == (1, 1))
    with open(path, "w"):
        assert future.result(timeout=DEADLINE_SECONDS) == "awake"
    eventually(lambda: (worker_of(client)["processing"], worker_of(client)["blocked"]) == (0, 0))


def test_a_task_that_waits_can_be_cancelled(client, tmp_path, eventually):
    path = str(tmp_path / "go on")
    future = client.submit(wait_for_sleeper, path)
    eventually(lambda: worker_of(client)["blocked"] == 1)
    future.cancel()
    assert future.cancelled()
    with open(path, "w"):
        eventually(lambda: (worker_of(client)["processing"], worker_of(client)["blocked"]) == (0, 0))
    assert client.submit(fib, 5, False).result(timeout=DEADLINE_SECONDS) == 5


def test_beyond_the_most_that_may_wait_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(threads, "BLOCKED_MAX", 5)
    with started(processes=False) as client:
        with pytest.raises(BlockedTasksError, match=r"5 tasks of its worker wait already.*as arguments"):
            client.submit(chain, 6).result(timeout=DEADLINE_SECONDS)
        assert client.submit(chain, 5).result(timeout=DEADLINE_SECONDS) == 5


def compute_there():
    return int(da.ones(4, chunks=2).sum().compute())


def test_in_a_cluster_of_threads_dask_lends_the_slot_too():
    """Its tasks see the client of the process as dask's scheduler."""
    with started(processes=False) as client:
        assert client.submit(compute_there).result(timeout=DEADLINE_SECONDS) == 4
        assert client.submit(fib, 8, False).result(timeout=DEADLINE_SECONDS) == 21


# -- ends


def test_a_cluster_closes_while_tasks_wait(eventually, tmp_path):
    with started() as client:
        future = client.submit(wait_for_sleeper, str(tmp_path / "never"))
        eventually(lambda: worker_of(client)["blocked"] == 1)
    assert future.cancelled()


def test_a_process_that_a_task_forks_has_no_part_in_it(client):
    assert client.submit(fork_and_ask).result() == "this client belongs to the parent process"


def fork_and_ask():
    future = get_client().submit(abs, -1)
    future.result()
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            future.result()
            text = "it works"
        except Exception as error:
            text = str(error)
        os.write(theirs, text.encode()[:41])
        os._exit(0)
    os.waitpid(pid, 0)
    return os.read(ours, 100).decode()


def test_while_another_thread_imports_what_workers_need_no_task_runs_here(monkeypatch):
    name = "holdfast.cluster.worker.context"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert registry.running_task() is None
    assert registry.runs_tasks() is False
