"""A dictionary and a set of a million entries that never grow all at once.

When a dictionary is full, Python makes a larger one and enters every key again: 0.1 s at 700,000 keys, in which no
peer is answered. These are made of many, none of which ever takes more than a millisecond for that, and which do it at
different times.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, MutableMapping
from itertools import chain
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_PARTS = 64
_PART_LENGTH = 1 << 14
#: A part has between one and two shares of all keys, so that one after the other is full while their number doubles.
_SHARES = [round(64 * 2 ** (part / _PARTS)) for part in range(_PARTS)]
_SLOTS = sum(_SHARES)


class PartitionedDict(MutableMapping[K, V]):
    """Used like a dictionary, but without an order: each key has its slot, and each slot its part."""

    __slots__ = ("_parts", "_slots")

    def __init__(self) -> None:
        self._parts: list[dict[K, V]] = [{} for _ in range(_PARTS)]
        self._slots = [part for part, share in zip(self._parts, _SHARES, strict=True) for _ in range(share)]

    def __getitem__(self, key: K) -> V:
        return self._slots[hash(key) % _SLOTS][key]

    def __setitem__(self, key: K, value: V) -> None:
        self._slots[hash(key) % _SLOTS][key] = value

    def __delitem__(self, key: K) -> None:
        del self._slots[hash(key) % _SLOTS][key]

    def __contains__(self, key: object) -> bool:
        return key in self._slots[hash(key) % _SLOTS]

    def get(self, key: K, default: Any = None) -> Any:
        return self._slots[hash(key) % _SLOTS].get(key, default)

    def claim(self, key: K, value: V) -> bool:
        """Enter a value under a key that has none; whether it is the key's value now."""
        return self._slots[hash(key) % _SLOTS].setdefault(key, value) is value

    def disown(self, key: K, value: V) -> bool:
        """Take out a key if it has this value; whether it had."""
        part = self._slots[hash(key) % _SLOTS]
        if part.get(key) is not value:
            return False
        del part[key]
        return True

    def slices(self, length: int) -> Iterator[list[V]]:
        """All values, so many at a time. What is entered or taken out between two slices may be in them or not."""
        for part in self._parts:
            values = list(part.values())
            for start in range(0, len(values), length):
                yield values[start : start + length]

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))


class PartitionedSet(Collection[K]):
    """A set in the order of insertion: when a part is full, another is begun. Only what isn't there may be added."""

    __slots__ = ("_last", "_near", "_parts")

    def __init__(self) -> None:
        self._last: dict[K, None] = {}
        self._near = self._last  # where the last one was that was taken out: the next one is likely to be there too
        self._parts = [self._last]

    def add(self, entry: K) -> None:
        """Add what isn't there."""
        last = self._last
        if len(last) >= _PART_LENGTH:
            last = self._last = {}
            self._parts.append(last)
        last[entry] = None

    def remove(self, entry: K) -> None:
        """Take out what is there."""
        if self._near.pop(entry, self) is not None:
            self._near = next((part for part in self._parts if entry in part), self._near)
            del self._near[entry]
        if not self._near and self._near is not self._last:  # so that none but the last is ever empty
            self._parts.remove(self._near)
            self._near = self._last

    def pop(self) -> K:
        """Take out what was added last. Raises KeyError if there is nothing."""
        last = self._last
        if not last and len(self._parts) > 1:
            self._parts.pop()
            last = self._last = self._parts[-1]
        entry, _ = last.popitem()
        return entry

    def slices(self, length: int) -> Iterator[list[K]]:
        """All entries, so many at a time; as `PartitionedDict.slices`."""
        for part in list(self._parts):
            entries = list(part)
            for start in range(0, len(entries), length):
                yield entries[start : start + length]

    def __contains__(self, entry: object) -> bool:
        return any(entry in part for part in self._parts)

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __bool__(self) -> bool:
        return any(self._parts)
