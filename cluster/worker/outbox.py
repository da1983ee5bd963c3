"""Outcomes on their way from the threads of the tasks to the loop's thread, behind the seals of their results.

Nobody may hear of an object before its seal is on its way to the store, and sending seals can block: the store takes
them when it has the time, and where it lives in this very process, it is the loop's thread that takes them. So seals
are sent by whoever may wait, and the loop only gets outcomes whose seals have left.

That is the task's own thread when it has nothing else to do, and otherwise a thread that does nothing else: the task
that comes next may run for hours, or wait for somebody who waits for this outcome. Waking a thread is a system call, so
there is one only when none is on its way yet, and all that has gathered by then goes together: a worker under load
sends few large messages and an idle one sends each outcome at once, without a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from holdfast.cluster.worker.execution import Outcome


class Outbox:
    """Gathers outcomes in any thread and hands them over in the loop's.

    Parameters
    ----------
    flush:
        ``flush() -> bool``: sends the seals that wait, and may block. False if the store is gone: then nobody is
        interested in the outcomes either. Never called in the loop's thread.
    deliver:
        ``deliver(operation, entries)``, called in the loop's thread.
    name:
        For the thread's name.
    """

    def __init__(self, flush: Callable[[], bool], deliver: Callable[[str, list[Any]], None], name: str) -> None:
        self._flush = flush
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._unflushed: deque[Outcome] = deque()
        self._flushed: deque[Outcome] = deque()
        self._sender_woken = False
        self._loop_woken = False
        self._tokens: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._send, name=name, daemon=True)
        self._sender.start()

    def put(self, outcome: Outcome) -> None:
        """Add an outcome, in any thread; it leaves soon, with its neighbours."""
        self._unflushed.append(outcome)
        if not self._sender_woken:
            self._sender_woken = True
            self._tokens.put(True)

    def put_now(self, outcome: Outcome) -> None:
        """Add an outcome, in a thread that may wait; its seal has left when this returns."""
        self._unflushed.append(outcome)
        self._hand_over()

    def close(self) -> None:
        """Hand over what there is, and end the thread. Blocks; not for the loop's thread."""
        self._tokens.put(False)
        self._sender.join()
        self._hand_over()

    def drain(self) -> None:
        """Deliver what has been handed over; in the loop's thread."""
        # In this order: what is handed over from here on wakes the loop again.
        self._loop_woken = False
        entries: dict[str, list[Any]] = {}
        for operation, entry in _take_all(self._flushed):
            entries.setdefault(operation, []).append(entry)
        for operation, some in entries.items():
            self._deliver(operation, some)

    def _send(self) -> None:
        while self._tokens.get():
            self._sender_woken = False
            self._hand_over()

    def _hand_over(self) -> None:
        outcomes = _take_all(self._unflushed)
        if not outcomes or not self._flush():
            return
        self._flushed.extend(outcomes)
        if not self._loop_woken:
            self._loop_woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is interested any more
                self._loop.call_soon_threadsafe(self.drain)


def _take_all(outcomes: deque[Outcome]) -> list[Outcome]:
    """All that is there; several threads may take at once."""
    taken = []
    with contextlib.suppress(IndexError):
        while True:
            taken.append(outcomes.popleft())
    return taken
