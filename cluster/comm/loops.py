"""Event loops: uvloop's, in the main thread of a process or in a thread beside the user's."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from holdfast.objectstore.system.surroundings import fill_standard_descriptors

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop in this thread until it is done."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


class LoopThread:
    """An event loop in a daemon thread, for code that blocks.

    A forked child has no such thread: there `run` raises, and `call_soon` and `close` do nothing.

    Examples
    --------
    >>> with LoopThread("example") as thread:
    ...     thread.run(asyncio.sleep(0, result=3))
    3
    """

    def __init__(self, name: str) -> None:
        fill_standard_descriptors()
        self.loop = uvloop.new_event_loop()
        self._pid = os.getpid()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    @property
    def ident(self) -> int:
        """The number of the loop's thread, as `threading.get_ident` gives it there."""
        ident = self._thread.ident
        assert ident is not None
        return ident

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in the loop's thread, where waiting for it would never end."""
        return threading.current_thread() is self._thread

    @property
    def _is_inherited(self) -> bool:
        return os.getpid() != self._pid

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine in the loop and wait for its result.

        Raises
        ------
        TimeoutError
            After ``timeout`` seconds; the coroutine is cancelled.
        RuntimeError
            When called from the loop's own thread, or in a forked child.
        """
        if self._is_inherited:
            coroutine.close()
            raise RuntimeError("this event loop runs in the parent process, not in this fork of it")
        if self.is_current:
            coroutine.close()
            raise RuntimeError("a blocking call was made from the event loop's own thread")
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    async def run_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop for a coroutine of another one, which waits for its result.

        If the waiting coroutine is cancelled, the other one is cancelled too, and its end is waited for.
        """
        here = asyncio.get_running_loop()
        ended: asyncio.Future[None] = here.create_future()
        task: asyncio.Future[T] | None = None

        def begin() -> None:
            nonlocal task
            task = asyncio.ensure_future(coroutine)
            task.add_done_callback(tell)

        def tell(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the other loop is closed: nobody waits any more
                here.call_soon_threadsafe(end)

        def end() -> None:
            if not ended.done():
                ended.set_result(None)

        def cancel() -> None:
            assert task is not None
            task.cancel()

        try:
            self.loop.call_soon_threadsafe(begin)
        except RuntimeError:
            coroutine.close()
            raise
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            self.call_soon(cancel)
            await asyncio.wait([ended])
            raise
        assert task is not None
        return task.result()

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call in the loop's thread, soon. May be called from anywhere; after `close` it does nothing."""
        if self._is_inherited:
            return
        try:
            self.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def close(self, timeout: float = 10.0) -> None:
        """Cancel what still runs in the loop, stop it and wait until its thread has ended. Twice is no error, also when
        the first time was interrupted."""
        if self._is_inherited or self.loop.is_closed():
            return
        if not self._is_stopping:
            try:
                self.run(_cancel_others(), timeout)
            except concurrent.futures.CancelledError:
                # By a first time, which was interrupted here and went on in the loop. It has ended by now.
                self.run(_cancel_others(), timeout)
            self._is_stopping = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout)
        self.loop.close()

    def __enter__(self) -> LoopThread:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
