"""`LocalCluster`: a cluster on this machine that lives as long as a Python object."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import os
import socket
import threading
import warnings
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.cluster import dask_config, protocol
from holdfast.cluster.comm.addresses import is_loopback
from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.deploy import keywords
from holdfast.cluster.deploy.ask import ask
from holdfast.cluster.deploy.cluster import SYNC_SECONDS, Cluster
from holdfast.cluster.deploy.cluster_processes import LocalProcesses
from holdfast.cluster.deploy.in_process import LocalThreads
from holdfast.cluster.deploy.interfaces import address_of_interface
from holdfast.cluster.deploy.options import environment_of, preloads_of, scheduler_options, works_in_processes
from holdfast.cluster.deploy.plan import BEYOND_THIS_MACHINE, MAX_WORKERS, plan_nodes
from holdfast.cluster.deploy.process_interface import Status
from holdfast.cluster.deploy.runner import Runner
from holdfast.cluster.deploy.scheduler_file import write_scheduler_file
from holdfast.cluster.durations import seconds
from holdfast.cluster.errors import ConnectError, NoWorkerError
from holdfast.cluster.notebook import card
from holdfast.cluster.processes.run_directory import RunDirectory
from holdfast.objectstore.errors import HoldfastError
from holdfast.objectstore.sizes import format_size
from holdfast.objectstore.system.surroundings import fill_standard_descriptors

logger = logging.getLogger(__name__)

START_TIMEOUT_SECONDS = 30.0
CLOSE_TIMEOUT_SECONDS = 10.0
#: How often a host is asked again that was not there when it was to have other workers.
RETRY_SECONDS = 0.1


class LocalWorker(NamedTuple):
    """A worker of a `LocalCluster`, as that knows it.

    Attributes
    ----------
    name : str
    address : str or None
        By which the scheduler and clients name it; None while its host is being started again.
    nthreads : int
        How many tasks it runs at once.
    """

    name: str
    address: str | None
    nthreads: int

    @property
    def worker_address(self) -> str | None:
        """Another name of ``address``."""
        return self.address


class LocalScheduler(NamedTuple):
    """The scheduler of a `LocalCluster`, as that knows it.

    Attributes
    ----------
    address : str
        ``tcp://host:port``.
    pid : int
        Of its process.
    """

    address: str
    pid: int


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
        self._finalizer: weakref.finalize[Any, LocalCluster] | None = None
        self._pid = os.getpid()
        meant = keywords.of_cluster(others, PARAMETERS)
        for parameter, value in (("spill_directory", spill_directory), ("threads_per_worker", threads_per_worker)):
            if parameter in meant and value is not None:
                raise TypeError(f"{parameter} is given twice, once by another name")
        spill_directory = meant.get("spill_directory", spill_directory)
        threads_per_worker = meant.get("threads_per_worker", threads_per_worker)
        self._scheduler_options = of_scheduler = scheduler_options(scheduler_kwargs, blocked_handlers)
        host = meant.get("host", host) or of_scheduler.pop("host", None)
        if interface is not None:
            if host:
                raise TypeError("give host or interface, and not both")
            host = address_of_interface(interface)
        host = host or "127.0.0.1"
        keywords.check_security(security, protocol, host)
        processes = works_in_processes(processes, worker_class, protocol)
        self._patience = seconds(timeout)
        scheduler_port = of_scheduler.pop("port", None) or scheduler_port
        self._scheduler_file: Path | None = of_scheduler.pop("scheduler_file", None)
        log_level = _level(silence_logs)
        fill_standard_descriptors()
        if isinstance(scheduler_port, bool) or not isinstance(scheduler_port, int) or not 0 <= scheduler_port < 65536:
            raise ValueError(f"scheduler_port must be from 0 (any free port) to 65535, not {scheduler_port!r}")
        self._plans = plan_nodes(
            n_workers,
            threads_per_worker,
            processes=processes,
            n_hosts=n_hosts,
            host=host,
            memory_limit=memory_limit,
            object_store_memory=object_store_memory,
            spill_directory=spill_directory,
            resources=resources,
            name=name,
            environment=environment_of(env, processes=processes),
            preload=preloads_of(preload, preload_argv),
        )
        if not is_loopback(host):
            warnings.warn(BEYOND_THIS_MACHINE, stacklevel=2)
        super().__init__(bool(asynchronous), name=name, scheduler_sync_interval=scheduler_sync_interval)
        self._host, self._port = host, scheduler_port
        self._token = load_token(create=True)
        #: For each host the numbers that its next workers have.
        self._next = [plan.n_workers for plan in self._plans]
        self._lock = asyncio.Lock()
        self._parts: LocalProcesses | LocalThreads
        if processes:
            self._parts = LocalProcesses(
                self._token,
                log_level=str(log_level),
                log_directory=None if log_directory is None else Path(log_directory),
                dask_config=dask_config.what_was_set(),
                scheduler_options=of_scheduler,
            )
        else:
            self._parts = LocalThreads(self._token, of_scheduler)
        if not self._asynchronous:
            self._begin()

    def _begin(self) -> None:
        """Start all of it, and wait until it is ready."""
        patience = START_TIMEOUT_SECONDS if self._patience is None else self._patience
        self.status = Status.starting
        try:
            self._parts.start_cluster(self._host, self._port, self._plans, patience)
        except BaseException:
            self.status = Status.failed
            raise
        directory = RunDirectory.create("local")
        self._finalizer = weakref.finalize(
            self, _stop, self._runner, self._parts, directory, self._scheduler_file, CLOSE_TIMEOUT_SECONDS
        )
        if isinstance(parts := self._parts, LocalProcesses):
            tell = functools.partial(_tell, parts, directory)  # it must not keep this object alive
            tell()
            parts.keep(tell)
        else:
            directory.write_info({"address": self.scheduler_address})
        self.status = Status.running
        if self._scheduler_file is not None:
            try:
                identity = ask(self.scheduler_address, protocol.requests.INFO, token=self._token)
                write_scheduler_file(self._scheduler_file, identity)
            except BaseException:
                self._end(CLOSE_TIMEOUT_SECONDS)
                raise

    async def _start(self) -> None:
        beginning = asyncio.ensure_future(asyncio.to_thread(self._begin))
        try:
            await asyncio.shield(beginning)
            await super()._start()
        except BaseException:
            # A thread can't be cancelled: it ends what it has begun as soon as it is there.
            await asyncio.wait([beginning])
            if not beginning.cancelled():
                beginning.exception()
            await asyncio.to_thread(self._end, CLOSE_TIMEOUT_SECONDS)
            self.status = Status.failed
            raise

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
        scheduler = self._parts.scheduler if isinstance(self._parts, LocalProcesses) else None
        return scheduler.pid if scheduler is not None else os.getpid()

    @property
    def closed(self) -> bool:
        """Whether it was closed, or never began."""
        if self._asynchronous and self.status in (Status.created, Status.starting):
            return False
        return self._finalizer is None or not self._finalizer.alive

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
        restarting = self._parts.restarting() if isinstance(self._parts, LocalProcesses) else []
        return {**status, "restarting": restarting}

    # -- its workers

    @property
    def workers(self) -> dict[str, LocalWorker]:
        """The workers that there are to be, by name; an agent starts those again that die.

        Examples
        --------
        >>> [worker.nthreads for worker in cluster.workers.values()]
        [1, 1]
        """
        addresses = self._parts.addresses()
        return {
            _name_of(plan.name, index): LocalWorker(
                _name_of(plan.name, index),
                None if address is None else f"{address}/{index}",
                plan.threads_per_worker,
            )
            for plan, address in zip(self._plans, addresses, strict=True)
            for index in plan.numbers
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
        host = self._emptiest()
        name = _name_of(self._plans[host].name, self._next[host])
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
        return {"cls": Nanny if isinstance(self._parts, LocalProcesses) else Worker, "options": options}

    def scale(self, n: int = 0, memory: float | str | None = None, cores: int | None = None) -> Any:
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
        surplus = self._n_workers - n
        if surplus > 0:
            return self._change(self._remove_and_add(self._drop(self._choose(surplus))))
        for _ in range(-surplus):
            host = self._emptiest()
            index, self._next[host] = self._next[host], self._next[host] + 1
            self._plan(host, [*self._plans[host].numbers, index])
        return self._change(self._add())

    def scale_down(self, workers: Iterable[Any]) -> Any:
        """Have these workers no more, which are given by name or address; as `scale`."""
        self._check_open()
        return self._change(self._remove(self._drop(workers)))

    def _drop(self, workers: Iterable[Any]) -> list[str]:
        """These workers are in no host's plan any more: the addresses of those that have one."""
        named = {workers} if isinstance(workers, str) else {str(worker) for worker in workers}
        going = [
            worker for worker in self.workers.values() if not named.isdisjoint((worker.name, worker.address or ""))
        ]
        names = {worker.name for worker in going}
        for host, plan in enumerate(self._plans):
            self._plan(host, [index for index in plan.numbers if _name_of(plan.name, index) not in names])
        return [worker.address for worker in going if worker.address is not None]

    def _choose(self, count: int) -> list[str]:
        """The names of so many workers that may go: those that aren't there, then idle ones, the youngest first."""
        known = {worker["name"]: worker for worker in self.scheduler_info["workers"].values()}
        order = {name: place for place, name in enumerate(self.workers)}

        def cost(name: str) -> tuple[int, int]:
            worker = known.get(name)
            busy = 0 if worker is None else 1 + min(1, worker["processing"] + worker["blocked"])
            return busy, -order[name]

        return sorted(order, key=cost)[:count]

    def _emptiest(self) -> int:
        return min(range(len(self._plans)), key=lambda host: self._plans[host].n_workers)

    def _plan(self, host: int, numbers: list[int]) -> None:
        """A host has these workers from now on, also when its agent is started again."""
        plan = dataclasses.replace(self._plans[host], n_workers=len(numbers), indices=tuple(numbers))
        self._plans[host] = plan
        self._parts.plan(host, plan)

    def _change(self, change: Any) -> Any:
        if self.asynchronous:
            return asyncio.ensure_future(change)
        self._runner.soon(change, f"scaling {self.name}")
        return None

    async def _add(self) -> None:
        """Have each host keep the workers that it is to have. One that has gone, and is to have some, comes back."""
        async with self._lock:
            pending = set(range(len(self._plans)))
            while pending and not self.closed:
                comm = await self._connect()
                for host in list(pending):
                    address = self._parts.addresses()[host]
                    try:
                        if address is None and not self._plans[host].n_workers:
                            pending.discard(host)
                        elif address is None:
                            await self._parts.refill(host)
                        else:
                            indices = self._plans[host].numbers
                            await comm.ask(protocol.requests.ADD_WORKERS, node=address, indices=indices)
                            pending.discard(host)
                    except ValueError:
                        pass  # the host has just gone, and another one comes
                if pending:
                    await asyncio.sleep(RETRY_SECONDS)

    async def _remove_and_add(self, addresses: list[str]) -> None:
        """Others than those that go may be missing, too: they were retired."""
        await self._remove(addresses)
        await self._add()

    async def _remove(self, addresses: list[str]) -> None:
        """Close workers. Those that the scheduler has are retired first."""
        async with self._lock:
            comm = await self._connect()
            there = (await comm.identity())["workers"]
            if known := [address for address in addresses if address in there]:
                try:
                    await comm.retire_workers(known, close_hosts=False)
                except (NoWorkerError, ValueError):
                    pass  # they have just gone, or others let them go
                except (TimeoutError, RuntimeError) as error:  # they have actors, say
                    logger.warning("%s keeps the workers %s: %s", self.name, ", ".join(known), error)
                    self._keep(known)
                    addresses = [address for address in addresses if address not in known]
            # Also those that have come meanwhile.
            hosts = {address.rpartition("/")[0] for address in addresses}
            for host in hosts & set(self._parts.addresses()):
                theirs = [address for address in addresses if address.rpartition("/")[0] == host]
                with contextlib.suppress(ValueError):  # the host has just gone
                    await comm.ask(protocol.requests.REMOVE_WORKERS, node=host, workers=theirs)

    def _keep(self, addresses: Iterable[str]) -> None:
        """Workers that were to go stay."""
        for host, at in enumerate(self._parts.addresses()):
            numbers = [int(address.rpartition("/")[2]) for address in addresses if address.rpartition("/")[0] == at]
            if numbers:
                self._plan(host, sorted({*self._plans[host].numbers, *numbers}))

    def _check_open(self) -> None:
        if self.closed or self.status != Status.running:
            raise HoldfastError(f"{self!r} is not open, and can't be scaled")

    @property
    def plan(self) -> set[Any]:
        """The names of the workers that there are to be."""
        return set(self.workers)

    def _threads_per_worker(self) -> int | None:
        return self._plans[0].threads_per_worker

    def _memory_per_worker(self) -> int | None:
        return self._plans[0].memory_limit

    @property
    def _n_workers(self) -> int:
        return sum(plan.n_workers for plan in self._plans)

    @property
    def _nthreads(self) -> int:
        return sum(plan.n_workers * plan.threads_per_worker for plan in self._plans)

    # -- how it is shown

    def __repr__(self) -> str:
        if self.closed:
            return "LocalCluster(closed)"
        if self.status != Status.running:
            return f"LocalCluster({self.status})"
        size = f"workers={self._n_workers}, threads={self._nthreads}"
        if len(self._plans) > 1:
            size += f", hosts={len(self._plans)}"
        ended = f", {', '.join(died)}" if (died := self._parts.died()) else ""
        return f"LocalCluster({self.scheduler_address!r}, {size}{ended})"

    def _repr_html_(self) -> str:
        if self.status != Status.running or self.closed:
            return card("LocalCluster", {"state": "closed" if self.closed else self.status})
        return card(
            "LocalCluster",
            {
                "scheduler": self.scheduler_address,
                "state": ", ".join(self._parts.died()) or "running",
                "hosts": len(self._plans),
                "workers": self._n_workers,
                "threads": self._nthreads,
                "object stores": format_size(sum(plan.store_capacity for plan in self._plans)),
                "scaling": "adaptive" if self._adaptive is not None and self._adaptive.is_running else None,
            },
        )

    # -- its end

    def close(self, timeout: float | str | None = None) -> Any:
        """Stop all of it and wait until it is gone; kill what has not stopped after ``timeout``, in seconds or as text.
        Of an asynchronous one: await it.

        Twice is no error. In a fork of the process that made it this does nothing.
        """
        patience = seconds(timeout)
        within = CLOSE_TIMEOUT_SECONDS if patience is None else patience
        if self._asynchronous:
            return self._close_within(within)
        if os.getpid() == self._pid:
            self._stop_adapting()
            self._end(within)
        return None

    async def _close_within(self, patience: float) -> None:
        if self.status == Status.running:
            self.status = Status.closing
            await super()._close()
        if self._finalizer is not None:
            await asyncio.to_thread(self._end, patience)
        self.status = Status.closed

    async def _close(self) -> None:
        await self._close_within(CLOSE_TIMEOUT_SECONDS)

    def _end(self, patience: float) -> None:
        if self._finalizer is None or (call := self._finalizer.detach()) is None:
            return
        _, _, (runner, parts, directory, file, _), _ = call
        self.status = Status.closing
        try:
            _stop(runner, parts, directory, file, patience)
        finally:
            self.status = Status.closed


#: What can be given to a `LocalCluster`.
PARAMETERS = keywords.parameters_of(LocalCluster)


def _name_of(host: str | None, index: int) -> str:
    return f"{host or socket.gethostname()}-{index}"


def _level(level: int | str) -> int:
    """The number of a level of logging."""
    if not level:
        return logging.INFO
    found = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if not isinstance(found, int):
        raise ValueError(
            f"silence_logs is a level of logging, such as 'WARNING' or logging.WARNING, not {level!r:.100}"
        )
    return int(found)


def _tell(parts: LocalProcesses, directory: RunDirectory) -> None:
    directory.write_info(parts.describe())


def _stop(
    runner: Runner, parts: LocalProcesses | LocalThreads, directory: RunDirectory, file: Path | None, timeout: float
) -> None:
    if runner.is_current:
        # A collection of garbage can run in any thread, this loop's too, and it can't wait for itself.
        arguments = (runner, parts, directory, file, timeout)
        threading.Thread(target=_stop, args=arguments, name="holdfast-cluster-close").start()
        return
    try:
        runner.close(max(1.0, timeout))
        parts.stop(timeout)
    finally:
        if file is not None and os.getpid() == parts.owner_pid:
            file.unlink(missing_ok=True)
        directory.close()
