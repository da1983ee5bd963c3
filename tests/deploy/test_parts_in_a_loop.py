"""`Scheduler`, `Worker` and `Nanny` in the event loop that they are made in. Nothing stays behind."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import psutil
import pytest

from holdfast import Client, ConnectError, HoldfastError, Nanny, Scheduler, Status, Worker
from holdfast.cluster.comm.loops import run
from holdfast.cluster.deploy import local_node
from holdfast.cluster.processes import run_directory

SMALL = {"object_store_memory": "64MB"}


@asynccontextmanager
async def cluster(**options: Any) -> AsyncIterator[tuple[Scheduler, Worker, Client]]:
    """A scheduler with a worker, and an asynchronous client."""
    async with (
        Scheduler(port=0) as scheduler,
        Worker(scheduler.address, **{"nthreads": 1, "name": "alice", **SMALL, **options}) as worker,
        Client(scheduler.address, asynchronous=True, set_as_default=False) as client,
    ):
        yield scheduler, worker, client


async def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    deadline = asyncio.get_running_loop().time() + seconds
    while not (value := condition()):
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.005)
    return value


# -- what they are


def test_a_cluster_lives_in_one_loop_without_a_process() -> None:
    async def main() -> None:
        async with cluster(nthreads=2, resources={"GPU": 1}) as (scheduler, worker, client):
            assert await client.submit(os.getpid, resources={"GPU": 1}) == os.getpid()
            assert psutil.Process().children() == []
            (view,) = scheduler.workers.values()
            assert (view.name, view.nthreads, dict(view.resources)) == ("alice", 2, {"GPU": 1})
            assert worker.address == worker.worker_address == view.address
            assert scheduler.total_nthreads == 2
            assert list(scheduler.clients) == [client.id]
            assert scheduler.identity()["address"] == scheduler.address
            assert scheduler.identity()["id"] == scheduler.id
            assert worker.pid == os.getpid()
            assert (scheduler.status, worker.status) == ("running", Status.running)
            assert repr(worker) == f"<Worker 'alice' {worker.address}: running>"
            assert "alice" in worker._repr_html_()
            await client.submit(np.ones, 100_000)
        assert (scheduler.status, worker.status) == ("closed", "closed")
        await scheduler.finished()
        await worker.finished()

    run(main())


def test_it_works_in_asyncios_own_loop_too() -> None:
    async def main() -> int:
        async with cluster() as (_, _, client):
            return int(await client.submit(sum, [1, 2]))

    assert asyncio.run(main()) == 3


def test_awaiting_starts_one_and_twice_is_no_error() -> None:
    async def main() -> None:
        scheduler = await Scheduler()
        assert await scheduler is scheduler
        host, port = scheduler.address.removeprefix("tcp://").split(":")
        worker = await Worker(host, int(port), nthreads=1, **SMALL)
        assert str(worker.name).endswith("-0")
        for _ in range(2):
            await worker.close()
            await scheduler.close()

    run(main())


def test_workers_of_one_process_share_a_store() -> None:
    async def main() -> None:
        async with cluster() as (scheduler, _, client), Worker(scheduler.address, nthreads=1, name="bob") as bob:
            assert len({view.host for view in scheduler.workers.values()}) == 1
            made = client.submit(np.arange, 100_000, workers=["alice"])
            assert await client.submit(np.sum, made, workers=["bob"]) == sum(range(100_000))
            assert bob.nthreads == 1

    run(main())


def test_results_outlive_the_workers_that_made_them() -> None:
    async def main() -> None:
        async with Scheduler() as scheduler, Client(scheduler.address, asynchronous=True) as client:
            async with Worker(scheduler.address, nthreads=1, **SMALL):
                made = client.submit(np.arange, 100_000)
                data = await client.scatter(np.ones(100_000))
                await made
            await until(lambda: not scheduler.workers, "it has left")
            async with Worker(scheduler.address, nthreads=1):
                assert await client.submit(np.sum, made) == sum(range(100_000))
                assert await client.submit(np.sum, data) == 100_000

    run(main())


def test_without_a_scheduler_in_the_loop_the_last_worker_takes_the_store_along() -> None:
    async def main() -> None:
        from holdfast import LocalCluster

        async with LocalCluster(n_workers=0, asynchronous=True, processes=False, **SMALL) as outside:
            async with Worker(outside.scheduler_address, nthreads=1, **SMALL) as worker:
                await until(lambda: len(run_directory.running("node")) == 2, "it has a node of its own")
                assert worker.status == "running"
            assert len(run_directory.running("node")) == 1

    run(main())


# -- a worker in a process


def test_a_nanny_has_its_worker_in_a_process_that_is_started_again() -> None:
    async def main() -> None:
        async with (
            Scheduler() as scheduler,
            Nanny(scheduler.address, nthreads=1, name="bob", env={"COLOUR": "red"}, **SMALL) as nanny,
            Client(scheduler.address, asynchronous=True) as client,
        ):
            pid = await client.submit(os.getpid)
            assert pid == nanny.pid != os.getpid()
            assert await client.submit(os.getenv, "COLOUR") == "red"
            await nanny.kill()
            await until(lambda: nanny.pid not in (None, pid), "another process is there")
            assert await client.submit(os.getpid, pure=False) == nanny.pid
            assert nanny.status == "running"
            assert nanny.worker is None
            assert list(scheduler.workers) == [nanny.worker_address]

    run(main())


def test_a_nanny_has_a_limit_of_memory() -> None:
    async def main() -> None:
        async with (
            Scheduler() as scheduler,
            Nanny(scheduler.address, nthreads=1, memory_limit="1 GB", **SMALL) as nanny,
        ):
            (view,) = scheduler.workers.values()
            assert view.resources["memory"] == nanny.memory_limit == 10**9
            assert Nanny(scheduler.address, nthreads=1, memory_limit=0).memory_limit is None
            assert (Nanny(scheduler.address, nthreads=1).memory_limit or 0) > 64 << 20

    run(main())


# -- options


def test_preloads_are_run_and_torn_down(tmp_path: Path) -> None:
    file = tmp_path / "first.py"
    file.write_text("seen = []\nasync def dask_setup(worker):\n    worker.greeting = 'hello'\n")
    log = tmp_path / "log"
    code = f"def dask_teardown(worker):\n    open({str(log)!r}, 'w').write(worker.name)\n"

    async def main() -> None:
        async with cluster(preload=[str(file), code]) as (_, worker, _):
            assert worker.worker.greeting == "hello"
            assert not log.exists()

    run(main())
    assert log.read_text() == "alice"


def test_a_preload_that_fails_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with Scheduler() as scheduler:
            for kind in (Worker, Nanny):
                with pytest.raises(HoldfastError, match="the preload 'no_such_module' failed: ModuleNotFoundError"):
                    await kind(scheduler.address, nthreads=1, preload="no_such_module", **SMALL)
            assert not scheduler.workers

    run(main())


def test_a_click_command_gets_its_arguments(tmp_path: Path) -> None:
    file = tmp_path / "first.py"
    file.write_text(
        "import click\n@click.command()\n@click.option('--colour')\ndef dask_setup(worker, colour):\n"
        "    worker.colour = colour\n"
    )

    async def main() -> None:
        async with cluster(preload=str(file), preload_argv=["--colour", "blue"]) as (_, worker, _):
            assert worker.worker.colour == "blue"

    run(main())


def test_a_scheduler_file_leads_to_the_scheduler(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"

    async def main() -> None:
        async with Scheduler(scheduler_file=file) as scheduler:
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            said = json.loads(file.read_text())
            assert (said["address"], said["id"], said["workers"]) == (scheduler.address, scheduler.id, {})
            assert scheduler.token.decode() not in file.read_text()
            async with (
                Worker(scheduler_file=str(file), nthreads=1, name="alice", **SMALL),
                Client(scheduler_file=file, asynchronous=True) as client,
            ):
                assert await client.submit(pow, 2, 5) == 32
                await until(lambda: "alice" in file.read_text(), "it says which workers there are")
        assert not file.exists()

    run(main())


def test_what_is_no_scheduler_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    with pytest.raises(HoldfastError, match="there is no scheduler file"):
        Worker(scheduler_file=file)
    for text in ("", "[]", '{"address": 3}', '{"address": "nonsense:x"}', "\xff"):
        file.write_text(text)
        with pytest.raises(HoldfastError, match="is no scheduler file"):
            Worker(scheduler_file=file)
    with pytest.raises(TypeError, match="not both"):
        Worker("tcp://127.0.0.1:1", scheduler_file=file)
    with pytest.raises(TypeError, match="needs the address"):
        Worker()


def test_blocked_handlers_are_refused() -> None:
    async def main() -> None:
        async with (
            Scheduler(blocked_handlers=["ncores", "feed"]) as scheduler,
            Client(scheduler.address, asynchronous=True) as client,
        ):
            with pytest.raises(PermissionError, match="blocked_handlers"):
                await client.nthreads()
            assert (await client.scheduler_info())["address"] == scheduler.address

    run(main())


def test_functions_may_be_blocked() -> None:
    async def main() -> None:
        async with (
            Scheduler(blocked_handlers=["run_function"]) as scheduler,
            Worker(scheduler.address, nthreads=1, **SMALL),
            Client(scheduler.address, asynchronous=True) as client,
        ):
            for call in (client.run, client.run_on_scheduler):
                with pytest.raises(PermissionError, match="blocked_handlers"):
                    await call(os.getpid)
            assert await client.submit(pow, 2, 5) == 32

    run(main())


def test_what_has_no_effect_says_so() -> None:
    with pytest.warns(UserWarning, match="dashboard_address=':0' has no effect: there is no dashboard"):
        Scheduler(dashboard_address=":0")
    with pytest.warns(UserWarning, match="lifetime='1 hour' has no effect"):
        Worker("tcp://127.0.0.1:1", nthreads=1, lifetime="1 hour")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Scheduler(dashboard_address=None, protocol="tcp://", loop=None)
        Nanny("tcp://127.0.0.1:1", nthreads=1, dashboard=False, death_timeout=None)
    with pytest.raises(TypeError, match="did you mean 'resources'"):
        Worker("tcp://127.0.0.1:1", resurces={"GPU": 1})


def test_encryption_is_refused_where_others_could_read() -> None:
    with pytest.warns(UserWarning, match="nobody beyond this machine"):
        Scheduler(security=True)
    with pytest.raises(TypeError, match="can't be had for a cluster that others can reach"):
        Scheduler(host="0.0.0.0", security=True)
    with pytest.raises(TypeError, match="can't be had for a cluster that others can reach"):
        Scheduler(host="0.0.0.0", protocol="tls://")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"nthreads": 0}, ValueError),
        ({"nthreads": 1, "ncores": 2}, TypeError),
        ({"memory_limit": "much"}, ValueError),
        ({"resources": {"GPU": "two"}}, TypeError),
        ({"preload": [1]}, TypeError),
        ({"preload": ["a"], "preload_argv": [["x"], ["y"]]}, ValueError),
        ({"interface": "no-such-interface"}, ValueError),
        ({"scheduler_ip": 3}, TypeError),
        ({"security": object(), "host": "0.0.0.0"}, TypeError),
    ],
)
def test_what_can_not_be_is_refused_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Worker(**{"scheduler_ip": "tcp://127.0.0.1:1", **options})


# -- ends


def test_the_scheduler_that_ends_ends_its_workers() -> None:
    async def main() -> None:
        scheduler = await Scheduler()
        worker = await Worker(scheduler.address, nthreads=1, **SMALL)
        async with Client(scheduler.address, asynchronous=True) as client:
            await client.shutdown()
        await asyncio.wait_for(worker.finished(), 30)
        await asyncio.wait_for(scheduler.finished(), 30)
        assert (scheduler.status, worker.status) == ("closed", "closed")

    run(main())


def test_there_is_no_scheduler_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.cluster.node.scheduler_link.CONNECT_TIMEOUT_SECONDS", 0.1)

    async def main() -> None:
        async with Scheduler() as scheduler:
            address = scheduler.address
        worker = Worker(address, nthreads=1, **SMALL)
        with pytest.raises(ConnectError):
            await worker
        assert worker.status == "failed"

    run(main())


def test_a_port_in_use_is_named() -> None:
    async def main() -> None:
        async with Scheduler() as scheduler:
            port = int(scheduler.address.rpartition(":")[2])
            with pytest.raises(ConnectError, match=f"port {port} of 127.0.0.1 is in use"):
                await Scheduler(port=port)

    run(main())


@pytest.mark.parametrize("kind", [Worker, Nanny])
def test_cancelled_in_the_middle_it_leaves_nothing(kind: type[Worker]) -> None:
    async def cut(awaitable: Awaitable[Any], turns: int) -> bool:
        task = asyncio.ensure_future(awaitable)
        for _ in range(turns):
            await asyncio.sleep(0)
            if task.done():
                break
        task.cancel()
        try:
            await (await task).close()
        except asyncio.CancelledError:
            return True
        return False

    async def main() -> None:
        async with Scheduler() as scheduler:
            for turns in (0, 1, 2, 5, 20, 100):

                async def start() -> Any:
                    return await kind(scheduler.address, nthreads=1, **SMALL)

                assert await cut(start(), turns) or turns > 2
            await until(lambda: not scheduler.workers, "none is left")

    run(main())


def test_a_block_that_is_left_by_an_error_leaves_nothing() -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with cluster() as (_, _, client):
                await client.submit(divmod, 1, 0)
        assert not local_node._table_here()

    run(main())


def test_keywords_of_dask_have_their_effect_or_say_why_not(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.warns(UserWarning, match="no code of yours runs in a scheduler's process"):
            scheduler = Scheduler(preload="module", no_workers_timeout="50 ms", delete_interval=None)
        async with scheduler, Client(scheduler.address, asynchronous=True) as client:
            with pytest.raises(HoldfastError, match="the cluster has none"):
                await client.submit(abs, -1)
            for keyword, value, why in (
                ("port", 4000, "nothing connects with a worker"),
                ("validate", True, "only a scheduler checks itself"),
                ("listen_address", "tcp://", "nothing connects with a worker"),
            ):
                with pytest.warns(UserWarning, match=f"{keyword}=.* has no effect: .*{why}"):
                    Worker(scheduler.address, **{keyword: value})
            with pytest.raises(TypeError, match="local_directory is given twice"):
                Worker(scheduler.address, local_dir="a", local_directory="b")
            with dask.config.set({"array.chunk-size": "3 MiB"}):
                nanny = Nanny(
                    scheduler.address,
                    worker_kwargs={"nthreads": 3, "name": "x"},
                    name="bob",
                    local_dir=tmp_path,
                    **SMALL,
                )
                await nanny
            async with nanny:
                assert (nanny.nthreads, nanny.name) == (3, "bob")
                assert list(tmp_path.iterdir()), "the store has its place there"
                assert await client.submit(dask.config.get, "array.chunk-size") == "3 MiB"

    run(main())
