"""`LocalCluster`, with real processes. That nothing stays behind is checked after each test (see conftest)."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from holdfast import AuthenticationError, ConnectError, HoldfastError, LocalCluster, ObjectLostError
from holdfast.cluster import protocol
from holdfast.cluster.deploy.ask import ask
from holdfast.cluster.deploy.in_process import LastingExecutor
from holdfast.cluster.durations import SCHEDULER_TIMEOUT_VARIABLE
from holdfast.cluster.processes import restarts, run_directory

SMALL = {"object_store_memory": "64MB"}


def small(n_workers: int = 1, **options: Any) -> LocalCluster:
    return LocalCluster(n_workers, 1, **{**SMALL, **options})


def workers(cluster: LocalCluster) -> list[str]:
    return [worker for node in cluster.describe()["nodes"].values() for worker in node["workers"]]


def processes(module: str) -> list[psutil.Process]:
    """Those below this process that are shown to run ``holdfast.cluster.<module>``."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # one that has just ended
            if f"-m holdfast.cluster.{module} " in " ".join(process.cmdline()):
                found.append(process)
    return found


def run_script(source: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return out


# -- starting


def test_it_starts_what_it_says() -> None:
    with small(2) as cluster:
        status = cluster.describe()
        assert status["scheduler"]["address"] == cluster.scheduler_address
        asked = ask(cluster.scheduler_address, protocol.requests.STATUS, token=cluster.token)
        assert asked["scheduler"]["address"] == cluster.scheduler_address
        (node,) = status["nodes"].values()
        assert len(node["workers"]) == 2
        assert node["store"]["capacity"] == 64_000_000
        assert repr(cluster) == f"LocalCluster('{cluster.scheduler_address}', workers=2, threads=2)"
        assert psutil.Process(cluster.scheduler_pid).is_running()
        assert [node["address"] for node in cluster.nodes] == list(status["nodes"])
    assert cluster.closed
    assert repr(cluster) == "LocalCluster(closed)"
    cluster.close()
    with pytest.raises(HoldfastError, match="the cluster is closed"):
        cluster.describe()


def test_its_processes_are_shown_as_what_they_are_and_only_workers_load_numpy() -> None:
    with small(2):
        assert [len(processes(module)) for module in ("processes.fork_server", "scheduler", "node", "worker")] == [
            1,
            1,
            1,
            2,
        ]
        assert {"numpy", "pyarrow"} & _libraries(*processes("scheduler"), *processes("node")) == set()
        assert {"numpy", "pyarrow"} <= _libraries(*processes("worker"))


def _libraries(*processes: psutil.Process) -> set[str]:
    """The packages whose shared libraries these processes have loaded."""
    paths = [Path(mapped.path) for process in processes for mapped in process.memory_maps()]
    return {part for path in paths if ".so" in path.name for part in path.parts}


def test_two_hosts_have_stores_of_their_own() -> None:
    with small(3, n_hosts=2, name="pair") as cluster:
        nodes = cluster.describe()["nodes"]
        assert sorted(len(node["workers"]) for node in nodes.values()) == [1, 2]
        assert sorted(node["hostname"] for node in nodes.values()) == ["pair-0", "pair-1"]
        assert len({node["pid"] for node in nodes.values()}) == 2
        assert repr(cluster).endswith("workers=3, threads=3, hosts=2)")


@pytest.mark.parametrize("n_hosts", [1, 2])
def test_without_processes_all_is_in_this_one(n_hosts: int) -> None:
    with LocalCluster(2, 1, processes=False, n_hosts=n_hosts, **SMALL) as cluster:
        assert len(workers(cluster)) == 2
        assert len(cluster.describe()["nodes"]) == n_hosts
        assert cluster.scheduler_pid == os.getpid()
        assert psutil.Process().children() == []


def test_it_logs_where_it_is_told_to(tmp_path: Path) -> None:
    with (
        small(log_directory=tmp_path / "logs", silence_logs=0, name="alpha") as cluster,
        cluster.get_client() as client,
    ):
        client.submit(print, "a task says so", flush=True).result()
    assert {path.name for path in (tmp_path / "logs").iterdir()} >= {"scheduler.log", "node-0.log"}
    assert "listens on" in (tmp_path / "logs" / "scheduler.log").read_text()
    assert "a task says so" in (tmp_path / "logs" / "alpha-0.log").read_text()
    assert (tmp_path / "logs" / "fork-server.log").read_text() == ""


# -- what can't be


@pytest.mark.parametrize("processes", [True, False])
def test_a_port_in_use_is_named(processes: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConnectError, match=f"port {port} of 127.0.0.1 is in use"):
            small(processes=processes, scheduler_port=port)


def test_a_wrong_token_does_not_get_in() -> None:
    with (
        small(processes=False) as cluster,
        pytest.raises(AuthenticationError, match="use the token of the host that started the cluster"),
    ):
        ask(cluster.scheduler_address, protocol.requests.STATUS, token=b"x" * 32)


def test_arguments_are_checked_before_anything_starts() -> None:
    with pytest.raises(ValueError, match="n_workers must be from 0"):
        LocalCluster(-1)
    with pytest.raises(ValueError, match="scheduler_port must be from 0"):
        LocalCluster(1, scheduler_port=70000)
    with pytest.raises(ValueError, match="n_hosts=2 hosts need a worker each"):
        LocalCluster(1, n_hosts=2)
    with pytest.raises(ValueError, match="the timeout 'soon' is no time"):
        LocalCluster(1, timeout="soon")


def test_times_may_be_text() -> None:
    with small(processes=False, timeout="30 s") as cluster:
        cluster.close(timeout="10 s")
        assert cluster.closed


@pytest.mark.filterwarnings("ignore:Anybody on the network")
@pytest.mark.parametrize("processes", [True, False])
def test_an_address_that_is_not_this_hosts_is_named(processes: bool) -> None:
    with pytest.raises(ConnectError, match=r"can't listen on tcp://192\.0\.2\.7:"):
        small(processes=processes, host="192.0.2.7")


def test_too_little_time_is_an_error_and_leaves_nothing() -> None:
    with pytest.raises(HoldfastError, match=r"was not ready after"):
        small(timeout=0.05)
    with pytest.raises(TimeoutError, match="the cluster was not ready after 1e-06 s"):
        small(processes=False, timeout=1e-6)


# -- ending


def test_garbage_is_closed() -> None:
    cluster = small()
    pid = cluster.scheduler_pid
    del cluster
    gc.collect()
    assert not psutil.pid_exists(pid)


def test_garbage_in_this_process_is_closed() -> None:
    cluster = weakref.ref(small(processes=False))
    gc.collect()
    assert cluster() is None


@pytest.mark.parametrize("processes", [True, False])
def test_the_end_of_a_script_closes_it(processes: bool) -> None:
    script = """
        import sys
        from holdfast import LocalCluster
        if __name__ == "__main__":
            cluster = LocalCluster(1, 1, sys.argv[1] == "True", object_store_memory="64MB")
    """
    finish(run_script(script, str(processes)))


def test_what_blocks_is_called_when_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is at the end of the interpreter, since Python 3.12."""
    executor = LastingExecutor()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", raising(RuntimeError("can't create new thread")))
        futures = [executor.submit(pow, 2, exponent) for exponent in range(3)]
        assert [future.result(30) for future in futures] == [1, 2, 4]
    executor.shutdown()


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_a_fork_does_not_close_it() -> None:
    script = """
        import os, sys
        from holdfast import LocalCluster
        cluster = LocalCluster(1, 1, object_store_memory="64MB")
        if os.fork() == 0:
            cluster.close()
            sys.exit()  # runs what is registered for the end
        os.wait()
        assert len(cluster.describe()["nodes"]) == 1
        cluster.close()
    """
    finish(run_script(script))


def test_a_child_of_multiprocessing_does_not_close_it() -> None:
    script = """
        import multiprocessing
        from holdfast import LocalCluster
        if __name__ == "__main__":
            cluster = LocalCluster(1, 1, object_store_memory="64MB")
            child = multiprocessing.get_context("fork").Process(target=repr, args=(cluster,))
            child.start(); child.join()
            assert child.exitcode == 0
            assert len(cluster.describe()["nodes"]) == 1
    """
    finish(run_script(script))


# -- kill -9


@pytest.fixture
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a scheduler dies, the cluster ends."""
    monkeypatch.setenv(SCHEDULER_TIMEOUT_VARIABLE, "0")


@pytest.mark.usefixtures("nobody_waits")
def test_killing_a_scheduler_that_nobody_waits_for_leaves_nothing() -> None:
    with small() as cluster:
        os.kill(cluster.scheduler_pid, signal.SIGKILL)
        with pytest.raises(ConnectError):
            cluster.describe()


def kill_agent(cluster: LocalCluster, index: int = 0) -> str:
    """Kill a host's node agent; returns the host's address, which no other will have."""
    node = cluster.nodes[index]
    os.kill(node["pid"], signal.SIGKILL)
    return str(node["address"])


def hosts_without(cluster: LocalCluster, gone: str) -> list[dict[str, Any]]:
    """The hosts of a cluster by its status, once one has gone; those that have workers."""
    nodes = cluster.describe()["nodes"]
    return [] if gone in nodes else [node for node in nodes.values() if node["workers"]]


def test_a_killed_node_agent_is_started_again_and_its_tasks_are_made_again(eventually: Any) -> None:
    with small(2) as cluster, cluster.get_client() as client:
        made = client.map(np.full, [100_000] * 4, range(4), pure=False)
        only_there = client.scatter(np.arange(100_000), hash=False)
        sums = client.map(np.sum, made)
        before = client.gather(made)
        assert client.gather(sums) == [0, 100_000, 200_000, 300_000]
        gone = kill_agent(cluster)
        assert [int(array.sum()) for array in client.gather(made)] == [0, 100_000, 200_000, 300_000]
        eventually(lambda: only_there.status == "error", 30, "the client hears what is lost")
        with pytest.raises(ObjectLostError, match=re.escape(only_there.key)):
            only_there.result()
        with pytest.raises(ObjectLostError, match=re.escape(only_there.key)):
            client.submit(np.sum, only_there).result()
        # What was read from the store that is gone is still there, and the client has attached to the new one.
        assert [int(array.sum()) for array in before] == [0, 100_000, 200_000, 300_000]
        data = np.arange(200_000)
        again = client.scatter(data, hash=False)
        assert client.submit(np.array_equal, again, data).result()
        (value,) = client.gather([again])
        assert np.array_equal(value, data)
        assert client.store.address_in_arena(value.__array_interface__["data"][0])
        (node,) = eventually(lambda: cluster.nodes, 30, "it says that it is ready")
        assert node["address"] != gone
        (host,) = hosts_without(cluster, gone)
        assert (host["deaths"], host["last_death"]) == (1, "was killed by SIGKILL")
        client.wait_for_workers(2, timeout=30)
        assert cluster.describe()["restarting"] == []
        assert repr(cluster).endswith("workers=2, threads=2)")


def test_each_of_several_hosts_is_started_again(eventually: Any) -> None:
    with small(2, n_hosts=2, name="pair") as cluster, cluster.get_client() as client:
        kept = client.submit(np.ones, 100_000, workers=[cluster.nodes[1]["address"]])
        assert kept.result().sum() == 100_000
        gone = kill_agent(cluster)
        eventually(lambda: len(hosts_without(cluster, gone)) == 2, 30, "both are there")
        assert {node["hostname"]: node["deaths"] for node in cluster.describe()["nodes"].values()} == {
            "pair-0": 1,
            "pair-1": 0,
        }
        # A host's name is that of the new one.
        assert client.submit(abs, -1, workers=["pair-0"]).result() == 1
        assert kept.result().sum() == 100_000


def test_an_agent_that_cannot_start_is_tried_again_until_it_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(restarts, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(restarts, "MAX_PAUSE_SECONDS", 0.3)
    spill = tmp_path / "spill"
    with small(spill_directory=spill) as cluster:
        shutil.rmtree(spill, ignore_errors=True)
        spill.write_text("no store can have its directory here")
        gone = kill_agent(cluster)

        def away() -> dict[str, Any]:
            places = cluster.describe()["restarting"]
            return places[0] if places else {}

        eventually(lambda: away().get("deaths", 0) >= 3, 30, "it was tried more than once")
        assert "could not start" in away()["last_death"]
        assert "node-0 could not start" in repr(cluster)
        (entry,) = run_directory.running("local")
        assert entry["restarting"][0]["deaths"] >= 3
        spill.unlink()
        (host,) = eventually(lambda: hosts_without(cluster, gone), 30, "it is there again")
        assert host["deaths"] >= 3
    assert "starting it again in" in caplog.text


@pytest.mark.parametrize("moment", ["pause", "start"])
def test_closing_while_an_agent_is_started_again_leaves_nothing(
    moment: str, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    if moment == "pause":
        monkeypatch.setattr(restarts, "FIRST_PAUSE_SECONDS", 600.0)
        monkeypatch.setattr(restarts, "MAX_PAUSE_SECONDS", 600.0)
    with small(2, n_hosts=2) as cluster:
        (fork_server,) = processes("processes.fork_server")
        if moment == "start":
            fork_server.suspend()  # it forks nothing, and says nothing
        kill_agent(cluster)
        state = {"pause": "down", "start": "starting"}[moment]
        eventually(lambda: [each["state"] for each in cluster.describe()["restarting"]] == [state])
    assert processes("node") == []


def test_without_its_launcher_an_agent_is_started_again_too(eventually: Any) -> None:
    with small() as cluster:
        processes("processes.fork_server")[0].kill()
        gone = kill_agent(cluster)
        eventually(lambda: hosts_without(cluster, gone), 30, "it is there again")


@pytest.mark.usefixtures("nobody_waits")
def test_when_the_scheduler_has_died_no_agent_is_started_any_more(eventually: Any) -> None:
    with small() as cluster:
        os.kill(cluster.scheduler_pid, signal.SIGKILL)
        eventually(lambda: "scheduler" in repr(cluster), what="it is known")
        os.kill(cluster.nodes[0]["pid"], signal.SIGKILL) if cluster.nodes else None
        eventually(lambda: not processes("node"), what="the agent ends")
        assert "scheduler" in repr(cluster)


def test_an_agent_that_was_told_to_close_is_not_started_again(eventually: Any) -> None:
    with small(2, n_hosts=2) as cluster:
        node = cluster.nodes[0]
        os.kill(node["pid"], signal.SIGTERM)
        eventually(lambda: len(cluster.nodes) == 1, what="it has left")
        assert cluster.describe()["restarting"] == []
        assert len(hosts_without(cluster, node["address"])) == 1
        assert "node-0 exited with code 0" in repr(cluster)


def test_killing_a_worker_leaves_nothing(eventually: Any) -> None:
    with small() as cluster:
        (worker,) = processes("worker")
        worker.kill()
        eventually(lambda: _has_new_worker(cluster, worker), what="there is another one")


def _has_new_worker(cluster: LocalCluster, old: psutil.Process) -> bool:
    return old not in processes("worker") and len(workers(cluster)) == 1


def test_killing_the_launcher_leaves_a_cluster_that_works(eventually: Any) -> None:
    with small() as cluster:
        (fork_server,), (worker,) = processes("processes.fork_server"), processes("worker")
        fork_server.kill()
        assert len(workers(cluster)) == 1
        worker.kill()
        agent = psutil.Process(cluster.nodes[0]["pid"])
        eventually(lambda: len(agent.children(recursive=True)) == 2, what="another fork server has forked a worker")
        eventually(lambda: len(workers(cluster)) == 1, what="it is a worker of the cluster")


def test_what_stands_still_when_the_launcher_dies_goes_on(eventually: Any) -> None:
    with small() as cluster:
        (fork_server,), (worker,) = processes("processes.fork_server"), processes("worker")
        those = [psutil.Process(cluster.scheduler_pid), psutil.Process(cluster.nodes[0]["pid"]), worker]
        for process in those:
            process.suspend()
        fork_server.kill()
        eventually(lambda: all(process.ppid() != fork_server.pid for process in those), what="they are orphans")
        for process in those:
            process.resume()
        assert len(workers(cluster)) == 1
        assert all(process.is_running() for process in those)


def test_killing_all_of_it_leaves_nothing() -> None:
    with small() as cluster:
        pids = [cluster.scheduler_pid, *(node["pid"] for node in cluster.nodes)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


OWNER = """
    import time
    from holdfast import LocalCluster
    cluster = LocalCluster(2, 1, n_hosts=2, object_store_memory="64MB")
    print(cluster.scheduler_pid, *(node["pid"] for node in cluster.nodes), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killing_its_owner_leaves_nothing(number: signal.Signals, eventually: Any) -> None:
    owner = run_script(OWNER)
    assert owner.stdout is not None
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(pids) == 3
    descendants = psutil.Process(owner.pid).children(recursive=True)
    assert len(descendants) == 8  # with a page maker for each host
    owner.send_signal(number)
    owner.communicate(timeout=30)
    eventually(lambda: not any(each.is_running() for each in descendants), what="its processes end")
    eventually(lambda: not list(run_directory.run_root().iterdir()), what="its run directories are gone")


def test_killing_the_owner_while_it_starts_leaves_nothing(eventually: Any) -> None:
    owner = run_script("from holdfast import LocalCluster\nLocalCluster(2, 1, object_store_memory='64MB')\n")
    process = psutil.Process(owner.pid)
    eventually(lambda: len(process.children(recursive=True)) >= 2, what="it has begun")
    descendants = process.children(recursive=True)
    owner.kill()
    owner.communicate(timeout=30)
    eventually(lambda: not any(each.is_running() for each in descendants), what="its processes end")
    run_directory.sweep()


def test_a_cluster_that_others_can_reach_warns() -> None:
    with pytest.warns(UserWarning, match="can read what this cluster sends"):
        small(processes=False, host="0.0.0.0").close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(processes=False).close()
