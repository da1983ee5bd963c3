"""The locks in graphs that write: those of `dask.array.store` and of `to_hdf`.

dask hands a lock to each task that writes into a file, or reads back what it has written. The packer gives these tasks
other locks, which hold across the cluster. All other locks in a graph, as those of `from_array` and of the files that
xarray reads, are meant for each process, and stay.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.client.packing.dask_internals import DataNode, GraphNode, Task, execute_subgraph

#: The functions that take a lock: their modules, their names, and the positions of the lock.
_FUNCTIONS = (
    ("dask.array.core", "load_store_chunk", 4),
    ("dask.array.core", "load_chunk", 2),
    ("dask.dataframe.io.hdf", "_pd_to_hdf", 1),
)
_LOCK = "lock"


def with_locks(nodes: dict[Any, GraphNode], replace: Callable[[Any], Any]) -> dict[Any, GraphNode]:
    """A graph in which each lock of a task that writes is what ``replace`` gives for it. The graph given stays."""
    positions = {
        function: position
        for module, name, position in _FUNCTIONS
        if (function := getattr(sys.modules.get(module), name, None)) is not None
    }
    if not positions:  # nothing in it is of a module that writes
        return nodes
    replacer = _Replacer(positions, replace)
    changed: dict[Any, GraphNode] = {}
    writes: dict[Any, bool] = {}
    for key, node in nodes.items():
        name = key[0] if type(key) is tuple and key else key
        if writes.get(name, True):  # parts of one array or frame are all alike
            new = replacer.node(node)
            writes[name] = new is not node
            if new is not node:
                changed[key] = new
    return {**nodes, **changed} if changed else nodes


class _Replacer:
    """Gives nodes other locks; each lock of a graph is replaced once."""

    def __init__(self, positions: Mapping[Any, int], replace: Callable[[Any], Any]) -> None:
        self._positions = positions
        self._replace = replace
        self._replaced: dict[int, tuple[Any, Any]] = {}

    def node(self, node: Any) -> Any:
        """A node with other locks; the node itself if there is none in it."""
        if not isinstance(node, Task):
            return node
        args, kwargs = list(node.args), dict(node.kwargs)
        if node.func is execute_subgraph:
            args[0] = self._all(args[0])
        else:
            args = [self.node(value) for value in args]
            kwargs = self._all(kwargs)
            position = self._position(node.func)
            if position is not None and len(args) > position:
                args[position] = self._lock(args[position])
            elif position is not None and _LOCK in kwargs:
                kwargs[_LOCK] = self._lock(kwargs[_LOCK])
        before, after = (*node.args, *node.kwargs.values()), (*args, *kwargs.values())
        if all(new is old for new, old in zip(after, before, strict=True)):
            return node
        new = copy.copy(node)
        new.args, new.kwargs, new._token = tuple(args), kwargs, None
        return new

    def _all(self, nodes: dict[Any, Any]) -> dict[Any, Any]:
        new = {key: self.node(node) for key, node in nodes.items()}
        return new if any(new[key] is not node for key, node in nodes.items()) else nodes

    def _position(self, function: Any) -> int | None:
        try:
            return self._positions.get(function)
        except TypeError:  # a callable that can't be hashed
            return None

    def _lock(self, lock: Any) -> Any:
        if isinstance(lock, DataNode):
            value = self._lock(lock.value)
            return lock if value is lock.value else DataNode(lock.key, value)
        if id(lock) not in self._replaced:
            self._replaced[id(lock)] = lock, self._replace(lock)
        return self._replaced[id(lock)][1]
