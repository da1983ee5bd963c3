"""`LocalCluster`: a cluster on this machine that lives as long as a Python object."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.cluster import dask_config, protocol
from holdfast.cluster.comm.addresses import is_loopback
from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.deploy import keywords
from holdfast.cluster.deploy.ask import ask
from holdfast.cluster.deploy.cluster import Cluster, out_of
from holdfast.cluster.deploy.host_plans import HostPlans
from holdfast.cluster.deploy.local_life import CLOSE_TIMEOUT_SECONDS, LocalLife
from holdfast.cluster.deploy.local_scaling import LocalScaling, idle_first
from holdfast.cluster.deploy.local_views import LocalScheduler, LocalWorker
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
from holdfast.cluster.deploy.plan import BEYOND_THIS_MACHINE, MAX_WORKERS, plan_nodes
from holdfast.cluster.deploy.process_interface import Status
from holdfast.cluster.durations import seconds
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.notebook import card
from holdfast.objectstore.errors import HoldfastError
from holdfast.objectstore.sizes import format_size
from holdfast.objectstore.system.surroundings import fill_standard_descriptors

if TYPE_CHECKING:
    from holdfast.cluster.deploy.cluster_processes import LocalProcesses
    from holdfast.cluster.deploy.in_process import LocalThreads

START_TIMEOUT_SECONDS = 30.0


class LocalCluster(Cluster):
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

    # -- its workers

    @property
    def workers(self) -> dict[str, LocalWorker]:
        """The workers that there are to be, by name; an agent starts those again that die.

        Examples
        --------
        >>> [worker.nthreads for worker in cluster.workers.values()]
        [1, 1]
        """
        # Before it begins, no host has an address.
        hosts = self._parts.addresses() or [None] * len(self._plans)
        return {
            each.name: LocalWorker(each.name, each.address(hosts[each.host]), self._plans[each.host].threads_per_worker)
            for each in self._plans.workers()
        }

    @property
    def worker_spec(self) -> dict[str, dict[str, Any]]:
        """What each worker is, by name, as of a `SpecCluster`.

        Examples
        --------
        >>> [spec["options"]["nthreads"] for spec in cluster.worker_spec.values()]
        [1, 1]
        """
        return {name: self._spec_of(name) for name in self.workers}

    def new_worker_spec(self) -> dict[str, dict[str, Any]]:
        """The name and the specification of the next worker, as a dictionary with one entry.

        Examples
        --------
        >>> ((name, spec),) = cluster.new_worker_spec().items()
        >>> name in cluster.workers, spec["options"]["nthreads"]
        (False, 1)
        """
        name = self._plans.next_name
        return {name: self._spec_of(name)}

    def _spec_of(self, name: str) -> dict[str, Any]:
        from holdfast.cluster.deploy.worker import Nanny, Worker  # which bring much along that this class needs not

        plan = self._plans[0]
        options = {
            "name": name,
            "nthreads": plan.threads_per_worker,
            "memory_limit": plan.memory_limit,
            "resources": dict(plan.resources or {}),
        }
        return {"cls": Nanny if self._has_processes else Worker, "options": options}

    def scale(self, n: int = 0, memory: float | str | None = None, cores: float | None = None) -> Any:
        """Have so many workers. They come and go in the background; `wait_for_workers` waits for those that come.

        Idle workers go first. One that runs a task gets half a minute to end that. No result is lost: these lie in the
        object stores, which stay, also with no worker at all.

        Parameters
        ----------
        n : int
            The number of workers.
        memory, cores : optional
            Have so many workers at least that they have so much memory, or so many threads, together.

        Returns
        -------
        awaitable or None
            Of an asynchronous one: of the time when all hosts have been told, and those that go have gone.

        Examples
        --------
        >>> with LocalCluster(n_workers=1, threads_per_worker=1) as cluster:
        ...     cluster.scale(3)
        ...     cluster.wait_for_workers(3)
        ...     len(cluster.scheduler_info["workers"])
        3
        """
        self._check_open()
        n = self._wanted(n, memory, cores)
        if n > MAX_WORKERS:
            raise ValueError(f"n must be from 0 to {MAX_WORKERS}, not {n}")
        surplus = self._plans.n_workers - n
        going = self._drop(idle_first(self.workers, self.scheduler_info, surplus)) if surplus > 0 else []
        self._plans.grow(max(0, -surplus))
        return self._do(self._scaled(going), f"scaling {self.name}")

    def scale_down(self, workers: Iterable[Any]) -> Any:
        """Have these workers no more, which are given by name or address; as `scale`."""
        self._check_open()
        return self._do(self._scaling.remove(self._connect, self._drop(workers)), f"scaling {self.name}")

    def _drop(self, workers: Iterable[Any]) -> list[str]:
        """These workers are in no host's plan any more: the addresses of those that have one."""
        named = {workers} if isinstance(workers, str) else {str(worker) for worker in workers}
        going = [each for each in self.workers.values() if not named.isdisjoint((each.name, each.address or ""))]
        self._plans.drop({each.name for each in going})
        return [each.address for each in going if each.address is not None]

    async def _scaled(self, going: list[str]) -> None:
        """These workers go, and what is missing of the others comes: it may have been retired."""
        if going:
            await self._scaling.remove(self._connect, going)
        await self._scaling.add(self._connect, lambda: self.closed)

    @property
    def plan(self) -> set[Any]:
        """The names of the workers that there are to be."""
        return set(self.workers)

    @property
    def requested(self) -> set[Any]:
        """The names of the workers that are there, or come by themselves: not of those that a client has retired."""
        return self.plan & (self.observed | self._scaling.coming())

    def _threads_per_worker(self) -> int | None:
        return self._plans[0].threads_per_worker

    def _memory_per_worker(self) -> int | None:
        return self._plans[0].memory_limit

    # -- how it is shown

    def __repr__(self) -> str:
        if self.status != Status.running:
            return f"LocalCluster({self.status})"
        here = self._here()
        text = f"workers={len(here)}, threads={sum(worker.nthreads for worker in here)}"
        if len(self._plans) > 1:
            text += f", hosts={len(self._parts.node_infos)}"
        ended = f", {', '.join(died)}" if (died := self._parts.died()) else ""
        return f"LocalCluster({self.scheduler_address!r}, {text}{ended})"

    def _here(self) -> list[LocalWorker]:
        """The workers whose hosts are there."""
        return [worker for worker in self.workers.values() if worker.address is not None]

    def _repr_html_(self) -> str:
        if self.status != Status.running:
            return card("LocalCluster", {"state": self.status})
        here, hosts = self._here(), len(self._parts.node_infos)
        return card(
            "LocalCluster",
            {
                "scheduler": self.scheduler_address,
                "state": ", ".join(self._parts.died()) or "running",
                "hosts": out_of(hosts, len(self._plans)),
                "workers": out_of(len(here), self._plans.n_workers),
                "threads": sum(worker.nthreads for worker in here),
                "object stores": format_size(hosts * self._plans[0].store_capacity),
                "scaling": "adaptive" if self._adaptive is not None and self._adaptive.is_running else "manual",
            },
        )


#: What can be given to a `LocalCluster`.
PARAMETERS = keywords.parameters_of(LocalCluster)
