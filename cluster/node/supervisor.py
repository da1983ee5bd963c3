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
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.cluster import dask_config
from holdfast.cluster.comm import tokens
from holdfast.cluster.node import memory_watch
from holdfast.cluster.node.deaths import Death, death_of
from holdfast.cluster.node.ledger import AgentLedger, Revoked
from holdfast.cluster.node.worker_plan import WorkerPlan
from holdfast.cluster.processes import log_files
from holdfast.cluster.processes.child import CLOSE_SECONDS, EXIT_SECONDS
from holdfast.cluster.processes.forking import ForkedProcess, Forker
from holdfast.cluster.processes.restarts import Restarts
from holdfast.objectstore.errors import HoldfastError
from holdfast.objectstore.sizes import format_size

logger = logging.getLogger(__name__)

READY_TIMEOUT_SECONDS = 60.0
RESTARTED = "was told to make room for a new process"
STOP_TIMEOUT_SECONDS = 5.0
#: How long a worker may take to end that has lost the scheduler: longer than any takes that ends by itself.
PARTED_SECONDS = CLOSE_SECONDS + EXIT_SECONDS + 3.0
#: Of so many processes that have ended it is known which ones they were.
MAX_REMEMBERED = 1_000
#: How long one may take to end that is to be started again: a moment more than it gives the tasks that it runs.
RESTART_SECONDS = 2.0


class WorkerProcess:
    """One place for a worker: its identity, and the process that fills it now."""

    def __init__(self, address: str, plan: WorkerPlan, arguments: Sequence[str]) -> None:
        self.address = address
        self.plan = plan
        self.arguments = list(arguments)
        self.restarts = Restarts(tasks_may_kill=True)
        self.child: ForkedProcess | None = None
        self.ledger: AgentLedger | None = None  # which that process shares
        self.incarnation: int | None = None  # of that process, or of the one before
        self.killed_because: str | None = None
        self.is_asked_to_end = False  # by the scheduler, because of what it runs
        self.is_paused = False  # since its process is near to its memory limit
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closing = asyncio.Event()  # it is to end, and not to be started again
        self.keeper: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self.plan.name

    @property
    def pid(self) -> int | None:
        """Of the process that fills it now, if one does."""
        return self.child.pid if self.child is not None else None

    @contextlib.contextmanager
    def with_ledger(self, incarnation: int) -> Iterator[AgentLedger]:
        """While the next process fills it."""
        self.incarnation = incarnation
        with contextlib.closing(AgentLedger(incarnation, self.plan.nthreads)) as self.ledger:
            try:
                yield self.ledger
            finally:
                self.ledger = None


