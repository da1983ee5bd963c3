"""Lines of the log of this process as events of a topic, for clients that want them in logs of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from holdfast.cluster.worker.context import current_key

#: The rest of a longer text is left out.
MAX_TEXT_LENGTH = 8 << 10
#: Marks a record that has come from another process: it isn't sent on.
FORWARDED = "holdfast_forwarded"


class _Forwarder(logging.Handler):
    """Sends each record on."""

    def __init__(self, level: int, send: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(level)
        self._send = send
        self._sending = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        # To send may log something itself.
        if getattr(self._sending, "now", False) or getattr(record, FORWARDED, False):
            return
        self._sending.now = True
        try:
            self._send(described(record))
        except Exception:
            self.handleError(record)
        finally:
            self._sending.now = False


def described(record: logging.LogRecord) -> dict[str, Any]:
    """A record as plain data: `logging.makeLogRecord` makes it a record again."""
    text = record.getMessage()
    exception = record.exc_text
    if exception is None and record.exc_info:
        exception = logging.Formatter().formatException(record.exc_info)
    return {
        "name": record.name,
        "msg": text[:MAX_TEXT_LENGTH],
        "levelno": record.levelno,
        "levelname": record.levelname,
        "pathname": record.pathname,
        "filename": record.filename,
        "module": record.module,
        "lineno": record.lineno,
        "funcName": record.funcName,
        "created": record.created,
        "process": record.process,
        "processName": record.processName,
        "threadName": record.threadName,
        "exc_text": None if exception is None else exception[:MAX_TEXT_LENGTH],
        "task": current_key(),
    }


class LogForwarding:
    """Forwards loggers of this process.

    Parameters
    ----------
    log_event
        ``log_event(topic, message)``
    """

    def __init__(self, log_event: Callable[[str, Any], None]) -> None:
        self._log_event = log_event
        self._lock = threading.Lock()
        self._forwarders: dict[str, tuple[logging.Logger, _Forwarder, int]] = {}  # with the level there was, by topic

    def forward(self, topic: str, logger: str | None, level: int, on: bool) -> None:
        """Forward a logger to a topic from now on, or no longer. Twice is no error."""
        with self._lock:
            self._stop(topic)
            if not on:
                return
            source = logging.getLogger(logger)
            forwarder = _Forwarder(level, lambda record: self._log_event(topic, record))
            self._forwarders[topic] = source, forwarder, source.level
            source.addHandler(forwarder)
            if source.getEffectiveLevel() > level:
                source.setLevel(level)  # else there would be no such records

    def _stop(self, topic: str) -> None:
        found = self._forwarders.pop(topic, None)
        if found is not None:
            logger, forwarder, level = found
            logger.removeHandler(forwarder)
            if not any(other is logger for other, _, _ in self._forwarders.values()):
                logger.setLevel(level)

    def close(self) -> None:
        """Forward nothing any more."""
        with self._lock:
            for topic in list(self._forwarders):
                self._stop(topic)
