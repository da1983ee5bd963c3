"""How long a scheduler that goes on where another one has ended waits for those that it had.

Awaited are the hosts of the journal, and the workers that these keep (`machine/recovery.py`). When all are back, or
time is over, the machine goes on (`events.Recovered`). Until then clients are not heard: what they say waits in their
inboxes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from holdfast.cluster.clock import Alarm, Rounds
from holdfast.cluster.scheduler.machine.machine import SchedulerState

logger = logging.getLogger(__name__)

#: How long they are waited for.
RECOVERY_SECONDS = 10.0
#: So many of those that are not back are named in the log.
MISSING_SHOWN = 20


class ComingBack:
    """Waits for hosts and workers. Used in the thread of the scheduler's loop.

    Parameters
    ----------
    state
        The machine that is being brought back.
    seconds
        How long they are waited for.
    done
        Called once, when all are back or time is over.

    Attributes
    ----------
    is_over : bool
        Whether that was called.
    """

    def __init__(self, state: SchedulerState, seconds: float, done: Callable[[], None]) -> None:
        self.is_over = False
        self._state = state
        self._seconds = seconds
        self._done = done
        self._alarm: Alarm | None = None
        self._looks = False

    def start(self, rounds: Rounds) -> None:
        """Begin to wait."""
        self._loop = asyncio.get_running_loop()
        self._alarm = rounds.call_later(self._seconds, self._time_over)
        self._look()

    def look(self) -> None:
        """One has come back: see soon whether all are."""
        if not self._looks and not self.is_over:
            self._looks = True
            self._loop.call_soon(self._look)

    def close(self) -> None:
        """Wait no more."""
        self.is_over = True
        if self._alarm is not None:
            self._alarm.cancel()

    def _look(self) -> None:
        self._looks = False
        if not self.is_over and not self._missing():
            self._conclude()

    def _missing(self) -> list[str]:
        return [] if self._state.recovery is None else self._state.recovery.awaited

    def _time_over(self) -> None:
        missing = self._missing()
        more = f" and {len(missing) - MISSING_SHOWN:,} more" if len(missing) > MISSING_SHOWN else ""
        names = ", ".join(missing[:MISSING_SHOWN])
        logger.warning("not back after %g s, and not waited for any longer: %s%s", self._seconds, names, more)
        self._conclude()

    def _conclude(self) -> None:
        self.close()
        self._done()
