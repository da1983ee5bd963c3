"""Reading one result: waiting for it, and trying again where a copy is gone. All of these are operations."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from functools import partial
from types import TracebackType
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.key_state import ERROR, FINISHED, PENDING, KeyState
from holdfast.client.core.waits import Ready
from holdfast.client.drivers.effects import Blocking, Elsewhere, NotAtOnce, Operation
from holdfast.client.futures.binding import bound
from holdfast.client.futures.errors import error_of, not_done
from holdfast.client.raising import raise_as_it_was, raise_in_operation
from holdfast.client.stores.access import ReadTimeoutError, read_inline
from holdfast.client.stores.location import Location
from holdfast.cluster.errors import ConnectError, ObjectLostError
from holdfast.objectstore.errors import ObjectNotFoundError, StoreError, UnreadableError
from holdfast.objectstore.pickling.exceptions import trace_of

logger = logging.getLogger(__name__)

#: How often a result is looked for anew after none of its copies could be read.
MAX_READS = 8
#: How long a large exception may take to come from where it lies.
ERROR_READ_SECONDS = 60.0


def ready(
    core: Core,
    states: Collection[KeyState],
    timeout: float | None = None,
    *,
    first: bool = False,
    on_error: bool = False,
) -> Operation[None]:
    """Wait until the states are not pending any more; see `KeyTable.wait`.

    Raises
    ------
    TimeoutError
        They were not in time; says how many are left.
    """
    if not (yield Ready(core.session, states, timeout, first=first, on_error=on_error)):
        pending = sum(state.status == PENDING for state in states)
        if pending and not (first and pending < len(states)):  # else they have come at the last moment
            raise not_done(states, timeout)


def read(
    core: Core,
    state: KeyState,
    timeout: float | None = None,
    writable: bool | None = None,
    holder: object = None,
) -> Operation[Any]:
    """Wait for a result and read it. Raises what became of it instead.

    Parameters
    ----------
    writable:
        Whether it is the caller's own to change. None: as this client's results are.
    holder:
        The future, which the operation holds to its end: it may be the only holder, as in ``await client.submit(f)``.

    Raises
    ------
    TimeoutError
        It was not there in time, or could not be read in time. If there was no time to look for a copy, it is
        not known whether that is missing, and the scheduler is not told so.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    if writable is None:
        writable = core.writable
    for _ in range(MAX_READS):
        if state.status == PENDING:
            left = None if deadline is None else deadline - time.monotonic()
            if not (yield Ready(core.session, (state,), left)) and state.status == PENDING:
                raise not_done((state,), timeout)
        location = state.location
        if location is None:
            if state.status == PENDING or state.status == FINISHED:
                continue  # it changed between two looks
            raise_in_operation((yield from failure_of(core, state)))
        try:
            if location.inline is not None:
                outer = bound.to
                bound.to = core
                try:
                    return read_inline(location.inline, writable)
                finally:
                    bound.to = outer
            return (yield _Load(core, location, deadline, writable))
        except UnreadableError as error:
            what = f"the result of {state.key!r:.200}{core.stores.words_for(location)}"
            unreadable = UnreadableError(what, error.type_name, error.__cause__ or error)
            unreadable.__cause__ = error.__cause__
            raise_as_it_was(unreadable)
        except ReadTimeoutError:
            raise TimeoutError(f"the result of {state.key!r} could not be read within {timeout:g} s") from None
        except (ObjectNotFoundError, ConnectError) as error:
            try:
                core.session.check_open()
            except ConnectError as ended:
                raise ConnectError(f"the result of {state.key!r} can't be read: {error}; and {ended}") from None
            core.table.missing(state, location)
    raise ObjectLostError(f"the result of {state.key!r} was looked for {MAX_READS} times and could never be read")


