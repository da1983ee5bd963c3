"""Why there's no hole for a request: what stands in the way where the least does. For the error of a full store.

All of the arena is looked at here, in the order of addresses, what can't go with it (``windows.py`` stops there): the
stretch is found that is large enough and has the fewest bytes of that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from holdfast.objectstore.memory.allocator import alignment, footprint

EXTENTS_MAX = 20_000  # of an arena with more of them nothing is said: the loop has others to answer


class Stone(NamedTuple):
    """An extent of the arena, and what is there that can't go; None if it's free, or may."""

    start: int
    end: int
    what: object


def wall(extents: Iterable[Stone], nbytes: int) -> list[tuple[object, int]]:
    """What stands in the way of ``nbytes`` where the least does, with the bytes of each; the largest first.

    Parameters
    ----------
    extents : iterable of Stone
        All that is in the arena; several may be parts of the same thing.
    nbytes : int
        What there is no hole for.
    """
    size, align = footprint(nbytes), alignment(nbytes)
    least: list[Stone] = []
    least_nbytes: int | None = None
    run: deque[Stone] = deque()
    blocked = 0
    for extent in sorted(extents, key=attrgetter("start")):
        run.append(extent)
        blocked += _blocked(extent)
        while len(run) > 1 and _has_room(run[1], extent, size, align):
            blocked -= _blocked(run.popleft())
        if (least_nbytes is None or blocked < least_nbytes) and _has_room(run[0], extent, size, align):
            least, least_nbytes = [each for each in run if each.what is not None], blocked
    nbytes_of: dict[object, int] = {}
    for stone in least:
        nbytes_of[stone.what] = nbytes_of.get(stone.what, 0) + _blocked(stone)
    return sorted(nbytes_of.items(), key=lambda item: -item[1])


def _blocked(stone: Stone) -> int:
    return 0 if stone.what is None else stone.end - stone.start


def _has_room(first: Stone, last: Stone, size: int, align: int) -> bool:
    return last.end - -(-first.start // align) * align >= size
