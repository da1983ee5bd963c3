"""What the scheduler hears of a host every two seconds: how full its store is, and how its workers do."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from holdfast.cluster.node.memory_watch import private_nbytes

INTERVAL_SECONDS = 2.0
#: The load of a process over less time than this says nothing: asked again so soon, the last figures stand.
LEAST_SECONDS = 1.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class WorkerVitals:
    """Measures processes: ``memory``, bytes of their own, and ``cpu``, percent of one core since the last time."""

    def __init__(self) -> None:
        self._spent: dict[int, _Spent] = {}
        self._pids: dict[str, int | None] = {}
        self._report: dict[str, dict[str, float]] = {}
        self._measured = -LEAST_SECONDS

    def measure(self, pids: Mapping[str, int | None]) -> dict[str, dict[str, float]]:
        """The figures of each worker, by address. A worker that has no process now is left out."""
        now = time.monotonic()
        if pids == self._pids and now - self._measured < LEAST_SECONDS:
            return self._report
        seconds = max(LEAST_SECONDS, now - self._measured)
        self._pids, self._measured = dict(pids), now
        before, self._spent = self._spent, {}
        report = {}
        for address, pid in pids.items():
            if pid is None or (spent := _spent(pid)) is None:
                continue
            self._spent[pid] = spent
            known = before.get(pid)
            # The id may have been another process's.
            used = spent.seconds - known.seconds if known is not None and known.started == spent.started else 0.0
            report[address] = {"memory": private_nbytes(pid), "cpu": round(100 * used / seconds, 1)}
        self._report = report
        return report


class _Spent(NamedTuple):
    """The processor time that a process has used, and when it started."""

    seconds: float
    started: int


def _spent(pid: int) -> _Spent | None:
    """None: there is no such process any more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return _Spent((int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND, int(fields[19]))
