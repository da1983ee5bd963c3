"""Reading results: waiting for them, and trying again where a copy is gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

from holdfast.client.core.key_table import FINISHED, PENDING, KeyState, KeyTable, Place
from holdfast.client.futures.future import Future, binding, bound, error_of
from holdfast.client.packing.foreign import check_no_foreign_future
from holdfast.client.raising import hide_own_frames, raise_as_it_was
from holdfast.client.stores.access import ReadTimeoutError, StoreAccess
from holdfast.cluster.errors import ConnectError, ObjectLostError
from holdfast.objectstore.errors import ObjectNotFoundError, StoreError, UnreadableError

logger = logging.getLogger(__name__)

#: How often a result is looked for anew after none of its copies could be read.
MAX_READS = 8
#: How long a large exception may take to come from where it lies.
ERROR_READ_SECONDS = 60.0


class Reader:
    """Reads the results of one client's futures, in user threads.

    Parameters
    ----------
    table:
        The client's keys.
    stores:
        Its way to the stores.
    check_open:
        Raises when the scheduler can't be asked any more.
    in_loop:
        Whether the calling thread is the one that everything would wait for.
    bind:
        Gives the client's future of a key: for futures inside of what is read.
    writable:
        Whether results are the caller's own to change, where a call doesn't say.
    """

    def __init__(
        self,
        table: KeyTable,
        stores: StoreAccess,
        check_open: Callable[[], None],
        in_loop: Callable[[], bool],
        bind: Callable[[Any], Future],
        *,
        writable: bool,
    ) -> None:
        self._table = table
        self._stores = stores
        self._check_open = check_open
        self._in_loop = in_loop
        self._bind = bind
        self._writable = writable

    def wait(
        self,
        states: Collection[KeyState],
        timeout: float | None = None,
        *,
        first: bool = False,
        on_error: bool = False,
    ) -> None:
        """Wait until the states are not pending any more; see `KeyTable.add_waiter`.

        Raises
        ------
        TimeoutError
            They were not in time; says how many are left.
        """
        if self._in_loop():
            raise RuntimeError("a future can't be waited for in the client's own event loop")
        if not self._table.wait(states, timeout, first=first, on_error=on_error):
            raise _not_done(states, timeout)

    def read(self, state: KeyState, timeout: float | None = None, writable: bool | None = None) -> Any:
        """Wait for a result and read it. Raises what became of it instead.

        Parameters
        ----------
        writable:
            Whether it is the caller's own to change. None: as this reader's results are.

        Raises
        ------
        TimeoutError
            It was not there in time, or could not be read in time. Of a copy that nobody has had the time to look for
            it is not known whether it is missing, and nobody is told so.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        outer = bound.bind
        bound.bind = self._bind  # as `binding` does, which would take longer than to read a small result
        try:
            return self._read(state, deadline, timeout, self._writable if writable is None else writable)
        finally:
            bound.bind = outer

    def _read(self, state: KeyState, deadline: float | None, timeout: float | None, writable: bool) -> Any:
        """Read until ``deadline``, which ``timeout`` seconds led to."""
        for _ in range(MAX_READS):
            if state.status == PENDING and not self._wait_until(state, deadline):
                raise _not_done((state,), timeout)
            place = state.place
            if place is None:
                if state.status == PENDING or state.status == FINISHED:
                    continue  # it changed between two looks
                raise_as_it_was(self.error_of(state))
            try:
                return self._stores.read(place, deadline, writable=writable)
            except UnreadableError as error:
                what = f"the result of {state.key!r:.200}{self._stores.words_for(place)}"
                unreadable = UnreadableError(what, error.type_name, error.__cause__ or error)
                unreadable.__cause__ = error.__cause__
                raise_as_it_was(unreadable)
            except ReadTimeoutError:
                raise TimeoutError(f"the result of {state.key!r} could not be read within {timeout:g} s") from None
            except (ObjectNotFoundError, ConnectError) as error:
                try:
                    self._check_open()
                except ConnectError as ended:
                    raise ConnectError(f"the result of {state.key!r} can't be read: {error}; and {ended}") from None
                self._table.missing(state, place)
        raise ObjectLostError(f"the result of {state.key!r} was looked for {MAX_READS} times and could never be read")

    def _wait_until(self, state: KeyState, deadline: float | None) -> bool:
        if self._in_loop():
            raise RuntimeError("a future can't be waited for in the client's own event loop")
        return self._table.wait((state,), None if deadline is None else deadline - time.monotonic())

    def error_of(self, state: KeyState) -> BaseException:
        """What to raise for a state that is done and not finished; a large exception is read from where it lies."""
        return error_of(state, self._read_error)

    def _read_error(self, place: Place) -> bytes | None:
        try:
            return bytes(self._stores.read(place, time.monotonic() + ERROR_READ_SECONDS))
        except (StoreError, ConnectError, ReadTimeoutError) as failure:
            logger.debug("can't read an exception: %s", failure)
            return None

    def read_many(
        self, states: Collection[KeyState], timeout: float | None, *, skip: bool, writable: bool | None = None
    ) -> dict[int, Any]:
        """Read several results, by the id of their state. Those that failed are left out if ``skip``, else raise.

        A result that can't be unpickled here is none that failed, and raises in any case: left out it would be lost
        without a word.
        """
        writable = self._writable if writable is None else writable
        deadline = None if timeout is None else time.monotonic() + timeout
        self.wait(states, timeout, on_error=not skip)
        if not skip:
            for state in states:
                if state.status != PENDING and state.status != FINISHED:
                    raise_as_it_was(self.error_of(state))
        values = {}
        with binding(self._bind):
            for state in states:
                try:
                    values[id(state)] = self._read(state, deadline, timeout, writable)
                except Exception:
                    if not skip or state.status in (PENDING, FINISHED):
                        raise
        return values


