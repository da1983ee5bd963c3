"""An object: what is known of it, where its bytes are, and the states that it goes through.

There are two kinds of pins: those that were asked for by message are counted here, by client, those that clients
take by themselves in the index (``shared/index.py``). An object that a client looks at outlives its deletion: it is
*doomed*, invisible to all clients that ask, its bytes in place until the last pin goes. One that no client looks at may
go to a file, and is read there from then on: it is *spilling* while it's copied, in the arena and in the index still,
for reading it does the copy no harm. Which makes it cheap to call off. One that is in the way of others is *moving*
while it's copied to another place of the arena, by the same steps::

    from                     when                                            to         in the index
    -                        sealed                                          sealed     listed, unless that is full
    -                        adopted: it is in a file of another's           spilled    -
    sealed                   chosen: no client seems to look at it           spilling   as before
    spilling                 pinned by message, or not copied                sealed     as before
    spilling                 copied, and withdrawn from the index for this,
                             with a pin there                                sealed     published again, and watched
                             without                                         spilled    not any more
    sealed                   chosen: it's in the way, no client looks        moving     as before
    moving                   pinned by message, or lent to another object    sealed     as before
    moving                   copied, and withdrawn from the index for this,
                             with a pin there                                sealed     published again, and watched
                             without                                         sealed     published, with its new offset
    sealed, spilling, moving deleted, pinned                                 doomed     withdrawn
    spilled                  deleted or damaged, pinned (by message)         doomed     -
    sealed, spilling, moving deleted, not pinned                             gone       not any more
    spilled                  deleted or damaged, not pinned                  gone       -
    doomed                   the last pin ends                               gone       not any more
"""

from __future__ import annotations

import dataclasses
import enum
from bisect import bisect_right
from operator import attrgetter
from typing import NamedTuple

from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.layout import Layout, Segment, in_one_piece


class State(enum.Enum):
    """Where an object is in its life, once its bytes are written."""

    SEALED = "sealed"
    SPILLING = "spilling"
    MOVING = "moving"
    SPILLED = "spilled"
    DOOMED = "doomed"
    GONE = "gone"


MOVES: dict[State, frozenset[State]] = {
    State.SEALED: frozenset({State.SPILLING, State.MOVING, State.DOOMED, State.GONE}),
    State.SPILLING: frozenset({State.SEALED, State.SPILLED, State.DOOMED, State.GONE}),
    State.MOVING: frozenset({State.SEALED, State.DOOMED, State.GONE}),
    State.SPILLED: frozenset({State.DOOMED, State.GONE}),
    State.DOOMED: frozenset({State.GONE}),
    State.GONE: frozenset(),
}
#: Clients that ask for it find it.
VISIBLE = (State.SEALED, State.SPILLING, State.MOVING, State.SPILLED)
#: It is being copied away from where it is.
LEAVING = (State.SPILLING, State.MOVING)


class SpillExtent(NamedTuple):
    """Where an object's bytes are once they're in a file, and the XXH3 checksum of them.

    A file that is ``adopted`` by an object is another's, and stays when the object goes. Other objects may adopt it
    too.
    """

    path: str
    offset: int
    nbytes: int
    checksum: int
    adopted: ObjectID | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMeta:
    """What the store knows about an object besides its bytes.

    Attributes
    ----------
    object_id : ObjectID or None
        Whose it is; not looked at where the id is given apart.
    key : str or None
        The name it goes by outside, such as a task's key.
    owner : str or None
        The name that it is counted for; by default the client that put it.
    type_name : str or None
        The value's type, for people.
    label : int
        A number that whoever put it has given it; 0: none. It means nothing to stores, and copies have it too.
    references : bytes
        What it refers to, as whoever put it has packed it. As with the label.
    nbytes : int
        Size of the flat encoding in bytes.
    created : float
        When it was sealed here, by the store's clock, in seconds.
    """

    object_id: ObjectID | None = None
    key: str | None = None
    owner: str | None = None
    type_name: str | None = None
    label: int = 0
    references: bytes = b""
    nbytes: int = 0
    created: float = 0.0


class ObjectRecord:
    """One object.

    ``pins`` counts per client; the table keeps it in step with the clients' own sets. ``slot`` is its place in the
    index, or 0. Its bytes are the ``own_nbytes`` at ``offset`` of the arena; if it shares others' data, ``segments``
    says where all of it is, and ``nbytes`` is more than its own. ``lent`` is set once others share its own. Once it is
    ``in_file``, its bytes are all there instead. ``offered`` grows from one offer to go to the next (``eviction.py``).
    """

    __slots__ = (
        "created",
        "in_file",
        "key",
        "label",
        "lent",
        "nbytes",
        "object_id",
        "offered",
        "offset",
        "own_nbytes",
        "owner",
        "pins",
        "references",
        "sealed_by",
        "segments",
        "slot",
        "state",
        "type_name",
    )

    def __init__(
        self,
        object_id: ObjectID,
        offset: int,
        own_nbytes: int,
        *,
        nbytes: int | None = None,
        segments: tuple[Segment, ...] = (),
        key: str | None,
        owner: str,
        type_name: str | None,
        label: int,
        references: bytes,
        created: float,
        sealed_by: int,
    ) -> None:
        self.object_id = object_id
        self.offset = offset
        self.own_nbytes = own_nbytes
        self.nbytes = own_nbytes if nbytes is None else nbytes
        self.segments = segments
        self.lent = False
        self.key = key
        self.owner = owner
        self.type_name = type_name
        self.label = label
        self.references = references
        self.created = created
        self.sealed_by = sealed_by
        self.state = State.SEALED
        self.slot = 0
        self.offered = 0
        self.in_file: SpillExtent | None = None
        self.pins: dict[int, int] = {}

    def layout(self) -> Layout:
        """Where all of it is in the arena."""
        return Layout(self.nbytes, self.segments) if self.segments else in_one_piece(self.offset, self.nbytes)

    def owns(self, offset: int) -> bool:
        """Whether a place in the arena is in its own extent."""
        return self.offset <= offset < self.offset + self.own_nbytes

    def borrowed(self) -> list[Segment]:
        """What lies elsewhere."""
        return [segment for segment in self.segments if not self.owns(segment.offset)]

    def locate(self, start: int, nbytes: int) -> int | None:
        """Where some bytes of its encoding lie in the arena. None if they aren't within one segment."""
        segments = self.layout().segments
        segment = segments[bisect_right(segments, start, key=attrgetter("start")) - 1]
        return segment.offset + start - segment.start if start + nbytes <= segment.end else None

    def meta(self) -> ObjectMeta:
        """The public part."""
        return ObjectMeta(
            object_id=self.object_id,
            key=self.key,
            owner=self.owner,
            type_name=self.type_name,
            label=self.label,
            references=self.references,
            nbytes=self.nbytes,
            created=self.created,
        )
