"""Doing what the core has decided: its effects become work of the event loop, and of a few threads.

Each call of the core is followed by ``settle``. It takes the effects out of the core, does them, and sends the answers:
one write for each client. Work that takes time (a fetch, a batch for the disk, a move, a check) is a task of the loop;
the core is told when it has ended, and what follows from that is settled in turn. There are no threads but the two that
write and read the files of spilled objects, and one that moves objects, once there are any.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from holdfast.objectstore.core.core import StoreCore
from holdfast.objectstore.core.effects import (
    Answer,
    ContinueSearch,
    Drop,
    Effect,
    GetWait,
    MoveObjects,
    Punch,
    ReadOthers,
    Shift,
    Spill,
    StartFetch,
    Verify,
)
from holdfast.objectstore.core.objects import SpillExtent
from holdfast.objectstore.errors import ObjectNotFoundError, SpillError, StoreClosedError, StoreFullError
from holdfast.objectstore.memory.arena import Arena
from holdfast.objectstore.server.mover import Mover
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.layout import Layout
from holdfast.objectstore.shared.protocol import Status
from holdfast.objectstore.spill.files import SpillLostError, Written
from holdfast.objectstore.spill.threads import SpillThreads

logger = logging.getLogger("holdfast.objectstore")

Fetch = Callable[[ObjectID, list[str]], Awaitable[None]]


class Executor:
    """Carries out the effects of one core. All methods are the loop's to call.

    Parameters
    ----------
    core : StoreCore
        What decides.
    fetch : callable, optional
        ``await fetch(object_id, sources)`` brings in an object, or raises.
    clock : callable
        Seconds, never going back; the core's.
    deliver : callable
        Takes each `Answer`.
    flush : callable
        Sends what has been delivered; false if there was nothing.
    on_use : callable
        Called at the end of each ``settle``.
    """

    def __init__(
        self,
        core: StoreCore,
        *,
        fetch: Fetch | None,
        clock: Callable[[], float],
        deliver: Callable[[Answer], None],
        flush: Callable[[], bool],
        on_use: Callable[[], None],
    ) -> None:
        self._core = core
        self._fetch = fetch
        self._clock = clock
        self._deliver = deliver
        self._flush = flush
        self._on_use = on_use
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arena: Arena | None = None
        self._mover: Mover | None = None
        self._spill_threads: SpillThreads | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadline: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._stopping = False

    # Life

    def start(self, loop: asyncio.AbstractEventLoop, arena: Arena) -> None:
        """The store has an arena from now on, and runs in this loop."""
        self._loop = loop
        self._arena = arena
        self._mover = Mover(arena)

    def spill_with(self, threads: SpillThreads) -> None:
        """Objects may be spilled from now on."""
        self._spill_threads = threads

    def stop(self) -> None:
        """Begins nothing any more."""
        self._stopping = True
        if self._deadline is not None:
            self._deadline.cancel()

    async def cancel_work(self) -> None:
        """Ends the work that is under way; after ``stop``."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Ends the threads. The arena is its owner's to close after this."""
        if self._spill_threads is not None:
            threads, self._spill_threads = self._spill_threads, None
            await threads.close()
        if self._mover is not None:
            mover, self._mover = self._mover, None
            await mover.close()
        self._arena = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Of the store that runs.

        Raises
        ------
        StoreClosedError
            If it doesn't.
        """
        if self._loop is None or self._arena is None:
            raise StoreClosedError("the store isn't running")
        return self._loop

    @property
    def arena(self) -> Arena:
        """Of the store that runs; raises as ``loop`` does."""
        if self._arena is None:
            raise StoreClosedError("the store isn't running")
        return self._arena

    @property
    def spill_threads(self) -> SpillThreads:
        """Of the store that runs and spills; raises as ``loop`` does."""
        if self._spill_threads is None:
            raise StoreClosedError("the store isn't running")
        return self._spill_threads

    @property
    def spill_file_nbytes(self) -> int:
        """The bytes of all files of spilled objects."""
        return 0 if self._spill_threads is None else self._spill_threads.file_nbytes

    # Effects

    def settle(self) -> None:
        """Does all that the core has decided, and what follows from it. To be called after each call of the core."""
        while True:
            effects = self._core.drain()
            # Sending may close a client, and what that releases may be what others wait for.
            if not effects and not self._flush():
                break
            for effect in effects:
                self._do(effect)
        self._set_timer()
        self._on_use()

    def _do(self, effect: Effect) -> None:
        match effect:
            case Answer():
                self._deliver(effect)
            case _ if self._stopping:
                pass  # nothing begins any more
            case StartFetch(object_id, sources):
                self.spawn(self._run_fetch(object_id, sources))
            case ReadOthers(wait):
                self._after_a_look_at_all(wait)
            case Spill(layouts):
                self.spawn(self._run_spill(layouts))
            case MoveObjects(shifts):
                self.spawn(self._run_move(shifts))
            case Punch(offset, nbytes):
                self.arena.punch(offset, nbytes)
            case ContinueSearch():
                self.loop.call_soon(self._on_continue_search)
            case Verify(object_id, extent):
                self.spawn(self._run_verify(object_id, extent))
            case Drop(extent):
                if self._spill_threads is not None:
                    self._spill_threads.drop(extent)

    def _after_a_look_at_all(self, wait: GetWait) -> None:
        # What was sent before the request is in the sockets by now, no more than they hold. The loop runs what was
        # called soon, looks at the sockets, and reads them: the second turn from now comes after that.
        loop = self.loop
        loop.call_soon(loop.call_soon, self._on_others_read, wait)

    def _on_others_read(self, wait: GetWait) -> None:
        self._core.others_read(wait)
        self.settle()

    def _on_continue_search(self) -> None:
        self._core.continue_search()
        self.settle()

    def _set_timer(self) -> None:
        due = None if self._stopping else self._core.next_deadline()
        if self._deadline is not None:
            if due is not None and self._due == due:
                return
            self._deadline.cancel()
            self._deadline = None
        if due is not None and self._loop is not None:
            self._due = due
            self._deadline = self._loop.call_later(max(0.0, due - self._clock()), self._on_deadline)

    def _on_deadline(self) -> None:
        self._deadline = None
        self._core.expire()
        self.settle()

    # Work that takes time

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Has work done by a task that ends with the store."""
        assert self._loop is not None
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.warning("Work of the store failed: %r", task.exception())

    async def _run_fetch(self, object_id: ObjectID, sources: list[str]) -> None:
        assert self._fetch is not None
        error: str | None = None
        status = Status.FETCH_FAILED
        cancelled = False
        try:
            await self._fetch(object_id, sources)
        except asyncio.CancelledError:
            error = f"the fetch of object {object_id} was cancelled"
            cancelled = True
            raise
        except Exception as failure:
            error = f"object {object_id} can't be fetched: {failure or type(failure).__name__}"
            if isinstance(failure, ObjectNotFoundError):
                status = Status.NOT_FOUND
            elif isinstance(failure, StoreFullError):
                status = Status.FULL
        finally:
            self._core.fetch_done(object_id, error, status, try_others=not cancelled)
            self.settle()

    async def _run_spill(self, layouts: list[Layout]) -> None:
        written = Written([None] * len(layouts), "it was cut short")
        try:
            written = await self.spill_threads.write(self.arena.view, layouts)
        finally:
            self._core.spill_done(written.extents, written.error)
            self.settle()

    async def _run_move(self, shifts: list[Shift]) -> None:
        done = False
        try:
            assert self._mover is not None
            done = await self._mover.copy(shifts)
        finally:
            self._core.moved(done=done)
            self.settle()

    async def _run_verify(self, object_id: ObjectID, extent: SpillExtent) -> None:
        error: SpillError | None = SpillError(f"object {object_id} was not read: the store was closed")
        try:
            error = await self.spill_threads.verify(object_id, extent)
        finally:
            text = None if error is None else str(error)
            self._core.verified(extent, text, lost=isinstance(error, SpillLostError))
            self.settle()
