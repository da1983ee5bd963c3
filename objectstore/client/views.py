"""What this process looks at in the arena: for ``put`` to find out whose the memory is that it is given.

Every view of a large object has a pin (or, made by ``create``, an extent), and that is noted here with where the
object lies, until its finaliser takes it out again. A finaliser may run in the middle of anything, so both are one
operation on a dictionary, without a lock; and a search takes a copy first.

A note that is missed or outdated does no harm: what can't be found is copied, and the server believes only
what its own books say about an object.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple

from holdfast.objectstore.codecs.flat import SHARE_NBYTES
from holdfast.objectstore.shared.ids import ObjectID

_Segments = tuple[tuple[int, int, int], ...]  # start in the encoding, offset in the arena, size


class ObjectOffset(NamedTuple):
    """The object that some bytes belong to, and where they begin in its encoding."""

    object_id: ObjectID
    start: int


class Views:
    """The large objects that are looked at. True if there are any."""

    __slots__ = ("_alive",)

    def __init__(self) -> None:
        self._alive: dict[int, tuple[ObjectID, _Segments]] = {}

    def __bool__(self) -> bool:
        return bool(self._alive)

    def add(self, holder: object, object_id: ObjectID, segments: _Segments) -> None:
        """An object is looked at while ``holder`` lives."""
        self._alive[id(holder)] = object_id, segments

    def drop(self, holder: object) -> None:
        """``holder`` lives no more. Safe in a finaliser."""
        self._alive.pop(id(holder), None)

    def clear(self) -> None:
        """Nothing is looked at."""
        self._alive.clear()

    def in_order(self) -> SortedViews:
        """What is looked at now, to be searched."""
        return SortedViews(self._alive.copy().values())


class SortedViews:
    """The pieces of objects that are looked at, by where they lie. They may overlap: objects share data."""

    def __init__(self, views: Iterable[tuple[ObjectID, _Segments]]) -> None:
        pieces = [
            (offset, offset + nbytes, start, object_id)
            for object_id, segments in views
            for start, offset, nbytes in segments
            if nbytes >= SHARE_NBYTES
        ]
        self._pieces = sorted(pieces)
        self._offsets = list(map(itemgetter(0), self._pieces))
        self._reach = list(accumulate(map(itemgetter(1), self._pieces), max))  # the furthest end up to here

    def find(self, offset: int, nbytes: int) -> ObjectOffset | None:
        """An object that these bytes of the arena are part of."""
        end = offset + nbytes
        i = bisect_right(self._offsets, offset) - 1
        while i >= 0 and self._reach[i] >= end:
            begins, ends, start, object_id = self._pieces[i]
            if ends >= end:
                return ObjectOffset(object_id, start + offset - begins)
            i -= 1
        return None
