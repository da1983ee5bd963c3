"""The feed: what happens in the scheduler, for others to hear.

What happens while an event is handled is one `Batch`. Each subscriber takes its batches when it likes. What it has not
taken is bounded: the oldest batches are dropped, and the subscriber is told how much it has missed. So a subscriber can
neither hold up the scheduler nor fill its memory. The scheduler does not know what its subscribers are.

Without a listener, nothing is recorded: code that has something to tell looks at `Feed.is_heard` first.

A subscriber that has to know how things stand reads the state of the scheduler when it subscribes, and again when it
has missed something.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeAlias

from holdfast.cluster.scheduler.tasks.states import State

#: So many changes are kept for a subscriber that takes none.
SUBSCRIBER_LIMIT = 100_000


class Move(NamedTuple):
    """A task has moved.

    Attributes
    ----------
    key
        Names the task. There may be several tasks with one key (generations), of which one is what the key means now.
    before, after
        Its states; ``before`` is None when it has come to be.
    where
        The address of the worker that runs it now, or of the host that has its result; empty if there is neither.
    group
        Names the tasks that do the same as this one.
    """

    key: Hashable
    before: State | None
    after: State
    where: str
    group: Hashable


class Joined(NamedTuple):
    """A host, a worker or a client has come."""

    kind: str
    address: str  # of a client its id
    name: str


class Left(NamedTuple):
    """A host, a worker or a client is gone."""

    kind: str
    address: str
    reason: str


Change: TypeAlias = Move | Joined | Left


class Batch(NamedTuple):
    """What has happened while one event was handled, in order, and when that was."""

    at_seconds: float
    changes: tuple[Change, ...]


class Taken(NamedTuple):
    """What a subscriber has not heard yet: how many changes it has missed, and what came after these."""

    missed: int
    batches: list[Batch]


class Subscription:
    """One that listens. `Feed.subscribe` makes it."""

    __slots__ = ("_batches", "_kept", "_limit", "_missed", "_wake")

    def __init__(self, limit: int, wake: Callable[[], None] | None) -> None:
        self._limit = limit
        self._wake = wake
        self._batches: deque[Batch] = deque()
        self._kept = 0  # changes in these
        self._missed = 0

    def take(self) -> Taken:
        """Take what has come since the last time."""
        taken = Taken(self._missed, list(self._batches))
        self._batches.clear()
        self._kept = self._missed = 0
        return taken

    def add(self, batch: Batch) -> None:
        """Keep a batch for the subscriber, and drop the oldest if these are too many."""
        was_empty = not self._batches and not self._missed
        self._batches.append(batch)
        self._kept += len(batch.changes)
        while self._kept > self._limit:
            dropped = len(self._batches.popleft().changes)
            self._kept -= dropped
            self._missed += dropped
        if was_empty and self._wake is not None:
            self._wake()


class Feed:
    """Collects what happens, and gives it to all that listen.

    Attributes
    ----------
    is_heard
        Whether there is a listener.
    """

    __slots__ = ("_changes", "_subscriptions", "is_heard")

    def __init__(self) -> None:
        self.is_heard = False
        self._changes: list[Change] = []
        self._subscriptions: list[Subscription] = []

    def subscribe(self, wake: Callable[[], None] | None = None, *, limit: int = SUBSCRIBER_LIMIT) -> Subscription:
        """Listen from now on.

        Parameters
        ----------
        wake
            Called when there is something to take after there was nothing. It has to return at once, and must not
            change the scheduler's state.
        limit
            So many changes are kept at most.
        """
        subscription = Subscription(limit, wake)
        self._subscriptions.append(subscription)
        self.is_heard = True
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Listen no longer. What was not taken is dropped."""
        self._subscriptions.remove(subscription)
        if not self._subscriptions:
            self.is_heard = False
            self._changes.clear()

    def tell(self, change: Change) -> None:
        """Something has happened; to be called only while there is a listener."""
        self._changes.append(change)

    def publish(self, now: float) -> None:
        """An event has been handled: give what has happened to all that listen."""
        if not self._changes:
            return
        batch = Batch(now, tuple(self._changes))
        self._changes.clear()
        for subscription in tuple(self._subscriptions):
            subscription.add(batch)
