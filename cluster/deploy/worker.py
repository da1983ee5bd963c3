"""`Worker` and `Nanny`: workers that belong to the event loop of whoever makes them.

Both are kept by the node agent of this process (`local_node.py`), which has the object store that their results lie in.
A `Worker` runs its tasks in threads of this process. A `Nanny` has its worker in a process, started again when it dies.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.cluster import dask_config
from holdfast.cluster.comm.addresses import format_address, is_loopback, parse_address
from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.deploy import keywords, local_node
from holdfast.cluster.deploy.interfaces import address_of_interface
from holdfast.cluster.deploy.local_node import LocalNode
from holdfast.cluster.deploy.options import environment_of, given_once, log_level, preloads_of
from holdfast.cluster.deploy.plan import cores, resources_of, store_capacity, worker_memory
from holdfast.cluster.deploy.process_interface import ProcessInterface, Status
from holdfast.cluster.deploy.scheduler_file import address_in


class _HostedWorker(ProcessInterface):
    """What `Worker` and `Nanny` have in common."""

    _in_process: bool
    #: More of them on one host share its object store.
    brings_memory = False

    def __init__(
        self,
        scheduler_ip: str | None = None,
        scheduler_port: int | None = None,
        *,
        scheduler_file: str | Path | None = None,
        nthreads: int | None = None,
        ncores: int | None = None,
        name: Any = None,
        memory_limit: float | str | None = "auto",
        resources: Mapping[str, float] | None = None,
        local_directory: str | os.PathLike[str] | None = None,
        local_dir: str | os.PathLike[str] | None = None,
        object_store_memory: float | str | None = None,
        preload: Any = None,
        preload_argv: Any = None,
        host: str | None = None,
        interface: str | None = None,
        security: Any = None,
        protocol: str | None = None,
        silence_logs: Any = None,
        environment: Mapping[str, str] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(name=name)
        keywords.without_effect(type(self).__name__, others, keywords.parameters_of(type(self)))
        self.scheduler = _scheduler_address(scheduler_ip, scheduler_port, scheduler_file)
        at = parse_address(self.scheduler)[0]
        if interface is not None:
            if host:
                raise TypeError("give host or interface, and not both")
            host = address_of_interface(interface)
        self._host = host or ("127.0.0.1" if is_loopback(at) else "0.0.0.0")
        keywords.check_security(security, protocol, self._host)
        if nthreads is not None and ncores is not None:
            raise TypeError("ncores is another name for nthreads, which is given twice")
        self.nthreads = _threads(ncores if nthreads is None else nthreads)
        self.resources = resources_of(resources) or {}
        self.memory_limit = worker_memory(memory_limit, self.nthreads, processes=not self._in_process)
        self._plan: dict[str, Any] = {
            "nthreads": self.nthreads,
            "resources": self.resources,
            "memory_limit": self.memory_limit,
            "preload": preloads_of(preload, preload_argv),
            "environment": environment_of(environment, processes=not self._in_process),
            "in_process": self._in_process,
        }
        directory = given_once(
            {} if local_dir is None else {"local_directory": local_dir}, "local_directory", local_directory
        )
        self._spill_directory = None if directory is None else os.path.abspath(directory)
        self._store_capacity = None if object_store_memory is None else store_capacity(object_store_memory)
        self._log_level = "WARNING" if silence_logs is None else logging.getLevelName(log_level(silence_logs))
        self._node: LocalNode | None = None
        self._watching: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect; the worker is registered with the scheduler afterwards."""
        assert self.scheduler is not None
        self.status = Status.starting
        try:
            self._node = node = await local_node.borrow(
                self.scheduler,
                token=load_token(),
                host=self._host,
                store_capacity=self._store_capacity,
                spill_directory=self._spill_directory,
                name=socket.gethostname(),
                log_level=self._log_level,
                processes=False,
                dask_config=dask_config.what_was_set(),
            )
            plan = await node.add(None if self.name is None else str(self.name), **self._plan)
            self.address = node.agent.workers.address_of(plan.index)
            if self.name is None:
                self.name = plan.name
        except BaseException:
            await self.close()
            self.status = Status.failed
            raise
        self.status = Status.running
        self._watching = asyncio.ensure_future(self._watch(node))

    async def _watch(self, node: LocalNode) -> None:
        """It has ended when its node agent has, or a worker of this process by itself."""
        await node.ended(self.address or "")
        self._closing = self._closing or asyncio.ensure_future(self._close())

    async def close(self, timeout: float | str | None = None, **others: Any) -> None:
        """Leave the cluster. Twice is no error.

        Tasks that run are given a moment, and run elsewhere if they haven't ended. Its results stay in the object store
        of this process, as long as another worker or a scheduler here keeps that.

        Parameters
        ----------
        timeout
            Taken for compatibility, as is ``nanny``: a worker that doesn't end within some seconds is killed.
        """
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self.status == Status.running:
            self.status = Status.closing
        node, self._node = self._node, None
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
        try:
            if node is not None:
                try:
                    if self.address is not None:
                        await node.remove(self.address)
                finally:
                    await node.give_back()
        finally:
            await super().close()

    @property
    def worker_address(self) -> str | None:
        """The address of the worker, by which the scheduler and its clients name it; None before it has started.

        Examples
        --------
        >>> import asyncio
        >>> from holdfast import Scheduler, Worker
        >>> async def main():
        ...     async with Scheduler() as scheduler, Worker(scheduler.address, nthreads=1) as worker:
        ...         return worker.worker_address in scheduler.workers
        >>> asyncio.run(main())
        True
        """
        return self.address

    @property
    def worker(self) -> Any:
        """What the worker is while it runs, as its tasks see it; None otherwise, and of a `Nanny`.

        Examples
        --------
        >>> import asyncio
        >>> from holdfast import Scheduler, Worker
        >>> async def main():
        ...     async with Scheduler() as scheduler, Worker(scheduler.address, name="alice") as worker:
        ...         return worker.worker.name
        >>> asyncio.run(main())
        'alice'
        """
        if self._node is None or self.address is None or not self._in_process:
            return None
        return self._node.agent.workers.worker(self.address)

    @property
    def pid(self) -> int | None:
        """The process in which the tasks run; None while there is none.

        Examples
        --------
        >>> import asyncio, os
        >>> from holdfast import Scheduler, Worker
        >>> async def main():
        ...     async with Scheduler() as scheduler, Worker(scheduler.address, nthreads=1) as worker:
        ...         return worker.pid == os.getpid()
        >>> asyncio.run(main())
        True
        """
        return None if self._node is None else self._node.agent.workers.pids.get(self.address or "")


