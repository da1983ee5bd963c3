"""What the scheduler tells about itself: the answers to requests that only read the state.

Everything is plain MessagePack. Keys stay as they are; sizes are bytes, times are seconds.

There may be a million tasks, so an answer about tasks is made in *steps*, each of which looks at `STEP_ITEMS` of them.
Such an answer is a generator: it yields fragments of the answer, or None, and returns the last fragment. The client
that asked puts them together (`holdfast.cluster.protocol.answers`). Between two steps the state may change: what came
or went meanwhile may be in the answer or not, and what was made anew may be in it twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any, TypeAlias

from holdfast.cluster.protocol.shapes import in_slices
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.model import Host, Task, Worker
from holdfast.cluster.scheduler.tasks.names import Key
from holdfast.cluster.scheduler.watching import waiting

#: A step looks at so many tasks: half a millisecond or one.
STEP_ITEMS = 500

Steps: TypeAlias = Generator[Any, None, Any]


def who_has(state: SchedulerState, keys: Sequence[Key] | None, workers: bool = False) -> Steps:
    """The node addresses that have each key's object, or those of their workers; of all keys without ``keys``."""
    places = _workers_of if workers else _hosts_of
    if keys is None:
        for tasks in state.life.results.table.slices(STEP_ITEMS):
            where = {task.key: places(task) for task in tasks if state.tasks.get(task.key) is task}
            for part in in_slices(list(where), STEP_ITEMS):
                yield {key: where[key] for key in part}
    else:
        for part in in_slices(keys, STEP_ITEMS):
            found = {}
            for key in part:
                task = state.tasks.get(key)
                found[key] = [] if task is None else places(task)
            yield found
    return {}


def _hosts_of(task: Task) -> list[str]:
    return [host.address for host in task.where]


def _workers_of(task: Task) -> list[str]:
    return [worker.address for host in task.where for worker in host.workers]


def has_what(state: SchedulerState, names: Iterable[str] | None, workers: bool = False) -> Steps:
    """The keys whose objects lie in each node's store; or those that each worker can read in place."""
    if workers:
        addresses = {worker.address: worker.host for worker in workers_named(state, names)}
    else:
        addresses = {host.address: host for host in _hosts(state, names)}
    for address, host in addresses.items():
        for tasks in host.objects.slices(STEP_ITEMS):
            for part in in_slices([task.key for task in tasks], STEP_ITEMS):
                yield {address: part}
    return {address: [] for address in addresses}


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
    return {worker.address: worker.nthreads for worker in workers_named(state, names)}


def workers_named(state: SchedulerState, names: Iterable[str] | None) -> list[Worker]:
    """The workers that can be called by one of these names; all of them without any."""
    if names is None:
        return list(state.workers.values())
    wanted = set(names)
    return [worker for worker in state.workers.values() if not wanted.isdisjoint(worker.names)]


def info(
    state: SchedulerState,
    description: dict[str, Any],
    joined: Callable[[str], Mapping[str, Any]] = lambda peer: {},
    n: int | None = None,
) -> dict[str, Any]:
    """What `Client.scheduler_info` gives, with ``n`` of the workers."""
    workers = {}
    for worker in islice(state.workers.values(), n):
        beat = worker.host.report
        figures = _worker(worker, beat, state.life.now)
        said = joined(worker.address)
        workers[worker.address] = {
            **figures,
            "type": "Worker",
            "id": worker.address,
            "node": worker.host.address,
            "host": worker.host.description.get("hostname", ""),
            "pid": said.get("pid"),
            "memory_limit": said.get("memory_limit"),
            "resources": dict(worker.resources),
            "last-seen": beat.get("time"),
            "last_seen": beat.get("time"),
            "services": {},
            "nanny": None,
            "status": "closing_gracefully" if worker.retiring else "starting" if worker.preparing else "running",
            "metrics": {
                "memory": figures["memory"],
                "cpu": figures["cpu"],
                "executing": sum(run.begun for run in worker.active),
                "ready": worker.nactive,
                "blocked": worker.nblocked,
                "time": beat.get("time"),
                "store": beat.get("store") or {},
            },
        }
    places = {place: how for host in state.hosts.values() for place, how in (host.report.get("places") or {}).items()}
    threads = sum(worker.nthreads for worker in state.workers.values())
    return {
        **description,
        "type": "Scheduler",
        "services": {},
        "n_workers": len(state.workers),
        "total_threads": threads,
        "workers": workers,
        "places": places,
    }


def _worker(worker: Worker, beat: dict[str, Any], now: float) -> dict[str, Any]:
    measured = (beat.get("workers") or {}).get(worker.address) or {}
    return {
        "name": worker.name,
        "nthreads": worker.nthreads,
        "processing": worker.nactive,
        "blocked": worker.nblocked,
        "memory": measured.get("memory"),
        "cpu": measured.get("cpu"),
        "condition": measured.get("condition") if worker.cut_off is None else "cut off",
        "seconds": measured.get("seconds") if worker.cut_off is None else now - worker.cut_off,
        "paused": worker.paused,
    }


def status(
    state: SchedulerState,
    description: dict[str, Any],
    silences: Mapping[str, float],
    absent: Sequence[dict[str, Any]],
) -> Steps:
    """What ``holdfast status`` shows: ``silences`` has the seconds since each host was heard of."""
    counts: Counter[str] = Counter()
    found: list[Task] = []
    for tasks in chain(state.tasks.slices(STEP_ITEMS), state.life.generations.earlier.slices(STEP_ITEMS)):
        counts.update([task.state for task in tasks])
        if len(found) < STEP_ITEMS:
            found += [task for task in tasks if task.state in waiting.WAITING]
        yield None
    single: dict[str, dict[str, Any]] = {}
    roots = list(state.copies.wanting)
    for start in range(0, len(roots), STEP_ITEMS):
        for task in roots[start : start + STEP_ITEMS]:
            datasets, reason, is_lost = state.copies.single(task) or ((), "", False)
            for dataset in datasets:
                figures = single.setdefault(
                    str(dataset.id)[:200], {"objects": 0, "nbytes": 0, "lost_nbytes": 0, "reason": reason}
                )
                figures["objects"] += 1
                figures["nbytes"] += task.nbytes
                figures["lost_nbytes"] += task.nbytes if is_lost else 0
        yield None
    nodes = {}
    for host in state.hosts.values():
        beat = host.report
        nodes[host.address] = {
            "hostname": host.description.get("hostname", ""),
            "pid": host.description.get("pid"),
            "silent_seconds": silences.get(host.address),
            "memory": beat.get("memory"),
            "deaths": host.description.get("deaths") or 0,
            "last_death": host.description.get("last_death"),
            "last_death_seconds": beat.get("last_death_seconds"),
            "workers": {worker.address: _worker(worker, beat, state.life.now) for worker in host.workers},
            "places": beat.get("places") or {},
            "store": {"capacity": host.description.get("capacity"), **(beat.get("store") or {})},
        }
    return {
        "scheduler": description,
        "nodes": nodes,
        "absent": list(absent),
        "tasks": dict(counts),
        "unplaced": state.unrunnable.describe(),
        "waiting": waiting.tasks(state, found),
        "n_waits": len(state.waits),
        "waits": waiting.requests(state),
        "clients": sum(client.worker is None for client in state.clients.values()),
        "datasets": state.datasets.names(),
        "durable": [name for name, dataset in state.datasets.published.items() if dataset.place is not None],
        "one_copy": single,
    }
