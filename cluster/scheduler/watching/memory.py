"""What lies in the object stores, and why: what ``holdfast memory`` and `Client.memory` show.

There may be a million objects. They are looked at in steps, of which none takes more than a few milliseconds: counted,
put into groups, looked at for leaks (`leaks`), and of the largest it is told what holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from holdfast.cluster.key_prefixes import prefix_of
from holdfast.cluster.protocol.holders import HOLDERS
from holdfast.cluster.protocol.limits import MAX_INTEGER, MAX_NAME_LENGTH
from holdfast.cluster.protocol.requests.looking import GROUPINGS, MAX_OBJECTS_LISTED
from holdfast.cluster.protocol.shapes import in_slices
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.model import Holder, Task, TaskError
from holdfast.cluster.scheduler.watching import descriptions, leaks
from holdfast.cluster.scheduler.watching.descriptions import Silence
from holdfast.cluster.scheduler.watching.introspection import Steps

Stored = TypeVar("Stored", Task, TaskError)

#: A step counts so many objects, and describes so many.
STEP_ITEMS = 500
STEP_DESCRIBED = 100
#: Of each object so many of its holders are named.
MAX_HOLDERS_LISTED = 20
#: Of each kind so many groups are told, the largest first. Of more than twice `MAX_GROUPS` the smallest are given up.
MAX_GROUPS_LISTED = 1_000
MAX_GROUPS = 5_000


class Group(NamedTuple):
    """Objects that have something in common: how many, of how many bytes, since when the first and last are there."""

    objects: int
    nbytes: int
    first: float
    last: float


class Grouping:
    """Puts objects into groups by one thing that they may have in common.

    Parameters
    ----------
    names_of
        ``names_of(task)``: of which groups an object is.

    Attributes
    ----------
    left_out : Group
        What is in groups that were given up, since there are very many.
    """

    def __init__(self, names_of: Callable[[Task], Iterable[str]]) -> None:
        self._names_of = names_of
        self._groups: dict[str, Group] = {}
        self.left_out = [0, 0]

    def add(self, tasks: Iterable[Task]) -> None:
        """Count these."""
        groups, names_of = self._groups, self._names_of
        for task in tasks:
            for name in names_of(task):
                found = groups.get(name)
                since, nbytes = task.since, task.nbytes
                if found is None:
                    groups[name] = Group(1, nbytes, since, since)
                else:
                    objects, sum_nbytes, first, last = found
                    groups[name] = Group(objects + 1, sum_nbytes + nbytes, min(first, since), max(last, since))
        if len(groups) > 2 * MAX_GROUPS:
            self._keep(MAX_GROUPS)

    def _keep(self, most: int) -> None:
        """Give up all but so many groups, the largest first."""
        ordered = sorted(self._groups.items(), key=_nbytes_of_group, reverse=True)
        for _, group in ordered[most:]:
            self.left_out[0] += group.objects
            self.left_out[1] += group.nbytes
        self._groups = dict(ordered[:most])

    def largest(self, now: float) -> dict[str, tuple[int, int, float, float]]:
        """The largest groups, and the seconds for which the oldest and the newest object of each is there."""
        self._keep(MAX_GROUPS_LISTED)
        return {
            name[:MAX_NAME_LENGTH]: (objects, min(nbytes, MAX_INTEGER), now - first, now - last)
            for name, (objects, nbytes, first, last) in self._groups.items()
        }


def _nbytes_of_group(named: tuple[str, Group]) -> int:
    return named[1].nbytes


def _holders(task: Task) -> list[str]:
    names = dict.fromkeys([_holder(holder) for holder in task.holders[:MAX_HOLDERS_LISTED]])
    return [*names, "task"] if task.nwaiters else list(names) or ["nothing"]


def _holder(holder: Holder) -> str:
    kind, name = holder.describe()
    return f"{kind} {name}" if HOLDERS[kind].is_group else kind


def _datasets(task: Task) -> list[str]:
    described = [holder.describe() for holder in task.holders if holder.kind == "dataset"]
    return [name for _, name in described]


def _collection(task: Task) -> tuple[str, ...]:
    key = task.key
    return (str(key[0]),) if type(key) is tuple and key else ()


#: Of which groups an object is, by what it is grouped by.
_NAMES_OF: dict[str, Callable[[Task], Iterable[str]]] = {
    "owner": lambda task: (task.origin.owner,),
    "holder": _holders,
    "dataset": _datasets,
    "collection": _collection,
    "prefix": lambda task: (prefix_of(task.key),),
    "line": lambda task: (task.origin.call_site or "unknown",),
    "type": lambda task: (task.type_name or "unknown",),
    "host": lambda task: [host.description.get("hostname") or host.address for host in task.where] or ("scheduler",),
}

assert set(_NAMES_OF) == set(GROUPINGS)


def memory(state: SchedulerState, silence: Silence, by: Sequence[str], limit: int | None) -> Steps:
    """The objects, the largest of them in detail, and groups of all. See the request."""
    most = MAX_OBJECTS_LISTED if limit is None else min(limit, MAX_OBJECTS_LISTED)
    largest: list[Task] = []
    count = nbytes = 0
    groups = {name: Grouping(_NAMES_OF[name]) for name in by}
    stores = {host.address: host.report.get("store") for host in state.hosts.values() if host.report}
    large = leaks.large_nbytes(state)
    suspicions = leaks.Suspicions(state.life.now, silence, large)
    for tasks in state.life.results.table.slices(STEP_ITEMS):
        count += len(tasks)
        nbytes += sum(map(_nbytes, tasks))
        for grouping in groups.values():
            grouping.add(tasks)
            yield None
        yield from suspicions.add(tasks)
        _add_largest(largest, tasks, most)
        yield None
    errors: list[TaskError] = []
    for some in state.life.errors.table.slices(STEP_ITEMS):
        count += len(some)
        nbytes += sum(map(_nbytes, some))
        _add_largest(errors, some, most)
        yield None
    errors.sort(key=_nbytes, reverse=True)
    for start in range(0, min(len(errors), most), STEP_DESCRIBED):
        yield {"objects": [_error(error) for error in errors[start : min(start + STEP_DESCRIBED, most)]]}
    largest.sort(key=_nbytes, reverse=True)
    for start in range(0, min(len(largest), most), STEP_DESCRIBED):
        step = largest[start : min(start + STEP_DESCRIBED, most)]
        listed = [task for task in step if task.state == "memory"]
        described = iter(listed)  # there may be several of one key, of different generations
        for part in in_slices([task.key for task in listed], STEP_ITEMS):
            yield {"objects": [_object(task, state.life.now, silence) for task in islice(described, len(part))]}
    suspects = yield from suspicions.found({wait.client for wait in state.waits})
    return {
        "objects": [],
        "count": count,
        "nbytes": min(nbytes, MAX_INTEGER),
        "groups": {name: grouping.largest(state.life.now) for name, grouping in groups.items()},
        "left_out": {name: grouping.left_out for name, grouping in groups.items()},
        "suspects": [*suspects, *leaks.still_read(state, large)],
        "stores": stores,
        "hosts": {host.address: host.description.get("hostname", "") for host in state.hosts.values()},
    }


def _add_largest(largest: list[Stored], some: list[Stored], most: int) -> None:
    """Add some, and keep the largest: so many, and as many more as make it worth to sort them."""
    largest += some
    if len(largest) >= 2 * max(most, STEP_ITEMS):
        largest.sort(key=_nbytes, reverse=True)
        del largest[most:]


def _nbytes(stored: Task | TaskError) -> int:
    return stored.nbytes


def _object(task: Task, now: float, silence: Silence) -> dict[str, Any]:
    holders = [descriptions.holder(each, silence) for each in task.holders[:MAX_HOLDERS_LISTED]]
    waiters = descriptions.waiters(task, MAX_HOLDERS_LISTED - len(holders))
    return {
        "key": task.key,
        "object_id": (task.object_id or b"").hex(),
        "nbytes": task.nbytes,
        "type": task.type_name,
        **descriptions.origin(task.origin),
        "holders": [*holders, *[{"kind": "task", "name": f"{waiter.key!r:.200}"} for waiter in waiters]],
        "n_holders": len(task.holders) + task.nwaiters,
        "where": [host.address for host in task.where],
        "age": now - task.since,
    }


def _error(error: TaskError) -> dict[str, Any]:
    tasks = f"{error.tasks:,} failed tasks" if error.tasks > 1 else "a failed task"
    return {
        "key": error.key,
        "object_id": (error.object_id or b"").hex(),
        "nbytes": error.nbytes,
        "type": "exception",
        "owner": "",
        "holders": [{"kind": "error", "name": tasks}],
        "n_holders": 1,
        "where": [host.address for host in error.where],
        "age": None,
    }