class Worker(_HostedWorker):
    """A worker in this process and the running event loop: ``async with Worker(scheduler.address) as worker``.

    It runs its tasks in threads of this process. All workers that one process
    has for a scheduler share an object store. It begins with the first of them, and ends with the last one, or with the
    `Scheduler` if that belongs to the same loop.

    Parameters
    ----------
    scheduler_ip : str, optional
        The scheduler's address, ``"tcp://HOST:PORT"``, or only its host.
    scheduler_port : int, optional
        The port of that host.
    scheduler_file : path, optional
        A file that says where the scheduler is.
    nthreads, ncores : int, optional
        How many tasks it runs at once. Default: the number of cores.
    name : hashable, optional
        What tasks and people call it by, as text. Default: the host's name with a number.
    memory_limit : int, float or str, optional
        What the scheduler counts as the resource ``"memory"``. Nothing limits a worker that is a part of this process.
    resources : mapping of str to number, optional
        What it has of things that tasks can ask for: ``{"GPU": 1}``.
    local_directory, local_dir : path, optional
        Where the object store puts what doesn't fit, if this worker is the first one here.
    object_store_memory : int or str, optional
        The capacity of the object store, if this worker is the first one here.
    preload, preload_argv
        What the worker runs first: names of modules, paths or code, as of `holdfast.cluster.worker.preloading`.
    silence_logs : int or str, optional
        The level from which processes of workers here log, or its name, if this worker is the first one here. Default:
        ``"WARNING"``.
    host, interface : str, optional
        The address by which other hosts reach the object store, or its network interface.
    **others
        Further keywords of dask's `Worker`; a warning says of each why it has no effect
        (`holdfast.cluster.deploy.keywords`).

    Attributes
    ----------
    address : str
        By which the scheduler names it; known when it has started.
    name : hashable
    nthreads : int
    resources : dict
    memory_limit : int or None

    Raises
    ------
    ConnectError, HoldfastError
        When it is started: there is no scheduler, or it can't be a worker of it.

    Examples
    --------
    >>> import asyncio
    >>> from holdfast import Scheduler, Worker
    >>> async def main():
    ...     async with Scheduler(port=0) as scheduler, Worker(scheduler.address, nthreads=2, name="alice") as worker:
    ...         return [each.name for each in scheduler.workers.values()]
    >>> asyncio.run(main())
    ['alice']
    """

    _in_process = True


