"""What is done for the pages of an arena while its store runs: headroom is made, and what is too much is given back."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from holdfast.objectstore.memory.allocator import Allocator
from holdfast.objectstore.memory.arena import Arena
from holdfast.objectstore.memory.headroom import Headroom, headroom_limit
from holdfast.objectstore.memory.trim import Limiter, Trimmer


class Upkeep:
    """Keeps the pages of one arena. All methods are the loop's to call.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Whose timers are used.
    arena, allocator : Arena, Allocator
        The pages, and the books that say which are free.
    clock : callable
        Seconds, never going back.
    idle_seconds : float
        How long a store isn't used before its free pages are given back.

    Attributes
    ----------
    headroom : Headroom
        Of free pages, made ahead of demand.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        arena: Arena,
        allocator: Allocator,
        clock: Callable[[], float],
        *,
        idle_seconds: float,
    ) -> None:
        self.headroom = Headroom(loop, arena, allocator, functools.partial(headroom_limit, allocator.capacity))
        self._limiter = Limiter(arena, allocator, clock)
        self._trimmer = Trimmer(loop, arena, allocator, clock, idle_seconds=idle_seconds, on_idle=self.headroom.pause)
        self._cancelled = False

    def touch(self) -> None:
        """The store was used."""
        self._trimmer.touch()
        self.headroom.touch()
        if not self._cancelled:
            self._limiter.touch()

    def cancel(self) -> None:
        """Nothing is made or given back any more."""
        self._cancelled = True
        self._trimmer.cancel()
        self.headroom.cancel()
