"""How many objects use which bytes of the arena.

``put`` of a value that shows what another object has (a column of a table, a slice of an array) doesn't copy that:
the new object borrows it. Then the bytes have several *users*, and none of them has more of a right to them than the
others. The object that came first may be deleted and gone while a borrower keeps a stretch in its middle. So an extent
isn't freed as a whole any more: what is freed, with each user that goes, is what no other one uses. A table of ten
gigabytes of which a client put one column leaves the bytes of that column behind, and the rest is free at once. An
object that is spilled goes in the same way: its file has all of it.

All of this is one list: the arena is cut into stretches, each with the number of its users::

    starts   0        4096           70000    90112      capacity
    users    |   0    |      1       |   2    |    0     |

Zero stands for what isn't shared: free, leased, reserved, or an object's that has never lent anything. An object enters
with all of its extent when it lends for the first time. From then on it and its borrowers are the same thing here,
and it makes no difference which of them goes first, or whether a borrower's borrower is the last one to stay.

Neighbours with the same number of users are joined, so there are at most two stretches for each borrowed piece. A
piece is rounded out to whole cache lines, the allocator's unit; two may share one. Entering and leaving cost a binary
search, and as much as there are stretches in between.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from holdfast.objectstore.core.objects import ObjectRecord
from holdfast.objectstore.memory.free_extents import ALIGNMENT, footprint
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.layout import Segment

_CUTS_MAX = 128


class Stretch(NamedTuple):
    """Bytes of the arena, and how many objects use them."""

    start: int
    end: int
    users: int


class Sharing:
    """How many objects use each stretch of the arena.

    Parameters
    ----------
    capacity : int
        Bytes of the arena.
    free : callable
        Called with ``(offset, nbytes)`` for what no object uses any more.

    Attributes
    ----------
    shared_nbytes : int
        The bytes of all users beyond the first: what sharing has saved.
    members : dict of ObjectID and ObjectRecord
        The objects that have lent, or borrow.
    """

    def __init__(self, capacity: int, free: Callable[[int, int], None]) -> None:
        self._free = free
        self._starts = [0, capacity]
        self._users = [0, 0]  # the last one is no object's
        self.shared_nbytes = 0
        self.members: dict[ObjectID, ObjectRecord] = {}

    def borrow(self, lender: ObjectRecord, segment: Segment) -> None:
        """Another object uses these bytes of ``lender`` too."""
        if lender.owns(segment.offset) and not lender.lent:
            lender.lent = True
            self.members[lender.object_id] = lender
            self.enter(lender.offset, footprint(lender.own_nbytes))
        self.enter(segment.offset, segment.nbytes)

    def release(self, record: ObjectRecord) -> None:
        """The object isn't in the arena any more. Frees what it doesn't leave to others."""
        if record.lent or record.segments:
            self.members.pop(record.object_id, None)
        if record.lent:
            self.leave(record.offset, footprint(record.own_nbytes))
        else:
            self._free(record.offset, footprint(record.own_nbytes))
        for segment in record.borrowed():
            self.leave(segment.offset, segment.nbytes)

    def weigh(self, record: ObjectRecord) -> int:
        """The bytes of the arena that are an object's. What is shared counts for each of its users in equal parts."""
        own = footprint(record.own_nbytes)
        nbytes = self._part(record.offset, own) if record.lent else own
        return nbytes + sum(self._part(segment.offset, segment.nbytes) for segment in record.borrowed())

    def stretches_of(self, record: ObjectRecord) -> Iterator[Stretch]:
        """The stretches that an object uses."""
        seen = set()
        for start, end in _used_by(record):
            i = bisect_left(self._starts, start + 1) - 1
            while self._starts[i] < end:
                if i not in seen:
                    seen.add(i)
                    yield self._stretch(i)
                i += 1

    def within(self, start: int, end: int) -> list[Stretch]:
        """The stretches with users that begin between two places."""
        if not self.members:
            return []
        first, last = bisect_left(self._starts, start), bisect_left(self._starts, end, hi=len(self._starts) - 1)
        return [self._stretch(i) for i in range(first, last) if self._users[i]]

    def at(self, offset: int) -> Stretch:
        """The stretch that a place is in."""
        return self._stretch(bisect_right(self._starts, offset, hi=len(self._starts) - 1) - 1)

    def _stretch(self, i: int) -> Stretch:
        return Stretch(self._starts[i], self._starts[i + 1], self._users[i])

    def _part(self, offset: int, nbytes: int) -> int:
        end = offset + nbytes
        part = 0
        i = bisect_right(self._starts, offset) - 1
        while offset < end:
            until = min(self._starts[i + 1], end)
            part += (until - offset) // self._users[i]
            offset = until
            i += 1
        return part

    def enter(self, offset: int, nbytes: int) -> None:
        """One more object uses these bytes."""
        first, last = self._between(offset, nbytes)
        for i in range(first, last):
            if self._users[i]:
                self.shared_nbytes += self._starts[i + 1] - self._starts[i]
            self._users[i] += 1
        self._join(first, last)

    def leave(self, offset: int, nbytes: int) -> None:
        """One that has entered with exactly these bytes doesn't use them any more. Frees what is no object's now."""
        first, last = self._between(offset, nbytes)
        for i in range(first, last):
            start, end = self._starts[i], self._starts[i + 1]
            assert self._users[i] > 0, (offset, nbytes)
            self._users[i] -= 1
            if self._users[i]:
                self.shared_nbytes -= end - start
            else:
                self._free(start, end - start)
        self._join(first, last)

    def stretches(self) -> Iterator[Stretch]:
        """Every stretch that has users, in order."""
        return (self._stretch(i) for i, users in enumerate(self._users) if users)

    def check(self, records: Iterable[ObjectRecord]) -> None:
        """Asserts that this is what one gets if all that is in the arena enters, and nothing else."""
        records = list(records)
        members = {record.object_id: record for record in records if record.lent or record.borrowed()}
        assert members == self.members
        other = Sharing(self._starts[-1], self._free)
        for record in records:
            if record.lent:
                other.enter(record.offset, footprint(record.own_nbytes))
            for segment in record.borrowed():
                other.enter(segment.offset, segment.nbytes)
        assert (other._starts, other._users) == (self._starts, self._users)
        assert other.shared_nbytes == self.shared_nbytes

    def _between(self, offset: int, nbytes: int) -> tuple[int, int]:
        """The stretches that make up these bytes, rounded out, as a range; cuts some for it."""
        start, end = _rounded_out(offset, nbytes)
        return self._cut(start), self._cut(end)

    def _cut(self, at: int) -> int:
        """The stretch that begins at ``at``."""
        i = bisect_left(self._starts, at)
        if self._starts[i] != at:
            self._starts.insert(i, at)
            self._users.insert(i, self._users[i - 1])
        return i

    def _join(self, first: int, last: int) -> None:
        """Joins what is equal, from the stretch before ``first`` to ``last``."""
        first = max(first, 1)
        last = min(last, len(self._starts) - 2)
        starts: list[int] = []
        users: list[int] = []
        for i in range(first, last + 1):
            if self._users[i] != (users[-1] if users else self._users[first - 1]):
                starts.append(self._starts[i])
                users.append(self._users[i])
        self._starts[first : last + 1] = starts
        self._users[first : last + 1] = users


