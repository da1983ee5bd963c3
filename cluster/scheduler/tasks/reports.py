"""What clients and workers are told of tasks."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.cluster.protocol.durable_copies import DurableCopy
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
    durable
        Where the objects of tasks lie as files.
    """

    def __init__(self, instructions: Instructions, durable: Mapping[Task, DurableCopy]) -> None:
        self._instructions = instructions
        self._durable = durable

    def tell(self, holder: Holder, task: Task) -> None:
        """Tell the peer of a holder that hears about a task as it is now, if there is something to tell."""
        if task.state == "memory":
            self._instructions.add(ReportMemory, holder.peer, memory_entry(task, self._durable))
        elif task.state == "erred":
            self._instructions.add(ReportErred, holder.peer, erred_entry(task))

    def state(self, holder: Holder, task: Task) -> None:
        """The same for a peer that may take it to be otherwise."""
        if task.state in ("memory", "erred"):
            self.tell(holder, task)
        else:
            self._instructions.add(ReportPending, holder.peer, task.key)

    def finished(self, task: Task) -> None:
        """Tell all that hold a task of its result."""
        entry = None
        for holder in task.holders:
            if peer := holder.peer:
                entry = entry or memory_entry(task, self._durable)
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


def raised_of(error: TaskError) -> Payload | str | StoredError:
    """The exception of a failure, its class if that and the text are all, or where it lies."""
    if error.raised is not None:
        return error.raised
    return place_of(error)


def place_of(error: TaskError) -> StoredError:
    """Where a large exception lies."""
    return (error.object_id or bytes(16), error.nbytes, tuple([host.address for host in error.where]))


def memory_entry(task: Task, durable: Mapping[Task, DurableCopy]) -> MemoryEntry:
    """A result as clients are told of it."""
    # A client that has the bytes needn't know where they lie.
    nodes = () if task.inline is not None else tuple([host.address for host in task.where]) or sources(task, durable)
    return (task.key, task.object_id, task.nbytes, task.inline, nodes)


def sources(task: Task, durable: Mapping[Task, DurableCopy]) -> tuple[str, ...]:
    """Where a result can be brought from: the hosts that have it; where none has, its durable copy."""
    if task.where:
        return tuple([host.address for host in task.where])
    copy = durable.get(task)
    return () if copy is None else (copy.source,)


def dependency_entry(task: Task, reader: Host, durable: Mapping[Task, DurableCopy]) -> DependencyEntry:
    """A dependency as the worker of a run on a host is told of it."""
    if task.state != "memory":
        return (task.key, task.run_id, None, ())  # the reader is lined up behind that run
    if task.inline is not None:
        return (task.key, task.object_id, task.inline, ())
    return (task.key, task.object_id, None, () if reader in task.where else sources(task, durable))
