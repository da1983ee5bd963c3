"""Tasks lined up behind others: each waits here for the outcome of a run that came to this worker before it.

The scheduler sends a short task that waits for one run only to the worker that has this run, so that no message
passes between the two. Such a task names the run in the place of the object that it reads. When the run has a result,
that is put in its place, and the task goes to the threads; when it has none, the task misses a dependency, and so does
what is lined up behind it.

The outcome may be there before the task is: the scheduler had not heard of it yet. So the last results are remembered.
A task that comes later still misses its dependency, which costs a round trip and nothing else.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from holdfast.cluster.protocol.worker import DEPENDENCIES_MISSING
from holdfast.cluster.worker.execution import Outcome, Task, run_id_of

REMEMBERED_MAX = 1024

#: An object's id, and its bytes if they're few.
Result = tuple[bytes, bytes | None]


class WaitingRuns:
    """What this worker has to run that has no outcome yet, and which of it waits for another outcome.

    Parameters
    ----------
    submit
        Takes the tasks that can run; called in any thread, in the order in which they may start. With the lock held:
        a task is here or there at any time, for code that looks for it.
    miss
        Takes the outcome of a task that can't, in any thread.
    """

    def __init__(self, submit: Callable[[Sequence[Task]], None], miss: Callable[[Outcome], None]) -> None:
        self._submit = submit
        self._miss = miss
        self._lock = threading.Lock()
        #: By run without an outcome: the serial of its task, and after that the tasks that wait for it.
        self._behind: dict[int, list[Any]] = {}
        self._waits_for: dict[int, int] = {}  # run that waits -> the one that it waits for
        self._results: OrderedDict[int, Result] = OrderedDict()  # a dictionary's oldest is dear to find

    def add(self, tasks: Iterable[Task]) -> None:
        """Tasks have come."""
        runnable: list[Task] = []
        missing: list[Outcome] = []
        with self._lock:
            for task in tasks:
                _, run_id, _, _, _, _, serial = task
                self._behind[run_id] = [serial]
                self._admit(task, runnable, missing)
            self._hand_on(runnable, missing)

    def is_waited_for(self, run_id: int) -> bool:
        """Whether anything waits for the outcome of a run now."""
        return len(self._behind.get(run_id, ())) > 1

    def ended(self, run_id: int, result: Result | None) -> None:
        """A run has its outcome: a result or, with None, anything else."""
        runnable: list[Task] = []
        missing: list[Outcome] = []
        with self._lock:
            if result is not None:
                self._results[run_id] = result
                if len(self._results) > REMEMBERED_MAX:
                    self._results.popitem(last=False)
            self._end(run_id, runnable, missing)
            if runnable or missing:
                self._hand_on(runnable, missing)

    def drop(self, run_ids: Iterable[int], drop: Callable[[list[int]], list[int]]) -> list[int]:
        """These are not to start: neither those that wait here nor those which ``drop`` can stop. Returns both."""
        runnable: list[Task] = []
        missing: list[Outcome] = []
        with self._lock:
            run_ids = list(run_ids)
            held = [run_id for run_id in run_ids if run_id in self._waits_for]
            for run_id in held:
                others = self._behind[self._waits_for.pop(run_id)]
                others[1:] = [task for task in others[1:] if run_id_of(task) != run_id]
            dropped = held + drop([run_id for run_id in run_ids if run_id not in held])
            for run_id in dropped:
                self._end(run_id, runnable, missing)
            self._hand_on(runnable, missing)
        return dropped

    def runs(self) -> dict[int, int]:
        """The runs that have no outcome, and the serials of their tasks."""
        with self._lock:
            return {run_id: serial for run_id, (serial, *_) in self._behind.items()}

    def _end(self, run_id: int, runnable: list[Task], missing: list[Outcome]) -> None:
        behind = self._behind.pop(run_id, None)
        if behind is not None and len(behind) > 1:
            for task in behind[1:]:
                if self._waits_for.pop(run_id_of(task), None) is not None:
                    self._admit(task, runnable, missing)

    def _admit(self, task: Task, runnable: list[Task], missing: list[Outcome]) -> None:
        key, run_id, digest, payload, dependencies, private, serial = task
        if not dependencies or not any(type(result) is int for _, result, _, _ in dependencies):
            runnable.append(task)
            return
        found: list[Any] = []
        for dependency in dependencies:
            read, earlier, _, _ = dependency
            if type(earlier) is int:
                result = self._results.get(earlier)
                if result is None:
                    if earlier in self._behind:
                        self._behind[earlier].append(task)
                        self._waits_for[run_id] = earlier
                    else:
                        missing.append((DEPENDENCIES_MISSING, (serial, run_id, read, b"")))
                        self._end(run_id, runnable, missing)
                    return
                dependency = (read, *result, ())
            found.append(dependency)
        runnable.append((key, run_id, digest, payload, tuple(found), private, serial))

    def _hand_on(self, runnable: list[Task], missing: list[Outcome]) -> None:
        for outcome in missing:
            self._miss(outcome)
        if runnable:
            self._submit(runnable)
