"""A client's side of the object index (``shared/index.py``): finds objects there, and pins them in its own row."""

from __future__ import annotations

import zlib
from collections import deque
from typing import Any, Protocol

import numpy as np

from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.index import (
    ID_WORDS,
    OPEN,
    PROBES,
    SEALED,
    SLOT_WORDS,
    STATE_WORD,
    WATCHED,
    IndexTables,
    cut_row,
)

_OWN_MAX = 64
_FENCE_SECONDS = 1.0  # others have it for microseconds


class SlotHolder(Protocol):
    """A pin in the index: which slot it counts in, and the size of the object there."""

    slot: int
    nbytes: int


class IndexView(IndexTables):
    """Finds objects in the index, and counts this client's pins in its row.

    Parameters
    ----------
    slots : int
        As the server has it.
    index, row : memoryview
        The index, and this client's row.

    Attributes
    ----------
    held : int
        How many pins there are on it.
    dropped : deque
        The slots of pins that have died, one for each; ``unpin`` ends them, but not around a fork. For finalisers to
        add to.
    """

    def __init__(self, slots: int, index: memoryview, row: memoryview) -> None:
        super().__init__(slots, index)
        self._row, self._use_bits = cut_row(row, slots)
        self._own: dict[ObjectID, None] = {}
        self._ended: dict[int, None] = {}  # slots whose counter has gone to zero since the server was told
        self.held = 0
        self.dropped: deque[int] = deque()
        self._ending = self.dropped  # another one, around a fork
        self._forks_near: set[object] = set()  # that are about to be
        self._kept: dict[object, Any] = {}  # for each fork that lives, an array of the slots that are pinned for it

    def add_own(self, object_id: ObjectID) -> None:
        """The object is this client's, no other client can have made one of this id, and its seal is on the socket."""
        self._own[object_id] = None
        if len(self._own) > _OWN_MAX:
            # Two threads may take the same one, or find that the other has added some.
            self._own.pop(next(iter(self._own.copy())), None)

    def pin(self, object_id: ObjectID, pin: SlotHolder) -> tuple[int, int] | None:
        """Pins an object that is in the index, and sets ``pin.slot``: its offset and size. None if it isn't there.

        Returns None as well if the object was deleted at this very moment; ``pin.slot`` is set then
        too, and is to be dropped like any other.
        """
        high, low = ID_WORDS.unpack(object_id)
        slot = self._find(object_id, high, low)
        if not slot:
            return None
        with self._fence:
            self._row[slot] += 1
            self.held += 1
            pin.slot = slot
        words, at = self._words, slot * SLOT_WORDS
        if words[at + 1] == low and words[at] == high and not self._row[0]:
            state = words[at + STATE_WORD]
            if SEALED <= state <= WATCHED or (state == OPEN and object_id in self._own):
                return words[at + 2], words[at + 3]
        return None

    @property
    def pending(self) -> bool:
        """Whether ``unpin`` has anything to do."""
        return bool(self.dropped) or bool(self._ended)

    def unpin(self) -> list[int]:
        """Ends the pins that were dropped. The slots whose last unpin the server waits for, until ``told``.

        Not to be called by two threads at a time.
        """
        dropped, row, ended = self._ending, self._row, self._ended
        while dropped:
            with self._fence:
                # Nothing is called in here: an interrupt finds the pin dropped, or ended.
                slot = dropped[0]
                del dropped[0]
                left = row[slot] = row[slot] - 1
                self.held -= 1
                self._use_bits[slot] = 1
                if not left:
                    ended[slot] = None
        return [slot for slot in ended if self._words[slot * SLOT_WORDS + STATE_WORD] >= WATCHED]

    def told(self) -> None:
        """The server has been told what ``unpin`` gave."""
        self._ended.clear()

    def disown(self) -> None:
        """This is a forked child: the pins are the parent's. Takes no lock."""
        self.dropped = self._ending = deque()
        self._forks_near.clear()
        self._kept.clear()

    def before_fork(self, fork: object) -> None:
        """A fork is near: what is dropped from now on stays pinned until ``after_fork``. Twice is no error."""
        self._forks_near.add(fork)
        if self.dropped is self._ending:
            self.dropped = deque()

    def after_fork(self, fork: object) -> bool:
        """Pins what is pinned once more, until the fork has ended. Whether there's anything; twice is no error."""
        fenced: list[bool] = []
        try:
            if fork not in self._kept:
                # One step, for an interrupt. And a signal's handler that forks may have come while this very thread
                # had the lock; no change was half done then.
                fenced.extend(map(self._fence.acquire, (True,), (_FENCE_SECONDS,)))
                # What had died before the fork, and what is pinned for others, the child doesn't have.
                alive = np.array(self._row[: self._words[0]], np.int64)
                np.subtract.at(alive, np.fromiter(tuple(self._ending), np.intp), 1)
                for slots in self._kept.values():
                    alive[slots] -= 1
                alive[:1] = 0  # no client's counter
                slots = np.flatnonzero(alive > 0)
                row = np.asarray(self._row)
                row[slots] += 1
                self.held += len(slots)
                self._kept[fork] = slots
        finally:
            if fenced and fenced[0]:
                self._fence.release()
        self._forks_near.discard(fork)
        if not self._forks_near and self.dropped is not self._ending:
            aside, self.dropped = self.dropped, self._ending
            self._ending.extend(aside)
        return len(self._kept[fork]) > 0

    def fork_ended(self, fork: object) -> None:
        """What was pinned for the fork is dropped."""
        with self._fence:
            self.dropped.extend(self._kept.pop(fork).tolist())

    def contains(self, object_id: ObjectID) -> bool:
        """Whether the object is in the index. False may also mean that the server has to be asked."""
        slot = self._find(object_id, *ID_WORDS.unpack(object_id))
        if not slot:
            return False
        state = self._words[slot * SLOT_WORDS + STATE_WORD]
        return SEALED <= state <= WATCHED or (state == OPEN and object_id in self._own)

    def _find(self, object_id: ObjectID, high: int, low: int) -> int:
        """The slot that has this id, or 0. ``high`` and ``low`` are the id's two words."""
        words, buckets = self._words, self._buckets
        home = zlib.crc32(object_id) & self._mask
        for bucket in range(home, home + PROBES):
            slot = buckets[bucket]
            if slot:
                at = slot * SLOT_WORDS
                if words[at + 1] == low and words[at] == high:
                    return slot
        return 0
