"""What a client knows of one key, and what waits for it. Both are changed by `KeyTable` only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from holdfast.client.stores.location import Location

PENDING = "pending"
FINISHED = "finished"
ERROR = "error"
CANCELLED = "cancelled"
LOST = "lost"
#: No report changes a state that is one of these.
FINAL = (CANCELLED, LOST)


class KeyState:
    """What this client knows of a key. Changed by its `KeyTable` only.

    Attributes
    ----------
    key : the key
    status : str
        ``"pending"``, ``"finished"``, ``"error"``, ``"cancelled"`` or ``"lost"``.
    holders : int
        Futures that hold it.
    location : Location or None
        Set exactly when it is finished; replaced, never changed.
    failure : (bytes or str or Location, str) or None
        Set exactly when it has erred: the exception, its class if it is nothing but the text, or where a large one can
        be read; and a text.
    reason : exception or None
        Set exactly when it is cancelled or lost: what to raise.
    since : int
        The turn in which the scheduler hears of it.
    keeps : tuple
        Futures of what was stored for this call, kept as long as it.
    token : str or None
        Tells this life of the key from all others, for dask's tokens; made when it is first asked for.
    call : bytes or None
        Stands for what was submitted or stored under a key that a user chose, if that is known here.
    expected : bool
        The key was named before anything was submitted under it, as far as is known here.
    """

    # Defaults of the class: millions of states are made, most differ in few of these.
    status = PENDING
    holders = 0
    location: Location | None = None
    failure: tuple[bytes | str | Location, str] | None = None
    reason: Exception | None = None
    waiters: list[Hears] | None = None
    callbacks: list[Callable[[], None]] | None = None
    keeps: tuple[Any, ...] = ()
    token: str | None = None
    call: bytes | None = None
    expected = False

    def __init__(self, key: Any, since: int) -> None:
        self.key = key
        self.since = since

    def __repr__(self) -> str:
        return f"<KeyState {self.key!r}: {self.status}>"


class Hears(Protocol):
    """Is told of states that become ready."""

    def notify(self, state: KeyState) -> bool:
        """A state is ready; whether a thread that reads is to look whether it still waits. Under the table's lock."""


class Waiter:
    """Waits for several states at once.

    Parameters
    ----------
    pending:
        The states that it waits for.
    first:
        Whether one that is ready ends the wait; otherwise all of them.
    on_error:
        Whether one that did not finish ends it.
    wake:
        Called when the wait is over; under the table's lock, so it must not wait.

    Attributes
    ----------
    gate : threading.Lock
        Held until the wait is over.
    """

    __slots__ = ("first", "gate", "on_error", "pending", "wake")

    def __init__(
        self, pending: Iterable[KeyState], first: bool, on_error: bool, wake: Callable[[], None] | None = None
    ) -> None:
        self.pending = set(pending)
        self.wake = wake
        self.first = first
        self.on_error = on_error
        self.gate = threading.Lock()
        self.gate.acquire()

    def notify(self, state: KeyState) -> bool:
        """One of them is ready; whether that ends the wait. To be told twice is no harm."""
        self.pending.discard(state)
        if self.pending and not self.first and not (self.on_error and state.status != FINISHED):
            return False
        if self.gate.locked():
            self.gate.release()
        if self.wake is not None:
            self.wake()
        return True