class _Load(Blocking):
    """The value of a result is read from where it lies."""

    __slots__ = ("core", "deadline", "location", "writable")

    def __init__(self, core: Core, location: Location, deadline: float | None, writable: bool) -> None:
        self.core = core
        self.location = location
        self.deadline = deadline
        self.writable = writable

    def block(self) -> Any:
        core = self.core
        outer = bound.to
        bound.to = core
        try:
            return core.stores.read(self.location, self.deadline, writable=self.writable)
        finally:
            bound.to = outer

    def at_once(self) -> Any:
        core = self.core
        outer = bound.to
        bound.to = core
        try:
            return core.stores.read_at_once(self.location, writable=self.writable)
        finally:
            bound.to = outer


def failure_of(core: Core, state: KeyState) -> Operation[BaseException]:
    """What to raise for a state that is done and not finished; a large exception is read from where it lies."""
    failure = state.failure
    blob: bytes | None = None
    if failure is not None and isinstance(failure[0], Location):
        location = failure[0]
        try:
            read_it = partial(core.stores.read, location, time.monotonic() + ERROR_READ_SECONDS)
            blob = bytes((yield Elsewhere(read_it, partial(core.stores.read_at_once, location, writable=False))))
        except (StoreError, ConnectError, ReadTimeoutError) as error:
            logger.debug("can't read an exception: %s", error)
    outer = bound.to
    bound.to = core
    try:
        return error_of(state, blob)
    finally:
        bound.to = outer


def read_many(
    core: Core, states: Collection[KeyState], *, skip: bool, writable: bool | None = None
) -> Operation[dict[int, Any]]:
    """Read several results, by the id of their state. Those that failed are left out if ``skip``, else raise.

    A result that can't be unpickled here is none that failed, and raises in any case: left out it would be lost
    without a word.
    """
    if any(state.status == PENDING for state in states):
        yield from ready(core, states, on_error=not skip)
    if not skip:
        for state in states:
            if state.status != PENDING and state.status != FINISHED:
                raise_in_operation((yield from failure_of(core, state)))
    values, others = _read_inline(core, states, core.writable if writable is None else writable)
    for state in others:
        try:
            values[id(state)] = yield from read(core, state, None, writable)
        except Exception:
            if not skip or state.status in (PENDING, FINISHED):
                raise
    return values


def _read_inline(core: Core, states: Collection[KeyState], writable: bool) -> tuple[dict[int, Any], list[KeyState]]:
    """The values of results that came with their announcements, by the id of their state; and the other states."""
    values: dict[int, Any] = {}
    others: list[KeyState] = []
    outer = bound.to
    bound.to = core
    try:
        for state in states:
            location = state.location
            if location is None or location.inline is None:
                others.append(state)
                continue
            try:
                values[id(state)] = read_inline(location.inline, writable)
            except UnreadableError:
                others.append(state)  # reading it says what it is
    finally:
        bound.to = outer
    return values, others


def exception(core: Core, state: KeyState, timeout: float | None, holder: object) -> Operation[BaseException | None]:
    """Wait until it is done; what the task raised, None if it did not."""
    yield from ready(core, (state,), timeout)
    if state.reason is not None:
        raise error_of(state)
    return (yield from failure_of(core, state)) if state.status == ERROR else None


def traceback(core: Core, state: KeyState, timeout: float | None, holder: object) -> Operation[TracebackType | None]:
    """Wait until it is done; the traceback of what the task raised, None if it did not."""
    error = yield from exception(core, state, timeout, holder)
    return None if error is None else trace_of(error)


def type_of(core: Core, state: KeyState) -> Any:
    """The class of a result, as far as it can be told without fetching it; None if not."""
    location = state.location
    if location is None:
        return None
    outer = bound.to
    bound.to = core
    try:
        if location.inline is not None:
            return type(read_inline(location.inline, False))
        return type(core.stores.read_at_once(location, writable=False))
    except (NotAtOnce, StoreError, ConnectError, ReadTimeoutError):
        return None
    finally:
        bound.to = outer
