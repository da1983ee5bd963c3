"""`wait`: until futures are done, whatever becomes of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from dask.base import is_dask_collection

from holdfast.client.core.core import Core
from holdfast.client.drivers.blocking import BLOCKING
from holdfast.client.drivers.effects import Operation
from holdfast.client.futures.collections import futures_of
from holdfast.client.futures.errors import error_of
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import adopting
from holdfast.client.futures.reading import ready
from holdfast.client.packing.checks import check_in_one
from holdfast.client.packing.foreign import check_ends, check_no_foreign_future
from holdfast.cluster.durations import seconds


class DoneAndNotDone(NamedTuple):
    """What `wait` returns: the futures that are done, and those that are not."""

    done: set[Future]
    not_done: set[Future]


ALL_COMPLETED = "ALL_COMPLETED"
FIRST_COMPLETED = "FIRST_COMPLETED"


def wait(fs: Future | Iterable[Future], timeout: float | str | None = None, return_when: str = ALL_COMPLETED) -> Any:
    """Wait until futures are done, without reading their results.

    Parameters
    ----------
    fs : Future, iterable of futures, or dask collection
        A persisted collection stands for its futures. They may be of several clients of one cluster.
    timeout : float or str, optional
        In seconds, or as text such as ``"500 ms"``.
    return_when : {"ALL_COMPLETED", "FIRST_COMPLETED"}
        Whether to wait for all of them or for one.

    Returns
    -------
    DoneAndNotDone
        A named tuple of two sets, ``done`` and ``not_done``. Futures that failed are done. With futures of an
        asynchronous client: await it.

    Raises
    ------
    TimeoutError
        They were not done in time.
    CancelledError
        One of those that are done was cancelled.
    TypeError
        ``fs`` is nothing that has futures, or is one of several arguments that do.
    ValueError
        They are of several clusters.

    Examples
    --------
    >>> futures = client.map(str, range(3))
    >>> done, not_done = wait(futures, timeout=10)
    >>> len(done), len(not_done)
    (3, 0)
    """
    check_in_one("wait", timeout)
    check_in_one("wait", return_when)
    if return_when not in (ALL_COMPLETED, FIRST_COMPLETED):
        raise ValueError(f"return_when is {ALL_COMPLETED!r} or {FIRST_COMPLETED!r}, not {return_when!r}")
    futures = [fs] if isinstance(fs, Future) else futures_of(_listed(fs))
    for future in futures:
        future._check_held()
    driver = futures[0]._core.driver if futures else BLOCKING
    return driver.run(waiting(futures, seconds(timeout), first=return_when == FIRST_COMPLETED))


def waiting(futures: list[Future], timeout: float | None, *, first: bool) -> Operation[DoneAndNotDone]:
    """`wait`, as an operation."""
    if not futures:
        return DoneAndNotDone(set(), set())
    core: Core = futures[0]._core
    own = []
    for future in futures:  # one client waits for all of them
        own.append(future if future._core is core else (yield from adopting(core, future)))
    states = list(dict.fromkeys(future._state for future in own))
    yield from ready(core, states, timeout, first=first)
    done = {given for given, future in zip(futures, own, strict=True) if future.done()}
    for future in own:
        if future._state.reason is not None:
            raise error_of(future._state)
    return DoneAndNotDone(done, set(futures) - done)


def _listed(fs: Any) -> Any:
    if is_dask_collection(fs) or isinstance(fs, dict):
        return fs
    check_no_foreign_future(fs, "what is waited for")
    if not isinstance(fs, Iterable) or isinstance(fs, str | bytes):
        raise TypeError(f"wait takes a future, an iterable of futures or a dask collection, not {fs!r:.100}")
    check_ends((fs,), "what is waited for")
    return list(fs)
