"""`Cluster`: what all clusters have in common that a Python object stands for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from holdfast.cluster.deploy.amounts import WorkerSize
from holdfast.cluster.deploy.observed_cluster import SYNC_SECONDS, ObservedCluster
from holdfast.cluster.deploy.process_interface import Status
from holdfast.cluster.durations import seconds
from holdfast.cluster.notebook import card
from holdfast.objectstore.errors import HoldfastError
from holdfast.objectstore.sizes import format_size

if TYPE_CHECKING:
    from holdfast.cluster.deploy.adaptive import Adaptive

MAX_LOG_LINES = 10_000


class Cluster(ObservedCluster):
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

    def __init__(
        self,
        asynchronous: bool = False,
        loop: Any = None,
        quiet: bool = True,
        name: str | None = None,
        scheduler_sync_interval: float | str = SYNC_SECONDS,
    ) -> None:
        super().__init__(bool(asynchronous), name, seconds(scheduler_sync_interval) or SYNC_SECONDS)
        self.quiet = quiet
        self._adaptive: Adaptive | None = None
        self._adaptive_options: dict[str, Any] = {}
        self._cluster_manager_logs: list[tuple[float, str]] = []

    async def _close(self) -> None:
        self._stop_adapting()
        await super()._close()

    def _stop_adapting(self) -> None:
        if self._adaptive is not None:
            self._adaptive.stop()

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

    def scale(self, n: int = 0, memory: float | str | None = None, cores: float | None = None) -> Any:
        """Have so many workers. If the cluster adapts, that goes on: stop it first (`Adaptive.stop`).

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

    def scale_up(self, n: int = 0, memory: float | str | None = None, cores: float | None = None) -> Any:
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

    def entry_of(self, name: Any) -> Any:
        """What the worker of a name comes and goes with: for clusters that make several workers at once.

        Examples
        --------
        >>> cluster.entry_of("alice")
        'alice'
        """
        return name

    def adapt(
        self,
        Adaptive: type[Adaptive] | None = None,
        *,
        adaptive: type[Adaptive] | None = None,
        minimum: int | None = None,
        maximum: float | None = None,
        minimum_cores: float | None = None,
        maximum_cores: float | None = None,
        minimum_memory: float | str | None = None,
        maximum_memory: float | str | None = None,
        **options: Any,
    ) -> Adaptive:
        """From now on have as many workers as there is work for.

        An `Adaptive` of an earlier call stops. `scale` does not stop it: the number of workers is what that says until
        the next look. What dies by itself is started again, and what others have retired comes back, as long as there
        is work for so many.

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
            Of `Adaptive`: ``interval``, ``wait_count``, ``target_duration``. Those of an earlier call stay, unless they
            are given again; None means what dask's configuration says.

        Returns
        -------
        Adaptive
            Its `stop` ends this.

        Raises
        ------
        ValueError
            A limit is no amount, or the minimum is more than the maximum; what was so far goes on.
        HoldfastError
            The cluster is closed.

        Examples
        --------
        >>> adaptive = cluster.adapt(minimum=1, maximum=4, interval="500 ms")
        >>> adaptive.is_running
        True
        >>> adaptive.stop()
        """
        kind = Adaptive or adaptive or _adaptive_class()
        if self.closed or self.status == Status.closing:
            raise HoldfastError(f"{self!r} is not open any more, and can't adapt")
        size = self._worker_size
        minimum = size.at_least(minimum, minimum_memory, minimum_cores)
        maximum = size.at_most(maximum, maximum_memory, maximum_cores)
        options = {**self._adaptive_options, **options}
        made = kind(self, minimum=minimum, maximum=maximum, **options)
        self._stop_adapting()
        self._adaptive_options, self._adaptive = options, made
        return made

    def _check_open(self) -> None:
        if self.status != Status.running:
            raise HoldfastError(f"{self!r} is not open, and can't be scaled")

    def _wanted(self, n: int, memory: float | str | None, cores: float | None) -> int:
        """The number of workers that `scale` means."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ValueError(f"n is a number of workers, not {n!r}")
        return self._worker_size.at_least(n, memory, cores) or 0

    @property
    def _worker_size(self) -> WorkerSize:
        return WorkerSize(self._threads_per_worker(), self._memory_per_worker())

    def _threads_per_worker(self) -> int | None:
        """The threads of each new worker; None: it is not known."""
        return None

    def _memory_per_worker(self) -> int | None:
        """The bytes of memory of each new worker; None: it is not known."""
        return None

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
                "workers": out_of(here, wanted),
                "threads": sum(worker["nthreads"] for worker in workers),
                "scaling": "adaptive" if self._adaptive is not None and self._adaptive.is_running else "manual",
            }
        return card(self._cluster_class_name, rows)


def _adaptive_class() -> type[Adaptive]:
    from holdfast.cluster.deploy.adaptive import Adaptive  # which most clusters never need

    return Adaptive


def _text_of(lines: Iterable[tuple[str, str]]) -> str:
    return "\n".join(reversed([text for _, text in lines]))


def out_of(here: int, wanted: int) -> str:
    """How many there are, and how many there are to be if these are not as many."""
    return f"{here:,}" if here == wanted else f"{here:,} of {wanted:,}"
