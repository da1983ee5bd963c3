"""Which workers it costs least to close: idle ones, of hosts whose stores have little.

Data lies with hosts, so a worker that is not the last one of its host costs nothing but its threads. When the last one
goes, the host's data has to move. So the workers of one host are chosen together where it can be, beginning with the
host that has least. A worker that has actors is not chosen, since these can't be moved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.model import Worker

#: What stays is to have room for so many times the bytes that there are, if the client does not say.
MEMORY_RATIO = 2.0


def workers_to_close(
    state: SchedulerState,
    n: int | None,
    target: int | None,
    minimum: int | None,
    memory_ratio: float | None,
    groups: Mapping[str, str] | None,
) -> list[str]:
    """The addresses of workers to close, the one that costs least first. See the request."""
    workers = [worker for worker in state.workers.values() if not worker.retiring]
    if n is None and target is not None:
        n = max(0, len(workers) - target)
    ratio = MEMORY_RATIO if memory_ratio is None and n is None else memory_ratio
    affiliated: dict[str, list[Worker]] = {}
    for worker in workers:
        name = worker.address if groups is None else groups.get(worker.address, worker.address)
        affiliated.setdefault(name, []).append(worker)
    movable = [group for group in affiliated.values() if not any(worker.actors for worker in group)]
    ordered = sorted(movable, key=_cost)
    total = sum(host.nbytes for host in state.hosts.values())
    remains = sum(host.capacity for host in state.hosts.values() if not host.leaving)
    left = Counter(worker.host for worker in workers)
    chosen: list[Worker] = []
    for group in ordered:
        if n is None and any(worker.runs for worker in group):
            break
        if n is not None and len(chosen) + len(group) > n:
            continue  # a smaller one may do
        if minimum is not None and len(workers) - len(chosen) - len(group) < minimum:
            continue
        closed = Counter(worker.host for worker in group)
        emptied = sum(host.capacity for host, count in closed.items() if left[host] == count)
        if ratio is not None and emptied and remains - emptied < ratio * total:
            break
        remains -= emptied
        left -= closed
        chosen += group
    return [worker.address for worker in chosen]


def _cost(group: list[Worker]) -> tuple[bool, int, str]:
    """Idle ones first, then those whose hosts have least; those of one host together."""
    hosts = dict.fromkeys(worker.host for worker in group)
    is_busy = any(worker.runs for worker in group)
    return is_busy, sum(host.nbytes for host in hosts), min(host.address for host in hosts)
