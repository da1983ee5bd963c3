"""``holdfast datasets``, and durable datasets over ``holdfast stop`` and ``start``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from holdfast import Client, LocalCluster
from holdfast.cluster.cli import main
from holdfast.objectstore.durable.catalogue import Catalogue
from holdfast.objectstore.durable.objects import name_of
from holdfast.objectstore.durable.opening import open_place
from holdfast.objectstore.durable.place import NewFile
from holdfast.objectstore.durable.sweeping import Process, enter_writer


def run(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["datasets", *arguments])
    assert done.exit_code == code, done.output
    return done


def small_cluster(place: str) -> LocalCluster:
    return LocalCluster(1, 1, processes=False, durable=place, object_store_memory="64 MiB")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    place = tmp_path_factory.mktemp("place")
    with LocalCluster(1, 1, durable=place, object_store_memory="64 MiB") as cluster:
        yield cluster


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A place with two datasets."""
    where = str(tmp_path / "place")
    with small_cluster(where) as cluster, Client(cluster, set_as_default=False) as client:
        client.publish_dataset(flights=np.arange(10_000), words=["a", "b"], durable=True)
    return where


def test_those_of_a_cluster_are_listed_and_described(cluster: LocalCluster) -> None:
    with Client(cluster, set_as_default=False) as client:
        client.publish_dataset(flights=np.arange(10_000), durable=True)
        client.publish_dataset(here=[1, 2])
    shown = run("list", "--address", cluster.scheduler_address).output
    assert "2 datasets, 80.2 kB" in shown
    assert "flights" in shown
    assert "numpy.ndarray" in shown
    listed = json.loads(run("list", "--json", "--address", cluster.scheduler_address).output)
    assert {entry["name"]: bool(entry["durable"]) for entry in listed} == {"flights": True, "here": False}
    described = json.loads(run("describe", "flights", "--json", "--address", cluster.scheduler_address).output)
    assert described["shape"] == [10_000]
    shown = run("describe", "flights", "--address", cluster.scheduler_address).output
    assert re.search(r"^type +numpy.ndarray$", shown, re.MULTILINE)
    assert re.search(r"^shape +10,000$", shown, re.MULTILINE)
    assert re.search(r"^made with +python 3.*numpy", shown, re.MULTILINE)
    done = run("describe", "nope", "--address", cluster.scheduler_address, code=1)
    assert "there is no dataset 'nope'; there are: flights, here" in done.output


def test_those_of_a_cluster_are_exported_and_removed(cluster: LocalCluster, tmp_path: Path) -> None:
    where = ("--address", cluster.scheduler_address)
    target = str(tmp_path / "target")
    with Client(cluster, set_as_default=False) as client:
        client.publish_dataset(kept=np.arange(10_000), durable=tmp_path / "place")
        client.publish_dataset([1], name=("not", "durable"))
        assert "Copied kept" in run("export", "kept", target, *where).output
        assert client.get_dataset("kept", durable=target).sum() == 49_995_000
        done = run("export", "('not', 'durable')", target, *where, code=1)
        assert "is not durable" in done.output
        assert f"from the cluster, and from {tmp_path / 'place'}" in run("remove", "kept", *where).output
        run("remove", "('not', 'durable')", *where)
        assert not {"kept", ("not", "durable")} & set(client.list_datasets())
        assert client.list_datasets(durable=tmp_path / "place") == ()


def test_without_a_cluster_it_says_that_a_place_needs_none(runtime_directory: Path) -> None:
    for command in (["list"], ["describe", "x"], ["export", "x", "/nowhere"], ["remove", "x"]):
        done = run(*command, code=1)
        assert "'holdfast start --head' starts one" in done.output
        assert "--place" in done.output


def test_those_of_a_place_need_no_cluster(place: str) -> None:
    listed = json.loads(run("list", "--json", "--place", place).output)
    assert [(entry["name"], entry["durable"]) for entry in listed] == [("flights", place), ("words", place)]
    assert "numpy.ndarray" in run("list", "--place", place).output
    assert json.loads(run("describe", "words", "--json", "--place", place).output)["length"] == 2


def test_one_is_exported_and_is_there(place: str, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    assert "Copied flights" in run("export", "flights", target, "--place", place).output
    run("export", "flights", target, "--place", place)
    with small_cluster(target) as cluster, Client(cluster, set_as_default=False) as client:
        assert client.list_datasets() == ("flights",)
        assert client.get_dataset("flights").sum() == 49_995_000


def test_a_damaged_one_is_not_exported(place: str, tmp_path: Path) -> None:
    opened = open_place(place)
    catalogue = Catalogue(opened)
    found = catalogue.find("flights")
    assert found is not None
    entry = max(catalogue.entries(found.dataset), key=lambda entry: entry.nbytes)
    opened.put([NewFile(name_of(entry.digest), [bytes(entry.nbytes)])])
    assert "damaged" in run("export", "flights", str(tmp_path / "target"), "--place", place, code=1).output
    assert Catalogue(open_place(str(tmp_path / "target"))).datasets() == []


def test_one_is_removed_with_its_files(place: str) -> None:
    before = len(open_place(place).names("objects"))
    shown = run("remove", "flights", "--place", place).output
    assert "Removed flights" in shown
    assert "Deleted" in shown
    assert len(open_place(place).names("objects")) < before
    assert [entry["name"] for entry in json.loads(run("list", "--json", "--place", place).output)] == ["words"]
    assert "there are: words" in run("remove", "flights", "--place", place, code=1).output


def test_a_publication_that_is_under_way_is_named(place: str) -> None:
    enter_writer(open_place(place), "f" * 32, Process("another kernel", 7, 7, "far-away", "she"))
    shown = run("sweep", "--place", place).output
    assert "she on far-away" in shown
    assert "f" * 32 in shown
    assert "Deleted" in run("sweep", "--abandon", "f" * 32, "--place", place).output


def test_what_is_no_place(tmp_path: Path) -> None:
    assert "is no place" in run("list", "--place", str(tmp_path), code=1).output


def holdfast(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_is_durable_is_there_after_stop_and_start(tmp_path: Path) -> None:
    start = ("start", "--head", "--port", "0", "--workers", "1", "--durable", str(tmp_path / "place"))
    address = next(word for word in holdfast(*start).split() if word.startswith("tcp://")).rstrip(":")
    with Client(address, set_as_default=False) as client:
        client.publish_dataset(flights=client.submit(np.arange, 1000), durable=True)
    holdfast("stop")
    address = next(word for word in holdfast(*start).split() if word.startswith("tcp://")).rstrip(":")
    try:
        with Client(address, set_as_default=False) as client:
            assert client.list_datasets() == ("flights",)
            assert client.get_dataset("flights").result().sum() == 499_500
    finally:
        holdfast("stop")
