"""Time in which a process listened: by it a process judges others.

A process can be stopped for a while, by a signal, with its whole machine by a laptop's lid, or by the move of a virtual
machine. The system's time goes on meanwhile. A process that compares it with the messages of its peers finds that all
of them have been silent for too long. But the process did not listen: the messages lie in the sockets. So silence, and
all else that a peer may be late with, is measured in time that went by while this process went round its event loop.

`ListeningClock` advances with the system's clock, but between two ticks never by more than one step. As long as the
loop goes round, and ticks in time, there is no difference; a stop of any length counts for one step. `Rounds` makes it
tick.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

#: What a stop of any length counts for, at most.
STEP_SECONDS = 2.0


class ListeningClock:
    """Seconds that went by while a loop ticked.

    Parameters
    ----------
    step_seconds
        By how much it advances between two ticks at most. The loop should tick twice as often at least.
    monotonic
        The system's clock: seconds, never going back.

    Examples
    --------
    >>> now = 0.0
    >>> clock = ListeningClock(2.0, lambda: now)
    >>> now = 40.0
    >>> clock.time()
    2.0
    """

    def __init__(self, step_seconds: float = STEP_SECONDS, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.step_seconds = step_seconds
        self._monotonic = monotonic
        self._ticked = monotonic()
        self._time = 0.0  # at the last tick

    def time(self) -> float:
        """The time by this clock, which never goes back."""
        passed = self._monotonic() - self._ticked
        step = self.step_seconds
        return self._time + (passed if passed < step else step)

    def tick(self) -> None:
        """Say that this process goes on."""
        now = self._monotonic()
        self._time += min(now - self._ticked, self.step_seconds)
        self._ticked = now


class Rounds:
    """Ticks a clock as long as the running event loop goes round, and calls back when time has passed by that clock."""

    def __init__(self, clock: ListeningClock) -> None:
        self.clock = clock
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self.clock.tick()
        self._timer = self._loop.call_later(self.clock.step_seconds / 3, self._tick)

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Alarm:
        """Call back after so many seconds by the clock, unless it's cancelled."""
        return Alarm(self._loop, self.clock, seconds, callback, args)

    def cancel(self) -> None:
        """Tick no more."""
        self._timer.cancel()


class Alarm:
    """What is to be done when it is time by a `ListeningClock`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: ListeningClock,
        seconds: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._callback = callback
        self._args = args
        self._due = clock.time() + seconds
        self._timer = loop.call_later(seconds, self._look)

    def _look(self) -> None:
        left = self._due - self._clock.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._callback(*self._args)

    def cancel(self) -> None:
        self._timer.cancel()
