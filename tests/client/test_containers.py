"""Collections of every kind, and containers of them: through `compute`, `persist`, `gather` and `publish_dataset`."""

from __future__ import annotations

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from holdfast import Client, futures_of


def made():
    """One collection of each kind, and how its value is compared with what is right."""
    frame = pd.DataFrame({"x": np.arange(20), "y": np.arange(20) % 2})
    dataset = xr.Dataset({"a": ("x", da.arange(20, chunks=5)), "b": ("x", da.ones(20, chunks=5))}, {"x": range(20)})
    return {
        "array": (da.arange(20, chunks=5) + 1, lambda value: value.sum() == 210),
        "bag": (db.from_sequence(range(20), npartitions=4).map(str), lambda value: value == list(map(str, range(20)))),
        "delayed": (dask.delayed(sorted)([3, 1, 2]), lambda value: value == [1, 2, 3]),
        "frame": (dd.from_pandas(frame, npartitions=4), lambda value: value.equals(frame)),
        "series": (dd.from_pandas(frame, npartitions=4).x, lambda value: value.sum() == 190),
        "dataset": (dataset, lambda value: value.a.data.sum() == 190 and type(value) is xr.Dataset),
        "data array": (dataset.a * 2, lambda value: value.data.sum() == 380 and type(value) is xr.DataArray),
    }


KINDS = tuple(made())


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_each_kind(client, cluster, kind):
    collection, right = made()[kind]
    future = client.compute(collection)
    assert right(client.gather(future))
    assert right(client.compute(collection, sync=True))
    persisted = client.persist(collection)
    assert type(persisted) is type(collection)
    assert futures_of(persisted)
    client.publish_dataset(recipe=collection, persisted=persisted, inside={"it": [collection, (persisted, 7)]})
    del persisted
    with Client(cluster, set_as_default=False) as other:
        assert right(other.compute(other.get_dataset("recipe"), sync=True))
        assert right(other.compute(other.get_dataset("persisted"), sync=True))
        inside = other.get_dataset("inside")
        assert inside["it"][1][1] == 7
        assert right(other.compute(inside["it"][0], sync=True))
        assert right(other.compute(inside["it"][1][0], sync=True))
    for name in ("recipe", "persisted", "inside"):
        client.unpublish_dataset(name)


def test_containers_of_all(run):
    async def case(client, got):
        of = {kind: collection for kind, (collection, _) in made().items()}
        right = {kind: check for kind, (_, check) in made().items()}
        nested = {"all": list(of.values()), "one": (of["array"], 3), "named": of}
        values = await got(client.compute(nested).result())
        assert all(right[kind](value) for kind, value in zip(of, values["all"], strict=True))
        assert all(right[kind](value) for kind, value in values["named"].items())
        assert right["array"](values["one"][0])
        assert values["one"][1] == 3
        persisted = client.persist(nested)
        assert [type(each) for each in persisted["all"]] == [type(each) for each in of.values()]
        assert persisted["one"][1] == 3
        assert all(map(futures_of, persisted["named"].values()))
        futures = client.compute([persisted["named"], 5, persisted["all"]], traverse=True)
        assert futures[1] == 5
        again, _, listed = await got(client.gather(futures))
        assert all(right[kind](value) for kind, value in again.items())
        assert all(right[kind](value) for kind, value in zip(of, listed, strict=True))

    run(case)


def test_what_has_no_collection_is_not_persisted(client):
    for wrong in (3, {"x": 1}, [[]], "text"):
        with pytest.raises(TypeError, match="only dask collections can be persisted"):
            client.persist(wrong)
    x = da.ones(10, chunks=5)
    with pytest.raises(TypeError, match="not a int: 3"):
        client.persist([x, 3])


def test_annotations_reach_the_tasks_of_each(client):
    worker = sorted(client.nthreads())[0]
    dataset, _ = made()["dataset"]

    def where(block):
        from holdfast.cluster.worker.context import current_worker

        return np.array([current_worker().address])

    with dask.annotate(workers=[worker], priority=5, retries=1):
        places = da.map_blocks(where, dataset.a.data, dtype=object, chunks=(1,))
    assert set(places.compute(optimize_graph=False)) == {worker}


def test_what_xarray_does_with_collections(client, tmp_path):
    dataset, _ = made()["dataset"]
    dataset.to_zarr(tmp_path / "data.zarr", consolidated=False)
    opened = xr.open_zarr(tmp_path / "data.zarr", consolidated=False)
    assert int(opened.a.sum().compute()) == 190
    grouped = dataset.groupby(dataset.x % 2).sum().compute()
    assert list(grouped.a.data) == [90, 100]
    mapped = xr.map_blocks(lambda block: block * 2, dataset)
    assert int(mapped.a.sum().compute()) == 380
    roots = xr.apply_ufunc(np.sqrt, dataset.b, dask="parallelized", output_dtypes=[float])
    assert float(roots.sum().compute()) == 20
