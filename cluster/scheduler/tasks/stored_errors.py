"""Errors of tasks: those of Holdfast's own, and large exceptions, which lie in stores.

``error.tasks`` counts the tasks that have failed for an error (invariant 5 of `lifecycle`). An exception in stores goes
with the last of these tasks. If the hosts that have it are gone before, its text is left.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from holdfast.cluster.errors import error_named, is_text
from holdfast.cluster.failures import dumping, links
from holdfast.cluster.journal import records
from holdfast.cluster.protocol.limits import ERROR_TEXT_LENGTH
from holdfast.cluster.scheduler.tasks.decisions import Decisions
from holdfast.cluster.scheduler.tasks.holders import Raised
from holdfast.cluster.scheduler.tasks.holding import Holding
from holdfast.cluster.scheduler.tasks.instructions import DeleteObjects, Instructions
from holdfast.cluster.scheduler.tasks.model import Host, Task, TaskError
from holdfast.cluster.scheduler.tasks.names import Key, ObjectId, Payload
from holdfast.cluster.scheduler.tasks.partitioned import PartitionedDict


def task_error(key: Key, error: Exception, *, is_loss: bool = False) -> TaskError:
    """A `TaskError` for an error of Holdfast's own.

    Most of these are a text: their class is named, and a client makes them when it wants to see them. To pickle one
    takes ten times as long as all else that a failure costs, and a million tasks may fail together.
    """
    text = str(error)
    if len(text) > ERROR_TEXT_LENGTH:  # there is a very long key in it
        text = links.shortened(text, ERROR_TEXT_LENGTH)
        error = type(error)(text)
    if is_text(error):
        return TaskError(key, type(error).__name__, text, is_loss=is_loss)
    blob, _ = dumping.dump_exception(error)
    return TaskError(key, blob, text, is_loss=is_loss)


def pickled(error: TaskError) -> Payload | None:
    """The exception of an error, for peers that are told of no classes; None if it lies in stores."""
    if isinstance(error.raised, str):
        error.raised, _ = dumping.dump_exception(error_named(error.raised, error.text))
    return error.raised


class StoredErrors:
    """The exceptions that lie in stores, by object, as long as a task has them.

    Parameters
    ----------
    instructions
        Where instructions go.
    objects
        The objects of results, of which none can be an exception's.
    decisions
        Takes what is to be in the journal.
    holding
        Which holder holds which task.

    Attributes
    ----------
    table
        The errors.
    last_number
        Of errors in the journal.
    """

    def __init__(
        self, instructions: Instructions, objects: Container[ObjectId], decisions: Decisions, holding: Holding
    ) -> None:
        self.table: PartitionedDict[ObjectId, TaskError] = PartitionedDict()
        self.last_number = 0
        self._decisions = decisions
        self._instructions = instructions
        self._objects = objects
        self._holding = holding

    def get(self, object_id: ObjectId) -> TaskError | None:
        """The error whose exception is an object."""
        found: TaskError | None = self.table.get(object_id)
        return found

    def add(self, key: Key, host: Host, object_id: ObjectId, nbytes: int, text: str) -> TaskError:
        """The error of a task whose exception lies in a host's store."""
        error = TaskError(key, None, text)
        if object_id not in self._objects and self.table.claim(object_id, error):
            error.object_id = object_id
            error.nbytes = nbytes
            self.add_copy(error, host)
        return error

    def contain(self, error: TaskError, tasks: Iterable[Task]) -> None:
        """The exception of an error, for which no task has failed yet, contains futures of these."""
        error.contents = Raised(error.key)
        for task in tasks:
            self._holding.hold(error.contents, task)

    def contain_more(self, error: TaskError, tasks: Iterable[Task]) -> None:
        """The exception of an error, for which tasks have failed, contains futures of these, too."""
        if error.contents is None:
            error.contents = Raised(error.key)
        for task in tasks:
            self._holding.hold(error.contents, task)
        if self._decisions.is_kept and error.number:
            self._note(error)

    def _note(self, error: TaskError) -> None:
        inside = () if error.contents is None else [other.serial for other in error.contents.holds]
        self._decisions.note(records.put("errors", error.number, error.as_plain(), inside))

    def add_copy(self, error: TaskError, host: Host) -> None:
        """A host has the exception."""
        if host not in error.where:
            error.where += (host,)
            host.errors[error] = None
            if host.news is not None:
                host.news.append(error)

    def lose_next_copy(self, host: Host) -> None:
        """A host is gone: of an exception that only it had, the text is left. There must be one."""
        error, _ = host.errors.popitem()
        error.where = tuple([other for other in error.where if other is not host])
        for other in error.where:
            if other.news is not None:
                other.news.append(error)

    def give_to(self, task: Task, error: TaskError) -> None:
        """A task has failed."""
        task.error = error
        error.tasks += 1
        if self._decisions.is_kept:
            if not error.number:
                self.last_number = error.number = self.last_number + 1
                self._note(error)
            self._decisions.note(records.put_of("failed", task.serial, error.number))

    def take_from(self, task: Task) -> None:
        """A task has failed no longer."""
        error = task.error
        assert error is not None
        task.error = None
        error.tasks -= 1
        if error.number:
            self._decisions.note(records.remove_of("failed", task.serial))
            if not error.tasks:
                self._decisions.note(records.remove("errors", error.number))
                error.number = 0
        if error.contents is not None and not error.tasks:
            self._holding.let_go(error.contents)
            error.contents = None
        if error.tasks or error.object_id is None:
            return
        del self.table[error.object_id]
        for host in error.where:
            del host.errors[error]
            self._instructions.add(DeleteObjects, host.address, error.object_id)
        error.where = ()
