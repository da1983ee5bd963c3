"""Why there's no hole for a request: what stands in the way where the least does. For the error of a full store.

All of the arena is looked at here, in the order of addresses, what can't go with it (``windows.py`` stops there): the
stretch is found that is large enough and has the fewest bytes of that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from holdfast.objectstore.memory.free_extents import alignment, footprint

EXTENTS_MAX = 20_000  # of an arena with more of them nothing is said: the loop has others to answer


class Obstacle(NamedTuple):
    """An extent of the arena, and what is there that can't go; None if it's free, or may."""

    start: int
    end: int
    what: object


def obstacles(extents: Iterable[Obstacle], nbytes: int) -> list[tuple[object, int]]:
    """What stands in the way of ``nbytes`` where the least does, with the bytes of each; the largest first.

    Parameters
    ----------
    extents : iterable of Obstacle
        All that is in the arena; several may be parts of the same thing.
    nbytes : int
        What there is no hole for.
    """
    size, align = footprint(nbytes), alignment(nbytes)
    least: list[Obstacle] = []
    least_nbytes: int | None = None
    run: deque[Obstacle] = deque()
    blocked = 0
    for extent in sorted(extents, key=attrgetter("start")):
        run.append(extent)
        blocked += _blocked(extent)
        while len(run) > 1 and _has_room(run[1], extent, size, align):
            blocked -= _blocked(run.popleft())
        if (least_nbytes is None or blocked < least_nbytes) and _has_room(run[0], extent, size, align):
            least, least_nbytes = [each for each in run if each.what is not None], blocked
    nbytes_of: dict[object, int] = {}
    for obstacle in least:
        nbytes_of[obstacle.what] = nbytes_of.get(obstacle.what, 0) + _blocked(obstacle)
    return sorted(nbytes_of.items(), key=lambda item: -item[1])


def _blocked(obstacle: Obstacle) -> int:
    return 0 if obstacle.what is None else obstacle.end - obstacle.start


def _has_room(first: Obstacle, last: Obstacle, size: int, align: int) -> bool:
    return last.end - -(-first.start // align) * align >= size
