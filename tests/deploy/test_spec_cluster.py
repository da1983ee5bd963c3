"""`SpecCluster`: what there is becomes what the specification says."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest

from holdfast import Client, HoldfastError, Nanny, ProcessInterface, Scheduler, SpecCluster, Status, Worker
from holdfast.cluster.comm.loops import LoopThread, run
from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.deploy import spec_correction
from holdfast.cluster.node import NodeAgent
from holdfast.cluster.node.worker_plan import WorkerPlan
from holdfast.cluster.processes import restarts
from tests.support.waiting import until

SMALL = {"nthreads": 1, "object_store_memory": "64MB"}
WORKER = {"cls": Worker, "options": SMALL}


async def soon(condition: Any, what: str, seconds: float = 30.0) -> Any:
    deadline = asyncio.get_running_loop().time() + seconds
    while not (value := condition()):
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.01)
    return value


def names(cluster: SpecCluster) -> set[str]:
    return {worker["name"] for worker in cluster.scheduler_info["workers"].values()}


# -- as the page shows it


def test_the_example_of_the_page() -> None:
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": None}}
    workers = {
        "my-worker": {"cls": Worker, "options": {"nthreads": 1}},
        "my-nanny": {"cls": Nanny, "options": {"nthreads": 2}},
    }
    with SpecCluster(scheduler=scheduler, workers=workers) as cluster:
        assert cluster.worker_spec == workers
        assert {name: type(worker) for name, worker in cluster.workers.items()} == {
            "my-worker": Worker,
            "my-nanny": Nanny,
        }
        assert cluster.status == "running"
        assert cluster.plan == cluster.requested == cluster.observed == {"my-worker", "my-nanny"}
        assert repr(cluster).startswith(
            f"SpecCluster({cluster.name}, '{cluster.scheduler_address}', workers=2, threads=3"
        )
        assert "manual" in cluster._repr_html_()
        with Client(cluster, set_as_default=False) as client:
            assert client.submit(os.getpid, pure=False, workers=["my-worker"]).result() == os.getpid()
            assert client.submit(os.getpid, pure=False, workers=["my-nanny"]).result() != os.getpid()
    assert cluster.status == Status.closed
    assert cluster.closed
    cluster.close()


def test_scaling_adds_workers_of_the_given_form() -> None:
    with SpecCluster(worker=WORKER) as cluster:
        assert cluster.worker_spec == {}
        assert cluster.new_worker_spec() == {0: WORKER}
        cluster.scale(3)
        assert cluster.worker_spec == {0: WORKER, 1: WORKER, 2: WORKER}
        cluster.wait_for_workers(3, timeout=30)
        assert cluster.observed == {0, 1, 2}
        assert names(cluster) == {"0", "1", "2"}
        cluster.scale(1)
        assert list(cluster.worker_spec) == [0]
        until(lambda: names(cluster) == {"0"}, "the others have gone")
        until(lambda: list(cluster.workers) == [0], "they are closed")
        cluster.scale_up(2)
        cluster.wait_for_workers(timeout=30)
        assert cluster.plan == {0, 2}


def test_what_scale_means() -> None:
    new = {"cls": Worker, "options": {**SMALL, "nthreads": 2, "memory_limit": "1 GB"}}
    with SpecCluster(worker=new) as cluster:
        cluster.scale(cores=3)
        assert len(cluster.worker_spec) == 2
        cluster.scale(1, memory="2.5 GB")
        assert len(cluster.worker_spec) == 3
        for wrong in (-1, "2", True, 1.5):
            with pytest.raises(ValueError, match="a number of workers"):
                cluster.scale(wrong)  # type: ignore[arg-type]
    with pytest.raises(HoldfastError, match="is not open"):
        cluster.scale(1)
    with SpecCluster() as cluster, pytest.raises(ValueError, match="no specification of new workers"):
        cluster.scale(1)
    with SpecCluster(worker=WORKER) as cluster, pytest.raises(ValueError, match="can't be scaled by memory"):
        cluster.scale(memory="1 GB")


# -- in a loop


def test_it_belongs_to_a_loop() -> None:
    async def main() -> None:
        async with SpecCluster(worker=WORKER, asynchronous=True) as cluster:
            await cluster.scale(2)
            assert list(cluster.workers) == [0, 1]
            async with Client(cluster, asynchronous=True) as client:
                made = client.submit(np.arange, 100_000, workers=["1"])
                await made
                await cluster.scale(1)
                assert list(cluster.workers) == [0]
                assert await client.submit(np.sum, made) == sum(range(100_000))
                assert await cluster.sync(asyncio.sleep, 0, result=3) == 3
            del cluster.worker_spec[0]
            await cluster
            assert cluster.workers == {}
            cluster.worker_spec["late"] = WORKER
            await cluster
            await soon(lambda: "late" in names(cluster), "it looks now and then")
        assert cluster.status == "closed"
        await cluster.close()

    run(main())


def test_awaiting_opens_it_and_it_is_closed_by_awaiting() -> None:
    async def main() -> None:
        cluster = SpecCluster(workers={"a": WORKER}, asynchronous=True, scheduler_sync_interval="50 ms")
        with pytest.raises(HoldfastError, match="no scheduler that has started"):
            _ = cluster.scheduler_address
        assert await cluster is cluster
        client = await cluster.get_client()
        assert await client.submit(pow, 2, 5) == 32
        await client.close()
        with pytest.raises(TypeError, match="async with SpecCluster"):
            cluster.__enter__()
        await cluster.close()
        with pytest.raises(HoldfastError, match="make another one"):
            await cluster

    run(main())


def test_cancelled_in_the_middle_it_leaves_nothing() -> None:
    async def main() -> None:
        for turns in (0, 1, 3, 10, 30, 100, 300):
            cluster = SpecCluster(workers={"a": WORKER, "b": {"cls": Nanny, "options": SMALL}}, asynchronous=True)

            async def opened(cluster: SpecCluster = cluster) -> SpecCluster:
                return await cluster

            task = asyncio.ensure_future(opened())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await cluster.close()

    run(main())


# -- its ends


def test_garbage_is_closed() -> None:
    cluster = SpecCluster(workers={"a": WORKER})
    address = cluster.scheduler_address
    assert address.startswith("tcp://")
    del cluster
    gc.collect()


def test_the_end_of_a_script_closes_it() -> None:
    script = """
        from holdfast import Nanny, SpecCluster
        if __name__ == "__main__":
            cluster = SpecCluster(workers={"a": {"cls": Nanny, "options": {"nthreads": 1}}})
            cluster.scheduler_address
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr


