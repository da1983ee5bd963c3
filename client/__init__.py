"""What a user holds: `Client`, `Future` and the functions that go with them."""

import importlib
import sys
import threading


def _import_dask() -> None:
    """Import what of dask is used here in a thread of its own.

    A module may keep an exception that it has caught while it was imported, as `dask.widgets` does without jinja2. Its
    traceback holds every frame below, and in a worker these are the frames of the task that comes by here first, with
    its arguments and its result.
    """
    modules = ("dask._expr", "dask.delayed", "dask.order")
    thread = threading.Thread(target=lambda: [importlib.import_module(name) for name in modules])
    thread.start()
    thread.join()


_import_dask()

from holdfast.client.actors.actor import Actor  # noqa: E402
from holdfast.client.actors.actor_future import ActorFuture  # noqa: E402
from holdfast.client.client import Client  # noqa: E402
from holdfast.client.coordination.event import Event  # noqa: E402
from holdfast.client.coordination.lock import Lock  # noqa: E402
from holdfast.client.coordination.multi_lock import MultiLock  # noqa: E402
from holdfast.client.coordination.queue import Queue  # noqa: E402
from holdfast.client.coordination.rlock import RLock  # noqa: E402
from holdfast.client.coordination.semaphore import Semaphore  # noqa: E402
from holdfast.client.coordination.variable import Variable  # noqa: E402
from holdfast.client.core.registry import RunningTask, registry  # noqa: E402
from holdfast.client.current import (  # noqa: E402
    default_client,
    get_client,
    get_worker,
    rejoin,
    secede,
    worker_client,
)
from holdfast.client.futures.collections import futures_of  # noqa: E402
from holdfast.client.futures.completing import as_completed  # noqa: E402
from holdfast.client.futures.future import Future  # noqa: E402
from holdfast.client.futures.progress import progress  # noqa: E402
from holdfast.client.futures.unattended import fire_and_forget  # noqa: E402
from holdfast.client.futures.waiting import wait  # noqa: E402
from holdfast.client.task_stream import get_task_stream  # noqa: E402

#: The first name of `Client`.
Executor = Client


def _running_task() -> RunningTask | None:
    """The task that runs in this thread. A process without a worker needs nothing of one."""
    # Another thread may be importing it: then it has little in it yet, and no worker of this process runs.
    current_worker = getattr(sys.modules.get("holdfast.cluster.worker.context"), "current_worker", None)
    if current_worker is None or current_worker() is None:
        return None
    from holdfast.client.in_task import running_task  # with all of a worker, which this process has

    return running_task()


def _runs_tasks() -> bool:
    runs_tasks = getattr(sys.modules.get("holdfast.cluster.worker.context"), "runs_tasks", None)
    return runs_tasks is not None and bool(runs_tasks())


registry.running_task = _running_task
registry.runs_tasks = _runs_tasks

__all__ = [
    "Actor",
    "ActorFuture",
    "Client",
    "Event",
    "Executor",
    "Future",
    "Lock",
    "MultiLock",
    "Queue",
    "RLock",
    "Semaphore",
    "Variable",
    "as_completed",
    "default_client",
    "fire_and_forget",
    "futures_of",
    "get_client",
    "get_task_stream",
    "get_worker",
    "progress",
    "rejoin",
    "secede",
    "wait",
    "worker_client",
]
