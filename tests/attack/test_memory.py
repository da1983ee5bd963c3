"""Memory that there is: in a control group that is smaller than the machine, nobody is killed for what others took."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from control_group import ControlGroup, control_group

MB = 10**6
LIMIT_NBYTES = 800 * MB


@pytest.fixture
def group() -> Iterator[ControlGroup]:
    try:
        made = control_group(LIMIT_NBYTES)
        entered = made.__enter__()
    except OSError as error:
        pytest.skip(f"this machine lets nobody make control groups: {error}")
    try:
        yield entered
    finally:
        made.__exit__(None, None, None)


def test_defaults_follow_the_group_above(group: ControlGroup) -> None:
    code = """
import json
from holdfast.cluster.deploy.plan import plan_nodes
from holdfast.objectstore.system.memory_limits import available_memory, default_capacity, memory_limit
(plan,) = plan_nodes(2)
print(json.dumps([memory_limit(), available_memory(), default_capacity(), plan.store_capacity, plan.memory_limit]))
"""
    result = group.run(code)
    assert result.returncode == 0, result.stderr
    limit, available, capacity, planned, of_worker = json.loads(result.stdout)
    assert limit == pytest.approx(LIMIT_NBYTES, abs=4096)
    assert LIMIT_NBYTES / 2 < available < LIMIT_NBYTES
    assert capacity == planned == int(limit * 0.3)
    assert planned + 2 * of_worker < LIMIT_NBYTES - 100 * MB


def test_a_cluster_with_defaults_lives_in_a_small_address_space() -> None:
    # Each process maps the store, those that write to it twice.
    code = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (4_000_000_000, 4_000_000_000))
from holdfast import Client
if __name__ == "__main__":
    with Client() as client:
        print(client.submit(sum, client.map(abs, range(-3, 0))).result())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.stdout == "6\n", result.stderr


def test_a_cluster_with_defaults_lives_in_a_small_group(group: ControlGroup) -> None:
    # More data than the group may have, and a task that takes all that it can get.
    code = """
import time
import numpy as np
from holdfast import Client
from holdfast.cluster.errors import KilledWorker

def make(number):
    return np.full(5_000_000, number, dtype="int64")  # 40 MB

def devour():
    hoard = []
    while True:
        hoard.append(np.ones(1_000_000))  # 8 MB
        time.sleep(0.02)

if __name__ == "__main__":
    with Client() as client:
        kept = client.map(make, range(25))
        sums = client.map(lambda array: int(array.sum()), kept)
        assert client.gather(sums) == [5_000_000 * number for number in range(25)]
        try:
            client.submit(devour).result()
        except KilledWorker as error:
            print(error)
        sums = client.map(lambda array: int(array[::2].sum()), kept)
        assert client.gather(sums) == [2_500_000 * number for number in range(25)]
    print("all right")
"""
    result = group.run(code)
    assert result.returncode == 0, (result, group.killed)
    assert result.stdout.endswith("all right\n"), result
    assert "exceeded its memory limit of" in result.stdout
    assert group.killed == 0


def test_a_worker_that_the_kernel_kills_for_the_group_is_said_to_be(group: ControlGroup) -> None:
    code = """
import numpy as np
from holdfast import Client, LocalCluster
from holdfast.cluster.errors import KilledWorker

def devour():
    hoard = []
    while True:
        hoard.append(np.ones(1_000_000))

if __name__ == "__main__":
    options = {"allowed_failures": 0}
    with LocalCluster(1, 1, object_store_memory="32 MB", memory_limit=0, scheduler_kwargs=options) as cluster:
        with Client(cluster) as client:
            try:
                client.submit(devour).result()
            except KilledWorker as error:
                print(error.reason)
            (node,) = cluster.describe()["nodes"].values()
            print(node["memory"])
"""
    result = group.run(code)
    assert result.returncode == 0, (result, group.killed)
    reason, limit = result.stdout.splitlines()
    assert reason.startswith("was killed by SIGKILL, ")
    assert "; the kernel killed for want of memory: 800.0 MB for all, by /" in reason
    assert "'nbytes': 799" in limit or "'nbytes': 800" in limit
    assert group.killed == 1
