"""What runs beside the scheduler: functions and plugins, in a process that comes when it is needed and goes with it."""

from __future__ import annotations

import asyncio
import os
import signal
import traceback

import numpy as np
import pytest
from waiting import until

from holdfast import Client, LocalCluster, SchedulerPlugin, get_client
from holdfast.cluster.errors import ConnectError


@pytest.fixture(scope="module")
def in_process(in_process):
    """A cluster in this process, whose assistant is there, so that no test is taken for the one that has started it."""
    with Client(in_process, set_as_default=False) as client:
        client.run_on_scheduler(os.getpid)
    return in_process


def look(dask_scheduler):
    return {
        "address": dask_scheduler.address,
        "id": dask_scheduler.id,
        "workers": {address: worker.nthreads for address, worker in dask_scheduler.workers.items()},
        "clients": list(dask_scheduler.clients.values()),
        "status": dask_scheduler.status,
    }


def test_a_function_looks_at_the_scheduler(run):
    async def case(client, got):
        found = await got(client.run_on_scheduler(look))
        assert found["address"] == client.scheduler_address
        assert found["id"] == (await got(client.scheduler_info()))["id"]
        assert found["workers"] == await got(client.nthreads())
        assert "the scheduler's assistant" in found["clients"]
        assert found["status"] == "running"
        assert await got(client.run_on_scheduler(pow, 2, exp=3)) == 8
        assert await got(client.run_on_scheduler(pow, 2, 3, wait=False)) is None

    run(case)


def test_it_sees_the_tasks(client):
    def tasks(keys, dask_scheduler):
        found = dask_scheduler.tasks
        return [found[key] for key in keys if key in found], len(found)

    future = client.submit(np.ones, 10_000, key="seen")
    failed = client.submit(lambda: 1 / 0, key="failed")
    future.result()
    failed.exception()
    (seen, erred), count = client.run_on_scheduler(tasks, ["seen", "failed", "unknown"])
    assert count >= 2
    assert (seen.key, seen.state, len(seen.who_has), seen.worker) == ("seen", "memory", 1, None)
    assert seen.nbytes > 80_000 - 1
    assert erred.state == "erred"


def test_coroutine_functions_and_errors(run):
    async def later(x):
        await asyncio.sleep(0)
        return x

    async def fail(dask_scheduler):
        raise ValueError(dask_scheduler.address)

    async def case(client, got):
        assert await got(client.run_on_scheduler(later, 3)) == 3
        with pytest.raises(ValueError, match="tcp://") as raised:
            await got(client.run_on_scheduler(fail))
        assert traceback.extract_tb(raised.value.__traceback__)[-1].name == "fail"

    run(case)


def test_large_arguments_go_through_the_store_and_results_have_a_limit(client):
    array = np.arange(300_000.0)
    assert client.run_on_scheduler(np.sum, array) == array.sum()
    assert client.run_on_scheduler(np.ones, 1_000_000).sum() == 1_000_000
    with pytest.raises(ValueError, match="16,777,216 at most"):
        client.run_on_scheduler(np.ones, 3_000_000)


def test_it_does_not_run_in_the_scheduler(client):
    pid = client.run_on_scheduler(os.getpid)
    assert pid == client.run_on_scheduler(os.getpid)
    assert pid not in {os.getpid(), *client.run(os.getpid).values(), client.scheduler_info().get("pid")}


def test_one_that_dies_is_an_error_and_another_one_comes(client):
    pid = client.run_on_scheduler(os.getpid)
    with pytest.raises(ConnectError, match="the process beside the scheduler ended"):
        client.run_on_scheduler(os._exit, 3)
    assert client.run_on_scheduler(os.getpid) != pid
    assert client.submit(pow, 2, 3, pure=False).result() == 8


