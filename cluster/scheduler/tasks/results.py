"""The objects of results: which task has which, and which hosts have copies.

All that is here keeps invariant 4 of `lifecycle`; whatever forgets a result is followed by a move out of "memory".
"""

from __future__ import annotations

from holdfast.cluster.journal import records
from holdfast.cluster.protocol.durable_copies import DurableCopy
from holdfast.cluster.scheduler.tasks.decisions import Decisions
from holdfast.cluster.scheduler.tasks.instructions import (
    DeleteObjects,
    DiscardResults,
    ForgetObjects,
    Instructions,
)
from holdfast.cluster.scheduler.tasks.model import Host, Task, Worker
from holdfast.cluster.scheduler.tasks.names import ObjectId, Payload
from holdfast.cluster.scheduler.tasks.partitioned import PartitionedDict


class Results:
    """The object of every task in state "memory".

    Parameters
    ----------
    instructions
        Where instructions go.
    decisions
        Takes what is to be in the journal.

    Attributes
    ----------
    table
        The tasks, by object.
    durable
        Where the objects of tasks lie as files, of those that do (`parts/durable.py`).
    """

    __slots__ = ("_decisions", "_instructions", "durable", "table")

    def __init__(self, instructions: Instructions, decisions: Decisions) -> None:
        self._instructions = instructions
        self._decisions = decisions
        self.table: PartitionedDict[ObjectId, Task] = PartitionedDict()
        self.durable: dict[Task, DurableCopy] = {}

    def get(self, object_id: ObjectId) -> Task | None:
        """The task whose result an object is."""
        found: Task | None = self.table.get(object_id)
        return found

    def put(
        self, task: Task, host: Host | None, object_id: ObjectId, nbytes: int, inline: Payload | None, type_name: str
    ) -> bool:
        """A task has a result, in ``host``'s store (None: only in ``inline``).

        False, and nothing has changed, if the object is another task's: no two have the same.
        """
        if not self.table.claim(object_id, task):
            return False
        task.object_id = object_id
        task.nbytes = nbytes
        task.inline = inline
        task.type_name = type_name
        if host is not None:
            task.where = (host,)
            host.objects.add(task)
            host.nbytes += nbytes
            if host.news is not None:
                host.news.append(task)
        return True

    def lies_in_file(self, task: Task, copy: DurableCopy, object_id: ObjectId, nbytes: int, type_name: str) -> None:
        """The object of a task, which is there or comes now, lies as a file as well."""
        self.durable[task] = copy
        self._decisions.note(records.put_of("files", task.serial, (tuple(copy), object_id, nbytes, type_name)))

    def lies_in_no_file(self, task: Task) -> None:
        """The object of a task lies in no file any more; no error if it did not."""
        if self.durable.pop(task, None) is not None:
            self._decisions.note(records.remove_of("files", task.serial))

    def add_copy(self, task: Task, host: Host) -> None:
        """A host has the object as well."""
        if host not in task.where:
            task.where += (host,)
            host.objects.add(task)
            host.nbytes += task.nbytes
            if host.news is not None:
                host.news.append(task)

    def remove_copy(self, task: Task, host: Host) -> bool:
        """A host no longer has the object. Whether there is the result still."""
        host.objects.remove(task)
        self._has_one_copy_less(task, host)
        return self.is_there(task)

    @staticmethod
    def _has_one_copy_less(task: Task, host: Host) -> None:
        task.where = tuple([other for other in task.where if other is not host])
        host.nbytes -= task.nbytes
        for other in task.where:
            if other.news is not None:
                other.news.append(task)

    def take_copy(self, host: Host) -> Task:
        """A host is gone, and one of its copies with it: the task whose result that is. There must be one."""
        task = host.objects.pop()
        self._has_one_copy_less(task, host)
        return task

    def is_there(self, task: Task) -> bool:
        """Whether there is a copy of a result."""
        return bool(task.where or task.inline is not None or task in self.durable)

    def forget_copy(self, task: Task, host: Host) -> None:
        """Have a host delete its copy. There must be another one.

        The host may be just saying that it has a copy. That does not count, or others would be deleted for it.
        """
        assert task.object_id is not None
        assert len(task.where) > 1
        self.remove_copy(task, host)
        if task.maker is not None and task.maker.host is host:
            self.discard(task.maker, task.object_id)
        else:
            if task.payload is None:
                host.deleted.append(task.object_id)
            host.forgetting[task.object_id] += 1
            self._instructions.add(ForgetObjects, host.address, task.object_id)

    def _delete_from(self, host: Host, task: Task) -> None:
        assert task.object_id is not None
        if task.payload is None:
            host.deleted.append(task.object_id)
        self._instructions.add(DeleteObjects, host.address, task.object_id)

    def delete(self, task: Task) -> None:
        """Forget the result of a task and let every store delete it."""
        object_id = task.object_id
        assert object_id is not None
        maker = task.maker
        for host in task.where:
            host.objects.remove(task)
            host.nbytes -= task.nbytes
            if maker is not None and maker.host is host:
                self.discard(maker, object_id)
            else:
                self._delete_from(host, task)
        task.where = ()
        self.forget(task)

    def discard(self, maker: Worker, object_id: ObjectId) -> None:
        """A small result is not wanted: it goes, from its worker or from where that has put it meanwhile."""
        if not maker.is_gone and maker in maker.host.workers:
            self._instructions.add(DiscardResults, maker.address, object_id)
        else:
            self._instructions.add(DeleteObjects, maker.host.address, object_id)

    def forget(self, task: Task) -> None:
        """A task has no result any more, and no host has a copy."""
        assert task.object_id is not None
        del self.table[task.object_id]
        if self.durable:
            self.lies_in_no_file(task)
        task.object_id = None
        task.inline = None
        task.maker = None
