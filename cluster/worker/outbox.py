"""Outcomes on their way from the threads of the tasks to the loop's thread.

A wake-up of the loop is a system call, so there is one only when none is on its way yet; and everything that has
gathered by the time it is handled leaves as one message an operation. So a worker under load sends few large
messages and an idle one sends each outcome at once, without a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

OPERATIONS = ("finished", "erred", "missing")


class Outbox:
    """Gathers outcomes in any thread and hands them over in the loop's.

    Parameters
    ----------
    deliver:
        ``deliver(operation, entries)``, called in the loop's thread.
    before:
        Called in the loop's thread before entries are delivered, when there are any.
    """

    def __init__(self, deliver: Callable[[str, list[Any]], None], before: Callable[[], None]) -> None:
        self._deliver = deliver
        self._before = before
        self._loop = asyncio.get_running_loop()
        self._entries: dict[str, list[Any]] = {operation: [] for operation in OPERATIONS}
        self._woken = False

    def put(self, operation: str, entry: Any) -> None:
        """Add an outcome, in any thread."""
        self._entries[operation].append(entry)
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is interested any more
                self._loop.call_soon_threadsafe(self.drain)

    def drain(self) -> None:
        """Deliver what there is."""
        # In this order: what is put from here on wakes the loop again, what was put before is taken below.
        self._woken = False
        taken = []
        for operation, entries in self._entries.items():
            count = len(entries)
            if count:
                taken.append((operation, entries[:count]))
                del entries[:count]
        if taken:
            self._before()
            for operation, some in taken:
                self._deliver(operation, some)
