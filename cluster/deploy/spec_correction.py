"""Making the workers of a `SpecCluster` what its specification says.

A *correction* retires and closes the workers that are too many, and makes those that are missing. There is one at a
time; several that are asked for before the next begins are one. Whoever waits for a correction and is cancelled does
not cancel it, since others may wait for it.

A worker that has ended, or that the scheduler has not had for `LOST_SECONDS` though it once had it, is made anew; if
that fails, after a pause. Of workers that are made together, those of a *group*, one that is there speaks for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from holdfast.cluster.deploy.process_interface import Status
from holdfast.cluster.deploy.scheduler import Scheduler
from holdfast.cluster.deploy.spec_parts import SpecParts
from holdfast.cluster.deploy.worker_specs import called, class_of, options_of
from holdfast.cluster.errors import NoWorkerError
from holdfast.cluster.processes.restarts import Restarts
from holdfast.objectstore.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.cluster.deploy.scheduler_comm import SchedulerComm

logger = logging.getLogger(__name__)

#: How long a worker may be unknown to the scheduler, which has had it, until it counts as lost.
LOST_SECONDS = 15.0


class Correction:
    """Corrects the workers of one cluster, in its loop.

    Parameters
    ----------
    parts
        Has the workers.
    wanted
        ``wanted()``: the specification, which may be changed.
    comm
        ``comm()``: what the scheduler is asked by, if there is anything.
    name
        Of the cluster, for messages.

    Attributes
    ----------
    made : dict
        By name, the specification with which each worker was made.
    """

    def __init__(
        self,
        parts: SpecParts,
        wanted: Callable[[], dict[Any, Any]],
        comm: Callable[[], SchedulerComm | None],
        name: str,
    ) -> None:
        self.made: dict[Any, Any] = {}
        self._parts = parts
        self._wanted = wanted
        self._comm = comm
        self._name = name
        self._restarts: dict[Any, Restarts] = {}
        self._paused: dict[Any, float] = {}  # until when what can't be started isn't tried again
        self._seen: dict[Any, float] = {}  # when the scheduler last had each worker
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None  # that has not begun
        self._tasks: set[asyncio.Task[None]] = set()

    def soon(self) -> asyncio.Task[None]:
        """Correct them: a task."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._correct())
            self._tasks.add(self._next)
            self._next.add_done_callback(self._tasks.discard)
        return self._next

    async def cancel(self) -> None:
        """Correct no more, and wait for the end of what is going on."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- when there is something to correct

    def observe(self, observed: set[str]) -> bool:
        """Take note of the names that the scheduler has; whether there is something to correct."""
        now = time.monotonic()
        for name, worker in list(self._parts.workers.items()):
            if not observed.isdisjoint(called(name, self.made.get(name))):
                self._seen[name] = now
            elif name in self._seen and now - self._seen[name] > LOST_SECONDS:
                del self._seen[name]
                logger.warning("the worker %s of %s is lost", name, self._name)
                worker.status = Status.closed
        workers, wanted = self._parts.workers, self._wanted()
        if any(name not in wanted or _has_ended(worker) for name, worker in workers.items()):
            return True
        return any(name not in workers and self._paused.get(name, 0.0) <= now for name in wanted)

    # -- what is done

    async def _correct(self) -> None:
        async with self._lock:
            self._next = None
            await self._close_surplus()
            await self._open_missing()

    async def _close_surplus(self) -> None:
        workers, wanted = self._parts.workers, self._wanted()
        surplus = [name for name in workers if name not in wanted]
        ended = [name for name in workers if name in wanted and _has_ended(workers[name])]
        for name in ended:
            self._pause(name, "it has ended")
            logger.warning("the worker %s of %s has ended, and is made anew", name, self._name)
        if surplus:
            surplus = await self._retire(surplus)
        for error in await self._parts.close_workers([*surplus, *ended]):
            if isinstance(error, Exception):
                logger.error("a worker of %s could not be closed", self._name, exc_info=error)
        for name in surplus:
            for table in (self._restarts, self._paused, self._seen, self.made):
                table.pop(name, None)

    async def _retire(self, names: list[Any]) -> list[Any]:
        """Have the scheduler let workers go, which moves what only they have. Returns those that may be closed.

        If something can't be moved, they stay: the specification has them again.
        """
        comm = self._comm()
        if comm is None or comm.is_over:
            return names
        known = {worker["name"] for worker in (await comm.identity())["workers"].values()}
        leaving = [each for name in names for each in called(name, self.made.get(name)) if each in known]
        if not leaving:
            return names
        # Of workers of this process the store stays, as long as the scheduler does.
        stays = isinstance(self._parts.scheduler, Scheduler) and not any(
            getattr(self._parts.workers[name], "brings_memory", True) for name in names
        )
        try:
            await comm.retire_workers(names=leaving, close_hosts=not stays)
        except (NoWorkerError, ValueError):
            pass  # they have just gone, or others let them go
        except (HoldfastError, TimeoutError, RuntimeError) as error:
            if comm.is_over:
                return names
            logger.warning("%s keeps the workers %s: %s", self._name, ", ".join(map(str, names)), error)
            self._wanted().update({name: self.made[name] for name in names if name in self.made})
            return []
        return names

    async def _open_missing(self) -> None:
        now = time.monotonic()
        workers, wanted = self._parts.workers, self._wanted()
        missing = {
            name: spec for name, spec in wanted.items() if name not in workers and self._paused.get(name, 0.0) <= now
        }
        opening = {name: asyncio.ensure_future(self._open(name, spec)) for name, spec in missing.items()}
        try:
            results = await asyncio.gather(*opening.values(), return_exceptions=True)
        except asyncio.CancelledError:
            await _ended(opening.values())
            raise
        failed = next((result for result in results if isinstance(result, BaseException)), None)
        if failed is not None:
            raise failed

    async def _open(self, name: Any, spec: Mapping[str, Any]) -> None:
        restarts = self._restarts_of(name)
        restarts.begin()
        self.made[name] = spec
        worker: Any = None
        try:
            made = class_of(spec)
            worker = self._parts.workers[name] = made(self._address, **{"name": name, **options_of(spec)})
            await worker
        except BaseException as error:
            self._parts.workers.pop(name, None)
            self._pause(name, str(error))
            if worker is not None:
                with contextlib.suppress(Exception):
                    await worker.close()
            raise
        restarts.ready()

    def _pause(self, name: Any, reason: str) -> None:
        self._paused[name] = time.monotonic() + self._restarts_of(name).ended(reason)

    def _restarts_of(self, name: Any) -> Restarts:
        return self._restarts.setdefault(name, Restarts())

    @property
    def _address(self) -> str:
        """Where workers reach the scheduler."""
        scheduler = self._parts.scheduler
        return str(getattr(scheduler, "contact_address", None) or scheduler.address)


def _has_ended(worker: Any) -> bool:
    return getattr(worker, "status", None) in (Status.closed, Status.failed)


async def _ended(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Wait until tasks that were cancelled have ended."""
    await asyncio.gather(*tasks, return_exceptions=True)
