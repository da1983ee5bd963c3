"""More copies of results, where a client wants them: on so many hosts, or evened out among stores.

A *replication* sees to it that results lie on so many of some hosts. Lacking copies are delivered, as a tree
(`carrying`). Copies above that number are forgotten, unless a task reads the result now, or its holders want as many.

A *rebalancing* moves results from the stores that are fuller than others to those that are less full. What is moved is
copied first, and forgotten where it was when it has arrived. So there are never fewer copies than there were, and a
host that dies in the middle takes nothing with it. A result that a task waits for stays where it is: its reader may be
under way.
"""

from __future__ import annotations

import abc
import heapq
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from holdfast.cluster.protocol.requests import REBALANCE, REPLICATE
from holdfast.cluster.scheduler.parts.carrying import BRANCHING, Carrying, Order, Subject
from holdfast.cluster.scheduler.parts.copies import Copies
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.waits import Refusal, Wait, WaitOwner
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Host, Task
from holdfast.cluster.scheduler.tasks.names import Key
from holdfast.cluster.scheduler.tasks.wording import some

#: How long such a request may take, if the client does not say.
MOVE_SECONDS = 300.0
#: So many deliveries of one request are given out at a time.
WINDOW = 200
#: Results that are smaller stay where they are when stores are evened out, unless they were named.
MIN_MOVED_NBYTES = 4 << 10
#: Of each host so many results are looked at.
MAX_LOOKED_AT = 20_000
#: A store that differs from its share by less than this part of it is as full as the others.
TOLERANCE = 0.05
#: An answer names so many results of which there are fewer copies than wanted.
MAX_NAMED = 1_000


class _Moving(Wait, Order):
    """A request that has results brought to hosts."""

    def __init__(self, part: Replicas, client: str, request: int, due: float) -> None:
        super().__init__(part, client, request, due)
        self.carrying = part.carrying
        self.on_change = part.ask_to_follow_up

    @abc.abstractmethod
    def go_on(self) -> None:
        """Have more brought, as much as may be under way."""

    @property
    @abc.abstractmethod
    def is_done(self) -> bool:
        """Whether nothing is to be brought any more."""

    @property
    @abc.abstractmethod
    def result(self) -> Any:
        """What the client is answered then."""

    @abc.abstractmethod
    def left_in_words(self) -> str:
        """What was not done when the time was over."""

    def describe(self) -> str:
        return f"{self.kind} ({self.left_in_words()})"


class Replication(_Moving):
    """Results that are to lie on ``n`` of these hosts."""

    kind = "replication"

    def __init__(
        self,
        part: Replicas,
        client: str,
        request: int,
        due: float,
        tasks: Iterable[Task],
        hosts: Iterable[Host],
        n: int,
        branching: int,
    ) -> None:
        super().__init__(part, client, request, due)
        self.branching = branching
        self._n = n
        self._part = part
        self._hosts = dict.fromkeys(hosts)
        self._todo = deque(tasks)
        self._coming: Counter[Task] = Counter()
        self._tried: dict[Task, dict[Host, str]] = {}
        self._short: dict[Task, str] = {}

    @property
    def n(self) -> int:
        """On how many hosts: on no more than there are still."""
        return min(self._n, len(self._hosts))

    def go_on(self) -> None:
        while self._todo and self.carrying.outstanding(self) < WINDOW:
            self._see_to(self._todo.popleft())

    def _see_to(self, task: Task) -> None:
        if task.state != "memory":
            self._short[task] = "it is not there any more"
            return
        have = [host for host in task.where if host in self._hosts]
        lacks = self.n - len(have) - self._coming[task]
        if lacks < 0:
            self._part.forget_some(task, have, -lacks)
        if lacks <= 0:
            return
        tried = self._tried.get(task, {})
        able = [
            host
            for host in self._hosts
            if not host.leaving
            and host not in task.where
            and host not in tried
            and task.nbytes <= host.capacity
            and not self._is_bringing(task, host)
        ]
        for host in heapq.nlargest(lacks, able, key=self.carrying.room_in):
            self._coming[task] += 1
            self.carrying.bring(self, task, host)
        if len(able) < lacks:
            self._short[task] = next(reversed(tried.values()), self._why_not(task))

    def _is_bringing(self, task: Task, host: Host) -> bool:
        return bool(self._coming[task]) and self.carrying.is_coming(task, host)

    def _why_not(self, task: Task) -> str:
        small = [host.address for host in self._hosts if task.nbytes > host.capacity]
        if small:
            return f"the stores of {some(small, 3)} have less than its {task.nbytes:,} bytes"
        return f"there are only {len(self._hosts)} hosts that may have it"

    def host_left(self, host: Host) -> None:
        """A host is gone."""
        self._hosts.pop(host, None)

    def arrived(self, subject: Subject, host: Host) -> None:
        assert isinstance(subject, Task)
        self._coming[subject] -= 1
        self.on_change()

    def failed(self, subject: Subject, host: Host, reason: str) -> None:
        assert isinstance(subject, Task)
        self._coming[subject] -= 1
        self._tried.setdefault(subject, {})[host] = reason
        self._todo.append(subject)
        self.on_change()

    @property
    def is_done(self) -> bool:
        return not self._todo and not self.carrying.outstanding(self)

    @property
    def result(self) -> Any:
        short = [(task, len([h for h in task.where if h in self._hosts]), why) for task, why in self._short.items()]
        named = [
            {"key": task.key, "copies": copies, "wanted": self.n, "reason": reason[:1000]}
            for task, copies, reason in short
            if copies < self.n
        ]
        return {"short": named[:MAX_NAMED]}

    def left_in_words(self) -> str:
        return f"{len(self._todo) + self.carrying.outstanding(self):,} copies were to be made still"


