"""What the options of a `LocalCluster` do, and those of its scheduler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast import Client, KilledWorker, LocalCluster, Nanny, NoWorkerError, Worker
from holdfast.cluster.deploy.options import environment_of, scheduler_options, works_in_processes
from holdfast.objectstore.errors import HoldfastError

SMALL = {"object_store_memory": "64MB"}


def small(n_workers: int = 1, **options: Any) -> LocalCluster:
    return LocalCluster(n_workers, 1, **{**SMALL, **options})


def state_of_worker() -> tuple[str | None, str | None]:
    return os.environ.get("COLOUR"), os.environ.get("PRELOADED")


def test_workers_have_an_environment_and_preloads_also_those_that_come_later(tmp_path: Path) -> None:
    first = tmp_path / "first.py"
    first.write_text("import os\ndef dask_setup(worker):\n    os.environ['PRELOADED'] = worker.name\n")
    with (
        small(env={"COLOUR": "red"}, preload=[str(first)], name="host") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.scale(2)
        cluster.wait_for_workers(2, timeout=30)
        for name in ("host-0", "host-1"):
            assert client.submit(state_of_worker, workers=[name], pure=False).result() == ("red", name)


def test_a_preload_that_fails_is_an_error_of_the_start() -> None:
    with pytest.raises(HoldfastError, match="the preload 'no_such_module' failed"):
        small(preload="no_such_module")


def test_the_scheduler_is_told_what_it_is_to_do(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    kwargs = {"allowed_failures": 0, "no_worker_timeout": 0.1, "scheduler_file": file, "blocked_handlers": ["who_has"]}
    with (
        small(scheduler_kwargs=kwargs, blocked_handlers=["ncores"]) as cluster,
        Client(scheduler_file=file, set_as_default=False) as client,
    ):
        assert json.loads(file.read_text())["address"] == cluster.scheduler_address
        with pytest.raises(PermissionError, match="blocked_handlers"):
            client.nthreads()
        with pytest.raises(PermissionError, match="blocked_handlers"):
            client.who_has()
        with pytest.raises(NoWorkerError):
            client.submit(abs, -1, workers=["nobody"]).result(timeout=30)
        with pytest.raises(KilledWorker, match="on 1 workers that died"):
            client.submit(os._exit, 1).result(timeout=30)
    assert not file.exists()


def test_the_same_in_this_process(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    kwargs = {"scheduler_file": file, "blocked_handlers": ["ncores"], "validate": True}
    with small(processes=False, scheduler_kwargs=kwargs), Client(scheduler_file=file, set_as_default=False) as client:
        assert client.submit(pow, 2, 5).result() == 32
        with pytest.raises(PermissionError, match="blocked_handlers"):
            client.nthreads()


def test_a_scheduler_file_that_can_not_be_written_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match="can't be written"):
        small(processes=False, scheduler_kwargs={"scheduler_file": tmp_path / "none" / "file"})


def test_an_interface_is_an_address() -> None:
    with small(0, processes=False, interface="lo") as cluster:
        assert cluster.scheduler_address.startswith("tcp://127.0.0.1:")
    with pytest.raises(TypeError, match="host or interface"):
        small(interface="lo", host="127.0.0.1")
    with pytest.raises(ValueError, match=r"there is no such interface with an address; there are .*lo"):
        small(interface="no-such-interface")


@pytest.mark.parametrize(
    ("options", "processes"),
    [
        ({}, True),
        ({"processes": None}, True),
        ({"processes": False}, False),
        ({"worker_class": Worker}, False),
        ({"worker_class": Nanny, "processes": False}, True),
        ({"worker_class": "holdfast.Worker"}, False),
        ({"protocol": "inproc://"}, False),
        ({"protocol": "tcp"}, True),
    ],
)
def test_what_says_whether_it_has_processes(options: dict[str, Any], processes: bool) -> None:
    given = {"processes": True, "worker_class": None, "protocol": None, **options}
    assert works_in_processes(**given) == processes


def test_other_classes_are_of_a_spec_cluster() -> None:
    class Mine(Worker):
        pass

    with pytest.raises(TypeError, match="SpecCluster takes others"):
        small(worker_class=Mine)


def test_encryption_is_a_warning_here_and_refused_beyond() -> None:
    with pytest.warns(UserWarning, match="nobody beyond this machine can reach"):
        small(0, processes=False, security=True).close()
    with pytest.raises(TypeError, match="can't be had for a cluster that others can reach"):
        small(host="0.0.0.0", security=True)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"allowed_failures": -1}, ValueError),
        ({"allowed_failures": True}, ValueError),
        ({"worker_ttl": 0}, ValueError),
        ({"blocked_handlers": "feed"}, TypeError),
        ({"blocked_handlers": [3]}, TypeError),
        ({"nonsense": 1}, TypeError),
    ],
)
def test_what_a_scheduler_can_not_be_told(given: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        scheduler_options(given, None)


def test_variables_that_can_not_be() -> None:
    for name in ("", "a=b", "a\0"):
        with pytest.raises(ValueError, match="can't be an environment variable"):
            environment_of({name: "x"})
    with pytest.raises(HoldfastError, match="at most 32,768 characters"):
        environment_of({"A": "x" * 40_000})
    with pytest.warns(UserWarning, match="env has no effect: the workers are parts of this process"):
        assert environment_of({"A": "x"}, processes=False) == {}


def test_its_logs_and_what_it_says_of_itself() -> None:
    with small() as cluster:
        (worker,) = cluster.scheduler_info["workers"]
        assert set(cluster.get_logs()) == {"Cluster", "Scheduler", worker}
        assert cluster.dashboard_link == ""
        assert cluster.scheduler == (cluster.scheduler_address, cluster.scheduler_pid)
        assert cluster.status == "running"
        assert cluster.sync(cluster.refresh) is None
        assert "running" in cluster._repr_html_()
    assert cluster.status == "closed"
    assert "closed" in cluster._repr_html_()


def test_making_a_cluster_imports_nothing_of_a_worker() -> None:
    code = "import sys; from holdfast import LocalCluster; print([n for n in sys.modules if '.cluster.worker' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
