"""How a request that finds no hole gets one: a window of the arena is cleared for it. The core's part that moves.

A *window* (``windows.py``) is chosen, what is free of it is taken out of the allocator, and so is what becomes free
there, so that no other request gets into it meanwhile: the window is *evacuated*. Each object in it goes: to a hole
elsewhere, if there is one, else to disk. When all of them have gone the window is given back, as one hole; the
request, which is the first in line, is served at once. If one of them has stayed, since a client has looked at it, the
next search begins.

    request finds no hole    -> search, a slice for each turn of the loop
    a window is found        -> its parts are as they were seen: move and spill them; or not: search again
    all copies have ended    -> what was copied and isn't looked at has gone; the window is free
    there is no window       -> it's walled in: it gets a place apart, where addresses are left (``allocator.py``);
                                without those nothing, until something is free, or may go, that wasn't and didn't

An object is moved by the same steps as it goes to disk: it's copied while it can still be found and looked at, leaves
the index for a moment when it has been copied, and if no client looks at it then, it is found at its new place. So a
reader finds all of it at the one place or at the other, and has it stay where it is.

What it takes ------------- Nothing that keeps objects where they were put can promise much: with the sizes from 256 KB
to an eighth of 8 GB the worst of histories makes seven times the memory necessary that is ever used at a time (Robson,
1974). With moving, only what can't be moved counts: ``W`` unmovable extents of ``b`` bytes together leave a window of
``(capacity - b) / (W + 1)`` at least. So small objects have a side of their own (``allocator.py``), where they are in
no large one's way, and objects that no client looks at can be moved.

So what is looked at may wall in a request all the same: seven objects at the wrong places are enough, and readers of
large arrays make hundreds. Addresses are free, though: a request that is walled in lies beyond the capacity then,
and as many pages below it are given back. That is dear, since new pages are, and so it's done for these alone.

With a place to spill to, each window can be cleared. Without one, objects can only go where there are holes for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from holdfast.objectstore.core.effects import ContinueSearch, Effect, MoveObjects, Punch, Shift
from holdfast.objectstore.core.objects import ObjectRecord, State
from holdfast.objectstore.core.sharing import Sharing
from holdfast.objectstore.core.spill_policy import SpillPolicy
from holdfast.objectstore.core.table import ObjectTable
from holdfast.objectstore.core.windows import SLICE, Search, Window, WindowPart, is_as_seen, is_shared
from holdfast.objectstore.memory.allocator import SMALL_NBYTES, Allocator
from holdfast.objectstore.memory.free_extents import footprint

_PAUSE_SECONDS_PER_PART = 10e-6  # after a long search that found nothing: several times as long as that took


@dataclasses.dataclass(slots=True)
class _Evacuation:
    """A window that is being evacuated: what of it is free already, and what is on its way out."""

    start: int
    end: int
    free: list[tuple[int, int]]
    moves: list[tuple[ObjectRecord, int]]  # the objects, each with its new place
    copying: int = 0  # batches that haven't ended


@dataclasses.dataclass(slots=True)
class _Wanted:
    """A search that is under way."""

    nbytes: int
    found: list[Window]
    search: Search
    steps: Iterator[Window | None]


class Compaction:
    """Clears windows of the arena, one at a time.

    Parameters
    ----------
    table, allocator, sharing, spill_policy : ObjectTable, Allocator, Sharing, SpillPolicy
        What lies where, and what goes to disk.
    do : callable
        Takes what is to be done.
    clock : callable
        Seconds, never going back.

    Attributes
    ----------
    again_at : float or None
        Until when nothing is searched for, because a long search has found nothing.
    """

    def __init__(
        self,
        table: ObjectTable,
        allocator: Allocator,
        sharing: Sharing,
        spill_policy: SpillPolicy,
        *,
        do: Callable[[Effect], None],
        clock: Callable[[], float],
    ) -> None:
        self.again_at: float | None = None
        self._table = table
        self._allocator = allocator
        self._sharing = sharing
        self._spill_policy = spill_policy
        self._do = do
        self._clock = clock
        self._wanted: _Wanted | None = None
        self._evacuation: _Evacuation | None = None
        self._searched = 0  # where the last search has ended
        self._frees = 0
        self._in_vain: tuple[int, tuple[int, ...]] | None = None  # a search: how much for, and what there was then
        self._ended_in_vain = False  # just now: there was no request since
        self._moved_nbytes = 0

    # Finding a window

    def make_room(self, nbytes: int) -> bool:
        """There was no hole for ``nbytes``. Whether there's one now, or a place apart may be taken."""
        if self._wanted or self._evacuation or self._spill_policy.busy:
            return False
        is_short = footprint(nbytes) > self._allocator.free_nbytes
        if self._is_walled_in(nbytes):
            return not is_short
        if self.again_at is not None or (is_short and not self._spill_policy.may_spill):
            return False
        border = self._allocator.border
        small = nbytes <= SMALL_NBYTES
        begin = border if small else self._searched if self._searched < border else 0
        search = Search(
            self._table,
            self._allocator,
            self._sharing,
            nbytes,
            begin=begin if begin < self._allocator.capacity else 0,
            by_age=is_short,
            spills=self._spill_policy.may_spill,
            dear_from=self._allocator.capacity if small else border,
        )
        self._wanted = _Wanted(nbytes, [], search, iter(search))
        again = self.continue_search()
        self._ended_in_vain = False
        return again

    def _is_walled_in(self, nbytes: int) -> bool:
        """Whether a search for no more has just ended in vain, or nothing has changed since one did."""
        ended, self._ended_in_vain = self._ended_in_vain, False
        if self._in_vain is None or nbytes < self._in_vain[0]:
            return False
        return ended or self._changes() == self._in_vain[1]

    def continue_search(self) -> bool:
        """Searches for the length of a slice; there's another ``ContinueSearch`` if it hasn't ended then.

        Whether the request is to be tried once more: it's walled in; or there's a hole that was there already, since
        the allocator doesn't look at all of those that hardly fit.
        """
        wanted = self._wanted
        if wanted is None:
            return False
        for window in wanted.steps:
            if window is None:
                self._do(ContinueSearch())
                return False
            wanted.found.append(window)
        self._wanted = None
        if wanted.nbytes > SMALL_NBYTES:
            self._searched = wanted.search.at
        if any(self._clear(window, wanted.nbytes) for window in reversed(wanted.found)):
            return self._evacuation is None
        self._in_vain = wanted.nbytes, self._changes()
        if wanted.search.looked_at > SLICE:
            self.again_at = self._clock() + wanted.search.looked_at * _PAUSE_SECONDS_PER_PART
        missing = footprint(wanted.nbytes) - self._allocator.free_nbytes
        if missing <= 0:
            self._ended_in_vain = True
            return True
        if self._spill_policy.may_spill and self._allocator.has_room_apart(wanted.nbytes):
            self._spill_policy.spill([], missing_nbytes=missing)
        return False

    def resume(self) -> bool:
        """Whether a pause has ended just now."""
        if self.again_at is None or self.again_at > self._clock():
            return False
        self.again_at = None
        return True

    def _changes(self) -> tuple[int, ...]:
        """Something else as soon as there may be a window that wasn't there before."""
        return self._frees, self._table.eviction.offers, self._spill_policy.may_spill

    # Clearing it

    def _clear(self, window: Window, nbytes: int) -> bool:
        """Begins to clear a window. False if it isn't there any more, or what is there has nowhere to go."""
        parts = window.parts
        if not all(is_as_seen(part, self._table, self._allocator, self._sharing) for part in parts):
            return False
        missing = footprint(nbytes) - self._allocator.free_nbytes
        evacuation = _Evacuation(parts[0].start, parts[-1].end, [], [])
        for part in parts:
            if not part.users:
                self._allocator.take(part.start, part.end - part.start)
                evacuation.free.append((part.start, part.end - part.start))
        to_disk = self._place(evacuation, parts)
        if to_disk and not self._spill_policy.may_spill:
            for record, target in evacuation.moves:
                self._allocator.free(target, footprint(record.own_nbytes))
            for extent in evacuation.free:
                self._allocator.free(*extent)
            return False
        self._evacuation = evacuation
        if evacuation.moves:
            for record, _ in evacuation.moves:
                self._table.choose(record, State.MOVING)
            evacuation.copying += 1
            self._do(
                MoveObjects([Shift(record.offset, target, record.own_nbytes) for record, target in evacuation.moves])
            )
        if self._spill_policy.spill(to_disk, missing_nbytes=missing):
            evacuation.copying += 1
        if not evacuation.copying:
            self._end()
        return True

    def _place(self, evacuation: _Evacuation, parts: list[WindowPart]) -> list[ObjectRecord]:
        """Finds a new place for each object that can be moved; the others, which have to go to disk."""
        to_disk: dict[int, ObjectRecord] = {}
        for part in sorted(parts, key=lambda part: part.start - part.end):
            if part.users:
                (record, *_) = part.users
                target = None
                if not is_shared(part):
                    target = self._allocator.place(record.own_nbytes, small=record.own_nbytes <= SMALL_NBYTES)
                if target is None:
                    to_disk.update((id(record), record) for record in part.users)
                else:
                    evacuation.moves.append((record, target))
        return list(to_disk.values())

    def moved(self, *, done: bool) -> None:
        """The copies of a ``MoveObjects`` have ended; not ``done``: they were cut short, and are good for nothing."""
        evacuation = self._evacuation
        assert evacuation is not None
        for record, target in evacuation.moves:
            offset, nbytes = record.offset, footprint(record.own_nbytes)
            if not done:
                self._table.stay(record)
            elif self._table.moved(record, target):
                self._moved_nbytes += nbytes
                self.free(offset, nbytes)
                continue
            self._allocator.free(target, nbytes)
        evacuation.moves.clear()
        self._ended()

    def spilled(self) -> None:
        """A batch that went to disk has ended; maybe the evacuation's."""
        if self._evacuation is not None:
            self._ended()

    def _ended(self) -> None:
        assert self._evacuation is not None
        self._evacuation.copying -= 1
        if not self._evacuation.copying:
            self._end()

    def _end(self) -> None:
        evacuation, self._evacuation = self._evacuation, None
        assert evacuation is not None
        for extent in evacuation.free:
            self.free(*extent)

    def free(self, offset: int, nbytes: int) -> None:
        """Gives bytes back to the allocator, or keeps them until the evacuation has been cleared that they lie in."""
        self._frees += 1
        evacuation = self._evacuation
        if evacuation is None or offset >= evacuation.end or offset + nbytes <= evacuation.start:
            self._allocator.free(offset, nbytes)
            if offset >= self._allocator.apart:
                self._do(Punch(offset, nbytes))
            return
        end = offset + nbytes
        first, last = max(offset, evacuation.start), min(end, evacuation.end)
        evacuation.free.append((first, last - first))
        if offset < first:
            self._allocator.free(offset, first - offset)
        if last < end:
            self._allocator.free(last, end - last)

    # Looking

    @property
    def busy(self) -> bool:
        """Whether a window is being searched for or cleared."""
        return self._wanted is not None or self._evacuation is not None

    def taken(self) -> Iterator[tuple[int, int]]:
        """The bytes that have no owner because of what is being cleared: the evacuation's free ones, and new places."""
        if self._evacuation is not None:
            yield from self._evacuation.free
            for record, target in self._evacuation.moves:
                yield target, footprint(record.own_nbytes)

    def stats(self) -> dict[str, Any]:
        """What has been moved."""
        return {"moved_total_nbytes": self._moved_nbytes}

    def check(self, records: list[ObjectRecord]) -> None:
        """Asserts what must hold between any two events, ``records`` being all that there are."""
        evacuation = self._evacuation
        moving = [] if evacuation is None else [record for record, _ in evacuation.moves]
        assert all(record in moving for record in records if record.state is State.MOVING)
        if evacuation is not None:
            assert evacuation.copying > 0
            assert bool(evacuation.moves) + self._spill_policy.busy == evacuation.copying
            assert all(
                evacuation.start <= offset and offset + nbytes <= evacuation.end for offset, nbytes in evacuation.free
            )
            assert not any(
                evacuation.start < offset + nbytes and offset < evacuation.end
                for offset, nbytes in self._allocator.free_extents()
            )
            for record, target in evacuation.moves:
                assert target + footprint(record.own_nbytes) <= evacuation.start or evacuation.end <= target
