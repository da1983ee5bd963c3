"""What clients and workers are told of tasks."""

from __future__ import annotations

from holdfast.cluster.scheduler.tasks.instructions import (
    DependencyEntry,
    ErredEntry,
    Instructions,
    MemoryEntry,
    ReportErred,
    ReportMemory,
    ReportPending,
    StoredError,
)
from holdfast.cluster.scheduler.tasks.model import Holder, Host, Task, TaskError
from holdfast.cluster.scheduler.tasks.names import Payload


class Reports:
    """Tells the peers of holders what becomes of tasks.

    Parameters
    ----------
    instructions
        Where instructions go.
    """

    def __init__(self, instructions: Instructions) -> None:
        self._instructions = instructions

    def tell(self, holder: Holder, task: Task) -> None:
        """Tell the peer of a holder that hears about a task as it is now, if there is something to tell."""
        if task.state == "memory":
            self._instructions.add(ReportMemory, holder.peer, memory_entry(task))
        elif task.state == "erred":
            self._instructions.add(ReportErred, holder.peer, erred_entry(task))

    def finished(self, task: Task) -> None:
        """Tell all that hold a task of its result."""
        entry = None
        for holder in task.holders:
            if peer := holder.peer:
                entry = entry or memory_entry(task)
                self._instructions.add(ReportMemory, peer, entry)
            else:
                holder.ended(task)

    def failed(self, task: Task) -> None:
        """Tell all that hold a task of its error."""
        for holder in task.holders:
            if peer := holder.peer:
                self._instructions.add(ReportErred, peer, erred_entry(task))
            else:
                holder.ended(task)

    def pending(self, task: Task) -> None:
        """Tell all that hold a task that what it had is gone, and that it has no result yet."""
        for holder in task.holders:
            if peer := holder.peer:
                self._instructions.add(ReportPending, peer, task.key)


def erred_entry(task: Task) -> ErredEntry:
    """A failure as clients are told of it."""
    error = task.error
    assert error is not None
    return (task.key, raised_of(error), error.text)


def raised_of(error: TaskError) -> Payload | StoredError:
    """The exception of a failure, or where it lies."""
    if error.blob is not None:
        return error.blob
    return (error.object_id or bytes(16), error.nbytes, tuple([host.address for host in error.where]))


def memory_entry(task: Task) -> MemoryEntry:
    """A result as clients are told of it."""
    # A client that has the bytes needn't know where they lie.
    nodes = () if task.inline is not None else tuple([host.address for host in task.where])
    return (task.key, task.object_id, task.nbytes, task.inline, nodes)


def dependency_entry(task: Task, reader: Host) -> DependencyEntry:
    """A dependency as the worker of a run on a host is told of it."""
    if task.state != "memory":
        return (task.key, task.run_id, None, ())  # the reader is lined up behind that run
    if task.inline is not None:
        return (task.key, task.object_id, task.inline, ())
    sources = () if reader in task.where else tuple([host.address for host in task.where])
    return (task.key, task.object_id, None, sources)
