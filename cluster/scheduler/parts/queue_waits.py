"""A queue, and the clients that wait for it."""

from __future__ import annotations

from collections import OrderedDict, deque

from holdfast.cluster.scheduler.parts.queue_items import Item
from holdfast.cluster.scheduler.parts.waits import Wait, WaitOwner
from holdfast.cluster.scheduler.tasks.names import Key

#: A client gets no more items at a time when they are so large together.
MAX_ANSWER_NBYTES = 1 << 20


class Queue:
    """A queue.

    Attributes
    ----------
    maxsize
        How many items there is room for; 0: any number. One with a limit is kept until it is closed.
    items
        What is queued.
    getters, putters
        The clients that wait, the first one first.
    """

    __slots__ = ("getters", "items", "maxsize", "name", "putters")

    def __init__(self, name: Key, maxsize: int) -> None:
        self.name = name
        self.maxsize = maxsize
        self.items: deque[Item] = deque()
        self.getters: OrderedDict[GetWait, None] = OrderedDict()
        self.putters: OrderedDict[PutWait, None] = OrderedDict()

    @property
    def has_room(self) -> bool:
        return not self.maxsize or len(self.items) < self.maxsize

    @property
    def is_needed(self) -> bool:
        return bool(self.maxsize or self.items or self.getters or self.putters)


class QueueWait(Wait):
    """A client that waits for a queue, and calls that by a number.

    Attributes
    ----------
    items
        What it has collected, or is to put.
    nbytes
        What these take.
    began
        When it did.
    """

    __slots__ = ("began", "items", "lease", "nbytes", "queue")

    def __init__(
        self, part: WaitOwner, client: str, request: int, due: float, queue: Queue, lease: int, items: list[Item]
    ) -> None:
        super().__init__(part, client, request, due)
        self.queue = queue
        self.lease = lease
        self.items = items
        self.nbytes = sum([item.nbytes for item in items])
        self.began = 0.0


class PutWait(QueueWait):
    """A client that waits for room."""

    __slots__ = ()

    kind = "put"

    def describe(self) -> str:
        return f"room in the queue {self.queue.name!r:.200}"


class GetWait(QueueWait):
    """A client that waits for items."""

    __slots__ = ("count",)

    kind = "get"

    def __init__(
        self,
        part: WaitOwner,
        client: str,
        request: int,
        due: float,
        queue: Queue,
        lease: int,
        items: list[Item],
        count: int,
    ) -> None:
        super().__init__(part, client, request, due, queue, lease, items)
        self.count = count

    def describe(self) -> str:
        return f"items of the queue {self.queue.name!r:.200}"

    @property
    def is_over(self) -> bool:
        """Whether it has what it wants."""
        return len(self.items) >= self.count or self.nbytes >= MAX_ANSWER_NBYTES


class Handed:
    """Items that a client was given, and has not confirmed yet.

    Attributes
    ----------
    queue
        The name of their queue; None if it was closed.
    is_recovered
        Whether an earlier scheduler has handed them out: the client may ask for them once more.
    """

    __slots__ = ("is_recovered", "items", "queue")

    def __init__(self, queue: Key | None, items: list[Item]) -> None:
        self.queue: Key | None = queue
        self.items = items
        self.is_recovered = False
