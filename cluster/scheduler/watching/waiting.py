"""What waits: tasks for what they need, and clients for what others do. Some of it, for people."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.parts.inquiries import Inquiry
from holdfast.cluster.scheduler.tasks.model import Task

#: So many tasks, and so many requests of clients, are told of.
MAX_LISTED = 20
#: So many are looked at to find them, or to say what one waits for.
MAX_SEEN = 2_000
#: States of tasks that wait.
WAITING = frozenset({"waiting", "no-worker", "ready", "lost"})


def tasks(state: SchedulerState, found: Iterable[Task]) -> list[dict[str, Any]]:
    """Of tasks that were found waiting, those that still do: the ``key``, the ``state``, and what it waits ``for``."""
    waiting = (task for task in found if task.state in WAITING)
    return [
        {"key": _shown(task), "state": task.state, "for": _reason(state, task)} for task in islice(waiting, MAX_LISTED)
    ]


def _reason(state: SchedulerState, task: Task) -> str:
    if task.state == "ready":
        return "for room on a worker"
    if task.state == "lost":
        return "for its host to come back"
    if task.state == "no-worker":
        return state.unrunnable.why(task.requirements)[0]
    needed = next((each for each in islice(task.dependencies, MAX_SEEN) if each.state != "memory"), None)
    if needed is None:
        return f"for {task.waiting_on:,} others"
    more = f" and {task.waiting_on - 1:,} more" if task.waiting_on > 1 else ""
    return f"for {_shown(needed)} ({needed.state}){more}"


def _shown(task: Task) -> str:
    return f"{task.key:.200}" if isinstance(task.key, str) else f"{task.key!r:.200}"


def requests(state: SchedulerState) -> list[dict[str, Any]]:
    """Requests that wait, but for those like this one: ``what`` for, whose (``client``), and the ``seconds_left``.

    Those of each client come in the order in which they began.
    """
    now = state.life.now
    others = (wait for wait in islice(state.waits, MAX_SEEN) if not isinstance(wait, Inquiry))
    described = []
    for wait in islice(others, MAX_LISTED):
        left = wait.seconds_left(now)
        client = state.clients.get(wait.client)
        described.append(
            {
                "what": wait.describe(),
                "client": wait.client if client is None else client.name,
                "seconds_left": None if left == float("inf") else left,
            }
        )
    return described
