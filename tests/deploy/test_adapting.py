"""What an `Adaptive` does with a cluster that others change as well: by `scale`, by retiring workers, by a death."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast import Adaptive, Client, Cluster, HoldfastError, LocalCluster, ProcessInterface, SpecCluster, Worker
from holdfast.cluster.comm.loops import run
from holdfast.cluster.deploy import local_scaling
from tests.support.waiting import until

SMALL = {"object_store_memory": "64MB"}
SOON = "20 ms"


def names(cluster: Cluster) -> set[str]:
    return {worker["name"] for worker in cluster.scheduler_info["workers"].values()}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """Two hosts with two workers each. What does not come is missed at once."""
    monkeypatch.setattr(local_scaling, "COMING_SECONDS", 0.1)
    with LocalCluster(4, 1, processes=False, n_hosts=2, name="pair", **SMALL) as cluster:
        yield cluster


def test_workers_and_hosts_that_were_retired_come_back(quick: LocalCluster) -> None:
    adaptive = quick.adapt(minimum=4, maximum=4, interval=SOON)
    with Client(quick, set_as_default=False) as client:
        first, *_ = sorted(client.nthreads())
        client.retire_workers([first])
        until(lambda: len(names(quick)) == 4, "the worker is there again")
        of_one_host = [address for address in client.nthreads() if address.startswith(first.rpartition("/")[0])]
        client.retire_workers(of_one_host)
        until(lambda: len(names(quick)) == 4, "its host is there again")
        assert client.submit(abs, -1, pure=False).result(timeout=60) == 1
    assert quick.plan == quick.observed == quick.requested
    assert {"status": "up", "n": 4} in [recommended for _, recommended in adaptive.log]


def test_what_was_retired_is_not_requested_and_not_shown(quick: LocalCluster) -> None:
    with Client(quick, set_as_default=False) as client:
        host = sorted(client.nthreads())[0].rpartition("/")[0]
        client.retire_workers([address for address in client.nthreads() if address.startswith(host)])
        until(lambda: len(quick.requested) == 2, "two of four are there, and the others don't come by themselves")
        until(lambda: len(quick.nodes) == 1, "their host has gone")
    assert "workers=2, threads=2, hosts=1" in repr(quick)
    assert ">2 of 4<" in quick._repr_html_()
    assert ">1 of 2<" in quick._repr_html_()


def test_scaling_by_hand_is_undone_by_the_next_look(quick: LocalCluster) -> None:
    adaptive = quick.adapt(minimum=3, maximum=3, interval=SOON, wait_count=1)
    until(lambda: len(names(quick)) == 3, "it has the minimum")
    quick.scale(5)
    until(lambda: len(quick.plan) == 3 == len(names(quick)), "and has it again")
    adaptive.stop()
    quick.scale(4)
    quick.wait_for_workers(4, timeout=30)
    assert len(quick.plan) == 4


def test_a_second_call_takes_the_place_of_the_first(quick: LocalCluster) -> None:
    first = quick.adapt(minimum=2, maximum=5, interval=SOON, wait_count=7)
    second = quick.adapt()
    assert not first.is_running
    assert second.is_running
    assert (second.interval, second.wait_count) == (first.interval, 7), "options stay"
    assert (second.minimum, second.maximum) == (0, float("inf")), "limits don't"


def test_none_is_what_the_configuration_says_also_after_something_else(quick: LocalCluster) -> None:
    assert not quick.adapt(interval=0, minimum=4).is_running
    assert not quick.adapt(minimum=4).is_running
    assert not quick.adapt(interval=False, minimum=4).is_running
    third = quick.adapt(interval=None, minimum=4)
    assert third.is_running
    assert third.interval == 1.0


def test_limits_of_nothing_and_of_less_than_a_worker() -> None:
    with LocalCluster(0, 2, processes=False, memory_limit="100 MB", **SMALL) as cluster:
        assert cluster.adapt(minimum_memory="0 GiB", minimum_cores=0, interval=0).minimum == 0
        assert cluster.adapt(maximum_memory=0, interval=0).maximum == 0
        cluster.scale(memory="0 GB", cores=0)
        assert cluster.plan == set()
        still = cluster.adapt(maximum_cores=5, maximum_memory="1 GB", interval="1 hour")
        assert still.maximum == 2
        for wrong, what in (
            ({"maximum_cores": 1}, "maximum_cores=1 is less than one worker has"),
            ({"maximum_memory": "99 MB"}, "maximum_memory='99 MB' is less than one worker has"),
            ({"minimum_cores": -1}, "cores are a number from 0 on"),
            ({"minimum_memory": "much"}, "'much' is not a size"),
            ({"minimum": 3, "maximum": 2}, "more than maximum"),
            ({"maximum": True}, "a number of workers"),
        ):
            with pytest.raises(ValueError, match=what):
                cluster.adapt(**wrong)
        assert still.is_running, "what was so far goes on"
    with pytest.raises(HoldfastError, match="is not open any more"):
        cluster.adapt()
    assert not still.is_running


def test_a_worker_that_dies_comes_back() -> None:
    with LocalCluster(1, 1, **SMALL) as cluster, Client(cluster, set_as_default=False) as client:
        cluster.adapt(minimum=1, maximum=1, interval=SOON)
        pid = client.submit(os.getpid, pure=False).result()
        os.kill(pid, signal.SIGKILL)
        until(lambda: client.submit(os.getpid, pure=False).result(timeout=60) != pid, "another process is there")
        assert len(cluster.plan) == 1


# -- several workers at once


class Job(ProcessInterface):
    """A job with two workers."""

    def __init__(self, scheduler: str, name: Any = None) -> None:
        super().__init__(scheduler=scheduler, name=name)
        self.workers = [Worker(scheduler, name=f"{name}{suffix}", nthreads=1, **SMALL) for suffix in ("-0", "-1")]

    async def start(self) -> None:
        await asyncio.gather(*self.workers)
        await super().start()

    async def close(self) -> None:
        await asyncio.gather(*(worker.close() for worker in self.workers))
        await super().close()


GROUP = {"cls": Job, "group": ["-0", "-1"]}


def test_workers_that_are_made_together_come_and_go_together() -> None:
    async def main() -> None:
        async with SpecCluster(worker=GROUP, asynchronous=True) as cluster:
            adaptive = Adaptive(cluster, interval=0, wait_count=1, minimum=3)
            await adaptive.adapt()
            assert sorted(cluster.plan) == ["0-0", "0-1", "1-0", "1-1"], "as many jobs as have three workers"
            assert cluster.entry_of("1-0") == 1
            await cluster.wait_for_workers(4, timeout=30)
            adaptive.minimum = 1
            await adaptive.adapt()
            assert len(cluster.workers) == 1, "one of the jobs goes, and not one worker of each"
            (job,) = cluster.workers.values()
            await job.workers[0].close()
            await cluster.refresh()
            assert len(cluster.observed) == 1
            await adaptive.adapt()
            assert list(cluster.workers.values()) == [job], "what is missing of a job does not take the rest along"

    run(main())


# -- when it stops in the middle


def test_what_it_has_begun_comes_to_its_end_when_it_stops() -> None:
    begins, goes_on = threading.Event(), threading.Event()

    class Slow(Worker):
        async def start(self) -> None:
            begins.set()
            await asyncio.to_thread(goes_on.wait)
            await super().start()

    with SpecCluster(worker={"cls": Slow, "options": {"nthreads": 1, **SMALL}}) as cluster:
        adaptive = cluster.adapt(minimum=1, interval=SOON)
        assert begins.wait(30)
        adaptive.stop()
        goes_on.set()
        until(lambda: names(cluster) == {"0"}, "the worker is there all the same")
