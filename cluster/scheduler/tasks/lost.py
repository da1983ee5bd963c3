"""What only hosts had that are gone, so that it counts again when one of them comes back.

A host that is given up may live: its link was cut, or its agent was stopped. When it comes back it says which objects
it has. Those are the results of tasks that are still wanted, and maybe still without a result: for these the table here
knows to which task an object belonged.

==============================================  =====================================================================
an object of a host that comes back …           … and what becomes of it
==============================================  =====================================================================
is the result of a task in state "memory"       counts as a copy
was lost, and its task has no result yet        is the result again: the task is in "memory", what was begun meanwhile
                                                to make it again is dropped, and what failed for its loss runs again
was lost, and its task has another result now   is deleted
was lost, and its task is forgotten             is deleted
was to be deleted, or had other copies, and is  is deleted
unknown now
is unknown                                      is deleted
==============================================  =====================================================================

The same holds for what any host says it has been brought: it may have got a copy just before the only other one went.

Data that can't be made again isn't given up at once when it is lost: a host whose connection was cut is back in a
moment. Its task waits in state "lost" first, and what depends on it waits too.

A task has one lost object at most: a result that was made again supersedes the one before.

A scheduler that goes on where another one has ended does not know which objects the hosts have that are not back in
time. It begins without them, and knows the results of tasks by the labels of objects if these hosts come later.
"""

from __future__ import annotations

from collections import deque

from holdfast.cluster.scheduler.tasks.model import Task
from holdfast.cluster.scheduler.tasks.names import ObjectId
from holdfast.cluster.scheduler.tasks.partitioned import PartitionedDict

#: Data that can't be made again is given up when its host hasn't come back after this.
PATIENCE_SECONDS = 5.0
#: Of so many objects at most it is known whose they were; those that were lost first are forgotten first.
MAX_LOST = 1_000_000


class Lost:
    """The objects that were lost with their hosts, each with its task, or None if it is not wanted any more.

    Attributes
    ----------
    objects : mapping
        The tasks that have lost an object and have no other result yet, and which.
    count : int
        How many tasks these are.
    labels : dict
        Tasks that may have results on hosts which are not back yet, by serial.
    """

    __slots__ = ("_length", "_limit", "_order", "_tasks", "count", "labels", "objects")

    def __init__(self, limit: int = MAX_LOST) -> None:
        self._limit = limit
        self._tasks: PartitionedDict[ObjectId, Task | None] = PartitionedDict()
        self._length = 0  # of this
        self._order: deque[ObjectId] = deque()  # in which they were lost, some of which are there no more
        self.objects: PartitionedDict[Task, ObjectId] = PartitionedDict()
        self.count = 0
        self.labels: dict[int, Task] = {}

    def __len__(self) -> int:
        return self._length

    def __contains__(self, object_id: ObjectId) -> bool:
        return object_id in self._tasks

    def _enter(self, object_id: ObjectId, task: Task | None) -> None:
        if object_id not in self._tasks:
            self._length += 1
            self._order.append(object_id)
        self._tasks[object_id] = task
        while self._length > self._limit or len(self._order) > 2 * self._limit:
            self.claim(self._order.popleft())

    def _drop(self, task: Task) -> None:
        del self.objects[task]
        self.count -= 1

    def add(self, task: Task, object_id: ObjectId) -> None:
        """The last copy of a task's object was on a host that is gone."""
        self.supersede(task)
        self.objects[task] = object_id
        self.count += 1
        self._enter(object_id, task)

    def remember(self, object_id: ObjectId) -> None:
        """A host that is gone has an object that is not wanted, or that others have as well."""
        self._enter(object_id, None)

    def supersede(self, task: Task) -> None:
        """The task has another result, or is forgotten: what it had lost is not wanted."""
        object_id = self.objects.get(task)
        if object_id is not None:
            self._drop(task)
            self._enter(object_id, None)

    def claim(self, object_id: ObjectId) -> Task | None:
        """The task whose lost object this is, if it was one and is still wanted."""
        if object_id not in self._tasks:
            return None
        task = self._tasks.pop(object_id)
        self._length -= 1
        if task is not None:
            self._drop(task)
        return task

    def may_be_found(self, task: Task) -> None:
        """A host that is not back yet may have a result of this task, labelled with its serial."""
        self.labels[task.serial] = task

    def claim_label(self, serial: int) -> Task | None:
        """The task of this serial, if its result may lie on a host that was not back in time, and there is no other."""
        task = self.labels.pop(serial, None) if self.labels else None
        return None if task is None or task.state == "memory" else task
