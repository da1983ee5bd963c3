"""What has become of tasks: their moves, remembered from the first time on that somebody asks for them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple

from holdfast.cluster.scheduler.tasks.feed import Feed, Move, Subscription
from holdfast.cluster.scheduler.tasks.names import Key
from holdfast.cluster.scheduler.watching.introspection import Steps

#: So many of the last moves are remembered.
MAX_MOVES = 100_000
#: So many are looked at in a step.
STEP_MOVES = 5_000


class Remembered(NamedTuple):
    """A move, and when it was: in seconds since 1970."""

    at: float
    move: Move


class Story:
    """Remembers the moves of tasks.

    Parameters
    ----------
    feed
        Tells of them.
    soon
        ``soon(call)``: makes a call once the scheduler has done what it is doing.
    """

    def __init__(self, feed: Feed, soon: Callable[[Callable[[], None]], object]) -> None:
        self._feed = feed
        self._soon = soon
        self._subscription: Subscription | None = None
        self._moves: deque[Remembered] = deque(maxlen=MAX_MOVES)

    def begin(self) -> None:
        """Remember moves from now on. Twice is no error."""
        if self._subscription is None:
            self._subscription = self._feed.subscribe(self._wake)

    def close(self) -> None:
        """Remember no more."""
        if self._subscription is not None:
            self._feed.unsubscribe(self._subscription)
            self._subscription = None

    def _wake(self) -> None:
        self._soon(self._take)

    def _take(self) -> None:
        if self._subscription is None:
            return
        now = time.time()
        for batch in self._subscription.take().batches:
            self._moves.extend([Remembered(now, change) for change in batch.changes if type(change) is Move])

    def of(self, keys: Iterable[Key]) -> Steps:
        """The moves of the tasks of these keys, the oldest first."""
        self.begin()
        self._take()
        wanted = set(keys)
        moves = list(self._moves)
        for start in range(0, len(moves), STEP_MOVES):
            found = [
                (each.move.key, each.move.before, each.move.after, each.move.where, each.at)
                for each in islice(moves, start, start + STEP_MOVES)
                if each.move.key in wanted
            ]
            yield {"moves": found}
        return {"moves": []}
