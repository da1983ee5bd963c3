"""What a client is still to be told that reads more slowly than things happen.

What is written ahead for a client has a limit (`Connection.is_full`). Beyond it the scheduler queues no reports: it
remembers of which keys the client is to hear, and reports on them as they are when there is room again. Only the latest
state of a key counts, and however often it changed meanwhile, a key takes one entry here.

What becomes of a key can be read from the state as long as the client holds it. Two things can't: that it holds a key
no longer and why (``cancelled``), and an error that isn't the task's. These are kept as they were said, with the turn
in which they were: if the client holds the key anew by the time it hears of them, it knows them for stale.

======================================  ================================================
what was to be reported last            what is reported
======================================  ================================================
memory, pending, an error of the task   what the state says then, if the client holds the key then
cancelled, another error                that, with its turn
======================================  ================================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.instructions import (
    Instruction,
    ReportCancelled,
    ReportErred,
    ReportMemory,
    ReportPending,
)
from holdfast.cluster.scheduler.tasks.names import Key
from holdfast.cluster.scheduler.tasks.partitioned import PartitionedDict
from holdfast.cluster.scheduler.tasks.reports import erred_entry, memory_entry

#: Stands for what the state says.
_AS_IT_IS = None


class Debts:
    """What one client is to be told, by key, in the order in which it came to be owed that.

    There may be a million keys. So they are no one dictionary: that would grow all at once, and to find the first one
    that is left would take the longer the more of them were told of.

    Parameters
    ----------
    client
        Its id.
    state
        Where its keys are looked up.
    """

    def __init__(self, client: str, state: SchedulerState) -> None:
        self._client = client
        self._state = state
        self._owed: PartitionedDict[Key, tuple[Instruction, int] | None] = PartitionedDict()
        self._order: deque[Key] = deque()  # all of these, once each

    def __len__(self) -> int:
        return len(self._order)

    def add(self, report: Any, turn: int) -> None:
        """A report that the client doesn't get now. ``turn`` is the last one of the client's that has been read."""
        owed = self._owed
        for item in report.items:
            kind = type(report)
            if kind is ReportMemory:
                key, _, _, _, _ = item
            elif kind is ReportErred:
                key, _, _ = item
            else:
                key = item
            if key not in owed:
                self._order.append(key)
            if kind is ReportCancelled:
                owed[key] = ReportCancelled(self._client, [key], report.reason), turn
            elif kind is ReportErred and not self._is_as_it_is(item):
                owed[key] = ReportErred(self._client, [item]), turn
            else:
                owed[key] = _AS_IT_IS

    def _is_as_it_is(self, item: Any) -> bool:
        key, _, _ = item
        task = self._state.tasks.get(key)
        return task is not None and task.error is not None and item == erred_entry(task)

    def take(self, count: int, turn: int) -> Iterator[tuple[Instruction, int]]:
        """Reports on so many keys, each with its turn, which are owed no more. ``turn`` is the latest."""
        memory = ReportMemory(self._client, [])
        erred = ReportErred(self._client, [])
        pending = ReportPending(self._client, [])
        client = self._state.clients.get(self._client)
        while self._order and count:
            count -= 1
            key = self._order.popleft()
            said = self._owed.pop(key)
            if said is not None:
                yield said
                continue
            task = self._state.tasks.get(key)
            if task is None or client not in task.holders:
                continue  # it was released, and is not waited for
            if task.state == "memory":
                memory.items.append(memory_entry(task, self._state.life.results.durable))
            elif task.state == "erred":
                erred.items.append(erred_entry(task))
            else:
                pending.items.append(key)
        for report in (memory, erred, pending):
            if report.items:
                yield report, turn
