"""Log lines that any program can cause: so many of a kind a minute, and how many more there were."""

from __future__ import annotations

import asyncio
import collections
import logging

#: Lines of a kind in a period, and how long it lasts.
LINES = 20
PERIOD_SECONDS = 60.0


class LimitedLog:
    """Writes to a logger until a period's lines are used up; says at its end how many it has left out.

    Lines with the same text, whatever stands in the places of its arguments, are of one kind: many of one kind don't
    keep those of another from being read. Used in one event loop.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._counts: collections.Counter[str] = collections.Counter()
        self._period: asyncio.TimerHandle | None = None

    def warning(self, text: str, *args: object) -> None:
        if self._period is None:
            self._period = asyncio.get_running_loop().call_later(PERIOD_SECONDS, self.end_period)
        self._counts[text] += 1
        if self._counts[text] <= LINES:
            self._logger.warning(text, *args)

    def end_period(self) -> None:
        """Say what was left out, and begin anew."""
        if self._period is not None:
            self._period.cancel()
            self._period = None
        for text, count in self._counts.items():
            if count > LINES:
                self._logger.warning("%d more lines were left out of the kind '%s'", count - LINES, text)
        self._counts.clear()