class Broken(ProcessInterface):
    async def start(self) -> None:
        raise HoldfastError("no room for it")


def test_what_can_not_start_is_an_error_and_leaves_nothing() -> None:
    with pytest.raises(HoldfastError, match="no room for it"):
        SpecCluster(workers={"good": WORKER, "bad": {"cls": Broken}})
    with pytest.raises(HoldfastError, match="no room for it"):
        SpecCluster(scheduler={"cls": Broken}, workers={"good": WORKER})
    with pytest.raises(TypeError, match="has a class under 'cls'"):
        SpecCluster(workers={"a": {"options": {}}})
    with pytest.raises(ModuleNotFoundError):
        SpecCluster(workers={"a": {"cls": "no_such_module.Worker"}})


def test_its_parts_may_stay() -> None:
    async def main() -> None:
        scheduler = await Scheduler()
        cluster = SpecCluster(workers={"a": WORKER}, asynchronous=True, shutdown_on_close=False)
        cluster.scheduler = scheduler
        await cluster
        (worker,) = cluster.workers.values()
        await cluster.close()
        assert (scheduler.status, worker.status) == ("running", "running")
        await worker.close()
        await scheduler.close()

    run(main())


def test_it_silences_logs_while_it_is_open() -> None:
    logger = logging.getLogger("holdfast")
    before = logger.level
    with SpecCluster(silence_logs=logging.ERROR):
        assert logger.level == logging.ERROR
    assert logger.level == before


