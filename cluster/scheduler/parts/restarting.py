"""New processes in the places of workers: of all, as a clean slate, or of some.

The nodes end the processes and start others. A worker that is to be restarted gets nothing new to run, and what it runs
is charged for nothing. A restart of all also cancels every key that a client holds, of all clients. What datasets hold
stays: it lies in stores, which live on, and what of it was not computed yet is computed by the new processes.

A restart waits for its workers to leave, and for others at the same addresses to come. One that makes room for another
process already (`successors`) is told nothing, and its successor is waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from holdfast.cluster.protocol.requests import RESTART, RESTART_WORKERS
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.retiring import named_workers
from holdfast.cluster.scheduler.parts.successors import Successors
from holdfast.cluster.scheduler.parts.waits import Refusal, Wait, WaitOwner
from holdfast.cluster.scheduler.tasks.cancelling import CancellationOfAll
from holdfast.cluster.scheduler.tasks.feed import Restarted
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Host, Worker
from holdfast.cluster.scheduler.tasks.wording import some

#: How long a restart may take, if the client does not say.
RESTART_SECONDS = 60.0


class Restart(Wait):
    """Workers whose successors a client waits for."""

    __slots__ = ("awaits_successors", "is_of_all", "left", "missing", "statuses")

    kind = "restart"

    def __init__(
        self,
        part: Restarting,
        client: str,
        request: int,
        due: float,
        addresses: Iterable[str],
        *,
        is_of_all: bool,
        awaits_successors: bool,
    ) -> None:
        super().__init__(part, client, request, due)
        self.is_of_all = is_of_all
        self.awaits_successors = awaits_successors
        self.left = dict.fromkeys(addresses)  # those that are to leave still
        self.missing: dict[str, None] = {}  # those that have left, and whose successors are to come
        self.statuses: dict[str, str] = {}  # of those that are settled, and of those that leave and get no successor

    @property
    def is_over(self) -> bool:
        """Whether nothing is waited for any more."""
        return not self.left and not (self.missing and self.awaits_successors)

    def describe(self) -> str:
        return f"new processes of {len(self.left) + len(self.missing):,} workers"


class Restarting(Part, WaitOwner):
    """Answers `restart` and `restart-workers`.

    Parameters
    ----------
    shared
        What all parts work with.
    successors
        Has workers make room for others.
    """

    name = "restarting"

    def __init__(self, shared: Shared, successors: Successors) -> None:
        super().__init__(shared)
        self._successors = successors
        self.requests = {RESTART: self._restart, RESTART_WORKERS: self._restart_workers}
        self._restarts: dict[Restart, None] = {}

    # -- requests

    def _restart(
        self, client: Client, request: int, timeout: float = RESTART_SECONDS, wait_for_workers: bool = True
    ) -> None:
        self.shared.waits.demand_room(client.id)
        if client.worker is not None:
            raise Refusal("RuntimeError", "a task can't restart the workers, since it would end itself with its own")
        workers = [worker for worker in self._successors.there if worker.ending != "closed"]
        if self.shared.feed.is_heard:
            self.shared.feed.tell(Restarted())
        if not self.shared.replies.has_begun(client.id, request):  # else an earlier scheduler has
            self._cancel_all(client)
            self.shared.replies.begin(client.id, request)
        self._begin(client, request, timeout, workers, is_of_all=True, awaits_successors=wait_for_workers)

    def _restart_workers(
        self, client: Client, request: int, workers: Sequence[str], timeout: float = RESTART_SECONDS
    ) -> None:
        self.shared.waits.demand_room(client.id)
        chosen = [worker for worker in named_workers(self._successors.there, workers) if worker.ending != "closed"]
        if client.worker in chosen:
            raise Refusal("RuntimeError", "a task can't restart its own worker, since it would end itself with it")
        self._begin(client, request, timeout, chosen, is_of_all=False, awaits_successors=True)

    def _cancel_all(self, client: Client) -> None:
        """Nothing is held for clients any more."""
        life = self.shared.life
        reason = f"the cluster was restarted by {client.name}"
        life.follow_up.begin(CancellationOfAll(life.holding, self.shared.clients.values(), reason))

    def _begin(
        self,
        client: Client,
        request: int,
        timeout: float,
        workers: Sequence[Worker],
        *,
        is_of_all: bool,
        awaits_successors: bool,
    ) -> None:
        there = [worker for worker in workers if worker.address in self.shared.workers]
        restart = Restart(
            self,
            client.id,
            request,
            self.shared.now + timeout,
            [worker.address for worker in there],
            is_of_all=is_of_all,
            awaits_successors=awaits_successors,
        )
        restart.missing = {worker.address: None for worker in workers if worker not in there}
        self._restarts[restart] = None
        self.shared.waits.begin(restart)
        self._successors.replace(there)
        self.ask_to_follow_up()

    # -- what happens

    def worker_left(self, worker: Worker) -> None:
        for restart in self._restarts:
            if worker.address in restart.left:
                del restart.left[worker.address]
                if worker.address not in restart.statuses:
                    restart.missing[worker.address] = None
                self.ask_to_follow_up()

    def worker_joined(self, worker: Worker) -> None:
        for restart in self._restarts:
            if worker.address in restart.missing:
                del restart.missing[worker.address]
                restart.statuses[worker.address] = "OK"
                self.ask_to_follow_up()

    def places_left(self, host: Host, addresses: Collection[str]) -> None:
        for restart in self._restarts:
            for address in addresses:
                if address in restart.missing:
                    del restart.missing[address]
                    self.ask_to_follow_up()
                elif address not in restart.left:
                    continue
                restart.statuses[address] = "removed"

    def host_left(self, host: Host) -> None:
        for restart in self._restarts:
            for address in [address for address in restart.missing if address.startswith(f"{host.address}/")]:
                del restart.missing[address]
                restart.statuses[address] = "removed"
                self.ask_to_follow_up()

    def follow_up(self) -> None:
        for restart in [restart for restart in self._restarts if restart.is_over]:
            self._conclude(restart, "OK")

    def _conclude(self, restart: Restart, how: str) -> None:
        rest = dict.fromkeys([*restart.left, *restart.missing], how)
        statuses = {**restart.statuses, **rest}
        self.shared.waits.answer(restart, {"workers": statuses} if restart.is_of_all else statuses)

    # -- the end of a wait

    def expired(self, wait: Wait) -> None:
        assert isinstance(wait, Restart)
        if not wait.is_of_all:
            self._conclude(wait, "timed out")
            return
        late = f"{some(wait.left or wait.missing, 5)}"
        what = "has not ended" if wait.left else "has ended, and is not there again"
        self.shared.waits.refuse(wait, "TimeoutError", f"{late} {what} in time; all else is done")

    def forget(self, wait: Wait) -> None:
        assert isinstance(wait, Restart)
        del self._restarts[wait]

    # -- the rest

    def check(self) -> None:
        assert set(self._restarts) == {wait for wait in self.shared.waits if isinstance(wait, Restart)}
        for restart in self._restarts:
            assert not restart.is_over
            for address in restart.left:
                assert self.shared.workers[address].ending
