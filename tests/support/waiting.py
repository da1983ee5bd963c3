"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_SECONDS = 30.0


def until(condition: Callable[[], T], what: str, deadline_seconds: float = DEADLINE_SECONDS) -> T:
    """Wait until ``condition()`` is true, and return its value."""
    deadline = time.monotonic() + deadline_seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {deadline_seconds:g} s: {what}"
        time.sleep(0.01)
    return value
