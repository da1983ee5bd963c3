"""The client inside tasks: tasks that submit tasks and wait for them."""

from __future__ import annotations

import contextlib

import pytest

from holdfast import Client, LocalCluster, get_client


def fib(n, pure):
    if n < 2:
        return n
    client = get_client()
    futures = [client.submit(fib, n - k, pure, pure=pure) for k in (1, 2)]
    return sum(client.gather(futures))


@contextlib.contextmanager
def started(**options):
    with LocalCluster(
        **{"n_workers": 1, "threads_per_worker": 1, "object_store_memory": "64 MiB", **options}
    ) as cluster:
        with Client(cluster) as client:
            yield client


@pytest.fixture(scope="module")
def client():
    """Of a cluster of one worker with one thread."""
    with started() as client:
        yield client


@pytest.mark.parametrize("pure", [True, False])
def test_a_tree_of_tasks_ends_on_a_worker_of_one_thread(client, pure):
    assert client.submit(fib, 12, pure, pure=False).result(timeout=60) == 144
