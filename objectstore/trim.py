"""Giving memory back: the pages of free extents, once nobody has used the store for a while.

A store in use keeps its pages, because writing to a page again is ten times faster than writing to a new
one. An idle store has no such excuse. Each tick punches at most 64 MiB, a few milliseconds of the loop's
time, and stops at the first sign of use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from holdfast.objectstore.allocator import PAGE, Allocator
from holdfast.objectstore.arena import Arena

_TICK_SECONDS = 1.0
_TICK_NBYTES = 64 << 20
_EXTENT_NBYTES_MIN = 1 << 20


class Trimmer:
    """Watches one store's idleness.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Whose timer is used.
    arena, allocator : Arena, Allocator
        The pages, and the books that say which are free.
    clock : callable
        Seconds, never going back.
    idle_seconds : float
        How long nothing must have happened.
    on_idle : callable
        Called before the first page is given back: who makes pages has to stop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        arena: Arena,
        allocator: Allocator,
        clock: Callable[[], float],
        *,
        idle_seconds: float,
        on_idle: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._arena = arena
        self._allocator = allocator
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._on_idle = on_idle
        self._used_at = clock()
        self._left: list[tuple[int, int]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancelled = False

    def touch(self) -> None:
        """The store is in use."""
        self._used_at = self._clock()
        self._left = None
        if self._timer is None and not self._cancelled:
            self._timer = self._loop.call_later(self._idle_seconds, self._tick)

    def cancel(self) -> None:
        """No more ticks."""
        self._cancelled = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        idle = self._clock() - self._used_at
        if idle < self._idle_seconds:
            self._timer = self._loop.call_later(self._idle_seconds - idle, self._tick)
            return
        if self._left is None:
            self._on_idle()
            free = map(_whole_pages, self._allocator.free_extents())
            self._left = [extent for extent in free if extent[1] >= _EXTENT_NBYTES_MIN]
        budget = _TICK_NBYTES
        while self._left and budget:
            offset, nbytes = self._left.pop()
            piece = min(nbytes, budget)  # of whole pages, as all of these are
            self._arena.punch(offset, piece)
            budget -= piece
            if piece < nbytes:
                self._left.append((offset + piece, nbytes - piece))
        if self._left:
            self._timer = self._loop.call_later(_TICK_SECONDS, self._tick)


def _whole_pages(extent: tuple[int, int]) -> tuple[int, int]:
    """The pages that lie in an extent as a whole."""
    offset, nbytes = extent
    start = -(-offset // PAGE) * PAGE
    return start, max(0, (offset + nbytes) // PAGE * PAGE - start)
