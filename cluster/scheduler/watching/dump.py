"""All that the scheduler knows of its tasks and clients, as plain data: for those that look for a fault."""

from __future__ import annotations

from itertools import islice
from typing import Any

from holdfast.cluster.key_prefixes import prefix_of
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.model import Task
from holdfast.cluster.scheduler.watching.introspection import Steps

#: So many tasks are described in a step: some milliseconds.
STEP_TASKS = 100
#: Of what a task depends on, and of what depends on it, so many are named.
MAX_NEIGHBOURS = 100
MAX_ERROR_LENGTH = 2_000


def dump(state: SchedulerState, run_spec: bool) -> Steps:
    """Tasks and clients; with ``run_spec`` also what tasks were submitted as."""
    for tasks in state.tasks.slices(STEP_TASKS):
        yield {"tasks": [_task(task, run_spec) for task in tasks]}
    earlier = state.life.generations.earlier
    for tasks in earlier.slices(STEP_TASKS):
        yield {"earlier_generations": [_task(task, run_spec) for task in tasks]}
    clients = list(state.clients.values())
    for start in range(0, len(clients), STEP_TASKS):
        yield {
            "clients": [
                {"id": client.id, "name": client.name, "wants": len(client.holds), "functions": len(client.functions)}
                for client in clients[start : start + STEP_TASKS]
            ]
        }
    return {
        "tasks": [],
        "earlier_generations": [],
        "clients": [],
        "waits": [[wait.kind, wait.client, wait.seconds_left(state.life.now)] for wait in islice(state.waits, 1_000)],
        "unplaced": state.unrunnable.describe(),
        "next_deadline_seconds": None if state.next_deadline is None else state.next_deadline - state.life.now,
    }


def _task(task: Task, run_spec: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "key": task.key,
        "prefix": prefix_of(task.key),
        "state": task.state,
        "owner": task.origin.owner,
        "type": task.type_name,
        "nbytes": task.nbytes,
        "priority": list(task.priority),
        "retries": task.retries,
        "deaths": task.failures,
        "missing": task.missing,
        "run_id": task.run_id,
        "processing_on": None if task.worker is None else task.worker.address,
        "who_has": [host.address for host in task.where],
        "who_wants": [list(holder.describe()) for holder in task.holders[:MAX_NEIGHBOURS]],
        "dependencies": [each.key for each in task.dependencies[:MAX_NEIGHBOURS]],
        "dependents": [each.key for each in islice(task.dependents, MAX_NEIGHBOURS)],
        "waiting_on": task.waiting_on,
        "waiters": task.nwaiters,
        "error": None if task.error is None else task.error.text[:MAX_ERROR_LENGTH],
    }
    if task.requirements is not None:
        asked = task.requirements
        described["requirements"] = [list(asked.workers[:MAX_NEIGHBOURS]), dict(asked.resources), asked.loose]
    if run_spec:
        described["run_spec"] = [task.digest, None if task.payload is None else bytes(task.payload)]
    return described
