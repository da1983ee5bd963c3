"""Items of queues: what each is and holds, and how many of them there may be."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from holdfast.cluster.protocol.limits import MAX_QUEUED_ITEMS, MAX_QUEUED_NBYTES
from holdfast.cluster.protocol.shapes import key_weight
from holdfast.cluster.scheduler.parts.part import Part
from holdfast.cluster.scheduler.parts.waits import Refusal
from holdfast.cluster.scheduler.tasks.model import Holder, HolderDescription, Task
from holdfast.cluster.scheduler.tasks.names import Key, Payload

#: What an item takes beside its data and its keys.
ITEM_NBYTES = 200


class QueueItem(Holder):
    """What an item of a queue holds."""

    __slots__ = ()

    kind: ClassVar[str] = "queue"

    def describe(self) -> HolderDescription:
        return HolderDescription(self.kind, repr(self.id))


class Item:
    """An item of a queue.

    Attributes
    ----------
    data, keys
        What clients get.
    holder
        Holds the tasks of the keys; None without keys.
    number
        Names it in the journal, in the order in which items have come to queues. 0: it waits for room still.
    """

    __slots__ = ("data", "holder", "keys", "nbytes", "number")

    def __init__(self, data: Payload, keys: Sequence[Key]) -> None:
        self.data = bytes(data)  # a view would keep the whole frame
        self.keys = keys
        self.holder: QueueItem | None = None
        self.number = 0
        self.nbytes = ITEM_NBYTES + len(data) + (sum(map(key_weight, keys)) if keys else 0)


class Items:
    """The items of all queues, wherever they are: how many, how large, and what they hold.

    Parameters
    ----------
    part
        Notes them.

    Attributes
    ----------
    count, nbytes
        Of all that were admitted and are not forgotten.
    """

    def __init__(self, part: Part) -> None:
        self._part = part
        self._life = part.shared.life
        self._last_number = 0
        self.count = 0
        self.nbytes = 0

    def demand_room(self, item: Item) -> None:
        """Raise a `Refusal` if there is no room for an item."""
        if self.count >= MAX_QUEUED_ITEMS or self.nbytes + item.nbytes > MAX_QUEUED_NBYTES:
            raise Refusal(
                "RuntimeError",
                f"the queues of this cluster have {self.count:,} items of {self.nbytes:,} bytes, and no more may be: "
                "get some, or give the queue a maxsize, so that putting waits for getting",
            )

    def admit(self, item: Item, queue: Key) -> None:
        """An item has come to a queue. It holds its tasks, those that are still there."""
        self._count(item, queue)
        if item.holder is not None:
            tasks = self._life.generations.tasks
            for key in item.keys:
                task = tasks.get(key)
                if task is not None:
                    self._life.holding.hold(item.holder, task)

    def _count(self, item: Item, queue: Key) -> None:
        self.count += 1
        self.nbytes += item.nbytes
        if item.keys:
            item.holder = QueueItem(queue)

    def entered(self, item: Item, queue: Key) -> None:
        """There was room in a queue for an item, which was admitted."""
        self._last_number = item.number = self._last_number + 1
        self._part.note(("item", item.number), (queue, item.data, item.keys), item.holder)

    def recover(self, number: int, queue: Key, data: Payload, keys: Sequence[Key], tasks: Sequence[Task]) -> Item:
        """An item that an earlier scheduler had, with the tasks that it held."""
        item = Item(data, keys)
        self._count(item, queue)
        for task in tasks:
            assert item.holder is not None
            self._life.holding.hold(item.holder, task)
        item.number = number
        self._last_number = max(self._last_number, number)
        return item

    def forget(self, item: Item) -> None:
        """An item is no more."""
        if item.number:
            self._part.note_gone(("item", item.number))
        self.count -= 1
        self.nbytes -= item.nbytes
        if item.holder is not None:
            self._life.holding.let_go(item.holder)

    def check(self, items: Collection[Item]) -> None:
        """Raise `AssertionError` if these aren't all, each once."""
        assert len(set(items)) == len(items) == self.count
        assert sum(item.nbytes for item in items) == self.nbytes
