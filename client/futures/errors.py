"""What is raised for a result that there is not."""

from __future__ import annotations

from collections.abc import Collection

from holdfast.client.core.key_state import PENDING, KeyState
from holdfast.client.stores.location import Location
from holdfast.cluster.errors import CancelledError, ObjectLostError, RemoteError, error_named
from holdfast.cluster.failures.loading import load_exception


def error_of(state: KeyState, stored: bytes | None = None) -> BaseException:
    """What to raise for a state that is done and not finished. A new exception each time: raising changes it.

    ``stored`` is an exception that lies in a store, None if it can't be read.
    """
    failure = state.failure
    if failure is not None:
        raised, text = failure
        if isinstance(raised, str):
            return error_named(raised, text)
        blob = stored if isinstance(raised, Location) else raised
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


def not_done(states: Collection[KeyState], timeout: float | None) -> TimeoutError:
    """What to raise for states that were waited for so long."""
    pending = [state for state in states if state.status == PENDING]
    which = repr(pending[0].key) if pending else "they"
    more = f" and {len(pending) - 1:,} more" if len(pending) > 1 else ""
    return TimeoutError(f"not done within {timeout:g} s: {which}{more}")
