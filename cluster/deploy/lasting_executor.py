"""Threads for calls that block, also when the interpreter ends."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class LastingExecutor(ThreadPoolExecutor):
    """Gives every call a thread of its own, as long as threads can be started.

    A cluster that was not closed is closed when the interpreter ends. Then Python's executors refuse work, and since
    Python 3.12 no thread can be started. So one thread is started ahead, and makes these last calls in turn.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last_calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        name = "holdfast-cluster-last-calls"
        threading.Thread(target=_make, args=(self._last_calls,), name=name, daemon=True).start()
        # The thread ends with this, also if a shutdown is interrupted.
        weakref.finalize(self, self._last_calls.put, None).atexit = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        try:
            threading.Thread(target=run, name="holdfast-cluster-call", daemon=True).start()
        except RuntimeError:  # the interpreter ends, or the system has no thread to spare
            self._last_calls.put(run)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._last_calls.put(None)
        super().shutdown(wait, cancel_futures=cancel_futures)


def _make(calls: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()
