"""Results that a worker or client could not read, though they should be there."""

from __future__ import annotations

from holdfast.cluster.errors import ObjectLostError
from holdfast.cluster.scheduler.tasks.instructions import DeleteObjects, Instructions
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.model import Task, TaskError
from holdfast.cluster.scheduler.tasks.stored_errors import task_error
from holdfast.cluster.scheduler.tasks.wording import some

#: A result that could not be read this often, though it should be there, counts as lost.
MAX_MISSING = 3


class Missing:
    """Decides what becomes of such results.

    Parameters
    ----------
    instructions
        Where instructions go.
    life
        The tasks.
    """

    def __init__(self, instructions: Instructions, life: Lifecycle) -> None:
        self._instructions = instructions
        self._life = life

    def could_not_read(self, task: Task, object_id: bytes) -> TaskError | None:
        """A reader has not found the object of ``task`` anywhere. Returns why the reader should give up, if it should.

        Anything may have been in the way, so they try again first; then the task is computed again.
        """
        if task.state != "memory" or task.object_id != object_id:
            return None  # that has been seen to since
        task.missing += 1
        if task.missing < MAX_MISSING:
            return None
        if task.can_be_computed:
            hosts = list(task.where)
            self._life.results.lies_in_no_file(task)
            for host in hosts:
                self._instructions.add(DeleteObjects, host.address, object_id)
                self._life.drop_copy(task, host)
            if not hosts:
                self._life.lose(task)
            return None
        # It can't be made again, and it may be the way there that is broken: the data stays.
        task.missing = 0
        copy = self._life.results.durable.get(task)
        places = [host.address for host in task.where] + ([] if copy is None else [f"{copy.place} ({copy.digest})"])
        text = f"{task.key!r} could not be read from {some(places)}"
        return task_error(task.key, ObjectLostError(text))
