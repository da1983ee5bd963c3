"""`Future`: a result that is being made, or lies somewhere in the cluster."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from dask._task_spec import TaskRef
from dask.utils import parse_timedelta

from holdfast.client.core.key_table import CANCELLED, ERROR, FINISHED, PENDING, KeyState, Place
from holdfast.client.packing import arguments
from holdfast.client.packing.foreign import check_ends, check_no_foreign_future
from holdfast.client.packing.keys import wire_key
from holdfast.client.raising import hide_own_frames
from holdfast.cluster import protocol
from holdfast.cluster.errors import CancelledError, ObjectLostError, RemoteError
from holdfast.cluster.failures.loading import load_exception
from holdfast.cluster.notebook import card
from holdfast.cluster.protocol.payloads import Reference
from holdfast.objectstore import ObjectID
from holdfast.objectstore.pickling.exceptions import trace_of
from holdfast.objectstore.sizes import format_size

if TYPE_CHECKING:
    from holdfast.client.client import Client

logger = logging.getLogger(__name__)


def seconds(timeout: float | str | None) -> float | None:
    """A timeout in seconds: a number, None for none, or text such as ``"500 ms"``."""
    if timeout is None or isinstance(timeout, (int, float)):
        return timeout
    try:
        return float(parse_timedelta(timeout, default="s"))
    except (LookupError, ValueError):
        raise ValueError(
            f"the timeout {timeout!r} is no time: give seconds, as 5 or 0.5, or text as '500 ms'"
        ) from None


def check_in_one(call: str, option: Any) -> None:
    """Raise a TypeError if something to work on stands in the place of an option, as in ``wait(x, y)``."""
    if option is None or type(option) in (str, bool, int, float):  # as nearly always
        return
    from dask.base import is_dask_collection

    several = option if isinstance(option, (list, tuple, set)) else (option,)
    if any(isinstance(one, Future) or is_dask_collection(one) for one in several):
        raise TypeError(f"{call} takes one argument for all that it is about: write {call}([x, y]), not {call}(x, y)")


class Future(TaskRef):
    """A result that is being made, or lies somewhere in the cluster.

    It keeps the result there: when the last future of a key is gone, in every client, the result is freed. Clients make
    futures (`Client.submit`, `Client.scatter`, ...); two futures of the same key stand for the same result. A future
    among the arguments of a call stands for its value.

    Parameters
    ----------
    key : str or tuple
        The key of a computation that the cluster knows.
    client : Client, optional
        Default: the current client.

    Examples
    --------
    >>> future = client.submit(pow, 2, 10)  # doctest: +SKIP
    >>> future.result()  # doctest: +SKIP
    1024
    """

    __slots__ = ("__weakref__", "_client", "_held", "_state")

    #: dask recognises futures inside of graphs by it, and those that it is given as a whole by their being a `TaskRef`.
    __dask_future__ = True
    _is_holdfast_future = True

    _client: Client
    _held: bool
    _state: KeyState

    def __init__(self, key: Any, client: Client | None = None) -> None:
        self._held = False
        if client is None:
            from holdfast.client.defaults import client_of_this_process  # it imports the client, which imports this

            client = client_of_this_process()
        self._client = client
        table, session = client._table, client._session
        with table.lock, table.beginning() as begun:
            session.check_open()  # nobody would ever say what became of it
            state, new = table.state_of(wire_key(key))
            if new:
                begun.append(state)
                session.leave(protocol.client.WANT((state.key,)))
            self._hold(state)
            begun.clear()
        session.wake()

    @classmethod
    def _of(cls, state: KeyState, client: Client) -> Future:
        """A future that holds a key. The caller has the table's lock."""
        self = cls.__new__(cls)
        self._held = False
        self._client = client
        self._hold(state)
        return self

    def _hold(self, state: KeyState) -> None:
        # No call in here, so that no interrupt comes in between.
        self._state = state
        state.holders += 1
        self._held = True

    # -- what it is

    @property
    def key(self) -> Any:  # type: ignore[override]  # a reference is named when it is made
        """The key of the computation: a string, or a tuple as dask uses them."""
        return self._state.key

    @property
    def client(self) -> Client:
        """The client that it belongs to."""
        return self._client

    @property
    def status(self) -> str:
        """``"pending"``, ``"finished"``, ``"error"``, ``"cancelled"`` or ``"lost"`` (the connection is)."""
        return self._state.status if self._held else CANCELLED

    @property
    def object_id(self) -> ObjectID | None:
        """The object that holds the result, once it is finished; None before and when it failed.

        A result that has to be made again is another object.
        """
        place = self._state.place
        return None if place is None else ObjectID(place.object_id)

    @property
    def nbytes(self) -> int | None:
        """The size of the result in its store in bytes, once it is finished."""
        place = self._state.place
        return None if place is None else place.nbytes

    def done(self) -> bool:
        """Whether it is not pending any more: it finished, failed, or was cancelled."""
        return self.status != PENDING

    def cancelled(self) -> bool:
        """Whether it was cancelled or released."""
        return self.status == CANCELLED

    # -- what it gives

    def result(self, timeout: float | str | None = None, *, writable: bool | None = None) -> Any:
        """Wait until it is done and return the result.

        It is the caller's own to change: nobody else sees what is written to it, and each call gives another one.
        Arrays are writable, whether they were when they were made or not. On a host with a store, large arrays and
        frames are read in place all the same, and only what is written is copied.

        Parameters
        ----------
        timeout : float or str, optional
            In seconds, or as text such as ``"500 ms"``. Default: wait as long as it takes.
        writable : bool, optional
            If false, arrays are read-only; on a host with a store they show the memory that everybody there reads.
            Default: as the `Client` was told, which is true.

        Raises
        ------
        TimeoutError
            It was not done in time. It goes on; ask again.
        CancelledError
            It was cancelled or released.
        ObjectLostError, KilledWorker, NoWorkerError, ConnectError
            The cluster could not make it; says why.
        UnreadableError
            The result can't be unpickled here; names its class, and where it lies.
        RemoteError
            What the task raised can't be raised here: it is no `Exception`, or its class isn't there. It is an error
            of the nearest class above it that is, too.
        Exception
            Whatever the task raised, with the traceback of where it did, and with what it was raised from. An attribute
            that can't be sent is replaced by an object that says so.

        Examples
        --------
        >>> client.submit(sum, [1, 2, 3]).result(timeout=10)  # doctest: +SKIP
        6
        """
        self._check_held()
        try:
            return self._client._reader.read(self._state, seconds(timeout), writable)
        except BaseException as error:
            hide_own_frames(error)
            raise

    def exception(self, timeout: float | str | None = None) -> BaseException | None:
        """Wait until it is done and return what the task raised; None if it did not.

        Parameters
        ----------
        timeout : float or str, optional
            As for `result`.

        Raises
        ------
        TimeoutError, CancelledError
            As for `result`.
        """
        self._wait(timeout)
        return self._client._reader.error_of(self._state) if self._state.status == ERROR else None

    def traceback(self, timeout: float | str | None = None) -> TracebackType | None:
        """Wait until it is done and return the traceback of what the task raised; None if it did not.

        Parameters
        ----------
        timeout : float or str, optional
            As for `result`.

        Raises
        ------
        TimeoutError, CancelledError
            As for `result`.

        Examples
        --------
        >>> import traceback
        >>> traceback.print_tb(future.traceback())  # doctest: +SKIP
        """
        self._wait(timeout)
        return trace_of(self._client._reader.error_of(self._state)) if self._state.status == ERROR else None

    def add_done_callback(self, callback: Callable[[Future], object]) -> None:
        """Have ``callback(future)`` called when it is done, however it ends; soon, if it is done already.

        Callbacks run one after the other in a thread of the client's. What they raise is logged.

        Parameters
        ----------
        callback : callable
            Takes this future.
        """
        client = self._client
        if client._resources.inherited:
            client._session.check_open()
        client._table.when_ready(self._state, lambda: client._callbacks.call(callback, self))

    # -- what ends it

    def cancel(self, force: bool = False) -> None:
        """Don't compute it, nor what depends on it; see `Client.cancel`."""
        self._client.cancel([self], force=force)

    def release(self) -> None:
        """Let go of the result now, as deleting the last reference to this future would. Twice is no error."""
        if self._held:
            self._held = False
            self._client._table.drop(self._state)

    def __del__(self) -> None:
        # Any thread, any moment: `KeyTable.drop` is made for it. A future that failed in its constructor holds nothing.
        if getattr(self, "_held", False):
            self._held = False
            self._client._table.drop(self._state)

    def _check_held(self) -> None:
        if not self._held:
            raise CancelledError(f"the future of {self.key!r} was released")

    def _wait(self, timeout: float | str | None) -> None:
        self._check_held()
        self._client._reader.wait([self._state], seconds(timeout))
        if self._state.reason is not None:
            raise error_of(self._state)

    # -- how it travels

    def __reduce__(self) -> tuple[Any, tuple[Any]]:
        self._check_held()
        if arguments.pickled(self):
            if arguments.stands_for_value(self):
                return Reference(self.key).__reduce__()
        else:
            from holdfast.cluster.worker.context import current_worker  # it takes part of the worker along

            if current_worker() is not None:
                # Nobody would hold its key between the end of this task and the reading of what it is pickled into.
                raise TypeError(
                    f"the future of {self.key!r} can't be part of a task's result or of what a task stores: return "
                    "its value, future.result(), instead"
                )
        return _unpickled, (self.key,)

    # A reference is equal to any other one of its key; a future is one holder of its own.
    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __dask_tokenize__(self) -> tuple[str, Any, str]:
        # dask keeps one living expression for each token. One on the futures of another client, or on some that were
        # cancelled, is not to come back in the place of one on these.
        return (type(self).__name__, self.key, self._client._table.token_of(self._state))

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        place = self._state.place
        size = "" if place is None else f", nbytes: {place.nbytes:,}"
        return f"<Future: {self.status}, key: {self.key!r:.200}{size}>"

    def _repr_html_(self) -> str:
        place = self._state.place
        size = None if place is None else format_size(place.nbytes)
        return card("Future", {"status": self.status, "key": self.key, "size": size})


