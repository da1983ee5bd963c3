"""`Cluster`: what all clusters have in common that a Python object stands for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
import uuid
import weakref
from collections.abc import Awaitable, Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Self

from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.deploy.adaptive import Adaptive
from holdfast.cluster.deploy.process_interface import Status
from holdfast.cluster.deploy.runner import Runner
from holdfast.cluster.deploy.scheduler_comm import SchedulerComm
from holdfast.cluster.durations import seconds
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.notebook import card
from holdfast.objectstore.errors import HoldfastError
from holdfast.objectstore.sizes import format_size, parse_size

logger = logging.getLogger(__name__)

#: How often a cluster looks how its workers are.
SYNC_SECONDS = 1.0
MAX_LOG_LINES = 10_000


class Cluster:
    """What all clusters have in common. A class of one's own says how its workers come and go: `scale`, or both
    ``scale_up(n)`` and ``scale_down(workers)``.

    With ``asynchronous=True`` it belongs to the event loop in which it is opened, by ``await`` or ``async with``. Else
    its methods block; what it does by itself runs in a loop in a thread of its own.

    Parameters
    ----------
    asynchronous : bool
        Whether it belongs to the running event loop.
    loop
        Taken for compatibility.
    quiet : bool
        Whether `_log` prints nothing.
    name : str, optional
        For messages.
    scheduler_sync_interval : float or str
        How often it looks how its workers are.

    Attributes
    ----------
    name : str
    status : Status
    scheduler_comm : SchedulerComm or None
        What its scheduler is asked by.

    Examples
    --------
    >>> import asyncio
    >>> from holdfast import Cluster, Scheduler, Worker
    >>> class Threads(Cluster):
    ...     def __init__(self, scheduler):
    ...         super().__init__(asynchronous=True)
    ...         self.scheduler, self.workers = scheduler, {}
    ...     @property
    ...     def scheduler_address(self):
    ...         return self.scheduler.address
    ...     async def scale_up(self, n):
    ...         while len(self.workers) < n:
    ...             name = f"w{len(self.workers)}"
    ...             self.workers[name] = await Worker(self.scheduler_address, name=name, nthreads=1)
    ...     async def scale_down(self, workers):
    ...         for name in workers:
    ...             await self.workers.pop(name).close()
    >>> async def main():
    ...     async with Scheduler() as scheduler, Threads(scheduler) as cluster:
    ...         await cluster.scale_up(2)
    ...         await cluster.scale_down(["w1"])
    ...         await cluster.refresh()
    ...         print(cluster.observed)
    ...         await cluster.scale_down(["w0"])
    >>> asyncio.run(main())
    {'w0'}
    """

    _supports_scaling = True
    name: str = ""

    def __init__(
        self,
        asynchronous: bool = False,
        loop: Any = None,
        quiet: bool = True,
        name: str | None = None,
        scheduler_sync_interval: float | str = SYNC_SECONDS,
    ) -> None:
        self.name = name or self.name or uuid.uuid4().hex[:8]
        self.quiet = quiet
        self.scheduler_comm: SchedulerComm | None = None
        self.status = Status.created
        self._asynchronous = bool(asynchronous)
        self._runner = Runner(self._asynchronous, "holdfast-cluster-object")
        self._sync_seconds = seconds(scheduler_sync_interval) or SYNC_SECONDS
        self._info: dict[str, Any] = {"workers": {}}
        self._adaptive: Adaptive | None = None
        self._adaptive_options: dict[str, Any] = {}
        self._watching: asyncio.Task[None] | None = None
        self._cluster_manager_logs: list[tuple[float, str]] = []

    # -- its loop

    @property
    def asynchronous(self) -> bool:
        """Whether its methods give awaitables here.

        Examples
        --------
        >>> cluster.asynchronous
        False
        """
        return self._asynchronous or self._runner.is_current

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop in which it does what it does by itself.

        Examples
        --------
        >>> cluster.loop.is_running()
        True
        """
        return self._runner.loop

    def sync(
        self,
        function: Callable[..., Awaitable[Any]],
        *args: Any,
        asynchronous: bool | None = None,
        callback_timeout: float | str | None = None,
        **kwargs: Any,
    ) -> Any:
        """What a coroutine function gives, run in the loop of the cluster; where methods are awaited, an awaitable.

        Parameters
        ----------
        function
            Called with the other arguments.
        asynchronous
            True: an awaitable in any case.
        callback_timeout
            After this it is cancelled, with a `TimeoutError`.

        Examples
        --------
        >>> async def count():
        ...     await cluster.refresh()
        ...     return len(cluster.observed)
        >>> cluster.sync(count, callback_timeout="10 s")
        2
        """
        coroutine = _coroutine(function(*args, **kwargs))
        timeout = seconds(callback_timeout)
        if asynchronous:
            return coroutine if timeout is None else asyncio.wait_for(coroutine, timeout)
        return self._runner.run(coroutine, timeout)

    # -- beginning and end

    async def _start(self) -> None:
        """Begin. A subclass has its scheduler first, then calls this."""
        await self._connect()
        self.status = Status.running
        self._watching = asyncio.ensure_future(self._watch(weakref.ref(self), self._sync_seconds))

    async def _connect(self) -> SchedulerComm:
        comm = self.scheduler_comm
        if comm is None or comm.is_over:
            comm = await SchedulerComm.open(self.scheduler_address, token=self.token, name=f"cluster {self.name}"[:200])
            self.scheduler_comm = comm
            self._info = await comm.identity()
        return comm

    async def _close(self) -> None:
        """End. A subclass calls this first, then ends its workers and its scheduler."""
        self._stop_adapting()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self._runner.cancel()
        if self.scheduler_comm is not None:
            self.scheduler_comm.close()
        self.status = Status.closed

    def close(self, timeout: float | str | None = None) -> Any:
        """End it. Where its methods are awaited: await this. Twice is no error.

        Parameters
        ----------
        timeout
            How long it may take, in seconds or as text.

        Examples
        --------
        >>> from holdfast import LocalCluster
        >>> mine = LocalCluster(n_workers=0, processes=False)
        >>> mine.close(timeout="10 s")
        >>> mine.status.value
        'closed'
        """
        if self.status == Status.closed:
            return _nothing() if self.asynchronous else None
        result = self.sync(self._close, callback_timeout=timeout)
        if not self.asynchronous:
            self._runner.close()
        return result

    def _stop_adapting(self) -> None:
        if self._adaptive is not None:
            self._adaptive.stop()

    def __enter__(self) -> Self:
        if self._asynchronous:
            raise TypeError(f"an asynchronous cluster is opened with 'async with {type(self).__name__}(...)'")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __await__(self) -> Generator[Any, None, Self]:
        return self._opened().__await__()

    async def _opened(self) -> Self:
        if self.status == Status.created:
            await self._start()
        return self

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        result = self.close()
        if result is not None:
            await result

    @property
    def closed(self) -> bool:
        """Whether it was closed.

        Examples
        --------
        >>> cluster.closed
        False
        """
        return self.status in (Status.closed, Status.failed)

    # -- the scheduler

    @property
    def scheduler_address(self) -> str:
        """``tcp://host:port``.

        Examples
        --------
        >>> cluster.scheduler_address
        'tcp://127.0.0.1:...'
        """
        if self.scheduler_comm is None:
            raise ConnectError(f"the cluster {self.name} is not open")
        return self.scheduler_comm.address

    @property
    def token(self) -> bytes:
        """What connecting needs.

        Examples
        --------
        >>> from holdfast import Client
        >>> with Client(cluster.scheduler_address, token=cluster.token) as client:
        ...     client.submit(sum, [1, 2]).result()
        3
        """
        return load_token()

    @staticmethod
    async def _watch(ref: weakref.ref[Cluster], interval: float) -> None:
        while (self := ref()) is not None:
            try:
                await self._sync()
            except Exception:
                if self.closed:
                    return
                logger.exception("looking after the cluster %s failed", self.name)
            del self
            await asyncio.sleep(interval)

    async def _sync(self) -> None:
        """Look how the workers are; called now and then."""
        if self.scheduler_comm is not None and not self.scheduler_comm.is_over:
            with contextlib.suppress(ConnectError, TimeoutError):
                self._info = await self.scheduler_comm.identity()

    @property
    def scheduler_info(self) -> dict[str, Any]:
        """What `Client.scheduler_info` gives. Where methods are awaited: as it was at most some seconds ago.

        Examples
        --------
        >>> [worker["nthreads"] for worker in cluster.scheduler_info["workers"].values()]
        [1, 1]
        """
        if not self.asynchronous and not self.closed and self.status != Status.created:
            with contextlib.suppress(HoldfastError, TimeoutError):
                self._runner.run(self.refresh())
        return self._info

    async def refresh(self) -> None:
        """Look now how the scheduler and its workers are: a coroutine, for the loop of the cluster.

        Examples
        --------
        >>> cluster.sync(cluster.refresh)
        >>> len(cluster.scheduler_info["workers"])
        2
        """
        self._info = await (await self._connect()).identity()

    @property
    def dashboard_link(self) -> str:
        """Empty: there is no dashboard. ``holdfast status`` shows the cluster in a terminal.

        Examples
        --------
        >>> cluster.dashboard_link
        ''
        """
        return ""

    def get_client(self) -> Any:
        """A `Client` of this cluster; an asynchronous one, to be awaited, where methods are awaited.

        Examples
        --------
        >>> with cluster.get_client() as client:
        ...     client.submit(pow, 2, 5).result()
        32
        """
        # The one way from the cluster's package to the client's, taken when asked for.
        from holdfast.client import Client

        return Client(self, asynchronous=self.asynchronous)

    def wait_for_workers(self, n_workers: int = 0, timeout: float | str | None = None) -> Any:
        """Wait until there are so many workers. Where methods are awaited: await this.

        Parameters
        ----------
        n_workers : int
            Default: as many as were asked for.
        timeout : float or str, optional
            In seconds or as text. Default: there is none.

        Raises
        ------
        TimeoutError
            There were not enough in time; says how many there are.

        Examples
        --------
        >>> cluster.scale(3)
        >>> cluster.wait_for_workers(3, timeout="1 minute")
        >>> len(cluster.observed)
        3
        """
        return self.sync(self._wait_for_workers, n_workers or len(self.plan), seconds(timeout))

    async def _wait_for_workers(self, n: int, timeout: float | None) -> None:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        comm = await self._connect()
        while True:
            self._info = await comm.identity()
            count = len(self._info["workers"])
            if count >= n:
                return
            if time.monotonic() >= deadline:
                raise TimeoutError(f"waited {timeout:g} s for {n} workers of {self!r}, {count} are there")
            await asyncio.sleep(0.02)

    # -- logs

    def _log(self, text: str) -> None:
        """Note something for `get_logs`, and print it unless the cluster is quiet: for subclasses."""
        del self._cluster_manager_logs[: -MAX_LOG_LINES + 1]
        self._cluster_manager_logs.append((time.time(), text))
        if not self.quiet:
            print(text)

    def get_logs(self, cluster: bool = True, scheduler: bool = True, workers: bool | Iterable[str] = True) -> Any:
        """The last lines that the cluster object, the scheduler and the workers have logged. Where methods are awaited:
        await it.

        Parameters
        ----------
        cluster, scheduler : bool
            Whether those are wanted.
        workers : bool or list of str
            Whether those of all workers are wanted; or of which ones, by address or name.

        Returns
        -------
        dict of str to str
            The text of ``"Cluster"``, of ``"Scheduler"``, and of each worker by its address; oldest lines first.

        Examples
        --------
        >>> sorted(cluster.get_logs(workers=False))
        ['Cluster', 'Scheduler']
        """
        wanted = workers if isinstance(workers, bool) else list(workers)
        return self.sync(self._get_logs, cluster, scheduler, wanted)

    def logs(self, *args: Any, **kwargs: Any) -> Any:
        """The first name of `get_logs`.

        Examples
        --------
        >>> sorted(cluster.logs(workers=False))
        ['Cluster', 'Scheduler']
        """
        return self.get_logs(*args, **kwargs)

    async def _get_logs(self, cluster: bool, scheduler: bool, workers: bool | list[str]) -> dict[str, str]:
        from holdfast.client import Client

        def ask() -> dict[str, str]:
            found = {}
            with Client(self.scheduler_address, token=self.token, attach=False, set_as_default=False) as client:
                if scheduler:
                    found["Scheduler"] = _text_of(client.get_scheduler_logs())
                if workers:
                    lines = client.get_worker_logs(workers=None if workers is True else workers)
                    found.update({address: _text_of(each) for address, each in lines.items()})
            return found

        own = {"Cluster": "\n".join(text for _, text in self._cluster_manager_logs)} if cluster else {}
        return {**own, **(await asyncio.to_thread(ask) if scheduler or workers else {})}

    # -- size

    def scale(self, n: int = 0, memory: float | str | None = None, cores: int | None = None) -> Any:
        """Have so many workers.

        Parameters
        ----------
        n : int
            The number of workers.
        memory, cores : optional
            Have so many workers at least that they have so much memory, or so many threads, together.

        Raises
        ------
        NotImplementedError
            This class of clusters does not say how.

        Examples
        --------
        >>> cluster.scale(cores=4)
        >>> len(cluster.plan)
        4
        """
        raise NotImplementedError(f"a {type(self).__name__} has no scale(): it can't have other workers than it has")

    def scale_up(self, n: int = 0, memory: float | str | None = None, cores: int | None = None) -> Any:
        """Have so many workers; as `scale`.

        Examples
        --------
        >>> cluster.scale_up(3)
        >>> len(cluster.plan)
        3
        """
        return self.scale(n, memory=memory, cores=cores)

    def scale_down(self, workers: Iterable[Any]) -> Any:
        """Have these workers no more, which are given by name or address.

        Raises
        ------
        NotImplementedError
            This class of clusters does not say how.

        Examples
        --------
        >>> cluster.scale_down([max(cluster.plan)])
        >>> len(cluster.plan)
        1
        """
        raise NotImplementedError(f"a {type(self).__name__} has no scale_down(): it can't let single workers go")

    def adapt(
        self,
        Adaptive: type[Adaptive] | None = None,
        *,
        adaptive: type[Adaptive] | None = None,
        minimum: int | None = None,
        maximum: float | None = None,
        minimum_cores: int | None = None,
        maximum_cores: int | None = None,
        minimum_memory: float | str | None = None,
        maximum_memory: float | str | None = None,
        **options: Any,
    ) -> Adaptive:
        """From now on have as many workers as there is work for.

        Parameters
        ----------
        Adaptive, adaptive : class, optional
            A subclass of `Adaptive` that decides; two names for it.
        minimum, maximum : int
            Of the number of workers.
        minimum_cores, maximum_cores : int, optional
            Of their threads together.
        minimum_memory, maximum_memory : int or str, optional
            Of their memory together, as in ``"100 GiB"``.
        **options
            Of `Adaptive`: ``interval``, ``wait_count``, ``target_duration``. Those of an earlier call stay.

        Returns
        -------
        Adaptive
            Its `stop` ends this.

        Examples
        --------
        >>> adaptive = cluster.adapt(minimum=1, maximum=4, interval="500 ms")
        >>> adaptive.is_running
        True
        >>> adaptive.stop()
        """
        kind = Adaptive or adaptive or _adaptive_class()
        for name, value in (("minimum", minimum), ("maximum", maximum)):
            if isinstance(value, bool) or (value is not None and value < 0):
                raise ValueError(f"{name} is a number of workers, not {value!r}")
        if minimum_cores is not None:
            minimum = max(minimum or 0, self._cores_to_n(minimum_cores))
        if minimum_memory is not None:
            minimum = max(minimum or 0, self._memory_to_n(minimum_memory))
        if maximum_cores is not None:
            maximum = min(_or_more(maximum), self._whole(maximum_cores, self._threads_per_worker(), "maximum_cores"))
        if maximum_memory is not None:
            nbytes = parse_size(maximum_memory)  # type: ignore[arg-type] # it says what it can't read
            maximum = min(_or_more(maximum), self._whole(nbytes, self._memory_per_worker(), "maximum_memory"))
        if (minimum or 0) > _or_more(maximum):
            raise ValueError(f"minimum={minimum} workers are more than maximum={maximum:g}")
        self._stop_adapting()
        self._adaptive_options |= options
        self._adaptive = kind(self, minimum=minimum, maximum=maximum, **self._adaptive_options)
        return self._adaptive

    def _wanted(self, n: int, memory: float | str | None, cores: int | None) -> int:
        """The number of workers that `scale` means."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ValueError(f"n is a number of workers, not {n!r}")
        if memory is not None:
            n = max(n, self._memory_to_n(memory))
        if cores is not None:
            n = max(n, self._cores_to_n(cores))
        return n

    def _memory_to_n(self, memory: float | str) -> int:
        nbytes = parse_size(memory)  # type: ignore[arg-type] # it says what it can't read
        return math.ceil(nbytes / _known(self._memory_per_worker(), "memory"))

    def _cores_to_n(self, cores: int) -> int:
        return math.ceil(cores / _known(self._threads_per_worker(), "cores"))

    @staticmethod
    def _whole(amount: float, each: int | None, what: str) -> int:
        return math.floor(amount / _known(each, what))

    def _threads_per_worker(self) -> int | None:
        """The threads of each new worker; None: it is not known."""
        return None

    def _memory_per_worker(self) -> int | None:
        """The bytes of memory of each new worker; None: it is not known."""
        return None

    @property
    def plan(self) -> set[Any]:
        """The names of the workers that there are to be.

        Examples
        --------
        >>> cluster.scale(3)
        >>> len(cluster.plan)
        3
        """
        return set(getattr(self, "workers", ()))

    @property
    def requested(self) -> set[Any]:
        """The names of the workers that were asked for, wherever they come from.

        Examples
        --------
        >>> len(cluster.requested)
        2
        """
        return set(getattr(self, "workers", ()))

    @property
    def observed(self) -> set[Any]:
        """The names of the workers that the scheduler has.

        Examples
        --------
        >>> cluster.wait_for_workers(2)
        >>> cluster.observed == cluster.plan
        True
        """
        return {worker["name"] for worker in self.scheduler_info["workers"].values()}

    # -- how it is shown

    @property
    def _cluster_class_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        if self.status != Status.running or self.scheduler_comm is None:
            return f"{self._cluster_class_name}({self.name}, {self.status})"
        workers = self._info["workers"].values()
        text = (
            f"{self._cluster_class_name}({self.name}, {self.scheduler_address!r}, workers={len(workers)}, "
            f"threads={sum(worker['nthreads'] for worker in workers)}"
        )
        memory = [worker["resources"].get("memory") for worker in workers]
        if memory and all(memory):
            text += f", memory={format_size(int(sum(memory)))}"
        return f"{text})"

    def _repr_html_(self) -> str:
        rows: dict[str, Any] = {"name": self.name, "state": self.status}
        if self.status == Status.running:
            workers = self._info["workers"].values()
            here, wanted = len(workers), len(self.plan)
            rows |= {
                "scheduler": self.scheduler_address,
                "workers": here if here == wanted else f"{here} of {wanted}",
                "threads": sum(worker["nthreads"] for worker in workers),
                "scaling": "adaptive" if self._adaptive is not None and self._adaptive.is_running else "manual",
            }
        return card(self._cluster_class_name, rows)


def _adaptive_class() -> type[Adaptive]:
    return Adaptive


def _or_more(maximum: float | None) -> float:
    return math.inf if maximum is None else maximum


def _known(each: int | None, what: str) -> int:
    if not each:
        raise ValueError(f"this cluster can't be scaled by {what}: it is not known how much of that a worker has")
    return each


def _text_of(lines: Iterable[tuple[str, str]]) -> str:
    return "\n".join(reversed([text for _, text in lines]))


async def _coroutine(result: Any) -> Any:
    return await result


async def _nothing() -> None:
    """For what is awaited and has nothing to do."""
