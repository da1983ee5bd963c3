"""Why a task is in its state: the answer to a client that asks about one key."""

from __future__ import annotations

from itertools import islice
from typing import Any

from holdfast.cluster.key_prefixes import prefix_of
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.model import Host, Task, Worker
from holdfast.cluster.scheduler.tasks.names import Key
from holdfast.cluster.scheduler.tasks.origins import Origin
from holdfast.cluster.scheduler.tasks.states import ACTIVE, STATES

#: So many holders, tasks and the like are named, and so many are looked at to find them.
MAX_NAMED = 20
MAX_SEEN = 2_000
#: States of which it is known when the task came into them.
_DATED = ("no-worker", "lost", "memory")


def explain(state: SchedulerState, key: Key) -> dict[str, Any] | None:
    """All that is known of a key; None if there is no such task."""
    task = state.tasks.get(key)
    if task is None:
        return None
    waits_for = [each for each in islice(task.dependencies, MAX_SEEN) if each.state != "memory"]
    waiters = [each for each in islice(task.dependents, MAX_SEEN) if each.state in ACTIVE]
    return {
        "key": task.key,
        "prefix": prefix_of(task.key),
        "state": task.state,
        "meaning": STATES[task.state],
        "seconds": state.life.now - task.since if task.state in _DATED else None,
        "owner": task.origin.owner,
        "origin": origin(task.origin),
        "type": task.type_name,
        "nbytes": task.nbytes,
        "object_id": task.object_id,
        "is_inline": task.inline is not None,
        "holders": [list(holder.describe()) for holder in task.holders[:MAX_NAMED]],
        "n_holders": len(task.holders),
        "waiters": _named(waiters),
        "n_waiters": task.nwaiters,
        "waits_for": _named(waits_for),
        "n_waits_for": task.waiting_on if task.state == "waiting" else len(waits_for),
        "n_dependencies": len(task.dependencies),
        "where": [_host(host) for host in task.where],
        "run": _run(task),
        "held_up": _held_up(state, task) if task.state == "ready" else [],
        "queued": task.queue.live if task.state == "ready" and task.queue is not None else None,
        "requirements": _requirements(task),
        "no_worker": list(state.unrunnable.why(task.requirements)) if task.state == "no-worker" else None,
        "retries": task.retries,
        "deaths": task.failures,
        "is_computed": task.can_be_computed,
        "error": None if task.error is None else [task.error.key, task.error.text],
    }


def origin(where: Origin) -> dict[str, Any]:
    """Who has brought a task, and by which line of code."""
    return {"client": where.client, **where.about, "call_site": where.call_site, "task": where.task}


def _named(tasks: list[Task]) -> list[tuple[Key, str]]:
    return [(task.key, task.state) for task in tasks[:MAX_NAMED]]


def _host(host: Host) -> dict[str, Any]:
    return {"node": host.address, "name": host.description.get("hostname", "")}


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
    return "was asked to give runs back, or to end"


def _requirements(task: Task) -> dict[str, Any] | None:
    asked = task.requirements
    if asked is None:
        return None
    return {"workers": list(asked.workers[:MAX_NAMED]), "resources": dict(asked.resources), "loose": asked.loose}