class _Binding(threading.local):
    bind: Callable[[Any], Future] | None = None


#: How futures are unpickled in this thread; `binding` sets it for a while.
bound = _Binding()


class binding:
    """Within it, in this thread, futures are unpickled with ``bind(key)``."""

    def __init__(self, bind: Callable[[Any], Future]) -> None:
        self._bind = bind

    def __enter__(self) -> None:
        self._outer, bound.bind = bound.bind, self._bind

    def __exit__(self, *exc_info: object) -> None:
        bound.bind = self._outer


def _unpickled(key: Any) -> Future:
    bind = bound.bind
    return Future(key) if bind is None else bind(key)


def error_of(state: KeyState, read: Callable[[Place], bytes | None] = lambda place: None) -> BaseException:
    """What to raise for a state that is done and not finished. A new exception each time: raising changes it.

    ``read`` gives an exception that lies in a store, None if it can't be read.
    """
    failure = state.failure
    if failure is not None:
        raised, text = failure
        blob = read(raised) if isinstance(raised, Place) else raised
        if blob is None:
            return RemoteError(
                f"the task {state.key!r:.200} failed, and its exception can't be read any more from the store that had "
                f"it; it was\n\n{text}"
            )
        return load_exception(blob, text)[0]
    reason = state.reason
    if isinstance(reason, CancelledError):
        return CancelledError(f"{state.key!r:.200} has no result: {reason}")
    if reason is not None:
        return type(reason)(*reason.args)
    return ObjectLostError(f"the result of {state.key!r} is gone")


