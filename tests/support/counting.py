"""Tasks and an actor that count outside of the cluster how often they have run."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path


def note(path: str, what: object) -> None:
    """Note that something runs. One write for each: none gets lost, whatever is killed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{what}\n".encode())
    finally:
        os.close(descriptor)


def noted(path: str | Path) -> Counter[str]:
    """How often each has been noted."""
    try:
        return Counter(Path(path).read_text().splitlines())
    except FileNotFoundError:
        return Counter()


def first(number: int, path: str) -> int:
    note(path, f"first {number}")
    return number


def second(before: int, path: str) -> int:
    note(path, f"second {before}")
    return before + 1


class Tally:
    """An actor that adds up, and notes each call."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sum = 0

    def add(self, number: int) -> int:
        note(self._path, f"add {number}")
        self._sum += number
        return self._sum
