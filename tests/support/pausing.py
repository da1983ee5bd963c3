"""Processes that stand still for a while, and data on their hosts that has to be there afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator

import numpy as np

from holdfast import wait
from holdfast.cluster import protocol
from holdfast.cluster.deploy import cluster_processes


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Within it these processes are stopped."""
    _signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pids, signal.SIGCONT)


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def processes_of(cluster: object) -> list[int]:
    """All processes of a `LocalCluster`."""
    return cluster_processes._processes_of(cluster._parts.id)  # type: ignore[attr-defined]


# -- data

N = 100_000


def make(number, n=N):
    return np.full(n, number)


def make_and_count(path, number):
    with open(path, "a") as file:
        file.write("x")
    return make(number)


def total(*arrays):
    return int(sum(array.sum() for array in arrays))


def pids_of_workers(client):
    return {worker: client.submit(os.getpid, workers=[worker], pure=False).result() for worker in client.nthreads()}


class Data:
    """Data of every kind on one host, and what it has to be."""

    def __init__(self, client, node, path):
        self._client = client
        self._path = path
        self.scattered = client.scatter(make(1), hash=False, workers=[node])
        self.held = client.submit(make_and_count, str(path), 2, workers=[node], allow_other_workers=True, pure=False)
        self.small = client.submit(pow, 2, 10, workers=[node], allow_other_workers=True, pure=False)
        published = [client.scatter(make(3), hash=False, workers=[node]), client.submit(make, 4, workers=[node])]
        wait([self.held, self.small, *published])
        client.publish_dataset(published, name="published")
        del published  # nobody else holds them

    def check(self, made_again=False):
        """See that all of it is there, with the right values, and none was made again unless it may have been."""
        published = self._client.get_dataset("published")
        values = self._client.gather([self.scattered, self.held, *published])
        assert all((value == make(number)).all() for number, value in enumerate(values, 1))
        assert self.small.result() == 1024
        assert self._client.submit(total, self.scattered, self.held, *published, pure=False).result() == 10 * N
        assert made_again or self._path.read_text() == "x"


def given_up(client, node):
    return node not in client._request(protocol.requests.STATUS)["nodes"]


def is_back(client, node):
    """Whether a host is there, with its worker."""
    return any(worker.startswith(f"{node}/") for worker in client.nthreads())