class Supervisor:
    """Keeps worker processes running.

    Parameters
    ----------
    forker:
        What forks the processes.
    token:
        The cluster's token.
    on_exit:
        ``on_exit(address, death)``, called when a worker's process has ended while it should run.
    on_pause:
        Called when a worker has come near to its memory limit, or is far from it again.
    environment:
        ``environment()``: variables of the environment of the processes that start now, besides those of their plans;
        None takes one away.
    log_level:
        How much the workers log.
    log_directory:
        Where each worker has a log of its own; None: they write where this process does.
    dask_config:
        For the workers; see `holdfast.cluster.dask_config`.
    """

    def __init__(
        self,
        *,
        forker: Forker,
        token: bytes,
        on_exit: Callable[[str, Death], None],
        on_pause: Callable[[], object],
        environment: Callable[[], Mapping[str, str | None]],
        log_level: str = "INFO",
        log_directory: Path | None = None,
        dask_config: bytes = b"",
    ) -> None:
        self.workers: list[WorkerProcess] = []
        self._forker = forker
        self._token = token
        self._on_exit = on_exit
        self._on_pause = on_pause
        self._environment = environment
        self._log_level = log_level
        self._log_directory = log_directory
        self._dask_config = dask_config
        self._incarnations = itertools.count(1)
        self._incarnations_of: dict[int, int] = {}  # by pid, of the processes that were started last
        self._is_closing = False
        self._memory = memory_watch.MemoryWatch(self._limits, self._kill, self._pause)
        self._memory_watch: asyncio.Task[None] | None = None
        self._log_watch: asyncio.Task[None] | None = None
        self._partings: set[asyncio.Task[None]] = set()

    def add(self, worker: WorkerProcess) -> None:
        """Start a worker, without waiting for it, and again when it dies."""
        self.workers.append(worker)
        if self._is_closing:
            worker.closing.set()
        worker.keeper = asyncio.ensure_future(self._keep(worker))
        if self._memory_watch is None:
            self._memory_watch = asyncio.ensure_future(self._memory.run())
        if self._log_directory is not None and self._log_watch is None:
            self._log_watch = asyncio.ensure_future(self._bound_logs(self._log_directory))

    async def ready(self) -> None:
        """Wait until all workers are registered with the scheduler.

        Raises
        ------
        HoldfastError
            One could not start; says which and why.
        """
        await asyncio.gather(*(worker.started for worker in self.workers))

    def get(self, address: str) -> WorkerProcess | None:
        """The worker of this address, if there is one."""
        return next((worker for worker in self.workers if worker.address == address), None)

    async def remove(self, address: str) -> None:
        """Ask a worker to close, end it if it takes too long, and forget it. The scheduler is told of its end."""
        worker = self.get(address)
        if worker is not None:
            await self._end([worker])
            if worker in self.workers:
                self.workers.remove(worker)
                self._on_exit(address, Death("was closed", asked=True, incarnation=worker.incarnation))

    async def close(self) -> None:
        """Ask the workers to close, and end those that take too long. None is left when this returns."""
        self._is_closing = True
        for task in (self._memory_watch, self._log_watch, *self._partings):
            if task is not None:
                task.cancel()
        await self._end(list(self.workers))

    async def _end(self, workers: Sequence[WorkerProcess]) -> None:
        for worker in workers:
            worker.closing.set()
            worker.started.cancel()
            if worker.child is not None and worker.child.returncode is None:
                worker.child.terminate()
        keepers = [worker.keeper for worker in workers if worker.keeper is not None]
        if not keepers:
            return
        _, late = await asyncio.wait(keepers, timeout=STOP_TIMEOUT_SECONDS)
        if late:
            for worker in workers:
                if worker.child is None:  # it still waits for a process
                    if worker.keeper is not None:
                        worker.keeper.cancel()
                elif worker.child.returncode is None:
                    logger.warning("%s does not end and is killed", worker.name)
                    worker.child.kill()
            await asyncio.wait(late)

    def describe(self) -> dict[str, dict[str, Any]]:
        """For each worker's place, by its address, the worker's ``name`` and what `Restarts.describe` says."""
        return {worker.address: {"name": worker.name, **worker.restarts.describe()} for worker in self.workers}

    async def _keep(self, worker: WorkerProcess) -> None:
        while not worker.closing.is_set():
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
            if worker.closing.is_set():
                return
            self._on_exit(worker.address, death._replace(incarnation=worker.incarnation))
            pause = worker.restarts.ended(death.reason, asked=death.asked)
            when = f" in {pause:.2g} s" if pause else ""
            where = f"\n{death.frames}" if death.frames else ""
            level = logging.INFO if death.asked else logging.WARNING
            logger.log(level, "%s %s: starting it again%s%s", worker.name, death.reason, when, where)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.closing.wait(), pause or 0.001)

    async def _run_once(self, worker: WorkerProcess, ledger: AgentLedger) -> Death:
        """Run one process to its end; says how it ended. Only this supervisor asks it to."""
        worker.killed_because = None
        worker.is_asked_to_end = False
        worker.is_paused = False
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
                env={**worker.plan.environment, **self._environment()},
                log_file=log_file,
                pass_fds={tokens.OPTION: token_fd, "--ledger-fd": ledger.fd, **config_fd},
            )
        ledger.close_fd()
        worker.child = child
        self._remember(child.pid, ledger.incarnation)
        if worker.closing.is_set():  # too late for `_end` to find it
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
            self._memory.begin(child.pid)
            if not worker.started.done():
                worker.started.set_result(None)
            code = await child.exited()
        finally:
            worker.child = None
            if child.returncode is None:  # it can't be watched
                child.stop(0)
        death = death_of(code, ledger)
        if worker.is_asked_to_end:
            return death._replace(reason=worker.killed_because or death.reason, asked=True)
        reason = worker.killed_because or death.reason
        if used := self._memory.used(child.pid):
            reason += f", {format_size(used)} used by itself"
        if code == -signal.SIGKILL and worker.killed_because is None and (where := self._memory.out_of_memory()):
            reason += f"; {where}"
        return death._replace(reason=reason, log=child.log_tail())

    def _remember(self, pid: int, incarnation: int) -> None:
        self._incarnations_of.pop(pid, None)  # which the kernel has given out anew
        self._incarnations_of[pid] = incarnation
        if len(self._incarnations_of) > MAX_REMEMBERED + len(self.workers):
            del self._incarnations_of[next(iter(self._incarnations_of))]

    def incarnation_of(self, pid: int) -> int | None:
        """Which of the processes it is, or was, that have filled the places of workers; None: none of them."""
        return self._incarnations_of.get(pid)

    def revoke(self, address: str, incarnation: int, run_ids: Sequence[int]) -> Revoked | None:
        """Take runs away from a worker (`AgentLedger.revoke`). None if that process is gone, and its runs with it."""
        for worker in self.workers:
            if worker.address == address and worker.ledger is not None and worker.ledger.incarnation == incarnation:
                return worker.ledger.revoke(run_ids)
        return None

    def kill(self, address: str, incarnation: int, run_ids: Sequence[int], reason: str) -> Revoked | None:
        """End a worker that is at one of these runs, with the processes of its group; another one takes its place at
        once. If it is at none, take them away from it. None if that process ends, or is gone."""
        revoked = self.revoke(address, incarnation, run_ids)
        if revoked is None:
            return None
        worker = next(worker for worker in self.workers if worker.address == address)
        assert worker.ledger is not None
        if worker.child is None or not worker.ledger.is_at(run_ids):
            number, taken, _ = revoked
            return number, taken, [run_id for run_id in run_ids if run_id not in taken]
        if worker.killed_because is None:
            worker.killed_because, worker.is_asked_to_end = reason, True
        worker.child.kill_group()
        return None

    async def _bound_logs(self, directory: Path) -> None:
        while True:
            await asyncio.sleep(log_files.CHECK_SECONDS)
            logs = [log_files.file_of(directory, worker.name) for worker in self.workers]
            await asyncio.to_thread(log_files.cut_large, logs)

    def parted(self, address: str, pid: int) -> None:
        """A worker has lost the scheduler, so it's to end by itself; if it doesn't, it's of no use."""
        for worker in self.workers:
            if worker.address == address and worker.pid == pid:
                self._kill_late(pid, PARTED_SECONDS, "had lost the scheduler, and did not end")

    def restart(self, address: str) -> None:
        """End a worker's process and start another one in its place, at once; no error if there is none now."""
        worker = self.get(address)
        if worker is None or worker.child is None or worker.child.returncode is not None:
            return  # another one is being started
        worker.killed_because, worker.is_asked_to_end = RESTARTED, True
        worker.child.terminate()
        self._kill_late(worker.child.pid, RESTART_SECONDS, RESTARTED)

    async def restart_all(self) -> None:
        """`restart` all, and wait until the new processes are registered, or one of a place could not start."""
        workers = list(self.workers)
        await _settled(workers)
        for worker in workers:
            if not worker.closing.is_set() and worker.child is not None and worker.child.returncode is None:
                worker.started = asyncio.get_running_loop().create_future()
                self.restart(worker.address)
        await _settled(workers)

    def _kill_late(self, pid: int, seconds: float, reason: str) -> None:
        """Kill a process of a worker, if it has not ended until then."""

        async def kill() -> None:
            await asyncio.sleep(seconds)
            self._kill(pid, reason)

        killing = asyncio.ensure_future(kill())
        self._partings.add(killing)
        killing.add_done_callback(self._partings.discard)

    @property
    def pids(self) -> dict[str, int | None]:
        """The process of each worker, by its address; None for one that has none now."""
        return {worker.address: worker.pid for worker in self.workers}

    def _limits(self) -> dict[int, int | None]:
        """Bytes of private memory above which each process is killed; None: it may use any number."""
        return {worker.pid: worker.plan.memory_limit for worker in self.workers if worker.pid is not None}

    def _pause(self, pid: int, is_paused: bool) -> None:
        for worker in self.workers:
            if worker.pid == pid:
                worker.is_paused = is_paused
                used, limit = self._memory.used(pid) or 0, worker.plan.memory_limit or 0
                what = "is paused" if is_paused else "takes tasks again"
                logger.warning("%s %s: it uses %s of %s", worker.name, what, format_size(used), format_size(limit))
                self._on_pause()

    def _kill(self, pid: int, reason: str) -> None:
        for worker in self.workers:
            if worker.child is not None and worker.pid == pid and worker.child.returncode is None:
                worker.killed_because = reason
                worker.child.kill()


async def _settled(workers: Sequence[WorkerProcess]) -> None:
    """Wait until it is known of each whether it could start."""
    if workers:
        for started in (await asyncio.wait([worker.started for worker in workers]))[0]:
            if not started.cancelled():
                started.exception()  # it is in the log, and the place is tried again
