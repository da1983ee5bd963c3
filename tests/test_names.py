"""The names that `import` statements of dask's users ask for: each is there, or the error says what to do instead."""

from __future__ import annotations

import importlib

import pytest

import holdfast
from holdfast.cluster.instead import INSTEAD

DASKS = [
    "Actor",
    "ActorFuture",
    "Adaptive",
    "BaseActor",
    "CancelledError",
    "Client",
    "CompatibleExecutor",
    "CondaInstall",
    "Environ",
    "Event",
    "Executor",
    "ForwardLoggingPlugin",
    "Future",
    "KilledWorker",
    "LocalCluster",
    "Lock",
    "MultiLock",
    "Nanny",
    "NannyPlugin",
    "PipInstall",
    "Pub",
    "Queue",
    "Reschedule",
    "SSHCluster",
    "Scheduler",
    "SchedulerPlugin",
    "Security",
    "Semaphore",
    "SpecCluster",
    "Status",
    "Sub",
    "TimeoutError",
    "UploadDirectory",
    "UploadFile",
    "Variable",
    "Worker",
    "WorkerPlugin",
    "as_completed",
    "collections_to_dsk",
    "connect",
    "default_client",
    "fire_and_forget",
    "futures_of",
    "get_client",
    "get_task_metadata",
    "get_task_stream",
    "get_versions",
    "get_worker",
    "local_client",
    "performance_report",
    "print",
    "progress",
    "rejoin",
    "rpc",
    "secede",
    "span",
    "wait",
    "warn",
    "worker_client",
]


@pytest.mark.parametrize("name", [name for name in DASKS if name in dir(holdfast)])
def test_an_import_gives_the_name(name):
    exec(f"from holdfast import {name}", {})


@pytest.mark.parametrize("name", sorted({*DASKS, *INSTEAD["holdfast"]} - {*dir(holdfast)}))
def test_an_import_says_what_to_do(name):
    with pytest.raises(ImportError, match=rf"holdfast has no {name}: .{{30,}}") as caught:
        exec(f"from holdfast import {name}", {})
    assert caught.value.name == name


def test_what_is_there_is_not_said_to_be_missing():
    assert not {*INSTEAD["holdfast"]} & {*dir(holdfast)}


def test_attributes_that_are_not_there_can_be_looked_for():
    assert not hasattr(holdfast, "SSHCluster")
    assert getattr(holdfast, "nothing_of_this_name", None) is None
    with pytest.raises(AttributeError, match=r"holdfast has no SSHCluster: 'holdfast start --head' on one host"):
        _ = holdfast.SSHCluster
    with pytest.raises(ImportError, match="cannot import name 'nothing_of_this_name'"):
        exec("from holdfast import nothing_of_this_name", {})


def test_the_timeout_error_is_pythons():
    assert importlib.import_module("holdfast").TimeoutError is TimeoutError
