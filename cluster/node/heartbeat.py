"""What the scheduler hears of a host every two seconds: how full its store is, and how its workers do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.cluster.node.memory_watch import private_nbytes

INTERVAL_SECONDS = 2.0


class WorkerVitals:
    """Measures processes: ``memory``, bytes of their own, and ``cpu``, percent of one core since the last time."""

    def __init__(self) -> None:
        self._processes: dict[int, Any] = {}

    def measure(self, pids: Mapping[str, int | None]) -> dict[str, dict[str, float]]:
        """The figures of each worker, by address. A worker that has no process now is left out."""
        import psutil  # here, because the time to the first task counts

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
        return report
