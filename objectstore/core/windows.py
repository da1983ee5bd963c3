"""Where a hole of some size is made most cheaply: the search for a *window*.

A window is what lies side by side in the arena, is free or may go, and is large enough together. What lies there is
looked at in the order of addresses, with two ends that move upwards: for each upper end the lower one is as high as
the size allows. So each extent is taken in once and left out once, and all windows are seen of which nothing could be
left out::

    free | object | object | PINNED | object |  free  | object | free ...
                                    [------ window ------]

What can't go is unmovable, and no window reaches across it: what a client looks at, what is reserved or leased, and
what is deleted but viewed. A stretch that several objects share goes if all of them may, and they go to disk, as an
object that shares others' data does: neither can be moved alone (``sharing.py``).

The price of a window is that of its objects: their bytes, and something for each of them. If there's room for them
elsewhere they are moved, which is as dear for all; if not, the longer an object wasn't used the cheaper it is.

The search is a generator, since the event loop has to answer meanwhile: it stops after each `SLICE`. By the time that
it goes on, what it has seen may have changed; so the caller that takes a window looks at all parts of it once more.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from itertools import starmap
from operator import attrgetter
from typing import NamedTuple

from holdfast.objectstore.core.address_map import STRIP_NBYTES
from holdfast.objectstore.core.objects import ObjectRecord
from holdfast.objectstore.core.sharing import Sharing, are_all, pieces
from holdfast.objectstore.core.table import ObjectTable
from holdfast.objectstore.memory.allocator import Allocator
from holdfast.objectstore.memory.free_extents import alignment, footprint

SLICE = 512  # parts, half a millisecond to one
LOOKED_AT = 4096  # parts, after which the best window of those that were found will do
_PART_PRICE = 32 << 10  # bytes: what the books cost, for each object
_AGES = 4  # what was used last is so much dearer than what wasn't for longest


class WindowPart(NamedTuple):
    """An extent of a window: free if it has no ``users``, otherwise theirs; each of them has to go."""

    start: int
    end: int
    users: tuple[ObjectRecord, ...]


@dataclasses.dataclass(slots=True)
class Window:
    """Parts side by side with room for what is asked for, and their price."""

    parts: list[WindowPart]
    price: int


class Search:
    """One search. To be iterated over: gives windows, each cheaper than those before, and None after each slice.

    Parameters
    ----------
    table, allocator, sharing : ObjectTable, Allocator, Sharing
        What lies where.
    nbytes : int
        What there is to be room for.
    begin : int
        Where in the arena to begin; what lies below is looked at last.
    by_age : bool
        Whether objects are priced by how long they weren't used.
    spills : bool
        Whether objects may go to disk; otherwise no more than move.
    dear_from : int
        From here on in the arena windows are dear: it isn't looked at if there's one below.

    Attributes
    ----------
    looked_at : int
        How many objects and stretches.
    at : int
        How far it has come.
    """

    def __init__(
        self,
        table: ObjectTable,
        allocator: Allocator,
        sharing: Sharing,
        nbytes: int,
        *,
        begin: int,
        by_age: bool,
        spills: bool,
        dear_from: int,
    ) -> None:
        self._table = table
        self._allocator = allocator
        self._sharing = sharing
        self._size, self._align = footprint(nbytes), alignment(nbytes)
        self._begin = begin // STRIP_NBYTES
        self._by_age = by_age
        self._spills = spills
        self._dear_from = dear_from
        self._users: dict[int, list[ObjectRecord]] = {}  # of shared stretches, by their starts
        self.looked_at = 0
        self.at = begin

    def __iter__(self) -> Iterator[Window | None]:
        if self._spills:
            yield from self._find_users()
        best = None
        run: deque[tuple[WindowPart, int]] = deque()
        price = 0
        for part in self._parts():
            if part is None:
                yield None
                continue
            if run and run[-1][0].end != part.start:
                run.clear()
                price = 0
            its_price = self._price(part)
            if its_price is None:
                run.clear()
                price = 0
                continue
            run.append((part, its_price))
            price += its_price
            while len(run) > 1 and self._has_room(run[1][0].start, part.end):
                price -= run.popleft()[1]
            if (best is None or price < best) and self._has_room(run[0][0].start, part.end):
                best = price
                yield Window([part for part, _ in run], price)
            if best is not None and (self.looked_at >= LOOKED_AT or self.at >= self._dear_from):
                return

    def _has_room(self, start: int, end: int) -> bool:
        return end - -(-start // self._align) * self._align >= self._size

    def _parts(self) -> Iterator[WindowPart | None]:
        """What lies in the arena but for what is unmovable, in order; None after each slice."""
        last = self._allocator.capacity // STRIP_NBYTES
        rest = SLICE
        reached = -1
        for strips in (range(self._begin, last + 1), range(last + 1)) if self._begin else (range(last + 1),):
            for strip in strips:
                self.at = strip * STRIP_NBYTES
                parts = self._occupied(strip)
                rest -= len(parts) + 1
                self.looked_at += len(parts)
                for part in parts:
                    if part.start != reached and (nbytes := self._allocator.free_before(part.start)):
                        yield WindowPart(part.start - nbytes, part.start, ())
                    yield part
                    reached = part.end
                    if nbytes := self._allocator.free_at(reached):
                        yield WindowPart(reached, reached + nbytes, ())
                        reached += nbytes
                if rest <= 0:
                    rest = SLICE
                    yield None

    def _occupied(self, strip: int) -> list[WindowPart]:
        """The objects, and the stretches of several ones, that begin in a strip."""
        end = min((strip + 1) * STRIP_NBYTES, self._allocator.capacity)
        parts = [
            WindowPart(record.offset, record.offset + footprint(record.own_nbytes), (record,))
            for record in self._table.addresses.within(strip)
            if not record.lent and record.offset < end
        ]
        stretches = self._sharing.within(strip * STRIP_NBYTES, end)
        if stretches:
            for stretch in stretches:
                parts += starmap(WindowPart, pieces(stretch, self._users.get(stretch.start, ())))
            parts.sort(key=attrgetter("start"))
        return parts

    def _find_users(self) -> Iterator[None]:
        """Finds out whose the shared stretches are."""
        for number, record in enumerate(list(self._sharing.members.values()), 1):
            for stretch in self._sharing.stretches_of(record):
                self._users.setdefault(stretch.start, []).append(record)
            if number % SLICE == 0:
                yield None

    def _price(self, part: WindowPart) -> int | None:
        """What it costs to have an extent free, or None if it's unmovable."""
        price = 0
        for record in part.users:
            if not self._table.may_go(record):
                return None
            nbytes = record.nbytes + _PART_PRICE
            if self._by_age:
                nbytes = int(nbytes * (1 + (_AGES - 1) * (1 - self._table.eviction.age(record))))
            price += nbytes
        if part.users and not self._spills and (is_shared(part) or not self._fits(part)):
            return None
        return price if part.users or self._allocator.free_at(part.start) else None

    def _fits(self, part: WindowPart) -> bool:
        return part.end - part.start <= self._allocator.largest_free_nbytes()


def is_shared(part: WindowPart) -> bool:
    """Whether an object's data, or a part of it, isn't its own alone: it can't be moved."""
    return len(part.users) > 1 or any(record.lent or record.segments for record in part.users)


def is_as_seen(part: WindowPart, table: ObjectTable, allocator: Allocator, sharing: Sharing) -> bool:
    """Whether a part of a window is still what it was when it was looked at."""
    if not part.users:
        return allocator.free_at(part.start) == part.end - part.start
    if not all(map(table.may_go, part.users)):
        return False
    (record, *others) = part.users
    if not others and not record.lent and record.offset == part.start:
        return part.start + footprint(record.own_nbytes) == part.end
    stretch = sharing.at(part.start)
    return part.end <= stretch.end and are_all(part.users, stretch._replace(start=part.start, end=part.end))
