"""dask inside a task: what is computed there, and what can't be yet; and the client that a worker's tasks share.

A collection that a task makes is computed where it is made, in threads of that worker. One on futures, persisted in the
cluster, can't be: its parts are results that this process hasn't, and while the task waited for these it would keep the
thread that may have to make them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask.config

from holdfast.client.client import Client
from holdfast.client.packing.dask_internals import Expr, flatten
from holdfast.client.packing.graphs import nodes_of
from holdfast.cluster.worker.context import current_key


class WorkerClient(Client):
    """The client that the tasks of a worker share. No user opened it, so none counts it."""

    _of_worker = True


def refuse_futures() -> None:
    """From now on, collections on futures are refused in this process, unless somebody has chosen a scheduler."""
    if dask.config.get("scheduler", None) is None:
        dask.config.set(scheduler=get)


def get(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """Compute a dask graph in threads.

    Raises
    ------
    NotImplementedError
        It stands on futures.
    """
    from dask import threaded  # most tasks compute no collections

    graph: Mapping[Any, Any] = dsk.__dask_graph__() if isinstance(dsk, Expr) else dsk
    nodes = nodes_of(graph)
    wanted = list(flatten(keys)) if isinstance(keys, list) else [keys]
    needed = dict.fromkeys(key for node in nodes.values() for key in node.dependencies)
    missing = [key for key in (*wanted, *needed) if key not in nodes]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        key = current_key()
        task = "a task" if key is None else f"the task {key!r:.200}"
        raise NotImplementedError(
            f"{task} computes a dask collection that stands on futures ({missing[0]!r:.200}{more}), and that can't be "
            "done inside a task yet. Give the task its futures "
            "(client.submit(function, futures_of(collection))), which it gets as values, or the computed value; or "
            "compute the collection in the client"
        )
    return threaded.get(nodes, keys, **kwargs)
