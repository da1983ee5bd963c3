"""An object in several places: the segments of its encoding.

An object that shares data with others has only an *own* extent to itself, and lies in *segments*: each says which
stretch of the flat encoding is where in the arena. The shared ones lie in other objects' extents. What is left of the
encoding lies in the own extent, in order and without gaps.

A shared segment begins at a multiple of 64 of the encoding, as all data that is used in place does. What follows one
begins at the next multiple of 64 too, and the few bytes between belong to no segment: they are zeros wherever the
encoding is written out flat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from holdfast.objectstore.errors import StoreProtocolError
from holdfast.objectstore.memory.free_extents import ALIGNMENT


class Segment(NamedTuple):
    """One stretch: where it begins in the flat encoding, where in the arena, and its size."""

    start: int
    offset: int
    nbytes: int

    @property
    def end(self) -> int:
        """Where it ends in the flat encoding."""
        return self.start + self.nbytes


class Layout(NamedTuple):
    """A whole encoding: its size, and its segments in order."""

    nbytes: int
    segments: tuple[Segment, ...]

    def with_gaps(self) -> Iterator[tuple[Segment, int]]:
        """The segments, each with the number of zeros that follow it."""
        ends = [*(segment.start for segment in self.segments[1:]), self.nbytes]
        return ((segment, end - segment.end) for segment, end in zip(self.segments, ends, strict=True))


def lay_out(nbytes: int, own_offset: int, own_nbytes: int, shared: Sequence[Segment]) -> tuple[Segment, ...]:
    """The segments of an encoding of ``nbytes``, all of them in order.

    Raises
    ------
    StoreProtocolError
        If ``shared`` isn't in order, overlaps, reaches beyond the encoding, or leaves another number of bytes to the
        own extent than that has; or leaves it none at the front, where the header is.
    """
    segments: list[Segment] = []
    at, own_at = 0, own_offset
    for segment in shared:
        if segment.start < max(at, 1) or segment.start % ALIGNMENT or segment.nbytes < 1 or segment.end > nbytes:
            raise StoreProtocolError(
                f"bytes from {segment.start} to {segment.end} of an object of {nbytes} can't be shared"
            )
        if segment.start > at:
            segments.append(Segment(at, own_at, segment.start - at))
            own_at += segment.start - at
        segments.append(segment)
        at = -(-segment.end // ALIGNMENT) * ALIGNMENT
    if at < nbytes:
        segments.append(Segment(at, own_at, nbytes - at))
        own_at += nbytes - at
    if own_at != own_offset + own_nbytes:
        raise StoreProtocolError(f"{own_nbytes} bytes are not what {len(shared)} shared pieces leave of {nbytes}")
    return tuple(segments)


def in_one_piece(offset: int, nbytes: int) -> Layout:
    """The layout of an encoding that is all at ``offset``."""
    return Layout(nbytes, (Segment(0, offset, nbytes),))
