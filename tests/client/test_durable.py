"""Durable datasets: there again in another cluster, read in place, and whole or not at all whatever is killed."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray
from waiting import until

from holdfast import Client, DatasetExistsError, DatasetNotFoundError, DurableError, LocalCluster, ObjectLostError
from holdfast.client.packing.describing import Parts, describe, is_grave, lacking
from holdfast.cluster.processes import run_directory
from holdfast.objectstore.durable.catalogue import Catalogue
from holdfast.objectstore.durable.opening import open_place
from holdfast.objectstore.durable.sweeping import referred_to


def a_cluster(place: Path | str, **options: object) -> LocalCluster:
    meant = {"n_workers": 1, "threads_per_worker": 2, "object_store_memory": "128 MiB", **options}
    return LocalCluster(durable=place, **meant)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "place"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place where a cluster, which has ended, has published something of each kind."""
    place = tmp_path_factory.mktemp("published")
    with a_cluster(place) as cluster, Client(cluster, set_as_default=False) as client:
        x = client.persist(da.random.random((300, 300), chunks=100))
        frame = pd.DataFrame({"a": range(1000), "b": ["x", "y"] * 500})
        client.publish_dataset(
            x=x,
            frame=client.persist(dd.from_pandas(frame, npartitions=4)),
            recipe=da.arange(100, chunks=10) + 1,
            values=["a", np.arange(100_000)],
            total=float(client.compute(x.sum()).result()),
            durable=True,
        )
        client.publish_dataset(client.submit(abs, -3), name=("future", 3), durable=True)
    return place


@pytest.fixture(scope="module")
def another(published: Path) -> Iterator[LocalCluster]:
    """Another cluster that has the same place."""
    with a_cluster(published, n_hosts=2, n_workers=2) as cluster:
        yield cluster


NAMES = ("frame", "recipe", "total", "values", "x", ("future", 3))


def test_all_of_it_is_there_in_another_cluster(another: LocalCluster) -> None:
    with Client(another) as client:
        assert client.list_datasets() == NAMES
        x = client.get_dataset("x")
        assert abs(float(x.sum().compute()) - client.get_dataset("total")) < 1e-9
        assert x.compute().shape == (300, 300)
        frame = client.get_dataset("frame")
        assert frame.a.sum().compute() == 499_500
        assert frame.compute().b.iloc[1] == "y"
        assert (client.get_dataset("recipe").compute() == np.arange(1, 101)).all()
        text, array = client.get_dataset("values")
        assert (text, array.sum()) == ("a", 4_999_950_000)
        assert client.get_dataset(("future", 3)).result() == 3


def test_it_is_described(another: LocalCluster) -> None:
    with Client(another) as client:
        about = client.list_datasets(detail=True)
        assert tuple(about) == NAMES
        assert {name: each["kind"] for name, each in about.items()} == {
            "frame": "persisted",
            "recipe": "recipe",
            "total": "values",
            "values": "values",
            "x": "persisted",
            ("future", 3): "persisted",
        }
        x = about["x"]
        assert x["durable"]
        assert (x["npartitions"], x["dtype"], x["keys"]) == (9, "float64", 9)
        assert x["nbytes"] > 300 * 300 * 8
        assert x["versions"]["numpy"] == np.__version__
        assert about["frame"]["columns"].keys() == {"a", "b"}
        assert x["publisher"]


