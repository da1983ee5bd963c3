"""`LocalCluster`: a cluster on this machine that lives as long as a Python object."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from holdfast.cluster import dask_config, protocol
from holdfast.cluster.comm.addresses import is_loopback
from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.deploy import keywords
from holdfast.cluster.deploy.ask import ask
from holdfast.cluster.deploy.cluster_processes import LocalProcesses
from holdfast.cluster.deploy.in_process import LocalThreads
from holdfast.cluster.deploy.plan import BEYOND_THIS_MACHINE, plan_nodes
from holdfast.cluster.durations import seconds
from holdfast.cluster.notebook import card
from holdfast.cluster.processes.run_directory import RunDirectory
from holdfast.objectstore.errors import HoldfastError
from holdfast.objectstore.sizes import format_size
from holdfast.objectstore.system.surroundings import fill_standard_descriptors

START_TIMEOUT_SECONDS = 30.0
CLOSE_TIMEOUT_SECONDS = 10.0


class LocalCluster:
    """A scheduler, node agents with their object stores, and workers, on this machine.

    Workers and node agents that die are started again. With an agent goes what its store holds: what is needed of that
    is computed again, and what was scattered there only is an `ObjectLostError`.

    Closes when it is told to, when its ``with`` block ends, when it is garbage, and when this process ends, however
    that comes about; nothing stays behind.

    Its workers have dask's configuration as it is in this process when it is made, with ``dask.config.set`` too.

    Parameters
    ----------
    n_workers : int, optional
        Workers of the whole cluster. By default as many as make workers × threads the number of cores.
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
    silence_logs : int or str, default logging.WARNING
        The level from which the processes log to this process's standard error, or its name; a false value logs
        everything from INFO.
    log_directory : path, optional
        Log to files in this directory instead.
    timeout : float or str, default 30 s
        How long starting may take, in seconds or as text such as ``"1 minute"``.
    name : str, optional
        For its hosts and workers, and for messages.
    **others
        Keywords of dask's `LocalCluster` that are no parameters here (`holdfast.cluster.deploy.keywords`):
        ``local_directory`` is another name of ``spill_directory``; those that ask for what is so anyway, as
        ``dashboard_address=None`` does, are taken.

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
    """

    def __init__(
        self,
        n_workers: int | None = None,
        threads_per_worker: int | None = None,
        processes: bool | None = True,
        *,
        n_hosts: int = 1,
        host: str | None = "127.0.0.1",
        scheduler_port: int = 0,
        memory_limit: float | str | None = None,
        object_store_memory: float | str | None = None,
        spill_directory: str | os.PathLike[str] | None = None,
        resources: Mapping[str, float] | None = None,
        silence_logs: int | str = logging.WARNING,
        log_directory: str | os.PathLike[str] | None = None,
        timeout: float | str | None = START_TIMEOUT_SECONDS,
        name: str | None = None,
        **others: Any,
    ) -> None:
        self._finalizer: weakref.finalize[Any, LocalCluster] | None = None
        if others:
            meant = keywords.of_cluster(others, PARAMETERS)
            for parameter, value in (("spill_directory", spill_directory), ("threads_per_worker", threads_per_worker)):
                if parameter in meant and value is not None:
                    raise TypeError(f"{parameter} is given twice, once by another name")
            spill_directory = meant.get("spill_directory", spill_directory)
            threads_per_worker = meant.get("threads_per_worker", threads_per_worker)
            host = meant.get("host", host)
        host = host or "127.0.0.1"
        processes = processes is None or bool(processes)
        log_level = _level(silence_logs)
        patience = seconds(timeout)
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
        )
        if not is_loopback(host):
            warnings.warn(BEYOND_THIS_MACHINE, stacklevel=2)
        self.name = name
        self.token = load_token(create=True)
        self._parts: LocalProcesses | LocalThreads
        if processes:
            self._parts = LocalProcesses(
                self.token,
                log_level=str(log_level),
                log_directory=None if log_directory is None else Path(log_directory),
                dask_config=dask_config.what_was_set(),
            )
        else:
            self._parts = LocalThreads(self.token)
        self._parts.start_cluster(
            host, scheduler_port, self._plans, START_TIMEOUT_SECONDS if patience is None else patience
        )
        self.scheduler_address = self._parts.scheduler_address
        directory = RunDirectory.create("local")
        self._finalizer = weakref.finalize(self, _stop, self._parts, directory, CLOSE_TIMEOUT_SECONDS)
        if isinstance(parts := self._parts, LocalProcesses):
            tell = functools.partial(_tell, parts, directory)  # it must not keep this object alive
            tell()
            parts.keep(tell)
        else:
            directory.write_info({"address": self.scheduler_address})

    # -- what it is

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """For each host whose node agent runs the agent's ``address`` and ``pid``."""
        return [dict(info) for info in self._parts.node_infos]

    @property
    def scheduler_pid(self) -> int:
        """The id of the scheduler's process, this one's without ``processes``."""
        scheduler = self._parts.scheduler if isinstance(self._parts, LocalProcesses) else None
        return scheduler.pid if scheduler is not None else os.getpid()

    @property
    def closed(self) -> bool:
        """Whether it was closed, or never began."""
        return self._finalizer is None or not self._finalizer.alive

    def status(self) -> dict[str, Any]:
        """What ``holdfast status --json`` shows: hosts, workers, stores, tasks.

        Raises
        ------
        HoldfastError
            It is closed, or its scheduler has died.
        """
        if self.closed:
            raise HoldfastError("the cluster is closed")
        status: dict[str, Any] = ask(self.scheduler_address, protocol.requests.STATUS, token=self.token)
        restarting = self._parts.restarting() if isinstance(self._parts, LocalProcesses) else []
        return {**status, "restarting": restarting}

    def get_client(self) -> Any:
        """A `Client` of this cluster."""
        # The one way from the cluster's package to the client's, taken when asked for.
        from holdfast.client import Client

        return Client(self)

    def __repr__(self) -> str:
        if self.closed:
            return "LocalCluster(closed)"
        size = f"workers={self._n_workers}, threads={self._nthreads}"
        if len(self._plans) > 1:
            size += f", hosts={len(self._plans)}"
        ended = f", {', '.join(died)}" if (died := self._parts.died()) else ""
        return f"LocalCluster({self.scheduler_address!r}, {size}{ended})"

    def _repr_html_(self) -> str:
        if self.closed:
            return card("LocalCluster", {"state": "closed"})
        return card(
            "LocalCluster",
            {
                "scheduler": self.scheduler_address,
                "state": ", ".join(self._parts.died()) or "running",
                "hosts": len(self._plans),
                "workers": self._n_workers,
                "threads": self._nthreads,
                "object stores": format_size(sum(plan.store_capacity for plan in self._plans)),
            },
        )

    @property
    def _n_workers(self) -> int:
        return sum(plan.n_workers for plan in self._plans)

    @property
    def _nthreads(self) -> int:
        return sum(plan.n_workers * plan.threads_per_worker for plan in self._plans)

    # -- its end

    def close(self, timeout: float | str | None = None) -> None:
        """Stop all of it and wait until it is gone; kill what has not stopped after ``timeout``, in seconds or as text.

        Twice is no error. In a fork of the process that made it this does nothing.
        """
        patience = seconds(timeout)
        if self._finalizer is None or (call := self._finalizer.detach()) is None:
            return
        _, _, (parts, directory, default), _ = call
        _stop(parts, directory, default if patience is None else patience)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


#: What can be given to a `LocalCluster`.
PARAMETERS = tuple(
    name for name in inspect.signature(LocalCluster.__init__).parameters if name not in ("self", "others")
)


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


def _stop(parts: LocalProcesses | LocalThreads, directory: RunDirectory, timeout: float) -> None:
    try:
        parts.stop(timeout)
    finally:
        directory.close()
