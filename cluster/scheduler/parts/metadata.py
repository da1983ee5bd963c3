"""Metadata: values that clients keep in the scheduler under paths of keys, for each other.

A value is a tree of dictionaries, and its leaves are small (`protocol/records.py`). To set a value at a path replaces
what was there, and a value that lay on the way to it; what lies beside the path stays. There is as much as `MAX_LEAVES`
and `MAX_NBYTES` say, and no more: a client that would exceed it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.journal.tables import Held
from holdfast.cluster.protocol.records import Path, Record, leaf_nbytes, leaves_of, tree_of
from holdfast.cluster.protocol.requests import SET_METADATA
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.waits import Refusal
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Task

#: How much there may be in all.
MAX_LEAVES = 20_000
MAX_NBYTES = 64 << 20


class Size(NamedTuple):
    """How much something is."""

    leaves: int
    nbytes: int

    @classmethod
    def of(cls, leaves: Iterable[tuple[Path, Any]]) -> Size:
        """How much all of these are."""
        sizes = list(map(leaf_nbytes, leaves))
        return cls(len(sizes), sum(sizes))

    def changed(self, before: Size, after: Size) -> Size:
        """How much there is when ``after`` has come in the place of ``before``."""
        return Size(self.leaves - before.leaves + after.leaves, self.nbytes - before.nbytes + after.nbytes)


class Metadata(Part):
    """Keeps metadata.

    Attributes
    ----------
    size
        How much there is.
    """

    name = "metadata"

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.requests = {SET_METADATA: self._set}
        self._root: dict[Any, Any] = {}
        self.size = Size(0, 0)

    def _set(self, client: Client, request: int, path: Path, record: Record) -> None:
        if not path:
            raise Refusal("ValueError", "metadata is set at a key, and the list of keys is empty")
        tree = tree_or_refusal(record)
        before, after = list(self.below(self._replaced_at(path))), list(leaves_of(tree, path))
        size = self.size.changed(Size.of(before), Size.of(after))
        if size.nbytes > MAX_NBYTES or size.leaves > MAX_LEAVES:
            raise Refusal(
                "ValueError",
                f"the metadata of the cluster would take {size.nbytes:,} bytes in {size.leaves:,} values, and there "
                f"may be {MAX_NBYTES:,} in {MAX_LEAVES:,}: set what isn't needed to {{}}, or publish a dataset",
            )
        self._put(path, tree)
        self.size = size
        for place, _ in before:
            self.note_gone(place)
        for place, leaf in after:
            self.note(place, leaf)
        self.answer(client, request, None)

    def _replaced_at(self, path: Path) -> Path:
        """Where something goes when a value is set at a path: there, or on the way, at what has no keys."""
        place: Any = self._root
        for depth, key in enumerate(path[:-1], 1):
            if key not in place:
                break
            place = place[key]
            if type(place) is not dict or not place:
                return path[:depth]
        return path

    def _put(self, path: Path, tree: Any) -> None:
        place = self._root
        for key in path[:-1]:
            inner = place.get(key)
            if type(inner) is not dict:
                inner = place[key] = {}
            place = inner
        place[path[-1]] = tree

    def below(self, path: Sequence[Any]) -> Iterator[tuple[Path, Any]]:
        """The leaves at a path and below it, by their whole paths; none if there is nothing."""
        place: Any = self._root
        for key in path:
            if type(place) is not dict or key not in place:
                return iter(())
            place = place[key]
        return leaves_of(place, tuple(path)) if path or place else iter(())

    # -- the rest

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        for path, entry in entries.items():
            self._put(path, {} if type(entry.value) is tuple else entry.value)
        self.size = Size.of(self.below(()))

    def check(self) -> None:
        assert self.size == Size.of(self.below(()))


def tree_or_refusal(record: Record) -> Any:
    """`tree_of`, in a request: what is no record is refused."""
    try:
        return tree_of(record)
    except ProtocolError as error:
        raise Refusal("ProtocolError", str(error)) from None