def are_all(records: Iterable[ObjectRecord], stretch: Stretch) -> bool:
    """Whether these objects, all of them members, are all that use a stretch or a part of one."""
    used = sum(end - start for record in records for start, end in _used_of(stretch, record))
    return used == stretch.users * (stretch.end - stretch.start)


def pieces(stretch: Stretch, records: Sequence[ObjectRecord]) -> Iterator[tuple[int, int, tuple[ObjectRecord, ...]]]:
    """A stretch cut where other ones of its users begin, which are ``records``: starts, ends and users in order.

    It stays whole if it would be cut into very many.
    """
    used = [(start, end, record) for record in records for start, end in _used_of(stretch, record)]
    if len(used) > _CUTS_MAX:
        yield stretch.start, stretch.end, tuple(records)
        return
    cuts = sorted({stretch.start, stretch.end, *(place for start, end, _ in used for place in (start, end))})
    for first, last in itertools.pairwise(cuts):
        yield first, last, tuple(record for start, end, record in used if start <= first and last <= end)


def _used_of(stretch: Stretch, record: ObjectRecord) -> Iterator[tuple[int, int]]:
    """What an object uses of a stretch."""
    for start, end in _used_by(record):
        if start < stretch.end and stretch.start < end:
            yield max(start, stretch.start), min(end, stretch.end)


def _used_by(record: ObjectRecord) -> Iterator[tuple[int, int]]:
    """What an object has entered with, as starts and ends."""
    if record.lent:
        yield record.offset, record.offset + footprint(record.own_nbytes)
    for segment in record.borrowed():
        yield _rounded_out(segment.offset, segment.nbytes)


def _rounded_out(offset: int, nbytes: int) -> tuple[int, int]:
    """The start and the end of the cache lines of these bytes."""
    return offset // ALIGNMENT * ALIGNMENT, -(-(offset + nbytes) // ALIGNMENT) * ALIGNMENT
