"""How a task moves: the one place that changes the state of a task.

Whoever listens to the `Feed` hears of each move from here. While nobody listens, a move costs a method call and a look
at one flag.
"""

from __future__ import annotations

from holdfast.cluster.scheduler.tasks.feed import Feed, Move
from holdfast.cluster.scheduler.tasks.model import Host, Task, Worker
from holdfast.cluster.scheduler.tasks.states import State


class Moves:
    """Changes the states of tasks, and tells the feed.

    Attributes
    ----------
    feed
        Where others hear of it.
    """

    __slots__ = ("feed",)

    def __init__(self) -> None:
        self.feed = Feed()

    def appear(self, task: Task) -> None:
        """A task has come to be."""
        if self.feed.is_heard:
            self.feed.tell(Move(task.key, None, task.state, "", task.group.name))

    def move(self, task: Task, state: State, where: Worker | Host | None = None) -> None:
        """Bring a task into another state; ``where`` its run or its result is from now on, if it has one."""
        feed = self.feed
        if feed.is_heard:
            feed.tell(Move(task.key, task.state, state, "" if where is None else where.address, task.group.name))
        task.state = state
