"""`Future`: a result that is being made, or lies somewhere in the cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Self

from holdfast.client.core.cancelling import cancel_keys, manner_of
from holdfast.client.core.core import Core
from holdfast.client.core.key_state import CANCELLED, PENDING, KeyState
from holdfast.client.core.retrying import retry_keys
from holdfast.client.defaults import current
from holdfast.client.drivers.kinds import takes_its_kind
from holdfast.client.futures.binding import bound
from holdfast.client.futures.pickled import Lease, claim, core_for, leased
from holdfast.client.futures.reading import exception, read, traceback, type_of
from holdfast.client.packing.dask_internals import TaskRef, is_tokenizing
from holdfast.client.packing.keys import wire_key
from holdfast.client.raising import hide_own_frames
from holdfast.cluster import protocol
from holdfast.cluster.collecting import pickled, stands_for_value
from holdfast.cluster.durations import seconds
from holdfast.cluster.errors import CancelledError
from holdfast.cluster.notebook import card
from holdfast.cluster.protocol.payloads import Reference
from holdfast.objectstore import ObjectID
from holdfast.objectstore.sizes import format_size


def _expect(key: Any) -> tuple[Any, ...]:
    return protocol.client.EXPECT((key,))


def _want(key: Any) -> tuple[Any, ...]:
    return protocol.client.WANT((key,))


class Future(TaskRef):
    """A result that is being made, or lies somewhere in the cluster.

    It keeps the result there: when the last future of a key is gone, in every client, the result is freed. Clients make
    futures (`Client.submit`, `Client.scatter`, ...); two futures of the same key stand for the same result. A future
    among the arguments of a call stands for its value.

    Parameters
    ----------
    key : str or tuple
        The key of a computation. If nobody has submitted it yet, the future is pending until somebody does.
    client : Client, optional
        Default: the current client.
    inform : bool
        Taken for compatibility: the scheduler always hears of a new future.
    state
        Taken for compatibility: what is known of the key is always that of the client.

    Raises
    ------
    ValueError
        ``inform`` is false, or there is a ``state``: a future without the scheduler's word would never be done.
    TypeError
        The key is none.
    ConnectError
        The connection with the scheduler is gone.

    Examples
    --------
    >>> future = client.submit(pow, 2, 10)
    >>> future.result()
    1024

    A future by its key, before the computation is submitted:

    >>> total = Future("total", client)
    >>> other = client.submit(sum, [1, 2], key="total")
    >>> total.result()
    3
    """

    __slots__ = ("__weakref__", "_core", "_held", "_state")

    #: dask recognises futures inside of graphs by it, and those that it is given as a whole by their being a `TaskRef`.
    __dask_future__ = True
    _is_holdfast_future = True

    _core: Core
    _held: bool
    _state: KeyState

    def __init__(self, key: Any, client: Any = None, inform: bool = True, state: Any = None) -> None:
        self._held = False
        if not inform or state is not None:
            raise ValueError("a future is one that the scheduler hears of, and has the state that its client knows")
        self._core = current() if client is None else client._core
        self._want(key, _expect)

    @classmethod
    def _wanted(cls, key: Any, core: Core) -> Self:
        """A future of a key that the cluster knows."""
        self = cls.__new__(cls)
        self._held = False
        self._core = core
        self._want(key, _want)
        return self

    @classmethod
    def _claimed(cls, key: Any, lease: Lease, core: Core) -> Self:
        """A future of a key that was pickled by hand."""
        self = cls.__new__(cls)
        self._held = False
        self._core = core
        self._want(key, partial(claim, lease=lease))
        return self

    @classmethod
    def _of(cls, state: KeyState, core: Core) -> Self:
        """A future that holds a key. The caller has the table's lock."""
        self = cls.__new__(cls)
        self._held = False
        self._core = core
        self._hold(state)
        return self

    def _want(self, key: Any, message: Callable[[Any], tuple[Any, ...]]) -> None:
        table, session = self._core.table, self._core.session
        with table.lock, table.beginning() as begun:
            session.check_open()  # no answer would ever say what became of it
            state, new = table.state_of(wire_key(key))
            if new:
                begun.append(state)
                session.enqueue(message(state.key))
                state.expected = message is _expect
            self._hold(state)
            begun.commit()
        session.flush_soon()

    def _hold(self, state: KeyState) -> None:
        # No call in here, so that no interrupt comes in between.
        self._state = state
        state.holders += 1
        self._held = True

    # -- what it is

    @property
    def key(self) -> Any:  # type: ignore[override]  # a reference is named when it is made
        """The key of the computation: a string, or a tuple as dask uses them.

        Examples
        --------
        >>> client.submit(sum, [1, 2], key="total").key
        'total'
        """
        return self._state.key

    @property
    def client(self) -> Any:
        """The client that it belongs to.

        Examples
        --------
        >>> client.submit(sum, [1, 2]).client is client
        True
        """
        return self._core.client

    @property
    def executor(self) -> Any:
        """The client that it belongs to, under the name that futures of other libraries have for it.

        Examples
        --------
        >>> client.submit(sum, [1, 2]).executor is client
        True
        """
        return self._core.client

    @property
    def type(self) -> Any:
        """The class of the result, once it is finished; None before, and when it failed.

        It is told without fetching the result: it is None as well for a large result that lies on other hosts only.

        Examples
        --------
        >>> future = client.submit(sum, [1, 2])
        >>> future.result(), future.type
        (3, <class 'int'>)
        """
        return type_of(self._core, self._state)

    @property
    def status(self) -> str:
        """``"pending"``, ``"finished"``, ``"error"``, ``"cancelled"`` or ``"lost"`` (the connection is).

        Examples
        --------
        >>> future = client.submit(sum, [1, 2])
        >>> future.result(), future.status
        (3, 'finished')
        """
        return self._state.status if self._held else CANCELLED

    @property
    def object_id(self) -> ObjectID | None:
        """The object that holds the result, once it is finished; None before and when it failed.

        A result that has to be made again is another object.

        Examples
        --------
        >>> import numpy as np
        >>> client.scatter(np.zeros(1_000_000)).object_id
        ObjectID(...)
        """
        location = self._state.location
        return None if location is None else ObjectID(location.object_id)

    @property
    def nbytes(self) -> int | None:
        """The size of the result in its store in bytes, once it is finished.

        Examples
        --------
        >>> import numpy as np
        >>> client.scatter(np.zeros(1_000_000)).nbytes >= 8_000_000
        True
        """
        location = self._state.location
        return None if location is None else location.nbytes

    def done(self) -> bool:
        """Whether it is not pending any more: it finished, failed, or was cancelled.

        Examples
        --------
        >>> future = client.submit(sum, [1, 2])
        >>> future.result(), future.done()
        (3, True)
        """
        return self.status != PENDING

    def cancelled(self) -> bool:
        """Whether it was cancelled or released.

        Examples
        --------
        >>> client.submit(sum, [1, 2]).cancelled()
        False
        """
        return self.status == CANCELLED

    # -- what it gives

    def result(self, timeout: float | str | None = None, *, writable: bool | None = None) -> Any:
        """Wait until it is done and return the result.

        It is the caller's own to change: no other reader sees what is written to it, and each call gives another one.
        Arrays are writable, whether they were when they were made or not. On a host with a store, large arrays and
        frames are read in place all the same, and only what is written is copied.

        Parameters
        ----------
        timeout : float or str, optional
            In seconds, or as text such as ``"500 ms"``. Default: wait as long as it takes.
        writable : bool, optional
            If false, arrays are read-only; on a host with a store they show the memory that all processes there read.
            Default: as the `Client` was told, which is true.

        Returns
        -------
        The result. In an asynchronous client: await it.

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
        >>> client.submit(sum, [1, 2, 3]).result(timeout=10)
        6
        """
        self._check_held()
        core = self._core
        try:
            return core.driver.run(read(core, self._state, seconds(timeout), writable, self))
        except BaseException as error:
            hide_own_frames(error)
            raise

    @takes_its_kind
    def exception(self, timeout: float | str | None = None) -> Any:
        """Wait until it is done and return what the task raised; None if it did not.

        In an asynchronous client: await it.

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
        >>> client.submit(int, "seven").exception()
        ValueError("invalid literal for int() with base 10: 'seven'")
        """
        self._check_held()
        return self._core.driver.run(exception(self._core, self._state, seconds(timeout), self))

    @takes_its_kind
    def traceback(self, timeout: float | str | None = None) -> Any:
        """Wait until it is done and return the traceback of what the task raised; None if it did not.

        In an asynchronous client: await it.

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
        >>> future = client.submit(int, "seven")
        >>> traceback.format_tb(future.traceback())
        [...]
        """
        self._check_held()
        return self._core.driver.run(traceback(self._core, self._state, seconds(timeout), self))

    def __await__(self) -> Generator[Any, None, Any]:
        """Of an asynchronous client: ``await future`` is ``await future.result()``."""
        if not self._core.driver.gives_awaitables:
            raise TypeError(
                f"the future of {self.key!r:.200} is one of a blocking client, which can't be awaited: call its "
                "result(), or open a client with Client(..., asynchronous=True)"
            )
        awaited: Generator[Any, None, Any] = self.result().__await__()
        return awaited

    def add_done_callback(self, fn: Callable[[Future], object]) -> None:
        """Have ``fn(future)`` called when it is done, however it ends; soon, if it is done already.

        Callbacks run one after the other, in a thread of a blocking client and on the loop of an asynchronous one. What
        they raise is logged.

        Parameters
        ----------
        fn : callable
            Takes this future.

        Examples
        --------
        >>> import threading
        >>> called = threading.Event()
        >>> client.submit(sum, [1, 2]).add_done_callback(lambda future: called.set())
        >>> called.wait(10)
        True
        """
        core = self._core
        if core.resources is not None and core.resources.inherited:
            core.session.check_open()
        core.table.when_ready(self._state, lambda: core.callbacks.call(fn, self))

    # -- what ends it

    @takes_its_kind
    def cancel(
        self, force: bool = False, reason: str | None = None, msg: str | None = None, *, kill: bool = False
    ) -> Any:
        """Don't compute it, nor what depends on it; see `Client.cancel`. In an asynchronous client: await it.

        Parameters
        ----------
        force, reason, msg, kill
            As for `Client.cancel`.

        Examples
        --------
        >>> import time
        >>> future = client.submit(time.sleep, 1)
        >>> future.cancel()
        >>> future.status
        'cancelled'
        """
        self._check_held()
        return self._core.driver.run(cancel_keys(self._core, [self._state], manner_of(force, kill, reason, msg)))

    @takes_its_kind
    def retry(self) -> Any:
        """Compute it again, if it has failed, and what it has failed for; see `Client.retry`.
        In an asynchronous client: await it.

        Examples
        --------
        >>> future = client.submit(int, "seven")
        >>> future.exception()
        ValueError("invalid literal for int() with base 10: 'seven'")
        >>> future.retry()
        >>> future.exception()
        ValueError("invalid literal for int() with base 10: 'seven'")
        """
        self._check_held()
        return self._core.driver.run(retry_keys(self._core, [self._state]))

    def release(self) -> None:
        """Let go of the result now, as deleting the last reference to this future would. Twice is no error.

        Examples
        --------
        >>> future = client.submit(sum, [1, 2])
        >>> future.release()
        >>> future.status
        'cancelled'
        """
        if self._held:
            self._held = False
            self._core.table.release(self._state)

    def __del__(self) -> None:
        # Any thread, any moment: `KeyTable.drop` is made for it. A future that failed in its constructor holds nothing.
        if getattr(self, "_held", False):
            self._held = False
            self._core.table.drop(self._state)

    def _check_held(self) -> None:
        if not self._held:
            raise CancelledError(f"the future of {self.key!r} was released")

    # -- how it travels

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        self._check_held()
        if pickled(self):
            return Reference(self.key).__reduce__() if stands_for_value(self) else (_unpickled, (self.key,))
        if is_tokenizing():
            return _unpickled, (self.key,)
        return _unpickled_by_hand, (self.key, leased(self._core, self._state))

    def __copy__(self) -> Self:
        self._check_held()
        with self._core.table.lock:
            return self._of(self._state, self._core)

    def __deepcopy__(self, memo: Any) -> Self:
        return self.__copy__()

    # A reference is equal to any other one of its key; a future is one holder of its own.
    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __dask_tokenize__(self) -> tuple[str, Any, str]:
        # dask keeps one living expression for each token. One on the futures of another client, or on some that were
        # cancelled, is not to come back in the place of one on these.
        return (type(self).__name__, self.key, self._core.table.token_of(self._state))

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        location = self._state.location
        size = "" if location is None else f", nbytes: {location.nbytes:,}"
        return f"<Future: {self.status}, key: {self.key!r:.200}{size}>"

    def _repr_html_(self) -> str:
        location = self._state.location
        size = None if location is None else format_size(location.nbytes)
        return card("Future", {"status": self.status, "key": self.key, "size": size})


def _unpickled(key: Any) -> Any:
    to = bound.to
    if to is None:
        to = current()  # in a task, its own
    return Future._wanted(key, to) if isinstance(to, Core) else to(key)


def _unpickled_by_hand(key: Any, lease: Lease) -> Future:
    return Future._claimed(key, lease, core_for(key, lease))