class Nanny(_HostedWorker):
    """A worker in a process of its own that is started again when it dies: ``async with Nanny(scheduler.address)``.

    Parameters
    ----------
    scheduler_ip, scheduler_port, scheduler_file, nthreads, ncores, name, resources, local_directory, preload
        As of `Worker`.
    memory_limit : int, float or str, optional
        Memory of the process's own, ``"2 GB"``, or a fraction of this machine's; a process that takes more is ended and
        started again. "auto": its threads' share of what the object store leaves. 0 or None: no limit.
    env : mapping of str to str, optional
        Environment variables of the process. Libraries that are imported before its first task, as numpy, have read
        theirs already.
    worker_class
        `Worker`, which is what runs there.
    worker_kwargs : mapping, optional
        Further keywords, as of `Worker`; those that are given by themselves come first.
    **others
        As of `Worker`.

    Examples
    --------
    >>> import asyncio, os
    >>> from holdfast import Client, Nanny, Scheduler
    >>> async def main():
    ...     async with Scheduler(port=0) as scheduler, Nanny(scheduler.address, nthreads=1, env={"COLOUR": "red"}):
    ...         async with Client(scheduler.address, asynchronous=True) as client:
    ...             return await client.submit(os.getenv, "COLOUR")
    >>> asyncio.run(main())
    'red'
    """

    _in_process = False

    def __init__(
        self,
        scheduler_ip: str | None = None,
        scheduler_port: int | None = None,
        *,
        env: Mapping[str, str] | None = None,
        worker_class: Any = None,
        worker_kwargs: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> None:
        if worker_class not in (None, Worker):
            raise TypeError(
                f"worker_class={worker_class!r:.100}: a Nanny runs a Worker; preload= runs code of yours in its process"
            )
        super().__init__(scheduler_ip, scheduler_port, environment=env, **{**(worker_kwargs or {}), **others})

    async def kill(self, timeout: float | str | None = None, **others: Any) -> None:
        """Kill the process of its worker; another one is started in its place.

        Parameters
        ----------
        timeout
            Taken for compatibility.

        Examples
        --------
        >>> import asyncio
        >>> from holdfast import Nanny, Scheduler
        >>> async def main():
        ...     async with Scheduler() as scheduler, Nanny(scheduler.address, nthreads=1) as nanny:
        ...         await nanny.kill()
        >>> asyncio.run(main())
        """
        if (pid := self.pid) is not None:
            os.kill(pid, 9)


def _scheduler_address(where: str | None, port: int | None, file: str | Path | None) -> str:
    if file is not None:
        if where is not None:
            raise TypeError("give the address of the scheduler or scheduler_file, and not both")
        return address_in(file)
    if where is None:
        raise TypeError("a worker needs the address of its scheduler, or a scheduler_file")
    if not isinstance(where, str):
        raise TypeError(f"the address of the scheduler is text such as 'tcp://HOST:PORT', not {where!r:.100}")
    if port is not None:
        where = f"{where}:{port}"
    return format_address(*parse_address(where))


def _threads(nthreads: int | None) -> int:
    if nthreads is None:
        return cores()
    if isinstance(nthreads, bool) or not isinstance(nthreads, int) or nthreads < 1:
        raise ValueError(f"nthreads is a whole number from 1 on, not {nthreads!r:.100}")
    return nthreads