class Rebalancing(_Moving):
    """Results that move from full stores to emptier ones."""

    kind = "rebalancing"

    def __init__(
        self,
        part: Replicas,
        client: str,
        request: int,
        due: float,
        keys: Sequence[Key] | None,
        hosts: Iterable[Host],
        moves: Iterable[tuple[Task, Host, Host]],
    ) -> None:
        super().__init__(part, client, request, due)
        self._part = part
        self._keys = keys
        self._hosts = list(hosts)
        self._todo = deque(moves)
        self._from: dict[tuple[Task, Host], Host] = {}
        self._objects = 0
        self._nbytes = 0
        self._failures: list[str] = []

    def go_on(self) -> None:
        while self._todo and self.carrying.outstanding(self) < WINDOW:
            task, source, host = self._todo.popleft()
            if task.state == "memory" and source in task.where and host not in task.where and not host.leaving:
                self._from[task, host] = source
                self.carrying.bring(self, task, host)

    def arrived(self, subject: Subject, host: Host) -> None:
        assert isinstance(subject, Task)
        source = self._from.pop((subject, host))
        if source in subject.where and not subject.nwaiters:
            self._objects += 1
            self._nbytes += subject.nbytes
            self._part.forget_copy(subject, source)
        self.on_change()

    def failed(self, subject: Subject, host: Host, reason: str) -> None:
        assert isinstance(subject, Task)
        del self._from[subject, host]
        if subject.state == "memory":
            self._failures.append(reason)
        self.on_change()

    @property
    def is_done(self) -> bool:
        return not self._todo and not self.carrying.outstanding(self)

    @property
    def result(self) -> Any:
        reason = self._failures[0][:1000] if self._failures else ""
        return {"objects": self._objects, "nbytes": self._nbytes, "failed": len(self._failures), "reason": reason}

    def left_in_words(self) -> str:
        left = len(self._todo) + self.carrying.outstanding(self)
        return f"{self._objects:,} results have moved, and {left:,} were to move still"


