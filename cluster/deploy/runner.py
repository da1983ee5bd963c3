"""Running coroutines for an object that is used blocking, or from an event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.deploy.lasting_executor import LastingExecutor

logger = logging.getLogger(__name__)


class Runner:
    """Runs coroutines in one loop: that of its caller, or one in a thread of its own.

    Parameters
    ----------
    asynchronous
        Whether it is the loop that runs when a coroutine is first run.
    name
        Of the thread.
    """

    def __init__(self, asynchronous: bool, name: str) -> None:
        self.asynchronous = asynchronous
        self._name = name
        self._thread: LoopThread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Future[Any]] = set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop. A thread is started for it, if that is due."""
        if self.asynchronous:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            return self._loop
        if self._thread is None:
            self._thread = LoopThread(self._name)
            # Each call that blocks has a thread of its own, also when the interpreter ends.
            self._thread.run(_set_executor())
        return self._thread.loop

    @property
    def is_begun(self) -> bool:
        """Whether there is a loop already."""
        return self._loop is not None or self._thread is not None

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in the loop of the thread, which can't wait for itself."""
        return self._thread is not None and self._thread.is_current

    def run(self, coroutine: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        """What a coroutine gives; in the loop, an awaitable of that. It is cancelled after so many seconds."""
        if self.asynchronous or self.is_current:
            return coroutine if timeout is None else asyncio.wait_for(coroutine, timeout)
        _ = self.loop
        assert self._thread is not None
        return self._thread.run(coroutine, timeout)

    def soon(self, coroutine: Coroutine[Any, Any, Any], what: str) -> None:
        """Have a coroutine run, from any thread. If it fails, that is logged."""

        def begin() -> None:
            self._task(coroutine).add_done_callback(log)

        def log(task: asyncio.Future[Any]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("%s failed", what, exc_info=error)

        loop = self.loop
        try:
            loop.call_soon_threadsafe(begin)
        except RuntimeError:  # it is closed
            coroutine.close()

    def now(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """In the loop: have a coroutine run; an awaitable of its end. Whoever waits for that and is cancelled does not
        cancel the coroutine."""
        return asyncio.shield(self._task(coroutine))

    def _task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def cancel(self) -> None:
        """Cancel what was to run `soon` or `now`, and wait for its end."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def close(self, timeout: float = 10.0) -> None:
        """End the thread, if there is one. Not from the loop itself."""
        if self._thread is not None:
            self._thread.close(timeout)


async def _set_executor() -> None:
    asyncio.get_running_loop().set_default_executor(LastingExecutor())
