"""Log lines that anybody can cause: so many a minute, and how many more there were."""

from __future__ import annotations

import asyncio
import logging

#: Lines in a period, and how long it lasts.
LINES = 20
PERIOD_SECONDS = 60.0


class LimitedLog:
    """Writes to a logger until a period's lines are used up; says at its end how many it has left out.

    Used in one event loop.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._written = 0
        self._left_out = 0
        self._period: asyncio.TimerHandle | None = None

    def warning(self, text: str, *args: object) -> None:
        if self._period is None:
            self._period = asyncio.get_running_loop().call_later(PERIOD_SECONDS, self.end_period)
        if self._written < LINES:
            self._written += 1
            self._logger.warning(text, *args)
        else:
            self._left_out += 1

    def end_period(self) -> None:
        """Say what was left out, and begin anew."""
        if self._period is not None:
            self._period.cancel()
        if self._left_out:
            self._logger.warning("%d more lines like the last ones were left out", self._left_out)
        self._period = None
        self._written = self._left_out = 0
