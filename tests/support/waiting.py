"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Long, since tests run beside others: a test that passes does not wait for it.
DEADLINE_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.02


def until(condition: Callable[[], T], what: object = "", deadline_seconds: float = DEADLINE_SECONDS) -> T:
    """Wait until ``condition()`` is true, and return its value."""
    deadline = time.monotonic() + deadline_seconds
    pause = _FIRST_PAUSE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {deadline_seconds:g} s: {what or condition}"
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE_SECONDS, 1.5 * pause)
    return value
