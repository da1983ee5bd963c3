"""`LocalCluster`, with real processes. That nothing stays behind is checked after each test (see conftest)."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from holdfast import AuthenticationError, ConnectError, HoldfastError, LocalCluster
from holdfast.cluster import rundir
from holdfast.cluster.deploy.ask import ask

SMALL = {"object_store_memory": "64MB"}


def small(n_workers: int = 1, **options: Any) -> LocalCluster:
    return LocalCluster(n_workers, 1, **{**SMALL, **options})


def workers(cluster: LocalCluster) -> list[str]:
    return [worker for node in cluster.status()["nodes"].values() for worker in node["workers"]]


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
        status = cluster.status()
        assert status["scheduler"]["address"] == cluster.scheduler_address
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
        cluster.status()


def test_its_processes_are_shown_as_what_they_are_and_only_workers_load_numpy() -> None:
    with small(2):
        assert [len(processes(module)) for module in ("launcher", "scheduler", "node", "worker")] == [1, 1, 1, 2]
        assert {"numpy", "pyarrow"} & _libraries(*processes("scheduler"), *processes("node")) == set()
        assert {"numpy", "pyarrow"} <= _libraries(*processes("worker"))


def _libraries(*processes: psutil.Process) -> set[str]:
    """The packages whose shared libraries these processes have loaded."""
    paths = [Path(mapped.path) for process in processes for mapped in process.memory_maps()]
    return {part for path in paths if ".so" in path.name for part in path.parts}


def test_two_hosts_have_stores_of_their_own() -> None:
    with small(3, n_hosts=2, name="pair") as cluster:
        nodes = cluster.status()["nodes"]
        assert sorted(len(node["workers"]) for node in nodes.values()) == [1, 2]
        assert sorted(node["hostname"] for node in nodes.values()) == ["pair-0", "pair-1"]
        assert len({node["pid"] for node in nodes.values()}) == 2
        assert repr(cluster).endswith("workers=3, threads=3, hosts=2)")


@pytest.mark.parametrize("n_hosts", [1, 2])
def test_without_processes_all_is_in_this_one(n_hosts: int) -> None:
    with LocalCluster(2, 1, processes=False, n_hosts=n_hosts, **SMALL) as cluster:
        assert len(workers(cluster)) == 2
        assert len(cluster.status()["nodes"]) == n_hosts
        assert cluster.scheduler_pid == os.getpid()
        assert psutil.Process().children() == []


def test_it_logs_where_it_is_told_to(tmp_path: Path) -> None:
    with small(log_directory=tmp_path / "logs", silence_logs=0) as cluster, cluster.get_client() as client:
        client.submit(print, "a task says so", flush=True).result()
    assert {path.name for path in (tmp_path / "logs").iterdir()} >= {"scheduler.log", "node-0.log"}
    assert "listens on" in (tmp_path / "logs" / "scheduler.log").read_text()
    assert "a task says so" in (tmp_path / "logs" / "node-0.log").read_text()
    assert (tmp_path / "logs" / "launcher.log").read_text() == ""


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
        ask(cluster.scheduler_address, "status", token=b"x" * 32)


def test_arguments_are_checked_before_anything_starts() -> None:
    with pytest.raises(ValueError, match="n_workers must be from 1"):
        LocalCluster(0)
    with pytest.raises(ValueError, match="scheduler_port must be from 0"):
        LocalCluster(1, scheduler_port=70000)
    with pytest.raises(ValueError, match="n_hosts=2 hosts need a worker each"):
        LocalCluster(1, n_hosts=2)


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
    small(processes=False)
    gc.collect()


@pytest.mark.parametrize("processes", [True, False])
def test_the_end_of_a_script_closes_it(processes: bool) -> None:
    script = """
        import sys
        from holdfast import LocalCluster
        if __name__ == "__main__":
            cluster = LocalCluster(1, 1, sys.argv[1] == "True", object_store_memory="64MB")
    """
    finish(run_script(script, str(processes)))


def test_a_fork_does_not_close_it() -> None:
    script = """
        import os, sys
        from holdfast import LocalCluster
        cluster = LocalCluster(1, 1, object_store_memory="64MB")
        if os.fork() == 0:
            cluster.close()
            sys.exit()  # runs what is registered for the end
        os.wait()
        assert len(cluster.status()["nodes"]) == 1
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
            assert len(cluster.status()["nodes"]) == 1
    """
    finish(run_script(script))


# -- kill -9


def test_killing_the_scheduler_leaves_nothing() -> None:
    with small() as cluster:
        os.kill(cluster.scheduler_pid, signal.SIGKILL)
        with pytest.raises(ConnectError):
            cluster.status()


def test_killing_a_node_agent_leaves_nothing(eventually: Any) -> None:
    with small(2, n_hosts=2) as cluster:
        os.kill(cluster.nodes[0]["pid"], signal.SIGKILL)
        eventually(lambda: len(cluster.status()["nodes"]) == 1, what="the scheduler sees it")
        eventually(lambda: "was killed by SIGKILL" in repr(cluster), what="its repr says so")


def test_killing_a_worker_leaves_nothing(eventually: Any) -> None:
    with small() as cluster:
        (worker,) = processes("worker")
        worker.kill()
        eventually(lambda: _has_new_worker(cluster, worker), what="there is another one")


def _has_new_worker(cluster: LocalCluster, old: psutil.Process) -> bool:
    return old not in processes("worker") and len(workers(cluster)) == 1


def test_killing_the_launcher_leaves_a_cluster_that_works(eventually: Any) -> None:
    with small() as cluster:
        (launcher,), (worker,) = processes("launcher"), processes("worker")
        launcher.kill()
        assert len(workers(cluster)) == 1
        worker.kill()
        agent = psutil.Process(cluster.nodes[0]["pid"])
        eventually(lambda: len(agent.children(recursive=True)) == 2, what="another launcher has forked a worker")
        eventually(lambda: len(workers(cluster)) == 1, what="it is a worker of the cluster")


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
    eventually(lambda: not list(rundir.run_root().iterdir()), what="its run directories are gone")


def test_killing_the_owner_while_it_starts_leaves_nothing(eventually: Any) -> None:
    owner = run_script("from holdfast import LocalCluster\nLocalCluster(2, 1, object_store_memory='64MB')\n")
    process = psutil.Process(owner.pid)
    eventually(lambda: len(process.children(recursive=True)) >= 2, what="it has begun")
    descendants = process.children(recursive=True)
    owner.kill()
    owner.communicate(timeout=30)
    eventually(lambda: not any(each.is_running() for each in descendants), what="its processes end")
    rundir.sweep()
