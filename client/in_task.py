"""The client inside tasks. All tasks of a worker share one, over the worker's connection and store.

It is made when a task first asks for it, with `get_client` or because it computes a dask collection or is given a
future, and lives and dies with the worker. It is not closed by hand.

==================  ===================================================================================================
what                is …
==================  ===================================================================================================
its connection      the worker's, in which its messages travel (`holdfast.cluster.worker.tasks_transport`)
its store           the worker's
its waiting         that of a blocking client, or on the loop of a task that is a coroutine; with the slot of the task
                    lent (`holdfast.client.drivers.in_task`)
its identity        its own: what it holds is let go of when the worker is gone
==================  ===================================================================================================

Inside tasks it is dask's scheduler too (`get`), so that what a task computes runs on the cluster. A thread that a task
has started has no task around it, and no such client: there dask computes in threads, as it does without a cluster.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from holdfast.client.client import Client
from holdfast.client.core.core import Core
from holdfast.client.core.registry import RunningTask, registry
from holdfast.client.core.session import Session
from holdfast.client.defaults import named as named
from holdfast.client.drivers.in_task import InTaskDriver
from holdfast.client.futures.callbacks import ThreadCallbacks
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import own
from holdfast.client.packing.dask_internals import Expr, flatten
from holdfast.client.packing.graphs import nodes_of
from holdfast.client.stores.access import StoreAccess
from holdfast.cluster.naming import id_of_tasks
from holdfast.cluster.worker.context import (
    RunsTasks,
    current_run,
    current_task_loop,
    current_worker,
    held_here,
    helped_task_loop,
)
from holdfast.objectstore import Store

_lock = threading.Lock()


class _RunningTask:
    """The task that is running in this thread, on its worker."""

    def __init__(self, worker: RunsTasks) -> None:
        self.worker = worker
        self.scheduler_address = worker.scheduler_address
        self.token = worker.token

    def core(self) -> Core:
        return core_of(self.worker)


def core_of(worker: RunsTasks) -> Core:
    """The core of the client that the tasks of a worker share."""
    tasks = worker.tasks
    client = tasks.client
    if client is None or client._core.session.ended is not None:
        with _lock:
            client = tasks.client
            if client is None or (client._core.session.ended is not None and not tasks.closed):
                client = tasks.client = Client._of_core(_open(worker))
    core: Core = client._core
    return core


def value_of(client: Client, key: Any) -> Any:
    """The result that a key which the cluster knows stands for."""
    return client.gather(Future._wanted(key, client._core))


def handed_over(futures: list[Future]) -> list[Future]:
    """The tasks' own futures of what a task or an actor gives. The scheduler has heard of them when this returns.

    A task may have futures of another client, which it has opened.

    Raises
    ------
    CancelledError, ValueError
        One was cancelled, or is of another cluster.
    """
    worker = current_worker()
    assert worker is not None
    core = core_of(worker)
    mine = [own(core, future) for future in futures]
    core.session.send_all_posted()
    return mine


def running_task() -> RunningTask | None:
    """The task that is running in this thread."""
    worker = current_worker()
    return None if worker is None else _RunningTask(worker)


def _open(worker: RunsTasks) -> Core:
    tasks = worker.tasks
    # The scheduler says which nodes there are in its first message.
    welcome = {"scheduler": tasks.scheduler, "nodes": [{"address": worker.node_address}]}
    session = Session(tasks, worker.scheduler_address, welcome)
    stores = _WorkersStore(worker, session)
    callbacks = ThreadCallbacks()

    def ended() -> None:
        callbacks.close(0)
        stores.close()

    session.on_end = ended
    core = Core(
        id=id_of_tasks(worker.address),
        name=f"the tasks of {worker.name}",
        scheduler_address=worker.scheduler_address,
        session=session,
        stores=stores,
        driver=InTaskDriver(
            session.send_posted, worker.lend, current_run, current_task_loop, helped_task_loop, held_here
        ),
        callbacks=callbacks,
        make_client=Client._of_core,
    )
    with registry.lock:
        registry.open.add(core)
        registry.known.add(core)
    session.start()
    return core


class _WorkersStore(StoreAccess):
    """The way to the stores of a cluster for the tasks of a worker: the store of this host is the worker's own."""

    def __init__(self, worker: RunsTasks, session: Session) -> None:
        super().__init__(lambda: session.nodes, token=worker.token, owner=id_of_tasks(worker.address), attach=False)
        self._worker = worker

    @property
    def local(self) -> tuple[Store, str] | None:
        store = self._worker.store
        return (store, self._worker.node_address) if store.is_open else None

    def _lost(self, store: Store) -> None:
        pass  # the worker ends with its store


def get(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """Compute a dask graph: in a task on the cluster, elsewhere in threads. dask's scheduler in a worker's process.

    Raises
    ------
    NotImplementedError
        It stands on futures, and the calling thread runs no task.
    RuntimeError
        The task is a coroutine, whose client gives awaitables.
    """
    if running_task() is not None:
        return named(dsk, keys, **kwargs)
    from dask import threaded  # most tasks compute no collections

    graph: Mapping[Any, Any] = dsk.__dask_graph__() if isinstance(dsk, Expr) else dsk
    nodes = nodes_of(graph)
    wanted = list(flatten(keys)) if isinstance(keys, list) else [keys]
    needed = dict.fromkeys(key for node in nodes.values() for key in node.dependencies)
    missing = [key for key in (*wanted, *needed) if key not in nodes]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise NotImplementedError(
            f"a dask collection that stands on futures ({missing[0]!r:.200}{more}) is computed in a thread that a task "
            "has started, and only the task's own thread has a client: compute it there"
        )
    return threaded.get(nodes, keys, **kwargs)


def _leave_to_parent() -> None:
    """In a forked child: the thread that has the lock may be the parent's."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_leave_to_parent)
