"""What docstrings show works as it is shown, and every public name has a docstring.

The examples of all modules run. Those of the client, of plugins and of reports find a cluster's ``client``, those of
``deploy`` a ``cluster`` with two workers, those of the store a ``store`` and its ``server``, and all the modules that
users import: ``np``, ``pd``, ``pa``, ``da``, ``dd`` and ``dask``.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import holdfast
from holdfast import client as client_package
from holdfast import objectstore
from holdfast.cluster.cli import main as command_line
from tests.support.waiting import until

REPOSITORY = Path(__file__).parent.parent
ROOMS = ("client", "cluster", "objectstore")
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> Iterator[str]:
    """Every module of the package that can be imported without starting something, and of the benchmarks."""
    for place, prefix in [*((room, "holdfast.") for room in ROOMS), ("benchmarks", "")]:
        for path in sorted((REPOSITORY / place).rglob("*.py")):
            if path.name != "__main__.py" and ">>> " in path.read_text():
                yield prefix + ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def examples() -> Iterator[Any]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in modules():
        for found in finder.find(importlib.import_module(name), name):
            if found.examples:
                yield pytest.param(found, id=found.name.removeprefix("holdfast."))


EXAMPLES = list(examples())


@pytest.fixture(scope="module")
def cluster() -> Iterator[holdfast.LocalCluster]:
    with holdfast.LocalCluster(n_workers=2, threads_per_worker=1, object_store_memory="128 MiB") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def in_process() -> Iterator[holdfast.LocalCluster]:
    """A cluster for examples that make it larger and smaller, which takes no time here."""
    with holdfast.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, object_store_memory="64 MiB"
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def server() -> Iterator[objectstore.StoreServer]:
    with objectstore.StoreServer("64 MiB") as server:
        yield server


@pytest.fixture
def names(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What an example finds beside the names of its own module."""
    example: doctest.DocTest = request.getfixturevalue("example")
    given: dict[str, Any] = {"np": np, "pd": pd, "pa": pa, "da": da, "dd": dd, "dask": dask}
    if example.name.startswith(("holdfast.client", "holdfast.cluster.plugins", "holdfast.cluster.reports")):
        with holdfast.Client(request.getfixturevalue("cluster")) as client:
            for name in client.list_datasets():
                client.unpublish_dataset(name)
            yield {**given, "client": client, "Client": holdfast.Client}
    elif example.name.startswith("holdfast.cluster.deploy"):
        cluster: holdfast.LocalCluster = request.getfixturevalue("in_process")
        until(lambda: cluster.observed == cluster.plan, "those that the last example asked for have come or gone")
        cluster.scale(2)
        until(lambda: cluster.observed == cluster.plan, "it has two workers")
        yield {**given, "cluster": cluster}
    elif example.name.startswith(("holdfast.objectstore.client", "holdfast.objectstore.server")):
        server: objectstore.StoreServer = request.getfixturevalue("server")
        with objectstore.connect(server.socket_path) as store:
            yield {**given, "server": server, "store": store, "connect": objectstore.connect}
    else:
        yield given


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_run_as_they_are_shown(example: doctest.DocTest, names: dict[str, Any]) -> None:
    said: list[str] = []
    example = doctest.DocTest(
        example.examples, {**example.globs, **names}, example.name, example.filename, example.lineno, example.docstring
    )
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(example, out=said.append)
    assert result.failed == 0, "".join(said)
    assert not [each.source for each in example.examples if doctest.SKIP in each.options]


# -- public names

PUBLIC_CLASSES: list[type] = [
    holdfast.Client,
    holdfast.Future,
    holdfast.LocalCluster,
    objectstore.Store,
    objectstore.StoreServer,
]
MEMBERS = (property, staticmethod, classmethod)
WITH_EXAMPLES = (holdfast.Client, holdfast.Future)


def exported() -> Iterator[tuple[str, Any]]:
    for package in (holdfast, objectstore, client_package):
        for name in package.__all__:
            if not name.startswith("__"):
                yield f"{package.__name__}.{name}", getattr(package, name)


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class; of its bases those that are ours."""
    found = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("holdfast."):
            found |= vars(base)
    for name, member in found.items():
        if not name.startswith("_") and (isinstance(member, MEMBERS) or callable(member)):
            yield f"{kind.__name__}.{name}", member


def commands(group: click.Command, path: str = "holdfast") -> Iterator[tuple[str, click.Command]]:
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{path} {name}")


def test_what_is_exported_has_a_docstring() -> None:
    assert [name for name, value in exported() if not is_constant(value) and not own_docstring(value)] == []


def is_constant(value: Any) -> bool:
    return not isinstance(value, ModuleType) and not callable(value)


def own_docstring(value: Any) -> str:
    """Not what a class inherits, which says nothing of it."""
    return (vars(value).get("__doc__") if isinstance(value, type) else inspect.getdoc(value)) or ""


def test_methods_of_public_classes_have_a_docstring() -> None:
    assert [name for kind in PUBLIC_CLASSES for name, member in members(kind) if not inspect.getdoc(member)] == []


def test_methods_of_client_and_future_have_an_example() -> None:
    found = [(name, inspect.getdoc(member) or "") for kind in WITH_EXAMPLES for name, member in members(kind)]
    assert [name for name, text in found if ">>> " not in text] == []


def test_commands_and_their_options_are_explained() -> None:
    assert isinstance(command_line, click.Group)
    missing = []
    for path, command in commands(command_line):
        missing += [] if command.help else [path]
        options = [each for each in command.params if isinstance(each, click.Option)]
        missing += [f"{path} {each.opts[0]}" for each in options if not each.help]
    assert missing == []
