"""What a client reads from other hosts while the store of its own host is full of what it looks at."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast import Client, LocalCluster
from holdfast.client.stores import access
from holdfast.cluster.transfer import fetcher
from holdfast.cluster.transfer.fetcher import Fetcher

NUMBERS = 1_000_000  # in an array, of 8 MB


@pytest.fixture
def fetched(monkeypatch):
    """The ids of the objects that hosts are asked to bring."""
    ids = []
    fetch = Fetcher.fetch

    async def noted(self, object_id, sources):
        ids.append(object_id)
        await fetch(self, object_id, sources)

    monkeypatch.setattr(Fetcher, "fetch", noted)
    return ids


def test_it_waits_for_room_once_and_then_reads_over_the_network(monkeypatch, fetched):
    monkeypatch.setattr(fetcher, "ROOM_SECONDS", 0.2)
    monkeypatch.setattr(access, "HELD_UP_SECONDS", 0.1)
    with (
        LocalCluster(2, 1, n_hosts=2, processes=False, object_store_memory="30 MB") as cluster,
        Client(cluster) as client,
    ):
        (((ours,),),) = [client.who_has(client.scatter(np.ones(100_000))).values()]
        (theirs,) = [node["address"] for node in cluster.nodes if node["address"] != ours]
        here = client.map(np.full, [NUMBERS] * 3, range(3), workers=[ours])
        there = client.map(np.full, [NUMBERS] * 6, range(3, 9), workers=[theirs])
        held = client.gather(here, writable=False)  # 24 of 30 MB, which can't go to disk
        read = [future.result() for future in there]
        assert [array[-1] for array in read] == list(range(3, 9))
        # One or two of ours may have gone to disk before they were looked at, and left room for as many of theirs.
        assert fetched == [future.object_id for future in there[: len(fetched)]]
        assert 1 <= len(fetched) <= 3
        assert [array[-1] for array in held] == [0, 1, 2]


def test_a_look_is_no_part_of_the_time_that_a_fetch_waits_for_room():
    """The failure of a fetch must come while a get waits for it, or it isn't heard of."""
    since_look = fetcher.ROOM_SECONDS % access.LOOK_SECONDS
    assert 0.5 < since_look < access.LOOK_SECONDS - 0.5
