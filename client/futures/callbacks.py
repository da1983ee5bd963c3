"""What calls the callbacks of futures: a thread of a blocking client, or the loop of an asynchronous one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)


class ThreadCallbacks:
    """Runs callbacks of futures, one after the other, in a thread that starts with the first one."""

    def __init__(self) -> None:
        # SimpleQueue's put is safe inside the garbage collector, and under any lock.
        self._queue: queue.SimpleQueue[tuple[Callable[[Any], object], Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def call(self, callback: Callable[[Any], object], argument: Any) -> None:
        self._queue.put((callback, argument))
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closed:
                    self._thread = threading.Thread(target=self._run, name="holdfast-callbacks", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            callback, argument = item
            try:
                callback(argument)
            except BaseException:  # even one that ends a thread: others have callbacks to be called here
                logger.exception("a callback of %r failed", argument)
            del item, callback, argument  # the future must not live until the next one comes

    def close(self, timeout: float) -> None:
        """Run what is queued, then end the thread."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)


class LoopCallbacks:
    """Runs callbacks of futures on an event loop, each in a turn of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def call(self, callback: Callable[[Any], object], argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._run, callback, argument)

    def _run(self, callback: Callable[[Any], object], argument: Any) -> None:
        try:
            callback(argument)
        except Exception:
            logger.exception("a callback of %r failed", argument)
