"""Answers about tasks by their keys: which run where, how large their results are, and how many are in which state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from holdfast.cluster.key_prefixes import prefix_of
from holdfast.cluster.protocol.limits import MAX_INTEGER
from holdfast.cluster.protocol.shapes import in_slices
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.names import Key
from holdfast.cluster.scheduler.watching.introspection import STEP_ITEMS, Steps, workers_named


def processing(state: SchedulerState, names: Iterable[str] | None) -> Steps:
    """The keys of the tasks that each worker has been sent, in the order in which it was sent them."""
    workers = workers_named(state, names)
    for worker in workers:
        keys = [run.task.key for run in worker.runs.values() if run.task is not None]
        for part in in_slices(keys, STEP_ITEMS):
            yield {worker.address: part}
    return {worker.address: [] for worker in workers}


def listed(state: SchedulerState) -> Steps:
    """All tasks, as `LIST_TASKS` says."""
    for tasks in state.tasks.slices(STEP_ITEMS):
        yield {
            "tasks": [
                (
                    task.key,
                    task.state,
                    [host.address for host in task.where],
                    task.worker.address if task.worker is not None and task.state == "processing" else "",
                    task.nbytes,
                )
                for task in tasks
            ]
        }
    return {"tasks": []}


def nbytes(state: SchedulerState, keys: Sequence[Key] | None, summary: bool) -> Steps:
    """The sizes of results: of each key, or of the keys of each prefix together."""
    sizes: Counter[str] = Counter()
    for found in _sizes(state, keys):
        if summary:
            for key, size in found.items():
                sizes[prefix_of(key)] += size
            yield None
        else:
            for part in in_slices(list(found), STEP_ITEMS):
                yield {key: found[key] for key in part}
    yield from _in_parts({name: min(size, MAX_INTEGER) for name, size in sizes.items()})
    return {}


def _sizes(state: SchedulerState, keys: Sequence[Key] | None) -> Iterator[dict[Key, int]]:
    if keys is None:
        for tasks in state.life.results.table.slices(STEP_ITEMS):
            yield {task.key: task.nbytes for task in tasks if state.tasks.get(task.key) is task}
        return
    for start in range(0, len(keys), STEP_ITEMS):
        step = [state.tasks.get(key) for key in keys[start : start + STEP_ITEMS]]
        yield {task.key: task.nbytes for task in step if task is not None and task.state == "memory"}


def prefix_states(state: SchedulerState) -> Steps:
    """How many tasks of each prefix are in each state."""
    counts: dict[str, Counter[str]] = {}
    for tasks in chain(state.tasks.slices(STEP_ITEMS), state.life.generations.earlier.slices(STEP_ITEMS)):
        for task in tasks:
            prefix = prefix_of(task.key)
            states = counts.get(prefix)
            if states is None:
                states = counts[prefix] = Counter()
            states[task.state] += 1
        yield None
    yield from _in_parts({prefix: dict(states) for prefix, states in counts.items()})
    return {}


def _in_parts(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for part in in_slices(list(whole), STEP_ITEMS):
        yield {name: whole[name] for name in part}
