"""What the workers of a host are doing, without asking them: the kernel knows, and the ledgers do.

=============  =========================================================================================
"running"      its loop goes round: it hears what it is told
"computing"    it hears nothing, and uses a processor: a call into C that keeps the interpreter to itself
"blocked"      it hears nothing, and sleeps: such a call that waits for something, or a frozen process
"stopped"      the kernel lets it do nothing: SIGSTOP, or a debugger
=============  =========================================================================================

A time in which this agent was stopped itself, perhaps with all else on the host, counts for no worker
(`ListeningClock`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from holdfast.cluster.node.ledger import AgentLedger
from holdfast.cluster.node.supervisor import WorkerProcess

RUNNING, COMPUTING, BLOCKED, STOPPED = "running", "computing", "blocked", "stopped"

LOOK_SECONDS = 1.0
#: A worker that has not heard for this long is said to hear nothing; it writes down every second that it does.
DEAF_SECONDS = 3.0
#: A worker that hears nothing and uses this much of one processor is computing.
COMPUTING_SHARE = 0.1

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


class Conditions:
    """Keeps track of the workers of one host."""

    def __init__(self) -> None:
        self._workers: dict[str, _Condition] = {}
        self._looked = 0.0

    def look(self, workers: Iterable[WorkerProcess], now: float) -> bool:
        """Look at each worker that has a process; whether any of them does something else than before.

        Parameters
        ----------
        workers
            Of this host.
        now
            The time by a `ListeningClock`.
        """
        elapsed = now - self._looked
        self._looked = now
        known, self._workers = self._workers, {}
        changed = False
        for worker in workers:
            if worker.ledger is None or worker.pid is None:
                continue
            condition = known.get(worker.address)
            if condition is None or condition.ledger is not worker.ledger:
                condition = _Condition(worker.ledger)
            before = condition.name
            try:
                condition.look(worker.pid, elapsed)
            except OSError:  # it has just ended
                continue
            self._workers[worker.address] = condition
            changed = changed or condition.name != before
        return changed

    def report(self) -> dict[str, dict[str, Any]]:
        """By the address of a worker: its ``condition``, and for how many ``seconds`` it has been in that."""
        return {
            address: {"condition": condition.name, "seconds": condition.seconds}
            for address, condition in self._workers.items()
        }


class _Condition:
    """What one process is doing."""

    def __init__(self, ledger: AgentLedger) -> None:
        self.ledger = ledger
        self.name = RUNNING
        self.seconds = 0.0
        self._heard = 0
        self._deaf_seconds = 0.0
        self._busy_before = 0.0  # until it heard last

    def look(self, pid: int, elapsed: float) -> None:
        is_stopped, busy = _process(pid)
        heard = self.ledger.heard
        if heard != self._heard or heard == 0 or is_stopped:  # it has yet to start; or its deafness is no news
            self._heard, self._deaf_seconds, self._busy_before = heard, 0.0, busy
        else:
            self._deaf_seconds += elapsed
        if is_stopped:
            name = STOPPED
        elif self._deaf_seconds < DEAF_SECONDS:
            name = RUNNING
        else:
            name = COMPUTING if busy - self._busy_before >= COMPUTING_SHARE * self._deaf_seconds else BLOCKED
        if name in (COMPUTING, BLOCKED):
            self.seconds = self._deaf_seconds  # under either name
        else:
            self.seconds = self.seconds + elapsed if name == self.name else 0.0
        self.name = name


def _process(pid: int) -> tuple[bool, float]:
    """Whether a process is stopped, and the seconds of processors' time that it has used."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    return fields[0] in (b"T", b"t"), (int(fields[11]) + int(fields[12])) * _TICK_SECONDS
