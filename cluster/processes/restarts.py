"""When a process that has ended is started again: for ever, and never so often that it burns the machine.

=========================== ========================================= ==============================================
how it ended                whose fault that is                       what follows
=========================== ========================================= ==============================================
before it was ready, or     the host's: it has no memory, say, or     a pause, twice as long as the one before, up to
there was no room for it    its files are gone                        `MAX_PAUSE_SECONDS`
after it was ready          of a worker, a task's: what becomes of    none, unless it had only just started: starts
                            the task is the scheduler's to decide     of one place are `SPACING_SECONDS` apart
                            (`KilledWorker`)
                            of anything else, the host's              a pause, as above
since that was asked for    nobody's                                  nothing: the next one starts at once
=========================== ========================================= ==============================================

A process that was ready for `RUN_WELL_SECONDS` has run well: the next pause is a short one again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Literal

FIRST_PAUSE_SECONDS = 0.25
MAX_PAUSE_SECONDS = 10.0
SPACING_SECONDS = 0.25
RUN_WELL_SECONDS = 30.0
#: Of the words for how a process ended, as they are kept and shown.
MAX_REASON_LENGTH = 500


class Restarts:
    """What became of the processes that filled one place, and when the next one may start.

    Parameters
    ----------
    tasks_may_kill : bool
        Whether a process that dies after it was ready is put down to a task that it ran.
    clock : callable
        Seconds, counting up.

    Attributes
    ----------
    state : str
        ``"starting"``, ``"running"``, or ``"down"`` during a pause.
    deaths : int
        How many processes have ended.
    last_death : str or None
        How the last one of them did, in words.
    last_death_seconds : float or None
        How long ago that was.
    """

    def __init__(self, *, tasks_may_kill: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.state: Literal["starting", "running", "down"] = "starting"
        self.deaths = 0
        self.last_death: str | None = None
        self._ended = math.nan
        self._tasks_may_kill = tasks_may_kill
        self._clock = clock
        self._failures = 0  # deaths with a pause after them, since a process has run well
        self._began = -math.inf
        self._ready = math.inf
        self._next_start = -math.inf

    def begin(self) -> None:
        """A process is being started."""
        self.state = "starting"
        self._began = self._clock()
        self._ready = math.inf

    def ready(self) -> None:
        """The process is ready."""
        self.state = "running"
        self._ready = self._clock()

    def ended(self, reason: str, *, asked: bool = False) -> float:
        """The process has ended, or there was none; returns the seconds until the next one may start.

        Parameters
        ----------
        asked
            Whether somebody wanted it to end and another one to take its place: that is no death.
        """
        now = self._clock()
        self.state = "down"
        if asked:
            self._next_start = now
            return 0.0
        self.deaths += 1
        self._ended = now
        self.last_death = reason.partition("\n")[0][:MAX_REASON_LENGTH]
        if now - self._ready >= RUN_WELL_SECONDS:
            self._failures = 0
        pause = 0.0
        if self._ready == math.inf or not self._tasks_may_kill:
            pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 30), MAX_PAUSE_SECONDS)
            self._failures += 1
        pause = max(pause, self._began + SPACING_SECONDS - now)
        self._next_start = now + pause
        return pause

    @property
    def last_death_seconds(self) -> float | None:
        """See the class."""
        return self._clock() - self._ended if self.deaths else None

    def describe(self) -> dict[str, Any]:
        """For people: these attributes, and how many seconds are left to the next start while it is down."""
        left = max(0.0, self._next_start - self._clock()) if self.state == "down" else None
        return {
            "state": self.state,
            "deaths": self.deaths,
            "last_death": self.last_death,
            "last_death_seconds": self.last_death_seconds,
            "next_start_seconds": left,
        }