# -- jobs


class Job(ProcessInterface):
    """A worker as a job queue would bring it about: a while after it was asked for."""

    made: ClassVar[list[Job]] = []

    def __init__(self, scheduler: str, name: Any = None, processes: int = 1, arrives: bool = True) -> None:
        super().__init__(scheduler=scheduler, name=name)
        self.workers: list[Worker] = []
        self._processes = processes
        self._arrives = arrives
        Job.made.append(self)

    async def start(self) -> None:
        if self._arrives:
            suffixes = [""] if self._processes == 1 else [f"-{number}" for number in range(self._processes)]
            self.workers = [Worker(self.scheduler, name=f"{self.name}{suffix}", **SMALL) for suffix in suffixes]
            await asyncio.gather(*(worker.start() for worker in self.workers))
        await super().start()

    async def close(self) -> None:
        await asyncio.gather(*(worker.close() for worker in self.workers))
        await super().close()


@pytest.fixture(autouse=True)
def no_jobs() -> Iterator[None]:
    yield
    Job.made.clear()


def test_entries_that_make_several_workers() -> None:
    workers = {
        "0": {"cls": Job, "options": {"processes": 3}, "group": ["-0", "-1", "-2"]},
        1: {"cls": Job, "options": {"processes": 2}, "group": ["-0", "-1"]},
    }
    with SpecCluster(workers=workers) as cluster:
        assert cluster.plan == cluster.requested == cluster.observed == {"0-0", "0-1", "0-2", "1-0", "1-1"}
        assert sorted(each.name for each in cluster.scheduler.workers.values()) == ["0-0", "0-1", "0-2", "1-0", "1-1"]
        cluster.scale_down(["1-0"])
        assert list(cluster.worker_spec) == ["0"]
        until(lambda: names(cluster) == {"0-0", "0-1", "0-2"}, "the whole group has gone")
        (address, _) = next(iter(cluster.scheduler_info["workers"].items()))
        cluster.scale_down([address])
        until(lambda: names(cluster) == set(), "by address, too")


def test_classes_may_be_named() -> None:
    with SpecCluster(workers={"a": {"cls": "holdfast.Worker", "options": SMALL}}) as cluster:
        assert type(cluster.workers["a"]) is Worker


def test_a_worker_that_has_ended_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(restarts, "SPACING_SECONDS", 0.01)
    with SpecCluster(workers={"a": {"cls": Job}}, scheduler_sync_interval="20 ms") as cluster:
        first = cluster.workers["a"]
        cluster.sync(first.close)
        until(lambda: cluster.workers.get("a") not in (None, first), "there is another one")
        until(lambda: names(cluster) == {"a"}, "it has come")


