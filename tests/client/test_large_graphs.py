"""A graph that is large as it is sent says so, with what makes it large."""

from __future__ import annotations

import warnings

import dask
import dask.array as da
import numpy as np
import pytest

from holdfast.client.packing import large_graphs


def tasks(nbytes, count=600):
    return [dask.delayed(len, pure=False)(np.full(nbytes, i % 100, "u1").tobytes()) for i in range(count)]


def compute(client, values):
    return client.gather(client.compute(values))


def test_it_names_the_tasks_and_what_to_do(client):
    with pytest.warns(UserWarning, match="Sending large graph") as caught:
        assert compute(client, tasks(20_000)) == [20_000] * 600
    (warning,) = caught
    assert warning.filename == __file__
    text = str(warning.message)
    assert text.startswith("Sending large graph of size 12.")
    assert "in 600 tasks 'len'" in text
    assert "client.scatter(data)" in text


def test_once_for_each_place(client):
    values = tasks(20_000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            compute(client, values)
    assert len(caught) == 1


def test_very_many_tasks_have_another_remedy(client, monkeypatch):
    monkeypatch.setattr(large_graphs, "LARGE_GRAPH_NBYTES", 10_000)
    with pytest.warns(UserWarning, match=r"100 tasks 'sum'.* fewer and larger partitions or chunks") as caught:
        assert da.ones(1000, chunks=10).sum(split_every=10).compute() == 1000
    assert caught[0].filename == __file__


def test_functions_with_data_of_their_own(client):
    def adder(data):
        return lambda value: value + len(data)

    values = [dask.delayed(adder(np.full(10_000, i, "u2").tobytes()), pure=False)(i) for i in range(600)]
    with pytest.warns(UserWarning, match="in 600 functions 'lambda' with data of their own"):
        assert compute(client, values) == [i + 20_000 for i in range(600)]


def test_what_goes_into_stores_does_not_count(client):
    data = np.arange(5_000_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert da.from_array(data, chunks=50_000).sum().compute() == data.sum()
        assert compute(client, [dask.delayed(len)(data)] * 10) == [5_000_000] * 10
        assert compute(client, tasks(1_000)) == [1_000] * 600
