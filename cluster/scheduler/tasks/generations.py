"""What a key means: the generations of its tasks.

The table `Generations.tasks` has the task that a key means now. Dependents refer to tasks, not to keys. So when a key
that no holder holds is specified anew, and by another specification, its task leaves the table (`Generations.free_key`)
and the next generation of the key takes the place. The earlier one goes on for its dependents, can be computed again
for them, and is forgotten with the last of them:

======================================  ================================================
a key is specified, and its task …      … then the key means
======================================  ================================================
isn't known                             a new task
has that very specification             that task, whatever state it is in
has a holder                            that task: its holders were promised its result
is data that is lost, with a holder     that task, which can be computed from now on
has no holder                           a new task, the next generation
======================================  ================================================

A specification is the same if its bytes are and if the keys that it names mean the same tasks still. Whatever others
say by key is about what they hold, and what is held is in the table. A task has no two generations of a key among its
dependencies: all of them were looked up at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.cluster.scheduler.tasks.model import Task
from holdfast.cluster.scheduler.tasks.names import Digest, Key, Payload
from holdfast.cluster.scheduler.tasks.partitioned import PartitionedDict, PartitionedSet


class Generations:
    """All tasks that are known.

    Attributes
    ----------
    tasks
        The tasks that keys mean.
    earlier
        The tasks whose keys mean other tasks by now.
    """

    def __init__(self) -> None:
        self.tasks: PartitionedDict[Key, Task] = PartitionedDict()
        self.earlier: PartitionedSet[Task] = PartitionedSet()

    def free_key(self, task: Task) -> None:
        """A key without a holder is to mean another task: this one is left to those that depend on it."""
        del self.tasks[task.key]
        self.earlier.add(task)

    def forget(self, task: Task) -> None:
        """A task is known no more."""
        if not self.tasks.disown(task.key, task):
            self.earlier.remove(task)

    def is_specified_by(
        self, task: Task, digest: Digest | None, payload: Payload, dependency_keys: Sequence[Key]
    ) -> bool:
        """Whether a specification is the one that a task has."""
        if task.payload is None or task.digest != digest or task.payload != payload:
            return False
        return task.dependencies == tuple(dict.fromkeys(map(self.tasks.get, dependency_keys)))


def is_below(task: Task, others: Iterable[Task]) -> bool:
    """Whether one of the others is the task, or depends on it."""
    seen = set(others)
    stack = list(seen)
    while stack:
        other = stack.pop()
        if other is task:
            return True
        stack += [dependency for dependency in other.dependencies if dependency not in seen]
        seen.update(other.dependencies)
    return False
