"""`ObservedCluster`: a cluster whose scheduler can be asked, and how its workers are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import time
import weakref
from typing import TYPE_CHECKING, Any

from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.deploy.loop_object import LoopObject
from holdfast.cluster.deploy.process_interface import Status
from holdfast.cluster.durations import seconds
from holdfast.cluster.errors import ConnectError
from holdfast.objectstore.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.cluster.deploy.scheduler_comm import SchedulerComm

logger = logging.getLogger(__name__)

#: How often a cluster looks how its workers are.
SYNC_SECONDS = 1.0
#: How often it is looked for workers that somebody waits for.
LOOK_SECONDS = 0.02


class ObservedCluster(LoopObject):
    """Asks its scheduler over one connection, and looks now and then how its workers are.

    Parameters
    ----------
    asynchronous
        As of `LoopObject`.
    name
        For messages. Default: what its class says, or some letters.
    sync_seconds
        How often it looks.

    Attributes
    ----------
    name : str
    scheduler_comm : SchedulerComm or None
        What its scheduler is asked by.
    """

    name: str = ""

    def __init__(self, asynchronous: bool, name: str | None, sync_seconds: float) -> None:
        super().__init__(asynchronous, "holdfast-cluster-object")
        self.name = name or self.name or secrets.token_hex(4)
        self.scheduler_comm: SchedulerComm | None = None
        self._sync_seconds = sync_seconds
        self._info: dict[str, Any] = {"workers": {}}
        self._connecting = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None

    # -- beginning and end

    async def _start(self) -> None:
        """Begin. A subclass has its scheduler first, then calls this."""
        await self._connect()
        await super()._start()
        self._watching = asyncio.ensure_future(self._watch(weakref.ref(self), self._sync_seconds))

    async def _connect(self) -> SchedulerComm:
        # Imported when a scheduler is asked: many clusters only start processes, and that is to be quick.
        from holdfast.cluster.deploy.scheduler_comm import SchedulerComm

        async with self._connecting:
            comm = self.scheduler_comm
            if comm is None or comm.is_over:
                name = f"cluster {self.name}"[:200]
                comm = await SchedulerComm.open(self.scheduler_address, token=self.token, name=name)
                self.scheduler_comm = comm
                self._info = await comm.identity()
        return comm

    async def _close(self) -> None:
        """End. A subclass calls this first, then ends its workers and its scheduler."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        try:
            await super()._close()
        finally:
            if self.scheduler_comm is not None:
                self.scheduler_comm.close()

    # -- the scheduler

    @property
    def scheduler_address(self) -> str:
        """``tcp://host:port``.

        Examples
        --------
        >>> cluster.scheduler_address
        'tcp://127.0.0.1:...'
        """
        if self.scheduler_comm is None:
            raise ConnectError(f"the cluster {self.name} is not open")
        return self.scheduler_comm.address

    @property
    def token(self) -> bytes:
        """What connecting needs.

        Examples
        --------
        >>> from holdfast import Client
        >>> with Client(cluster.scheduler_address, token=cluster.token) as client:
        ...     client.submit(sum, [1, 2]).result()
        3
        """
        return load_token()

    @property
    def dashboard_link(self) -> str:
        """Empty: there is no dashboard. ``holdfast status`` shows the cluster in a terminal.

        Examples
        --------
        >>> cluster.dashboard_link
        ''
        """
        return ""

    # -- its workers

    @staticmethod
    async def _watch(ref: weakref.ref[ObservedCluster], interval: float) -> None:
        while (self := ref()) is not None:
            try:
                await self._sync()
            except Exception:
                if self.closed:
                    return
                logger.exception("looking after the cluster %s failed", self.name)
            del self
            await asyncio.sleep(interval)

    async def _sync(self) -> None:
        """Look how the workers are; called now and then."""
        if self.scheduler_comm is not None and not self.scheduler_comm.is_over:
            with contextlib.suppress(ConnectError, TimeoutError):
                self._info = await self.scheduler_comm.identity()

    @property
    def scheduler_info(self) -> dict[str, Any]:
        """What `Client.scheduler_info` gives. Where methods are awaited: as it was at most some seconds ago.

        Examples
        --------
        >>> [worker["nthreads"] for worker in cluster.scheduler_info["workers"].values()]
        [1, 1]
        """
        if not self.asynchronous and not self.closed and self.status != Status.created:
            with contextlib.suppress(HoldfastError, TimeoutError):
                self._runner.run(self.refresh())
        return self._info

    async def refresh(self) -> None:
        """Look now how the scheduler and its workers are: a coroutine, for the loop of the cluster.

        Examples
        --------
        >>> cluster.sync(cluster.refresh)
        >>> len(cluster.scheduler_info["workers"])
        2
        """
        self._info = await (await self._connect()).identity()

    @property
    def plan(self) -> set[Any]:
        """The names of the workers that there are to be.

        Examples
        --------
        >>> cluster.scale(3)
        >>> len(cluster.plan)
        3
        """
        return set(getattr(self, "workers", ()))

    @property
    def requested(self) -> set[Any]:
        """The names of the workers that were asked for, wherever they come from.

        Examples
        --------
        >>> len(cluster.requested)
        2
        """
        return set(getattr(self, "workers", ()))

    @property
    def observed(self) -> set[Any]:
        """The names of the workers that the scheduler has.

        Examples
        --------
        >>> cluster.wait_for_workers(2)
        >>> cluster.observed == cluster.plan
        True
        """
        return {worker["name"] for worker in self.scheduler_info["workers"].values()}

    def wait_for_workers(self, n_workers: int = 0, timeout: float | str | None = None) -> Any:
        """Wait until there are so many workers. Where methods are awaited: await this.

        Parameters
        ----------
        n_workers : int
            Default: as many as were asked for.
        timeout : float or str, optional
            In seconds or as text. Default: there is none.

        Raises
        ------
        TimeoutError
            There were not enough in time; says how many there are.

        Examples
        --------
        >>> cluster.scale(3)
        >>> cluster.wait_for_workers(3, timeout="1 minute")
        >>> len(cluster.observed)
        3
        """
        return self.sync(self._wait_for_workers, n_workers or len(self.plan), seconds(timeout))

    async def _wait_for_workers(self, n: int, timeout: float | None) -> None:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        comm = await self._connect()
        while True:
            self._info = await comm.identity()
            count = len(self._info["workers"])
            if count >= n:
                return
            if time.monotonic() >= deadline:
                raise TimeoutError(f"waited {timeout:g} s for {n} workers of {self!r}, {count} are there")
            await asyncio.sleep(LOOK_SECONDS)
