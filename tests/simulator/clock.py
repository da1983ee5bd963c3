"""Pretended time: what is to happen, in the order of its time; and random numbers, one stream for each thing."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any


class Agenda:
    """What is to happen.

    Attributes
    ----------
    now
        Seconds since the beginning.
    """

    __slots__ = ("_count", "_heap", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._count = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, time: float, do: Callable[..., None], *arguments: Any) -> None:
        """Have something done at a time. What is due at one time is done in the order in which it was asked for."""
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, do, arguments))

    def later(self, seconds: float, do: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + seconds, do, *arguments)

    def run(self, until: float) -> None:
        """Let time pass until then."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, do, arguments = heapq.heappop(heap)
            do(*arguments)
        self.now = until


def stream(seed: int, name: str) -> random.Random:
    """Random numbers for one thing, which do not depend on what other things happen."""
    return random.Random(f"{seed}/{name}")
