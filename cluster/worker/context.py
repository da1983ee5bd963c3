"""Which task runs in this thread, for what is called from inside a task."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from holdfast.cluster.worker.tasks_transport import TasksTransport
from holdfast.objectstore import Store


class RunsTasks(Protocol):
    """A worker, as far as its tasks know it."""

    scheduler_address: str
    node_address: str
    address: str
    name: str
    token: bytes

    @property
    def store(self) -> Store:
        """The connection to the store of this host."""

    @property
    def tasks(self) -> TasksTransport:
        """The way of what its tasks say as a client."""

    def log_event(self, topic: str | Iterable[str], msg: Any) -> None:
        """Log an event, which clients can get."""

    def lend(self) -> AbstractContextManager[None]:
        """Within it, the task of this thread waits for others, which run in its slot meanwhile."""


class _Context(threading.local):
    worker: RunsTasks | None = None
    key: Any = None
    run_id: int | None = None


_context = _Context()


def current_worker() -> RunsTasks | None:
    """The worker whose task is running in this thread; None outside of tasks."""
    return _context.worker


def current_key() -> Any:
    """The key of the task that is running in this thread; None outside of tasks."""
    return _context.key


def current_run() -> int | None:
    """The run of the task that is running in this thread; None outside of tasks."""
    return _context.run_id


def enter(worker: RunsTasks | None) -> None:
    """From now on this thread runs tasks of ``worker``."""
    _context.worker = worker


def run(key: Any, run_id: int | None) -> None:
    """From now on this thread runs the task ``key``, whose run is ``run_id``; None for none."""
    _context.key = key
    _context.run_id = run_id
