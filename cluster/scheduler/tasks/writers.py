"""The functions of which it is known that they write into what they read.

A worker that finds one out says so. Its further runs get private views at once, on whatever worker. What a function is
called here is what two runs of it have in common: the digest that names it or, for a node of a dask graph, the name of
its layer without the token.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from holdfast.cluster.scheduler.tasks.names import Digest, Key

#: More are forgotten again, those that were named longest ago first; each is found out anew then.
MAX_WRITERS = 10_000


class Writers:
    """A limited set of such functions."""

    def __init__(self, limit: int = MAX_WRITERS) -> None:
        self._limit = limit
        self._known: OrderedDict[Hashable, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def know(self, key: Key, digest: Digest | None) -> bool:
        """Whether the function of this task is known to write."""
        return _function(key, digest) in self._known

    def add(self, key: Key, digest: Digest | None) -> None:
        """The function of this task writes."""
        name = _function(key, digest)
        self._known[name] = None
        self._known.move_to_end(name)
        if len(self._known) > self._limit:
            self._known.popitem(last=False)


def _function(key: Key, digest: Digest | None) -> Hashable:
    if digest is not None:
        return digest
    name = key[0] if type(key) is tuple and key else key
    return name.rpartition("-")[0] or name if type(name) is str else name
