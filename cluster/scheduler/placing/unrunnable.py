"""Tasks that no worker may run: what they lack, in words, and telling of it before they fail.

A name that no worker has is soon told to the clients that wait for such a task: once to each client for each set of
requirements, however many tasks have it. What is told is looked for now and then, in the first of these tasks only, so
it costs little however many there are.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from weakref import WeakKeyDictionary

from holdfast.cluster.scheduler.placing.eligibility import Eligibility
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.instructions import Instructions, Warn
from holdfast.cluster.scheduler.tasks.model import Host, Task, Worker, WorkerPlace
from holdfast.cluster.scheduler.tasks.requirements import Requirements

#: A task has waited so long for a worker that may run it when its clients are told.
WARNING_SECONDS = 3.0
#: So many of these tasks are looked at at a time, and so many that depend on them: some milliseconds.
TASKS_SEEN = 2_000
#: A client is told of so many requirements at a time; of the others it hears when their tasks fail.
WARNINGS_AT_A_TIME = 10
NAMES_SHOWN = 10


class Unrunnable(Timed):
    """The tasks in state "no-worker".

    Parameters
    ----------
    instructions
        Where warnings go.
    hosts, workers, tasks
        The scheduler's tables; only read here.
    eligibility
        Knows where workers are to come.
    fail_seconds
        After this such a task fails, which its clients are told.
    """

    def __init__(
        self,
        instructions: Instructions,
        hosts: Mapping[str, Host],
        workers: Mapping[str, Worker],
        tasks: OrderedDict[Task, None],
        eligibility: Eligibility,
        *,
        fail_seconds: float,
    ) -> None:
        super().__init__()
        self._instructions = instructions
        self._fail_seconds = fail_seconds
        self._hosts = hosts
        self._workers = workers
        self._tasks = tasks
        self._eligibility = eligibility
        self._told: WeakKeyDictionary[Requirements, set[str]] = WeakKeyDictionary()  # the ids of clients
        self._told_of_none: set[str] = set()  # those that know that there is no worker at all
        self._looked = float("-inf")  # when was it looked for tasks to tell of

    # -- what they lack

    def why(self, requirements: Requirements | None) -> tuple[str, str]:
        """What tasks with these requirements wait for, and what can be done about it."""
        retired = [worker for worker in self._workers.values() if worker.is_retired]
        candidates: list[Worker | WorkerPlace] = [w for w in self._workers.values() if not w.is_retired]
        candidates += self._eligibility.places()
        if requirements is None or not (candidates or retired):
            return (
                "for a worker, and the cluster has none",
                "start some with 'holdfast start --address HOST:PORT'",
            )
        named = [worker for worker in candidates if requirements.names(worker)]
        if not named and (gone := [worker.name for worker in retired if requirements.names(worker)]):
            return (
                f"for the worker {' or '.join(_some(gone))}, which was retired and takes no tasks any more",
                "name another one, allow others with allow_other_workers=True, or begin it anew with "
                "Client.restart_workers()",
            )
        if not named and not requirements.loose:
            return (
                f"for a worker called {' or '.join(_some(requirements.workers))}, and there is none; there are "
                f"{', '.join(_some(self._names()))}",
                "name one of these, or allow others with allow_other_workers=True",
            )
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in requirements.resources)
        return (
            f"for a worker with {wanted}, and there is none; the most that one has: "
            f"{_most_resources(named or candidates, requirements)}",
            "ask for less, or start a bigger worker ('holdfast start --resources' and '--memory', "
            "LocalCluster(resources=, memory_limit=))",
        )

    def _names(self) -> list[str]:
        """What workers there are called, and those that are to come."""
        names = dict.fromkeys(worker.name for worker in self._workers.values())
        for host in self._hosts.values():
            names.update(dict.fromkeys(place.name for place in host.places))
        return sorted(names)

    def describe(self) -> list[dict[str, object]]:
        """How many tasks wait for what, for people."""
        counts = Counter(task.requirements for task in islice(self._tasks, TASKS_SEEN))
        return [
            {"tasks": number, "reason": self.why(requirements)[0]}
            for requirements, number in counts.most_common(WARNINGS_AT_A_TIME)
        ]

    # -- telling

    @property
    def due(self) -> float | None:
        """When a client may have to be told; None: never."""
        if not self._tasks or next(reversed(self._tasks)).since + WARNING_SECONDS <= self._looked:
            return None
        return max(next(iter(self._tasks)).since, self._looked) + WARNING_SECONDS

    def expire(self, now: float) -> None:
        """Tell clients of tasks that have waited for long."""
        self._looked = now
        late = [task for task in islice(self._tasks, TASKS_SEEN) if task.since + WARNING_SECONDS <= now]
        of_requirements: dict[Requirements | None, list[Task]] = {}
        for task in late:
            of_requirements.setdefault(task.requirements, []).append(task)
        left: Counter[str] = Counter()
        for requirements, tasks in of_requirements.items():
            told = self._told_of_none if requirements is None else self._told.setdefault(requirements, set())
            reason, way_out = self.why(requirements)
            for client, task in _clients_of(tasks).items():
                if client in told or left[client] == WARNINGS_AT_A_TIME:
                    continue
                told.add(client)
                left[client] += 1
                more = (
                    f" and {len(tasks) - 1:,} more {'task' if len(tasks) == 2 else 'tasks'}" if len(tasks) > 1 else ""
                )
                waits = "wait" if more else "waits"
                text = f"{task.key!r:.200}{more} {waits} {reason}. After {self._fail_seconds:g} s that fails: {way_out}"
                self._instructions.put(Warn(client, text))

    def client_left(self, client: str) -> None:
        """Forget what a client was told."""
        self._told_of_none.discard(client)
        for told in self._told.values():
            told.discard(client)


def _clients_of(tasks: Iterable[Task]) -> dict[str, Task]:
    """The peers that wait for tasks, or for what is made of them; and the first such task of each."""
    found: dict[str, Task] = {}
    seen: set[Task] = set()
    for task in tasks:
        stack = [task]
        while stack and len(seen) < TASKS_SEEN:
            each = stack.pop()
            if each in seen:
                continue
            seen.add(each)
            for holder in each.holders:
                if holder.peer:
                    found.setdefault(holder.peer, task)
            stack += islice(each.dependents, TASKS_SEEN)
    return found


def _some(names: Sequence[str]) -> list[str]:
    more = len(names) - NAMES_SHOWN
    return [*names[:NAMES_SHOWN], f"{more:,} more"] if more > 0 else list(names)


def _most_resources(workers: Sequence[Worker | WorkerPlace], requirements: Requirements) -> str:
    return ", ".join(
        f"{max((each.resources.get(name, 0.0) for each in workers), default=0.0):g} {name}"
        for name, _ in requirements.resources
    )
