"""Collections that are looked at before they are computed: what is held, what is restricted, what there is to do."""

from __future__ import annotations

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from holdfast import Client, futures_of


class TestNormalized:
    def test_what_the_client_holds_is_in_the_place_of_its_tasks(self, run):
        async def case(client, got):
            x = da.arange(100, chunks=10)
            held = client.persist(x + 1, optimize_graph=False)  # which would fuse it, under another name
            y = (x + 1).sum()
            normal = client.normalize_collection(y)
            assert type(normal) is type(y)
            assert {future.key for future in futures_of(normal)} == {future.key for future in futures_of(held)}
            assert len(normal.__dask_graph__()) < len(y.__dask_graph__())
            assert await got(client.compute(normal).result()) == 5050

        run(case)

    def test_what_nothing_is_held_of_is_as_it_was(self, client):
        x = da.arange(100, chunks=10)
        assert client.normalize_collection(x) is x

    def test_frames_bags_and_delayed_calls(self, client):
        frame = dd.from_pandas(pd.DataFrame({"x": np.arange(100)}), npartitions=5)
        held = client.persist(frame)
        normal = client.normalize_collection(held)
        assert len(futures_of(normal)) == 5
        assert int(normal.x.sum().compute()) == 4950
        call = dask.delayed(pow)(2, 3)
        (kept,) = dask.persist(call)
        normal = client.normalize_collection(call)
        assert len(futures_of(normal)) == 1
        assert normal.compute() == 8
        del kept

    def test_futures_of_another_client_stay(self, client, cluster):
        with Client(cluster, set_as_default=False) as other:
            theirs = other.persist(da.ones(20, chunks=10))
            normal = client.normalize_collection(theirs + 1)
            assert len(futures_of(normal)) == 2
            assert float(normal.sum().compute()) == 40

    def test_only_collections(self, client):
        with pytest.raises(TypeError, match="a list is none"):
            client.normalize_collection([1])


class TestRestrictions:
    def test_they_are_those_of_the_outputs(self, client):
        x, y = dask.delayed(pow)(2, 3), da.ones(20, chunks=10)
        keys = [*x.__dask_keys__(), *y.__dask_keys__()]
        restrictions, loose = client.get_restrictions([x, y], ["alice", ("host", 1)], False)
        assert restrictions == {key: ["alice", "host:1"] for key in keys}
        assert loose == []
        restrictions, loose = Client.get_restrictions([x, y], {x: "alice"}, [x])
        assert restrictions == {x.key: ["alice"]}
        assert loose == [x.key]
        assert client.get_restrictions(x, None, True) == ({}, [])


def test_the_graph_of_several(client):
    x = da.ones(20, chunks=10)
    graph = client.collections_to_dsk([x + 1, (x + 1).sum()])
    assert set((x + 1).__dask_keys__()) <= set(graph)
    plain = Client.collections_to_dsk(x + 1, optimize_graph=False)
    assert len(plain) == 4