def test_a_worker_that_is_lost_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_correction, "LOST_SECONDS", 0.05)
    monkeypatch.setattr(restarts, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(restarts, "SPACING_SECONDS", 0.01)
    with SpecCluster(workers={"a": {"cls": Job}}, scheduler_sync_interval="20 ms") as cluster:
        until(lambda: "a" in cluster._correction._seen, "it was seen")
        first = cluster.workers["a"]
        cluster.sync(first.workers[0].close)  # the job knows nothing of it
        until(lambda: cluster.workers.get("a") not in (None, first), "there is another one")
        assert first.status == "closed"


def test_workers_that_have_not_come_go_first() -> None:
    with SpecCluster(worker={"cls": Job, "options": {"arrives": False}}, workers={"a": {"cls": Job}}) as cluster:
        cluster.scale(3)
        until(lambda: len(cluster.workers) == 3, "they are asked for")
        assert cluster.observed == {"a"}
        cluster.scale(1)
        assert list(cluster.worker_spec) == ["a"]
        until(lambda: [job.status for job in Job.made] == ["running", "closed", "closed"], "the others are taken back")


def test_a_job_that_can_not_be_had_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(restarts, "SPACING_SECONDS", 0.01)
    failures = iter([True, True])

    class Fickle(Job):
        async def start(self) -> None:
            if next(failures, False):
                raise HoldfastError("not now")
            await super().start()

    with SpecCluster(worker={"cls": Fickle}, scheduler_sync_interval="20 ms") as cluster:
        cluster.scale(1)
        until(lambda: names(cluster) == {"0"}, "it is there in the end")
        assert len(Job.made) == 3


def test_a_process_interface_is_what_it_says() -> None:
    async def main() -> None:
        job = ProcessInterface(name="a")
        assert (job.status, job.address, job.external_address) == ("created", None, None)
        async with job:
            assert job.status == Status.running
            job.status = "closing"
            assert job.status is Status.closing
            with pytest.raises(ValueError, match="nonsense"):
                job.status = "nonsense"
        await job.finished()
        assert repr(job) == "<ProcessInterface 'a': closed>"

    run(main())


class Host(ProcessInterface):
    """A job that brings a host of its own, with a store and a worker."""

    def __init__(self, scheduler: str, name: Any = None) -> None:
        super().__init__(scheduler=scheduler, name=name)
        self._agent: Any = None

    async def start(self) -> None:
        self._agent = NodeAgent(
            str(self.scheduler), token=load_token(), n_workers=0, processes=False, store_capacity=64 << 20
        )
        self._thread = LoopThread("a-host-of-its-own")
        await self._thread.run_for(self._agent.start())
        plan = WorkerPlan(0, str(self.name), in_process=True)
        await self._thread.run_for(self._agent.workers.add(plan))
        await super().start()

    async def close(self) -> None:
        if self.status == "running":
            await self._thread.run_for(self._agent.close())
            await asyncio.to_thread(self._thread.close)
        await super().close()


def test_what_only_a_host_has_is_moved_before_it_goes() -> None:
    with SpecCluster(worker={"cls": Host}) as cluster, Client(cluster, set_as_default=False, attach=False) as client:
        assert cluster.workers_bring_memory
        cluster.scale(2)
        cluster.wait_for_workers(2, timeout=30)
        data = client.scatter(np.arange(100_000), workers=["1"], hash=False)
        cluster.scale(1)
        until(lambda: list(cluster.workers) == [0] and names(cluster) == {"0"}, "the other one has gone")
        assert int(data.result().sum()) == sum(range(100_000))


def test_the_last_one_that_has_data_stays(caplog: pytest.LogCaptureFixture) -> None:
    with SpecCluster(worker={"cls": Host}) as cluster, Client(cluster, set_as_default=False, attach=False) as client:
        cluster.scale(1)
        cluster.wait_for_workers(1, timeout=30)
        data = client.scatter(np.arange(100_000), hash=False)
        until(client.who_has, "the scheduler knows of it")
        cluster.scale(0)
        until(lambda: list(cluster.worker_spec) == [0] and "keeps the workers 0" in caplog.text, "it says why")
        assert int(data.result().sum()) == sum(range(100_000))
        assert client.submit(np.sum, data).result() == sum(range(100_000))
        del data
        until(lambda: not client.who_has(), "nothing is held any more")
        cluster.scale(0)
        until(lambda: not cluster.workers, "now it goes")


def test_its_logs() -> None:
    with SpecCluster(workers={"a": WORKER}) as cluster:
        cluster._log("submitted")
        (worker,) = cluster.scheduler_info["workers"]
        logs = cluster.get_logs()
        assert logs["Cluster"] == "submitted"
        assert set(logs) == {"Cluster", "Scheduler", worker}
        assert list(cluster.logs(cluster=False, scheduler=False, workers=[worker])) == [worker]
        assert cluster.get_logs(scheduler=False, workers=False) == {"Cluster": "submitted"}
