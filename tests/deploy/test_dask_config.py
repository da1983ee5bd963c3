"""Workers have what the process that makes their cluster has set of dask's configuration."""

from __future__ import annotations

import datetime
import operator
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import pytest

from holdfast import Client, LocalCluster
from holdfast.cluster import dask_config
from holdfast.cluster.worker import dask_scheduler

SECRET = "hunter2-of-the-workers"


def _config(name: str) -> Any:
    import dask

    return dask.config.get(name, "unset")


def test_workers_have_it_also_those_that_are_started_again(eventually: Callable[..., Any]) -> None:
    chosen = {
        "array.chunk-size": "3MiB",
        "mine.token": SECRET,
        "mine.day": datetime.date(2021, 2, 3),
        "mine.function": operator.neg,
        "mine.lock": threading.Lock(),
        "scheduler": "sync",
        "scheduler-address": "192.0.2.1:1",
    }
    with dask.config.set(chosen):
        cluster = LocalCluster(1, 1, object_store_memory="64 MB")
    with cluster, Client(cluster, set_as_default=False) as client:
        _check(client)
        (node,) = cluster.nodes
        for name in ("environ", "cmdline"):
            for pid in (node["pid"], client.submit(os.getpid, pure=False).result(timeout=60)):
                assert SECRET.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
        os.kill(node["pid"], signal.SIGKILL)
        eventually(lambda: cluster.nodes and cluster.nodes[0]["pid"] != node["pid"], 60, "the agent runs again")
        _check(client)


def _check(client: Client) -> None:
    names = ["array.chunk-size", "mine.token", "mine.day", "mine.lock", "scheduler", "scheduler-address"]
    futures = client.map(_config, names, pure=False)
    assert [future.result(timeout=60) for future in futures] == [
        "3MiB", SECRET, datetime.date(2021, 2, 3), "unset", dask_scheduler.get, "unset",
    ]  # fmt: skip
    assert client.submit(_config, "mine.function", pure=False).result(timeout=60)(4) == -4


def test_where_nothing_was_set_nothing_is_imported_for_it() -> None:
    assert dask_config.what_was_set() == b""
    with LocalCluster(1, 1, object_store_memory="64 MB") as cluster, Client(cluster, set_as_default=False) as client:
        assert client.submit(eval, "'dask' in __import__('sys').modules").result(timeout=60) is False


def test_it_has_a_limit() -> None:
    refused = pytest.raises(ValueError, match=r"takes 1,0\d\d,\d{3} bytes, and workers can be given 1,048,576")
    with dask.config.set({"mine.table": os.urandom(dask_config.MAX_NBYTES + 1)}), refused:
        LocalCluster(1, 1, object_store_memory="64 MB")


def test_what_can_not_be_read_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    import pickle

    data = pickle.dumps([(("a", "b"), b"nonsense"), (("a", "c"), pickle.dumps(3))])
    with dask.config.set({"a": {}}):
        dask_config.take_over(data)
        assert dask.config.get("a") == {"c": 3}
    assert "'a.b' of dask's configuration can't be read here" in caplog.text
