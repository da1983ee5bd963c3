"""Second copies of data that can't be made again.

What tasks have made is made again when its host is lost. Data that a client has stored has no such way back. As long as
the client is there, it can bring the data again; what is published is to be there without the client too. So what is
held of such data by holders that ask for copies (``Holder.copies``), as datasets do, gets one on a second host: before
the publisher has its answer, and again when one of the two hosts is lost.

What tasks have made is made again only as long as there is what it was made of. So a dataset also holds the data below
its tasks that is still there when they are published (`lineage`). Where some is gone, the tasks that were made of it
can't be made again either.

A *root* is a task that can't be made again, whose result lies in stores and that such a holder has, also by way of an
object that contains its future. What lies in a file as well (`durable`) needs no second host. A holder may want further
copies, also of what can be made again (``Holder.replicas``). What has fewer copies than it is to have is in the table
`Copies.wanting`:

==============  ======================================================================================================
it is …         … and what comes next
==============  ======================================================================================================
queued          a host with room for it is told to bring a copy; those that a publisher waits for come first
under way       the host has it: it leaves the table. The host says that it can't, is gone, or has not answered in
                `COPY_SECONDS`: it is queued again, for another host
at rest         no host could take it, or there is none: queued again when a host comes, or after `RETRY_SECONDS`
==============  ======================================================================================================

Nothing is told when a root loses its last copy or its last dataset: what is in the table and no longer such a root is
found when its turn comes.
"""

from __future__ import annotations

import abc
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from holdfast.cluster.scheduler.parts.lineage import Lineage
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.holders import Contents
from holdfast.cluster.scheduler.tasks.instructions import CopyObjects
from holdfast.cluster.scheduler.tasks.model import Holder, Host, Task
from holdfast.cluster.scheduler.tasks.names import ObjectId

#: So many copies are made at a time, and so many of those that no publisher waits for.
MAX_COPIES = 16
MAX_SPARE_COPIES = 2
#: A host that has not answered after this is not waited for.
COPY_SECONDS = 60.0
#: What no host could take is offered again after this.
RETRY_SECONDS = 60.0

NO_OTHER_HOST = "there is no other host"


class _Want:
    """What is known of the next copy that a task wants."""

    __slots__ = ("deadline", "host", "object_id", "reason", "tried", "urgent")

    def __init__(self) -> None:
        self.urgent = False
        self.host: Host | None = None  # that brings it
        self.object_id: ObjectId | None = None  # what it brings
        self.deadline = 0.0  # of that host's answer
        self.tried: dict[Host, None] = {}  # that could not
        self.reason = ""  # why there is no copy


class AwaitedCopies(Timed):
    """Copies that somebody waits for, so long.

    Attributes
    ----------
    roots
        Those whose copies are waited for; whether each of them can't be made again.
    waits_for
        Those of them whose copies are still to come.
    """

    due: float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.roots: dict[Task, bool] = {}
        self.waits_for: dict[Task, None] = {}

    @abc.abstractmethod
    def made(self) -> None:
        """No copy is to come any more; it ends by that (`Copies.end`)."""

    @property
    def lost(self) -> Task | None:
        """One that can't be made again, and was lost before there was a copy of it."""
        return next(
            (task for task, is_root in self.roots.items() if is_root and task.state not in ("memory", "forgotten")),
            None,
        )


class _Lateness(Timed):
    """Hosts that are late with copies, and copies that no host could take."""

    __slots__ = ("_copies",)

    def __init__(self, copies: Copies) -> None:
        super().__init__()
        self._copies = copies

    @property
    def due(self) -> float | None:
        return self._copies.due

    def expire(self, now: float) -> None:
        self._copies.time_passed(now)


