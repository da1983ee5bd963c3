"""What tasks import, out of the garbage collector's sight: in processes of workers, since it can't be undone."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
from waiting import DEADLINE_SECONDS, until

from holdfast import Client, LocalCluster
from holdfast.cluster import protocol
from holdfast.cluster.worker.imports import MODULES_MIN


def import_all(folder, first, count):
    sys.path.insert(0, str(folder))
    try:
        for n in range(first, first + count):
            importlib.import_module(f"many_{n}")
    finally:
        sys.path.remove(str(folder))
    return gc.get_freeze_count()


def import_and_wait(folder, first, count, imported, release):
    before = import_all(folder, first, count)
    imported.touch()
    until(release.exists, "the other task is done")
    return before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in range(3 * MODULES_MIN):
        (tmp_path / f"many_{n}.py").write_text("LIST = [[1], [2]]\n")
    return tmp_path


def test_many_imports_are_frozen_once_no_task_runs(folder: Path) -> None:
    with LocalCluster(1, 2, object_store_memory="32 MiB") as cluster, Client(cluster) as client:

        def frozen() -> int:
            count: int = client.submit(gc.get_freeze_count, pure=False).result(DEADLINE_SECONDS)
            return count

        at_first = frozen()
        client.submit(import_all, folder, 0, 0).result(DEADLINE_SECONDS)
        until(lambda: frozen() > at_first, "what this file imports is frozen")
        before = frozen()
        client.submit(import_all, folder, 0, MODULES_MIN // 2).result(DEADLINE_SECONDS)
        imported, release = folder / "imported", folder / "release"
        waits = client.submit(import_and_wait, folder, MODULES_MIN, 2 * MODULES_MIN, imported, release)
        until(imported.exists, "it has imported them")
        assert frozen() < before + MODULES_MIN  # first too few were imported, and then it still runs
        release.touch()
        assert waits.result(DEADLINE_SECONDS) < before + MODULES_MIN
        until(lambda: frozen() > before + 2 * MODULES_MIN, "what was imported is frozen")


#: A package imports its module at its end, and the module takes something from the package first.
CIRCLE = {
    "__init__.py": """
import threading
FIRST, SECOND = threading.Event(), threading.Event()
FIRST.set()
SECOND.wait(0.3)  # for the thread that begins with the module
def double(x):
    return 2 * x
from circle.inner import triple
""",
    "inner.py": """
import circle
circle.SECOND.set()
circle.FIRST.wait(0.3)
from circle import double
def triple(x):
    return double(x) + x
""",
}


def test_first_tasks_that_import_in_two_threads_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "circle").mkdir()
    for name, text in CIRCLE.items():
        (tmp_path / "circle" / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(str(tmp_path))
    circle = importlib.import_module("circle")
    try:
        with LocalCluster(1, 2, object_store_memory="32 MiB") as cluster, Client(cluster) as client:
            futures = [client.submit(function, 1) for function in (circle.double, circle.triple)]
            assert client.gather(futures) == [2, 3]
    finally:
        for name in ("circle", "circle.inner"):
            del sys.modules[name]


#: As many modules keep the error of an optional import. It has the frames of all that were about to import the module.
KEEPS_AN_ERROR = """
try:
    import a_module_that_is_nowhere
except ImportError as error:
    kept = error
class Kept: pass
def first(values, *_):
    return int(values[0])
"""


def test_an_error_that_an_imported_module_keeps_keeps_no_data_of_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"keeps_an_error_{n}" for n in range(3)]
    for name in names:
        (tmp_path / f"{name}.py").write_text(KEEPS_AN_ERROR)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(str(tmp_path))
    in_call, in_graph, in_argument = map(importlib.import_module, names)
    try:
        with LocalCluster(1, 1, object_store_memory="32 MiB") as cluster, Client(cluster) as client:
            data = client.scatter(np.arange(100_000) + 7)

            def pins() -> int:
                return sum(
                    node["store"]["pins"] for node in client._request(protocol.requests.STATUS)["nodes"].values()
                )

            assert client.submit(in_call.first, data).result(DEADLINE_SECONDS) == 7
            assert client.compute(dask.delayed(in_graph.first)(data)).result(DEADLINE_SECONDS) == 7
            assert client.submit(lambda data, _: int(data[0]), data, in_argument.Kept()).result(DEADLINE_SECONDS) == 7
            until(lambda: not pins(), "no task holds it")
    finally:
        for name in names:
            del sys.modules[name]
