"""Outcomes on their way from the threads of the tasks to the scheduler.

No process may look for an object in the store before its seal is on its way there. So the seal of a result is sent
before its outcome is. A small result, which rides along with its outcome, has none (`write_behind`).

Sending seals can block: the store takes them when it has the time, and where it lives in this very process, it is the
loop's thread that takes them. So that thread has no part in this. Outcomes leave by the task's own thread when it has
nothing else to do, and otherwise by a thread that does nothing else: the task that comes next may run for hours, or
wait for a task that waits for this outcome. Waking a thread is a system call, so there is one only when none is on
its way yet, and all that has gathered by then goes together: a worker under load sends few large messages and an idle
one sends each outcome at once, without a timer.

What tasks have said as clients leaves before their outcomes. A task may have kept a future that it was given: the
scheduler is to know that before it hears that the task has ended, for which the future's result was kept.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from holdfast.cluster.protocol.message import Message
from holdfast.cluster.protocol.worker import CALLS_DONE, ERRED, FINISHED, FUTURES_INSIDE
from holdfast.cluster.worker.contents import Contents, Inside
from holdfast.cluster.worker.execution import Outcome


class OutcomeSender:
    """Gathers outcomes in any thread, and sends them in the order in which they came.

    Parameters
    ----------
    flush:
        ``flush() -> bool``: sends the seals that wait, and may block. False if the store is gone: then the outcomes
        are not wanted either.
    deliver:
        ``deliver(messages)``, called in any thread, one at a time.
    say_first:
        ``say_first()`` sends what tasks have said as clients.
    contents:
        Knows the futures in what tasks have given, which leave in front of that.
    name:
        For the thread's name.

    Attributes
    ----------
    thread : threading.Thread
        The one that does nothing else.
    """

    def __init__(
        self,
        flush: Callable[[], bool],
        deliver: Callable[[list[tuple[Any, ...]]], None],
        say_first: Callable[[], None],
        contents: Contents,
        name: str,
    ) -> None:
        self._flush = flush
        self._deliver = deliver
        self._say_first = say_first
        self._contents = contents
        self._outcomes: deque[Outcome] = deque()
        self._sending = threading.Lock()
        self._sender_woken = False
        self._worker_ends = False
        self._tokens: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True: it's time to end
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def put(self, outcome: Outcome) -> None:
        """Add an outcome, in any thread; it leaves soon, with its neighbours."""
        self._add(outcome)
        if not self._sender_woken:
            self._sender_woken = True
            self._tokens.put(False)

    def put_now(self, outcome: Outcome) -> None:
        """Add an outcome, in a thread that may wait; it has left when this returns."""
        self._add(outcome)
        self._send()

    def worker_ends(self) -> None:
        """What tasks wait for does not come any more: those that fail from now on run again, on another worker.

        The scheduler sees to that when this worker has gone. So it hears nothing of such a failure.
        """
        self._worker_ends = True

    def _add(self, outcome: Outcome) -> None:
        if not (self._worker_ends and outcome[0] is ERRED):
            self._outcomes.append(outcome)

    def flush(self) -> None:
        """Send all that was added before. Blocks; not for the loop's thread."""
        self._send()

    def close(self) -> None:
        """Send what there is, and end the thread. Blocks; not for the loop's thread."""
        self._tokens.put(True)
        self.thread.join()
        self._send()

    def _run(self) -> None:
        while not self._tokens.get():
            self._sender_woken = False
            self._send()

    def _send(self) -> None:
        outcomes = self._outcomes
        with self._sending:
            entries: dict[Message, list[Any]] = {}
            inside: list[Inside] = []
            all_ride_along = True
            while outcomes:
                message, entry = outcomes.popleft()
                all_ride_along = all_ride_along and _rides_along(message, entry)
                entries.setdefault(message, []).append(entry)
                if self._contents.of_runs and (message is FINISHED or message is ERRED):
                    inside += self._contents.take(entry[1])
            if entries and (all_ride_along or self._flush()):
                self._say_first()
                messages = [message(listed) for message, listed in entries.items()]
                if inside:
                    messages.insert(0, FUTURES_INSIDE([(run_id, keys) for run_id, keys, _ in inside]))
                self._deliver(messages)


def _rides_along(message: Message, entry: tuple[Any, ...]) -> bool:
    """Whether an outcome refers to nothing in the store."""
    if message is FINISHED:
        _, _, _, _, inline, _, _ = entry
        return inline is not None
    if message is ERRED:
        _, _, raised, _, _ = entry
        return type(raised) is not tuple
    if message is CALLS_DONE:
        _, _, _, stored, _, _ = entry
        return stored is None
    return True
