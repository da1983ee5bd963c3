"""What a `SpecCluster` has brought about, and has to end: apart from the cluster, so that its garbage can be closed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any

from holdfast.cluster.deploy.silence import Silence


class SpecParts:
    """A scheduler and workers.

    Parameters
    ----------
    shutdown_on_close
        Whether they are ended with the cluster.
    silenced
        What is undone in the end.
    """

    def __init__(self, shutdown_on_close: bool, silenced: Silence | None) -> None:
        self.scheduler: Any = None
        self.workers: dict[Any, Any] = {}
        self.shutdown_on_close = shutdown_on_close
        self._silenced = silenced
        self._pid = os.getpid()

    @property
    def are_of_this_process(self) -> bool:
        """Whether this is the process that made them, and no fork of it."""
        return self._pid == os.getpid()

    async def close(self) -> None:
        """End the workers, then the scheduler. Raises the first error, after all were told to end.

        Whoever is cancelled in the middle of it may call it again.
        """
        errors: list[BaseException] = []
        if self.shutdown_on_close:
            errors += await self.close_workers(self.workers)
            if self.scheduler is not None:
                try:
                    await self.scheduler.close()
                except Exception as error:
                    errors.append(error)
        if self._silenced is not None:
            self._silenced.undo()
        if errors:
            raise errors[0]

    async def close_workers(self, names: Iterable[Any]) -> list[BaseException]:
        """End workers, which are among these parts until they have ended. Returns what they have raised."""
        going = {name: self.workers[name] for name in names}
        results = await asyncio.gather(*(worker.close() for worker in going.values()), return_exceptions=True)
        for name, worker in going.items():
            if self.workers.get(name) is worker:
                del self.workers[name]
        return [result for result in results if isinstance(result, BaseException)]
