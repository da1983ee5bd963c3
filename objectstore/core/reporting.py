"""What the core says of itself: its figures, its objects, and why there is no room. It changes nothing.

The error of a full store says which client holds what, what can't go to disk since a client looks at it, and what
stands in the way if there is room enough altogether (``obstacles.py``).
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from holdfast.objectstore.core.client_state import ClientState
from holdfast.objectstore.core.compaction import Compaction
from holdfast.objectstore.core.create_queue import CreateQueue
from holdfast.objectstore.core.lookups import Lookups
from holdfast.objectstore.core.objects import ObjectRecord
from holdfast.objectstore.core.obstacles import EXTENTS_MAX, Obstacle, obstacles
from holdfast.objectstore.core.sharing import Sharing
from holdfast.objectstore.core.spill_policy import SpillPolicy
from holdfast.objectstore.core.table import ObjectTable
from holdfast.objectstore.memory.allocator import Allocator
from holdfast.objectstore.memory.free_extents import footprint
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.sizes import format_size

_HOLDERS_NAMED = 3
_OBSTACLES_NAMED = 5
_VIEWERS_LISTED = 20


class Reporting:
    """Looks into the parts of one core.

    Parameters
    ----------
    clients, table, allocator, sharing, queue, lookups, spill_policy, compaction
        The parts.
    clock : callable
        Seconds, never going back.
    why_not_spilled : str
        Why objects aren't spilled, if they aren't.
    """

    def __init__(
        self,
        *,
        clients: Mapping[int, ClientState],
        table: ObjectTable,
        allocator: Allocator,
        sharing: Sharing,
        queue: CreateQueue,
        lookups: Lookups,
        spill_policy: SpillPolicy,
        compaction: Compaction,
        clock: Callable[[], float],
        why_not_spilled: str,
    ) -> None:
        self._clients = clients
        self._table = table
        self._allocator = allocator
        self._sharing = sharing
        self._queue = queue
        self._lookups = lookups
        self._spill_policy = spill_policy
        self._compaction = compaction
        self._clock = clock
        self._why_not_spilled = why_not_spilled

    def stats(self) -> dict[str, Any]:
        """The figures of the store, in bytes, counts and seconds."""
        doomed = list(self._table.doomed())
        reserved = [each.nbytes for client in self._clients.values() for each in client.reserved.values()]
        return {
            "capacity": self._allocator.capacity,
            "used": self._allocator.used_nbytes,
            "free": max(0, self._allocator.free_nbytes),
            "largest_free": self._allocator.largest_free_nbytes(),
            "apart": self._allocator.apart_nbytes,
            "objects": len(self._table),
            "object_nbytes": sum(nbytes for nbytes, _ in self._table.held_by.values()),
            "sealed": self._table.sealed_count,  # ever, and the bytes that were written for them
            "sealed_nbytes": self._table.sealed_nbytes,
            "shared_nbytes": self._sharing.shared_nbytes,
            **self._spill_policy.stats(),
            **self._compaction.stats(),
            "deleted_but_pinned": len(doomed),
            "deleted_but_pinned_nbytes": sum(record.nbytes for record in doomed),
            "deleted_but_pinned_by": self._viewers(doomed)[:_VIEWERS_LISTED],
            "reserved": len(reserved),
            "reserved_nbytes": sum(reserved),
            "leased_nbytes": sum(
                lease.end - lease.cursor for client in self._clients.values() for lease in client.leases
            ),
            "pins": self._table.pin_count(),
            "waiting_creates": len(self._queue),
            "waiting_gets": sum(map(len, self._lookups.waiting.values())),
            "fetches": len(self._lookups.fetches),
            "clients": sum(client.connected for client in self._clients.values()) - 1,
            "quarantined": sum(not client.connected for client in self._clients.values()),
            "tombstones": self._table.tombstone_count(),
            "held_by": {owner: nbytes for owner, (nbytes, _) in self._table.held_by.items()},
        }

    def describe(self, start: int = 0, limit: int | None = None) -> list[dict[str, Any]]:
        """The objects, and the bytes reserved for ones to come, from the ``start``-th on."""
        now = self._clock()
        stop = None if limit is None else start + limit
        return [*itertools.islice(self._descriptions(now), start, stop)]

    def describe_one(self, object_id: ObjectID) -> dict[str, Any] | None:
        """An object, like `describe`; None if it isn't here."""
        record = self._table.find(object_id)
        if record is None:
            return None
        ((_, pins),) = self._table.pins_of([record])
        return self._description(record, pins, self._clock())

    def _descriptions(self, now: float) -> Iterator[dict[str, Any]]:
        for record, pins in self._table.pins_of(itertools.chain(self._table.records(), self._table.doomed())):
            yield self._description(record, pins, now)
        for client in self._clients.values():
            for reservation in client.reserved.values():
                yield {
                    "id": None if reservation.object_id is None else reservation.object_id.hex(),
                    "key": None,
                    "owner": client.name,
                    "type": None,
                    "nbytes": reservation.nbytes,
                    "age": None,
                    "pins": 0,
                    "pinned_by": [],
                    "state": "created",
                }

    def _description(self, record: ObjectRecord, pins: dict[int, int], now: float) -> dict[str, Any]:
        return {
            "id": record.object_id.hex(),
            "key": record.key,
            "owner": record.owner,
            "type": record.type_name,
            "nbytes": record.nbytes,
            "age": now - record.created,
            "pins": sum(pins.values()),
            "pinned_by": [self._clients[client].name for client in pins],
            "state": record.state.value,
        }

    # The errors of a full store

    def full_message(self, nbytes: int, waited: float) -> str:
        """Why there's no room for a request that has waited for so many seconds: the error of a full store."""
        capacity = self._allocator.capacity
        if footprint(nbytes) > capacity:
            return (
                f"{format_size(nbytes)} requested, more than the {format_size(capacity)} that the store has"
                + self._who_holds()
            )
        text = (
            f"{format_size(nbytes)} requested, {format_size(max(0, self._allocator.free_nbytes))} free"
            f" of {format_size(self._allocator.capacity)}"
        )
        if nbytes <= self._allocator.free_nbytes:
            text += f", the largest piece {format_size(self._allocator.largest_free_nbytes())}"
        if waited:
            text += f" after {waited:g} s" + self._in_the_way_of(nbytes)
        text += self._who_holds()
        if self._spill_policy.error is not None:
            text += f"; spilling to disk failed: {self._spill_policy.error}"
        if self._why_not_spilled:
            text += f"; nothing was moved to disk: {self._why_not_spilled}"
        return text

    def _in_the_way_of(self, nbytes: int) -> str:
        """What stands in a request's way, if there would be room enough for it altogether; for an error's text."""
        extents = [Obstacle(offset, offset + size, None) for offset, size in self._allocator.free_extents()]
        extents += [Obstacle(offset, offset + size, None) for offset, size in self._compaction.taken()]
        if len(self._table) + len(extents) > EXTENTS_MAX:
            return ""
        in_arena = (record for record in [*self._table.records(), *self._table.doomed()] if record.in_file is None)
        pins_of: dict[ObjectRecord, dict[int, int]] = {}
        users: dict[int, ObjectRecord] = {}  # of shared stretches, by their starts: one that is looked at
        for record, pins in self._table.pins_of(in_arena):
            if pins:
                pins_of[record] = pins
                users.update((stretch.start, record) for stretch in self._sharing.stretches_of(record))
            if not record.lent:
                end = record.offset + footprint(record.own_nbytes)
                extents.append(Obstacle(record.offset, end, record if pins else None))
        extents += [Obstacle(start, end, users.get(start)) for start, end, _ in self._sharing.stretches()]
        for client in self._clients.values():
            for offset, reserved in client.reserved.items():
                extents.append(Obstacle(offset, offset + footprint(reserved.nbytes), client))
            extents += [
                Obstacle(lease.cursor, lease.end, client) for lease in client.leases if lease.cursor < lease.end
            ]
        may_go = sum(extent.end - extent.start for extent in extents if extent.what is None)
        if footprint(nbytes) > (may_go if self._spill_policy.enabled else self._allocator.free_nbytes):
            return ""  # it's full, whatever lies where
        in_the_way = obstacles(extents, nbytes)
        named = []
        for what, size in in_the_way[:_OBSTACLES_NAMED]:
            if isinstance(what, ObjectRecord):
                viewers = ", ".join(f"'{self._clients[client].name}'" for client in [*pins_of[what]][:_HOLDERS_NAMED])
                named.append(f"{format_size(size)} of '{what.key or what.object_id}' looked at by {viewers}")
            elif isinstance(what, ClientState):
                named.append(f"{format_size(size)} not yet sealed by '{what.name}'")
        if not named:
            return ""
        more = f" and {len(in_the_way) - len(named)} more" if len(in_the_way) > len(named) else ""
        return (
            f"; the best place for it is walled in by {', '.join(named)}{more}: it fits as soon as these are let go of"
        )

    def _who_holds(self) -> str:
        """What takes up the space, as the end of an error's text."""
        text = ""
        holders: dict[str, tuple[int, str]] = {
            owner: (held, f"client '{owner}' {format_size(held)} ({count} {'object' if count == 1 else 'objects'})")
            for owner, (held, count) in self._table.held_by.items()
        }
        for client in self._clients.values():
            if client.reserved:
                held = sum(reservation.nbytes for reservation in client.reserved.values())
                holders[f"\0{client.name}"] = held, f"client '{client.name}' {format_size(held)} not yet sealed"
        largest = sorted(holders.values(), reverse=True, key=operator.itemgetter(0))[:_HOLDERS_NAMED]
        if largest:
            text += "; largest holders: " + ", ".join(name for _, name in largest)
            if self._sharing.shared_nbytes:
                text += f"; {format_size(self._sharing.shared_nbytes)} of it are shared, and counted more than once"
        doomed = [record for record in self._table.doomed() if record.in_file is None]
        if doomed:
            named = ", ".join(f"'{name}'" for name in self._viewers(doomed)[:_HOLDERS_NAMED])
            nbytes = sum(record.nbytes for record in doomed)
            text += f"; {format_size(nbytes)} deleted but still viewed by {named}"
        return text + (self._who_looks() if self._spill_policy.enabled else "")

    def _who_looks(self) -> str:
        """What can't be spilled because it's looked at, as the end of an error's text."""
        total = 0
        viewed: dict[str, int] = {}
        for record, pins in self._table.pins_of(self._table.records()):
            if pins and record.in_file is None:
                total += record.nbytes
                for client in pins:
                    name = self._clients[client].name
                    viewed[name] = viewed.get(name, 0) + record.nbytes
        if not total:
            return ""
        largest = sorted(viewed.items(), reverse=True, key=operator.itemgetter(1))[:_HOLDERS_NAMED]
        named = ", ".join(f"'{name}' {format_size(nbytes)}" for name, nbytes in largest)
        return f"; {format_size(total)} can't go to disk while it's looked at, most of it by {named}"

    def _viewers(self, records: Iterable[ObjectRecord]) -> list[str]:
        return sorted({self._clients[client].name for _, pins in self._table.pins_of(records) for client in pins})
