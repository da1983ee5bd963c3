"""`as_completed`: futures in the order in which they are done.

It has no thread, and looks at no future to see whether it is done: the key table tells of each that becomes ready
(`holdfast.client.core.completions`). So a hundred thousand futures cost as much as they are, and not more with each one
that is taken.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Self

from dask.base import is_dask_collection

from holdfast.client.core.completions import Completions
from holdfast.client.core.core import Core
from holdfast.client.core.key_state import ERROR, FINISHED, KeyState
from holdfast.client.core.key_table import KeyTable
from holdfast.client.core.waits import Completed
from holdfast.client.drivers.blocking import BLOCKING
from holdfast.client.drivers.effects import Operation
from holdfast.client.futures.collections import futures_of
from holdfast.client.futures.errors import not_done
from holdfast.client.futures.future import Future
from holdfast.client.futures.reading import failure_of, read, ready
from holdfast.client.packing.checks import check_in_one
from holdfast.client.packing.foreign import check_ends, check_no_foreign_future
from holdfast.client.raising import hide_own_frames
from holdfast.cluster.durations import seconds
from holdfast.cluster.errors import CancelledError

#: Nothing is left to wait for.
_NONE = object()


class as_completed:
    """Futures in the order in which they are done: an iterator, and in an asynchronous client one for ``async for``.

    Others may be added meanwhile, also by what is done with those that it gives. A future that fails or is cancelled
    is done too. One that was added twice comes twice. Several threads may take futures from one of these.

    Parameters
    ----------
    futures : iterable of Future, or dask collection, optional
        They may be of several clients. A persisted collection stands for its futures.
    loop
        Taken for compatibility: there is no other loop than that of the client.
    with_results : bool
        Whether to give pairs of each future and its result.
    raise_errors : bool
        Of these pairs: whether a task that failed raises its error. If not, the place of the result is taken by what
        `sys.exc_info` would give, the class of the error, the error and its traceback; and by a `CancelledError` for a
        future that was cancelled.
    timeout : float or str, optional
        For how long it gives futures, in seconds or as text such as ``"10 s"``, from now on.

    Raises
    ------
    TimeoutError
        By what waits for a future, if none was done in time; names what was waited for.
    TypeError
        Something among ``futures`` is no future of this library; or it is iterated over with ``for`` in an asynchronous
        client, or with ``async for`` in another one.

    Examples
    --------
    >>> from holdfast import as_completed
    >>> sorted(future.result() for future in as_completed(client.map(pow, [1, 2, 3], [2, 2, 2])))
    [1, 4, 9]

    With results, and with more futures that come out of these:

    >>> found = []
    >>> ac = as_completed([client.submit(pow, 2, 3)], with_results=True)
    >>> for future, result in ac:
    ...     found.append(result)
    ...     if result < 100:
    ...         ac.add(client.submit(pow, result, 2))
    >>> found
    [8, 64, 4096]
    """

    def __init__(
        self,
        futures: Any = None,
        loop: Any = None,
        with_results: bool = False,
        raise_errors: bool = True,
        *,
        timeout: float | str | None = None,
    ) -> None:
        check_in_one("as_completed", loop)
        check_in_one("as_completed", with_results)
        self.with_results = with_results
        self.raise_errors = raise_errors
        self._timeout = seconds(timeout)
        self._deadline = None if self._timeout is None else time.monotonic() + self._timeout
        self._lock = threading.Lock()
        self._completions = Completions()
        self._waiting: dict[KeyState, list[Future]] = {}  # that were not given yet
        self._done: deque[Future] = deque()  # and not given yet either
        self._count = 0  # of both
        self._cores: dict[Core, None] = {}  # of all that there ever were
        if futures is not None:
            self.update(futures)

    # -- what it has

    def add(self, future: Future) -> None:
        """Add a future: it comes when it is done.

        Examples
        --------
        >>> ac = as_completed()
        >>> ac.add(client.submit(pow, 2, 3))
        >>> next(ac).result()
        8
        """
        self.update((future,))

    def update(self, futures: Any) -> None:
        """Add several futures, as `as_completed` is given them.

        Examples
        --------
        >>> ac = as_completed()
        >>> ac.update(client.map(pow, [1, 2], [2, 2]))
        >>> ac.count()
        2
        """
        new: dict[KeyTable, list[KeyState]] = {}
        released: list[Future] = []
        listed = _listed(futures)
        with self._lock:
            for future in listed:
                state = future._state
                self._cores[future._core] = None
                if not future._held:
                    released.append(future)  # nothing is heard of it any more
                elif state in self._waiting:
                    self._waiting[state].append(future)
                else:
                    self._waiting[state] = [future]
                    new.setdefault(future._core.table, []).append(state)
            self._done += released
            self._count += len(listed)
        for table, states in new.items():
            table.hear(self._completions, states)
        if released:
            for wake in tuple(self._completions.wakes):
                wake()

    def clear(self) -> None:
        """Forget all futures: none of them comes.

        Examples
        --------
        >>> ac = as_completed([client.submit(pow, 2, 3)])
        >>> ac.clear()
        >>> list(ac)
        []
        """
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            self._done.clear()
            self._count = 0
            self._completions.ready.clear()
        tables: dict[KeyTable, list[KeyState]] = {}
        for state, futures in waiting.items():
            tables.setdefault(futures[0]._core.table, []).append(state)
        for table, states in tables.items():
            table.end_wait(self._completions, states)

    def count(self) -> int:
        """How many futures are still to come, done or not.

        Examples
        --------
        >>> as_completed(client.map(pow, [1, 2], [2, 2])).count()
        2
        """
        return self._count

    def has_ready(self) -> bool:
        """Whether a future is done that is still to come.

        Examples
        --------
        >>> as_completed().has_ready()
        False
        """
        with self._lock:
            self._gather_done()
            return bool(self._done)

    def is_empty(self) -> bool:
        """Whether no future is to come.

        Examples
        --------
        >>> as_completed().is_empty()
        True
        """
        return not self._count

    # -- what it gives

    def next_batch(self, block: bool = True) -> Any:
        """All futures that are done and were not given yet: at least one, if ``block``.

        In an asynchronous client: await it, if ``block``, or if results are wanted.

        Parameters
        ----------
        block : bool
            Whether to wait until one is done.

        Returns
        -------
        list
            Of futures, or of pairs of futures and results. An empty one, if no future is to come.

        Examples
        --------
        >>> ac = as_completed(client.map(pow, [1, 2], [2, 2]))
        >>> while not ac.is_empty():
        ...     for future in ac.next_batch():
        ...         assert future.done()
        """
        if not block and not self.with_results:
            return self._take_all()
        return self._run(partial(self._batch, block=block), asynchronous=True)

    def batches(self) -> _Batches:
        """Lists of all futures that are done, one after the other: for ``for``, or ``async for``.

        Examples
        --------
        >>> [sum(client.gather(batch)) for batch in as_completed([client.submit(pow, 2, 3)]).batches()]
        [8]
        """
        return _Batches(self)

    def __iter__(self) -> Self:
        self._check_kind(asynchronous=False)
        return self

    def __next__(self) -> Any:
        self._check_kind(asynchronous=False)
        found = self._run(self._next, asynchronous=False)
        if found is _NONE:
            raise StopIteration
        return found

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self.is_empty():
            raise StopAsyncIteration
        self._check_kind(asynchronous=True)
        found = await self._run(self._next, asynchronous=True)
        if found is _NONE:  # another task was quicker
            raise StopAsyncIteration
        return found

    def __repr__(self) -> str:
        return f"<as_completed: {self.count():,} to come>"

    # -- how

    def _run(self, operation: Callable[[Core | None], Operation[Any]], *, asynchronous: bool) -> Any:
        core = self._core(asynchronous=asynchronous)
        driver = BLOCKING if core is None else core.driver
        try:
            return driver.run(operation(core))
        except BaseException as error:
            hide_own_frames(error)
            raise

    def _core(self, *, asynchronous: bool) -> Core | None:
        """The core that waits for all of them: one that waits as it is asked to, if there is one; None without any."""
        with self._lock:
            cores = list(self._cores)
        fitting = (core for core in cores if core.driver.gives_awaitables is asynchronous)
        return next(fitting, cores[0] if cores else None)

    def _check_kind(self, *, asynchronous: bool) -> None:
        core = self._core(asynchronous=asynchronous)
        if core is not None and core.driver.gives_awaitables is not asynchronous:
            kind, statement = ("an asynchronous", "async for") if not asynchronous else ("a blocking", "for")
            raise TypeError(f"these are futures of {kind} client: iterate over as_completed with {statement!r}")

    def _next(self, core: Core | None) -> Operation[Any]:
        while True:
            with self._lock:
                self._gather_done()
                future = self._done.popleft() if self._done else None
                self._count -= future is not None
            if future is not None:
                return (yield from self._given(future))
            if not (yield from self._one_is_done(core)):
                return _NONE

    def _batch(self, core: Core | None, *, block: bool) -> Operation[list[Any]]:
        while not (taken := self._take_all()) and block:
            if not (yield from self._one_is_done(core)):
                break
        if not self.with_results:
            return taken
        batch = []
        try:
            while taken:
                batch.append((yield from self._given(taken[0])))
                del taken[0]
        except BaseException:
            with self._lock:  # all but the one that has raised come again
                again = [*(future for future, _ in batch), *taken[1:]]
                self._done.extendleft(reversed(again))
                self._count += len(again)
            raise
        return batch

    def _one_is_done(self, core: Core | None) -> Operation[bool]:
        """Wait; whether there is anything to wait for."""
        if core is None or not self._count:
            return False
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        if not (yield Completed(core.session, self._completions, left)) and not self.has_ready():
            with self._lock:
                states = list(self._waiting)
            raise not_done(states, self._timeout)
        return True

    def _given(self, future: Future) -> Operation[Any]:
        if not self.with_results:
            return future
        core, state = future._core, future._state
        if self.raise_errors:
            future._check_held()
            return future, (yield from read(core, state, None, None, future))
        if not future._held:
            return future, CancelledError(f"the future of {future.key!r:.200} was released")
        yield from ready(core, (state,))  # its result may have been lost since
        if state.status == FINISHED:
            return future, (yield from read(core, state, None, None, future))
        error = yield from failure_of(core, state)
        if state.status != ERROR:
            return future, error
        return future, (type(error), error, error.__traceback__)

    def _take_all(self) -> list[Future]:
        with self._lock:
            self._gather_done()
            taken = list(self._done)
            self._done.clear()
            self._count -= len(taken)
        return taken

    def _gather_done(self) -> None:
        """Find the futures of what has become ready. The caller has the lock."""
        ready = self._completions.ready
        while ready:
            self._done += self._waiting.pop(ready.popleft(), ())


class _Batches:
    """What `as_completed.batches` gives."""

    def __init__(self, completed: as_completed) -> None:
        self._completed = completed

    def __iter__(self) -> Self:
        iter(self._completed)
        return self

    def __next__(self) -> list[Any]:
        self._completed._check_kind(asynchronous=False)
        batch: list[Any] = self._completed.next_batch()
        if not batch:
            raise StopIteration
        return batch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Any]:
        if self._completed.is_empty():
            raise StopAsyncIteration
        self._completed._check_kind(asynchronous=True)
        batch: list[Any] = await self._completed.next_batch()
        if not batch:
            raise StopAsyncIteration
        return batch


def _listed(futures: Any) -> list[Future]:
    if isinstance(futures, Future):
        return [futures]
    if is_dask_collection(futures):
        return futures_of(futures)
    if not isinstance(futures, Iterable) or isinstance(futures, str | bytes):
        raise TypeError(f"as_completed takes an iterable of futures, not {futures!r:.100}")
    check_ends((futures,), "what is to be completed")
    listed = list(futures)
    for future in listed:
        if not isinstance(future, Future):
            check_no_foreign_future(future, "what is to be completed")
            raise TypeError(f"as_completed takes futures, not {future!r:.100}")
    return listed
