"""What the scheduler knows of tasks, runs, hosts, workers and holders.

These classes are in one file because they refer to each other: a task knows where it waits, runs and lies, and its
holders, and each of those knows its tasks. `Lifecycle` changes both sides.

Sets whose order could be seen outside are dictionaries with None as values: they keep the order of insertion, so that
the same events always lead to the same instructions.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar, Literal, NamedTuple

from holdfast.cluster.naming import names_of_host, names_of_worker
from holdfast.cluster.protocol.limits import MAX_THREADS
from holdfast.cluster.scheduler.tasks.groups import Group
from holdfast.cluster.scheduler.tasks.names import Digest, Key, ObjectId, Payload
from holdfast.cluster.scheduler.tasks.origins import Origin
from holdfast.cluster.scheduler.tasks.partitioned import PartitionedSet
from holdfast.cluster.scheduler.tasks.requirements import Requirements
from holdfast.cluster.scheduler.tasks.states import ACTIVE, FIRST, State

#: Of so many objects it is remembered that a host was told to delete them.
MAX_DELETED = 10_000
#: What a run has for itself, of a task that may have killed a worker: see `suspects`.
Isolation = Literal[0, 1, 2, 3]
NOT_ISOLATED: Isolation = 0
ISOLATED: Isolation = 1
ISOLATED_ON_HOST: Isolation = 2
STARVED: Isolation = 3


#: What the node of a worker was told to do with it: to close it, or to have another process take its place.
Ending = Literal["closed", "replaced"] | None


class Task:
    """A computation and its result, or data that a client brought (then ``payload`` is None)."""

    __slots__ = (
        "dependencies",
        "dependents",
        "digest",
        "error",
        "failures",
        "group",
        "holders",
        "inline",
        "isolation",
        "key",
        "maker",
        "missing",
        "nbytes",
        "nwaiters",
        "object_id",
        "origin",
        "payload",
        "priority",
        "private",
        "queue",
        "requirements",
        "retries",
        "run_id",
        "serial",
        "since",
        "state",
        "suspected",
        "type_name",
        "waiting_on",
        "where",
        "worker",
    )

    def __init__(self, key: Key, serial: int, group: Group, origin: Origin) -> None:
        self.key = key
        self.serial = serial  # no other task has it, whatever its key
        self.group = group
        self.origin = origin
        self.state: State = FIRST  # `moves.Moves` changes it, and nothing else
        self.digest: Digest | None = None
        self.payload: Payload | None = None
        self.dependencies: tuple[Task, ...] = ()
        self.dependents = _NOBODY  # all that are known
        self.nwaiters = 0  # dependents in an ACTIVE state
        self.waiting_on = 0  # dependencies without a result; counted in state "waiting"
        self.holders: tuple[Holder, ...] = ()
        self.priority: tuple[float, int] = (0.0, 0)
        self.requirements: Requirements | None = None
        self.queue: Queue | None = None  # that it is in, in state "ready"
        self.retries = 0
        self.private = False  # it gets private views of what it reads
        self.failures = 0  # deaths of workers for which it is charged, since it had a result
        self.isolation: Isolation = NOT_ISOLATED
        self.suspected = 0  # times that it was in company when a worker died, since it had a result
        self.missing = 0  # times that its result could not be read though it should be there
        self.run_id = 0
        self.worker: Worker | None = None
        self.object_id: ObjectId | None = None
        self.nbytes = 0
        self.type_name = ""
        self.inline: Payload | None = None
        self.maker: Worker | None = None  # of a small result, which it may keep for itself at first
        self.where: tuple[Host, ...] = ()
        self.error: TaskError | None = None
        #: When it came into its state, "no-worker", "lost" or "memory"; of a suspect, also "ready" and "processing".
        self.since = 0.0

    def __repr__(self) -> str:
        return f"<Task {self.key!r} {self.state}>"

    @property
    def can_be_computed(self) -> bool:
        return self.payload is not None

    @property
    def is_needed(self) -> bool:
        return bool(self.holders or self.nwaiters)

    @property
    def waiters(self) -> list[Task]:
        """Dependents that need this task's result now."""
        return [task for task in self.dependents if task.state in ACTIVE] if self.nwaiters else []

    def add_dependent(self, task: Task) -> None:
        """Another task reads this one's result."""
        if self.dependents is _NOBODY:
            self.dependents = {task: None}
        else:
            self.dependents[task] = None


