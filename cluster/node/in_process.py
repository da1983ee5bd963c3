"""The workers of a host that run in the process and the event loop of its agent: no process is started or watched."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.cluster.node.supervisor import WorkerProcess
    from holdfast.cluster.worker import Worker


class InProcessWorkers:
    """Workers in this process. Has the methods of a `Supervisor`, as far as an agent calls them.

    Parameters
    ----------
    workers
        Made, and not started yet.
    """

    #: Processes of workers: there is none.
    workers: Sequence[WorkerProcess] = ()

    def __init__(self, workers: Iterable[Worker]) -> None:
        self._workers = list(workers)
        self._are_started = False

    def start(self) -> None:
        """Nothing: a worker in this process is started when the scheduler knows this host (`ready`)."""

    async def ready(self) -> None:
        """Start all workers. Raises what one of them raises."""
        self._are_started = True
        await asyncio.gather(*(worker.start() for worker in self._workers))

    async def close(self) -> None:
        """Close all workers that were started."""
        if self._are_started:
            await asyncio.gather(*(worker.close() for worker in self._workers))

    @property
    def pids(self) -> dict[str, int | None]:
        """This process, by the address of each worker."""
        return {worker.address: os.getpid() for worker in self._workers}

    def describe(self) -> dict[str, dict[str, Any]] | None:
        """None: no place is filled again and again."""
        return None

    def parted(self, address: str, pid: int) -> None:
        """Nothing: a worker in this process that has lost the scheduler closes by itself."""

    def revoke(self, address: str, incarnation: int, run_ids: Sequence[int]) -> tuple[int, list[int], list[int]] | None:
        """None: a worker in this process is as deaf as its agent, which could not answer for it."""
        return None
