"""Which objects go first when room is needed: those that no client looks at, those that weren't used for long first.

An object is *offered* when it's sealed, and when the last pin that was asked for by message ends. It goes to the
back of one queue, and victims are taken from the front. That would be the order of use, if it weren't for the
index (``shared/index.py``), in which clients pin objects without telling. So the index is asked about each object
that has come to the front:

* One that a client looks at is *awaited*: it leaves the queue, and comes back, at its end, when the last of them
  says that it has ceased to. So it's asked about once, however often room is needed meanwhile.
* One that a client has looked at since it was asked about last gets a second chance, at the end of the queue.

An object may be taken out of the line as well, since it lies in the middle of what would be a large hole
(``windows.py``); the older its offer, the cheaper it is.

Among the others the order is thus that of their seals and asked-for pins, not quite that of their last use: what
clock algorithms give. A request that finds nothing but second chances ends them after ``SECOND_CHANCES``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from holdfast.objectstore.core.object_index import ObjectIndex
from holdfast.objectstore.core.objects import ObjectRecord
from holdfast.objectstore.shared.ids import ObjectID

SECOND_CHANCES = 4096


class Eviction:
    """The objects that may go, as far as is known, in the order in which they would.

    Parameters
    ----------
    index : ObjectIndex
        Where others may be looking at them.
    weigh : callable
        The bytes that are free once an object has gone.
    """

    def __init__(self, index: ObjectIndex, weigh: Callable[[ObjectRecord], int]) -> None:
        self._index = index
        self.weigh = weigh
        self._queue: OrderedDict[ObjectID, ObjectRecord] = OrderedDict()
        self._awaited: dict[int, ObjectRecord] = {}  # by slot
        self.offers = 0  # so far

    def __contains__(self, record: ObjectRecord) -> bool:
        return record.object_id in self._queue or self._awaited.get(record.slot) is record

    def __len__(self) -> int:
        return len(self._queue) + len(self._awaited)

    def offer(self, record: ObjectRecord) -> None:
        """The object may go, after all others. It isn't among them."""
        self.offers = record.offered = self.offers + 1
        self._queue[record.object_id] = record

    def forget(self, record: ObjectRecord) -> None:
        """The object may not go, or has gone."""
        if self._queue.pop(record.object_id, None) is None and self._awaited.get(record.slot) is record:
            del self._awaited[record.slot]
            self._index.publish(record.slot)

    def victims(self, nbytes: int) -> list[ObjectRecord]:
        """The objects that are to go for ``nbytes`` more of free arena; all that may go, if they're too few.

        They're forgotten. What the index says of them may not be true any more when they are to go.
        """
        chosen = []
        chances = SECOND_CHANCES
        while nbytes > 0 and self._queue:
            _, record = self._queue.popitem(last=False)
            if record.slot and self._index.pinned(record.slot):
                self.await_views(record)
            elif record.slot and chances and self._index.was_used(record.slot):
                chances -= 1
                self.offer(record)
            else:
                chosen.append(record)
                nbytes -= self.weigh(record)
        return chosen

    def may_go(self, record: ObjectRecord) -> bool:
        """Whether no client looks at an object, one of these. If one does, the object is awaited."""
        if record.slot and self._index.pinned(record.slot):
            if self._queue.pop(record.object_id, None) is not None:
                self.await_views(record)
            return False
        return record.object_id in self._queue

    def age(self, record: ObjectRecord) -> float:
        """From 0, for the object that was offered last, to 1, for the first in line. One that was used is the last."""
        if record.slot and self._index.was_used(record.slot):
            del self._queue[record.object_id]
            self.offer(record)
        if record.offered == self.offers:
            return 0.0
        first = next(iter(self._queue.values())).offered
        return (self.offers - record.offered) / max(1, self.offers - first)

    def await_views(self, record: ObjectRecord) -> None:
        """The object may go when its last pin in the index has ended. It's published there again."""
        if self._index.watch(record.slot):
            self._awaited[record.slot] = record
        else:
            self.offer(record)

    def last_unpin(self, slot: int) -> None:
        """A counter of the slot has gone to zero."""
        record = self._awaited.get(slot)
        if record is not None and not self._index.pinned(slot):
            self.forget(record)
            self.offer(record)

    def recheck_all(self) -> None:
        """A client's counters are no more."""
        for slot in list(self._awaited):
            self.last_unpin(slot)
