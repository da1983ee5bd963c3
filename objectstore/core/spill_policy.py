"""When objects go to disk, and what is seen to before a client reads them there. The core's part that spills.

Room is made by spilling ------------------------ A request that finds no room has a window of the arena cleared
(``compaction.py``), and waits in the queue while what was there is copied. What has no other place in the arena is
spilled; if there are too few free bytes altogether, so are some more objects for the requests that come next, the ones
that weren't used for longest. A store that fills up begins before a request waits. A batch that fails (a full disk) is
followed by a pause, in which the objects stay where they are and a full store says why.

What is on disk may have been damaged
-------------------------------------
The caller verifies the checksum of a spilled object before any client sees it. The core asks for that (``Verify``)
once, however many clients want the object. The store itself has a pin meanwhile, so the file stays. If the file is
damaged, all these clients are told, and the object is gone.

Which objects go is the table's to say, and the copying the caller's to do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from holdfast.objectstore.core.effects import SERVER, Answer, Drop, Effect, Spill, Verify
from holdfast.objectstore.core.objects import ObjectRecord, SpillExtent, State
from holdfast.objectstore.core.table import ObjectTable
from holdfast.objectstore.memory.allocator import Allocator
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.protocol import Status

AHEAD_SHARE = 0.8  # a store that is fuller spills before a request waits ...
DOWN_TO_SHARE = 0.7  # ... a batch that leaves it this full, or
AHEAD_NBYTES_MAX = 64 << 20  # one of so much, so that a request that comes doesn't wait for long
BATCH_NBYTES_MIN = 16 << 20  # for a request, or an eighth of a small store: small ones don't spill one by one
SPILL_PAUSE_SECONDS = 5.0


@dataclasses.dataclass(slots=True, eq=False)
class _Verification:
    record: ObjectRecord
    waiting: list[tuple[int, int]]  # client, request


class SpillPolicy:
    """What of the store is on its way to disk, and what is being verified there.

    Parameters
    ----------
    table : ObjectTable
        The objects.
    allocator : Allocator
        The room.
    free : callable
        Called with the record when an object has left the arena.
    do : callable
        Takes what is to be done.
    clock : callable
        Seconds, never going back.
    enabled : bool
        If not, nothing is ever spilled.

    Attributes
    ----------
    error : str or None
        What went wrong with the last batch.
    again_at : float or None
        Until when nothing is spilled, because that went wrong.
    """

    def __init__(
        self,
        table: ObjectTable,
        allocator: Allocator,
        *,
        free: Callable[[ObjectRecord], None],
        do: Callable[[Effect], None],
        clock: Callable[[], float],
        enabled: bool,
    ) -> None:
        self.enabled = enabled
        self.error: str | None = None
        self.again_at: float | None = None
        self._table = table
        self._allocator = allocator
        self._ahead_nbytes = allocator.capacity - int(AHEAD_SHARE * allocator.capacity)
        self._free = free
        self._do = do
        self._clock = clock
        self._batch: list[ObjectRecord] = []  # what is being copied
        self._verifications: dict[SpillExtent, _Verification] = {}
        self._written_nbytes = 0
        self._read_nbytes = 0

    # Going

    @property
    def busy(self) -> bool:
        """Whether a batch is being copied: one at a time."""
        return bool(self._batch)

    @property
    def may_spill(self) -> bool:
        """Whether objects may go to disk: here at all, and now."""
        return self.enabled and self.again_at is None

    def spill(self, records: list[ObjectRecord], *, missing_nbytes: int) -> bool:
        """Has these objects, which may go, copied to files. Whether there are any.

        If there are too few free bytes by ``missing_nbytes``, others go too, as many as that, or a batch.
        """
        for record in records:
            self._table.choose(record, State.SPILLING)
        self._batch = records
        if missing_nbytes > 0:
            nbytes = max(missing_nbytes, min(BATCH_NBYTES_MIN, self._allocator.capacity // 8))
            self._batch = records + self._table.victims(nbytes - sum(map(self._table.eviction.weigh, records)))
        if self._batch:
            self._do(Spill([record.layout() for record in self._batch]))
        return self.busy

    @property
    def is_filling_up(self) -> bool:
        """Whether the store is about to be full."""
        return self._allocator.free_nbytes < self._ahead_nbytes

    def go_ahead(self) -> None:
        """Spills before a request waits."""
        if self.may_spill and not self.busy:
            nbytes = self._allocator.used_nbytes - int(DOWN_TO_SHARE * self._allocator.capacity)
            victims = self._table.victims(min(nbytes, AHEAD_NBYTES_MAX))
            if victims:
                self._batch = victims
                self._do(Spill([record.layout() for record in victims]))

    def done(self, extents: list[SpillExtent | None], error: str | None) -> None:
        """The batch has ended: where each of its objects is now, None if it isn't in a file, and why."""
        batch, self._batch = self._batch, []
        for record, extent in zip(batch, extents, strict=True):
            if extent is None:
                self._table.stay(record)
            elif self._table.spilled(record, extent):
                self._written_nbytes += record.nbytes
                self._free(record)
            else:
                self._do(Drop(extent))
        self.error = error
        if error is not None:
            self.again_at = self._clock() + SPILL_PAUSE_SECONDS

    def resume(self) -> bool:
        """Whether a pause has ended just now."""
        if self.again_at is None or self.again_at > self._clock():
            return False
        self.again_at = None
        return True

    # Being read

    def show(self, record: ObjectRecord, client: int, request: int) -> None:
        """Pins a spilled object for the client, once it's verified.

        Replied with its offset in a file, its size and the file's path, or UNREADABLE.
        """
        extent = record.in_file
        assert extent is not None
        if extent in self._verifications:
            self._verifications[extent].waiting.append((client, request))
            return
        self._table.pin(record, SERVER)
        self._verifications[extent] = _Verification(record, [(client, request)])
        self._do(Verify(record.object_id, extent))

    def verified(self, extent: SpillExtent, error: str | None, *, lost: bool) -> None:
        """A spilled object is as it was, and is shown to all that wait; or can't be read, or is ``lost``."""
        verification = self._verifications.pop(extent)
        record = verification.record
        if error is None:
            self._read_nbytes += record.nbytes
        elif lost:
            self.lose(record.object_id, extent)
        for client, request in verification.waiting:
            if error is None:
                self._table.pin(record, client)
                self._do(Answer(client, request, Status.OK, (extent.offset, extent.nbytes, extent.path, None)))
            else:
                self._do(Answer(client, request, Status.UNREADABLE, (error,)))
        self._table.unpin(record.object_id, SERVER)

    def lose(self, object_id: ObjectID, extent: SpillExtent) -> None:
        """What the object is in a file is damaged: the object isn't here any more, but may come from elsewhere."""
        record = self._table.get(object_id)
        if record is not None and record.in_file == extent:
            self._table.lose(object_id)

    def forget(self, client: int) -> None:
        """The client wants no answer any more."""
        for verification in self._verifications.values():
            verification.waiting = [asked for asked in verification.waiting if asked[0] != client]

    # Looking

    def stats(self) -> dict[str, Any]:
        """What is on disk, what has been moved there and looked at there, and what went wrong."""
        nbytes, count = self._table.in_files
        return {
            "spilled": count,
            "spilled_nbytes": nbytes,
            "spilled_total_nbytes": self._written_nbytes,
            "spill_read_total_nbytes": self._read_nbytes,
            "spill_error": self.error,
        }

    def check(self, records: list[ObjectRecord]) -> None:
        """Asserts what must hold between any two events, ``records`` being all that there are."""
        assert all(record in self._batch for record in records if record.state is State.SPILLING)
        in_files = [record.in_file for record in records if record.in_file is not None]
        assert self.enabled or not in_files
        assert len(set(in_files)) == len(in_files)
        assert all(SERVER in verification.record.pins for verification in self._verifications.values())
        assert self._verifications.keys() <= set(in_files)
