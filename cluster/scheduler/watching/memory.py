"""What lies in the object stores, and why: what ``holdfast memory`` and `Client.memory` show.

There may be a million objects. They are looked at in steps, of which none takes more than a few milliseconds: counted,
put into groups, looked at for leaks (`leaks`), and of the largest it is told what holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from holdfast.cluster.key_prefixes import prefix_of
from holdfast.cluster.protocol.holders import HOLDERS
from holdfast.cluster.protocol.limits import MAX_INTEGER, MAX_NAME_LENGTH
from holdfast.cluster.protocol.requests.looking import GROUPINGS, MAX_OBJECTS_LISTED
from holdfast.cluster.protocol.shapes import in_slices
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.model import Holder, Host, Task, TaskError
from holdfast.cluster.scheduler.tasks.origins import Origin
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
#: When there are more kinds of objects than this, they are grouped, and counted anew.
MAX_KINDS = 10_000


class Kind(NamedTuple):
    """What objects may have in common: all that they are grouped by."""

    origin: Origin
    holders: tuple[Holder, ...]
    is_awaited: bool
    where: tuple[Host, ...]
    type_name: str
    prefix: str
    collection: Any  # of a key that is a tuple, what stands first there; else None

    @classmethod
    def of(cls, task: Task) -> Kind:
        key = task.key
        collection = key[0] if type(key) is tuple and key else None
        prefix = prefix_of(key)
        return cls(task.origin, task.holders, task.nwaiters > 0, task.where, task.type_name, prefix, collection)


class Group(NamedTuple):
    """Objects that have something in common: how many, of how many bytes, since when the first and last are there."""

    objects: int
    nbytes: int
    first: float
    last: float

    def __add__(self, other: object) -> Group:
        assert isinstance(other, Group)
        first, last = min(self.first, other.first), max(self.last, other.last)
        return Group(self.objects + other.objects, self.nbytes + other.nbytes, first, last)


class Grouping:
    """Puts objects into groups by one thing that they may have in common.

    Parameters
    ----------
    names_of
        ``names_of(kind)``: of which groups objects are.

    Attributes
    ----------
    left_out : Group
        What is in groups that were given up, since there are very many.
    """

    def __init__(self, names_of: Callable[[Kind], Iterable[str]]) -> None:
        self._names_of = names_of
        self._groups: dict[str, Group] = {}
        self.left_out = [0, 0]

    def add(self, kinds: Iterable[tuple[Kind, Group]]) -> None:
        """Count these."""
        groups, names_of = self._groups, self._names_of
        for kind, objects in kinds:
            for name in names_of(kind):
                found = groups.get(name)
                groups[name] = objects if found is None else found + objects
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


def _holders(kind: Kind) -> list[str]:
    names = dict.fromkeys([_holder(holder) for holder in kind.holders[:MAX_HOLDERS_LISTED]])
    return [*names, "task"] if kind.is_awaited else list(names) or ["nothing"]


def _holder(holder: Holder) -> str:
    kind, name = holder.describe()
    return f"{kind} {name}" if HOLDERS[kind].is_group else kind


def _datasets(kind: Kind) -> list[str]:
    described = [holder.describe() for holder in kind.holders if holder.kind == "dataset"]
    return [name for _, name in described]


#: Of which groups an object is, by what it is grouped by.
_NAMES_OF: dict[str, Callable[[Kind], Iterable[str]]] = {
    "owner": lambda kind: (kind.origin.owner,),
    "holder": _holders,
    "dataset": _datasets,
    "collection": lambda kind: () if kind.collection is None else (str(kind.collection),),
    "prefix": lambda kind: (kind.prefix,),
    "line": lambda kind: (kind.origin.call_site or "unknown",),
    "type": lambda kind: (kind.type_name or "unknown",),
    "host": lambda kind: [host.description.get("hostname") or host.address for host in kind.where] or ("scheduler",),
}


class Groupings:
    """Puts objects into groups by several things. Most have all of these in common with many others (`Kind`), so they
    are counted by that first.

    Parameters
    ----------
    by
        The names of these things.
    """

    def __init__(self, by: Iterable[str]) -> None:
        self.of = {name: Grouping(_NAMES_OF[name]) for name in by}
        self._kinds: dict[Kind, Group] = {}

    def add(self, tasks: Iterable[Task]) -> Iterator[None]:
        """Count these, in steps."""
        if not self.of:
            return
        kinds = self._kinds
        for task in tasks:
            kind, since = Kind.of(task), task.since
            found = kinds.get(kind)
            if found is None:
                kinds[kind] = Group(1, task.nbytes, since, since)
            else:
                objects, nbytes, first, last = found
                first, last = (since if since < first else first), (since if since > last else last)
                kinds[kind] = Group(objects + 1, nbytes + task.nbytes, first, last)
        if len(kinds) > MAX_KINDS:
            yield from self.end()

    def end(self) -> Iterator[None]:
        """Group what was counted, in steps."""
        kinds, self._kinds = iter(self._kinds.items()), {}
        while some := list(islice(kinds, STEP_ITEMS)):
            for grouping in self.of.values():
                grouping.add(some)
                yield None


assert set(_NAMES_OF) == set(GROUPINGS)


def memory(state: SchedulerState, silence: Silence, by: Sequence[str], limit: int | None) -> Steps:
    """The objects, the largest of them in detail, and groups of all. See the request."""
    most = MAX_OBJECTS_LISTED if limit is None else min(limit, MAX_OBJECTS_LISTED)
    largest: list[Task] = []
    count = nbytes = 0
    groupings = Groupings(by)
    stores = {host.address: host.report.get("store") for host in state.hosts.values() if host.report}
    large = leaks.large_nbytes(state)
    suspicions = leaks.Suspicions(state.life.now, silence, large)
    for tasks in state.life.results.table.slices(STEP_ITEMS):
        count += len(tasks)
        nbytes += sum(map(_nbytes, tasks))
        yield from groupings.add(tasks)
        yield None
        yield from suspicions.add(tasks)
        _add_largest(largest, tasks, most)
        yield None
    yield from groupings.end()
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
        "groups": {name: grouping.largest(state.life.now) for name, grouping in groupings.of.items()},
        "left_out": {name: grouping.left_out for name, grouping in groupings.of.items()},
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
