"""How much one message may ask for: whoever reads it handles it in one piece, and everybody else waits meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

#: A message lists no more tasks, keys or objects than this.
MAX_ITEMS = 500

#: The operations that do for a list of things what they would do for each by itself, one after the other.
_OF_LISTS = frozenset(
    {
        "submit",
        "memory",
        "pending",
        "cancelled",
        "kept",
        "release",
        "want",
        "cancel",
        "scattered",
        "contains",
        "missing",
        "functions",
        "forget",
        "finished",
        "erred",
        "dropped",
        "copied",
        "copy",
        "not-copied",
        "left",
        "inventory",
        "run",
        "delete",
        "discard",
        "drop",
    }
)


def pieces(message: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Messages that say the same as this one, one after the other, none of them of more than `MAX_ITEMS`.

    A ``submit`` that wants only some of its tasks stays whole: the others would be forgotten before those came that
    depend on them. Who sends one cuts it where that is seen to (`holdfast.client.packing.graphs.split`).

    Examples
    --------
    >>> [len(keys) for _, keys in pieces(("release", list(range(1200))))]
    [500, 500, 200]
    """
    if not may_be_cut(message, MAX_ITEMS):
        yield message
        return
    operation, items, *rest = message
    for start in range(0, len(items), MAX_ITEMS):
        yield (operation, items[start : start + MAX_ITEMS], *rest)


def may_be_cut(message: Sequence[Any], count: int) -> bool:
    """Whether a message lists more than ``count`` things and can be said in several, with fewer in each."""
    if len(message) < 2:
        return False
    items = message[1]
    kind = type(items)
    if (kind is not tuple and kind is not list) or len(items) <= count or message[0] not in _OF_LISTS:
        return False
    return message[0] != "submit" or (len(message) > 2 and message[2] is None)
