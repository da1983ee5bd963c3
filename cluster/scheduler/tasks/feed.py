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
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from holdfast.cluster.scheduler.tasks.states import State

#: So many changes are kept for a subscriber that takes none, or fewer large ones (`weight_of`).
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


class Submitted(NamedTuple):
    """A client has submitted tasks. A large graph comes in several pieces, each of which stands by itself.

    Attributes
    ----------
    client
        Its id.
    wants
        Of which tasks it wants the results; None: of all.
    tasks
        Their keys, with the keys of those that each reads.
    options
        How they are to be run, as the client said it.
    """

    client: str
    wants: Sequence[Hashable] | None
    tasks: Sequence[tuple[Hashable, Sequence[Hashable]]]
    options: Mapping[str, Any]


class TopicEvent(NamedTuple):
    """An event was logged to topics."""

    topics: Sequence[str]
    record: Any
    nbytes: int


class Restarted(NamedTuple):
    """A client has all workers restarted, and all keys cancelled."""


Change: TypeAlias = Move | Joined | Left | Submitted | TopicEvent | Restarted


def weight_of(change: Change) -> int:
    """How much a change takes, beside others."""
    if isinstance(change, Submitted):
        return 1 + len(change.tasks)
    if isinstance(change, TopicEvent):
        return 1 + change.nbytes // 1_000
    return 1


class Batch(NamedTuple):
    """What has happened while one event was handled, in order, and when that was."""

    at_seconds: float
    changes: tuple[Change, ...]

    @property
    def weight(self) -> int:
        """How much it takes."""
        return sum(map(weight_of, self.changes))


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
        self._kept = 0  # how much these take
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
        self._kept += batch.weight
        while self._kept > self._limit:
            dropped = self._batches.popleft()
            self._kept -= dropped.weight
            self._missed += len(dropped.changes)
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

    def publish(self, now: float, first: Sequence[Change] = ()) -> None:
        """An event has been handled: give what it was, and what has happened, to all that listen."""
        changes = (*first, *self._changes)
        if not changes:
            return
        self._changes.clear()
        batch = Batch(now, changes)
        for subscription in tuple(self._subscriptions):
            subscription.add(batch)
