"""dask inside a task: what is computed there, and what can't be yet; and the client that a worker's tasks share.

A collection that a task makes is computed where it is made, in threads of that worker. One on futures, persisted in the
cluster, can't be: its parts are results that this process hasn't, and while the task waited for these it would keep the
thread that may have to make them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask.config

from holdfast.client.client import Client
from holdfast.client.core.core import Core
from holdfast.client.core.registry import TaskPlace
from holdfast.client.packing.dask_internals import Expr, flatten
from holdfast.client.packing.graphs import nodes_of
from holdfast.cluster.worker.context import current_key, current_worker

_clients: dict[str, Client] = {}
_lock = threading.Lock()


class WorkerClient(Client):
    """The client that the tasks of a worker share. No user opened it, so none counts it."""

    _of_worker = True


class _Place:
    """A worker whose task is running in this thread."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self.scheduler_address: str = worker.scheduler_address
        self.token: bytes = worker.token

    def core(self) -> Core:
        address, token = self.scheduler_address, self.token
        with _lock:
            client = _clients.get(address)
            if client is None or client.closed:
                # Outside of the task's thread: whatever keeps a frame of this must not keep the task's frames with it.
                with ThreadPoolExecutor(1, "holdfast-worker-client") as elsewhere:
                    client = elsewhere.submit(_open, address, token).result()
                _clients[address] = client
                self.client_opened()
            return client._core

    def client_opened(self) -> None:
        """There will be futures in the tasks of this process, so collections may stand on some."""
        if self._worker.own_process:
            refuse_futures()


def place() -> TaskPlace | None:
    """The task that is running in this thread."""
    worker = current_worker()
    return None if worker is None else _Place(worker)


def _open(address: str, token: bytes) -> Client:
    client = WorkerClient(address, token=token, set_as_default=False, name="worker")
    core = client._core
    resources = core.resources
    assert resources is not None
    # Nobody closes it: it goes with its cluster.
    core.session.on_end = lambda: resources.close_elsewhere("the cluster is gone")
    return client


def _leave_to_parent() -> None:
    """In a forked child: the clients are the parent's, and so may be whoever has the lock."""
    global _lock
    _lock = threading.Lock()
    _clients.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


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
