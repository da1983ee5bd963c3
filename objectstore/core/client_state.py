"""What the core knows of one client: what is reserved for it, its slabs, and what it waits for."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from holdfast.objectstore.core.effects import GetWait
from holdfast.objectstore.shared.ids import ObjectID


class Reservation(NamedTuple):
    """Bytes that a client has for one object, until it seals or aborts it."""

    nbytes: int
    object_id: ObjectID | None  # None if that isn't known yet
    slot: int  # of the index, or 0


@dataclasses.dataclass(slots=True)
class SlabLease:
    """A slab that a client lays small objects into, from the front: what is before the cursor is sealed, or free."""

    cursor: int
    end: int


class ClientState:
    """One client, connected or not: it may have parted, and its process live on.

    Attributes
    ----------
    reserved : dict of int and Reservation
        By offset.
    leases : list of SlabLease
        Its slabs.
    gets : set of GetWait
        What it waits for.
    """

    __slots__ = ("connected", "gets", "leases", "name", "reserved")

    def __init__(self, name: str) -> None:
        self.name = name
        self.connected = True
        self.reserved: dict[int, Reservation] = {}
        self.leases: list[SlabLease] = []
        self.gets: set[GetWait] = set()
