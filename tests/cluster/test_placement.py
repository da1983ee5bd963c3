"""Where and when tasks run, in real clusters."""

from __future__ import annotations

import pytest
from waiting import until

from holdfast import Client, LocalCluster, wait


@pytest.fixture
def client():
    with LocalCluster(n_workers=2, threads_per_worker=1, object_store_memory="64 MiB") as cluster, Client(cluster) as c:
        yield c


def usually_short(number, gate):
    """One of them waits until it may end."""
    if number == 500:
        until(gate.exists, "this one may end")
    return number


def test_a_long_task_does_not_hold_up_short_ones_that_were_sent_behind_it(client, tmp_path):
    gate = tmp_path / "gate"
    futures = client.map(usually_short, range(2000), gate=gate)
    try:
        wait(futures[:500] + futures[501:], timeout=20)
        assert not futures[500].done()
    finally:
        gate.touch()
    assert client.gather(futures) == list(range(2000))
