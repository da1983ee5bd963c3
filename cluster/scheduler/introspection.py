"""What the scheduler tells about itself: the answers to requests that only read the state.

Everything is plain MessagePack. Keys stay as they are; sizes are bytes, times are seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from holdfast.cluster.scheduler.model import Client, Host, Key, Task, Worker
from holdfast.cluster.scheduler.state import SchedulerState

#: The answer of `memory` names at most this many objects, the largest first.
MAX_OBJECTS_LISTED = 10_000

Heartbeats = dict[str, dict[str, Any]]


def who_has(state: SchedulerState, keys: Iterable[Key] | None) -> dict[Key, list[str]]:
    """The node addresses that have each key's object; of all keys that have one when ``keys`` is None."""
    tasks: Iterable[Task | None] = state.life.objects.values() if keys is None else map(state.tasks.get, keys)
    found = {task.key: [host.address for host in task.where] for task in tasks if task is not None}
    return found if keys is None else {key: found.get(key, []) for key in keys}


def has_what(state: SchedulerState, names: Iterable[str] | None) -> dict[str, list[Key]]:
    """The keys whose objects lie in each node's store."""
    return {host.address: [task.key for task in host.objects] for host in _hosts(state, names)}


def _hosts(state: SchedulerState, names: Iterable[str] | None) -> Iterable[Host]:
    if names is None:
        return state.hosts.values()
    wanted = set(names)
    return [
        host
        for host in state.hosts.values()
        if host.address in wanted or any(not wanted.isdisjoint(worker.names) for worker in host.workers)
    ]


def nthreads(state: SchedulerState, names: Iterable[str] | None) -> dict[str, int]:
    """The number of threads of each worker."""
    wanted = None if names is None else set(names)
    return {
        worker.address: worker.nthreads
        for worker in state.workers.values()
        if wanted is None or not wanted.isdisjoint(worker.names)
    }


def info(state: SchedulerState, description: dict[str, Any], heartbeats: Heartbeats) -> dict[str, Any]:
    """What `Client.scheduler_info` gives."""
    workers = {}
    for worker in state.workers.values():
        beat = heartbeats.get(worker.host.address, {})
        workers[worker.address] = {
            **_worker(worker, beat),
            "type": "Worker",
            "node": worker.host.address,
            "host": worker.host.description.get("hostname", ""),
            "resources": dict(worker.resources),
            "last-seen": beat.get("time"),
        }
    places = {place: how for beat in heartbeats.values() for place, how in (beat.get("places") or {}).items()}
    return {**description, "type": "Scheduler", "services": {}, "workers": workers, "places": places}


def _worker(worker: Worker, beat: dict[str, Any]) -> dict[str, Any]:
    measured = (beat.get("workers") or {}).get(worker.address) or {}
    return {
        "name": worker.name,
        "nthreads": worker.nthreads,
        "processing": len(worker.runs),
        "memory": measured.get("memory"),
        "cpu": measured.get("cpu"),
    }


def status(state: SchedulerState, description: dict[str, Any], heartbeats: Heartbeats) -> dict[str, Any]:
    """What ``holdfast status`` shows."""
    nodes = {}
    for host in state.hosts.values():
        beat = heartbeats.get(host.address, {})
        nodes[host.address] = {
            "hostname": host.description.get("hostname", ""),
            "pid": host.description.get("pid"),
            "deaths": host.description.get("deaths") or 0,
            "last_death": host.description.get("last_death"),
            "workers": {worker.address: _worker(worker, beat) for worker in host.workers},
            "places": beat.get("places") or {},
            "store": {"capacity": host.description.get("capacity"), **(beat.get("store") or {})},
        }
    return {
        "scheduler": description,
        "nodes": nodes,
        "tasks": dict(Counter(task.state for task in state.tasks.values())),
        "clients": len(state.clients),
        "datasets": sorted(state.datasets),
    }


def memory(state: SchedulerState, heartbeats: Heartbeats) -> dict[str, Any]:
    """What ``holdfast memory`` shows: each object with its size, who holds it and where it lies."""
    tasks = sorted(state.life.objects.values(), key=_nbytes, reverse=True)
    return {
        "objects": [_object(task, state.life.now) for task in tasks[:MAX_OBJECTS_LISTED]],
        "count": len(tasks),
        "nbytes": sum(map(_nbytes, tasks)),
        "stores": {address: beat.get("store") for address, beat in heartbeats.items()},
    }


def _nbytes(task: Task) -> int:
    return task.nbytes


def _object(task: Task, now: float) -> dict[str, Any]:
    return {
        "key": task.key,
        "object_id": (task.object_id or b"").hex(),
        "nbytes": task.nbytes,
        "type": task.type_name,
        "owner": task.owner,
        "holders": [_holder(holder) for holder in task.holders] + [f"task {waiter.key!r}" for waiter in task.waiters],
        "where": [host.address for host in task.where],
        "age": now - task.since,
    }


def _holder(holder: Any) -> str:
    return f"client {holder.name}" if isinstance(holder, Client) else f"dataset {holder.name!r}"
