"""What the workloads' tasks call, in a module of its own, as a user's functions are: sent by name, not by value."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

TOUCH_PAUSE_SECONDS = 0.05


def inc(x: int) -> int:
    return x + 1


def make(nbytes: int) -> np.ndarray[Any, Any]:
    return np.ones(nbytes // 8)


def first(array: np.ndarray[Any, Any]) -> float:
    return float(array[0])


def touch(array: np.ndarray[Any, Any], reader: int) -> float:
    return float(array[::100_000].sum())


def touch_slowly(array: np.ndarray[Any, Any], reader: int) -> float:
    """As for Ray: so long that each worker takes one."""
    time.sleep(TOUCH_PAUSE_SECONDS)
    return touch(array, reader)
