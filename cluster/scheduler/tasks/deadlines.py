"""The one heap of deadlines of the whole state machine.

A `Timed` thing knows by itself when it is due (``due``), or that it is not (None). The heap knows for each a time at
which it has to be looked at, which is never later:

1. whatever makes a deadline, or makes it earlier, calls `Deadlines.watch`,
2. a deadline that moves to a later time, or goes away, needs no call: that is found when the entry comes to the top,
3. what ends for good while its deadline may be far away is told to `Deadlines.forget`, so that the heap never has more
   entries than twice the number of things that are waited for.

So a table of many things that all wait equally long, in the order in which they came, is one `Timed` thing: its
deadline is that of its first entry, whatever comes and goes behind that one. And what costs a task nothing is done for
no task: an entry is made when something begins to be waited for, not whenever it moves.

Things that are due at the same time come in the order in which they were entered.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterable
from heapq import heapify, heappop, heappush

#: So many entries of what has ended are kept at least, before the heap is made anew without them.
_MIN_STALE = 64


class Timed(abc.ABC):
    """Something that is due at a time, or at no time.

    Attributes
    ----------
    entered
        When the heap looks at it; None: never. Only `Deadlines` changes it.
    """

    __slots__ = ("entered",)

    def __init__(self) -> None:
        self.entered: float | None = None

    @property
    @abc.abstractmethod
    def due(self) -> float | None:
        """When it is due; None: it isn't waited for."""

    @abc.abstractmethod
    def expire(self, now: float) -> None:
        """Do what is to be done when it is due. It is over after that, or due at a later time."""


class Deadlines:
    """When what is due.

    Examples
    --------
    >>> class Egg(Timed):
    ...     due = 3.0
    ...     def expire(self, now: float) -> None:
    ...         self.due = None
    >>> deadlines = Deadlines()
    >>> deadlines.watch(Egg())
    >>> deadlines.next
    3.0
    >>> deadlines.expire(4.0)
    >>> deadlines.next is None
    True
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timed]] = []
        self._numbers = itertools.count()
        self._stale = 0  # entries of things that are looked at at another time, or never

    def __len__(self) -> int:
        """The number of things that are looked at some time."""
        return len(self._heap) - self._stale

    def watch(self, timed: Timed) -> None:
        """See to it that a thing is looked at when it is due."""
        due, entered = timed.due, timed.entered
        if due is None or (entered is not None and entered <= due):
            return
        if entered is not None:
            self._stale += 1
        timed.entered = due
        heappush(self._heap, (due, next(self._numbers), timed))

    def forget(self, timed: Timed) -> None:
        """A thing has ended, and isn't looked at any more."""
        if timed.entered is None:
            return
        timed.entered = None
        self._stale += 1
        if self._stale > _MIN_STALE and 2 * self._stale > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].entered == entry[0]]
            heapify(self._heap)
            self._stale = 0

    @property
    def next(self) -> float | None:
        """When something is due next; None: nothing is waited for."""
        while self._heap:
            entered, _, timed = self._heap[0]
            if timed.entered == entered:
                due = timed.due
                if due is not None and due <= entered:
                    return due
                self._pop()
                self.watch(timed)
            else:
                heappop(self._heap)
                self._stale -= 1
        return None

    def _pop(self) -> Timed:
        timed = heappop(self._heap)[2]
        timed.entered = None
        return timed

    def expire(self, now: float) -> None:
        """Have all things expire that are due by now, each once, in the order of their deadlines.

        Raises
        ------
        Exception
            What one of them raised. The others, and that one, are looked at the next time.
        """
        taken = []
        while (due := self.next) is not None and due <= now:
            taken.append(self._pop())
        try:
            for timed in taken:
                due = timed.due
                if due is not None and due <= now:  # else one that came before has ended it
                    timed.expire(now)
        finally:
            for timed in taken:
                self.watch(timed)

    def check(self, things: Iterable[Timed]) -> None:
        """Check that nothing is looked at too late: for validation."""
        for timed in things:
            due = timed.due
            assert due is None or (timed.entered is not None and timed.entered <= due), f"{timed!r} expires too late"
        entries = {(timed, entered) for entered, _, timed in self._heap}
        for timed, _ in entries:
            assert timed.entered is None or (timed, timed.entered) in entries, f"{timed!r} would never expire"
