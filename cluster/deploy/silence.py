"""Loggers that say less while a cluster is open."""

from __future__ import annotations

import logging


class Silence:
    """From now on Holdfast's loggers in this process say nothing below a level.

    Parameters
    ----------
    level
        Of `logging`, or its name. True: ``CRITICAL``.
    """

    def __init__(self, level: bool | int | str) -> None:
        self._logger = logging.getLogger("holdfast")
        self._before = self._logger.level
        self._logger.setLevel(logging.CRITICAL if level is True else level)

    def undo(self) -> None:
        """Have them as they were."""
        self._logger.setLevel(self._before)