def files_mapped(_: object) -> set[str]:
    """The files of a place that this process has mapped."""
    return {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/objects/" in line}


def held_and_mapped(array: np.ndarray) -> set[str]:
    assert not array.flags.writeable
    return files_mapped(array)


def test_a_partition_is_loaded_when_it_is_touched_and_read_in_place(published: Path) -> None:
    with a_cluster(published) as cluster, Client(cluster) as client:
        client.publish_dataset(large=client.submit(np.arange, 1_000_000), durable=True, override=True)
    with a_cluster(published) as cluster, Client(cluster) as client:
        used = client.memory()
        future = client.get_dataset("large")
        assert client.who_has([future]) == {future.key: []}, "nothing was brought"
        mapped = client.submit(held_and_mapped, future).result()
        assert [path for path in mapped if path.startswith(str(published))]
        assert len(client.who_has([future])[future.key]) == 1
        client.unpublish_dataset("large")
        assert used is not None


def test_a_client_without_a_store_reads_it(another: LocalCluster) -> None:
    with Client(another, attach=False) as client:
        array = client.get_dataset("values")[1]
        assert array.sum() == 4_999_950_000
        assert client.get_dataset("x").compute().shape == (300, 300)


def test_in_every_kind_of_client(run) -> None:  # type: ignore[no-untyped-def]
    async def case(client, got):  # type: ignore[no-untyped-def]
        await got(client.publish_dataset([1, 2, np.arange(5000)], name="kept", durable=True))
        assert "kept" in await got(client.list_datasets())
        about = await got(client.list_datasets(detail=True))
        assert about["kept"]["durable"]
        value = await got(client.get_dataset("kept"))
        assert value[:2] == [1, 2]
        with pytest.raises(DatasetExistsError):
            await got(client.publish_dataset(3, name="kept", durable=True))
        await got(client.unpublish_dataset("kept"))
        assert "kept" not in await got(client.list_datasets())

    run(case)


def test_a_place_of_its_own(client: Client, tmp_path: Path) -> None:
    client.publish_dataset(here=[1], durable=tmp_path / "mine")
    assert client.list_datasets(detail=True)["here"]["durable"] == str(tmp_path / "mine")
    assert [found.dataset.name for found in Catalogue(open_place(str(tmp_path / "mine"))).datasets()] == ["here"]
    client.unpublish_dataset("here")
    assert Catalogue(open_place(str(tmp_path / "mine"))).datasets() == []


def test_a_place_of_its_own_is_read_by_another_cluster_that_is_told_of_it(published: Path, client: Client) -> None:
    assert "frame" not in client.list_datasets()
    assert client.list_datasets(durable=published) == NAMES
    assert client.list_datasets(detail=True, durable=published)["frame"]["columns"].keys() == {"a", "b"}
    frame, total = client.get_dataset("frame", "total", durable=published)
    assert frame.a.sum().compute() == 499_500
    assert total > 0
    assert client.get_dataset("nope", durable=published, default=3) == 3
    with pytest.raises(DatasetNotFoundError, match=f"no dataset 'nope' is in {published}"):
        client.get_dataset("nope", durable=published)
    client.publish_dataset(frame=[1])
    client.unpublish_dataset("frame", durable=published.parent / "nothing")
    assert client.get_dataset("frame") == [1]
    client.unpublish_dataset("frame")
    assert frame.b.compute().iloc[0] == "x"


def test_what_is_removed_leaves_no_files(place: Path) -> None:
    with a_cluster(place) as cluster, Client(cluster) as client:
        client.publish_dataset(one=np.arange(10_000), two=np.arange(20_000), durable=True)
        client.publish_dataset(one=np.arange(30_000), durable=True, override=True)
        client.unpublish_dataset("two")
        assert client.get_dataset("one").shape == (30_000,)
        opened = open_place(str(place))
        until(
            lambda: set(opened.names("objects")) == referred_to(Catalogue(opened)),
            "what nothing refers to is deleted",
            60,
        )


@pytest.mark.parametrize("wrong", [3, b"bytes", ["x"]])
def test_what_is_no_place(client: Client, wrong: object) -> None:
    with pytest.raises(TypeError, match="durable is True, or a directory"):
        client.publish_dataset(x=1, durable=wrong)


@pytest.mark.parametrize("wrong", [0, -1, 10**6])
def test_what_is_no_number_of_copies(client: Client, wrong: int) -> None:
    with pytest.raises(ValueError, match="copies is a number of hosts"):
        client.publish_dataset(x=1, copies=wrong)
    with pytest.raises(TypeError, match="copies"):
        client.publish_dataset(x=1, copies=True)


def test_a_place_that_can_not_be_opened_says_what_to_do(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    for wrong in (tmp_path / "file" / "place", "nosuch://bucket/x"):
        with pytest.raises(DurableError, match="name another place"):
            client.publish_dataset(x=1, durable=wrong)
    assert "x" not in client.list_datasets()


@pytest.mark.parametrize("leaves", ["nothing", "an empty directory"])
def test_a_place_that_goes_away_takes_nothing_until_it_is_back(place: Path, tmp_path: Path, leaves: str) -> None:
    """A disk that is not mounted any more leaves an empty directory, in which nobody would find what is written."""
    with a_cluster(place) as cluster, Client(cluster) as client:
        client.publish_dataset(before=[1], durable=True)
        elsewhere = place.rename(tmp_path / "elsewhere")
        if leaves == "an empty directory":
            place.mkdir()
        for work in (
            lambda: client.publish_dataset(after=[2], durable=True),
            lambda: client.unpublish_dataset("before"),
            lambda: client.list_datasets(durable=place),
        ):
            with pytest.raises(DurableError, match=r"is not the place that it was: its holdfast-place\.json is gone"):
                work()
        client.publish_dataset(of_the_cluster=[3])
        assert client.get_dataset("of_the_cluster") == [3]
        assert not place.exists() or not list(place.iterdir())
        if leaves == "an empty directory":
            place.rmdir()
        elsewhere.rename(place)
        client.publish_dataset(after=[2], durable=True)
    with a_cluster(place) as cluster, Client(cluster) as client:
        assert client.list_datasets() == ("after", "before")


def test_a_task_that_fails_is_why_it_is_not_durable(client: Client) -> None:
    with pytest.raises(DurableError, match="division by zero"):
        client.publish_dataset(x=client.submit(lambda: 1 / 0), durable=True)
    assert "x" not in client.list_datasets()


def test_a_damaged_file_is_an_error_that_names_it(place: Path) -> None:
    with a_cluster(place) as cluster, Client(cluster) as client:
        client.publish_dataset(x=client.scatter(np.arange(50_000)), durable=True)
    (large,) = [path for path in (place / "objects").iterdir() if path.stat().st_size > 100_000]
    with large.open("r+b") as file:
        file.seek(70_000)
        file.write(b"damage")
    with a_cluster(place) as cluster, Client(cluster) as client:
        future = client.get_dataset("x")
        with pytest.raises(ObjectLostError, match=large.name):
            future.result()
        with pytest.raises(ObjectLostError, match=large.name):
            client.submit(np.sum, future).result()


# -- what is killed


def kill_an_agent(cluster: LocalCluster) -> None:
    pids = [entry["pid"] for entry in run_directory.running("node") if entry["scheduler"] == cluster.scheduler_address]
    os.kill(pids[0], signal.SIGKILL)


def test_to_lose_a_host_loses_nothing_that_is_durable(place: Path) -> None:
    with a_cluster(place, n_hosts=2, n_workers=2) as cluster, Client(cluster) as client:
        futures = client.map(np.full, [100_000] * 8, range(8), pure=False)
        client.publish_dataset(parts=futures, durable=True)
        kill_an_agent(cluster)
        assert [int(array[0]) for array in client.gather(futures)] == list(range(8))


PROGRAM = """
    import sys, numpy as np
    from holdfast import Client
    with Client(sys.argv[1]) as client:
        parts = client.map(np.full, [400_000] * 20, range(20), pure=False)
        print("begun", flush=True)
        client.publish_dataset(parts=parts, durable=True)
        print("done", flush=True)
"""


def test_the_cluster_goes_on_with_it_when_the_publisher_is_killed(place: Path) -> None:
    with a_cluster(place) as cluster, Client(cluster) as client:
        program = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), cluster.scheduler_address],
            stdout=subprocess.PIPE,
            text=True,
        )
        with program:
            assert program.stdout is not None
            assert program.stdout.readline() == "begun\n"
            until(lambda: [*place.glob("writers/[0-9a-f]*"), *place.glob("datasets/*")], "it is being written", 60)
            program.kill()
        until(lambda: client.list_datasets() == ("parts",), "it is published", 60)
    with a_cluster(place) as cluster, Client(cluster) as client:
        parts = client.gather(client.get_dataset("parts"))
        assert [int(array.sum()) for array in parts] == [400_000 * n for n in range(20)]