class Copies(Part):
    """Sees to the second copies.

    Attributes
    ----------
    wanting
        What is to have more copies than it has.
    """

    name = "copies"

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.wanting: dict[Task, _Want] = {}
        self._instructions = shared.instructions
        self._life = shared.life
        self._hosts = shared.hosts
        self._awaited: dict[AwaitedCopies, None] = {}
        self._lateness = _Lateness(self)
        self._urgent: OrderedDict[Task, None] = OrderedDict()
        self._spare: OrderedDict[Task, None] = OrderedDict()
        self._under_way: OrderedDict[Task, None] = OrderedDict()  # the earliest deadline first
        self._retry_at: float | None = None
        self._replicating: dict[Holder, None] = {}  # that want more copies of everything
        self._orphans: set[Task] = set()  # published, and made of what is gone; only asked for membership

    # -- what happens

    def hold_lineage(self, holder: Holder) -> None:
        """Have a holder hold what its tasks are made of, and note which of them can't be made again."""
        lineage = Lineage(holder.holds)
        for root in lineage.roots:
            self._life.holding.hold(holder, root)
        self._orphans.update(lineage.orphans())

    def wanted(self, task: Task) -> int:
        """On how many hosts a result is to lie at least."""
        if self.is_root(task) and task not in self._life.results.durable:
            return max((max(holder.copies, holder.replicas) for holder in _keepers_of(task)), default=1)
        return max((holder.replicas for holder in _keepers_of(task)), default=1) if self._replicating else 1

    def is_root(self, task: Task) -> bool:
        """Whether a task can't be made again."""
        return task.payload is None or task in self._orphans

    def is_durable(self, task: Task) -> bool:
        """Whether a result lies in a file as well, which outlives all hosts."""
        return task in self._life.results.durable

    def urge(self, holders: Iterable[Holder]) -> dict[Task, bool]:
        """Copies of what these hold come first: the results that are to have some, whether they have enough or not;
        whether each of them can't be made again."""
        found: dict[Task, bool] = {}
        for holder in holders:
            if holder.replicas > 1:
                self._replicating[holder] = None
            for task in self._reachable(holder):
                if task.state in ("memory", "lost"):
                    found[task] = self.is_root(task)
        for task in found:
            self.look_at(task, urgent=True)
        return found

    def begin(self, awaited: AwaitedCopies, holders: Iterable[Holder]) -> None:
        """Copies of what these hold are waited for. There may be none to come."""
        awaited.roots = self.urge(holders)
        awaited.waits_for = {task: None for task in awaited.roots if task in self.wanting}
        self._awaited[awaited] = None
        self.ask_to_follow_up()

    def wait_no_longer(self, awaited: AwaitedCopies) -> None:
        """The wait is to end, whatever becomes of the copies."""
        awaited.waits_for.clear()
        self.ask_to_follow_up()

    def end(self, awaited: AwaitedCopies) -> None:
        """These copies aren't waited for any more."""
        del self._awaited[awaited]

    def let_go(self, holder: Holder) -> None:
        """Copies are not needed for a holder any more, which has let go of its tasks or is about to."""
        self._replicating.pop(holder, None)
        self._orphans = {task for task in self._orphans if any(each is not holder for each in _keepers_of(task))}

    def look_at(self, task: Task, *, urgent: bool = False) -> None:
        """A task may have fewer copies now than it is to have."""
        if not self._wants_copy(task):
            return
        want = self.wanting.get(task)
        if want is None:
            want = self.wanting[task] = _Want()
        want.urgent = want.urgent or urgent
        if want.host is None:
            self._queue(task, want)

    def contained(self, task: Task, others: Iterable[Task]) -> None:
        """An object was found to contain futures."""
        if _is_to_be_kept(task):
            for other in others:
                self.look_at(other)

    def copied(self, task: Task) -> None:
        """A host has a copy that it did not have."""
        want = self.wanting.get(task)
        if want is None:
            return
        if not self._wants_copy(task):
            self._drop(task)
        elif want.host is not None and want.host in task.where:
            want.host = None
            del self._under_way[task]
            self._queue(task, want)

    def lost_copy(self, task: Task) -> None:
        """A host is gone that had the result of a task."""
        if not (self.is_root(task) or self._replicating):
            return
        if task.state == "memory":
            self.look_at(task)
        elif task in self.wanting:
            self._drop(task)

    def failed(self, host: Host, object_id: ObjectId, reason: str) -> None:
        """A host could not bring a copy."""
        task = self._life.results.get(object_id)
        want = None if task is None else self.wanting.get(task)
        if task is not None and want is not None and want.host is host and want.object_id == object_id:
            self._try_another(task, want, f"{host.address}: {reason}")

    def host_ready(self, host: Host) -> None:
        """A host has come: it may take what no other could."""
        for task, want in self.wanting.items():
            if want.host is None:
                self._queue(task, want)

    def host_left(self, host: Host) -> None:
        """A host is gone; which tasks have lost a copy by that is told apart."""
        for task, want in self.wanting.items():
            want.tried.pop(host, None)
            if want.host is host:
                want.host = None
                del self._under_way[task]
                self._queue(task, want)

    # -- what is to be done

    @property
    def due(self) -> float | None:
        """When `time_passed` is due."""
        deadlines = []
        if self._under_way:
            deadlines.append(self.wanting[next(iter(self._under_way))].deadline)
        if self._retry_at is not None:
            deadlines.append(self._retry_at)
        return min(deadlines, default=None)

    def time_passed(self, now: float) -> None:
        """Give up waiting where that has been long enough."""
        for task in list(self._under_way):
            want = self.wanting[task]
            if want.deadline > now:
                break
            assert want.host is not None
            self._try_another(task, want, f"{want.host.address}: it has not brought it within {COPY_SECONDS:g} s")
        if self._retry_at is not None and self._retry_at <= now:
            self._retry_at = None
            for task, want in self.wanting.items():
                want.tried.clear()
                if want.host is None:
                    self._queue(task, want)

    def follow_up(self) -> None:
        """Tell hosts to bring copies, as many as may be under way, and clients that there are those they wait for."""
        while self._urgent and len(self._under_way) < MAX_COPIES:
            self._begin_first(self._urgent)
        while self._spare and len(self._under_way) < MAX_SPARE_COPIES:
            self._begin_first(self._spare)
        for awaited in [awaited for awaited in self._awaited if not awaited.waits_for]:
            awaited.made()

    # -- steps

    def _begin_first(self, queue: OrderedDict[Task, None]) -> None:
        task = next(iter(queue))
        queue.move_to_end(task)  # so that others come first the next time, should this fail
        self._begin(task)
        queue.pop(task, None)

    def _begin(self, task: Task) -> None:
        want = self.wanting.get(task)
        if want is None or want.host is not None:
            return
        if not self._wants_copy(task):
            self._drop(task)
            return
        host = self._host_for(task, want)
        if host is None:
            self._rest(task, want)
            return
        want.host = host
        want.object_id = task.object_id
        want.deadline = self._life.now + COPY_SECONDS
        self._under_way[task] = None
        self.shared.deadlines.watch(self._lateness)
        self._instructions.add(
            CopyObjects, host.address, (task.object_id, tuple([host.address for host in task.where]))
        )

    def _host_for(self, task: Task, want: _Want) -> Host | None:
        """The host with most room. What a publisher waits for may push other objects to disk, if need be."""
        others = [
            host for host in self._hosts.values() if host.is_ready and not host.leaving and host not in task.where
        ]
        if not others:
            want.reason = NO_OTHER_HOST
            return None
        rooms = [(host.capacity - host.nbytes, host) for host in others if host not in want.tried]
        fitting = [(room, host) for room, host in rooms if task.nbytes <= (host.capacity if want.urgent else room)]
        if not fitting:
            if rooms:
                room, host = max(rooms, key=_room)
                want.reason = f"{host.address} has room for {max(0, room):,} bytes"
            return None
        return max(fitting, key=_room)[1]

    def _rest(self, task: Task, want: _Want) -> None:
        self._no_longer_wait_for(task)
        if want.reason != NO_OTHER_HOST and self._retry_at is None:
            self._retry_at = self._life.now + RETRY_SECONDS
            self.shared.deadlines.watch(self._lateness)
        want.urgent = False

    def _try_another(self, task: Task, want: _Want, reason: str) -> None:
        assert want.host is not None
        want.tried[want.host] = None
        want.reason = reason
        want.host = None
        del self._under_way[task]
        self._queue(task, want)

    def _queue(self, task: Task, want: _Want) -> None:
        if want.urgent:
            self._spare.pop(task, None)
            self._urgent[task] = None
        else:
            self._spare[task] = None
        self.ask_to_follow_up()

    def _drop(self, task: Task) -> None:
        del self.wanting[task]
        for table in (self._urgent, self._spare, self._under_way):
            table.pop(task, None)
        self._no_longer_wait_for(task)
        self.ask_to_follow_up()

    def _no_longer_wait_for(self, task: Task) -> None:
        for awaited in self._awaited:
            awaited.waits_for.pop(task, None)

    def check(self) -> None:
        """Check that what is known of wanted copies agrees, and that none is forgotten."""
        for task, want in self.wanting.items():
            assert (want.host is not None) == (task in self._under_way)
            assert want.host is None or self._hosts[want.host.address] is want.host
            is_queued = task in self._urgent or task in self._spare
            assert want.host is None or not is_queued
            assert want.host or is_queued or want.reason == NO_OTHER_HOST or self._retry_at is not None
        for table in (self._urgent, self._spare, self._under_way):
            assert self.wanting.keys() >= table.keys()
        self.shared.deadlines.check([self._lateness])
        assert not self._urgent or len(self._under_way) >= MAX_COPIES
        assert not self._spare or len(self._under_way) >= MAX_SPARE_COPIES
        for awaited in self._awaited:
            assert awaited.waits_for
            assert self.wanting.keys() >= awaited.waits_for.keys()
        for task in self._life.results.table.values():
            assert task in self.wanting or not self._wants_copy(task), f"{task!r} has one copy, and no other is wanted"

    # -- roots

    def _reachable(self, holder: Holder) -> Iterator[Task]:
        """What a holder wants copies of: roots that it has, or all, and those whose futures are in their objects."""
        seen = dict.fromkeys(holder.holds)
        if self._life.holding.contents:
            stack = list(seen)
            while stack:
                contents = self._life.holding.contents.get(stack.pop())
                for task in () if contents is None else contents.holds:
                    if task not in seen:
                        seen[task] = None
                        stack.append(task)
        return (task for task in seen if holder.replicas > 1 or self.is_root(task))

    def _wants_copy(self, task: Task) -> bool:
        return (
            (task.payload is None or bool(self._replicating) or task in self._orphans)
            and task.state == "memory"
            and task.inline is None
            and bool(task.where)
            and len(task.where) < self.wanted(task)
        )

    def single(self, task: Task) -> tuple[list[Holder], str, bool] | None:
        """Of a result with fewer copies than it is to have: the holders that want more, why there are no more, and
        whether it is lost with its host: it can't be made again, and lies in no file."""
        want = self.wanting.get(task)
        if want is None or not self._wants_copy(task):
            return None
        is_the_only_one = self.is_root(task) and task not in self._life.results.durable
        holders = [
            holder
            for holder in dict.fromkeys(_keepers_of(task))
            if max(holder.replicas, holder.copies if is_the_only_one else 1) > len(task.where)
        ]
        return holders, want.reason or "another one is being made", is_the_only_one and len(task.where) == 1


def _is_to_be_kept(task: Task) -> bool:
    """Whether a holder wants several copies of a task, or of an object that contains its future."""
    return any(True for _ in _keepers_of(task))


def _keepers_of(task: Task) -> Iterator[Holder]:
    seen = {task}  # only asked for membership
    stack = [task]
    while stack:
        for holder in stack.pop().holders:
            if holder.copies > 1:
                yield holder
            elif type(holder) is Contents and holder.task not in seen:
                seen.add(holder.task)
                stack.append(holder.task)


def _room(entry: tuple[int, Host]) -> int:
    return entry[0]
