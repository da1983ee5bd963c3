"""Results that don't fit into a host's store go to disk, and are read there by tasks and clients as if they hadn't."""

from __future__ import annotations

import numpy as np
from waiting import DEADLINE_SECONDS

from holdfast import Client, LocalCluster, wait

CAPACITY = 32 << 20
COUNT = 100
NBYTES = 10 * CAPACITY // COUNT


def random_bytes(seed):
    return np.random.default_rng(seed).integers(0, 256, NBYTES, "u1")


def is_right(value, seed):
    return bool((value == random_bytes(seed)).all())


def test_a_workload_of_ten_times_the_store_completes_with_every_byte_right(tmp_path):
    with (
        LocalCluster(2, 1, object_store_memory=CAPACITY, spill_directory=tmp_path) as cluster,
        Client(cluster) as client,
    ):
        futures = client.map(random_bytes, range(COUNT))
        wait(futures, DEADLINE_SECONDS)
        on_disk = sum(path.stat().st_size for path in tmp_path.glob("holdfast-spill-*/[0-9]*"))
        assert on_disk > 8 * CAPACITY
        checked = client.map(is_right, futures, range(COUNT))
        assert all(client.gather(checked))
        assert all(is_right(future.result(DEADLINE_SECONDS), seed) for seed, future in enumerate(futures))
        del futures, checked
    assert not list(tmp_path.iterdir()), "files were left behind"
