"""Clients that wait for a number of workers."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.cluster.protocol.requests import WAIT_FOR_WORKERS
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.waits import Wait, WaitOwner
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Worker

#: How long a client waits that does not say.
WAIT_FOR_WORKERS_SECONDS = 30.0


class WorkersWait(Wait):
    """A client that waits for so many workers, for so long."""

    __slots__ = ("n", "seconds")

    kind = "workers"

    def __init__(self, part: WorkerWaits, client: str, request: int, due: float, n: int, seconds: float) -> None:
        super().__init__(part, client, request, due)
        self.n = n
        self.seconds = seconds

    def describe(self) -> str:
        return f"{self.n:,} workers"


class WorkerWaits(Part, WaitOwner):
    """Answers `wait-for-workers`.

    Parameters
    ----------
    shared
        What all parts work with.
    address
        Of the scheduler, which a client is told that waits in vain.
    """

    name = "worker-waits"

    def __init__(self, shared: Shared, *, address: str) -> None:
        super().__init__(shared)
        self.requests = {WAIT_FOR_WORKERS: self._wait_for_workers}
        self._address = address
        self._waits: dict[WorkersWait, None] = {}

    def _wait_for_workers(self, client: Client, request: int, n: int, timeout: float | None = None) -> None:
        self.shared.waits.demand_room(client.id)
        seconds = WAIT_FOR_WORKERS_SECONDS if timeout is None else float(timeout)
        self._begin(WorkersWait(self, client.id, request, self.shared.now + seconds, n, seconds))

    def _begin(self, wait: WorkersWait) -> None:
        self._waits[wait] = None
        self.shared.waits.begin(wait)
        self._answer_those_with_enough([wait])

    def worker_joined(self, worker: Worker) -> None:
        self._answer_those_with_enough(list(self._waits))

    def _answer_those_with_enough(self, waits: Iterable[WorkersWait]) -> None:
        count = len(self.shared.workers)
        for wait in waits:
            if wait.n <= count:
                self.shared.waits.answer(wait, count)

    def expired(self, wait: Wait) -> None:
        assert isinstance(wait, WorkersWait)
        text = (
            f"waited {wait.seconds:g} s for {wait.n} workers, {len(self.shared.workers)} are there; "
            f"'holdfast start --address {self._address.removeprefix('tcp://')}' adds some"
        )
        self.shared.waits.refuse(wait, "TimeoutError", text)

    def forget(self, wait: Wait) -> None:
        assert isinstance(wait, WorkersWait)
        del self._waits[wait]

    def check(self) -> None:
        assert set(self._waits) == {wait for wait in self.shared.waits if isinstance(wait, WorkersWait)}
        for wait in self._waits:
            assert wait.n > len(self.shared.workers), f"{wait!r} has what it waits for"