#: The dependents of a task that has none, which most tasks of a wide graph never get: shared, and never changed.
_NOBODY: dict[Task, None] = {}


class TaskError:
    """Why a task failed: the exception that clients raise, a text for people, and the task that began it.

    Attributes
    ----------
    raised
        The exception, pickled; or the name of its class, if it is one of the scheduler's own and the text is all that
        it says; None if it is a large one, which lies in stores.
    object_id, nbytes, where
        Of a large one: the object, its size, and the hosts that have it, none if these are gone.
    tasks
        How many tasks have failed for it.
    number
        Names it in the journal.
    is_loss
        It failed because data was lost with a host, which may come back.
    is_lasting
        Another run would not help.
    is_retried
        A client wants what has failed for it to run again.
    contents
        Holds what the exception contains futures of; None: nothing.
    """

    __slots__ = (
        "contents",
        "is_lasting",
        "is_loss",
        "is_retried",
        "key",
        "nbytes",
        "number",
        "object_id",
        "raised",
        "tasks",
        "text",
        "where",
    )

    def __init__(self, key: Key, raised: Payload | str | None, text: str, *, is_loss: bool = False) -> None:
        self.key = key
        self.raised = raised
        self.text = text
        self.is_loss = is_loss
        self.is_lasting = False
        self.is_retried = False
        self.object_id: ObjectId | None = None
        self.nbytes = 0
        self.where: tuple[Host, ...] = ()
        self.tasks = 0
        self.number = 0
        self.contents: Holder | None = None

    def as_plain(self) -> tuple[Any, ...]:
        """What is left of it without a host, as plain data; `TaskError.of` is the inverse."""
        return (self.key, self.raised, self.text, self.is_loss, self.is_lasting, self.object_id, self.nbytes)

    @classmethod
    def of(cls, data: Sequence[Any]) -> TaskError:
        """The inverse of `as_plain`."""
        key, raised, text, is_loss, is_lasting, object_id, nbytes = data
        error = cls(key, raised, text, is_loss=is_loss)
        error.is_lasting, error.object_id, error.nbytes = is_lasting, object_id, nbytes
        return error


class Run:
    """One run of a task on a worker. It outlives a task that was released, until the worker is done with it."""

    __slots__ = (
        "begun",
        "blocked",
        "has_resources",
        "late",
        "nbytes",
        "private",
        "recalled",
        "requirements",
        "run_id",
        "seconds",
        "task",
    )

    def __init__(self, run_id: int, task: Task, requirements: Requirements | None, private: bool) -> None:
        group = task.group
        self.run_id = run_id
        self.task: Task | None = task
        self.seconds = group.expected_seconds
        self.nbytes = group.mean_nbytes  # of the result, expected
        self.recalled = False  # its worker was told not to start it, so that another one may (`recall`)
        self.begun = False  # as its worker or its node has said; known of some only (`revocation`)
        self.blocked = 0  # while it waits for other runs (`lending`): above 0, the more the later that has begun
        self.has_resources = True  # those that it requires; it may lend them while it is blocked
        self.late: Task | None = None  # the task that it is of, if that no longer waits for this run
        self.requirements = requirements
        self.private = private  # it got private views of what it reads


class Queue:
    """Ready tasks of one kind, by priority. An entry whose task has left is skipped when it comes up.

    Most tasks become ready in the order of their priority: those are in a line, where adding and taking one costs the
    same however long it is. The others, such as those whose turn comes when a result is there, are in a heap.
    """

    __slots__ = ("_heap", "_line", "host", "live", "requirements", "roots")

    def __init__(self, requirements: Requirements | None, host: Host | None, roots: bool) -> None:
        self.requirements = requirements
        self.host = host
        self.roots = roots  # whether it is for tasks without dependencies
        self.live = 0
        self._line: deque[Task] = deque()
        self._heap: list[tuple[tuple[float, int], Task]] = []

    def add(self, task: Task) -> None:
        """Add a task."""
        task.queue = self
        self.live += 1
        line = self._line
        if not line or line[-1].priority < task.priority:
            line.append(task)
        else:
            heapq.heappush(self._heap, (task.priority, task))

    def head(self) -> Task:
        """The best task. There must be one."""
        line, heap = self._line, self._heap
        while line and line[0].queue is not self:
            line.popleft()
        while heap and heap[0][1].queue is not self:
            heapq.heappop(heap)
        if heap and (not line or heap[0][0] < line[0].priority):
            return heap[0][1]
        return line[0]

    def some(self) -> Iterator[Task]:
        """All tasks, in any order. It must not change meanwhile."""
        return (task for task in chain(self._line, (task for _, task in self._heap)) if task.queue is self)

    def tasks(self) -> list[Task]:
        """All tasks, the best one first."""
        entries = {task: None for task in (*self._line, *(task for _, task in self._heap)) if task.queue is self}
        return sorted(entries, key=lambda task: task.priority)


