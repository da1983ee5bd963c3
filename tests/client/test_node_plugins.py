"""Node plugins, and functions that run once on each host: in a process beside its agent, which goes with it."""

from __future__ import annotations

import asyncio
import os
import signal
import traceback

import numpy as np
import pytest
from waiting import until

from holdfast import Client, Environ, LocalCluster, Nanny, NannyPlugin, Scheduler, SchedulerPlugin, Worker
from holdfast.cluster.errors import ConnectError


@pytest.fixture(scope="module")
def in_process(in_process):
    """A cluster in this process, whose nanny is there, so that no test is taken for the one that has started it."""
    with Client(in_process, set_as_default=False) as client:
        client.run(os.getpid, nanny=True)
    return in_process


class Noting(NannyPlugin):
    """Notes what happens to it, on its host."""

    name = "noting"

    def __init__(self, mark="first"):
        self.mark = mark

    def setup(self, nanny):
        nanny.notes = [*getattr(nanny, "notes", ()), ("setup", self.mark)]

    def teardown(self, nanny):
        nanny.notes = [*nanny.notes, ("teardown", self.mark)]


def notes_of(dask_worker):
    return dask_worker.notes


def forget(dask_worker):
    dask_worker.notes = []


def hosts_of(workers):
    return sorted({worker.rpartition("/")[0] for worker in workers})


def test_a_plugin_is_set_up_replaced_and_taken_down_once_on_each_host(run):
    async def case(client, got):
        workers = await got(client.nthreads())
        ok = {host: {"status": "OK"} for host in hosts_of(workers)}
        await got(client.run(forget, nanny=True))
        assert await got(client.register_plugin(Noting())) == ok
        assert await got(client.register_nanny_plugin(Noting("idle"), idempotent=True)) == {}
        assert await got(client.register_worker_plugin(Noting("second"))) == ok
        assert await got(client.unregister_worker_plugin("noting", nanny=True)) == ok
        wanted = [("setup", "first"), ("teardown", "first"), ("setup", "second"), ("teardown", "second")]
        assert await got(client.run(notes_of, nanny=True)) == dict.fromkeys(workers, wanted)
        with pytest.raises(ValueError, match="no nanny plugin 'noting' is registered"):
            await got(client.unregister_worker_plugin("noting", nanny=True))

    run(case)


def test_any_object_with_a_setup_is_one_in_the_old_way(client):
    class Plain:
        async def setup(self, nanny):
            await asyncio.sleep(0)
            nanny.plain = sorted([nanny.address, nanny.name, nanny.scheduler_address])

    client.register_worker_plugin(Plain(), name="plain", nanny=True)
    (seen,) = {tuple(each) for each in client.run(lambda dask_worker: dask_worker.plain, nanny=True).values()}
    assert client.scheduler_address in seen
    client.unregister_worker_plugin("plain", nanny=True)
    for wrong in (Plain, 3):
        with pytest.raises(TypeError, match="with a setup or teardown"):
            client.register_nanny_plugin(wrong)


def test_what_fails_is_raised_with_its_traceback(run):
    class Failing(NannyPlugin):
        name = "failing"

        def __init__(self, where):
            self.where = where

        def setup(self, nanny):
            if self.where == "setup":
                raise ValueError(f"not on {nanny.name}")

        def teardown(self, nanny):
            raise KeyError("never")

    async def case(client, got):
        with pytest.raises(ValueError, match="not on") as raised:
            await got(client.register_plugin(Failing("setup")))
        assert traceback.extract_tb(raised.value.__traceback__)[-1].name == "setup"
        assert any("the plugin 'failing'" in note for note in raised.value.__notes__)
        await got(client.register_plugin(Failing("teardown")))
        with pytest.raises(KeyError, match="never"):
            await got(client.unregister_worker_plugin("failing", nanny=True))

    run(case)


