"""Answers about the tasks of futures: which have begun, how they are computed, how far they are."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypeAlias

from holdfast.cluster.key_prefixes import prefix_of
from holdfast.cluster.protocol.requests.futures import MAX_FAILURES
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.model import Task
from holdfast.cluster.scheduler.tasks.names import Key
from holdfast.cluster.scheduler.tasks.states import ACTIVE

Steps: TypeAlias = Generator[Any, None, Any]

#: Tasks that are looked at in one step.
_STEP = 500


def begun(state: SchedulerState, keys: Sequence[Key]) -> list[Key]:
    """Those of the keys whose tasks a worker has."""
    return [key for key in keys if (task := state.tasks.get(key)) is not None and task.state == "processing"]


def recipe(state: SchedulerState, key: Key, blamed: bool) -> dict[str, Any] | None:
    """How a key is computed, or what has failed for it."""
    task = state.tasks.get(key)
    if task is not None and blamed:
        task = None if task.error is None else state.tasks.get(task.error.key, task)
    if task is None or task.payload is None:
        return None
    function = None if task.digest is None else bytes(state.life.functions.table[task.digest].blob)
    return {
        "key": task.key,
        "function": function,
        "payload": bytes(task.payload),
        "dependencies": [dependency.key for dependency in task.dependencies],
    }


def progress(state: SchedulerState, keys: Sequence[Key]) -> Steps:
    """How far these keys are, and all that they still need. What happens between two steps may be seen or not."""
    counts: dict[str, dict[str, int]] = {}
    failures: list[tuple[Key, str]] = []
    gone = 0
    seen: set[Task] = set()  # only asked for membership
    stack: list[Task] = []
    for key in keys:
        task = state.tasks.get(key)
        if task is None:
            gone += 1
        elif task not in seen:
            seen.add(task)
            stack.append(task)
            if task.error is not None and len(failures) < MAX_FAILURES:
                failures.append((key, task.error.text))
    looked_at = 0
    while stack:
        task = stack.pop()
        of_prefix = counts.setdefault(prefix_of(task.key), {"memory": 0, "erred": 0, "waiting": 0, "processing": 0})
        of_prefix[task.state if task.state in of_prefix else "waiting"] += 1
        if task.state in ACTIVE:
            for below in task.dependencies:
                if below not in seen and below.state in ACTIVE:
                    seen.add(below)
                    stack.append(below)
        looked_at += 1
        if looked_at % _STEP == 0:
            yield None
    return {"counts": counts, "failures": failures, "gone": gone}