class Host:
    """A host: one node agent with one store."""

    __slots__ = (
        "address",
        "available",
        "capacity",
        "deleted",
        "description",
        "errors",
        "expected_nbytes",
        "forgetting",
        "incarnation",
        "is_ready",
        "leaving",
        "nbytes",
        "news",
        "objects",
        "places",
        "report",
        "restored",
        "workers",
    )

    def __init__(self, address: str, description: dict[str, Any]) -> None:
        self.address = address
        self.description = description
        self.workers: dict[Worker, None] = {}
        self.available: dict[Worker, None] = {}  # those with room for a task
        self.objects: PartitionedSet[Task] = PartitionedSet()
        self.errors: dict[TaskError, None] = {}  # large ones, which lie here
        #: Data of clients that it was told to delete last. It may not have heard that when it is given up.
        self.deleted: deque[ObjectId] = deque(maxlen=MAX_DELETED)
        #: What it was told to forget, and how often, since there are other copies, and has not said to have forgotten.
        self.forgetting: Counter[ObjectId] = Counter()
        self.nbytes = 0  # of all of these
        self.expected_nbytes = 0  # of the results of what its workers have been sent
        self.capacity = int(description.get("capacity") or 0)
        self.places: list[WorkerPlace] = []
        self.keep(description.get("places") or ())
        self.incarnation: str | None = description.get("incarnation")
        self.is_ready = False  # it has said what it has
        self.leaving = False  # its store is to go: nothing new is put there (`parts/retiring.py`)
        #: What may lie only there now, if somebody sees to it that nothing does (`parts/evacuating.py`).
        self.news: list[Task | TaskError] | None = None
        self.report: dict[str, Any] = {}  # how it is, as it has said last; only for people
        self.restored: list[Task] = []  # that have their results again, until it is ready

    @property
    def names(self) -> frozenset[str]:
        """What it can be called."""
        return names_of_host(self.address, self.description.get("hostname", ""))

    @property
    def names_with_workers(self) -> frozenset[str]:
        """What it can be called, and its workers, also those that are to come."""
        return self.names.union(*(w.names for w in self.workers), *(place.names for place in self.places))

    @property
    def kept_addresses(self) -> set[str]:
        """At which it keeps workers."""
        return {address for address, *_ in self.description.get("places") or ()}

    def keep(self, places: Sequence[tuple[str, str, int, Mapping[str, float]]]) -> None:
        """It keeps its workers in these places from now on."""
        nthreads = min(MAX_THREADS, sum(threads for _, _, threads, _ in places))
        self.description = {**self.description, "places": places, "nthreads": nthreads}
        self.places = [
            WorkerPlace(
                address, name, _names(self, address, name), {key: float(amount) for key, amount in resources.items()}
            )
            for address, name, _, resources in places
        ]

    def __repr__(self) -> str:
        return f"<Host {self.address}>"


class WorkerPlace:
    """Where a host keeps a worker. While there is none, one is to come: its node agent starts it for as long as it
    takes."""

    __slots__ = ("address", "name", "names", "resources")

    def __init__(self, address: str, name: str, names: frozenset[str], resources: dict[str, float]) -> None:
        self.address = address
        self.name = name
        self.names = names
        self.resources = resources


def _names(host: Host, address: str, name: str) -> frozenset[str]:
    """What a task may call a worker by."""
    return names_of_worker(address, name, names_of_host(host.address, host.description.get("hostname", "")))


