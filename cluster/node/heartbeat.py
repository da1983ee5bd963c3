"""What the scheduler hears of a host every two seconds: how full its store is, and how its workers do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from holdfast.cluster.node.memory_watch import private_nbytes
from holdfast.cluster.protocol.limits import MAX_NAME_LENGTH

INTERVAL_SECONDS = 2.0
#: Of those who hold objects in a store, so many are named.
MAX_HOLDERS = 100
#: The load of a process over less time than this says nothing: asked again so soon, the last figures stand.
LEAST_SECONDS = 1.0


def store_figures(stats: Mapping[str, Any]) -> dict[str, Any]:
    """A store's figures as they are sent: of those who hold objects the largest, by what they call themselves."""
    holders = sorted(stats["held_by"].items(), key=lambda holder: holder[1], reverse=True)[:MAX_HOLDERS]
    readers = stats["deleted_but_pinned_by"]
    return {
        **stats,
        "held_by": {str(owner)[:MAX_NAME_LENGTH]: nbytes for owner, nbytes in holders},
        "deleted_but_pinned_by": [name[:MAX_NAME_LENGTH] for name in readers],
    }


class WorkerVitals:
    """Measures processes: ``memory``, bytes of their own, and ``cpu``, percent of one core since the last time."""

    def __init__(self) -> None:
        self._processes: dict[int, Any] = {}
        self._pids: dict[str, int | None] = {}
        self._report: dict[str, dict[str, float]] = {}
        self._measured = -LEAST_SECONDS

    def measure(self, pids: Mapping[str, int | None]) -> dict[str, dict[str, float]]:
        """The figures of each worker, by address. A worker that has no process now is left out."""
        import psutil  # here, because the time to the first task counts

        now = time.monotonic()
        if pids == self._pids and now - self._measured < LEAST_SECONDS:
            return self._report
        self._pids, self._measured = dict(pids), now
        known, self._processes = self._processes, {}
        report = {}
        for address, pid in pids.items():
            if pid is None:
                continue
            try:
                process = known.get(pid) or psutil.Process(pid)
                cpu = process.cpu_percent()
            except psutil.Error:
                continue
            self._processes[pid] = process
            report[address] = {"memory": private_nbytes(pid), "cpu": cpu}
        self._report = report
        return report
