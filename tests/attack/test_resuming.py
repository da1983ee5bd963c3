"""Connections that are cut all the time, between all kinds of peers, under a load whose every step is checked.

A client, a host's agent and its workers reach the scheduler through proxies that cut each connection after some bytes.
So do the agent and the client reach the stores of other hosts. What a task does outside is counted there: it is done
once, however often the connections break.
"""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
from campaign import Campaign
from cut_world import World
from waiting import until

from holdfast import Client, LocalCluster
from holdfast.cluster import protocol

DEADLINE_SECONDS = 60.0
TASKS = 16
LARGE = 60_000  # numbers
LEAST_CUTS = 10


def note(path: str, name: str, size: int) -> np.ndarray:
    """Notes outside that it ran."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{name}\n".encode())
    os.close(descriptor)
    return np.full(size, int(name))


def total(path: str, name: str, *arrays: np.ndarray) -> int:
    note(path, name, 1)
    return int(sum(array.sum() for array in arrays))


@pytest.fixture
def cluster():
    with LocalCluster(2, 1, object_store_memory="256 MiB") as cluster:
        yield cluster


def test_campaign_of_cuts_between_all_kinds_of_peers(cluster, tmp_path, monkeypatch):
    with (
        Campaign("connections cut", share=0.2) as campaign,
        World(campaign.random, cluster, monkeypatch) as world,
        Client(world.links["client"].address, attach=False) as client,
    ):
        until(lambda: len(client.nthreads()) == 4, "the workers are there")
        workers = set(client.nthreads())
        client.publish_dataset(client.scatter(np.arange(LARGE), hash=False), name="kept")
        names = iter(range(1, 1 << 30))
        expected: Counter[str] = Counter()
        path = str(tmp_path / "runs")
        # On an idle machine it is fifteen cuts a second. A busy one goes on until it has shown some too.
        while campaign.goes_on() or world.cuts.total() < LEAST_CUTS:
            _step(client, path, names, expected, campaign)
        world.calm()
        assert (client.get_dataset("kept").result(DEADLINE_SECONDS) == np.arange(LARGE)).all()
        ran = Counter((tmp_path / "runs").read_text().split())
        assert ran == expected, {name: ran[name] for name in ran if ran[name] != expected[name]}
        assert set(client.nthreads()) == workers, "nobody has left"
        assert not client._request(protocol.requests.STATUS)["absent"]
        campaign.counts.update(world.cuts)
        campaign.counts["tasks"] += expected.total()


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
