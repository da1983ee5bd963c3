"""What this process has logged lately, kept in memory for those that ask for it from elsewhere.

In a process of its own a scheduler, node agent or worker keeps all lines that are logged there, those of a user's tasks
too (`keep_all`). Where several of them share the process of a user, only what Holdfast's modules log is kept, and each
of them finds its own by the names of the loggers.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import NamedTuple

#: So many lines are kept, or fewer if they have more characters together.
MAX_LINES = 10_000
MAX_CHARACTERS = 4 << 20
#: The rest of a longer line is left out.
MAX_LINE_LENGTH = 8 << 10

LOG_FORMAT = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
_PACKAGE = "holdfast"


class Line(NamedTuple):
    """A line of a log."""

    level: str
    text: str
    logger: str


class _Keeper(logging.Handler):
    """Keeps the last lines that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(LOG_FORMAT))
        self._lines: deque[Line] = deque()
        self._characters = 0
        self.logger: logging.Logger | None = None  # whose lines are kept

    def attach(self, logger: logging.Logger) -> None:
        """From now on what this logger gets is kept."""
        if self.logger is not None:
            self.logger.removeHandler(self)
        self.logger = logger
        logger.addHandler(self)

    def clear(self) -> None:
        """Forget all lines."""
        self._lines.clear()
        self._characters = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        if len(text) > MAX_LINE_LENGTH:
            text = f"{text[: MAX_LINE_LENGTH - 1]}…"
        self._lines.append(Line(record.levelname, text, record.name))
        self._characters += len(text)
        while len(self._lines) > MAX_LINES or self._characters > MAX_CHARACTERS:
            self._characters -= len(self._lines.popleft().text)

    def lines(self) -> list[Line]:
        """What is kept, the newest line first."""
        return list(reversed(self._lines.copy()))


_keeper = _Keeper()


def keep_all() -> None:
    """Keep what is logged in this process from now on: it is a cluster's own."""
    _keeper.clear()  # it may be a fork
    _keeper.attach(logging.getLogger())


def keep_own() -> None:
    """Keep what Holdfast logs in this process, unless all is kept already."""
    if _keeper.logger is None:
        _keeper.attach(logging.getLogger(_PACKAGE))


def newest(n: int | None, package: str) -> list[tuple[str, str]]:
    """The level and the text of the last lines, the newest first.

    Parameters
    ----------
    n
        How many; None: all that are kept.
    package
        Whose lines are meant, in a process in which several log.
    """
    is_own_process = _keeper.logger is logging.getLogger()
    found = [
        (line.level, line.text)
        for line in _keeper.lines()
        if is_own_process or line.logger == package or line.logger.startswith(f"{package}.")
    ]
    return found if n is None else found[:n]
