"""What the tasks of a dataset are made of, down to the data that clients have stored."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.cluster.scheduler.tasks.model import Task

#: So many tasks are looked at for the data that a request's datasets are made of: some ten milliseconds.
MAX_LINEAGE = 100_000


class Lineage:
    """What some tasks are made of, however many tasks are in between.

    Attributes
    ----------
    roots : list of Task
        Data that clients have stored, and that is there.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.roots: list[Task] = []
        self._tasks = list(tasks)
        self._seen = set(self._tasks)  # only asked for membership
        self._gone: list[Task] = []
        stack = self._tasks.copy()
        while stack and len(self._seen) < MAX_LINEAGE:
            for task in stack.pop().dependencies:
                if task not in self._seen:
                    self._seen.add(task)
                    stack.append(task)
                    if task.payload is None:
                        (self.roots if task.state in ("memory", "lost") else self._gone).append(task)

    def orphans(self) -> list[Task]:
        """The ones of these tasks that are made of data which is gone, and not of another one of these tasks."""
        if not self._gone:
            return []
        found: list[Task] = []
        ends = set(self._tasks)
        stack, seen = self._gone.copy(), set(self._gone)
        while stack:
            for task in stack.pop().dependents:
                if task in self._seen and task not in seen:
                    seen.add(task)
                    (found if task in ends else stack).append(task)
        return found
