"""What a task can ask and do about where it runs: its worker, its slot, and another run of itself."""

from __future__ import annotations

import os
import threading
import time

import dask
import pytest

from holdfast import (
    BlockedTasksError,
    Client,
    LocalCluster,
    Reschedule,
    default_client,
    get_client,
    get_worker,
    rejoin,
    secede,
    worker_client,
)
from holdfast.cluster.worker import threads
from tests.support.waiting import until

DEADLINE_SECONDS = 60


@pytest.fixture(scope="module")
def one():
    """A client of a cluster of one worker with one thread."""
    options = {"object_store_memory": "64 MiB", "resources": {"GPU": 1}}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def worker_of(client):
    (worker,) = client.scheduler_info()["workers"].values()
    return worker


# -- the worker


def about():
    worker = get_worker()
    os.stat(worker.local_directory)
    with pytest.raises(TypeError, match="can't be pickled"):
        worker.__reduce__()
    return {
        "address": worker.address,
        "name": worker.name,
        "id": worker.id,
        "nthreads": worker.nthreads,
        "resources": worker.resources,
        "scheduler": worker.scheduler_address,
        "directory": worker.local_directory,
        "task": worker.get_current_task(),
        "client": worker.client is get_client(),
        "plugins": worker.plugins,
        "repr": repr(worker),
    }


def test_a_task_sees_its_worker(one):
    said = one.submit(about, key="about").result()
    ((address, described),) = one.scheduler_info()["workers"].items()
    assert (said["address"], said["name"], said["nthreads"]) == (address, described["name"], 1)
    assert (said["resources"], said["scheduler"], said["task"]) == ({"GPU": 1}, one.scheduler_address, "about")
    assert said["client"]
    assert said["plugins"] == {}
    assert said["id"].startswith(said["name"])
    assert said["address"] in said["repr"]
    again = one.submit(about, key="about again").result()
    assert (again["id"], again["directory"]) == (said["id"], said["directory"])


def test_what_dasks_workers_have_is_there_or_the_error_says_what_to_do(one):
    def looks():
        worker = get_worker()
        assert worker.scheduler.address == worker.scheduler_address
        assert worker.worker_address == worker.contact_address == worker.address
        assert not hasattr(worker, "model")
        worker.model = 5
        assert worker.state.tasks[worker.get_current_task()].state == "executing"
        assert worker.get_current_task() in worker.tasks
        with pytest.raises(AttributeError, match=r"a worker's state has no 'ready': .*Client.processing"):
            _ = worker.state.ready
        with pytest.raises(AttributeError, match=r"a worker has no attribute 'rpc': .*Client.run"):
            _ = worker.rpc
        with pytest.raises(AttributeError, match=r"a worker has no attribute 'anything'$"):
            _ = worker.anything
        return worker.model

    assert one.submit(looks, pure=False).result() == 5


def where():
    return get_worker().address


def test_a_call_for_another_worker_is_another_run_once_the_future_is_gone(client):
    for _ in range(3):
        for address in client.nthreads():
            assert client.submit(where, workers=[address]).result() == address
            assert client.gather(client.map(lambda _: where(), range(3), workers=[address])) == [address] * 3
            with dask.annotate(workers=[address]):
                assert client.submit(where).result() == address


def test_what_a_worker_keeps_for_its_tasks_goes_with_it():
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as cluster,
        Client(cluster) as client,
    ):
        directory = client.submit(about).result()["directory"]
        assert os.path.isdir(directory)
    assert not os.path.exists(directory)


def call_in_loop():
    called = threading.Event()
    loop = get_worker().loop
    assert loop is get_worker().io_loop
    loop.add_callback(called.set)
    return called.wait(DEADLINE_SECONDS)


def test_what_a_task_gives_to_the_loop_of_its_worker_is_called_there(one):
    assert one.submit(call_in_loop).result()


def look(key):
    data = get_worker().data
    with pytest.raises(KeyError):
        data["nothing"]
    return data[key].sum(), key in data, key in list(data), len(data) > 0


def test_the_results_of_its_host_by_key(one):
    numpy = pytest.importorskip("numpy")
    future = one.scatter(numpy.arange(100_000))
    assert one.submit(look, future.key).result() == (4999950000, True, True, True)


def in_a_thread(call):
    raised = []

    def run():
        try:
            call()
        except Exception as error:
            raised.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0]


def test_a_thread_that_a_task_has_started_is_told_what_to_do(one):
    assert "ValueError: this thread runs no task" in one.submit(in_a_thread, get_client).result()
    assert "hand the client" in one.submit(in_a_thread, default_client).result()
    for call in (get_worker, secede, rejoin):
        assert "in a thread that a task has started" in one.submit(in_a_thread, call, pure=False).result()


@pytest.mark.parametrize("call", [get_worker, secede, rejoin, lambda: worker_client().__enter__()])
def test_outside_of_tasks_there_is_no_worker(call):
    with pytest.raises(ValueError, match="no worker here"):
        call()


# -- the slot


def secede_until(path):
    secede()
    secede()  # twice is no error
    until(lambda: os.path.exists(path), "the test lets it go on")
    return "seceded"


def rejoin_after(path):
    secede()
    until(lambda: os.path.exists(path), "the test lets it go on")
    rejoin()
    rejoin()
    return get_worker().get_current_task()


@pytest.mark.parametrize("function", [secede_until, rejoin_after])
def test_others_run_in_the_slot_of_one_that_secedes(one, tmp_path, function):
    path = str(tmp_path / "go on")
    future = one.submit(function, path, key=f"{function.__name__}-{tmp_path}")
    assert one.submit(abs, -1, pure=False).result(DEADLINE_SECONDS) == 1
    until(lambda: worker_of(one)["blocked"] == 1, "it is said to have no slot")
    with open(path, "w"):
        pass
    assert future.result(DEADLINE_SECONDS) in ("seceded", future.key)
    until(lambda: (worker_of(one)["blocked"], worker_of(one)["processing"]) == (0, 0), "it has ended")
    assert one.gather(one.map(abs, range(20), pure=False)) == list(range(20))


