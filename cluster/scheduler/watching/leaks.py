"""Which objects may be there for nobody: suspicions, each with the reason for it.

==============  =====================================================================================================
suspicion       what has to be true
==============  =====================================================================================================
``idle``        clients alone keep them, and they are as old as `IDLE_SECONDS`. Each of these clients has said nothing
                for as long, and waits for nothing; or its connection is broken
``growing``     one client alone keeps `GROWING_OBJECTS` objects or more that one line of code has brought, a few at a
                time, the first `IDLE_SECONDS` ago or more, the last within `RECENT_SECONDS`: a container that only
                grows, perhaps
``queue``       items of queues alone keep them, and nobody has taken them for `QUEUED_SECONDS`
``cycle``       only objects and actors keep them that keep each other. No client can reach them; they are there for
                ever
``read``        they were deleted, and processes look at them still: these hold views of them
==============  =====================================================================================================

So much has to be there together that it matters: `LARGE_SHARE` of the room of all stores. A cycle is told of whatever
it takes, since it is certain. What only looks old or large is not suspected: many programs keep their data for days.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any

from holdfast.cluster.protocol.limits import MAX_INTEGER
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.holders import Client, Contents
from holdfast.cluster.scheduler.tasks.model import Holder, Task
from holdfast.cluster.scheduler.tasks.states import ACTIVE
from holdfast.cluster.scheduler.watching import descriptions
from holdfast.cluster.scheduler.watching.descriptions import Silence

IDLE_SECONDS = 600.0
RECENT_SECONDS = 60.0
QUEUED_SECONDS = 3_600.0
GROWING_OBJECTS = 100
#: So many objects for each message that brings some are a few at a time; a graph or a map has hundreds.
FEW = 4
LARGE_SHARE = 0.01
LEAST_NBYTES = 1_000_000
#: So many suspicions are told, the largest first, and so many keys of each.
MAX_TOLD = 20
MAX_KEYS = 3
#: Groups of objects that are looked at for what only grows; what comes when there are as many is not.
MAX_GROUPS = 10_000
#: A step looks at so many tasks that a client holds.
STEP_ITEMS = 500
#: A step follows so many objects that contain others; the search for cycles ends after so many in all.
STEP_FOLLOWED = 2_000
MAX_FOLLOWED = 500_000


def large_nbytes(state: SchedulerState) -> int:
    """How much has to be there together for a suspicion that is not certain."""
    return max(LEAST_NBYTES, int(LARGE_SHARE * sum(host.capacity for host in state.hosts.values())))


def still_read(state: SchedulerState, large: int) -> list[dict[str, Any]]:
    """What was deleted in the stores, and is looked at still: of stores where that is so much."""
    found = []
    for host in state.hosts.values():
        store = host.report.get("store") or {}
        nbytes = store.get("deleted_but_pinned_nbytes") or 0
        if nbytes >= large:
            found.append(
                {
                    "suspicion": "read",
                    "objects": store.get("deleted_but_pinned") or 0,
                    "nbytes": min(nbytes, MAX_INTEGER),
                    "holders": [{"kind": "process", "name": name} for name in store.get("deleted_but_pinned_by") or ()],
                    "host": descriptions.host(host),
                    "keys": [],
                }
            )
    return found


def _holds_unfinished(client: Holder) -> Generator[None, None, bool]:
    for tasks in client.holds.slices(STEP_ITEMS):
        if any(task.state in ACTIVE for task in tasks):
            return True
        yield None
    return False


class _Suspected:
    """Objects that are suspected for one reason."""

    __slots__ = ("first", "holders", "keys", "last", "nbytes", "objects", "origin", "suspicion")

    def __init__(self, suspicion: str, holders: tuple[Holder, ...], task: Task) -> None:
        self.suspicion = suspicion
        self.holders = holders
        self.origin = task.origin
        self.keys: list[Any] = []
        self.objects = self.nbytes = 0
        self.first = self.last = task.since

    def add(self, task: Task) -> None:
        self.objects += 1
        self.nbytes += task.nbytes
        self.first = min(self.first, task.since)
        self.last = max(self.last, task.since)
        if len(self.keys) < MAX_KEYS:
            self.keys.append(task.key)


class Suspicions:
    """Looks at objects for leaks.

    Parameters
    ----------
    now
        The time.
    silence
        Tells for how long a client has said nothing.
    large
        So many bytes have to be there together, unless it is certain.
    """

    def __init__(self, now: float, silence: Silence, large: int) -> None:
        self._now = now
        self._silence = silence
        self._large = large
        self._idle_clients: dict[Client, bool] = {}
        self._suspected: dict[Any, _Suspected] = {}
        self._waits: dict[Holder, bool] = {}  # of silent clients: whether they wait for something
        self._kept: dict[Task, bool] = {}  # of what objects keep: whether something else keeps these
        self._followed = 0

    def add(self, tasks: Iterable[Task]) -> Iterator[None]:
        """Look at these, in steps."""
        for task in tasks:
            holders = task.holders
            if task.nwaiters or not holders:
                continue
            first = holders[0]
            if isinstance(first, Client):
                self._held_by_client(task, first, holders)
            elif isinstance(first, Contents):
                if all(isinstance(holder, Contents) for holder in holders):
                    yield from self._held_by_objects(task)
            elif self._is_left_in_queues(task):
                self._suspect("queue", str(first.id), (first,), task)

    def _held_by_client(self, task: Task, first: Client, holders: tuple[Holder, ...]) -> None:
        age = self._now - task.since
        if first.worker is None and self._is_idle(first):
            if age >= IDLE_SECONDS and all(isinstance(each, Client) and self._is_idle(each) for each in holders):
                self._suspect("idle", (first, task.origin.call_site), holders, task)
        elif len(holders) == 1 and task.origin.call_site:
            self._suspect("growing", (first, task.origin.call_site), holders, task)

    def _is_left_in_queues(self, task: Task) -> bool:
        return self._now - task.since >= QUEUED_SECONDS and all(holder.kind == "queue" for holder in task.holders)

    def _is_idle(self, client: Client) -> bool:
        idle = self._idle_clients.get(client)
        if idle is None:
            seconds, cut_off = self._silence(client.id)
            idle = self._idle_clients[client] = cut_off or (seconds is not None and seconds >= IDLE_SECONDS)
        return idle

    def _suspect(self, suspicion: str, what: Any, holders: tuple[Holder, ...], task: Task) -> None:
        found = self._suspected.get((suspicion, what))
        if found is None:
            if len(self._suspected) >= MAX_GROUPS:
                return
            found = self._suspected[suspicion, what] = _Suspected(suspicion, holders, task)
        found.add(task)

    # -- cycles

    def _held_by_objects(self, task: Task) -> Iterator[None]:
        """Follow what keeps an object that other objects keep, up to something else, or until nothing is left."""
        if task in self._kept or self._followed >= MAX_FOLLOWED:
            if self._kept.get(task) is False:
                self._in_cycle(task)
            return
        seen = {task: None}
        stack = [task]
        is_kept = False
        while stack and not is_kept and self._followed < MAX_FOLLOWED:
            one = stack.pop()
            self._followed += 1
            if self._followed % STEP_FOLLOWED == 0:
                yield None
            # What nothing keeps is about to go, with all that it keeps.
            if self._kept.get(one) or one.nwaiters or one.state != "memory" or not one.holders:
                is_kept = True
            for holder in one.holders:
                if not isinstance(holder, Contents):
                    is_kept = True
                elif holder.task not in seen:
                    seen[holder.task] = None
                    stack.append(holder.task)
        if is_kept:
            self._kept[task] = True
        elif not stack:
            self._kept.update(dict.fromkeys(seen, False))
            self._in_cycle(task)

    def _in_cycle(self, task: Task) -> None:
        if task.state == "memory":
            self._suspect("cycle", None, task.holders[:1], task)

    # -- what was found

    def found(self, waiting: set[str]) -> Generator[None, None, list[dict[str, Any]]]:
        """The suspicions, the largest first; in steps.

        Parameters
        ----------
        waiting
            The ids of clients whose requests have no answer yet.
        """
        told: list[_Suspected] = []
        for each in sorted(self._suspected.values(), key=lambda each: each.nbytes, reverse=True):
            if self._matters(each) and not (yield from self._is_awaited(each, waiting)):
                told.append(each)
            if len(told) == MAX_TOLD:
                break
        return [
            {
                "suspicion": each.suspicion,
                "objects": each.objects,
                "nbytes": min(each.nbytes, MAX_INTEGER),
                "holders": [descriptions.holder(holder, self._silence) for holder in each.holders[:MAX_KEYS]],
                "call_site": each.origin.call_site,
                "keys": each.keys,
                "oldest_seconds": self._now - each.first,
                "newest_seconds": self._now - each.last,
            }
            for each in told
        ]

    def _is_awaited(self, found: _Suspected, waiting: set[str]) -> Generator[None, None, bool]:
        """Whether a client that is silent waits for something."""
        if found.suspicion == "idle":
            for client in found.holders:
                if self._waits.get(client) is None:
                    self._waits[client] = client.id in waiting or (yield from _holds_unfinished(client))
                if self._waits[client]:
                    return True
        return False

    def _matters(self, found: _Suspected) -> bool:
        if found.suspicion == "cycle":
            return True
        if found.nbytes < self._large:
            return False
        if found.suspicion == "growing":
            return (
                found.objects >= GROWING_OBJECTS
                and found.objects <= FEW * found.origin.messages
                and self._now - found.first >= IDLE_SECONDS
                and self._now - found.last <= RECENT_SECONDS
            )
        return True
