"""The worker processes of a host: started at once, watched, started again when they die, stopped.

A worker that dies is started again under its old address and name, as often as it takes:
`cluster/processes/restarts.py` says when. Results don't die with a worker, they are in the store, so all that is lost
is the tasks that it was running.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from holdfast.cluster import dask_config
from holdfast.cluster.comm import tokens
from holdfast.cluster.node import memory_watch
from holdfast.cluster.node.deaths import Death, death_of
from holdfast.cluster.node.ledger import AgentLedger
from holdfast.cluster.processes import log_files
from holdfast.cluster.processes.child import CLOSE_SECONDS, EXIT_SECONDS
from holdfast.cluster.processes.forking import ForkedProcess, Forker
from holdfast.cluster.processes.restarts import Restarts
from holdfast.objectstore.errors import HoldfastError

logger = logging.getLogger(__name__)

READY_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 5.0
#: How long a worker may take to end that has lost the scheduler: longer than any takes that ends by itself.
PARTED_SECONDS = CLOSE_SECONDS + EXIT_SECONDS + 3.0


class WorkerProcess:
    """One place for a worker: its identity, and the process that fills it now."""

    def __init__(self, address: str, name: str, nthreads: int, arguments: Sequence[str]) -> None:
        self.address = address
        self.name = name
        self.nthreads = nthreads
        self.arguments = list(arguments)
        self.restarts = Restarts(tasks_may_kill=True)
        self.child: ForkedProcess | None = None
        self.ledger: AgentLedger | None = None  # which that process shares
        self.killed_because: str | None = None
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int | None:
        """Of the process that fills it now, if one does."""
        return self.child.pid if self.child is not None else None

    @contextlib.contextmanager
    def with_ledger(self, incarnation: int) -> Iterator[AgentLedger]:
        """While the next process fills it."""
        with contextlib.closing(AgentLedger(incarnation, self.nthreads)) as self.ledger:
            try:
                yield self.ledger
            finally:
                self.ledger = None


class Supervisor:
    """Keeps worker processes running.

    Parameters
    ----------
    workers:
        The places to fill.
    forker:
        What forks the processes.
    token:
        The cluster's token.
    memory_limit:
        Bytes of private memory above which a worker is killed; None for no limit.
    on_exit:
        ``on_exit(address, death)``, called when a worker's process has ended while it should run.
    log_level:
        How much the workers log.
    log_directory:
        Where each worker has a log of its own; None: they write where this process does.
    dask_config:
        For the workers; see `holdfast.cluster.dask_config`.
    """

    def __init__(
        self,
        workers: Sequence[WorkerProcess],
        *,
        forker: Forker,
        token: bytes,
        memory_limit: int | None,
        on_exit: Callable[[str, Death], None],
        log_level: str = "INFO",
        log_directory: Path | None = None,
        dask_config: bytes = b"",
    ) -> None:
        self.workers = list(workers)
        self._forker = forker
        self._token = token
        self._memory_limit = memory_limit
        self._on_exit = on_exit
        self._log_level = log_level
        self._log_directory = log_directory
        self._dask_config = dask_config
        self._incarnations = itertools.count(1)
        self._closing = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []
        self._watches: list[asyncio.Task[None]] = []
        self._partings: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start all workers, without waiting for them."""
        self._keepers = [asyncio.ensure_future(self._keep(worker)) for worker in self.workers]
        if self._memory_limit is not None:
            watch = memory_watch.watch(self._pids, self._memory_limit, self._kill)
            self._watches.append(asyncio.ensure_future(watch))
        if self._log_directory is not None:
            self._watches.append(asyncio.ensure_future(self._bound_logs(self._log_directory)))

    async def ready(self) -> None:
        """Wait until all workers are registered with the scheduler.

        Raises
        ------
        HoldfastError
            One could not start; says which and why.
        """
        await asyncio.gather(*(worker.started for worker in self.workers))

    async def close(self) -> None:
        """Ask the workers to close, and end those that take too long. None is left when this returns."""
        self._closing.set()
        for task in (*self._watches, *self._partings):
            task.cancel()
        for worker in self.workers:
            worker.started.cancel()
            if worker.child is not None and worker.child.returncode is None:
                worker.child.terminate()
        if not self._keepers:
            return
        _, late = await asyncio.wait(self._keepers, timeout=STOP_TIMEOUT_SECONDS)
        if late:
            for worker, keeper in zip(self.workers, self._keepers, strict=True):
                if worker.child is None:  # it still waits for a process
                    keeper.cancel()
                elif worker.child.returncode is None:
                    logger.warning("%s does not end and is killed", worker.name)
                    worker.child.kill()
            await asyncio.wait(late)

    def describe(self) -> dict[str, dict[str, Any]]:
        """For each worker's place, by its address, the worker's ``name`` and what `Restarts.describe` says."""
        return {worker.address: {"name": worker.name, **worker.restarts.describe()} for worker in self.workers}

    async def _keep(self, worker: WorkerProcess) -> None:
        while not self._closing.is_set():
            worker.restarts.begin()
            try:
                with worker.with_ledger(next(self._incarnations)) as ledger:
                    death = await self._run_once(worker, ledger)
            except Exception as error:
                # No process, memory or descriptor is left to run it with. Whatever else it is, the next one may start.
                if not isinstance(error, OSError | HoldfastError):
                    logger.exception("starting %s failed", worker.name)
                death = Death(f"could not be started: {error}")
                if not worker.started.done():
                    worker.started.set_exception(HoldfastError(f"{worker.name} {death.reason}"))
            if self._closing.is_set():
                return
            self._on_exit(worker.address, death)
            pause = worker.restarts.ended(death.reason)
            when = f" in {pause:.2g} s" if pause else ""
            where = f"\n{death.frames}" if death.frames else ""
            logger.warning("%s %s: starting it again%s%s", worker.name, death.reason, when, where)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause or 0.001)

    async def _run_once(self, worker: WorkerProcess, ledger: AgentLedger) -> Death:
        """Run one process to its end; says how it ended. Only this supervisor asks it to."""
        worker.killed_because = None
        log_file = None if self._log_directory is None else log_files.file_of(self._log_directory, worker.name)
        with tokens.handed_down(self._token) as token_fd, dask_config.handed_down(self._dask_config) as config_fd:
            child = await self._forker.fork_async(
                "holdfast.cluster.worker.__main__",
                [
                    *worker.arguments,
                    "--log-level",
                    self._log_level,
                    *(["--prefix-lines"] if log_file is not None else []),
                ],
                worker.name,
                log_file=log_file,
                pass_fds={tokens.OPTION: token_fd, "--ledger-fd": ledger.fd, **config_fd},
            )
        ledger.close_fd()
        worker.child = child
        if self._closing.is_set():  # too late for `close` to find it
            child.terminate()
        try:
            try:
                await child.ready(READY_TIMEOUT_SECONDS)
            except HoldfastError as error:
                if child.returncode is None:
                    child.kill()
                elif child.only_worked:  # a task ended it before it could say that it is ready
                    worker.restarts.ready()
                    return death_of(await child.exited(), ledger)
                await child.exited()
                if not worker.started.done():
                    worker.started.set_exception(error)
                return Death(str(error).removeprefix(f"{worker.name} "))
            worker.restarts.ready()
            if not worker.started.done():
                worker.started.set_result(None)
            code = await child.exited()
        finally:
            worker.child = None
            if child.returncode is None:  # it can't be watched
                child.stop(0)
        death = death_of(code, ledger)
        return death._replace(reason=worker.killed_because) if worker.killed_because else death

    def revoke(self, address: str, incarnation: int, run_ids: Sequence[int]) -> tuple[int, list[int], list[int]] | None:
        """Take runs away from a worker (`AgentLedger.revoke`). None if that process is gone, and its runs with it."""
        for worker in self.workers:
            if worker.address == address and worker.ledger is not None and worker.ledger.incarnation == incarnation:
                return worker.ledger.revoke(run_ids)
        return None

    async def _bound_logs(self, directory: Path) -> None:
        logs = [log_files.file_of(directory, worker.name) for worker in self.workers]
        while True:
            await asyncio.sleep(log_files.CHECK_SECONDS)
            await asyncio.to_thread(log_files.cut_large, logs)

    def parted(self, address: str, pid: int) -> None:
        """A worker has lost the scheduler, so it's to end by itself; if it doesn't, it's of no use."""
        for worker in self.workers:
            if worker.address == address and worker.pid == pid:
                parting = asyncio.ensure_future(self._part(pid))
                self._partings.add(parting)
                parting.add_done_callback(self._partings.discard)

    async def _part(self, pid: int) -> None:
        await asyncio.sleep(PARTED_SECONDS)
        self._kill(pid, "had lost the scheduler, and did not end")

    @property
    def pids(self) -> dict[str, int | None]:
        """The process of each worker, by its address; None for one that has none now."""
        return {worker.address: worker.pid for worker in self.workers}

    def _pids(self) -> list[int]:
        return [worker.pid for worker in self.workers if worker.pid is not None]

    def _kill(self, pid: int, reason: str) -> None:
        for worker in self.workers:
            if worker.child is not None and worker.pid == pid and worker.child.returncode is None:
                worker.killed_because = reason
                worker.child.kill()
