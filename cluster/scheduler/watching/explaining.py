"""Why a task is in its state: the answer to a client that asks about one key."""

from __future__ import annotations

from collections.abc import Generator
from itertools import islice
from typing import Any

from holdfast.cluster.key_prefixes import prefix_of
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.parts.actor_model import Actor
from holdfast.cluster.scheduler.tasks.model import Task, Worker
from holdfast.cluster.scheduler.tasks.names import Key
from holdfast.cluster.scheduler.tasks.states import STATES
from holdfast.cluster.scheduler.watching import descriptions
from holdfast.cluster.scheduler.watching.descriptions import MAX_SEEN, Silence

#: So many holders, tasks and the like are named.
MAX_NAMED = 20
#: A step looks at so many keys, to find some that may be meant.
STEP_KEYS = 500
#: States of which it is known when the task came into them.
_DATED = ("no-worker", "lost", "memory")
_HEX_LENGTH = 32  # of an object's id
_ELLIPSIS = "…"


def explain(state: SchedulerState, silence: Silence, key: Key) -> Generator[None, None, dict[str, Any]]:
    """All that is known of a key, or of an object; else keys that may be meant."""
    task = state.tasks.get(key)
    if task is None and type(key) is str:
        task = _of_object(state, key)
    if task is None:
        return (yield from _near(state, key))
    waits_for = [each for each in islice(task.dependencies, MAX_SEEN) if each.state != "memory"]
    return {
        "near": [],
        "n_near": 0,
        "key": task.key,
        "prefix": prefix_of(task.key),
        "state": task.state,
        "meaning": STATES[task.state],
        "seconds": state.life.now - task.since if task.state in _DATED else None,
        "owner": task.origin.owner,
        "origin": descriptions.origin(task.origin),
        "type": task.type_name,
        "nbytes": task.nbytes,
        "object_id": task.object_id,
        "is_inline": task.inline is not None,
        "holders": [descriptions.holder(holder, silence) for holder in task.holders[:MAX_NAMED]],
        "n_holders": len(task.holders),
        "waiters": _named(descriptions.waiters(task, MAX_NAMED)),
        "n_waiters": task.nwaiters,
        "waits_for": _named(waits_for),
        "n_waits_for": task.waiting_on if task.state == "waiting" else len(waits_for),
        "n_dependencies": len(task.dependencies),
        "where": [descriptions.host(host) for host in task.where],
        "run": _run(task),
        "actor": _actor(state, task),
        "held_up": _held_up(state, task) if task.state == "ready" else [],
        "queued": task.queue.live if task.state == "ready" and task.queue is not None else None,
        "requirements": _requirements(task),
        "no_worker": list(state.unrunnable.why(task.requirements)) if task.state == "no-worker" else None,
        "retries": task.retries,
        "deaths": task.failures,
        "is_computed": task.can_be_computed,
        "error": None if task.error is None else [task.error.key, task.error.text],
    }


def _of_object(state: SchedulerState, text: str) -> Task | None:
    """The task whose result is the object of an id in hexadecimal digits."""
    if len(text) != _HEX_LENGTH:
        return None
    try:
        return state.life.results.get(bytes.fromhex(text))
    except ValueError:
        return None


def _near(state: SchedulerState, key: Key) -> Generator[None, None, dict[str, Any]]:
    """Keys that begin with what is no key, or whose collection's name does; or, where the middle of that was cut out to
    show it, begin and end like it."""
    begin, ellipsis, end = str(key).partition(_ELLIPSIS)
    found: list[Key] = []
    count = 0
    for tasks in state.tasks.slices(STEP_KEYS) if begin else ():
        for task in tasks:
            other = task.key
            names = [str(other)]
            if type(other) is tuple and other:
                names.append(str(other[0]))  # of its collection
            if any(name.startswith(begin) and (not ellipsis or name.endswith(end)) for name in names):
                count += 1
                if len(found) < MAX_NAMED:
                    found.append(other)
        yield None
    return {"near": found, "n_near": count}


def _named(tasks: list[Task]) -> list[tuple[Key, str]]:
    return [(task.key, task.state) for task in tasks[:MAX_NAMED]]


def _run(task: Task) -> dict[str, Any] | None:
    worker = task.worker
    if task.state != "processing" or worker is None:
        return None
    run = worker.runs.get(task.run_id)
    return {
        "worker": worker.address,
        "name": worker.name,
        "begun": run is not None and run.begun,
        "blocked": run is not None and bool(run.blocked),
        "condition": worker.condition if worker.cut_off is None else "cut off",
        "ahead": 0 if run is None else list(worker.runs).index(run.run_id),
        "nthreads": worker.nthreads,
    }


def _held_up(state: SchedulerState, task: Task) -> list[tuple[str, str]]:
    """The workers that may run a task, each with what it does instead of taking tasks; none if one of them takes it."""
    asked = task.requirements
    workers = list(state.workers.values())
    candidates = workers if asked is None else state.placement.eligibility.candidates(asked)
    if not all(worker.barred for worker in candidates):
        return []
    return [(worker.name, _instead(worker)) for worker in candidates[:MAX_NAMED]]


def _instead(worker: Worker) -> str:
    if worker.is_retired:
        return "was retired and takes no tasks any more"
    if worker.ending:
        return "makes room for another process"
    if worker.preparing:
        return "is set up by plugins"
    if worker.cut_off is not None:
        return "is cut off"
    if worker.condition != "running":
        return f"hears nothing: it is {worker.condition}"
    if worker.paused:
        return "is paused, since it uses nearly as much memory as it may"
    return "was asked to give runs back, or to end"


def _actor(state: SchedulerState, task: Task) -> dict[str, Any] | None:
    """The actor that a task has made: where it lives, and which calls of it have no answer yet."""
    actor = state.life.holding.contents.get(task)
    if not isinstance(actor, Actor):
        return None
    return {
        "name": actor.name,
        "worker": actor.worker.address,
        "worker_name": actor.worker.name,
        "host": actor.worker.host.description.get("hostname", ""),
        "lost": actor.lost,
        "calls": sum(map(len, actor.calls.values())),
        "callers": len(actor.calls),
        "held_up": sum(map(len, actor.lines.values())),
    }


def _requirements(task: Task) -> dict[str, Any] | None:
    asked = task.requirements
    if asked is None:
        return None
    return {"workers": list(asked.workers[:MAX_NAMED]), "resources": dict(asked.resources), "loose": asked.loose}
