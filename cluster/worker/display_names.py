"""What the object store calls the result of a task, for people."""

from __future__ import annotations

from typing import Any

_LENGTH_MAX = 200


def display_name(key: Any) -> str:
    """A key as a text that is not too long.

    Examples
    --------
    >>> display_name(("sum", 0, 1))
    "('sum', 0, 1)"
    """
    text = key if type(key) is str else str(key)
    return text if len(text) <= _LENGTH_MAX else text[: _LENGTH_MAX - 1] + "…"
