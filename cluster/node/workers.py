"""All workers of a host: those that it begins with, and those that come and go while it runs.

Each worker is a process that is started again when it dies (`supervisor.py`), or a part of this process
(`in_process.py`). The scheduler is told of each change of the places where this host keeps workers, so it knows which
workers are to come.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.cluster.node.deaths import Death
from holdfast.cluster.node.in_process import InProcessWorkers
from holdfast.cluster.node.ledger import Revoked
from holdfast.cluster.node.supervisor import Supervisor, WorkerProcess
from holdfast.cluster.node.worker_plan import WorkerPlan
from holdfast.cluster.processes.forking import Forker

logger = logging.getLogger(__name__)


class HostWorkers:
    """Starts and ends them.

    Parameters
    ----------
    scheduler_address, node_address, store_socket, token
        What each worker has to know.
    forker
        What forks those that are processes.
    on_exit
        ``on_exit(address, death)``: a worker has ended that was to run, or was closed by `remove`.
    on_change
        Called when `places` have changed.
    on_pause
        Of `Supervisor`.
    environment
        ``environment()``: what the nanny sets in the environment of the worker processes that start now.
    log_level, log_directory, dask_config
        Of `Supervisor`.
    """

    def __init__(
        self,
        *,
        scheduler_address: str,
        node_address: str,
        store_socket: str,
        token: bytes,
        forker: Forker,
        on_exit: Callable[[str, Death], None],
        on_change: Callable[[], None],
        on_pause: Callable[[], object],
        environment: Callable[[], Mapping[str, str | None]],
        log_level: str = "INFO",
        log_directory: Path | None = None,
        dask_config: bytes = b"",
    ) -> None:
        self.plans: dict[str, WorkerPlan] = {}
        self._scheduler_address = scheduler_address
        self._node_address = node_address
        self._store_socket = store_socket
        self._token = token
        self._on_exit = on_exit
        self._on_change = on_change
        self._in_process = InProcessWorkers()
        self._supervisor = Supervisor(
            forker=forker,
            token=token,
            on_exit=on_exit,
            on_pause=on_pause,
            environment=environment,
            log_level=log_level,
            log_directory=log_directory,
            dask_config=dask_config,
        )
        self._tasks: set[asyncio.Task[None]] = set()

    # -- coming

    def begin(self, plans: Iterable[WorkerPlan]) -> None:
        """Start those that are processes, without waiting. The others need a scheduler that knows this host."""
        for plan in plans:
            self.plans[self.address_of(plan.index)] = plan
            if not plan.in_process:
                self._supervisor.add(self._process(plan))

    async def ready(self) -> None:
        """Start the others, and wait until all are registered with the scheduler. Raises what one of them raises."""
        parts = [self._in_process.add(self._part(plan)) for plan in self.plans.values() if plan.in_process]
        await asyncio.gather(self._supervisor.ready(), *parts)

    async def add(self, plan: WorkerPlan) -> str:
        """Keep one more worker, and wait until it is registered; returns its address.

        Raises
        ------
        ValueError
            There is a worker of this number already.
        HoldfastError
            It could not start, and is forgotten.
        """
        address = self.address_of(plan.index)
        if address in self.plans:
            raise ValueError(f"there is a worker {address} already")
        self.plans[address] = plan
        self._on_change()
        try:
            if plan.in_process:
                await self._in_process.add(self._part(plan))
            else:
                worker = self._process(plan)
                self._supervisor.add(worker)
                await worker.started
        except BaseException:
            await self.remove(address)
            raise
        return address

    def keep(self, plans: Iterable[WorkerPlan]) -> None:
        """Keep these workers too; don't wait for them. Those that there are already stay as they are.

        A process that can't start says so in the log, and is tried again.
        """
        new = [plan for plan in plans if self.address_of(plan.index) not in self.plans]
        for plan in new:
            if plan.in_process:
                self._soon(self.add(plan), f"starting {plan.name}")
        processes = [plan for plan in new if not plan.in_process]
        self.begin(processes)
        for plan in processes:
            worker = self._supervisor.get(self.address_of(plan.index))
            assert worker is not None
            worker.started.add_done_callback(lambda started: started.cancelled() or started.exception())
        if processes:
            self._on_change()

    # -- going

    async def remove(self, address: str) -> None:
        """Close a worker and keep none in its place. No error if there is no such worker."""
        plan = self.plans.pop(address, None)
        if plan is None:
            return
        self._on_change()
        if plan.in_process:
            await self._in_process.remove(address)
            self._on_exit(address, Death("was closed", asked=True))
        else:
            await self._supervisor.remove(address)

    def remove_soon(self, addresses: Sequence[str]) -> None:
        """`remove` several, without waiting."""
        for address in addresses:
            self._soon(self.remove(address), f"closing {address}")

    def _soon(self, coroutine: Coroutine[Any, Any, Any], what: str) -> None:
        async def run() -> None:
            try:
                await coroutine
            except Exception:
                logger.exception("%s failed", what)

        task = asyncio.ensure_future(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def restart_soon(self, addresses: Sequence[str]) -> None:
        """Have new processes take the places of these workers, without waiting; those of this process start anew."""
        for address in addresses:
            plan = self.plans.get(address)
            if plan is not None and plan.in_process:
                self._soon(self._start_anew(address, plan), f"starting {plan.name} anew")
            else:
                self._supervisor.restart(address)

    async def restart_processes(self) -> None:
        """Have new processes take the places of all workers that are processes, and wait until they are registered.

        One that can't start is tried again, and not waited for.
        """
        await self._supervisor.restart_all()

    async def _start_anew(self, address: str, plan: WorkerPlan) -> None:
        await self._in_process.remove(address)
        self._on_exit(address, Death("was started anew", asked=True))
        if self.plans.get(address) is plan:
            await self._in_process.add(self._part(plan))

    async def close(self) -> None:
        """Close all of them. None is left when this returns."""
        await asyncio.gather(self._in_process.close(), self._supervisor.close())
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- what there is

    def address_of(self, index: int) -> str:
        """The address of the worker of this number."""
        return f"{self._node_address}/{index}"

    def worker(self, address: str) -> Any:
        """A worker of this process, or the place of one that is a process; None: there is none."""
        return self._in_process.get(address) or self._supervisor.get(address)

    def places(self) -> list[tuple[str, str, int, dict[str, float]]]:
        """Where this host keeps workers: the address, the name, the number of threads and the resources of each."""
        return [(address, plan.name, plan.nthreads, plan.all_resources) for address, plan in self.plans.items()]

    @property
    def nthreads(self) -> int:
        """Of all workers together."""
        return sum(plan.nthreads for plan in self.plans.values())

    @property
    def processes(self) -> Sequence[WorkerProcess]:
        """Those that are processes."""
        return self._supervisor.workers

    @property
    def pids(self) -> dict[str, int | None]:
        """The process of each worker, by its address; None for one that has none now."""
        return {**self._supervisor.pids, **self._in_process.pids}

    def describe(self) -> dict[str, dict[str, Any]]:
        """For each place of a worker process, by its address, its ``name`` and what `Restarts.describe` says."""
        return self._supervisor.describe()

    # -- what the scheduler says of them

    def parted(self, address: str, pid: int) -> None:
        """A worker has lost the scheduler: it is to end by itself."""
        self._supervisor.parted(address, pid)

    def incarnation_of(self, pid: int) -> int | None:
        """Which of the processes it is, or was, that have filled the places of workers; None: none of them."""
        return self._supervisor.incarnation_of(pid)

    def revoke(self, address: str, incarnation: int, run_ids: Sequence[int]) -> Revoked | None:
        """Take runs away from a worker. None if it is no process: then it is as deaf as this agent."""
        return self._supervisor.revoke(address, incarnation, run_ids)

    def kill(self, address: str, incarnation: int, run_ids: Sequence[int], reason: str) -> Revoked | None:
        """End a worker that is at one of these runs (`Supervisor.kill`). None if it is no process."""
        return self._supervisor.kill(address, incarnation, run_ids, reason)

    # -- making them

    def _part(self, plan: WorkerPlan) -> Any:
        from holdfast.cluster.worker import Worker  # here, because an agent whose workers are processes needs no numpy

        return Worker(
            self._scheduler_address,
            token=self._token,
            node_address=self._node_address,
            store_socket=self._store_socket,
            index=plan.index,
            name=plan.name,
            nthreads=plan.nthreads,
            resources=dict(plan.resources),
            memory_limit=plan.memory_limit,
            preload=plan.preload,
        )

    def _process(self, plan: WorkerPlan) -> WorkerProcess:
        arguments = [
            "--name", plan.name,  # first, because ``ps`` may not have room for all of them
            "--index", str(plan.index),
            "--scheduler", self._scheduler_address,
            "--node", self._node_address,
            "--store", self._store_socket,
            "--threads", str(plan.nthreads),
            "--resources", json.dumps(dict(plan.resources)),
        ]  # fmt: skip
        if plan.preload:
            arguments += ["--preload", json.dumps([(text, list(words)) for text, words in plan.preload])]
        if plan.memory_limit is not None:
            arguments += ["--memory-limit", str(plan.memory_limit)]
        return WorkerProcess(self.address_of(plan.index), plan, arguments)
