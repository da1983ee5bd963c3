"""The server's side of the object index (``shared/index.py``): lists objects, and reads what is pinned."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.index import (
    FREE,
    ID_WORDS,
    OPEN,
    PROBES,
    SEALED,
    SLOT_WORDS,
    STATE_WORD,
    WATCHED,
    WITHDRAWN,
    IndexTables,
    cut_row,
)

_STRETCH = 1 << 10
_ZEROS = bytes(4 * _STRETCH)


class ObjectIndex(IndexTables):
    """Writes the index, and reads the clients' rows. It's laid into shared memory when the store starts (``lie_in``).

    Parameters
    ----------
    slots : int
        From ``slots_for``.
    """

    def __init__(self, slots: int) -> None:
        super().__init__(slots, None)
        self._bucket_of: dict[int, int] = {}
        self._unused = 1  # slots from here on were never used
        self._freed: list[int] = []
        self._rows: dict[int, memoryview] = {}
        self._use_bits: dict[int, memoryview] = {}

    def add(self, object_id: ObjectID, offset: int, nbytes: int, *, is_open: bool = False) -> int:
        """Lists a sealed object, or one to come; its slot, or 0 if there's no place for it."""
        buckets = self._buckets
        home = zlib.crc32(object_id) & self._mask
        for bucket in range(home, home + PROBES):
            if not buckets[bucket]:
                break
        else:
            return 0
        if self._freed:
            slot = self._freed.pop()
        elif self._unused < self.slots:
            slot = self._unused
            self._unused += 1
            self._words[0] = self._unused
        else:
            return 0
        words, at = self._words, slot * SLOT_WORDS
        words[at], words[at + 1] = ID_WORDS.unpack(object_id)
        words[at + 2] = offset
        words[at + 3] = nbytes
        words[at + STATE_WORD] = OPEN if is_open else SEALED
        buckets[bucket] = slot
        self._bucket_of[slot] = bucket
        return slot

    def seal(self, slot: int) -> None:
        """An open object is there for all clients."""
        self._words[slot * SLOT_WORDS + STATE_WORD] = SEALED

    def withdraw(self, slot: int) -> bool:
        """No client finds the object any more. Whether a client has a pin on it still."""
        self._words[slot * SLOT_WORDS + STATE_WORD] = WITHDRAWN
        with self._fence:
            return self.pinned(slot)

    def publish(self, slot: int) -> None:
        """The object is found as it was before it was withdrawn or watched."""
        self._words[slot * SLOT_WORDS + STATE_WORD] = SEALED

    def move(self, slot: int, offset: int) -> None:
        """The object, which is withdrawn and has no pins, is found again, at another place of the arena."""
        self._words[slot * SLOT_WORDS + 2] = offset
        self.publish(slot)

    def watch(self, slot: int) -> bool:
        """Whether a client has a pin on the object; the last unpin is told then. It's published."""
        self._words[slot * SLOT_WORDS + STATE_WORD] = WATCHED
        with self._fence:
            viewed = self.pinned(slot)
        if not viewed:
            self.publish(slot)
        return viewed

    def was_used(self, slot: int) -> bool:
        """Whether a pin on the object has ended since this was asked last."""
        used = False
        for use_bits in self._use_bits.values():
            if use_bits[slot]:
                use_bits[slot] = 0
                used = True
        return used

    def pinned(self, slot: int) -> bool:
        """Whether the counter of the slot is above zero in any row."""
        return any(row[slot] for row in self._rows.values())

    def remove(self, slot: int) -> None:
        """The slot may become another object's. To be called when it's withdrawn, or open, and has no pins."""
        self._buckets[self._bucket_of.pop(slot)] = 0
        self._words[slot * SLOT_WORDS + STATE_WORD] = FREE
        self._freed.append(slot)

    def attach(self, client: int, row: memoryview) -> None:
        """A client's row counts from now on."""
        self._rows[client], self._use_bits[client] = cut_row(row, self.slots)

    def refuse_pins(self, client: int) -> bool:
        """The client may keep the pins it has, and take no more. Whether it has any."""
        row = self._rows.get(client)
        if row is None:
            return False
        row[0] = 1
        with self._fence:
            return next(_above_zero(row, self._unused), None) is not None

    def detach(self, client: int) -> None:
        """The client's row doesn't count any more."""
        self._rows.pop(client, None)
        self._use_bits.pop(client, None)

    def pins(self) -> dict[int, dict[int, int]]:
        """All counters above zero, by slot and client. For people."""
        found: dict[int, dict[int, int]] = {}
        for client, row in self._rows.items():
            for slot, counter in _above_zero(row, self._unused):
                found.setdefault(slot, {})[client] = counter
        return found


def _above_zero(counters: memoryview, end: int) -> Iterator[tuple[int, int]]:
    """The slots before ``end`` whose counters are, with the counters. Most are not: a stretch of zeros is one look."""
    for start in range(1, end, _STRETCH):
        stretch = counters[start : min(start + _STRETCH, end)].tobytes()
        if stretch != _ZEROS[: len(stretch)]:
            yield from ((slot, n) for slot, n in enumerate(memoryview(stretch).cast("I"), start) if n)
