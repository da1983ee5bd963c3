"""Published datasets, also between processes."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from holdfast import Client, DatasetExistsError, DatasetNotFoundError, futures_of, wait
from holdfast.client.operations.datasets import named


@pytest.fixture(autouse=True)
def _unpublished(cluster):
    yield
    with Client(cluster, set_as_default=False) as client:
        for name in client.list_datasets():
            client.unpublish_dataset(name)


def run_program(code, cluster):
    """Run a program in a process of its own."""
    code = f"ADDRESS = {cluster.scheduler_address!r}\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_publish_list_get_unpublish(client):
    x = da.arange(10, chunks=5).persist()
    client.publish_dataset(x, name="x")
    client.publish_dataset(numbers=client.map(abs, [-1, -2]), y=x + 1)
    assert client.list_datasets() == ("numbers", "x", "y")
    assert client.gather(client.get_dataset("numbers")) == [1, 2]
    assert client.get_dataset("y").sum().compute() == 55
    client.unpublish_dataset("numbers")
    assert client.list_datasets() == ("x", "y")


def test_a_taken_name(client):
    client.publish_dataset(1, name="x")
    with pytest.raises(DatasetExistsError, match="override=True"):
        client.publish_dataset(2, name="x")
    client.publish_dataset(3, name="x", override=True)
    assert client.get_dataset("x") == 3


def test_an_unknown_name(client):
    client.publish_dataset(known=1)
    with pytest.raises(DatasetNotFoundError, match="known"):
        client.get_dataset("unknown")
    assert client.get_dataset("unknown", default=None) is None
    client.unpublish_dataset("unknown")
    assert client.list_datasets() == ("known",)


def test_wrong_calls(client):
    import threading

    for wrong in ({"args": ()}, {"args": (1,)}, {"args": (), "name": "x", "y": 2}, {"args": (1,), "name": "y", "y": 2}):
        arguments = dict(wrong)
        with pytest.raises(ValueError, match="dataset"):
            client.publish_dataset(*arguments.pop("args"), **arguments)
    for name in ([], {}, object(), True):
        with pytest.raises(TypeError, match="the name of a dataset is a text, a number or a tuple"):
            client.publish_dataset(1, name=name)
    for name in ("", "x" * 2_000, ("x" * 5_000,), 2**70, float("nan")):
        with pytest.raises(ValueError, match="name"):
            client.publish_dataset(1, name=name)
    with pytest.raises(TypeError, match="takes the name"):
        client.get_dataset()
    with pytest.raises(TypeError, match="'x' can't be pickled"):
        client.publish_dataset(x=threading.Lock())


NAMES = ["text", 7, 2.5, ("flights", 2026, ("a", None)), b"bytes", np.int64(9)]


def test_names_of_all_kinds_and_several_in_one_call(run):
    async def case(client, got):
        for number, name in enumerate(NAMES):
            await got(client.publish_dataset(number, name=name))
        await got(client.publish_dataset(-1, name="with others", another=-2))
        there = await got(client.list_datasets())
        assert there[:3] == ("another", "text", "with others")
        assert set(there) == {*NAMES, "another", "with others"}
        assert await got(client.get_dataset(*NAMES)) == tuple(range(len(NAMES)))
        assert await got(client.get_dataset(name=7)) == 1
        assert await got(client.get_dataset("text", "none", default=None)) == (0, None)
        with pytest.raises(DatasetNotFoundError, match=r"\('none',\)"):
            await got(client.get_dataset("text", ("none",)))
        if client.asynchronous:
            assert [name async for name in client.datasets] == list(there)
            assert await client.datasets[NAMES[3]] == 3
        else:
            assert client.datasets[NAMES[3]] == 3
            assert NAMES[3] in client.datasets
            assert list(client.datasets) == list(there)
            client.datasets[("more", 1)] = 5
            del client.datasets[("more", 1)]
            assert "flights" in repr(client.datasets)
        await got(client.unpublish_dataset(*there, "unknown", ("unknown", 1)))
        await got(client.unpublish_dataset(name="unknown"))
        assert await got(client.list_datasets()) == ()

    run(case)


def test_as_a_mapping(client):
    client.datasets["x"] = 1
    client.datasets["x"] = 2
    assert dict(client.datasets) == {"x": 2}
    assert "x" in client.datasets
    assert len(client.datasets) == 1
    del client.datasets["x"]
    with pytest.raises(KeyError):
        client.datasets["x"]
    with pytest.raises(KeyError):
        del client.datasets["x"]


def test_they_outlive_their_publisher_and_free_their_data_when_unpublished(cluster, client, eventually):
    with Client(cluster, set_as_default=False) as publisher:
        x = publisher.persist(da.arange(100_000, chunks=50_000))
        publisher.publish_dataset(x=x)
        keys = {future.key for future in futures_of(x)}
    x = client.get_dataset("x")
    assert {future.key for future in futures_of(x)} == keys
    assert x.sum().compute() == 4999950000
    client.unpublish_dataset("x")
    assert x.max().compute() == 99_999
    del x
    eventually(lambda: not keys & set(client.who_has()), what="nobody holds it any more")


def test_what_was_not_persisted_is_a_recipe(client):
    client.publish_dataset(x=da.ones(10, chunks=5) + 1)
    recipe = client.get_dataset("x")
    assert futures_of(recipe) == []
    assert recipe.sum().compute() == 20


def test_from_one_process_to_another(cluster, client):
    """The main job: one process persists and publishes, and ends; another one reads in place."""
    published = run_program(
        """
        import numpy as np, pandas as pd, dask.dataframe as dd
        from holdfast import Client

        def double(part):
            return part.assign(double=part.value * 2)

        class Note:
            text = "defined in __main__"

        if __name__ == "__main__":
            with Client(ADDRESS) as client:
                frame = pd.DataFrame({"key": np.arange(10_000) % 7, "value": np.arange(10_000.0)})
                client.publish_dataset(frame=dd.from_pandas(frame, npartitions=4).map_partitions(double).persist())
                client.publish_dataset(Note(), name="note")
                print(client.list_datasets())
        """,
        cluster,
    )
    assert published == "('frame', 'note')"
    assert client.get_dataset("note").text == "defined in __main__"
    frame = client.get_dataset("frame")
    assert isinstance(frame, dd.DataFrame)
    expected = (
        pd.DataFrame({"key": np.arange(10_000) % 7, "double": np.arange(10_000.0) * 2}).groupby("key").double.sum()
    )
    pd.testing.assert_series_equal(frame.groupby("key").double.sum().compute().sort_index(), expected)
    futures = futures_of(frame)
    wait(futures, timeout=20)
    store, _ = client._core.stores.local
    for future in futures:
        part = future.result(timeout=20, writable=False)
        assert store.address_in_arena(part["double"].to_numpy().__array_interface__["data"][0])
    assert (
        run_program(
            """
        from holdfast import Client
        with Client(ADDRESS) as client:
            print(len(client.get_dataset("frame")), client.datasets["frame"].double.max().compute())
            client.unpublish_dataset("frame")
        """,
            cluster,
        )
        == "10000 19998.0"
    )
    assert client.list_datasets() == ("note",)


def test_a_mistyped_option_is_no_dataset() -> None:
    with pytest.raises(TypeError, match=r"no option 'durabel': durable= may be meant.*name='durabel'"):
        named((), None, {"flights": [1], "durabel": True})
    assert named((True,), "durabel", {}) == {"durabel": True}
    assert named((), None, {"durables": [1], "fast": True}) == {"durables": [1], "fast": True}
