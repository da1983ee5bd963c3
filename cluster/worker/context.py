"""Which task runs in this thread, for those who are called from inside a task."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.cluster.worker.worker import Worker


class _Context(threading.local):
    worker: Worker | None = None
    key: Any = None
    run_id: int | None = None


_context = _Context()


def current_worker() -> Worker | None:
    """The worker whose task is running in this thread; None outside of tasks."""
    return _context.worker


def current_key() -> Any:
    """The key of the task that is running in this thread; None outside of tasks."""
    return _context.key


def current_run() -> int | None:
    """The run of the task that is running in this thread; None outside of tasks."""
    return _context.run_id


def enter(worker: Worker | None) -> None:
    """From now on this thread runs tasks of ``worker``."""
    _context.worker = worker


def run(key: Any, run_id: int | None) -> None:
    """From now on this thread runs the task ``key``, whose run is ``run_id``; None for none."""
    _context.key = key
    _context.run_id = run_id
