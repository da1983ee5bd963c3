"""What the core wants done: small tuples, which the server carries out."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from holdfast.objectstore.core.objects import SpillExtent
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.layout import Layout
from holdfast.objectstore.shared.protocol import Status

SERVER = 0  # the client id under which the server itself, and the node agent through it, pins and reserves


class Answer(NamedTuple):
    """The answer to one request of one client."""

    client: int
    request: int
    status: Status
    payload: tuple[Any, ...]


class StartFetch(NamedTuple):
    """An object is to be brought in; ``fetch_done`` is to be called when that has ended."""

    object_id: ObjectID
    sources: list[str]


@dataclasses.dataclass(slots=True, eq=False)
class GetWait:
    """A request for an object that isn't there, or the question whether it is."""

    client: int
    request: int
    object_id: ObjectID
    sources: list[str]  # where it may be fetched from, those that have failed left out; none if it waits for a seal
    pins: bool = True
    done: bool = False


class ReadOthers(NamedTuple):
    """All sockets are to be read as far as they can be; ``others_read`` is to be called with ``wait`` after that."""

    wait: GetWait


class Spill(NamedTuple):
    """Objects' bytes in the arena are to be copied to files; ``spill_done`` is to be called when that has ended."""

    layouts: list[Layout]


class Shift(NamedTuple):
    """Bytes of the arena that are to be copied to another place there."""

    source: int
    target: int
    nbytes: int


class MoveObjects(NamedTuple):
    """Objects are to be copied within the arena; ``moved`` is to be called when that has ended."""

    shifts: list[Shift]


class Punch(NamedTuple):
    """The pages of some bytes of the arena, which are free, are to be given back."""

    offset: int
    nbytes: int


class ContinueSearch(NamedTuple):
    """``continue_search`` is to be called in the next turn of the loop: a search hasn't ended."""


class Verify(NamedTuple):
    """A spilled object is to be held against its checksum; ``verified`` is to be called then."""

    object_id: ObjectID
    extent: SpillExtent


class Drop(NamedTuple):
    """What a spilled object was in a file isn't needed any more."""

    extent: SpillExtent


Effect = Answer | StartFetch | ReadOthers | Spill | MoveObjects | ContinueSearch | Punch | Verify | Drop
