"""What the scheduler hears of a host every two seconds: how full its store is, and how its workers do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.cluster.clock import ListeningClock
from holdfast.cluster.node.conditions import LOOK_SECONDS, Conditions
from holdfast.cluster.node.memory_watch import private_nbytes
from holdfast.cluster.node.workers import HostWorkers
from holdfast.cluster.protocol.limits import MAX_NAME_LENGTH
from holdfast.objectstore.system import control_groups

INTERVAL_SECONDS = 2.0
#: Of the clients that hold objects in a store, so many are named.
MAX_HOLDERS = 100
#: The load of a process over less time than this says nothing: asked again so soon, the last figures stand.
LEAST_SECONDS = 1.0


def store_figures(stats: Mapping[str, Any]) -> dict[str, Any]:
    """A store's figures as they are sent: of the clients that hold objects the largest, by their own names."""
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


class Heartbeat:
    """Says how this host is: now and then, at once when a worker does something else, and when it is asked.

    Parameters
    ----------
    workers
        Of this host.
    stats
        Gives the figures of this host's store.
    send
        Takes each report.
    interval
        Gives the number of seconds between two of them.
    clock
        By which time passes here.
    died
        When the agent that was in this one's place before has ended, by ``time.monotonic()``; None: there was none.
    """

    def __init__(
        self,
        workers: HostWorkers,
        *,
        stats: Callable[[], Mapping[str, Any]],
        send: Callable[[dict[str, Any]], None],
        interval: Callable[[], float],
        clock: ListeningClock,
        died: float | None,
    ) -> None:
        self._workers = workers
        self._stats = stats
        self._send = send
        self._interval = interval
        self._clock = clock
        self._died = died
        self._memory = control_groups.tightest_memory_limit()
        self._vitals = WorkerVitals()
        self._conditions = Conditions()
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Report from now on, for the first time after one interval."""
        self._beating = asyncio.ensure_future(self._beat())

    def stop(self) -> None:
        """Report no more. Twice is no error."""
        if self._beating is not None:
            self._beating.cancel()

    def report(self) -> None:
        """Report now."""
        self._look()
        doing = self._conditions.report()
        for worker in self._workers.processes:
            doing.setdefault(worker.address, {})["paused"] = worker.is_paused
        vitals = self._vitals.measure(self._workers.pids)
        report: dict[str, Any] = {
            "store": store_figures(self._stats()),
            "workers": {address: {**figures, **doing.get(address, {})} for address, figures in vitals.items()},
            "places": self._workers.describe(),
        }
        if self._memory is not None:
            report["memory"] = self._memory._asdict()
        if self._died is not None:
            report["last_death_seconds"] = time.monotonic() - self._died
        self._send(report)

    async def _beat(self) -> None:
        reported = self._clock.time()
        while True:
            # First it waits: the scheduler asks if it wants to know before, and to measure processes takes an import.
            interval = self._interval()
            await asyncio.sleep(min(interval, LOOK_SECONDS))
            now = self._clock.time()
            if self._look() or now - reported > interval - LOOK_SECONDS / 2:
                reported = now
                self.report()

    def _look(self) -> bool:
        """Whether a worker does something else than it did."""
        return self._conditions.look(self._workers.processes, self._clock.time())