def test_a_function_runs_once_on_each_host_for_the_workers_that_are_meant(run):
    async def case(client, got):
        workers = await got(client.nthreads())
        pids = await got(client.run(os.getpid, nanny=True))
        assert list(pids) == sorted(workers)
        assert len(set(pids.values())) == len(hosts_of(workers))
        assert os.getpid() not in pids.values()
        assert set(pids.values()).isdisjoint((await got(client.run(os.getpid))).values())
        one = sorted(workers)[0]
        assert await got(client.run(os.getpid, workers=[one], nanny=True)) == {one: pids[one]}
        assert await got(client.run_coroutine(asyncio.sleep, 0, 3, workers=one, nanny=True)) == {one: 3}
        assert await got(client.run(os.getpid, nanny=True, wait=False)) is None
        with pytest.raises(ZeroDivisionError):
            await got(client.run(divmod, 1, 0, nanny=True))
        errors = await got(client.run(divmod, 1, 0, nanny=True, on_error="return"))
        assert {type(error) for error in errors.values()} == {ZeroDivisionError}
        assert await got(client.run(divmod, 1, 0, nanny=True, on_error="ignore")) == {}
        with pytest.raises(ValueError, match="nobody"):
            await got(client.run(os.getpid, workers=["nobody"], nanny=True))

    run(case)


def test_large_data_goes_through_the_store_both_ways(client):
    array = np.arange(300_000.0)
    assert set(client.run(np.sum, array, nanny=True).values()) == {array.sum()}
    for result in client.run(np.ones, 3_000_000, nanny=True).values():
        assert result.sum() == 3_000_000


def test_one_that_dies_is_an_error_and_another_one_comes_with_its_plugins(client):
    client.register_plugin(Noting())
    pid = set(client.run(os.getpid, nanny=True).values())
    with pytest.raises(ConnectError, match=r"the nanny of .* ended"):
        client.run(os._exit, 3, nanny=True)

    def notes():
        found = client.run(lambda dask_worker: getattr(dask_worker, "notes", None), nanny=True)
        return [("setup", "first")] in found.values()

    until(notes, "its plugins come back")
    assert pid != set(client.run(os.getpid, nanny=True).values())
    assert client.submit(pow, 2, 3, pure=False).result() == 8
    client.unregister_worker_plugin("noting", nanny=True)


def test_one_that_ends_each_time_with_its_plugin_is_not_started_for_ever(client):
    class Deadly(NannyPlugin):
        name = "deadly"

        def setup(self, nanny):
            os._exit(3)

    with pytest.raises(ConnectError, match="ended"):
        client.register_plugin(Deadly())
    told = until(
        lambda: [event for _, event in client.get_events("plugins") if "times with its plugins" in event["text"]],
        "the scheduler gives up",
    )
    assert hosts_of(client.nthreads()) == [told[0]["worker"]]
    client.unregister_worker_plugin("deadly", nanny=True)
    assert client.submit(pow, 2, 3, pure=False).result() == 8


def test_a_plugin_may_have_the_workers_start_anew(client):
    class Changing(NannyPlugin):
        name = "changing"

        def __init__(self, value, restart):
            self.value = value
            self.restart = restart

        def setup(self, nanny):
            nanny.env["SET_BY_A_NANNY"] = self.value

    pids = client.run(os.getpid)
    client.register_plugin(Changing("1", restart=False))
    assert client.run(os.getpid) == pids
    assert set(client.run(os.getenv, "SET_BY_A_NANNY").values()) == {None}
    client.register_plugin(Changing("2", restart=True))
    assert set(client.run(os.getpid).values()).isdisjoint(pids.values())
    assert set(client.run(os.getenv, "SET_BY_A_NANNY").values()) == {"2"}
    client.unregister_worker_plugin("changing", nanny=True)


def test_a_nanny_gives_variables_to_workers_that_start_later(client):
    client.register_nanny_plugin(Environ({"GIVEN_BY_A_NANNY": 1, "LANG": None}))
    assert set(client.run(os.getenv, "GIVEN_BY_A_NANNY").values()) == {None}
    client.restart()
    assert set(client.run(os.getenv, "GIVEN_BY_A_NANNY").values()) == {"1"}
    assert set(client.run(os.getenv, "LANG").values()) == {None}
    client.unregister_worker_plugin("environ", nanny=True)
    client.restart()
    assert set(client.run(os.getenv, "GIVEN_BY_A_NANNY").values()) == {None}


@pytest.mark.parametrize(("name", "value"), [("", "1"), ("A=B", "1"), ("A\0", "1"), ("A", "\0"), ("A", "x" * 20_000)])
def test_variables_with_which_no_worker_could_start_are_refused(client, name, value):
    def change(dask_worker):
        dask_worker.env[name] = value

    before = client.run(lambda dask_worker: dict(dask_worker.env), nanny=True)
    with pytest.raises(ValueError, match=r"environment|16,384 bytes"):
        client.run(change, nanny=True)
    assert client.run(lambda dask_worker: dict(dask_worker.env), nanny=True) == before