def test_it_ends_with_the_cluster_also_if_a_function_runs():
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, object_store_memory="64 MiB") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        pid = client.run_on_scheduler(os.getpid)
        client.run_on_scheduler(signal.pause, wait=False)
    until(lambda: not os.path.exists(f"/proc/{pid}"), "it is gone")


class Hearing(SchedulerPlugin):
    """Writes what it hears into a file."""

    name = "hearing"

    def __init__(self, path):
        self.path = str(path)

    def _note(self, *what):
        with open(self.path, "a") as file:
            file.write(" ".join(map(str, what)) + "\n")

    def start(self, scheduler):
        self._note("start", len(scheduler.workers))

    def close(self):
        self._note("close")

    def transition(self, key, start, finish, *args, **kwargs):
        self._note("transition", key, start, finish)

    def add_worker(self, scheduler, worker):
        self._note("add_worker", scheduler.workers[worker].name)

    def remove_worker(self, scheduler, worker, **kwargs):
        self._note("remove_worker", worker, worker in scheduler.workers)

    def add_client(self, scheduler, client):
        self._note("add_client", client)

    async def remove_client(self, scheduler, client):
        self._note("remove_client", client)


def test_a_plugin_hears_of_what_happens(cluster, client, tmp_path):
    path = tmp_path / "heard"

    def heard(text):
        until(lambda: text in path.read_text(), f"it hears of {text!r}")

    assert client.register_plugin(Hearing(path)) == {"assistant": {"status": "OK"}}
    assert client.register_plugin(Hearing(path), idempotent=True) == {}
    assert path.read_text().startswith("start 2\n")
    client.submit(pow, 2, 3, key="heard").result()
    heard("transition heard ready processing\n")
    heard("transition heard processing memory\n")
    with Client(cluster, set_as_default=False) as other:
        heard(f"add_client {other.id}\n")
    heard(f"remove_client {other.id}\n")
    client.unregister_scheduler_plugin("hearing")
    assert "close\n" in path.read_text()
    with pytest.raises(ValueError, match="no scheduler plugin 'hearing' is registered"):
        client.unregister_scheduler_plugin("hearing")


def test_a_plugin_hears_of_workers(tmp_path):
    path = tmp_path / "heard"
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, object_store_memory="64 MiB") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        (first,) = cluster.workers
        client.register_plugin(Hearing(path))
        cluster.scale(2)
        (second,) = [worker for name, worker in cluster.workers.items() if name != first]
        until(lambda: f"add_worker {second.name}\n" in path.read_text(), "it hears of the new one")
        cluster.scale_down([second.name])
        until(lambda: f"remove_worker {second.address} False\n" in path.read_text(), "it hears that the new one goes")
        assert f"add_worker {first}\n" not in path.read_text()


class Watching(SchedulerPlugin):
    """Keeps what it hears of graphs, events and restarts."""

    name = "watching"

    def start(self, scheduler):
        scheduler.watching = self
        self.heard = []

    def update_graph(self, scheduler, *, client, keys, tasks, annotations, priority, dependencies, **kwargs):
        self.heard.append(("graph", client, keys, tasks, annotations, dependencies, sorted(priority)))

    def log_event(self, topic, msg):
        if topic in ("mine", "its"):
            self.heard.append((topic, msg))

    def restart(self, scheduler):
        self.heard.append(("restart",))


def test_a_plugin_hears_of_graphs_events_and_restarts(client):
    client.register_plugin(Watching())

    def heard(dask_scheduler):
        return dask_scheduler.watching.heard

    def says(dask_scheduler):
        dask_scheduler.log_event("its", 3)

    client.get({"one": (pow, 2, 3), "two": (pow, "one", 2)}, "two", retries=2)
    client.log_event("mine", {"loss": 0.5})
    client.run_on_scheduler(says)
    client.restart()
    until(lambda: ("restart",) in client.run_on_scheduler(heard), "it hears of it")
    graph, *rest = [each for each in client.run_on_scheduler(heard) if each[0] != "graph" or "two" in each[3]]
    _, by, keys, tasks, annotations, dependencies, priority = graph
    assert (by, keys, sorted(tasks)) == (client.id, {"two"}, ["one", "two"])
    assert annotations["retries"] == {"one": 2, "two": 2}
    assert dependencies == {"one": set(), "two": {"one"}}
    assert priority == ["one", "two"]
    assert rest == [("mine", {"loss": 0.5}), ("its", 3), ("restart",)]
    client.unregister_scheduler_plugin("watching")


