"""Connections that are cut all the time, between all kinds of peers, under a load whose every step is checked.

A client, a host's agent and its workers reach the scheduler through proxies that cut each connection after some bytes.
So do the agent and the client reach the stores of other hosts. What a task does outside is counted there: it is done
once, however often the connections break.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter

import numpy as np
import pytest
from campaign import Campaign
from cutting_proxy import CuttingProxy
from waiting import until

from holdfast import Client, LocalCluster
from holdfast.cluster import protocol
from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.node import NodeAgent
from holdfast.cluster.transfer import pool

DEADLINE_SECONDS = 60.0
TASKS = 16
LARGE = 60_000  # numbers
#: A connection with the scheduler lives for so many bytes, and one between stores.
SCHEDULER_NBYTES = (500, 16_000)
STORE_NBYTES = (10_000, 3_000_000)


def note(path: str, name: str, size: int) -> np.ndarray:
    """Notes outside that it ran."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{name}\n".encode())
    os.close(descriptor)
    return np.full(size, int(name))


def total(path: str, name: str, *arrays: np.ndarray) -> int:
    note(path, name, 1)
    return int(sum(array.sum() for array in arrays))


class World:
    """A cluster of two hosts, of which the far one and the client are behind proxies."""

    def __init__(self, chance: random.Random, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        self._chance = chance
        self.cluster = cluster
        self.links = {
            name: CuttingProxy(cluster.scheduler_address, chance, SCHEDULER_NBYTES) for name in ("client", "node")
        }
        self._stores: dict[str, CuttingProxy] = {}
        self._lock = threading.Lock()
        self._connect = pool.connect_blocking
        monkeypatch.setattr(pool, "connect_blocking", self._connect_by_proxy)

    def __enter__(self) -> World:
        for link in self.links.values():
            link.__enter__()
        self._thread = LoopThread("the far host")
        self.agent = NodeAgent(
            self.links["node"].address,
            token=self.cluster.token,
            n_workers=2,
            store_capacity=256 << 20,
            name="far",
        )
        self._thread.run(self.agent.start(), timeout=60)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.calm()
        self._thread.run(self.agent.close(), timeout=30)
        self._thread.close()
        for link in [*self.links.values(), *self._stores.values()]:
            link.__exit__(None, None, None)

    def calm(self) -> None:
        """Cut nothing more."""
        for link in [*self.links.values(), *self._stores.values()]:
            link.calm()

    @property
    def cuts(self) -> Counter[str]:
        cuts: Counter[str] = Counter()
        for name, link in self.links.items():
            cuts[f"cuts of a {name}'s"] += sum(link.cuts.values())
        for link in self._stores.values():
            cuts["cuts between stores"] += sum(link.cuts.values())
        return cuts

    def _connect_by_proxy(self, address, **options):
        with self._lock:
            link = self._stores.get(address)
            if link is None:
                link = self._stores[address] = CuttingProxy(address, self._chance, STORE_NBYTES)
                link.__enter__()
        return self._connect(link.address, **options)


@pytest.fixture
def cluster():
    with LocalCluster(2, 1, object_store_memory="256 MiB") as cluster:
        yield cluster


def test_campaign_of_cuts_between_all_kinds_of_peers(cluster, tmp_path, monkeypatch):
    with Campaign("connections cut", share=0.2) as campaign, World(campaign.random, cluster, monkeypatch) as world:
        with Client(world.links["client"].address, attach=False) as client:
            until(lambda: len(client.nthreads()) == 4, "the workers are there")
            workers = set(client.nthreads())
            client.publish_dataset(client.scatter(np.arange(LARGE), hash=False), name="kept")
            names = iter(range(1, 1 << 30))
            expected: Counter[str] = Counter()
            path = str(tmp_path / "runs")
            while campaign.goes_on():
                _step(client, path, names, expected, campaign)
            world.calm()
            assert (client.get_dataset("kept").result(DEADLINE_SECONDS) == np.arange(LARGE)).all()
            ran = Counter((tmp_path / "runs").read_text().split())
            assert ran == expected, {name: ran[name] for name in ran if ran[name] != expected[name]}
            assert set(client.nthreads()) == workers, "nobody has left"
            assert not client._request(protocol.requests.STATUS)["absent"]
            campaign.counts.update(world.cuts)
            campaign.counts["tasks"] += expected.total()
        assert world.cuts.total() > 10 * campaign.seconds


def _step(client, path, names, expected, campaign):
    numbers = [str(next(names)) for _ in range(TASKS)]
    expected.update(numbers)
    size = campaign.random.choice([1, 100, LARGE])
    arrays = client.map(note, [path] * TASKS, numbers, [size] * TASKS, pure=False)
    scattered = client.scatter(np.full(size, 1), hash=False, workers=[campaign.random.choice(list(client.nthreads()))])
    sums = []
    for index, array in enumerate(arrays):
        name = str(next(names))
        expected[name] += 1
        sums.append(client.submit(total, path, name, array, arrays[index - 1], scattered, pure=False))
    for index, future in enumerate(sums):
        value = (int(numbers[index]) + int(numbers[index - 1]) + 1) * size
        assert future.result(DEADLINE_SECONDS) == value, "wrong"
        campaign.counts["checked"] += 1
    index = campaign.random.randrange(TASKS)
    assert (arrays[index].result(DEADLINE_SECONDS) == np.full(size, int(numbers[index]))).all(), "wrong"
    client.publish_dataset(sums[0], name="latest", override=True)
    assert client.get_dataset("latest").result(DEADLINE_SECONDS) == sums[0].result()
    campaign.counts["checked"] += 2