class Worker:
    """A worker process."""

    __slots__ = (
        "actors",
        "address",
        "asked",
        "barred",
        "condition",
        "cut_off",
        "ending",
        "expected_seconds",
        "free_resources",
        "functions",
        "heard",
        "host",
        "incarnation",
        "is_gone",
        "is_retired",
        "name",
        "names",
        "nblocked",
        "nthreads",
        "paused",
        "preparing",
        "reason",
        "reclaiming",
        "reserved_for",
        "resources",
        "retiring",
        "runs",
        "unconfirmed",
    )

    def __init__(self, address: str, name: str, host: Host, nthreads: int, resources: dict[str, float]) -> None:
        self.address = address
        self.name = name
        self.host = host
        self.nthreads = nthreads
        self.resources = resources
        self.free_resources = dict(resources)
        self.names = _names(host, address, name)
        self.functions: set[Digest] = set()  # that it has; only asked for membership
        self.runs: dict[int, Run] = {}  # in the order in which they were sent
        self.nblocked = 0  # of these, how many wait for other runs (`lending`)
        self.reclaiming: dict[Run, None] = {}  # those of them that want their resources back
        self.expected_seconds = 0.0  # of all runs together that aren't blocked
        self.heard = 0.0  # when it last ended a run, or was sent one while it had none
        self.actors = 0  # how many live there
        self.reason = ""  # why it is gone, when it is
        self.reserved_for: Task | None = None  # which runs here alone, or is to: so there is no room for others
        #: See `revocation` for what follows.
        self.incarnation: int | None = None  # names its process to its node; None: it has none of its own
        self.condition = "running"  # what its process is doing
        self.paused = False  # it uses nearly as much memory as it may
        self.asked = 0  # revocations that its node was asked for, and has not answered
        self.unconfirmed: set[int] = set()  # the numbers of those that it was told of, and has not confirmed
        self.cut_off: float | None = None  # since when its connection is broken, and may be taken up again
        self.is_gone = False  # there is a sign of it: it hears nothing, and the store has what it has put there
        self.retiring = False  # it is to end, or takes no tasks any more (`parts/retiring.py`)
        self.is_retired = False  # that is for good, so tasks that name it wait for another one
        self.ending: Ending = None  # it was told to end: so no task is charged for that
        self.preparing = False  # it does what comes before its first task (`parts/plugins.py`)
        self.barred = False  # it has no room, by one of these: it is not known to hear, is to end, or has just come

    @property
    def nactive(self) -> int:
        """How many of its runs aren't blocked."""
        return len(self.runs) - self.nblocked

    @property
    def active(self) -> list[Run]:
        """Its runs that aren't blocked, in the order in which they were sent."""
        return [run for run in self.runs.values() if not run.blocked]

    def __repr__(self) -> str:
        return f"<Worker {self.address}>"


class HolderDescription(NamedTuple):
    """What a holder is called: by people, and wherever holders are listed."""

    kind: str
    name: str


class Holder:
    """Whatever keeps results: a task with a holder isn't forgotten, and its result is not deleted.

    The kinds of holders are in `holders`, and in the parts of the scheduler that have some. `Holding.hold`, `unhold`
    and `let_go` change what one holds.

    Attributes
    ----------
    id
        Names it among the holders of its kind.
    peer
        The peer that is told what becomes of the tasks; empty: no peer is told.
    holds
        The tasks. Each of them has the holder in its ``holders``.
    copies
        On how many hosts what it holds is to lie, if that can't be made again (`copies`).
    replicas
        On how many hosts all that it holds is to lie.
    watch
        ``watch(holder)`` is called when a task that it holds has a result, or has failed. None: it isn't told.
    """

    __slots__ = ("holds", "id", "peer")

    kind: ClassVar[str]
    watch: ClassVar[Callable[[Any], None] | None] = None

    def __init__(self, id: Hashable, peer: str = "") -> None:
        self.id = id
        self.peer = peer
        self.holds: PartitionedSet[Task] = PartitionedSet()

    @property
    def copies(self) -> int:
        return 1

    @property
    def replicas(self) -> int:
        return 1

    @property
    def hears(self) -> bool:
        """Whether a peer is told what becomes of the tasks."""
        return bool(self.peer)

    def yields_to(self, client: Holder, *, force: bool) -> bool:
        """Whether it gives up what a client cancels; with ``force``, for others too."""
        return self is client or (force and bool(self.peer))

    def ended(self, task: Task) -> None:
        """A task that it holds has a result, or has failed. Called if no peer is told."""
        if self.watch is not None:
            self.watch()

    def unheld(self, task: Task) -> None:
        """It holds a task no longer, and is not gone. Called of all but clients, where a journal is kept."""

    def describe(self) -> HolderDescription:
        """What it is called."""
        return HolderDescription(self.kind, str(self.id))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r}>"
