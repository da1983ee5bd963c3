"""The workers of a host that run in the process and the event loop of its agent: no process is started or watched."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.cluster.worker import Worker


class InProcessWorkers:
    """Workers in this process. One that has lost the scheduler closes by itself, so nothing looks after them."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    async def add(self, worker: Worker) -> None:
        """Start a worker. The scheduler has to know this host. Raises what the worker raises, which is forgotten."""
        self._workers[worker.address] = worker
        try:
            await worker.start()
        except BaseException:
            self._workers.pop(worker.address, None)
            raise

    def get(self, address: str) -> Worker | None:
        """The worker of this address, if it is one of these."""
        return self._workers.get(address)

    async def remove(self, address: str) -> None:
        """Close a worker and forget it."""
        worker = self._workers.pop(address, None)
        if worker is not None:
            await worker.close()

    async def close(self) -> None:
        """Close all workers."""
        await asyncio.gather(*(self.remove(address) for address in list(self._workers)))

    @property
    def pids(self) -> dict[str, int | None]:
        """This process, by the address of each worker."""
        return dict.fromkeys(self._workers, os.getpid())
