"""The server's hands in the arena: a thread that copies objects to other places there, while the loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from holdfast.objectstore.core.effects import Shift
from holdfast.objectstore.memory.arena import Arena
from holdfast.objectstore.memory.filling import fill
from holdfast.objectstore.system.pages import HUGE_PAGE


class Mover:
    """Copies within an arena. To be used in an event loop.

    Parameters
    ----------
    arena : Arena
        Is closed after ``close`` only.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="holdfast-move")  # has none before the first copy
        self._closing = False

    async def copy(self, shifts: Sequence[Shift]) -> bool:
        """Copies all of these extents to their new places; false if it was cut short."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._copy, shifts)

    def _copy(self, shifts: Sequence[Shift]) -> bool:
        for source, target, nbytes in shifts:
            if self._closing:
                return False
            if nbytes >= HUGE_PAGE:  # what is written to new small pages instead takes three times as long
                fill(self._arena, [(target, nbytes)], lambda: self._arena.nbytes, lambda _: self._closing)
            self._arena.copy(source, target, nbytes)
        return True

    async def close(self) -> None:
        """Begins no other copy, and waits for the one that is under way."""
        self._closing = True
        await asyncio.to_thread(self._threads.shutdown)