def test_a_plugin_hears_of_tasks_before_others_and_of_those_that_tasks_submit(client):
    def nested():
        return get_client().submit(abs, -3, key="inner").result()

    def heard(dask_scheduler):
        return dask_scheduler.watching.heard

    client.register_plugin(Watching())
    assert client.submit(abs, -2, key="first", priority=float("inf")).result() == 2
    assert client.submit(abs, -2, key="last", priority=-5.5).result() == 2
    assert client.submit(nested, key="outer", priority=3, pure=False).result() == 3
    until(lambda: any("inner" in each[3] for each in client.run_on_scheduler(heard)), "it hears of all")
    assert [each[3] for each in client.run_on_scheduler(heard)] == [["first"], ["last"], ["outer"], ["inner"]]
    client.unregister_scheduler_plugin("watching")


def test_one_that_hangs_or_fails_keeps_no_other_from_hearing(client, tmp_path):
    class Stuck(SchedulerPlugin):
        def __init__(self, path):
            self.path = path

        async def add_client(self, scheduler, client):
            await asyncio.Event().wait()

        def remove_client(self, scheduler, client):
            raise OSError("no")

    class Failing(SchedulerPlugin):
        def add_client(self, scheduler, client):
            raise ZeroDivisionError("oh")

    path = tmp_path / "heard"
    client.register_plugin(Stuck(str(path)), name="stuck")
    client.register_plugin(Failing(), name="fails")
    client.register_plugin(Hearing(path))
    with Client(client.scheduler_address, set_as_default=False) as other:
        until(lambda: f"add_client {other.id}" in path.read_text(), "the other one hears of it")
    events = until(
        lambda: [event for _, event in client.get_events("plugins") or () if event["plugin"] == "fails"], "it is told"
    )
    assert len(events) == 1
    assert "ZeroDivisionError: oh" in events[0]["text"]
    for name in ("stuck", "fails", "hearing"):
        client.unregister_scheduler_plugin(name)


def test_a_start_that_hangs_is_not_waited_for_for_ever(client):
    class Hanging(SchedulerPlugin):
        setup_timeout = 0.3

        def start(self, scheduler):
            signal.pause()

    with pytest.raises(TimeoutError, match=r"(?s)the assistant of the scheduler after 0\.3 s.*signal\.pause\(\)"):
        client.register_plugin(Hanging(), name="hanging")
    assert client.run_on_scheduler(pow, 2, 3) == 8
    client.unregister_scheduler_plugin("hanging")


def test_plugins_come_back_when_their_process_dies(client, tmp_path):
    path = tmp_path / "heard"
    client.register_scheduler_plugin(Hearing(path))
    os.kill(client.run_on_scheduler(os.getpid), signal.SIGKILL)
    until(lambda: path.read_text().count("start") == 2, "it starts again")
    client.unregister_scheduler_plugin("hearing")


def test_what_fails_is_raised(run):
    class Failing(SchedulerPlugin):
        def start(self, scheduler):
            raise OSError("no")

    async def case(client, got):
        with pytest.raises(OSError, match="no") as raised:
            await got(client.register_plugin(Failing(), name="failing"))
        assert traceback.extract_tb(raised.value.__traceback__)[-1].name == "start"
        await got(client.unregister_scheduler_plugin("failing"))
        with pytest.raises(TypeError, match="a start, close or transition"):
            await got(client.register_scheduler_plugin(3))

    run(case)
