"""A host: its node agent, its store, and the processes of its workers.

An agent that dies takes its workers and its store along. One whose host is stopped or cut off lives on: when the
scheduler has given it up it joins again, and says what it has.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do
from tests.simulator.clock import stream
from tests.simulator.network import Closed
from tests.simulator.oracle import Value
from tests.simulator.process import Peer
from tests.simulator.worker import Worker

if TYPE_CHECKING:
    from tests.simulator.world import World

HEARTBEAT_SECONDS = 2.0
#: An inventory is told in pieces of so many objects.
PIECE = 3
#: How long a transfer from one host to another takes, at most.
TRANSFER_SECONDS = 0.05
#: A transfer from a host that does not answer is given up after this.
TRANSFER_TIMEOUT_SECONDS = 3.0
#: A host that has lost the scheduler looks for it that often.
RECONNECT_SECONDS = 0.5


class Host(Peer):
    """A host.

    Attributes
    ----------
    store
        The objects that it has, each with its value.
    owners
        The names of the processes that have put them there.
    damaged
        The objects that can't be read any more.
    places
        Where it keeps workers: name, threads and resources by number.
    workers
        The processes of its workers, by address.
    is_apart
        Nothing gets from it to any other machine, or back.
    """

    def __init__(self, world: World, number: int, nthreads: int, workers: int) -> None:
        super().__init__(world)
        self.number = number
        self.name = f"h{number}"
        self.address = f"tcp://h{number}:1"
        self.store: dict[bytes, Value] = {}
        self.owners: dict[bytes, str] = {}
        self.places: dict[int, tuple[str, int, dict[str, float]]] = {}
        self.workers: dict[str, Worker] = {}
        self.damaged: set[bytes] = set()
        self.is_apart = False
        self._nthreads = nthreads
        self._arrivals: dict[bytes, list[Callable[[bool], None]]] = {}
        self._is_connecting = False
        self._random = stream(world.seed, self.address).random
        for index in range(workers):
            self._keep(index)
        self._handlers: dict[type, Callable[[Any], None]] = {
            to_do.DeleteObjects: lambda i: self._delete(i.items),
            to_do.ForgetObjects: self._forget_copies,
            to_do.CopyObjects: self._copy,
            to_do.AskForReport: lambda i: self._report(),
            to_do.AskForExit: self._asked_for_exit,
            to_do.RevokeRuns: self._revoke,
            to_do.KillRuns: self._kill,
            to_do.SendErrand: self._errand,
            to_do.AddWorkers: self._add_workers,
            to_do.RemoveWorkers: self._remove_workers,
            to_do.RestartWorkers: self._restart_workers,
            to_do.CloseNode: lambda i: self.close(),
        }
        self._connect()
        self.later(HEARTBEAT_SECONDS, self._beat)

    # -- the connection

    def describe(self) -> dict[str, Any]:
        """What the agent says about its host."""
        return {
            "address": self.address,
            "hostname": self.name,
            "incarnation": f"{self.address}#{self.number}",
            "capacity": self.world.profile.capacity * self.world.nbytes(False),
            "places": self._described_places(),
        }

    def _described_places(self) -> list[tuple[str, str, int, dict[str, float]]]:
        return [
            (f"{self.address}/{index}", name, nthreads, resources)
            for index, (name, nthreads, resources) in self.places.items()
        ]

    def _connect(self) -> None:
        if not self._is_connecting:
            self._is_connecting = True
            self.later(0.01 + RECONNECT_SECONDS * self._random(), self._try_to_connect)

    def _try_to_connect(self) -> None:
        self._is_connecting = False
        if self.is_connected:
            return
        if self.is_apart:
            self._connect()
            return
        self.link = self.world.scheduler.node_connects(self)
        objects = [
            {
                "id": object_id,
                "nbytes": self.world.nbytes(False),
                "type": "bytes",
                "owner": self.owners.get(object_id),
                "label": self.world.labels.get(object_id),
            }
            for object_id in self.store
        ]
        for start in range(0, len(objects), PIECE):
            self.say(events.ObjectsReported(self.address, objects[start : start + PIECE]))
        self.say(events.HostReady(self.address))
        for index in self.places:
            self._start_worker(index)

    def parted(self) -> None:
        self.link = None
        for worker in list(self.workers.values()):
            worker.parted()
        self._connect()

    def lost_scheduler(self) -> None:
        """It joins the next one as if it had just come. Its workers look for that themselves."""
        self.link = None
        self._connect()

    def told(self, instruction: Any, turn: int) -> None:
        self._handlers[type(instruction)](instruction)

    @property
    def is_connected(self) -> bool:
        """Whether the scheduler has not parted with it."""
        return self.link is not None and not self.link.is_over

    def close(self) -> None:
        """The agent ends in order, and its workers with it."""
        self.die("it was closed")

    def die(self, reason: str = "killed") -> None:
        """The agent is killed: its workers end with it, and the store is gone."""
        for worker in list(self.workers.values()):
            if worker.link is not None and worker.link.is_lost:
                self.world.left(worker)  # the next scheduler knows it no more
            worker.end()
            worker.say(Closed("its host has died"))
        self.workers.clear()
        self.end()
        self.world.hosts.pop(self.address, None)
        self.world.lost(self, self.store)
        self.store.clear()
        self.say(Closed(reason))

    # -- the store

    @property
    def has_room(self) -> bool:
        return len(self.store) < self.world.profile.capacity

    def put(self, object_id: bytes, value: Value, owner: str | None = None) -> None:
        self.store[object_id] = value
        if owner is not None:
            self.owners[object_id] = owner

    def _delete(self, object_ids: Iterable[bytes]) -> None:
        for object_id in object_ids:
            self.store.pop(object_id, None)
            self.owners.pop(object_id, None)

    def _forget_copies(self, instruction: to_do.ForgetObjects) -> None:
        self._delete(instruction.items)
        self.say(events.ObjectsForgotten(self.address, instruction.items))

    def forget(self, object_id: bytes) -> None:
        """The scheduler wants an object of a worker deleted that has died since, or the worker itself does."""
        self._delete([object_id])

    def lose(self, object_id: bytes) -> None:
        """An object is damaged: nobody can read it any more, and nobody is told."""
        value = self.store.pop(object_id)
        self.damaged.add(object_id)
        self.owners.pop(object_id, None)
        self.world.lost(self, {object_id: value})

    def fetch(self, object_id: bytes, sources: Sequence[str], then: Callable[[bool], None]) -> None:
        """Bring an object here from one of these hosts. ``then`` is told whether it is there."""
        if object_id in self.store:
            then(True)
            return
        callbacks = self._arrivals.get(object_id)
        if callbacks is not None:
            callbacks.append(then)
            return
        self._arrivals[object_id] = [then]
        self._try_source(object_id, list(sources))

    def _try_source(self, object_id: bytes, sources: list[str]) -> None:
        if not sources or not self.has_room:
            self._fetched(object_id, None)
            return
        source = sources.pop(0)
        other = self.world.hosts.get(source)
        if other is not None and (self.is_apart or other.is_apart or other.is_stopped):
            self.later(TRANSFER_TIMEOUT_SECONDS, self._try_source, object_id, sources)
            return
        self.later(TRANSFER_SECONDS * self._random() ** 3, self._arrives, object_id, source, sources)

    def _arrives(self, object_id: bytes, source: str, sources: list[str]) -> None:
        other = self.world.hosts.get(source)
        value = None if other is None or self.is_apart or other.is_apart else other.store.get(object_id)
        if value is None:
            self._try_source(object_id, sources)
        else:
            self._fetched(object_id, value)

    def _fetched(self, object_id: bytes, value: Value | None) -> None:
        if value is not None:
            self.put(object_id, value)
            self.say(events.ObjectsFound(self.address, [object_id]))
        for then in self._arrivals.pop(object_id):
            then(value is not None)

    def _copy(self, instruction: to_do.CopyObjects) -> None:
        for object_id, sources in instruction.items:
            assert self.address not in sources
            if object_id in self.store:
                self.say(events.ObjectsFound(self.address, [object_id]))
            else:
                self.fetch(object_id, sources, functools.partial(self._copied, object_id))

    def _copied(self, object_id: bytes, is_there: bool) -> None:
        if not is_there:
            self.say(events.CopiesFailed(self.address, [(object_id, "nobody could give it")]))

    # -- what the scheduler asks

    def _beat(self) -> None:
        self._report()
        self.later(HEARTBEAT_SECONDS, self._beat)

    def _report(self) -> None:
        now = self.world.agenda.now
        workers = {
            worker.address: {
                "condition": "stopped" if worker.is_stopped else "running",
                "seconds": now - worker.stopped_at if worker.is_stopped else 0.0,
            }
            for worker in self.workers.values()
        }
        self.say(events.HostReported(self.address, {"store": {"used": len(self.store)}, "workers": workers}))

    def _process(self, address: str, number: int) -> Worker | None:
        """The process of a worker, if it is the one of this number."""
        worker = self.workers.get(address)
        return worker if worker is not None and worker.number == number else None

    def _asked_for_exit(self, instruction: to_do.AskForExit) -> None:
        worker = self._process(instruction.worker, instruction.pid)
        if worker is not None:
            worker.die("it had lost the scheduler")

    def _revoke(self, instruction: to_do.RevokeRuns) -> None:
        worker = self._process(instruction.worker, instruction.incarnation)
        if worker is not None:
            self._say_revoked(worker, instruction.run_ids)

    def _say_revoked(self, worker: Worker, run_ids: Sequence[int]) -> None:
        number, revoked, begun = worker.revoke(run_ids)
        self.say(events.RunsRevoked(self.address, worker.address, worker.number, number, revoked, begun))

    def _kill(self, instruction: to_do.KillRuns) -> None:
        worker = self._process(instruction.worker, instruction.incarnation)
        if worker is None:
            return
        if worker.is_at(instruction.run_ids):
            worker.die(instruction.reason, asked=True)
        else:
            self._say_revoked(worker, instruction.run_ids)

    def _errand(self, instruction: to_do.SendErrand) -> None:
        self.later(0.01, self.say, events.ErrandDone(self.address, instruction.number, True, {"failed": ()}))

    # -- workers

    def _keep(self, index: int) -> None:
        self.places[index] = (f"{self.name}-{index}", self._nthreads, {"gpu": 1.0} if index == 0 else {})

    def _start_worker(self, index: int) -> None:
        address = f"{self.address}/{index}"
        if index in self.places and address not in self.workers and self.is_alive:
            self.workers[address] = Worker(self.world, self, address, *self.places[index])

    def worker_died(self, worker: Worker, reason: str, running: list[int], crashed: int | None, *, asked: bool) -> None:
        """The process of a worker has ended: the agent says why, most of the time, and starts another one."""
        if self.workers.get(worker.address) is worker:
            del self.workers[worker.address]
        exited = events.WorkerExited(
            self.address, worker.address, reason, running, crashed, False, asked, worker.number
        )
        left = [{"id": object_id} for object_id, owner in self.owners.items() if owner == worker.name]
        if self._random() < 0.9:
            self.later(0.02 * self._random(), self.say, exited)
        if left:
            left_store = events.OwnerLeft(self.address, left, worker.name, worker.number)
            self.later(0.02 * self._random(), self.say, left_store)
        self.later(0.03 + self._random(), self._start_worker, int(worker.address.rpartition("/")[2]))

    def client_left(self, client: str) -> None:
        """A client uses the store no more."""
        left = [{"id": object_id} for object_id, owner in self.owners.items() if owner == client]
        if left:
            self.later(0.05 * self._random(), self.say, events.OwnerLeft(self.address, left, client))

    def add_place(self) -> None:
        """Keep a worker, where there is none."""
        self._add_workers(to_do.AddWorkers(self.address, [0]))

    def _add_workers(self, instruction: to_do.AddWorkers) -> None:
        for index in instruction.items:
            if index not in self.places:
                self._keep(index)
                self._start_worker(index)
        self.say(events.PlacesChanged(self.address, self._described_places()))

    def _remove_workers(self, instruction: to_do.RemoveWorkers) -> None:
        for address in instruction.items:
            self.places.pop(int(address.rpartition("/")[2]), None)
            worker = self.workers.get(address)
            if worker is not None:
                worker.die("it was closed", asked=True)
        self.say(events.PlacesChanged(self.address, self._described_places()))

    def _restart_workers(self, instruction: to_do.RestartWorkers) -> None:
        for address in instruction.items:
            worker = self.workers.get(address)
            if worker is not None:
                worker.die("it is started again", asked=True)
