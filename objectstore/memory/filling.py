"""Making pages in the holes of free extents, in order, until enough are there: how the headroom is filled.

Where nothing is yet, huge pages are made, in a third of the time. What is left before the first of them, and between
them, is made of small pages, a few at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from holdfast.objectstore.memory.free_extents import PAGE
from holdfast.objectstore.system.pages import HUGE_PAGE, is_hole, resident_extents

#: What is made of small pages without a pause, in about the time of a huge one: a thread that is woken on the thread's
#: processor waits for no more.
_PIECE_NBYTES = 256 << 10
#: After so much it's looked at how much memory is available.
_LOOK_NBYTES = 8 << 20


class Pages(Protocol):
    """The pages of an arena that can be made: `Arena`'s."""

    fd: int

    def make_huge_page(self, offset: int) -> bool:
        """Makes a huge page where there is a hole; false if the kernel doesn't."""

    def populate(self, offset: int, nbytes: int) -> bool:
        """Makes the pages of an extent; false if the kernel doesn't."""


def fill(
    pages: Pages, extents: Sequence[tuple[int, int]], limit: Callable[[], int], stop: Callable[[float], bool]
) -> None:
    """Makes pages in the holes of ``extents``, in order, until enough are there.

    Parameters
    ----------
    pages : Pages
        Those of the arena.
    extents : sequence of (int, int)
        Offsets and sizes of what is free.
    limit : callable
        The bytes of free pages that may take up memory; asked now and then.
    stop : callable
        ``stop(seconds)`` is called after each piece, with the time that it took; true if it's time to end.
    """
    parts = [list(resident_extents(pages.fd, *extent)) for extent in extents]
    resident = sum(nbytes for part in parts for _, nbytes in part)
    most, unlooked, huge = 0, _LOOK_NBYTES, True
    for extent, part in zip(extents, parts, strict=True):
        for offset, nbytes in _holes(extent, part):
            end = offset + nbytes
            while offset < end:
                if unlooked >= _LOOK_NBYTES:
                    most, unlooked = limit(), 0
                piece = _piece(offset, min(end, offset + most - resident), huge)
                if piece <= 0:
                    return
                if not is_hole(pages.fd, offset, piece):  # any more: a client was given it meanwhile
                    offset += piece
                    continue
                began = time.monotonic()
                huge = huge and (piece < HUGE_PAGE or pages.make_huge_page(offset))
                if (piece < HUGE_PAGE or not huge) and not pages.populate(offset, piece):
                    return
                offset, resident, unlooked = offset + piece, resident + piece, unlooked + piece
                if stop(time.monotonic() - began):
                    return


def _piece(start: int, end: int, huge: bool) -> int:
    """How many bytes of a hole to make first: a huge page if there's room for one, or small ones up to there."""
    if start % HUGE_PAGE or not huge:
        return min(end - start, _PIECE_NBYTES, HUGE_PAGE - start % HUGE_PAGE)
    return HUGE_PAGE if end - start >= HUGE_PAGE else min(end - start, _PIECE_NBYTES)


def _holes(extent: tuple[int, int], resident: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The whole pages of ``extent`` between its resident parts."""
    at, end = extent[0], extent[0] + extent[1]
    holes = []
    for start, nbytes in [*resident, (end, 0)]:
        first, last = -(-at // PAGE) * PAGE, start // PAGE * PAGE
        if first < last:
            holes.append((first, last - first))
        at = start + nbytes
    return holes
