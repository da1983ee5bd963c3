"""Workers begin anew, by processes and within a process, with each kind of client."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from waiting import until

from holdfast import CancelledError, Client, LocalCluster, NoWorkerError
from tests.support.kinds import OUTSIDE, run_in_task, run_outside


@pytest.fixture(scope="module", params=[True, False], ids=["processes", "in process"])
def fresh(request):
    """A cluster of this module: all its clients' futures are cancelled now and then."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, object_store_memory="64 MiB", processes=request.param
    ) as cluster:
        yield cluster


def pids(workers):
    return {each["name"]: each.get("pid") for each in workers.values()}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_restart(fresh, kind):
    async def case(client, got):
        data = await got(client.scatter(np.arange(100_000), hash=False))
        published = client.submit(np.arange, 100_000, pure=False)
        await got(client.publish_dataset(published, name="kept", override=True))
        running = client.submit(time.sleep, 0.5, pure=False)
        before = await got(client.scheduler_info())
        assert await got(client.restart(timeout=30)) is client
        after = await got(client.scheduler_info())
        assert after["workers"].keys() == before["workers"].keys()
        for future in (data, running, published):
            assert future.cancelled()
        with pytest.raises(CancelledError, match="restarted by"):
            await got(client.gather(data))
        assert await got(client.gather(client.map(abs, range(4), pure=False))) == [0, 1, 2, 3]
        kept = await got(client.get_dataset("kept"))
        assert (await got(client.gather(kept))).sum() == 4999950000
        await got(client.unpublish_dataset("kept"))

    run_outside(kind, fresh, case)


def test_processes_are_new():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, object_store_memory="64 MiB") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        before = {client.submit(os.getpid, workers=[w], pure=False).result() for w in client.nthreads()}
        with Client(cluster, set_as_default=False) as other:
            future = other.submit(abs, -1)
            assert future.result() == 1
            client.restart()
            until(future.cancelled, "the other client hears of it")
        after = {client.submit(os.getpid, workers=[w], pure=False).result() for w in client.nthreads()}
        assert len(before | after) == 4
        worker, *_ = client.nthreads()
        held = client.submit(np.arange, 100_000, workers=[worker], pure=False)
        held.result()
        assert client.restart_workers([worker]) == {worker: "OK"}
        assert client.submit(os.getpid, workers=[worker], pure=False).result() not in before | after
        assert held.result().sum() == 4999950000, "results stay"
        with pytest.raises(NoWorkerError):
            client.restart_workers("nobody")
        deaths = [place["deaths"] for place in client.scheduler_info()["places"].values()]
        assert not any(deaths), "nobody has died"


def test_a_task_is_told_that_it_would_end_itself(in_process):
    async def case(client, got):
        with pytest.raises(RuntimeError, match="can't restart"):
            client.restart()
        with pytest.raises(RuntimeError, match="own worker"):
            client.restart_workers(list(client.nthreads()))

    run_in_task(in_process, case)
