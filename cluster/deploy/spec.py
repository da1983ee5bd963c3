"""`SpecCluster`: a cluster whose scheduler and workers are said one by one.

What there is to be is the *specification*, ``worker_spec``: changed at once by `SpecCluster.scale` and by whoever else
likes. What there is are ``workers``. `SpecCluster._correct_state` makes the second what the first says, one call at a
time: it retires and closes the workers that are too many, and makes those that are missing. A worker that has ended, or
that the scheduler has not had for `LOST_SECONDS` though it once had it, is made anew; if that fails, after a pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.deploy import keywords
from holdfast.cluster.deploy.cluster import SYNC_SECONDS, Cluster
from holdfast.cluster.deploy.process_interface import Status
from holdfast.cluster.deploy.runner import Runner
from holdfast.cluster.deploy.scheduler import Scheduler
from holdfast.cluster.errors import ConnectError, NoWorkerError
from holdfast.cluster.processes.restarts import Restarts
from holdfast.objectstore.errors import HoldfastError
from holdfast.objectstore.sizes import parse_size

logger = logging.getLogger(__name__)

#: How long a worker may be unknown to the scheduler, which has had it, until it counts as lost.
LOST_SECONDS = 15.0
CLOSE_SECONDS = 20.0


class _Parts:
    """What a cluster has brought about, and has to end: without the cluster, so that its garbage can be closed."""

    def __init__(self, shutdown_on_close: bool) -> None:
        self.scheduler: Any = None
        self.workers: dict[Any, Any] = {}
        self.shutdown_on_close = shutdown_on_close
        self.pid = os.getpid()

    async def close(self) -> None:
        """End the workers, then the scheduler. Raises the first error, after all were told to end."""
        errors: list[BaseException] = []
        if self.shutdown_on_close:
            workers = list(self.workers.values())
            self.workers.clear()
            results = await asyncio.gather(*(worker.close() for worker in workers), return_exceptions=True)
            errors += [each for each in results if isinstance(each, BaseException)]
            if self.scheduler is not None:
                try:
                    await self.scheduler.close()
                except Exception as error:
                    errors.append(error)
        if errors:
            raise errors[0]


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
        keywords.check_security(security, None, self.scheduler_spec.get("options", {}).get("host") or "127.0.0.1")
        self.worker_spec: dict[Any, Any] = dict(workers or {})
        self.new_spec: dict[str, Any] | None = None if worker is None else dict(worker)
        self.security = security
        self._i = 0
        self._parts = _Parts(shutdown_on_close)
        self._restarts: dict[Any, Restarts] = {}
        self._paused: dict[Any, float] = {}  # until when what can't be started isn't tried again
        self._made: dict[Any, Any] = {}  # the specification of each worker
        self._seen: dict[Any, float] = {}  # when the scheduler last had each worker
        self._lock = asyncio.Lock()
        self._correcting: asyncio.Task[None] | None = None  # that has not begun
        self._corrections: set[asyncio.Task[None]] = set()
        self._silenced = _silence(silence_logs) if silence_logs else None
        self._finalizer = weakref.finalize(self, _end, self._runner, self._parts, self._silenced)
        if self._asynchronous:
            self._finalizer.detach()
        else:
            try:
                self._runner.run(self._start())
            except BaseException:
                self._give_up()
                raise

    def _give_up(self) -> None:
        self.status = Status.failed
        self._finalizer()

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
        made = None if self.new_spec is None else _class_of(self.new_spec)
        return bool(getattr(made, "brings_memory", True))

    # -- beginning and end

    async def _start(self) -> None:
        if self.status != Status.created:
            return
        self.status = Status.starting
        try:
            if self.scheduler is None:  # else a subclass has made it
                self.scheduler = _class_of(self.scheduler_spec)(**self.scheduler_spec.get("options", {}))
            self.scheduler = await self.scheduler
            await super()._start()
            await self._correct_state()
        except BaseException:
            self.status = Status.running
            with contextlib.suppress(Exception):
                await self._close()
            self.status = Status.failed
            raise

    async def _opened(self) -> Any:
        await self._start()
        if self.closed:
            raise ConnectError(f"{self!r} can't be opened again: make another one")
        await self._correct_state()
        return self

    async def _close(self) -> None:
        if self.status in (Status.closing, Status.closed):
            return
        self.status = Status.closing
        self._stop_adapting()
        corrections = [task for task in self._corrections if task is not asyncio.current_task()]
        for task in corrections:
            task.cancel()
        await asyncio.gather(*corrections, return_exceptions=True)
        try:
            await super()._close()
            self.status = Status.closing
            await self._parts.close()
        finally:
            self.status = Status.closed
            if self._silenced is not None:
                self._silenced.undo()

    def close(self, timeout: float | str | None = None) -> Any:
        """End it, its workers and its scheduler. Where its methods are awaited: await this. Twice is no error.

        Parameters
        ----------
        timeout
            How long it may take, in seconds or as text.
        """
        if self._parts.pid != os.getpid():
            return None
        self._finalizer.detach()
        return super().close(timeout)

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

    def _correct_state(self) -> asyncio.Task[None]:
        """Make what there is what ``worker_spec`` says: in the loop, a task. Several calls in turn are one."""
        if self._correcting is None:
            self._correcting = asyncio.ensure_future(self._correct())
            self._corrections.add(self._correcting)
            self._correcting.add_done_callback(self._corrections.discard)
        return self._correcting

    async def _correct(self) -> None:
        async with self._lock:
            self._correcting = None
            await self._close_surplus()
            await self._open_missing()

    async def _close_surplus(self) -> None:
        workers = self.workers
        surplus = [name for name in workers if name not in self.worker_spec]
        ended = [name for name in workers if name in self.worker_spec and _has_ended(workers[name])]
        for name in ended:
            self._paused[name] = time.monotonic() + self._restarts_of(name).ended("it has ended")
            logger.warning("the worker %s of %s has ended, and is made anew", name, self.name)
        if surplus:
            surplus = await self._retire(surplus)
        going = [(name, workers.pop(name)) for name in (*surplus, *ended)]
        results = await asyncio.gather(*(worker.close() for _, worker in going), return_exceptions=True)
        for name in surplus:
            for table in (self._restarts, self._paused, self._seen, self._made):
                table.pop(name, None)
        for (name, _), result in zip(going, results, strict=True):
            if isinstance(result, Exception):
                logger.error("the worker %s of %s could not be closed", name, self.name, exc_info=result)

    async def _retire(self, names: list[Any]) -> list[Any]:
        """Have the scheduler let workers go, which moves what only they have. Returns those that may be closed.

        If something can't be moved, they stay: the specification has them again.
        """
        comm = self.scheduler_comm
        if comm is None or comm.is_over:
            return names
        known = {worker["name"] for worker in (await comm.identity())["workers"].values()}
        leaving = [each for name in names for each in self._names_of(name, self._made.get(name)) if each in known]
        if not leaving:
            return names
        # Of workers of this process the store stays, as long as the scheduler does.
        stays = isinstance(self.scheduler, Scheduler) and not any(
            getattr(self.workers[name], "brings_memory", True) for name in names
        )
        try:
            await comm.retire_workers(names=leaving, close_hosts=not stays)
        except (NoWorkerError, ValueError):
            pass  # they have just gone, or others let them go
        except (HoldfastError, TimeoutError, RuntimeError) as error:
            if comm.is_over:
                return names
            logger.warning("%s keeps the workers %s: %s", self.name, ", ".join(map(str, names)), error)
            self.worker_spec.update({name: self._made[name] for name in names if name in self._made})
            return []
        return names

    async def _open_missing(self) -> None:
        now = time.monotonic()
        missing = [name for name in self.worker_spec if name not in self.workers and self._paused.get(name, 0.0) <= now]
        made = {}
        for name in missing:
            spec = self.worker_spec[name]
            options = dict(spec.get("options", {}))
            options.setdefault("name", name)
            self._restarts_of(name).begin()
            self._made[name] = spec
            worker = made[name] = _class_of(spec)(self._address_for_workers, **options)
            self.workers[name] = worker
        results = await asyncio.gather(*(_await(worker) for worker in made.values()), return_exceptions=True)
        failed: BaseException | None = None
        for (name, worker), result in zip(made.items(), results, strict=True):
            if isinstance(result, BaseException):
                failed = failed or result
                self.workers.pop(name, None)
                self._paused[name] = time.monotonic() + self._restarts_of(name).ended(str(result))
                with contextlib.suppress(Exception):
                    await worker.close()
            else:
                self._restarts_of(name).ready()
        if failed is not None:
            raise failed

    @property
    def _address_for_workers(self) -> str:
        return str(getattr(self.scheduler, "contact_address", None) or self.scheduler.address)

    def _restarts_of(self, name: Any) -> Restarts:
        return self._restarts.setdefault(name, Restarts())

    async def _sync(self) -> None:
        await super()._sync()
        if self.status != Status.running:
            return
        now = time.monotonic()
        observed = {worker["name"] for worker in self._info["workers"].values()}
        for name, worker in list(self.workers.items()):
            if not observed.isdisjoint(self._names_of(name, self._made.get(name))):
                self._seen[name] = now
            elif name in self._seen and now - self._seen[name] > LOST_SECONDS:
                del self._seen[name]
                logger.warning("the worker %s of %s is lost", name, self.name)
                worker.status = Status.closed
        needs = any(name not in self.worker_spec or _has_ended(self.workers[name]) for name in self.workers)
        needs = needs or any(
            name not in self.workers and self._paused.get(name, 0.0) <= now for name in self.worker_spec
        )
        if needs:
            await self._correct_state()

    # -- size

    def scale(self, n: int = 0, memory: float | str | None = None, cores: int | None = None) -> Any:
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
            absent = [
                name for name in self.worker_spec if known.isdisjoint(self._names_of(name, self.worker_spec[name]))
            ]
            going = [*reversed(absent), *reversed([name for name in self.worker_spec if name not in absent])]
            for name in going[: len(self.worker_spec) - n]:
                del self.worker_spec[name]
        while len(self.worker_spec) < n:
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
        if isinstance(workers, str):
            workers = [workers]
        named = {each: name for name, spec in self.worker_spec.items() for each in self._names_of(name, spec)}
        at = {address: worker["name"] for address, worker in self._info["workers"].items()}
        for worker in list(workers):
            name = worker if worker in self.worker_spec else named.get(str(at.get(worker, worker)))
            self.worker_spec.pop(name, None)
        return self._change()

    def _change(self) -> Any:
        if self.asynchronous:
            return self._correct_state()
        self._runner.soon(self._corrected(), f"scaling {self.name}")
        return None

    async def _corrected(self) -> None:
        await self._correct_state()

    def _check_open(self) -> None:
        if self.status != Status.running:
            raise HoldfastError(f"{self!r} is not open, and can't be scaled")

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
        while self._i in self.worker_spec or self._i in self.workers:
            self._i += 1
        return {self._i: self.new_spec}

    @staticmethod
    def _names_of(name: Any, spec: Any) -> set[str]:
        """What the workers of one entry are called."""
        group = spec.get("group") if isinstance(spec, Mapping) else None
        return {f"{name}{suffix}" for suffix in group} if group is not None else {str(name)}

    @property
    def plan(self) -> set[Any]:
        """The names of the workers that there are to be; of a group that of each of its workers."""
        return self._all_names(self.worker_spec)

    @property
    def requested(self) -> set[Any]:
        """The names of the workers that were asked for, wherever they come from."""
        return self._all_names(self.workers)

    def _all_names(self, names: Iterable[Any]) -> set[Any]:
        found: set[Any] = set()
        for name in names:
            spec = self.worker_spec.get(name) or self._made.get(name) or {}
            found.update({name} if spec.get("group") is None else self._names_of(name, spec))
        return found

    @property
    def observed(self) -> set[Any]:
        """The names of the workers that the scheduler has, as of ``plan``."""
        names = {str(name): name for name in self.plan}
        return {names.get(name, name) for name in super().observed}

    def _threads_per_worker(self) -> int | None:
        options = self._new_options()
        nthreads = options.get("nthreads") or options.get("ncores")
        return None if nthreads is None else int(nthreads)

    def _memory_per_worker(self) -> int | None:
        memory = self._new_options().get("memory_limit")
        return None if memory in (None, "auto", 0) else int(parse_size(memory))

    def _new_options(self) -> Mapping[str, Any]:
        return {} if self.new_spec is None else self.new_spec.get("options", {})


def _has_ended(worker: Any) -> bool:
    return getattr(worker, "status", None) in (Status.closed, Status.failed)


def _class_of(spec: Mapping[str, Any]) -> Any:
    """The class of a specification.

    Raises
    ------
    TypeError, ImportError
        It has none.
    """
    if "cls" not in spec:
        raise TypeError(f"a specification has a class under 'cls', as in {{'cls': Worker}}, and {spec!r:.200} has none")
    made = spec["cls"]
    if isinstance(made, str):
        module, _, name = made.rpartition(".")
        made = getattr(importlib.import_module(module), name)
    return made


async def _await(worker: Any) -> Any:
    return await worker


class _Silence:
    """Holdfast's loggers in this process say nothing less than a level."""

    def __init__(self, level: int | str) -> None:
        self._logger = logging.getLogger("holdfast")
        self._before = self._logger.level
        self._logger.setLevel(level)

    def undo(self) -> None:
        """Have them as they were."""
        self._logger.setLevel(self._before)


def _silence(level: bool | int | str) -> _Silence:
    return _Silence(logging.CRITICAL if level is True else level)


def _end(runner: Runner, parts: _Parts, silenced: _Silence | None) -> None:
    """Close what a cluster has left that is garbage, or that this process ends with."""
    if parts.pid != os.getpid() or not runner.is_begun:
        return
    if runner.is_current:
        # A collection of garbage can run in any thread, this loop's too, and it can't wait for itself.
        threading.Thread(target=_end, args=(runner, parts, silenced), name="holdfast-cluster-close").start()
        return
    try:
        runner.run(_end_in_loop(runner, parts), CLOSE_SECONDS)
    except Exception:
        logger.exception("closing a cluster failed")
    finally:
        runner.close()
        if silenced is not None:
            silenced.undo()


async def _end_in_loop(runner: Runner, parts: _Parts) -> None:
    await runner.cancel()
    await parts.close()
