"""What a cluster knows of its scheduler and of each of its workers: something that is started, awaited and closed."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from holdfast.cluster.notebook import card


class Status(StrEnum):
    """What has become of a cluster, a scheduler or a worker. Equal to its text, such as ``"running"``.

    Examples
    --------
    >>> Status.running == "running"
    True
    >>> Status("closed") is Status.closed
    True
    """

    created = "created"
    starting = "starting"
    running = "running"
    closing = "closing"
    closed = "closed"
    failed = "failed"


class ProcessInterface:
    """A scheduler or a worker of a `SpecCluster`, however it is brought about: subclass it for jobs, pods and the like.

    It is started by ``await`` or ``async with``, and belongs to the event loop in which that happens. A subclass has a
    `start` and a `close`, which end with those of this class. A worker of a `SpecCluster` is made as
    ``cls(scheduler_address, name=name, **options)``.

    Parameters
    ----------
    scheduler : str, optional
        The address of the scheduler.
    name : hashable, optional
        What the cluster calls it by.

    Attributes
    ----------
    address : str or None
        Of a scheduler, where it is reached; known when it has started. Of a worker, None if it is not known.
    external_address : str or None
        Of a scheduler: where processes elsewhere reach it, if that is another address.
    status : Status
        May be set to text, too.

    Examples
    --------
    >>> import asyncio
    >>> class Job(ProcessInterface):
    ...     async def start(self):
    ...         print("submitted")
    ...         await super().start()
    ...     async def close(self):
    ...         print("deleted")
    ...         await super().close()
    >>> async def main():
    ...     async with Job() as job:
    ...         return job.status.value
    >>> asyncio.run(main())
    submitted
    deleted
    'running'
    """

    address: str | None = None

    def __init__(self, scheduler: str | None = None, name: Any = None) -> None:
        self.scheduler = scheduler
        self.name = name
        self.external_address: str | None = None
        self.lock = asyncio.Lock()
        self._status = Status.created
        self._event_finished = asyncio.Event()

    @property
    def status(self) -> Status:
        """What has become of it.

        Examples
        --------
        >>> import asyncio
        >>> async def main():
        ...     job = ProcessInterface(name="mine")
        ...     print(job.status)
        ...     await job
        ...     print(job.status)
        >>> asyncio.run(main())
        created
        running
        """
        return self._status

    @status.setter
    def status(self, status: str) -> None:
        self._status = Status(status)

    async def start(self) -> None:
        """Bring it about, or ask for that: a worker may come later. A scheduler has its ``address`` afterwards.

        Examples
        --------
        >>> import asyncio
        >>> class Server(ProcessInterface):
        ...     async def start(self):
        ...         self.address = "tcp://10.0.0.1:8786"
        ...         await super().start()
        >>> async def main():
        ...     async with Server() as server:
        ...         return server
        >>> asyncio.run(main())
        <Server tcp://10.0.0.1:8786: closed>
        """
        self.status = Status.running

    async def close(self) -> None:
        """End it. What a worker had to hand over it has handed over before. Twice is no error.

        Examples
        --------
        >>> import asyncio
        >>> async def main():
        ...     job = ProcessInterface(name="mine")
        ...     await job
        ...     await job.close()
        ...     return job.status.value
        >>> asyncio.run(main())
        'closed'
        """
        self.status = Status.closed
        self._event_finished.set()

    async def finished(self) -> None:
        """Wait until it has ended, by itself or by `close`.

        Examples
        --------
        >>> import asyncio
        >>> async def main():
        ...     job = ProcessInterface(name="mine")
        ...     await job
        ...     asyncio.get_running_loop().call_later(0.01, asyncio.ensure_future, job.close())
        ...     await job.finished()
        ...     return job.status.value
        >>> asyncio.run(main())
        'closed'
        """
        await self._event_finished.wait()

    def __await__(self) -> Generator[Any, None, Self]:
        return self._started().__await__()

    async def _started(self) -> Self:
        async with self.lock:
            if self.status == Status.created:
                await self.start()
        return self

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        where = f" {self.address}" if self.address else ""
        name = f" {self.name!r}" if self.name is not None else ""
        return f"<{type(self).__name__}{name}{where}: {self.status}>"

    def _repr_html_(self) -> str:
        rows = {"name": self.name, "address": self.address, "state": self.status}
        return card(type(self).__name__, rows)
