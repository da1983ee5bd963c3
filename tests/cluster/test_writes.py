"""Functions that write into what they read, which lies in the object store: what is refused, and what is granted."""

from __future__ import annotations

import ctypes
import logging
import time

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from waiting import DEADLINE_SECONDS

from holdfast import Client, KilledWorker, LocalCluster


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(2, 2, object_store_memory="64 MiB", silence_logs=logging.CRITICAL) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client


def log_run(folder):
    with open(folder / "runs", "a") as file:
        file.write("x")


def runs(folder):
    """How often anything has logged its runs since this was asked last."""
    text = (folder / "runs").read_text()
    (folder / "runs").unlink()
    return len(text)


def scale(array, folder):
    log_run(folder)
    array *= 2
    return float(array.sum())


@pytest.fixture
def numbers(client):
    return client.scatter(np.ones(10_000), hash=False)


def test_a_task_that_says_that_it_writes_runs_once(client, numbers, tmp_path):
    def scale_it(array, folder):
        return scale(array, folder)

    assert client.submit(scale_it, numbers, tmp_path, writable=True, pure=False).result(DEADLINE_SECONDS) == 20_000
    assert (
        client.gather(client.map(scale_it, [numbers] * 3, folder=tmp_path, writable=True, pure=False)) == [20_000] * 3
    )
    with dask.annotate(writable=True):
        assert client.submit(scale_it, numbers, tmp_path, pure=False).result(DEADLINE_SECONDS) == 20_000
    assert runs(tmp_path) == 5
    assert numbers.result(DEADLINE_SECONDS).sum() == 10_000


def test_an_annotation_of_a_collection_says_so_too(client, tmp_path):
    def double(block):
        log_run(tmp_path)
        block *= 2
        return block

    x = client.persist(da.ones(40_000, chunks=20_000))
    with dask.annotate(writable=True):
        y = x.map_blocks(double, meta=np.ones(1))
    with dask.config.set(optimization__fuse__active=False):
        assert y.sum().compute() == 80_000
    assert runs(tmp_path) == 2
    assert x.sum().compute() == 40_000


def test_what_one_worker_finds_out_all_of_them_know(client, numbers, tmp_path):
    def scale_it(array, folder):
        return scale(array, folder)

    assert client.submit(scale_it, numbers, tmp_path, pure=False).result(DEADLINE_SECONDS) == 20_000
    assert runs(tmp_path) == 2
    for worker in client.nthreads():
        future = client.submit(scale_it, numbers, tmp_path, workers=[worker], pure=False)
        assert future.result(DEADLINE_SECONDS) == 20_000
    assert runs(tmp_path) == len(client.nthreads())


def test_what_pandas_was_refused(client):
    def set_first(series):
        series.iloc[0] = pd.Timestamp("2021")
        return series

    series = pd.Series(pd.date_range("2020", periods=5_000))
    stored = client.scatter(series, hash=False)
    assert client.submit(set_first, stored).result(DEADLINE_SECONDS).iloc[0] == pd.Timestamp("2021")
    pd.testing.assert_series_equal(stored.result(DEADLINE_SECONDS), series)


def test_native_code_that_asks_nobody_runs_once_more_and_then_at_once(client, tmp_path):
    def invert(matrix, folder):
        import scipy.linalg

        log_run(folder)
        return float(scipy.linalg.inv(matrix.T, overwrite_a=True).sum())

    def wait_for(path):
        while not path.exists():
            time.sleep(0.01)

    matrix = client.scatter(2 * np.eye(100), hash=False)
    beside = client.map(wait_for, [tmp_path / "go on"] * 3, pure=False)  # on the other threads
    assert client.submit(invert, matrix, tmp_path, pure=False).result(DEADLINE_SECONDS) == 50
    assert runs(tmp_path) == 2
    (tmp_path / "go on").touch()
    assert client.gather(beside) == [None] * 3
    assert client.gather(client.map(invert, [matrix] * 8, folder=tmp_path, pure=False)) == [50] * 8
    assert runs(tmp_path) == 8
    assert matrix.result(DEADLINE_SECONDS).sum() == 200


def test_a_node_of_a_graph_does_so_too(client, tmp_path):
    def overwrite(block, *_):
        log_run(tmp_path)
        ctypes.memset(block.ctypes.data, 0, block.nbytes)
        return block

    x = client.persist(da.ones(20_000, chunks=20_000))
    assert x.map_blocks(overwrite, meta=np.ones(1)).sum().compute() == 0
    assert runs(tmp_path) == 2
    assert x.map_blocks(overwrite, 1, meta=np.ones(1)).sum().compute() == 0
    assert runs(tmp_path) == 1
    assert x.sum().compute() == 20_000


def test_what_crashes_on_private_views_as_well_is_given_up(client):
    def read_nothing(array):
        ctypes.string_at(array.size - 10_000)

    array = client.scatter(np.ones(10_000), hash=False)
    with pytest.raises(KilledWorker, match=r"3 workers that died.*SIGSEGV in read_nothing"):
        client.submit(read_nothing, array).result(4 * DEADLINE_SECONDS)


@pytest.mark.parametrize("writable", ["yes", 2, [True]])
def test_the_option_is_true_or_false(client, writable):
    with pytest.raises(TypeError, match="writable is True or False"):
        client.submit(abs, 1, writable=writable)