def test_an_agent_that_is_killed_while_it_writes_costs_nothing(place: Path) -> None:
    with (
        a_cluster(place, n_hosts=2, n_workers=2) as cluster,
        Client(cluster) as client,
        ThreadPoolExecutor(1) as thread,
    ):
        client.publish_dataset(parts="old", durable=True)
        parts = client.map(np.full, [400_000] * 20, range(20), pure=False)
        publishing = thread.submit(client.publish_dataset, parts=parts, durable=True, override=True)
        until(lambda: list(place.glob("writers/[0-9a-f]*")), "it is being written", 60)
        kill_an_agent(cluster)
        publishing.result(100)
        assert list(place.glob("writers/[0-9a-f]*")) == []
    with a_cluster(place) as cluster, Client(cluster) as client:
        arrays = client.gather(client.get_dataset("parts"))
        assert [int(array[0]) for array in arrays] == list(range(20))


#: Where a writing is, by what lies in the place. How one process of it is killed at each change of a directory, is in
#: ``tests/objectstore/test_durable_place.py``; how hosts die at each errand, in ``tests/scheduler/test_durable.py``.
STEPS = {
    "it is entered": lambda place: any(place.glob("writers/[0-9a-f]*")),
    "objects are written": lambda place: len(list(place.glob("objects/[0-9a-f]*"))) > 5,
    "all objects are written": lambda place: len(list(place.glob("objects/[0-9a-f]*"))) > 20,
    "the manifest is written": lambda place: any(place.glob("datasets/000000000002-*")),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_scheduler_that_is_killed_at_any_step_costs_nothing(place: Path, step: str) -> None:
    with a_cluster(place) as cluster, Client(cluster) as client, ThreadPoolExecutor(1) as thread:
        client.publish_dataset(parts="old", durable=True)
        parts = client.map(np.full, [400_000] * 20, range(20), pure=False)
        publishing = thread.submit(client.publish_dataset, parts=parts, durable=True, override=True)
        until(lambda: STEPS[step](place), step, 60)
        assert cluster.scheduler_pid is not None
        os.kill(cluster.scheduler_pid, signal.SIGKILL)
        publishing.result(100)
        assert [int(array[0]) for array in client.gather(client.get_dataset("parts"))] == list(range(20))
        until(lambda: not list(place.glob("writers/[0-9a-f]*")), "no writer is entered", 60)
    with a_cluster(place) as cluster, Client(cluster) as client:
        arrays = client.gather(client.get_dataset("parts"))
        assert [int(array[0]) for array in arrays] == list(range(20))


def test_what_was_loaded_and_not_touched_is_there_when_the_scheduler_was_killed(published: Path) -> None:
    with a_cluster(published) as cluster, Client(cluster) as client:
        x, total = client.get_dataset("x", "total")
        assert cluster.scheduler_pid is not None
        os.kill(cluster.scheduler_pid, signal.SIGKILL)
        assert abs(float(x.sum().compute()) - total) < 1e-9
        assert client.get_dataset("values")[0] == "a"


# -- copies


def test_copies_on_two_hosts(two_hosts: LocalCluster) -> None:
    with Client(two_hosts) as client:
        futures = client.map(np.full, [50_000] * 4, range(4), pure=False)
        client.gather(futures)
        client.publish_dataset(parts=futures, copies=2)
        hosts = client.who_has(futures)
        assert {len(where) for where in hosts.values()} == {2}
        client.unpublish_dataset("parts")


# -- what is said of values


def test_what_is_missing_is_said() -> None:
    about = describe(np.zeros(3), Parts(), has_futures=False)
    assert lacking(about) == []
    assert not is_grave(about)
    about["versions"] = {**about["versions"], "nosuchpackage": "1.2", "numpy": "0.1"}
    assert lacking(about) == ["nosuchpackage 1.2 (not installed here)", f"numpy 0.1 ({np.__version__} here)"]
    assert is_grave(about)
    about["versions"] = {"python": "2.7.1"}
    assert is_grave(about)


class Wrapping:
    """Has a collection inside, as cubes of Iris have."""

    def __init__(self, data: object) -> None:
        self.inner = {"data": data}


def test_what_is_inside_of_a_value_is_said(client: Client) -> None:
    x = da.arange(10, chunks=5)
    client.publish_dataset(
        lazy=Wrapping(x),
        persisted=[Wrapping(client.persist(x))],
        values=Wrapping(np.arange(3)),
        frame={"a": [pd.DataFrame({"a": ["text"]})]},
        array=xarray.DataArray(np.arange(3)),
        lazy_array=xarray.DataArray(x),
    )
    about = client.list_datasets(detail=True)
    assert {name: each["kind"] for name, each in about.items()} == {
        "lazy": "recipe",
        "persisted": "persisted",
        "values": "values",
        "frame": "values",
        "array": "values",
        "lazy_array": "recipe",
    }
    assert "pandas" in about["frame"]["versions"]
    assert about["array"]["versions"]["xarray"] == xarray.__version__
    client.unpublish_dataset(*about)


def test_what_is_imported_by_another_name_than_it_is_installed_is_not_missing() -> None:
    assert lacking({"versions": {"sklearn_of_nobody": "1.0"}})
    assert lacking({"versions": {"attr": importlib.metadata.version("attrs")}}) == []


class Unreadable:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return __import__, ("nosuchpackage_of_theirs",)


def test_a_dataset_that_can_not_be_read_here_says_what_it_was_made_with(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.client.operations import datasets

    def made_elsewhere(value: object, parts: Parts, has_futures: bool) -> dict[str, object]:
        return {"kind": "values", "versions": {"theirs": "3.4"}}

    monkeypatch.setattr(datasets, "describe", made_elsewhere)
    client.publish_dataset(theirs=Unreadable())
    with pytest.raises(Exception, match=r"published with theirs 3\.4 \(not installed here\)"):
        client.get_dataset("theirs")
    client.unpublish_dataset("theirs")


def test_an_unknown_name_with_a_place(another: LocalCluster) -> None:
    with Client(another) as client:
        with pytest.raises(DatasetNotFoundError, match="no dataset 'nope'"):
            client.get_dataset("nope")
        assert client.get_dataset("nope", default=4) == 4
