"""A dictionary of a million entries that never grows all at once.

When a dictionary is full, Python makes a larger one and enters every key again: 0.1 s at 700,000 keys, in which nobody
is answered. This one is made of many, each of which grows by itself, at about the same time as the others but not at
the same moment, in a millisecond. It has no order.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, MutableMapping
from itertools import chain
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_PARTS = 64


class Table(MutableMapping[K, V]):
    """Used like a dictionary."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[dict[K, V]] = [{} for _ in range(_PARTS)]

    def __getitem__(self, key: K) -> V:
        return self._parts[hash(key) % _PARTS][key]

    def __setitem__(self, key: K, value: V) -> None:
        self._parts[hash(key) % _PARTS][key] = value

    def __delitem__(self, key: K) -> None:
        del self._parts[hash(key) % _PARTS][key]

    def __contains__(self, key: object) -> bool:
        return key in self._parts[hash(key) % _PARTS]

    def get(self, key: K, default: Any = None) -> Any:
        return self._parts[hash(key) % _PARTS].get(key, default)

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))
