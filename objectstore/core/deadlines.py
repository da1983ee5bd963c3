"""Until when requests wait: for an object, or for room."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator

from holdfast.objectstore.core.create_queue import CreateWait
from holdfast.objectstore.core.effects import GetWait

_LIMIT_MIN = 64


class Deadlines:
    """The deadlines of all waits, the next one first. A wait that is done before its deadline is left out in time.

    Parameters
    ----------
    clock : callable
        Seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, GetWait | CreateWait, float]] = []
        self._order = itertools.count()
        self._limit = _LIMIT_MIN

    def add(self, wait: GetWait | CreateWait, seconds: float) -> None:
        """The request waits for so long."""
        if len(self._heap) >= self._limit:
            self._heap = [entry for entry in self._heap if not entry[2].done]
            heapq.heapify(self._heap)
            self._limit = max(_LIMIT_MIN, 2 * len(self._heap))
        heapq.heappush(self._heap, (self._clock() + seconds, next(self._order), wait, seconds))

    def next(self) -> float | None:
        """When the next wait ends, by the clock."""
        while self._heap and self._heap[0][2].done:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def expired(self) -> Iterator[tuple[GetWait | CreateWait, float]]:
        """The waits whose deadline has come, with the seconds that they have lasted. They don't come again."""
        now = self._clock()
        while self._heap and (self._heap[0][2].done or self._heap[0][0] <= now):
            _, _, wait, seconds = heapq.heappop(self._heap)
            if not wait.done:
                yield wait, seconds
