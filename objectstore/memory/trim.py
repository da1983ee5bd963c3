"""Giving memory back: the pages of free extents, once no client has used the store for a while, and what is too much.

A store in use keeps its pages, because writing to a page again is ten times faster than writing to a new
one. An idle store has no such excuse. Each tick punches at most 64 MiB, a few milliseconds of the loop's
time, and stops at the first sign of use.

While something is allocated apart (``allocator.py``) the arena has more addresses than it may take memory. Then pages
of free extents are given back as soon as all of it takes up more than the capacity.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from holdfast.objectstore.memory.allocator import Allocator
from holdfast.objectstore.memory.arena import Arena
from holdfast.objectstore.memory.free_extents import PAGE

_TICK_SECONDS = 1.0
_TICK_NBYTES = 64 << 20
_EXTENT_NBYTES_MIN = 1 << 20


_EXCESS_SHARE = 64  # such a part of the capacity may be too much, before pages are looked for
_LOOK_SECONDS = 1.0


class Limiter:
    """Keeps an arena within its capacity.

    Parameters
    ----------
    arena, allocator : Arena, Allocator
        The memory, and the books that say which of it is free.
    clock : callable
        Seconds, never going back.
    """

    def __init__(self, arena: Arena, allocator: Allocator, clock: Callable[[], float]) -> None:
        self._arena = arena
        self._allocator = allocator
        self._clock = clock
        self._not_before = 0.0

    def touch(self) -> None:
        """The store was used."""
        if not self._allocator.apart_nbytes:
            return
        excess = self._arena.resident_nbytes() - self._allocator.capacity
        if excess > self._allocator.capacity // _EXCESS_SHARE and self._clock() >= self._not_before:
            self._give_back(min(excess, _TICK_NBYTES))

    def _give_back(self, nbytes: int) -> None:
        before = self._arena.resident_nbytes()
        for extent in sorted(self._allocator.free_extents(), key=lambda extent: -extent[1]):
            offset, size = _whole_pages(extent)
            while size > 0:
                piece = min(size, max(PAGE, nbytes // PAGE * PAGE))
                self._arena.punch(offset, piece)
                offset, size = offset + piece, size - piece
                if before - self._arena.resident_nbytes() >= nbytes:
                    return
        self._not_before = self._clock() + _LOOK_SECONDS  # there is no more to give back, for now


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
        Called before the first page is given back: whatever makes pages has to stop.
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
