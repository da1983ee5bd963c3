"""Tasks that want to be run again, by raising `Reschedule`: how often each may."""

from __future__ import annotations

from holdfast.cluster.scheduler.tasks.model import Task
from holdfast.cluster.scheduler.tasks.states import ACTIVE

#: So often a task is run that wants to be run again each time; then it fails.
MAX_RESCHEDULES = 1_000
#: So many tasks are counted before those are looked for that have come to an end.
_COUNTED_MIN = 1_000


class Rescheduled:
    """Counts runs that ended with the wish for another one."""

    def __init__(self) -> None:
        self._runs: dict[Task, int] = {}
        self._full = _COUNTED_MIN

    def may_run_again(self, task: Task) -> bool:
        """A run of a task has ended so; whether it may be run once more. The count begins anew when it may not."""
        count = self._runs.get(task, 0) + 1
        if count >= MAX_RESCHEDULES:
            self._runs.pop(task, None)
            return False
        self._runs[task] = count
        if len(self._runs) > self._full:
            self._runs = {each: runs for each, runs in self._runs.items() if each is task or each.state in ACTIVE}
            self._full = max(_COUNTED_MIN, 2 * len(self._runs))
        return True
