"""How several things are listed in a sentence."""

from __future__ import annotations

from collections.abc import Iterable


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first of these, and how many more there are.

    Examples
    --------
    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    listed = list(names)
    text = ", ".join(listed[:limit])
    return f"{text} and {len(listed) - limit} more" if len(listed) > limit else text or "nobody"