class Replicas(Part, WaitOwner):
    """Answers `replicate` and `rebalance`.

    Parameters
    ----------
    shared
        What all parts work with.
    carrying
        Has copies brought.
    copies
        Knows how many copies there are to be.
    """

    name = "replicas"

    def __init__(self, shared: Shared, carrying: Carrying, copies: Copies) -> None:
        super().__init__(shared)
        self.requests = {REPLICATE: self._replicate, REBALANCE: self._rebalance}
        self.carrying = carrying
        self._copies = copies
        self._moving: dict[_Moving, None] = {}

    # -- requests

    def _replicate(
        self,
        client: Client,
        request: int,
        keys: Sequence[Key],
        n: int | None = None,
        workers: Sequence[str] | None = None,
        branching: int = BRANCHING,
        timeout: float = MOVE_SECONDS,
    ) -> None:
        self.shared.waits.demand_room(client.id)
        hosts = self._hosts(workers)
        tasks = self._tasks(keys)
        if not hosts:
            raise Refusal("NotCopiedError", "there is no host with a store that could have copies")
        count = len(hosts) if n is None else min(n, len(hosts))
        due = self.shared.now + timeout
        self._begin(Replication(self, client.id, request, due, tasks, hosts, count, branching))

    def _rebalance(
        self,
        client: Client,
        request: int,
        keys: Sequence[Key] | None = None,
        workers: Sequence[str] | None = None,
        timeout: float = MOVE_SECONDS,
    ) -> None:
        self.shared.waits.demand_room(client.id)
        hosts = self._hosts(workers)
        tasks = None if keys is None else self._tasks(keys)
        due = self.shared.now + timeout
        moves = self._moves(hosts, tasks)
        self._begin(Rebalancing(self, client.id, request, due, keys, hosts, moves))

    def _begin(self, moving: _Moving) -> None:
        self._moving[moving] = None
        self.shared.waits.begin(moving)
        self.ask_to_follow_up()

    def _tasks(self, keys: Sequence[Key]) -> list[Task]:
        known = self.shared.life.generations.tasks
        gone = [key for key in keys if key not in known]
        if gone:
            raise Refusal("CancelledError", f"{some(map(repr, gone))[:1000]} was cancelled or released")
        return [known[key] for key in dict.fromkeys(keys)]

    def _hosts(self, names: Sequence[str] | None) -> list[Host]:
        """The hosts that these names mean, of hosts or of workers; all for None."""
        there = [host for host in self.shared.hosts.values() if host.is_ready and not host.leaving]
        if names is None:
            return there
        found: dict[Host, None] = {}
        for name in names:
            its = [host for host in there if name in host.names_with_workers]
            if not its:
                known = some([host.address for host in there], 10) if there else "none"
                raise Refusal("NoWorkerError", f"there is no worker or host {name!r:.200}; the hosts are {known}")
            found.update(dict.fromkeys(its))
        return list(found)

    # -- copies that go

    def forget_some(self, task: Task, of: Sequence[Host], count: int) -> None:
        """Have the fullest of these hosts forget their copies, as long as there are as many as holders want."""
        spare = len(task.where) - max(1, self._copies.wanted(task))
        if task.nwaiters or spare <= 0:
            return
        for host in heapq.nsmallest(min(count, spare), of, key=self.carrying.room_in):
            self.forget_copy(task, host)

    def forget_copy(self, task: Task, host: Host) -> None:
        """Have a host forget its copy of a result, if there are more than holders want."""
        if len(task.where) > max(1, self._copies.wanted(task)):
            self.shared.life.results.forget_copy(task, host)

    # -- evening out

    def _moves(self, hosts: Sequence[Host], named: Sequence[Task] | None) -> Iterator[tuple[Task, Host, Host]]:
        """What is to move, from where and to where, so that all stores are about equally full."""
        weights = {host: float(host.capacity) for host in hosts}
        if len(hosts) < 2 or not all(weights.values()):
            weights = dict.fromkeys(hosts, 1.0)
        total, weight = sum(host.nbytes for host in hosts), sum(weights.values())
        share = {host: total * weights[host] / weight for host in hosts}
        above = {host: host.nbytes - share[host] for host in hosts}
        takers = [(above[host], number, host) for number, host in enumerate(hosts) if above[host] < 0]
        heapq.heapify(takers)
        givers = sorted((host for host in hosts if above[host] > TOLERANCE * share[host]), key=lambda h: -above[h])
        moves: list[tuple[Task, Host, Host]] = []
        of_hosts = None if named is None else _by_host(named)
        moved: set[Task] = set()
        for giver in givers:
            its = islice(giver.objects, MAX_LOOKED_AT) if of_hosts is None else of_hosts.get(giver, [])
            least = MIN_MOVED_NBYTES if named is None else 1
            candidates = [task for task in its if task.nbytes >= least and task.inline is None and not task.nwaiters]
            candidates.sort(key=lambda task: task.nbytes, reverse=True)
            for task in candidates:
                if not takers or above[giver] <= TOLERANCE * share[giver]:
                    break
                below, number, taker = takers[0]
                room = min(taker.capacity - taker.nbytes, task.nbytes) if taker.capacity else task.nbytes
                if task in moved or task.nbytes > above[giver] or taker in task.where or room < task.nbytes:
                    continue
                if below + task.nbytes > above[giver]:
                    continue  # it would be as uneven as before
                heapq.heapreplace(takers, (below + task.nbytes, number, taker))
                above[giver] -= task.nbytes
                moved.add(task)
                moves.append((task, giver, taker))
        return iter(moves)

    # -- what happens

    def host_left(self, host: Host) -> None:
        for moving in self._moving:
            if isinstance(moving, Replication):
                moving.host_left(host)
        if self._moving:
            self.ask_to_follow_up()

    def follow_up(self) -> None:
        for moving in list(self._moving):
            moving.go_on()
            if moving.is_done:
                self.shared.waits.answer(moving, moving.result)

    # -- the end of a wait

    def expired(self, wait: Wait) -> None:
        assert isinstance(wait, _Moving)
        self.shared.waits.refuse(wait, "TimeoutError", f"the time is over: {wait.left_in_words()}")

    def forget(self, wait: Wait) -> None:
        assert isinstance(wait, _Moving)
        del self._moving[wait]
        self.carrying.withdraw(wait)

    # -- the rest

    def check(self) -> None:
        assert set(self._moving) == {wait for wait in self.shared.waits if isinstance(wait, _Moving)}
        for moving in self._moving:
            assert not moving.is_done, f"{moving!r} has nothing to wait for"


def _by_host(tasks: Iterable[Task]) -> dict[Host, list[Task]]:
    found: dict[Host, list[Task]] = {}
    for task in tasks:
        for host in task.where:
            found.setdefault(host, []).append(task)
    return found
