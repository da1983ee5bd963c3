"""Groups of tasks that do the same: what one of them has taken is expected of the next."""

from __future__ import annotations

from collections.abc import Hashable

from holdfast.cluster.scheduler.tasks.names import Digest, Key
from holdfast.cluster.scheduler.tasks.writers import Writers

#: A group that has lost its last task is kept, for the time that it knows, while there are no more groups than this.
MAX_GROUPS = 10_000
#: A run never counts for less: what a worker spends around the shortest function.
SHORTEST_RUN_SECONDS = 20e-6
#: What a task of unknown length counts for: all the room that a worker has (`placement.PREFETCH_SECONDS`).
UNKNOWN_RUN_SECONDS = 0.010


class Group:
    """Tasks that do the same, and so take about the same time and room."""

    __slots__ = ("blocks", "expected_seconds", "mean_nbytes", "mean_seconds", "name", "tasks", "writes")

    def __init__(self, name: Hashable) -> None:
        self.name = name
        self.writes = False  # their function is known to write into what it reads
        self.blocks = False  # one of them has waited for others (`placing.lending`)
        self.tasks = 0  # that refer to this group now
        self.mean_seconds: float | None = None
        self.mean_nbytes = 0
        self.expected_seconds = UNKNOWN_RUN_SECONDS  # that a run keeps a thread busy

    def record(self, seconds: float, nbytes: int) -> None:
        """One of them has ended."""
        mean = self.mean_seconds
        if mean is None:
            self.mean_seconds = seconds
            self.mean_nbytes = nbytes
        else:
            seconds = self.mean_seconds = mean + (seconds - mean) * 0.3
            self.mean_nbytes += int((nbytes - self.mean_nbytes) * 0.3)
        if self.blocks:
            self.block()  # how long others have taken says nothing
            return
        self.expected_seconds = seconds if seconds > SHORTEST_RUN_SECONDS else SHORTEST_RUN_SECONDS

    def block(self) -> None:
        """One of them has waited for others: how long the next one takes is unknown, so it is not sent ahead."""
        self.blocks = True
        self.mean_seconds = None
        self.expected_seconds = UNKNOWN_RUN_SECONDS


class Groups:
    """All groups, by name.

    Attributes
    ----------
    table
        The groups that have tasks, and some that had.
    writers
        The functions that write into what they read.
    """

    def __init__(self) -> None:
        self.table: dict[Hashable, Group] = {}
        self.writers = Writers()

    def join(self, key: Key, digest: Digest | None) -> Group:
        """The group of a new task, which counts it from now on."""
        name = digest if digest is not None and type(key) is not tuple else _name(key, digest)  # as of most
        group = self.table.get(name)
        if group is None:
            group = self.table[name] = Group(name)
            group.writes = bool(self.writers) and self.writers.know(key, digest)
        group.tasks += 1
        return group

    def emptied(self, group: Group) -> None:
        """The last task of a group is forgotten."""
        if len(self.table) > MAX_GROUPS:
            del self.table[group.name]

    def remember_writer(self, key: Key, digest: Digest | None) -> None:
        """The function of such a task writes into what it reads: its runs get private views from now on."""
        self.writers.add(key, digest)
        group = self.table.get(_name(key, digest))
        if group is not None:
            group.writes = True


def _name(key: Key, digest: Digest | None) -> Hashable:
    if type(key) is tuple and key:
        name: Hashable = key[0]  # dask's keys: the name of the layer
        return name
    if digest is not None:
        return digest
    return key.rpartition("-")[0] or key if type(key) is str else key
