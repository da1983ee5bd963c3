"""The clients of this process. Inside a task the client is one of its worker's own.

Which of them is meant when none is named, `holdfast.client.defaults` says.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

from holdfast.client.core.core import Core


class RunningTask(Protocol):
    """The task that runs in this thread, as far as clients are concerned."""

    scheduler_address: str
    token: bytes
    #: The worker that runs it, as `holdfast.cluster.worker.context` describes it.
    worker: Any

    def core(self) -> Core:
        """The core of the client that the task has."""


def _no_task() -> RunningTask | None:
    return None


def _never() -> bool:
    return False


class _Registry:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        #: The default: that which was opened last as one, of those that are open.
        self.default: Core | None = None
        #: Those that were the default before it, the latest last. They are not kept for that.
        self.earlier_defaults: list[weakref.ref[Core]] = []
        self.open: weakref.WeakSet[Core] = weakref.WeakSet()
        self.known: weakref.WeakSet[Core] = weakref.WeakSet()
        self.opened_in_tasks: weakref.WeakSet[Core] = weakref.WeakSet()
        self.running_task: Callable[[], RunningTask | None] = _no_task
        #: That of the innermost `Client.as_current`, in each thread and each coroutine.
        self.chosen: ContextVar[Core | None] = ContextVar("holdfast-client", default=None)
        #: Whether this is the process of a worker, in which nothing but tasks goes on.
        self.runs_tasks: Callable[[], bool] = _never


registry = _Registry()


def core_here(core: Core) -> Core:
    """The core that does what dask asks of a client: in a task that of the task, unless a task has opened the client.

    The tasks of a cluster of threads (``processes=False``) see the configuration of dask that the process has, and in
    it the client of the code that has started the cluster. That client would keep the task's slot while it waits.
    """
    task = registry.running_task()
    if task is None or task.scheduler_address != core.scheduler_address or core in registry.opened_in_tasks:
        return core
    return task.core()


def known() -> list[Core]:
    """Of all clients of this process, those too that are closed or the parent's: there may be futures of them."""
    with registry.lock:
        return list(registry.known)


def _leave_to_parent() -> None:
    """In a forked child: the clients are the parent's, and so may be the thread that has the lock."""
    registry.lock = threading.RLock()
    inherited, registry.open = list(registry.open), weakref.WeakSet()
    for core in inherited:
        core.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)
