"""Workers that are near their memory limit, that need more, and what is told of those that die."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from waiting import until

from holdfast import Client, KilledWorker, LocalCluster
from holdfast.cluster.node.memory_watch import PAUSE_SHARE, private_nbytes

LIMIT_NBYTES = 300 << 20


def die(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def hoard(folder: Path, share: float) -> int:
    """Take so much of what a worker may have, until it is told to let go."""
    taken = []
    while private_nbytes(os.getpid()) < share * LIMIT_NBYTES:
        taken.append(np.ones(1 << 18))  # 2 MiB
    (folder / "full").touch()
    while not (folder / "let go").exists():
        time.sleep(0.01)
    return os.getpid()


def devour() -> None:
    taken = []
    while True:
        taken.append(np.ones(1 << 18))
        time.sleep(0.002)


def workers(cluster: LocalCluster) -> dict[str, dict[str, object]]:
    return {name: worker for node in cluster.describe()["nodes"].values() for name, worker in node["workers"].items()}


def paused(cluster: LocalCluster) -> list[str]:
    return [address for address, worker in workers(cluster).items() if worker["paused"]]


def test_of_a_worker_that_was_killed_everything_is_told(tmp_path: Path) -> None:
    with (
        LocalCluster(
            1,
            1,
            object_store_memory="32 MiB",
            memory_limit=LIMIT_NBYTES,
            log_directory=tmp_path,
            silence_logs=False,
            name="w",
            scheduler_kwargs={"allowed_failures": 0},
        ) as cluster,
        Client(cluster) as client,
    ):
        future = client.submit(die, "the last that it has said", key="deadly")
        with pytest.raises(KilledWorker) as caught:
            future.result()
    error = caught.value
    assert error.task == "deadly"
    assert "was killed by SIGKILL, " in error.reason
    assert "MB used by itself" in error.reason
    assert "'deadly' was running on 1 workers that died" in str(error)
    assert error.reason in str(error)
    assert "the last that it has said" in str(error).splitlines()[-1]
    assert "w-0 may use 314.6 MB by itself" in (tmp_path / "w-0.log").read_text()


def test_of_a_worker_without_a_log_of_its_own_the_rest_is_told() -> None:
    with (
        LocalCluster(1, 1, object_store_memory="32 MiB", scheduler_kwargs={"allowed_failures": 0}) as cluster,
        Client(cluster) as client,
    ):
        future = client.submit(os._exit, 3)
        with pytest.raises(KilledWorker, match=r"exited with code 3, .* used by itself\)"):
            future.result()


def test_a_worker_that_needs_more_than_it_may_is_killed_and_the_error_says_so() -> None:
    with (
        LocalCluster(
            1, 1, object_store_memory="32 MiB", memory_limit=LIMIT_NBYTES, scheduler_kwargs={"allowed_failures": 0}
        ) as cluster,
        Client(cluster) as client,
    ):
        (address,) = client.nthreads()
        future = client.submit(devour)
        with pytest.raises(KilledWorker, match=r"exceeded its memory limit of 314.6 MB, [3-9]\d\d.* MB used by itself"):
            future.result()
        until(lambda: list(client.nthreads()) == [address], "another process has its place")
        assert client.submit(abs, -1).result() == 1


def test_a_worker_near_its_limit_gets_nothing_new_until_it_has_room_again(tmp_path: Path) -> None:
    with (
        LocalCluster(2, 1, object_store_memory="32 MiB", memory_limit=LIMIT_NBYTES) as cluster,
        Client(cluster) as client,
    ):
        holder = client.submit(hoard, tmp_path, PAUSE_SHARE + 0.1)
        until(lambda: (tmp_path / "full").exists() and paused(cluster), "it is paused")
        (address,) = paused(cluster)
        waits = client.submit(os.getpid, workers=[address])
        assert "is paused, since it uses nearly as much memory as it may" in str(client.explain(waits))
        others = client.map(lambda _: os.getpid(), range(20), pure=False)
        pids = set(client.gather(others))
        assert waits.status == "pending"
        (tmp_path / "let go").touch()
        pid = holder.result()
        assert pid not in pids
        assert waits.result() == pid, "which went on, and was not killed"
        until(lambda: not paused(cluster), "it is paused no more")
