"""Ctrl-C while a cluster begins or ends: nothing is left, and what was interrupted can be closed.

An interrupt is tried at one in so many of the points where it may come. The fixture that looks after each test sees
what is left of processes, sockets, directories and threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from holdfast import HoldfastError, LocalCluster, Nanny, ProcessInterface, Scheduler, SpecCluster, Worker
from holdfast.cluster.comm.loops import run
from holdfast.cluster.processes import run_directory
from tests.support.interrupts import Interrupt
from tests.support.waiting import until

SMALL = {"nthreads": 1, "object_store_memory": "64MB"}


def processes() -> Any:
    return LocalCluster(1, 1, object_store_memory="64MB")


def threads() -> Any:
    return LocalCluster(1, 1, object_store_memory="64MB", processes=False)


def parts() -> Any:
    return SpecCluster(workers={"a": {"cls": Worker, "options": SMALL}})


def left() -> tuple[int, int, list[str]]:
    """What there is of threads, processes and run directories."""
    mine = [thread for thread in threading.enumerate() if thread.name.startswith("holdfast-")]
    kinds = sorted(entry["kind"] for entry in run_directory.running())
    return len(mine), len(psutil.Process().children(recursive=True)), kinds


@contextlib.contextmanager
def nothing_stays() -> Iterator[None]:
    before = left()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of coroutines that never began
        yield
        gc.collect()
    until(lambda: left() == before, f"nothing is left; before there was {before}", 20)


@pytest.mark.parametrize(("make", "step"), [(processes, 331), (threads, 47), (parts, 19)])
def test_an_interrupt_leaves_nothing(make: Callable[[], Any], step: int) -> None:
    for at in range(1, 10_000, step):
        interrupt = Interrupt("holdfast.cluster.", at)
        with nothing_stays():
            _interrupted(make, interrupt)
        if interrupt.where is None:
            break
    else:
        pytest.fail("there is no end of it")


def _interrupted(make: Callable[[], Any], interrupt: Interrupt) -> None:
    cluster: Any = None
    try:
        with interrupt.armed():
            cluster = make()
            cluster.close()
    except KeyboardInterrupt:
        assert interrupt.where is not None
    if cluster is not None:
        cluster.close()
        assert cluster.closed


def test_a_second_close_waits_for_the_first(caplog: pytest.LogCaptureFixture) -> None:
    goes_on = threading.Event()

    class Slow(ProcessInterface):
        async def close(self) -> None:
            await asyncio.to_thread(goes_on.wait, 30)
            await super().close()

    with nothing_stays():
        cluster = SpecCluster(workers={"a": {"cls": Slow}})
        with pytest.raises(TimeoutError):
            cluster.close(timeout=0.05)
        assert not cluster.closed
        goes_on.set()
        cluster.close()
        assert cluster.closed
        assert cluster.scheduler.status == "closed"
    assert not caplog.records


def test_closing_that_is_cancelled_goes_on() -> None:
    goes_on = threading.Event()

    class Slow(Worker):
        async def close(self, *args: Any, **options: Any) -> None:
            await asyncio.to_thread(goes_on.wait, 30)
            await super().close()

    async def main() -> None:
        cluster = await SpecCluster(workers={"a": {"cls": Slow, "options": SMALL}}, asynchronous=True)
        (worker,) = cluster.workers.values()
        closing = asyncio.ensure_future(cluster.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        goes_on.set()
        await cluster.close()
        assert (worker.status, cluster.scheduler.status) == ("closed", "closed")

    with nothing_stays():
        run(main())


@pytest.mark.parametrize("kind", [Worker, Nanny])
def test_an_error_where_a_part_is_entered_leaves_nothing(kind: type[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Scheduler() as scheduler:
            with pytest.raises(HoldfastError, match="the preload 'no_such_module' failed"):
                async with kind(scheduler.address, preload="no_such_module", **SMALL):
                    pytest.fail("it can't start")
            assert not scheduler.workers
            with pytest.raises(ZeroDivisionError):
                async with kind(scheduler.address, **SMALL):
                    raise ZeroDivisionError
            assert not scheduler.workers

    with nothing_stays():
        run(main())


def test_a_scheduler_that_can_not_listen_leaves_nothing() -> None:
    async def main() -> None:
        async with Scheduler() as first:
            port = int(str(first.address).rpartition(":")[2])
            second = Scheduler(port=port)
            with pytest.raises(HoldfastError, match="in use"):
                await second
            assert second.status == "failed"

    with nothing_stays():
        run(main())