def _not_done(states: Collection[KeyState], timeout: float | None) -> TimeoutError:
    pending = [state for state in states if state.status == PENDING]
    which = repr(pending[0].key) if pending else "they"
    more = f" and {len(pending) - 1:,} more" if len(pending) > 1 else ""
    return TimeoutError(f"not done within {timeout:g} s: {which}{more}")


_SKIPPED = object()
_CONTAINERS = (list, tuple, set, frozenset)


def gather(
    reader: Reader, futures: Any, errors: str, own: Callable[[Future], Future], writable: bool | None = None
) -> Any:
    """Replace the futures in a nested container by their results; see `Client.gather`.

    ``own`` gives for each future one of its key that is the reader's client's, or raises.
    """
    if errors not in ("raise", "skip"):
        raise ValueError(f"errors is 'raise' or 'skip', not {errors!r}")
    if isinstance(futures, Iterator):
        return _gather_each(reader, futures, errors, own, writable)
    found: dict[KeyState, None] = {}
    adopted: dict[KeyState, Future] = {}
    _find(futures, found, adopted, own)
    values = reader.read_many(found, None, skip=errors == "skip", writable=writable)
    for state, future in adopted.items():
        if id(future._state) in values:
            values[id(state)] = values[id(future._state)]
    result = _fill(futures, values)
    return None if result is _SKIPPED else result


def _gather_each(
    reader: Reader, futures: Iterator[Any], errors: str, own: Callable[[Future], Future], writable: bool | None
) -> Iterator[Any]:
    try:
        for item in futures:
            yield gather(reader, item, errors, own, writable)
    except BaseException as error:
        hide_own_frames(error)
        raise


def _find(
    value: Any, found: dict[KeyState, None], adopted: dict[KeyState, Future], own: Callable[[Future], Future]
) -> None:
    if isinstance(value, Future):
        mine = own(value)
        if mine is not value:
            adopted[value._state] = mine
        found[mine._state] = None
    elif isinstance(value, _CONTAINERS):
        for item in value:
            _find(item, found, adopted, own)
    elif isinstance(value, dict):
        for item in value.values():
            _find(item, found, adopted, own)
    else:
        check_no_foreign_future(value, "something that is to be gathered")


def _fill(value: Any, values: dict[int, Any]) -> Any:
    if isinstance(value, Future):
        return values.get(id(value._state), _SKIPPED)
    if isinstance(value, _CONTAINERS):
        items = [item for part in value if (item := _fill(part, values)) is not _SKIPPED]
        if hasattr(value, "_fields") and len(items) == len(value):
            return type(value)(*items)
        return type(value)(items) if not hasattr(value, "_fields") else tuple(items)
    if isinstance(value, dict):
        filled = [(key, _fill(item, values)) for key, item in value.items()]
        kept = [(key, item) for key, item in filled if item is not _SKIPPED]
        return dict(kept) if type(value) is dict else _like(value, kept)
    return value


def _like(value: dict[Any, Any], items: list[tuple[Any, Any]]) -> dict[Any, Any]:
    copy = value.copy()  # a defaultdict or OrderedDict stays what it is
    copy.clear()
    copy.update(items)
    return copy
