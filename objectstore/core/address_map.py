"""Which object lies where in the arena, in the order of addresses.

The arena is cut into strips of a megabyte, and each strip that an object begins in has a dictionary of those. So an
object comes and goes at the cost of a dictionary, and a walk through the arena sorts one strip after the other, a
bounded piece of work, and may stop after each of them: nothing is ever sorted as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.objectstore.core.objects import ObjectRecord

STRIP_NBYTES = 1 << 20


class AddressMap:
    """The objects in the arena, by where their own bytes are."""

    def __init__(self) -> None:
        self._strips: dict[int, dict[int, ObjectRecord]] = {}

    def add(self, record: ObjectRecord) -> None:
        """The object lies at its offset now."""
        number = record.offset // STRIP_NBYTES
        strip = self._strips.get(number)
        if strip is None:
            self._strips[number] = {record.offset: record}
        else:
            strip[record.offset] = record

    def remove(self, record: ObjectRecord) -> None:
        """The object lies at its offset no more."""
        number = record.offset // STRIP_NBYTES
        strip = self._strips[number]
        del strip[record.offset]
        if not strip:
            del self._strips[number]

    def within(self, strip: int) -> list[ObjectRecord]:
        """The objects that begin in a strip, in order."""
        places = self._strips.get(strip)
        return [] if places is None else [places[offset] for offset in sorted(places)]

    def __iter__(self) -> Iterator[ObjectRecord]:
        return (record for strip in self._strips.values() for record in strip.values())