def test_a_host_that_comes_later_has_them_before_its_workers_have_tasks(tmp_path):
    class Late(NannyPlugin):
        def __init__(self, path):
            self.path = path

        def setup(self, nanny):
            if os.path.exists(os.path.join(self.path, "slowly")):
                until(lambda: os.path.exists(os.path.join(self.path, "go")), "the test says so")
            nanny.env["PREPARED"] = nanny.name

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        (worker,) = client.nthreads()
        client.register_plugin(Late(str(tmp_path)), name="late")
        (tmp_path / "slowly").touch()
        nannies = client.run(os.getpid, nanny=True)
        os.kill(cluster.nodes[0]["pid"], signal.SIGKILL)
        until(lambda: not os.path.exists(f"/proc/{nannies[worker]}"), "the nanny ends with its agent")
        future = client.submit(os.getenv, "PREPARED", pure=False)
        until(lambda: client.nthreads() and worker not in client.nthreads(), "another host comes")
        assert not future.done()
        (tmp_path / "go").touch()
        assert future.result(60)


def test_what_fails_later_is_an_event_and_the_host_is_used(tmp_path):
    class Moody(NannyPlugin):
        def __init__(self, path):
            self.path = path

        def setup(self, nanny):
            if os.path.exists(self.path):
                raise OSError("not any more")

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(Moody(str(tmp_path / "moody")), name="moody")
        (tmp_path / "moody").touch()
        os.kill(cluster.nodes[0]["pid"], signal.SIGKILL)
        until(lambda: client.get_events("plugins"), "it fails")
        assert client.submit(pow, 2, 3, pure=False).result(60) == 8
        ((_, event),) = client.get_events("plugins")
        assert event["plugin"] == "moody"
        assert "OSError: not any more" in event["text"]


def test_they_are_taken_down_with_their_host_and_nothing_is_left(tmp_path):
    class Leaving(NannyPlugin):
        def __init__(self, path):
            self.path = path

        def teardown(self, nanny):
            with open(os.path.join(self.path, "left"), "w"):
                pass

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(Leaving(str(tmp_path)))
        (pid,) = client.run(os.getpid, nanny=True).values()
        client.run(signal.pause, nanny=True, wait=False)
    until((tmp_path / "left").exists, "it is taken down")
    until(lambda: not os.path.exists(f"/proc/{pid}"), "it is gone")


@pytest.mark.parametrize("whose", ["agent", "scheduler"])
def test_a_teardown_that_hangs_keeps_no_process_when_the_one_beside_it_is_killed(whose):
    class Hanging(NannyPlugin):
        def teardown(self, nanny):
            signal.pause()

    class HangingToo(SchedulerPlugin):
        async def close(self):
            await asyncio.Event().wait()

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        if whose == "agent":
            client.register_plugin(Hanging(), name="hanging")
            (pid,) = client.run(os.getpid, nanny=True).values()
            os.kill(cluster.nodes[0]["pid"], signal.SIGKILL)
        else:
            client.register_plugin(HangingToo(), name="hanging")
            pid = client.run_on_scheduler(os.getpid)
            os.kill(client.scheduler_info()["pid"], signal.SIGKILL)
        until(lambda: not os.path.exists(f"/proc/{pid}"), "it ends all the same")


def test_workers_of_the_agent_s_process_stay_as_they_are(in_process):
    class Restarting(NannyPlugin):
        restart = True

        def setup(self, nanny):
            nanny.env["FOR_NOBODY"] = "1"

    with Client(in_process, set_as_default=False) as client:
        client.run(forget)
        client.register_plugin(Restarting(), name="restarting")
        assert set(map(tuple, client.run(notes_of).values())) == {()}
        assert set(client.run(os.getenv, "FOR_NOBODY").values()) == {None}
        client.unregister_worker_plugin("restarting", nanny=True)


def test_a_worker_of_a_loop_has_a_nanny_too():
    async def main():
        async with (
            Scheduler() as scheduler,
            Worker(scheduler.address, nthreads=1, object_store_memory="64 MiB"),
            Nanny(scheduler.address, nthreads=1, object_store_memory="64 MiB"),
            Client(scheduler.address, asynchronous=True) as client,
        ):
            await client.register_plugin(Noting())
            notes = await client.run(notes_of, nanny=True)
            assert list(notes.values()) == [[("setup", "first")]] * 2
            assert os.getpid() not in (await client.run(os.getpid, nanny=True)).values()

    asyncio.run(main())
