"""`Client.get_executor`: a cluster as an executor of `concurrent.futures`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.key_state import CANCELLED, ERROR, FINISHED, KeyState
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Driver, Effect, Operation, Signal
from holdfast.client.futures.future import Future
from holdfast.client.futures.reading import failure_of, read, ready
from holdfast.cluster import protocol
from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.protocol.shapes import in_slices

#: ``submit(function, args, kwargs)`` and ``map(function, iterables)`` give futures of the cluster.
Submit = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Future]
Map = Callable[[Callable[..., Any], tuple[Iterable[Any], ...]], list[Future]]


class ExecutorFuture(concurrent.futures.Future):  # type: ignore[type-arg]  # it gives whatever the task does
    """A future of `concurrent.futures` for one of the cluster.

    A task that waits for it, in whatever way of `concurrent.futures` or `asyncio`, lends its slot, as one that waits
    for a future of the cluster.
    """

    def __init__(self, future: Future) -> None:
        super().__init__()
        self._future = future
        self._cancelling = threading.RLock()
        self._waiters: list[Any] = _Waiters(future._core)

    @property
    def key(self) -> Any:
        """The key of the computation."""
        return self._future.key

    def cancel(self) -> bool:
        """Cancel it, if no worker has it yet. Whether it is cancelled.

        In an asynchronous client it can't be asked whether a worker has it: then it is cancelled if it isn't done.
        """
        if not self.done():
            core = self._future._core
            if core.driver.gives_awaitables:
                asyncio.ensure_future(core.driver.run(cancel_unstarted(core, [self._future._state])))  # noqa: RUF006
                self._be_cancelled()
            elif core.driver.run(cancel_unstarted(core, [self._future._state])):
                self._be_cancelled()
        return self.cancelled()

    def running(self) -> bool:
        """Whether a worker has it. In an asynchronous client this isn't known."""
        core = self._future._core
        if self._state == "PENDING" and not core.driver.gives_awaitables:
            begun = core.driver.run(_begun(core, self._future.key))
            with self._condition:
                if begun and self._state == "PENDING":
                    self._state = "RUNNING"
        return super().running()

    def result(self, timeout: float | None = None) -> Any:
        """As that of ``concurrent.futures``."""
        return super().result(self._left(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As that of ``concurrent.futures``."""
        return super().exception(self._left(timeout))

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[Any]], object]) -> None:
        """As that of ``concurrent.futures``. By it `asyncio.wrap_future` waits."""
        super().add_done_callback(fn)
        core = self._future._core
        if core.driver.gives_awaitables and not core.driver.asynchronous and not self.done():
            waiting = asyncio.ensure_future(core.driver.run(ready(core, (self._future._state,))))
            waiting.add_done_callback(self._waited)

    def _waited(self, waiting: asyncio.Future[Any]) -> None:
        error = None if waiting.cancelled() else waiting.exception()
        if error is not None:
            self._end(self.set_exception, error)

    def _left(self, timeout: float | None) -> float | None:
        """Wait as the client does; how long to wait then for the word of the callback."""
        driver = self._future._core.driver
        if self.done() or (timeout is not None and timeout <= 0):
            return timeout
        _check_may_block(driver)
        if driver.asynchronous:
            return timeout
        started = time.monotonic()
        driver.finish(ready(self._future._core, (self._future._state,), timeout))
        # The callback has no more to do than to read it.
        return None if timeout is None else max(1.0, timeout - (time.monotonic() - started))

    # -- how it ends, which may be said twice

    def _be_cancelled(self) -> None:
        with self._cancelling:
            with self._condition:
                if self._state == "RUNNING":  # its client has cancelled it all the same
                    self._state = "PENDING"
            if super().cancel() and self._state == "CANCELLED":
                self.set_running_or_notify_cancel()

    def _end(self, set_it: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # it was cancelled
            set_it(value)


class _Waiters(list[Any]):
    """Those that wait for an `ExecutorFuture` in ``wait`` or ``as_completed`` of ``concurrent.futures``.

    Both wait for an event, which is in the waiter that they put here. In a task that event has to be one that lends
    the slot.
    """

    def __init__(self, core: Core) -> None:
        super().__init__()
        self._core = core

    def append(self, waiter: Any) -> None:
        if not isinstance(waiter.event, _LendingEvent):
            waiter.event = _LendingEvent(self._core)
        super().append(waiter)


class _LendingEvent(threading.Event):
    """An event for which a client waits."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        self._driver = core.driver
        #: Called when it is set.
        self.wakes: list[Callable[[], object]] = []

    def set(self) -> None:
        """As that of `threading`."""
        super().set()
        for wake in tuple(self.wakes):
            wake()

    def block(self, timeout: float | None) -> bool:
        """As `wait` of `threading`."""
        return super().wait(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """As that of `threading`."""
        _check_may_block(self._driver)
        return self._driver.finish(self._waiting(timeout))

    def _waiting(self, timeout: float | None) -> Operation[bool]:
        is_set: bool = yield _Set(self, timeout)
        return is_set


class _Set(Effect):
    """An event is set, of which callbacks of futures tell. Gives whether it is in time."""

    __slots__ = ("_event", "_timeout")

    def __init__(self, event: _LendingEvent, timeout: float | None) -> None:
        self._event = event
        self._timeout = timeout

    @property
    def waits_for_others(self) -> bool:
        return not self._event.is_set()

    def block(self) -> bool:
        return self._event.block(self._timeout)

    async def wait(self) -> bool:
        signal = Signal()
        self._event.wakes.append(signal.give)
        return self._event.is_set() or await signal.wait(self._timeout)


def _check_may_block(driver: Driver) -> None:
    if not driver.may_block:
        raise RuntimeError(
            "this would block the event loop by which the result comes: write 'await asyncio.wrap_future(future)'"
        )


class ClientExecutor(concurrent.futures.Executor):
    """An executor of `concurrent.futures` that runs calls on a cluster. `Client.get_executor` makes it.

    Parameters
    ----------
    core
        The client's.
    submit, map
        Submit calls.
    """

    def __init__(self, core: Core, submit: Submit, map: Map) -> None:
        self._core = core
        self._submit = submit
        self._map = map
        self._lock = threading.Lock()
        self._is_shut_down = False
        self._ends: dict[Future, ExecutorFuture | None] = {}  # of all that has not ended

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> ExecutorFuture:
        """Have ``fn(*args, **kwargs)`` run on the cluster.

        Raises
        ------
        RuntimeError
            The executor was shut down.

        Examples
        --------
        >>> with client.get_executor() as executor:
        ...     executor.submit(pow, 2, 10).result()
        1024
        """
        with self._lock:
            self._check()
            future = self._submit(fn, args, kwargs)
            given = ExecutorFuture(future)
            self._ends[future] = given
        future.add_done_callback(self._ended)
        return given

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Have ``fn`` run on the items of iterables; an iterator over the results, in their order.

        Parameters
        ----------
        fn : callable
        *iterables : iterable
        timeout : float, optional
            In seconds, from the call on, for all results together.
        chunksize : int
            So many calls are one task.
        buffersize : int, optional
            So many tasks are submitted ahead of the result that is taken next. Default: all of them, at once.

        Raises
        ------
        TimeoutError
            By the iterator: a result was not there in time.
        RuntimeError
            The executor was shut down.
        TypeError
            In an asynchronous client: `Client.map` is for that.

        Examples
        --------
        >>> with client.get_executor() as executor:
        ...     list(executor.map(pow, [1, 2, 3], [2, 2, 2], chunksize=2))
        [1, 4, 9]
        """
        if chunksize < 1:
            raise ValueError(f"chunksize is at least 1, not {chunksize!r}")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError(f"buffersize is a number or None, not {buffersize!r:.100}")
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize is None or at least 1, not {buffersize!r}")
        if self._core.driver.gives_awaitables:
            raise TypeError("the iterator of map would block the loop of this asynchronous client: use Client.map")
        end = None if timeout is None else time.monotonic() + timeout
        if chunksize > 1:
            calls = zip(*iterables, strict=False)
            chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
            results = self._results(partial(_call_all, fn), (chunks,), end, timeout, buffersize)
            return itertools.chain.from_iterable(results)
        return self._results(fn, iterables, end, timeout, buffersize)

    def _results(
        self,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        end: float | None,
        timeout: float | None,
        buffersize: int | None,
    ) -> Iterator[Any]:
        calls = zip(*iterables, strict=False)
        futures = deque(self._mapped(fn, calls, buffersize))

        def results() -> Iterator[Any]:
            try:
                while futures:
                    future = futures[0]
                    left = None if end is None else max(0.0, end - time.monotonic())
                    core = self._core
                    value = core.driver.run(read(core, future._state, left, None, future))
                    futures.popleft()
                    if buffersize is not None and not self._is_shut_down:
                        futures.extend(self._mapped(fn, calls, 1))
                    yield value
            finally:
                self._cancel(list(futures))

        return results()

    def _mapped(self, fn: Callable[..., Any], calls: Iterator[tuple[Any, ...]], limit: int | None) -> list[Future]:
        taken = list(calls if limit is None else itertools.islice(calls, limit))
        with self._lock:
            self._check()
            if not taken:
                return []
            futures = self._map(fn, tuple(zip(*taken, strict=True)))
            self._ends.update(dict.fromkeys(futures))
        for future in futures:
            future.add_done_callback(self._ended)
        return futures

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Parameters
        ----------
        wait : bool
            Whether to wait until all calls have ended. An asynchronous client can't wait here.
        cancel_futures : bool
            Whether to cancel the calls that no worker has yet.

        Raises
        ------
        RuntimeError
            It is to wait, calls have not ended, and the client is an asynchronous one.

        Examples
        --------
        >>> executor = client.get_executor()
        >>> executor.shutdown()
        >>> executor.submit(abs, -1)
        Traceback (most recent call last):
            ...
        RuntimeError: cannot schedule new futures after shutdown
        """
        with self._lock:
            self._is_shut_down = True
            ends = dict(self._ends)
        if cancel_futures:
            self._cancel(list(ends))
        if not wait or not ends or self._core.closed:
            return
        if self._core.driver.gives_awaitables:
            raise RuntimeError(
                "shutdown would block the loop of this asynchronous client: call shutdown(wait=False), and await "
                "asyncio.wrap_future(future) for what matters"
            )
        self._core.driver.run(ready(self._core, list({future._state: None for future in ends})))
        concurrent.futures.wait([given for given in ends.values() if given is not None])

    def _check(self) -> None:
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _cancel(self, futures: list[Future]) -> None:
        pending = [future for future in futures if not future.done()]
        if not pending or self._core.closed or self._core.session.ended is not None:
            return
        core = self._core
        operation = cancel_unstarted(core, [future._state for future in pending])
        if core.driver.gives_awaitables:
            asyncio.ensure_future(core.driver.run(operation))  # noqa: RUF006
            return
        cancelled = set(core.driver.run(operation))
        for future in pending:
            given = self._ends.get(future)
            if future.key in cancelled and given is not None:
                given._be_cancelled()

    # -- ends

    def _ended(self, future: Future) -> None:
        """In the thread of the callbacks, or on the loop of an asynchronous client."""
        with self._lock:
            given = self._ends.pop(future, None)
        if given is None:
            return
        if self._core.driver.gives_awaitables:
            asyncio.ensure_future(self._settle_on_loop(given))  # noqa: RUF006
        else:
            self._core.driver.run(_settle(given))

    async def _settle_on_loop(self, given: ExecutorFuture) -> None:
        await self._core.driver.run(_settle(given))

    def __repr__(self) -> str:
        return f"<ClientExecutor: {self._core.scheduler_address}, calls: {len(self._ends):,}>"


def _call_all(fn: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
    return [fn(*args) for args in calls]


def _settle(given: ExecutorFuture) -> Operation[None]:
    future = given._future
    core, state = future._core, future._state
    if state.status == CANCELLED:
        given._be_cancelled()
    elif state.status == ERROR:
        given._end(given.set_exception, (yield from failure_of(core, state)))
    else:
        try:
            value = yield from read(core, state, None, None, future)
        except BaseException as error:
            given._end(given.set_exception, error)
        else:
            given._end(given.set_result, value)


def cancel_unstarted(core: Core, states: list[KeyState]) -> Operation[list[Any]]:
    """Cancel what no worker has yet; the keys of that."""
    cancelled: list[Any] = []
    for keys in in_slices([state.key for state in states if state.status != FINISHED], MAX_ITEMS):
        cancelled += yield Ask(core.session, protocol.requests.CANCEL_UNSTARTED, keys=list(keys))
    return cancelled


def _begun(core: Core, key: Any) -> Operation[bool]:
    return bool((yield Ask(core.session, protocol.requests.BEGUN, keys=[key])))
