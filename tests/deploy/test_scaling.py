"""Clusters that grow and shrink: `LocalCluster.scale`, and `Adaptive` with clusters of each kind."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import pytest

from holdfast import (
    Adaptive,
    Client,
    Cluster,
    HoldfastError,
    LocalCluster,
    Nanny,
    Scheduler,
    SpecCluster,
    Worker,
)
from holdfast.cluster.comm.loops import run
from tests.support.waiting import until

SMALL = {"object_store_memory": "64MB"}


def small(n_workers: int = 0, **options: Any) -> LocalCluster:
    return LocalCluster(n_workers, 1, **{**SMALL, **options})


def names(cluster: Cluster) -> set[str]:
    return {worker["name"] for worker in cluster.scheduler_info["workers"].values()}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with small(1, name="host") as cluster:
        yield cluster


@pytest.fixture
def one(cluster: LocalCluster) -> LocalCluster:
    """A cluster with one worker; what a test has made of it is undone before the next."""
    cluster.scale(1)
    until(lambda: len(names(cluster)) == 1 == len(cluster.workers), "it has one worker")
    return cluster


# -- by hand


@pytest.mark.parametrize("processes", [True, False])
def test_a_cluster_may_begin_without_workers(processes: bool) -> None:
    with small(processes=processes) as cluster, Client(cluster, set_as_default=False) as client:
        assert cluster.workers == cluster.worker_spec == {}
        assert repr(cluster).endswith("workers=0, threads=0)")
        data = client.scatter(np.ones(100_000))
        total = client.submit(np.sum, data)
        cluster.scale(2)
        assert total.result(timeout=30) == 100_000
        cluster.wait_for_workers(2, timeout=30)
        assert len(cluster.worker_spec) == len(cluster.workers) == 2
        cluster.scale(0)
        until(lambda: not names(cluster), "they have gone")
        assert (data.result() == 1).all(), "the store stays"


def test_workers_come_and_go(one: LocalCluster) -> None:
    (first,) = one.workers
    assert one.new_worker_spec().keys().isdisjoint(one.workers)
    one.scale(3)
    assert len(one.worker_spec) == 3
    one.wait_for_workers(timeout=30)
    assert one.plan == one.requested == one.observed == names(one)
    addresses = {worker.address for worker in one.workers.values()}
    assert addresses == set(one.scheduler_info["workers"])
    assert {spec["cls"] for spec in one.worker_spec.values()} == {Nanny}
    one.scale(1)
    assert list(one.workers) == [first]
    until(lambda: names(one) == {first}, "the youngest went")


def test_single_workers_go_by_name_or_address(one: LocalCluster) -> None:
    one.scale(3)
    one.wait_for_workers(3, timeout=30)
    _, second, third = one.workers.values()
    one.scale_down([second.name])
    one.scale_down([third.worker_address])
    until(lambda: names(one) == set(one.workers), "both are gone")
    assert len(one.workers) == 1


def test_a_busy_worker_ends_what_it_runs_and_idle_ones_go_first(one: LocalCluster, tmp_path: Path) -> None:
    one.scale(2)
    one.wait_for_workers(2, timeout=30)
    _idle, busy = one.workers.values()
    with Client(one, set_as_default=False) as client:
        waiting = client.submit(wait_for, str(tmp_path / "go"), workers=[busy.name], pure=False)
        until(lambda: any(each["processing"] for each in one.scheduler_info["workers"].values()), "it runs")
        one.scale(1)
        assert list(one.workers) == [busy.name]
        until(lambda: names(one) == {busy.name}, "the idle one went")
        one.scale(0)
        (tmp_path / "go").touch()
        assert waiting.result(timeout=30) != os.getpid()
        until(lambda: not names(one), "then the other one")


def wait_for(path: str) -> int:
    while not os.path.exists(path):
        time.sleep(0.005)
    return os.getpid()


def test_what_scale_means(one: LocalCluster) -> None:
    one.scale(cores=2)
    assert len(one.workers) == 2
    for wrong in (-1, "2", 1.5, 10**6):
        with pytest.raises(ValueError, match="n "):
            one.scale(wrong)  # type: ignore[arg-type]
    with small(memory_limit="100 MB", processes=False) as other:
        other.scale(memory="250 MB")
        assert len(other.workers) == 3
    with pytest.raises(HoldfastError, match="is not open"):
        other.scale(1)


def test_workers_are_spread_over_the_hosts() -> None:
    with small(2, n_hosts=2, name="pair", processes=False) as cluster:
        cluster.scale(5)
        cluster.wait_for_workers(5, timeout=30)
        hosts = [name.rpartition("-")[0] for name in names(cluster)]
        assert sorted(hosts.count(host) for host in set(hosts)) == [2, 3]


def test_an_agent_that_is_started_again_has_the_workers_that_there_are_to_be() -> None:
    with small(3, name="host") as cluster:
        cluster.scale_down(["host-1"])
        until(lambda: names(cluster) == {"host-0", "host-2"}, "one has gone")
        before = cluster.nodes[0]
        os.kill(before["pid"], 9)
        cluster.scale(3)  # while there is no agent, or a new one that has been told before
        assert set(cluster.workers) == {"host-0", "host-2", "host-3"}
        until(lambda: [node["address"] for node in cluster.nodes] not in ([], [before["address"]]), "it is there again")
        until(lambda: names(cluster) == {"host-0", "host-2", "host-3"}, "with all of them", 60)


@pytest.mark.parametrize("processes", [True, False])
def test_hosts_that_were_retired_are_there_again_when_they_are_to_have_workers(processes: bool) -> None:
    with small(2, n_hosts=2, processes=processes) as cluster, Client(cluster, set_as_default=False) as client:
        both = {node["address"] for node in cluster.nodes}
        first = sorted(client.nthreads())[0]
        kept = client.scatter(np.ones(100_000), hash=False)
        assert set(client.retire_workers(first)) == {first}
        until(lambda: len(cluster.nodes) == 1, "its host has gone with it")
        cluster.scale(4)
        until(lambda: names(cluster) == set(cluster.workers) and len(names(cluster)) == 4, "all workers are there", 60)
        assert len(both & {node["address"] for node in cluster.nodes}) == 1
        assert (kept.result() == 1).all()
        kept.release()
        client.retire_workers(list(client.nthreads()))
        cluster.scale(3)  # fewer than there were to be, and more than there are
        cluster.wait_for_workers(3, timeout=60)
        assert client.submit(abs, -1, pure=False).result(timeout=60) == 1


def test_a_loop_waits_for_hosts_that_were_retired_only_if_they_are_to_have_workers() -> None:
    async def main() -> None:
        async with small(1, asynchronous=True) as cluster, Client(cluster, asynchronous=True) as client:
            await client.retire_workers(list(await client.nthreads()))
            await cluster.scale(0)
            await cluster.scale(2)
            await client.wait_for_workers(2, timeout=60)
            assert await client.submit(abs, -1) == 1

    run(main())


def test_closing_while_it_scales_leaves_nothing() -> None:
    for n in (3, 0):
        with small(1) as cluster:
            cluster.scale(n)


# -- in a loop


def test_a_cluster_belongs_to_a_loop() -> None:
    async def main() -> None:
        cluster = small(1, asynchronous=True, scheduler_sync_interval="50 ms")
        assert repr(cluster) == "LocalCluster(created)"
        assert not cluster.closed
        with pytest.raises(HoldfastError, match="is not open"):
            _ = cluster.scheduler_address
        async with cluster, Client(cluster, asynchronous=True, set_as_default=False) as client:
            assert cluster.status == "running"
            await cluster.scale(2)
            await cluster.wait_for_workers(2, timeout=30)
            assert len(cluster.scheduler_info["workers"]) == 2
            assert cluster.asynchronous
            assert cluster.loop is asyncio.get_running_loop()
            made = client.submit(np.ones, 100_000)
            await made
            await cluster.scale(0)
            await cluster.refresh()
            assert cluster.observed == set()
            assert (await made).sum() == 100_000
        assert cluster.closed
        assert cluster.status == "closed"
        await cluster.close()

    run(main())


def test_cancelled_in_the_middle_it_leaves_nothing() -> None:
    async def main() -> None:
        async def live() -> None:
            async with small(1, asynchronous=True):
                await asyncio.sleep(600)

        for seconds in (0.0, 0.05, 0.3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(live(), seconds)

    run(main())


def test_a_client_in_a_loop_has_a_cluster_that_scales() -> None:
    async def main() -> None:
        async with Client(n_workers=0, threads_per_worker=1, asynchronous=True, **SMALL) as client:
            client.cluster.scale(1)
            assert await client.submit(pow, 2, 5) == 32

    run(main())


# -- by itself


def test_it_adapts_to_what_there_is_to_do(one: LocalCluster) -> None:
    adaptive = one.adapt(minimum=0, maximum=3, interval="20 ms", target_duration="100 ms", wait_count=2)
    try:
        assert adaptive.is_running
        until(lambda: not one.workers, "there is nothing to do")
        with Client(one, set_as_default=False) as client:
            gate = str(Path(os.environ["XDG_RUNTIME_DIR"]) / f"gate-{os.getpid()}")
            futures = client.map(wait_for, [gate] * 6, pure=False)
            until(lambda: len(names(one)) == 3, "there is work for more than the maximum")
            Path(gate).touch()
            assert len(client.gather(futures)) == 6
            os.unlink(gate)
            del futures
        until(lambda: not one.workers and not names(one), "they go when there is nothing to do")
        assert {entry["status"] for _, entry in adaptive.log} == {"up", "down"}
    finally:
        adaptive.stop()
    assert not adaptive.is_running


def test_limits_may_be_cores_or_memory(one: LocalCluster) -> None:
    adaptive = one.adapt(minimum_cores=2, maximum_cores=3, interval="20 ms")
    until(lambda: len(names(one)) == 2, "it has the minimum")
    assert (adaptive.minimum, adaptive.maximum) == (2, 3)
    again = one.adapt(maximum=1, interval=0)
    assert not adaptive.is_running
    assert not again.is_running
    with pytest.raises(ValueError, match="more than maximum"):
        one.adapt(minimum=3, maximum=2)
    with pytest.raises(ValueError, match="a number of workers"):
        one.adapt(minimum=-1)
    limit = one.worker_spec[next(iter(one.worker_spec))]["options"]["memory_limit"]
    assert one.adapt(maximum_memory=5 * limit, interval=0).maximum == 5
    assert one.adapt(minimum_memory=5 * limit - 1, interval=0).minimum == 5


def test_it_may_be_subclassed(one: LocalCluster) -> None:
    class Two(Adaptive):
        async def target(self) -> int:
            return 2

        async def workers_to_close(self, target: int) -> list[Any]:
            return sorted(self.observed)[target:]

    for option in ("Adaptive", "adaptive"):
        adaptive = one.adapt(interval="20 ms", wait_count=1, **{option: Two})
        assert type(adaptive) is Two
        until(lambda: len(names(one)) == 2, "it has two")
        adaptive.stop()
        one.scale(3)
        one.wait_for_workers(3, timeout=30)


def test_it_goes_on_when_its_target_fails_once(one: LocalCluster, caplog: pytest.LogCaptureFixture) -> None:
    failed = threading.Event()

    class Fickle(Adaptive):
        async def target(self) -> int:
            if not failed.is_set():
                failed.set()
                raise ZeroDivisionError
            return 2

    adaptive = one.adapt(Adaptive=Fickle, interval="20 ms")
    until(lambda: len(names(one)) == 2, "the next time was better")
    adaptive.stop()
    assert "adapting the cluster failed, and is tried again" in caplog.text


# -- what is recommended


class Still:
    """A cluster that is as a test says."""

    closed = False

    def __init__(self, plan: int, requested: int, observed: int) -> None:
        self.plan, self.requested, self.observed = set(range(plan)), set(range(requested)), set(range(observed))
        self.done: list[Any] = []

    async def refresh(self) -> None:
        pass

    def scale_up(self, n: int) -> None:
        self.done.append(n)

    async def scale_down(self, workers: list[int]) -> None:
        self.done.append(sorted(workers))


class Chosen(Adaptive):
    wanted = 0

    async def target(self) -> int:
        return self.wanted

    async def workers_to_close(self, target: int) -> list[Any]:
        return [str(name) for name in sorted(self.observed)[target:]]


def test_more_at_once_and_fewer_after_a_while() -> None:
    async def main() -> None:
        cluster = Still(3, 3, 3)
        adaptive = Chosen(cluster, interval=0, wait_count=3, minimum=1, maximum=10)
        adaptive.wanted = 20
        await adaptive.adapt()
        assert cluster.done == [10]
        adaptive.wanted = 0
        for _ in range(2):
            await adaptive.adapt()
        assert cluster.done == [10]
        assert adaptive.close_counts == {1: 2, 2: 2}
        await adaptive.adapt()
        assert cluster.done == [10, [1, 2]]
        assert await adaptive.recommendations(3) == {"status": "same"}
        assert adaptive.close_counts == {}
        assert await adaptive.recommendations(4) == {"status": "up", "n": 4}

    run(main())


def test_its_target_is_between_the_minimum_and_the_maximum() -> None:
    async def main() -> None:
        adaptive = Chosen(Still(1, 1, 1), interval=0, minimum=2, maximum=5)
        found = []
        for adaptive.wanted in (0, 2, 3, 5, 6):
            found.append(await adaptive.safe_target())
        assert found == [2, 2, 3, 5, 5]
        adaptive.maximum = math.inf
        assert await adaptive.safe_target() == 6

    run(main())


def test_the_scheduler_is_asked_though_nobody_has_asked_it_before() -> None:
    for ask, expected in ((Adaptive.safe_target, 1), (Adaptive.target, 0)):
        with small(1, processes=False) as cluster:
            assert cluster.sync(ask, Adaptive(cluster, interval=0, minimum=1)) == expected
    with small(1, processes=False) as cluster:
        adaptive = Adaptive(cluster, interval=0)
        assert cluster.sync(adaptive.workers_to_close, 0) == list(cluster.workers)
        assert adaptive.plan == adaptive.requested == adaptive.observed == set(cluster.workers)
        assert cluster.sync(adaptive.scheduler.identity)["address"] == cluster.scheduler_address


def test_those_that_have_not_come_go_first() -> None:
    async def main() -> None:
        adaptive = Chosen(Still(4, 4, 2), interval=0, wait_count=1)
        assert await adaptive.recommendations(3) == {"status": "down", "workers": [2]}
        (_, down) = (await adaptive.recommendations(1)).values()
        assert sorted(down) == [1, 2, 3]
        adaptive.stop()
        await adaptive.adapt()
        assert adaptive.cluster.done == []

    run(main())


def test_a_class_of_ones_own_says_how_it_grows() -> None:
    class Mine(Cluster):
        """As the page shows it: `scale_up` and `scale_down`."""

        def __init__(self, scheduler: Scheduler) -> None:
            super().__init__(asynchronous=True)
            self.scheduler = scheduler
            self.workers: dict[str, Worker] = {}

        @property
        def scheduler_address(self) -> str:
            return str(self.scheduler.address)

        async def scale_up(self, n: int) -> None:  # type: ignore[override]
            while len(self.workers) < n:
                name = f"w{len(self.workers)}"
                self.workers[name] = await Worker(self.scheduler_address, name=name, nthreads=1, **SMALL)

        async def scale_down(self, workers: list[str]) -> None:  # type: ignore[override]
            for name in workers:
                await self.workers.pop(name).close()

    async def main() -> None:
        async with Scheduler() as scheduler, Mine(scheduler) as mine:
            adaptive = mine.adapt(maximum=2, interval="20 ms", wait_count=1, target_duration="10 ms")
            async with Client(mine, asynchronous=True) as client:
                futures = client.map(pow, [2, 3], [5, 5])
                assert await client.gather(futures) == [32, 243]
                del futures
                while mine.workers:
                    await asyncio.sleep(0.01)
            adaptive.stop()
            with pytest.raises(NotImplementedError, match="has no scale"):
                Cluster.scale(mine, 1)

    run(main())


def test_a_spec_cluster_adapts() -> None:
    new = {"cls": Worker, "options": {"nthreads": 1, **SMALL}}
    with SpecCluster(worker=new) as cluster:
        assert not cluster.workers_bring_memory
        adaptive = cluster.adapt(minimum=1, maximum=math.inf, interval="20 ms", wait_count=1)
        until(lambda: len(names(cluster)) == 1, "it has the minimum")
        with Client(cluster, set_as_default=False) as client:
            made = client.map(np.ones, range(100_000, 100_020), pure=False)
            assert sum(array.size for array in client.gather(made)) == sum(range(100_000, 100_020))
            cluster.scale(3)
            until(lambda: len(names(cluster)) == 1 == len(cluster.workers), "the others go again")
            assert client.submit(sum, client.map(np.size, made)).result() == sum(range(100_000, 100_020))
        adaptive.stop()


def test_what_is_not_given_is_what_dasks_configuration_says() -> None:
    with dask.config.set(
        {
            "distributed.adaptive": {
                "minimum": 2,
                "maximum": 7,
                "wait-count": 5,
                "target-duration": "3s",
                "interval": "9s",
            }
        }
    ):
        adaptive = Adaptive()
        assert (adaptive.minimum, adaptive.maximum, adaptive.wait_count) == (2, 7, 5)
        assert (adaptive.target_duration, adaptive.interval) == (3, 9)
        assert Adaptive(minimum=1, interval="1s").minimum == 1
    assert (Adaptive().minimum, Adaptive().maximum, Adaptive().wait_count) == (0, math.inf, 3)


def test_a_cluster_that_adapts_is_garbage_like_any_other() -> None:
    cluster = adapted()

    def is_gone() -> bool:  # not while a look is under way
        gc.collect()
        return cluster() is None

    until(is_gone, "it is garbage")


def adapted() -> weakref.ref[LocalCluster]:
    cluster = small(1, processes=False)
    cluster.adapt(minimum=1, maximum=1, interval="10 ms")
    until(lambda: cluster.scheduler_comm is not None, "it has begun")
    return weakref.ref(cluster)
