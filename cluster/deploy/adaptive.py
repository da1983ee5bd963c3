"""`Adaptive`: how many workers a cluster has, by what it has to do.

Now and then the scheduler is asked how many workers there should be (`Adaptive.target`). More come at once. Fewer are
had only if that was so `wait_count` times in turn for the same worker, because work often comes in waves, and a worker
that is closed and started again costs more than one that idles a little. Workers that are not there go first, then
those that it costs least to close.

A cluster can also lack workers that it is to have, because a client has retired them. Then it is told its size again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable
from inspect import isawaitable
from typing import Any

from holdfast.cluster.durations import seconds

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
TARGET_DURATION_SECONDS = 5.0
WAIT_COUNT = 3
MAX_LOG_ENTRIES = 10_000


class Adaptive:
    """Makes a cluster larger and smaller, by what it has to do. Most often `Cluster.adapt` makes one.

    Subclass it to decide otherwise: `target`, `workers_to_close` and `recommendations` may be overridden, and
    ``cluster.adapt(Adaptive=MyAdaptive)`` takes the subclass. What is not given is what dask's configuration says, in
    its section ``adaptive`` of ``distributed``: ``interval``, ``minimum``, ``maximum``, ``wait-count`` and
    ``target-duration``.

    Parameters
    ----------
    cluster : Cluster
        Has ``scale_up(n)``, ``scale_down(workers)``, ``refresh()``, ``plan``, ``requested``, ``observed`` and
        ``scheduler_comm``. What is planned and not requested is not there, and won't come by itself.
    interval : float or str
        How often it looks, in seconds or as text. Default: ``"1s"``. 0 or False: only when `adapt` is called.
    minimum, maximum : int
        Of the number of workers.
    wait_count : int
        How many times in turn a worker has to be found to be too many before it goes. Default: 3.
    target_duration : float or str
        How long what there is to do should take. A shorter time brings more workers. Default: ``"5s"``.
    worker_key : callable or str, optional
        Workers with the same ``key(worker)`` go together or stay, as of `Client.workers_to_close`. Default: those that
        the cluster makes together (`Cluster.entry_of`).
    **options
        Further ones of the scheduler's choice of workers to close: ``memory_ratio``, ``minimum``.

    Attributes
    ----------
    log : deque
        Pairs of a time and what was recommended then.
    close_counts : dict
        How many times in turn each worker was found to be too many.

    Examples
    --------
    >>> from holdfast import Adaptive, LocalCluster
    >>> class Evenings(Adaptive):
    ...     async def target(self):
    ...         return min(4, await super().target())
    >>> with LocalCluster(n_workers=0, threads_per_worker=1) as cluster:
    ...     adaptive = cluster.adapt(Adaptive=Evenings, maximum=2, interval="100 ms")
    ...     with cluster.get_client() as client:
    ...         client.submit(pow, 2, 5).result()
    32
    """

    def __init__(
        self,
        cluster: Any = None,
        interval: float | str | None = None,
        minimum: int | None = None,
        maximum: float | None = None,
        wait_count: int | None = None,
        target_duration: float | str | None = None,
        worker_key: Callable[[dict[str, Any]], Any] | str | None = None,
        **options: Any,
    ) -> None:
        self.cluster = cluster
        self.interval = seconds(_given(interval, "interval", INTERVAL_SECONDS)) or 0.0
        self.minimum = int(_number(_given(minimum, "minimum", 0), "minimum"))
        self.maximum = _number(_given(maximum, "maximum", math.inf), "maximum")
        if self.minimum > self.maximum:
            raise ValueError(f"minimum={self.minimum} workers are more than maximum={self.maximum:g}")
        self.wait_count = int(_given(wait_count, "wait-count", WAIT_COUNT))
        self.target_duration = seconds(_given(target_duration, "target-duration", TARGET_DURATION_SECONDS)) or 0.0
        self.worker_key = worker_key
        self.log: deque[tuple[float, dict[str, Any]]] = deque(maxlen=MAX_LOG_ENTRIES)
        self.close_counts: Counter[Any] = Counter()
        self._options = options
        self._is_adapting = False
        self._stopped = False
        self._running: asyncio.Task[None] | None = None
        if self.interval and cluster is not None:
            cluster._runner.soon(self._begin(weakref.ref(self)), "adapting")

    # -- what may be overridden

    async def target(self) -> int:
        """How many workers there should be, by what there is to do.

        Examples
        --------
        >>> adaptive = Adaptive(cluster, interval=0)
        >>> cluster.sync(adaptive.target)  # there is nothing to do
        0
        """
        scheduler = await self._reached()
        return int(await scheduler.adaptive_target(self.target_duration, self._brings_memory))

    async def workers_to_close(self, target: int) -> list[Any]:
        """The names of workers that may go, so that ``target`` of them stay; the scheduler chooses.

        Examples
        --------
        >>> adaptive = Adaptive(cluster, interval=0)
        >>> len(cluster.sync(adaptive.workers_to_close, 1))
        1
        """
        options = {"minimum": self.minimum, **self._options}
        scheduler = await self._reached()
        key = self.worker_key or (lambda worker: self._entry_of(worker["name"]))
        return list(await scheduler.workers_to_close(target=target, key=key, attribute="name", **options))

    async def scale_up(self, n: int) -> None:
        """Have so many workers.

        Examples
        --------
        >>> adaptive = Adaptive(cluster, interval=0)
        >>> cluster.sync(adaptive.scale_up, 3)
        >>> len(cluster.plan)
        3
        """
        await _done(self.cluster.scale_up(n))

    async def scale_down(self, workers: Iterable[Any]) -> None:
        """Have these workers no more. The cluster sees to it that their data is moved first.

        Examples
        --------
        >>> adaptive = Adaptive(cluster, interval=0)
        >>> cluster.sync(adaptive.scale_down, [max(cluster.plan)])
        >>> len(cluster.plan)
        1
        """
        await _done(self.cluster.scale_down(list(workers)))

    async def recommendations(self, target: int) -> dict[str, Any]:
        """What is to be done about the number of workers, if there should be ``target`` of them.

        Returns
        -------
        dict
            ``{"status": "same"}``, ``{"status": "up", "n": …}`` or ``{"status": "down", "workers": […]}``.

        Examples
        --------
        >>> adaptive = Adaptive(cluster, interval=0)
        >>> cluster.sync(adaptive.recommendations, 4)
        {'status': 'up', 'n': 4}
        """
        plan, observed = self.plan, self.observed
        if target >= len(plan):
            self.close_counts.clear()
            # Of a cluster of the right size, workers may have been retired by others, or could not be had.
            return (
                {"status": "same"} if target == len(plan) and plan <= self.requested else {"status": "up", "n": target}
            )
        surplus = len(plan) - target
        names = {str(name): name for name in plan}  # the scheduler knows them as text
        to_close = self._absent({str(name) for name in observed}, surplus)
        if len(to_close) < surplus:
            stay = max(0, len(observed) - (surplus - len(to_close)))
            to_close += [names[str(name)] for name in await self.workers_to_close(stay) if str(name) in names]
        for name in to_close:
            self.close_counts[name] += 1
        firmly = [name for name in to_close if self.close_counts[name] >= self.wait_count]
        for name in list(self.close_counts):
            if name in firmly or name not in to_close:
                del self.close_counts[name]
        return {"status": "down", "workers": firmly} if firmly else {"status": "same"}

    def _absent(self, observed: set[str], surplus: int) -> list[Any]:
        """Planned workers that are not there, at most so many. Those that come and go together do so here."""
        together: dict[Any, list[Any]] = {}
        for name in self.plan:
            together.setdefault(self._entry_of(name), []).append(name)
        found: list[Any] = []
        for names in together.values():
            if len(found) + len(names) <= surplus and observed.isdisjoint(map(str, names)):
                found += names
        return found

    # -- what it does

    async def safe_target(self) -> int:
        """`target`, between the minimum and the maximum.

        Examples
        --------
        >>> adaptive = Adaptive(cluster, interval=0, minimum=1, maximum=4)
        >>> cluster.sync(adaptive.safe_target)  # there is nothing to do
        1
        """
        return int(max(self.minimum, min(self.maximum, await self.target())))

    async def adapt(self) -> None:
        """Look once, and do what is recommended. While another call of this goes on, nothing.

        Examples
        --------
        >>> adaptive = Adaptive(cluster, interval=0, minimum=3)
        >>> cluster.sync(adaptive.adapt)
        >>> [recommended for _, recommended in adaptive.log]
        [{'status': 'up', 'n': 3}]
        """
        if self._is_adapting or self._stopped:
            return
        self._is_adapting = True
        try:
            await self.cluster.refresh()
            recommended = dict(await self.recommendations(await self.safe_target()))
            status = recommended.pop("status")
            if status == "same":
                return
            self.log.append((time.time(), {"status": status, **recommended}))
            if status == "up":
                await self.scale_up(**recommended)
            else:
                await self.scale_down(**recommended)
        finally:
            self._is_adapting = False

    def stop(self) -> None:
        """Adapt no more; may be called from any thread. Workers stay as they are. Twice is no error.

        Examples
        --------
        >>> adaptive = cluster.adapt(minimum=1, interval="500 ms")
        >>> adaptive.stop()
        >>> adaptive.is_running
        False
        """
        self._stopped = True
        if self._running is not None:
            loop, running, self._running = self._running.get_loop(), self._running, None
            if not loop.is_closed():
                loop.call_soon_threadsafe(running.cancel)

    @property
    def is_running(self) -> bool:
        """Whether it looks by itself.

        Examples
        --------
        >>> Adaptive(cluster, interval=0).is_running  # only when it is told to
        False
        """
        return bool(self.interval) and not self._stopped

    @staticmethod
    async def _begin(ref: weakref.ref[Adaptive]) -> None:
        self = ref()
        if self is not None and not self._stopped:
            self._running = asyncio.ensure_future(self._run(ref, self.interval))

    @staticmethod
    async def _run(ref: weakref.ref[Adaptive], interval: float) -> None:
        while (self := ref()) is not None and not self._stopped:
            try:
                await self.adapt()
            except Exception:  # of a subclass too: the next time may be better
                if not self.cluster.closed:
                    logger.exception("adapting the cluster failed, and is tried again")
            del self
            await asyncio.sleep(interval)

    # -- what it knows

    async def _reached(self) -> Any:
        """`scheduler`, also of a cluster that has not asked it anything yet."""
        if self.scheduler is None:
            await self.cluster.refresh()
        return self.scheduler

    @property
    def scheduler(self) -> Any:
        """What the scheduler is asked by.

        Examples
        --------
        >>> adaptive = Adaptive(cluster, interval=0)
        >>> cluster.sync(cluster.refresh)
        >>> len(cluster.sync(adaptive.scheduler.identity)["workers"])
        2
        """
        return self.cluster.scheduler_comm

    @property
    def plan(self) -> set[Any]:
        """The names of the workers that there are to be.

        Examples
        --------
        >>> len(Adaptive(cluster, interval=0).plan)
        2
        """
        return set(self.cluster.plan)

    @property
    def requested(self) -> set[Any]:
        """The names of the workers that were asked for.

        Examples
        --------
        >>> len(Adaptive(cluster, interval=0).requested)
        2
        """
        return set(self.cluster.requested)

    @property
    def observed(self) -> set[Any]:
        """The names of the workers that the scheduler has.

        Examples
        --------
        >>> len(Adaptive(cluster, interval=0).observed)
        2
        """
        return set(self.cluster.observed)

    def _entry_of(self, name: Any) -> Any:
        """What a worker comes and goes with, if the cluster makes several at once."""
        entry_of = getattr(self.cluster, "entry_of", None)
        return name if entry_of is None else entry_of(name)

    @property
    def _brings_memory(self) -> bool:
        return bool(getattr(self.cluster, "workers_bring_memory", True))


def _given(value: Any, name: str, default: Any) -> Any:
    """A value, or for None what dask's configuration says."""
    if value is not None:
        return value
    import dask.config  # only now: a cluster starts without dask

    return dask.config.get(f"distributed.adaptive.{name}", default)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not float(value) >= 0:
        raise ValueError(f"{name} is a number of workers, not {value!r}")
    return float(value)


async def _done(result: Any) -> None:
    if isawaitable(result):
        await result
