"""`Scheduler`: a scheduler in the event loop of whoever makes it, without a process of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from holdfast.cluster.comm.addresses import is_loopback
from holdfast.cluster.comm.listening import bound_socket
from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.deploy import keywords, local_node
from holdfast.cluster.deploy.blocked_handlers import requests_of
from holdfast.cluster.deploy.interfaces import address_of_interface
from holdfast.cluster.deploy.plan import BEYOND_THIS_MACHINE
from holdfast.cluster.deploy.process_interface import ProcessInterface, Status
from holdfast.cluster.deploy.scheduler_file import write_scheduler_file
from holdfast.cluster.durations import seconds
from holdfast.cluster.user_warnings import warn_user
from holdfast.objectstore.durable.opening import default_place, normal_url

#: How often the scheduler file is written anew, if workers have come or gone.
FILE_SECONDS = 1.0


class WorkerView(NamedTuple):
    """A worker, as the scheduler knows it now.

    Attributes
    ----------
    address, name : str
    nthreads : int
        How many tasks it runs at once.
    host : str
        The address of its node.
    resources : dict
        What it has of things that tasks can ask for.
    processing : int
        How many runs it has.
    """

    address: str
    name: str
    nthreads: int
    host: str
    resources: Mapping[str, float]
    processing: int


class Scheduler(ProcessInterface):
    """A scheduler in this process and the running event loop: ``async with Scheduler() as scheduler``.

    For tests, and for programs that bring a cluster about by themselves. It is the same scheduler that `LocalCluster`
    and ``holdfast start`` run in a process of its own; here the loop serves it between whatever else it does, so what
    blocks the loop stops the cluster.

    Parameters
    ----------
    host : str, optional
        The address to listen on. Default: this machine only, ``"127.0.0.1"``.
    port : int, default 0
        0: any free port.
    interface : str, optional
        The network interface whose address is listened on.
    scheduler_file : path, optional
        Where it says how it is reached, for `Client`, `Worker` and ``holdfast start``. Removed when it closes.
    allowed_failures : int, optional
        A task that was charged for so many deaths of workers, and one more, fails. Default: 2.
    worker_ttl : float or str, optional
        A host that says nothing for so long is given up. Default: 30 s.
    no_worker_timeout, no_workers_timeout : float or str, optional
        A task that no worker may run fails after this. Default: 30 s.
    blocked_handlers : list of str, optional
        What clients may not ask of it.
    durable : str or path, optional
        Where datasets are durable, as of `LocalCluster`.
    validate : bool, default False
        Check all that has to hold after every event: slow, for tests.
    name : hashable, optional
        For messages.
    **others
        Further keywords of dask's `Scheduler`; a warning says of each why it has no effect
        (`holdfast.cluster.deploy.keywords`).

    Attributes
    ----------
    address : str
        ``tcp://host:port``; known when it has started.
    token : bytes
        What connecting needs: this user's token.

    Raises
    ------
    ConnectError
        When it is started: the port is in use, or the address isn't this machine's.

    Examples
    --------
    >>> import asyncio
    >>> from holdfast import Client, Scheduler, Worker
    >>> async def main():
    ...     async with (
    ...         Scheduler(port=0) as scheduler,
    ...         Worker(scheduler.address, nthreads=2, name="alice", resources={"GPU": 1}),
    ...         Client(scheduler.address, asynchronous=True) as client,
    ...     ):
    ...         return await client.submit(pow, 2, 5, resources={"GPU": 1})
    >>> asyncio.run(main())
    32
    """

    def __init__(
        self,
        loop: Any = None,
        *,
        host: str | None = None,
        port: int | None = 0,
        interface: str | None = None,
        scheduler_file: str | Path | None = None,
        allowed_failures: int | None = None,
        worker_ttl: float | str | None = None,
        no_worker_timeout: float | str | None = None,
        no_workers_timeout: float | str | None = None,
        blocked_handlers: list[str] | None = None,
        durable: str | os.PathLike[str] | None = None,
        validate: bool | None = False,
        security: Any = None,
        protocol: str | None = None,
        name: Any = None,
        **others: Any,
    ) -> None:
        super().__init__(name=name)
        keywords.without_effect("Scheduler", {**others, "loop": loop}, PARAMETERS)
        if host and ":" in host and "://" in host:
            raise ValueError(f"host is an address without a scheme and a port, such as '127.0.0.1', not {host!r}")
        if interface is not None:
            if host:
                raise TypeError("give host or interface, and not both")
            host = address_of_interface(interface)
        self._host = host or "127.0.0.1"
        self._port = port or 0
        keywords.check_security(security, protocol, self._host)
        if not is_loopback(self._host):
            warn_user(BEYOND_THIS_MACHINE)
        self._scheduler_file = None if scheduler_file is None else Path(scheduler_file)
        self._options: dict[str, Any] = {"validate": bool(validate), "blocked_requests": requests_of(blocked_handlers)}
        for option, value in (
            ("silence_timeout", seconds(worker_ttl)),
            ("no_worker_timeout", seconds(no_worker_timeout if no_workers_timeout is None else no_workers_timeout)),
            ("max_failures", None if allowed_failures is None else allowed_failures + 1),
            ("durable", default_place() if durable is None else normal_url(durable)),
        ):
            if value is not None:
                self._options[option] = value
        self.token = b""
        self._server: Any = None
        self._writing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen."""
        from holdfast.cluster.scheduler.io.server import Scheduler as Server  # which most that import this don't need

        self.status = Status.starting
        try:
            self.token = load_token(create=True)
            self._server = Server(token=self.token, sock=bound_socket(self._host, self._port), **self._options)
            await self._server.start()
            self.address = self._server.address
            local_node.keep(self._server.address)
            if self._scheduler_file is not None:
                write_scheduler_file(self._scheduler_file, self.identity())
                self._writing = asyncio.ensure_future(self._keep_file(self._scheduler_file))
        except BaseException:
            await self.close()
            self.status = Status.failed
            raise
        self.status = Status.running
        self._watching = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        """A client may shut it down."""
        await self._server.finished.wait()
        await self.close()

    async def close(self, timeout: float | str | None = None, reason: str = "the scheduler was closed") -> None:
        """Tell all peers that the cluster ends, and go. Twice is no error.

        Parameters
        ----------
        timeout
            Taken for compatibility: peers get a few seconds.
        reason
            What clients are told.
        """
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close(reason))
        await asyncio.shield(self._closing)

    async def _close(self, reason: str) -> None:
        if self.status == Status.running:
            self.status = Status.closing
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.cancel()
        if self._server is not None:
            try:
                if self.address is not None:
                    await local_node.let_go(self.address)
            finally:
                await self._server.close(reason)
        if self._scheduler_file is not None and self.address is not None:
            self._scheduler_file.unlink(missing_ok=True)
        await super().close()

    async def _keep_file(self, path: Path) -> None:
        written = self.identity()["workers"].keys()
        while True:
            await asyncio.sleep(FILE_SECONDS)
            identity = self.identity()
            if identity["workers"].keys() != written:
                await asyncio.to_thread(write_scheduler_file, path, identity)
                written = identity["workers"].keys()

    # -- what there is

    @property
    def id(self) -> str:
        """``scheduler-...``; another one each time.

        Examples
        --------
        >>> import asyncio
        >>> from holdfast import Scheduler
        >>> async def main():
        ...     async with Scheduler() as scheduler:
        ...         return scheduler.id
        >>> asyncio.run(main())
        'scheduler-...'
        """
        return str(self._state_of().id)

    @property
    def workers(self) -> Mapping[str, WorkerView]:
        """The workers that there are now, by address.

        Examples
        --------
        >>> import asyncio
        >>> from holdfast import Scheduler, Worker
        >>> async def main():
        ...     async with Scheduler() as scheduler, Worker(scheduler.address, name="alice"):
        ...         return [worker.name for worker in scheduler.workers.values()]
        >>> asyncio.run(main())
        ['alice']
        """
        workers = self._state_of().state.workers.values()
        return MappingProxyType(
            {
                worker.address: WorkerView(
                    worker.address,
                    worker.name,
                    worker.nthreads,
                    worker.host.address,
                    MappingProxyType(worker.resources),
                    len(worker.runs),
                )
                for worker in workers
            }
        )

    @property
    def clients(self) -> Mapping[str, str]:
        """The name of each client that is connected, by its id.

        Examples
        --------
        >>> import asyncio
        >>> from holdfast import Client, Scheduler
        >>> async def main():
        ...     async with Scheduler() as scheduler, Client(scheduler.address, asynchronous=True) as client:
        ...         return client.id in scheduler.clients
        >>> asyncio.run(main())
        True
        """
        clients = self._state_of().state.clients.values()
        return MappingProxyType({client.id: client.name for client in clients if client.worker is None})

    @property
    def total_nthreads(self) -> int:
        """Of all workers together.

        Examples
        --------
        >>> import asyncio
        >>> from holdfast import Scheduler, Worker
        >>> async def main():
        ...     async with Scheduler() as scheduler, Worker(scheduler.address, nthreads=2):
        ...         return scheduler.total_nthreads
        >>> asyncio.run(main())
        2
        """
        return sum(worker.nthreads for worker in self._state_of().state.workers.values())

    def identity(self) -> dict[str, Any]:
        """What `Client.scheduler_info` gives.

        Examples
        --------
        >>> import asyncio
        >>> from holdfast import Scheduler
        >>> async def main():
        ...     async with Scheduler() as scheduler:
        ...         return scheduler.identity()["address"] == scheduler.address
        >>> asyncio.run(main())
        True
        """
        from holdfast.cluster.scheduler.watching.introspection import info

        server = self._state_of()
        return info(server.state, server.describe())

    def _state_of(self) -> Any:
        if self._server is None or self.address is None:
            raise RuntimeError("this scheduler is not started: await it, or use 'async with'")
        return self._server


#: What can be given to a `Scheduler`.
PARAMETERS = keywords.parameters_of(Scheduler)