class Callbacks:
    """Runs callbacks of futures, one after the other, in a thread that starts with the first one."""

    def __init__(self) -> None:
        # SimpleQueue's put is safe inside the garbage collector, and under any lock.
        self._queue: queue.SimpleQueue[tuple[Callable[[Any], object], Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def call(self, callback: Callable[[Any], object], argument: Any) -> None:
        self._queue.put((callback, argument))
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closed:
                    self._thread = threading.Thread(target=self._run, name="holdfast-callbacks", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            callback, argument = item
            try:
                callback(argument)
            except Exception:
                logger.exception("a callback of %r failed", argument)
            del item, callback, argument  # the future must not live until the next one comes

    def close(self, timeout: float) -> None:
        """Run what is queued, then end the thread."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)


class DoneAndNotDone(NamedTuple):
    """What `wait` returns: the futures that are done, and those that are not."""

    done: set[Future]
    not_done: set[Future]


ALL_COMPLETED = "ALL_COMPLETED"
FIRST_COMPLETED = "FIRST_COMPLETED"


def wait(
    fs: Future | Iterable[Future], timeout: float | str | None = None, return_when: str = ALL_COMPLETED
) -> DoneAndNotDone:
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
        A named tuple of two sets, ``done`` and ``not_done``. Futures that failed are done.

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
    >>> futures = client.map(str, range(3))  # doctest: +SKIP
    >>> done, not_done = wait(futures, timeout=10)  # doctest: +SKIP
    """
    from holdfast.client.operations.collections import futures_of  # it imports this module

    check_in_one("wait", timeout)
    check_in_one("wait", return_when)
    if return_when not in (ALL_COMPLETED, FIRST_COMPLETED):
        raise ValueError(f"return_when is {ALL_COMPLETED!r} or {FIRST_COMPLETED!r}, not {return_when!r}")
    futures = [fs] if isinstance(fs, Future) else futures_of(_listed(fs))
    if not futures:
        return DoneAndNotDone(set(), set())
    for future in futures:
        future._check_held()
    client = futures[0]._client
    # One client waits for all of them.
    own = [future if future._client is client else client._own(future) for future in futures]
    states = list(dict.fromkeys(future._state for future in own))
    client._reader.wait(states, seconds(timeout), first=return_when == FIRST_COMPLETED)
    done = {given for given, future in zip(futures, own, strict=True) if future.done()}
    for future in own:
        if future._state.reason is not None:
            raise error_of(future._state)
    return DoneAndNotDone(done, set(futures) - done)


def _listed(fs: Any) -> Any:
    from dask.base import is_dask_collection

    if is_dask_collection(fs) or isinstance(fs, dict):
        return fs
    check_no_foreign_future(fs, "what is waited for")
    if not isinstance(fs, Iterable):
        raise TypeError(f"wait takes a future, an iterable of futures or a dask collection, not {fs!r:.100}")
    check_ends((fs,), "what is waited for")
    return list(fs)


__all__ = ["ALL_COMPLETED", "FINISHED", "FIRST_COMPLETED", "DoneAndNotDone", "Future", "wait"]
