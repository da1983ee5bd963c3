"""`LocalCluster`: a cluster on this machine that lives as long as a Python object."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.cluster import dask_config, protocol
from holdfast.cluster.comm.addresses import is_loopback
from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.deploy import keywords
from holdfast.cluster.deploy.ask import ask
from holdfast.cluster.deploy.host_plans import HostPlans
from holdfast.cluster.deploy.local_life import CLOSE_TIMEOUT_SECONDS, LocalLife
from holdfast.cluster.deploy.local_scaling import LocalScaling
from holdfast.cluster.deploy.local_views import LocalScheduler
from holdfast.cluster.deploy.local_workers import PlannedWorkers
from holdfast.cluster.deploy.observed_cluster import SYNC_SECONDS
from holdfast.cluster.deploy.options import (
    address_to_listen_on,
    checked_port,
    environment_of,
    given_once,
    log_level,
    preloads_of,
    scheduler_options,
    works_in_processes,
)
from holdfast.cluster.deploy.plan import BEYOND_THIS_MACHINE, plan_nodes
from holdfast.cluster.deploy.process_interface import Status
from holdfast.cluster.durations import seconds
from holdfast.cluster.errors import ConnectError
from holdfast.objectstore.durable.opening import default_place, normal_url
from holdfast.objectstore.errors import HoldfastError
from holdfast.objectstore.system.surroundings import fill_standard_descriptors

if TYPE_CHECKING:
    from holdfast.cluster.deploy.cluster_processes import LocalProcesses
    from holdfast.cluster.deploy.in_process import LocalThreads

START_TIMEOUT_SECONDS = 30.0


class LocalCluster(PlannedWorkers):
    """A scheduler, node agents with their object stores, and workers, on this machine.

    Workers and node agents that die are started again. With an agent goes what its store holds: what is needed of that
    is computed again, and what was scattered there only is an `ObjectLostError`.

    Closes when it is told to, when its ``with`` block ends, when it is garbage, and when this process ends, however
    that comes about; nothing stays behind. With ``asynchronous=True`` it is opened by ``await`` or ``async with``, and
    `close` is awaited.

    Its workers have dask's configuration as it is in this process when it is made, with ``dask.config.set`` too.

    Parameters
    ----------
    n_workers : int, optional
        Workers of the whole cluster. By default as many as make workers × threads the number of cores. 0: none, until
        `scale` or `adapt` bring some.
    threads_per_worker : int, optional
        Tasks that each worker runs at once.
    processes : bool, default True
        True: the scheduler, each node agent and each worker are processes of their own. False: everything runs in
        this process, tasks in threads; quick to start, good for debugging and for code that releases the
        interpreter's lock.
    n_hosts : int, default 1
        How many hosts to stand for: node agents with separate object stores, with the workers spread over them.
    host : str, default "127.0.0.1"
        The address to listen on. The default is reachable from this machine only; of any other a warning says what
        that means.
    interface : str, optional
        The network interface whose address is listened on.
    scheduler_port : int, default 0
        0: any free port.
    memory_limit : int, float or str, optional
        Memory of each worker process's own, ``"2 GB"``, or a fraction of this machine's, ``0.25``; one that takes more
        is killed. By default, or with "auto", the processes share what the stores leave of this machine's memory or its
        control group's, less something for all else; 0: no limit.
    object_store_memory : int, float or str, optional
        Capacity of each host's object store; 30 % of this machine's memory, or its control group's, divided by
        ``n_hosts``, if not given. Memory is taken when it is used, not before. Clusters don't know of each other.
    spill_directory : path, optional
        Where the stores move objects that don't fit; the first of ``$TMPDIR``, ``/tmp``, ``/var/tmp`` and
        ``~/.cache`` that is on a disk if not given.
    durable : str or path, optional
        Where datasets are durable (``publish_dataset(durable=True)``): a directory, or a URL that fsspec opens, such as
        ``"s3://bucket/published"``. By default what the variable ``HOLDFAST_DURABLE`` names, or
        ``~/.local/state/holdfast/durable``.
    resources : mapping of str to number, optional
        What each worker has of things that tasks can ask for: ``{"GPU": 1}``.
    env : mapping of str to str, optional
        Environment variables of the worker processes, besides those of this process.
    preload, preload_argv
        What each worker runs first: names of modules, paths or code, as of `holdfast.cluster.worker.preloading`.
    silence_logs : int or str, default logging.WARNING
        The level from which the processes log to this process's standard error, or its name; a false value logs
        everything from INFO.
    log_directory : path, optional
        Log to files in this directory instead.
    timeout : float or str, default 30 s
        How long starting may take, in seconds or as text such as ``"1 minute"``.
    name : str, optional
        For its hosts and workers, and for messages.
    asynchronous : bool, default False
        Whether it belongs to the running event loop.
    worker_class : class, optional
        `Worker`: as with ``processes=False``. `Nanny`: processes. `SpecCluster` takes other classes.
    blocked_handlers : list of str, optional
        What clients may not ask of the scheduler.
    scheduler_kwargs : dict, optional
        Of the scheduler: ``allowed_failures``, ``worker_ttl``, ``no_worker_timeout``, ``blocked_handlers``,
        ``scheduler_file``, ``port``, ``host``, ``validate``; as of `Scheduler`.
    scheduler_sync_interval : float or str, default 1
        How often an asynchronous one looks how its workers are, for ``scheduler_info``.
    security, protocol
        Encryption is had for no cluster: a warning or an error says so.
    **others
        Other names that dask has for some of these (``local_directory``, ``ip``, ``nthreads``), and keywords that have
        no effect here, of which a warning says why (`holdfast.cluster.deploy.keywords`).

    Attributes
    ----------
    scheduler_address : str
        ``tcp://host:port``; ``Client(address)`` connects from any process of this user.
    token : bytes
        What connecting needs: this user's token (`holdfast.cluster.comm.tokens`).

    Raises
    ------
    ValueError, TypeError
        An argument that can't be, or is none; names it, and what it may be, or what to use instead.
    ConnectError
        The port is in use.
    HoldfastError
        A part of it could not start; says why, and nothing is left running.

    Examples
    --------
    >>> from holdfast import Client, LocalCluster
    >>> with LocalCluster(n_workers=2) as cluster, Client(cluster) as client:
    ...     client.submit(sum, [1, 2]).result()
    3
    >>> import asyncio
    >>> async def main():
    ...     async with LocalCluster(n_workers=0, threads_per_worker=1, asynchronous=True) as cluster:
    ...         async with Client(cluster, asynchronous=True) as client:
    ...             await cluster.scale(2)
    ...             await client.wait_for_workers(2)
    ...             return len(cluster.workers)
    >>> asyncio.run(main())
    2
    """

    #: More workers of a host share its object store.
    workers_bring_memory = False

    def __init__(
        self,
        n_workers: int | None = None,
        threads_per_worker: int | None = None,
        processes: bool | None = True,
        *,
        n_hosts: int = 1,
        host: str | None = None,
        interface: str | None = None,
        scheduler_port: int = 0,
        memory_limit: float | str | None = None,
        object_store_memory: float | str | None = None,
        spill_directory: str | os.PathLike[str] | None = None,
        durable: str | os.PathLike[str] | None = None,
        resources: Mapping[str, float] | None = None,
        env: Mapping[str, str] | None = None,
        preload: Any = None,
        preload_argv: Any = None,
        silence_logs: int | str = logging.WARNING,
        log_directory: str | os.PathLike[str] | None = None,
        timeout: float | str | None = START_TIMEOUT_SECONDS,
        name: str | None = None,
        asynchronous: bool | None = False,
        worker_class: Any = None,
        blocked_handlers: list[str] | None = None,
        scheduler_kwargs: Mapping[str, Any] | None = None,
        scheduler_sync_interval: float | str = SYNC_SECONDS,
        security: Any = None,
        protocol: str | None = None,
        **others: Any,
    ) -> None:
        meant = keywords.of_cluster(others, PARAMETERS)
        of_scheduler = scheduler_options(scheduler_kwargs, blocked_handlers)
        if (place := default_place() if durable is None else normal_url(durable)) is not None:
            of_scheduler["durable"] = place
        listen = address_to_listen_on(meant.get("host", host) or of_scheduler.pop("host", None), interface)
        port = checked_port(of_scheduler.pop("port", None) or scheduler_port)
        keywords.check_security(security, protocol, listen)
        processes = works_in_processes(processes, worker_class, protocol)
        self._patience = seconds(timeout)
        level = log_level(silence_logs)
        fill_standard_descriptors()
        plans = plan_nodes(
            n_workers,
            given_once(meant, "threads_per_worker", threads_per_worker),
            processes=processes,
            n_hosts=n_hosts,
            host=listen,
            memory_limit=memory_limit,
            object_store_memory=object_store_memory,
            spill_directory=given_once(meant, "spill_directory", spill_directory),
            resources=resources,
            name=name,
            environment=environment_of(env, processes=processes),
            preload=preloads_of(preload, preload_argv),
        )
        if not is_loopback(listen):
            warnings.warn(BEYOND_THIS_MACHINE, stacklevel=2)
        super().__init__(bool(asynchronous), name=name, scheduler_sync_interval=scheduler_sync_interval)
        self._listen = listen, port
        self._has_processes = processes
        self._token = load_token(create=True)
        scheduler_file = of_scheduler.pop("scheduler_file", None)
        self._parts: LocalProcesses | LocalThreads
        if processes:
            from holdfast.cluster.deploy.cluster_processes import LocalProcesses

            self._parts = LocalProcesses(
                self._token,
                log_level=str(level),
                log_directory=None if log_directory is None else Path(log_directory),
                dask_config=dask_config.what_was_set(),
                scheduler_options=of_scheduler,
            )
        else:
            from holdfast.cluster.deploy.in_process import LocalThreads

            self._parts = LocalThreads(self._token, of_scheduler)
        self._plans = HostPlans(plans, self._parts.plan)
        self._scaling = LocalScaling(self._parts, self._plans, self.name)
        self._life = LocalLife(self._runner, self._parts, self._token, scheduler_file)
        # Before anything begins, so that there is no moment at which something could be left.
        self._finalizer = weakref.finalize(self, self._life.end, CLOSE_TIMEOUT_SECONDS)
        if not self._asynchronous:
            self._begin()

    # -- beginning and end

    def _begin(self) -> None:
        """Start all of it, and wait until it is ready."""
        patience = START_TIMEOUT_SECONDS if self._patience is None else self._patience
        self.status = Status.starting
        try:
            self._life.begin(*self._listen, [self._plans[host] for host in range(len(self._plans))], patience)
        except BaseException:
            self._finalizer.detach()
            self.status = Status.failed
            raise
        self.status = Status.running

    async def _start(self) -> None:
        beginning = asyncio.ensure_future(asyncio.to_thread(self._begin))
        try:
            await asyncio.shield(beginning)
            await super()._start()
        except BaseException:
            # A thread can't be cancelled: what it has begun is ended as soon as it is there.
            await asyncio.wait([beginning])
            if not beginning.cancelled():
                beginning.exception()
            await super()._close()
            await asyncio.to_thread(self._life.end, CLOSE_TIMEOUT_SECONDS)
            self._finalizer.detach()
            self.status = Status.failed
            raise

    def close(self, timeout: float | str | None = None) -> Any:
        """Stop all of it and wait until it is gone; kill what has not stopped after ``timeout``, in seconds or as text.
        Of an asynchronous one: await it.

        Twice is no error. In a fork of the process that made it this does nothing.
        """
        given = seconds(timeout)
        patience = CLOSE_TIMEOUT_SECONDS if given is None else given
        if self._asynchronous:
            return self._close_within(patience)
        if os.getpid() == self._parts.owner_pid and not self.closed:
            self._stop_adapting()
            self._end_parts(patience)
        return None

    async def _close_within(self, patience: float) -> None:
        if self.status == Status.running:
            self.status = Status.closing
            await super()._close()
        if self.status not in (Status.created, Status.failed):
            await asyncio.to_thread(self._end_parts, patience)
        self._closed()

    async def _close(self) -> None:
        await self._close_within(CLOSE_TIMEOUT_SECONDS)

    def _end_parts(self, patience: float) -> None:
        self.status = Status.closing
        try:
            self._life.end(patience)
        except Exception:
            self._closed()
            raise
        self._closed()  # but not after an interrupt: then it may be closed again, or as garbage

    def _closed(self) -> None:
        self._finalizer.detach()
        self.status = Status.closed

    # -- what it is

    @property
    def scheduler_address(self) -> str:
        """``tcp://host:port``."""
        address = self._parts.scheduler_address
        if not address:
            raise ConnectError(f"the cluster {self.name} is not open: await it, or use 'async with'")
        return address

    @property
    def token(self) -> bytes:
        """What connecting needs."""
        return self._token

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """For each host whose node agent runs the agent's ``address`` and ``pid``.

        Examples
        --------
        >>> [node["address"] for node in cluster.nodes]
        ['tcp://127.0.0.1:...']
        """
        return [dict(info) for info in self._parts.node_infos]

    @property
    def scheduler(self) -> LocalScheduler:
        """The scheduler: its ``address`` and ``pid``.

        Examples
        --------
        >>> cluster.scheduler.address == cluster.scheduler_address
        True
        """
        return LocalScheduler(self.scheduler_address, self.scheduler_pid)

    @property
    def scheduler_pid(self) -> int:
        """The id of the scheduler's process, this one's without ``processes``.

        Examples
        --------
        >>> import os
        >>> with LocalCluster(n_workers=0, processes=False) as here:
        ...     here.scheduler_pid == os.getpid()
        True
        """
        return self._parts.scheduler_pid

    def describe(self) -> dict[str, Any]:
        """What ``holdfast status --json`` shows: hosts, workers, stores, tasks. It blocks.

        Raises
        ------
        HoldfastError
            It is closed, or its scheduler has died.

        Examples
        --------
        >>> cluster.describe()["scheduler"]["address"] == cluster.scheduler_address
        True
        """
        if self.closed:
            raise HoldfastError("the cluster is closed")
        status: dict[str, Any] = ask(self.scheduler_address, protocol.requests.STATUS, token=self.token)
        return {**status, "restarting": self._parts.restarting()}


#: What can be given to a `LocalCluster`.
PARAMETERS = keywords.parameters_of(LocalCluster)
