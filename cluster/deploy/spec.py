"""`SpecCluster`: a cluster whose scheduler and workers are said one by one.

What there is to be is the *specification*, ``worker_spec``: changed at once by `SpecCluster.scale` and by whoever else
likes. What there is are ``workers``. A `Correction` makes the second what the first says.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.deploy import keywords
from holdfast.cluster.deploy.cluster import Cluster
from holdfast.cluster.deploy.observed_cluster import SYNC_SECONDS
from holdfast.cluster.deploy.process_interface import Status
from holdfast.cluster.deploy.scheduler import Scheduler
from holdfast.cluster.deploy.silence import Silence
from holdfast.cluster.deploy.spec_correction import Correction
from holdfast.cluster.deploy.spec_garbage import end
from holdfast.cluster.deploy.spec_parts import SpecParts
from holdfast.cluster.deploy.worker_specs import (
    all_workers,
    called,
    class_of,
    entries_of,
    memory_of,
    nthreads_of,
    options_of,
)
from holdfast.cluster.errors import ConnectError


class SpecCluster(Cluster):
    """A cluster that a full specification of its scheduler and workers describes.

    Each part is a class that is called with options: `Scheduler`, `Worker` and `Nanny`, or a class of one's own that
    submits jobs, say (`ProcessInterface`). Workers are made as ``cls(scheduler_address, name=name, **options)``. A
    class may be given by its name, as ``"holdfast.Worker"``.

    Parameters
    ----------
    workers : dict, optional
        Specifications by name: ``{"cls": Worker, "options": {"nthreads": 1}}``. If one makes several workers, its
        ``"group"`` has what is added to the name for each: ``["-0", "-1"]``.
    scheduler : dict, optional
        The specification of the scheduler. Default: a `Scheduler` on any free port of this machine.
    worker : dict, optional
        The specification of each new worker, for `scale`.
    asynchronous : bool
        Whether it belongs to the running event loop, and is opened by ``await`` or ``async with``. If not, its parts
        run in a loop in a thread of its own.
    loop
        Taken for compatibility.
    security
        Asks for encryption, which is had for no cluster: a warning or an error says so.
    silence_logs : bool or int
        A level of logging: Holdfast's loggers in this process say less than that no more while the cluster is open.
        False: as they are.
    name : str, optional
        For messages.
    shutdown_on_close : bool
        Whether its parts end with it.
    scheduler_sync_interval : float or str
        How often it looks how its workers are.

    Attributes
    ----------
    worker_spec : dict
        The specification of the workers, by name. May be changed; then await the cluster, or call `_correct_state`.
    new_spec : dict
        That of new workers.
    workers : dict
        The workers, by name.
    scheduler
        The scheduler.

    Raises
    ------
    Exception
        What the scheduler or a worker raises when it is started; then nothing is left running.

    Examples
    --------
    >>> from holdfast import Client, Nanny, Scheduler, SpecCluster, Worker
    >>> scheduler = {"cls": Scheduler, "options": {"port": 0}}
    >>> workers = {
    ...     "my-worker": {"cls": Worker, "options": {"nthreads": 1}},
    ...     "my-nanny": {"cls": Nanny, "options": {"nthreads": 2}},
    ... }
    >>> with SpecCluster(scheduler=scheduler, workers=workers) as cluster, Client(cluster) as client:
    ...     sorted(client.nthreads().values())
    [1, 2]
    >>> with SpecCluster(worker={"cls": Worker, "options": {"nthreads": 1}}) as cluster:
    ...     cluster.scale(2)
    ...     sorted(cluster.worker_spec)
    [0, 1]
    """

    def __init__(
        self,
        workers: Mapping[Any, Mapping[str, Any]] | None = None,
        scheduler: Mapping[str, Any] | None = None,
        worker: Mapping[str, Any] | None = None,
        asynchronous: bool = False,
        loop: Any = None,
        security: Any = None,
        silence_logs: bool | int | str = False,
        name: str | None = None,
        shutdown_on_close: bool = True,
        scheduler_sync_interval: float | str = SYNC_SECONDS,
    ) -> None:
        super().__init__(asynchronous, name=name, scheduler_sync_interval=scheduler_sync_interval)
        keywords.without_effect(type(self).__name__, {"loop": loop}, ())
        self.scheduler_spec: dict[str, Any] = dict(scheduler or {"cls": Scheduler, "options": {}})
        keywords.check_security(security, None, options_of(self.scheduler_spec).get("host") or "127.0.0.1")
        self.worker_spec: dict[Any, Any] = dict(workers or {})
        self.new_spec: dict[str, Any] | None = None if worker is None else dict(worker)
        self.security = security
        self._i = 0
        silenced = Silence(silence_logs) if silence_logs else None
        self._parts = SpecParts(shutdown_on_close, silenced)
        find = weakref.ref(self)  # what corrects it must not keep it alive
        self._correction = Correction(
            self._parts,
            lambda: {} if (cluster := find()) is None else cluster.worker_spec,
            lambda: None if (cluster := find()) is None else cluster.scheduler_comm,
            self.name,
        )
        self._finalizer = weakref.finalize(self, end, self._runner, self._correction, self._parts)
        if self._asynchronous:
            self._finalizer.detach()
        else:
            try:
                self._runner.run(self._start())
            except BaseException:
                self.status = Status.failed
                self._finalizer()
                raise

    @property
    def workers(self) -> dict[Any, Any]:
        """The workers, by name.

        Examples
        --------
        >>> from holdfast import SpecCluster, Worker
        >>> with SpecCluster(workers={"alice": {"cls": Worker, "options": {"nthreads": 2}}}) as cluster:
        ...     cluster.workers["alice"].nthreads
        2
        """
        return self._parts.workers

    @property
    def scheduler(self) -> Any:
        """The scheduler; None before it was made.

        Examples
        --------
        >>> from holdfast import Scheduler, SpecCluster
        >>> with SpecCluster(scheduler={"cls": Scheduler, "options": {"port": 0}}) as cluster:
        ...     cluster.scheduler.address == cluster.scheduler_address
        True
        """
        return self._parts.scheduler

    @scheduler.setter
    def scheduler(self, scheduler: Any) -> None:
        self._parts.scheduler = scheduler

    @property
    def shutdown_on_close(self) -> bool:
        """Whether its parts end with it.

        Examples
        --------
        >>> from holdfast import SpecCluster
        >>> with SpecCluster() as cluster:
        ...     cluster.shutdown_on_close
        True
        """
        return self._parts.shutdown_on_close

    @shutdown_on_close.setter
    def shutdown_on_close(self, value: bool) -> None:
        self._parts.shutdown_on_close = value

    @property
    def workers_bring_memory(self) -> bool:
        """Whether more workers come with more room for results.

        Examples
        --------
        >>> from holdfast import SpecCluster, Worker
        >>> with SpecCluster(worker={"cls": Worker}) as cluster:  # all workers of this process share a store
        ...     cluster.workers_bring_memory
        False
        """
        made = None if self.new_spec is None else class_of(self.new_spec)
        return bool(getattr(made, "brings_memory", True))

    # -- beginning and end

    async def _start(self) -> None:
        self.status = Status.starting
        try:
            if self.scheduler is None:  # else a subclass has made it
                self.scheduler = class_of(self.scheduler_spec)(**options_of(self.scheduler_spec))
            self.scheduler = await self.scheduler
            await super()._start()
            await self._correct_state()
        except BaseException:
            try:
                await self._end()
            finally:
                self.status = Status.failed
            raise

    async def _opened(self) -> Any:
        await super()._opened()
        await self._correct_state()
        return self

    async def _close(self) -> None:
        self.status = Status.closing
        self._stop_adapting()
        try:
            await self._correction.cancel()
            await super()._close()
        finally:
            self.status = Status.closing
            try:
                await self._parts.close()
            finally:
                self.status = Status.closed

    def close(self, timeout: float | str | None = None) -> Any:
        """End it, its workers and its scheduler. Where its methods are awaited: await this. Twice is no error.

        Parameters
        ----------
        timeout
            How long it may take, in seconds or as text. After that there is a `TimeoutError`, and it ends all the same.
        """
        if not self._parts.are_of_this_process:
            return None
        result = super().close(timeout)
        self._finalizer.detach()
        return result

    @property
    def scheduler_address(self) -> str:
        """``tcp://host:port``."""
        scheduler = self.scheduler
        address = None if scheduler is None else getattr(scheduler, "external_address", None) or scheduler.address
        if not address:
            raise ConnectError(f"the cluster {self.name} has no scheduler that has started")
        return str(address)

    @property
    def token(self) -> bytes:
        """What connecting needs."""
        return getattr(self.scheduler, "token", None) or load_token()

    # -- what there is, and what there is to be

    def _correct_state(self) -> asyncio.Future[None]:
        """Make what there is what ``worker_spec`` says: in the loop, an awaitable of the end of it."""
        return asyncio.shield(self._correction.soon())

    async def _sync(self) -> None:
        await super()._sync()
        observed = {worker["name"] for worker in self._info["workers"].values()}
        if self.status == Status.running and self._correction.observe(observed):
            await self._correct_state()

    # -- size

    def scale(self, n: int = 0, memory: float | str | None = None, cores: float | None = None) -> Any:
        """Have so many workers: ``worker_spec`` says so at once, and they come and go in the background.

        Workers that have not come yet go first, then the youngest. What only they have is moved before they end.

        Parameters
        ----------
        n : int
            The number of entries of ``worker_spec``.
        memory, cores : optional
            Have so many workers at least that they have so much memory, or so many threads, together.

        Returns
        -------
        awaitable or None
            Where methods are awaited: of the end of it.

        Examples
        --------
        >>> from holdfast import SpecCluster, Worker
        >>> with SpecCluster(worker={"cls": Worker, "options": {"nthreads": 2}}) as cluster:
        ...     cluster.scale(cores=6)
        ...     len(cluster.worker_spec)
        3
        """
        self._check_open()
        n = self._wanted(n, memory, cores)
        if len(self.worker_spec) > n:
            known = {str(name) for name in self.observed}
            absent = [name for name, spec in self.worker_spec.items() if known.isdisjoint(called(name, spec))]
            going = [*reversed(absent), *reversed([name for name in self.worker_spec if name not in absent])]
            for name in going[: len(self.worker_spec) - n]:
                del self.worker_spec[name]
        while len(self.worker_spec) < n:
            self.worker_spec.update(self.new_worker_spec())
        return self._change()

    def scale_up(self, n: int = 0, memory: float | str | None = None, cores: float | None = None) -> Any:
        """Have so many workers at least; `scale` counts entries of ``worker_spec``, which may make several each.

        Examples
        --------
        >>> cluster.scale_up(3)
        >>> len(cluster.plan)
        3
        """
        self._check_open()
        n = self._wanted(n, memory, cores)
        while len(self.plan) < n:
            self.worker_spec.update(self.new_worker_spec())
        return self._change()

    def scale_down(self, workers: Iterable[Any]) -> Any:
        """Have these workers no more, nor others of their groups.

        Parameters
        ----------
        workers : list
            Names, as of ``worker_spec``; those of single workers of a group; or addresses.

        Returns
        -------
        awaitable or None
            Where methods are awaited: of the end of it.
        """
        self._check_open()
        at = {address: worker["name"] for address, worker in self._info["workers"].items()}
        for worker in [workers] if isinstance(workers, str) else list(workers):
            name = worker if worker in self.worker_spec else self.entry_of(at.get(worker, worker))
            self.worker_spec.pop(name, None)
        return self._change()

    def _change(self) -> Any:
        return self._do(self._corrected(), f"scaling {self.name}")

    async def _corrected(self) -> None:
        await self._correct_state()

    def new_worker_spec(self) -> dict[Any, Any]:
        """The name and the specification of the next worker, as a dictionary with one entry.

        Raises
        ------
        ValueError
            The cluster was given no specification of new workers.

        Examples
        --------
        >>> from holdfast import SpecCluster, Worker
        >>> with SpecCluster(worker={"cls": Worker, "options": {"nthreads": 2}}) as cluster:
        ...     cluster.scale(1)
        ...     cluster.new_worker_spec()
        {1: {'cls': <class '...Worker'>, 'options': {'nthreads': 2}}}
        """
        if self.new_spec is None:
            raise ValueError("there is no specification of new workers: SpecCluster(worker={'cls': …, 'options': …})")
        while (name := self._new_worker_name(self._i)) in self.worker_spec or name in self.workers:
            self._i += 1
        return {name: self.new_spec}

    def _new_worker_name(self, worker_number: int) -> Any:
        """The name of a new worker, for subclasses that have other names than numbers."""
        return worker_number

    def entry_of(self, name: Any) -> Any:
        """The entry of ``worker_spec`` that makes the worker of a name; the name itself, if there is none.

        Examples
        --------
        >>> cluster.entry_of("no such worker")
        'no such worker'
        """
        return entries_of(self.worker_spec).get(str(name), name)

    @property
    def _supports_scaling(self) -> bool:  # type: ignore[override]
        return self.new_spec is not None

    @property
    def plan(self) -> set[Any]:
        """The names of the workers that there are to be; of a group that of each of its workers."""
        return all_workers(self.worker_spec, self.worker_spec)

    @property
    def requested(self) -> set[Any]:
        """The names of the workers that were asked for, wherever they come from."""
        return all_workers(self.workers, self.worker_spec, self._correction.made)

    @property
    def observed(self) -> set[Any]:
        """The names of the workers that the scheduler has, as of ``plan``."""
        names = {str(name): name for name in self.plan}
        return {names.get(name, name) for name in super().observed}

    def _threads_per_worker(self) -> int | None:
        return None if self.new_spec is None else nthreads_of(self.new_spec)

    def _memory_per_worker(self) -> int | None:
        return None if self.new_spec is None else memory_of(self.new_spec)
