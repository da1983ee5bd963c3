"""What the processes of a cluster import when they start: not what they need later, or never."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from holdfast import LocalCluster

#: What takes long to import, and what each process starts without.
HEAVY = ("dask", "tornado", "bokeh", "distributed", "pandas", "xarray", "IPython", "numpy", "pyarrow", "uuid", "yaml")


def imported(statement: str) -> set[str]:
    """Of the heavy ones, those that a statement imports in a fresh interpreter; and all of ours."""
    script = f"import json, sys\n{statement}\nprint(json.dumps(list(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    modules = set(json.loads(result.stdout))
    return {name for name in modules if name in HEAVY or name.startswith("holdfast.")}


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import holdfast", set()),
        ("from holdfast import LocalCluster", set()),
        ("import holdfast.cluster.processes.fork_server", set()),
        ("import holdfast.cluster.scheduler.__main__", {"uuid"}),
        ("import holdfast.cluster.scheduler.io.process", {"uuid"}),
        ("import holdfast.cluster.node.__main__", {"uuid"}),
        ("import holdfast.cluster.worker.__main__", {"numpy", "pyarrow", "uuid"}),
    ],
)
def test_a_process_starts_without_what_it_does_not_need(statement: str, allowed: set[str]) -> None:
    heavy = {name for name in imported(statement) if name in HEAVY}
    assert heavy <= allowed


def test_a_cluster_is_made_without_what_scales_or_shows_it() -> None:
    ours = imported("from holdfast import LocalCluster")
    assert ours.isdisjoint(
        {
            "holdfast.cluster.deploy.adaptive",
            "holdfast.cluster.deploy.in_process",
            "holdfast.cluster.deploy.scheduler_comm",
            "holdfast.cluster.deploy.scheduler_file",
            "holdfast.cluster.node",
            "holdfast.cluster.scheduler",
            "holdfast.cluster.worker",
        }
    )


def test_what_only_the_scheduler_needs_is_not_imported_for_all() -> None:
    assert not {name for name in imported("import holdfast.cluster.scheduler.__main__") if "scheduler.parts" in name}


def test_no_process_is_started_before_it_is_needed() -> None:
    with LocalCluster(1, 1, object_store_memory="64MB") as cluster:
        assert sorted(_modules_of(cluster)) == ["fork_server", "node", "page_maker", "scheduler", "worker"]


def _modules_of(cluster: Any) -> list[str]:
    """The modules that the processes of a cluster run."""
    mark = f"HOLDFAST_CLUSTER_ID={cluster._parts.id}".encode()
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ, open(f"/proc/{pid}/cmdline", "rb") as command:
                words = command.read().replace(b"\0", b" ").split()
                if mark in environ.read().split(b"\0") and b"-m" in words:
                    found.append(words[words.index(b"-m") + 1].decode().rpartition(".")[2])
        except OSError:
            continue
    return found