def running_at_once(path, n):
    """Seceded tasks rejoin one by one: no two of them run at a time."""
    secede()
    until(lambda: os.path.exists(path), "the test lets it go on")
    rejoin()
    mark = f"{path}-running"
    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    time.sleep(0.01)
    os.remove(mark)
    return n


def test_no_more_run_than_there_are_slots_when_all_rejoin(one, tmp_path):
    path = str(tmp_path / "go on")
    futures = one.map(running_at_once, [path] * 10, range(10))
    until(lambda: worker_of(one)["blocked"] == 10, "all have seceded")
    with open(path, "w"):
        pass
    assert one.gather(futures) == list(range(10))


def wait_when_seceded():
    secede()
    client = get_client()
    return sum(client.gather(client.map(abs, range(5), pure=False)))


def test_one_that_has_seceded_may_wait(one):
    assert one.submit(wait_when_seceded, pure=False).result(DEADLINE_SECONDS) == 10


def fail_when_seceded():
    secede()
    raise ValueError("as it should")


def test_one_that_has_seceded_may_fail(one):
    with pytest.raises(ValueError, match="as it should"):
        one.submit(fail_when_seceded, pure=False).result(DEADLINE_SECONDS)
    assert one.submit(abs, -1, pure=False).result(DEADLINE_SECONDS) == 1


def hold_gpu(path):
    secede()
    until(lambda: os.path.exists(path), "the test lets it go on")
    rejoin()
    return "has it again"


def test_resources_are_lent_too(one, tmp_path):
    path = str(tmp_path / "go on")
    future = one.submit(hold_gpu, path, resources={"GPU": 1})
    assert one.submit(abs, -1, resources={"GPU": 1}, pure=False).result(DEADLINE_SECONDS) == 1
    with open(path, "w"):
        pass
    assert future.result(DEADLINE_SECONDS) == "has it again"


def test_too_many_may_not_secede(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "BLOCKED_MAX", 2)
    path = str(tmp_path / "go on")
    options = {"object_store_memory": "64 MiB", "processes": False}
    with LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster, Client(cluster) as client:
        futures = client.map(secede_until, [path] * 2, pure=False)
        until(lambda: worker_of(client)["blocked"] == 2, "both have seceded")
        with pytest.raises(BlockedTasksError, match="2 tasks of its worker wait already"):
            client.submit(secede_until, path, pure=False).result(DEADLINE_SECONDS)
        with open(path, "w"):
            pass
        assert client.gather(futures) == ["seceded"] * 2


def with_client(n, separate_thread):
    with worker_client(timeout="1 s", separate_thread=separate_thread) as client:
        total = sum(client.gather(client.map(abs, range(n), pure=False)))
    return total, client is get_client()


@pytest.mark.parametrize("separate_thread", [True, False])
def test_a_client_for_a_block_of_a_task(one, separate_thread):
    assert one.submit(with_client, 5, separate_thread, pure=False).result(DEADLINE_SECONDS) == (10, True)
    assert worker_of(one)["blocked"] == 0


# -- which client


def test_the_default_client(client):
    assert default_client() is client
    assert default_client(client) is client


def test_a_client_is_the_current_one_for_a_while(client, cluster):
    dask_array = pytest.importorskip("dask.array")
    with Client(cluster, set_as_default=False) as other:
        with pytest.raises(ValueError, match="as_current"):
            Client.current(allow_global=False)
        with other.as_current() as same:
            assert same is other
            assert Client.current() is other
            assert Client.current(allow_global=False) is get_client() is other
            seen = []
            thread = threading.Thread(target=lambda: seen.append(get_client()))
            thread.start()
            thread.join()
            assert seen == [client]
            persisted = dask_array.ones(4, chunks=2).persist()
            assert {future.client for future in persisted.dask.values()} == {other}
        assert get_client() is client


def test_a_client_by_address(client):
    assert get_client(client.scheduler_address) is client
    assert get_client(client.scheduler_address.removeprefix("tcp://").replace("127.0.0.1", "localhost")) is client


def test_a_client_of_another_cluster(client, two_hosts):
    other = get_client(two_hosts.scheduler_address, timeout="10 s")
    try:
        assert other.scheduler_address == two_hosts.scheduler_address != client.scheduler_address
    finally:
        other.close()


def same_client(address):
    return get_client(address) is get_client()


def test_in_a_task_the_clusters_own_address_is_no_other(one):
    assert one.submit(same_client, one.scheduler_address).result()


# -- another run


def elsewhere(folder):
    address = get_worker().address
    path = os.path.join(folder, address.replace("/", "_"))
    seen = os.listdir(folder)
    with open(path, "w"):
        pass
    if not seen:
        raise Reschedule
    return os.path.basename(path) not in seen


def test_a_task_that_asks_for_it_is_run_on_another_worker(client, tmp_path):
    assert client.submit(elsewhere, str(tmp_path), retries=0, pure=False).result(DEADLINE_SECONDS)


def three_times(path):
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < 3:
        raise Reschedule("not yet")
    return os.path.getsize(path)


def test_or_on_the_same_if_there_is_no_other(one, tmp_path):
    assert one.submit(three_times, str(tmp_path / "runs")).result(DEADLINE_SECONDS) == 3


def always():
    raise Reschedule


def test_not_for_ever(one):
    with pytest.raises(Reschedule, match=r"'always-.*' was run 1,000 times"):
        one.submit(always).result(DEADLINE_SECONDS)
