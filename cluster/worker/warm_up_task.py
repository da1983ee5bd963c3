"""What a worker computes while it warms up (`warm_up`). Only a task's unpickling imports this module, as it imports the
module of a user's first task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def read(array: Any, number: int) -> float:
    """As a task that was submitted would: reads an array, gives a small result."""
    return float(array[::2].sum()) + number


class Node:
    """As a task of a graph would: reads the results it depends on, gives an array."""

    def __call__(self, values: Mapping[Any, Any]) -> Any:
        return values["stored"] + values["inline"]
