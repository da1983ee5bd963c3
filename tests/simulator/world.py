"""A cluster, and all that is known of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from holdfast.cluster.scheduler.tasks.names import ObjectId
from tests.simulator.client import Client
from tests.simulator.clock import Agenda
from tests.simulator.host import Host
from tests.simulator.oracle import Oracle
from tests.simulator.profile import Profile
from tests.simulator.scheduler import Scheduler
from tests.simulator.trace import Trace
from tests.simulator.worker import Worker

_UNSETTLED = ("waiting", "ready", "no-worker", "processing", "lost")
#: In the end tasks take that much less time.
HURRY = 0.01
SMALL_NBYTES, LARGE_NBYTES = 20, 1_000_000


class World:
    """A cluster.

    Parameters
    ----------
    seed
        All chance comes from it.
    profile
        What kind of cluster it is.
    trace
        Is told of all events, if somebody wants to read them.

    Attributes
    ----------
    hosts, clients
        Those that are there, by address and id.
    actors
        The actor that was made last by the task of each key.
    pace
        What a task takes is multiplied by this.
    reads
        How many values clients have read.
    """

    def __init__(self, seed: int, profile: Profile, trace: Trace | None = None) -> None:
        self.seed = seed
        self.profile = profile
        self.trace = trace
        self.agenda = Agenda()
        self.oracle = Oracle(int(profile.options["max_failures"]))
        self.reads = 0
        self.pace = 1.0
        self.actors: dict[Any, int] = {}
        self.labels: dict[ObjectId, int] = {}  # the serials of the tasks whose results objects are
        self._numbers = 0
        self._counts: Counter[str] = Counter()
        self.hosts: dict[str, Host] = {}
        self.clients: dict[str, Client] = {}
        self.scheduler = Scheduler(self)
        for _ in range(profile.hosts):
            self.add_host()
        self.agenda.run(0.01 + 0.5)
        for _ in range(profile.clients):
            self.add_client()

    # -- names

    def new_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def new_object(self) -> ObjectId:
        return self.new_number().to_bytes(16, "big")

    def count(self, name: str) -> int:
        """How often this was asked for a name."""
        self._counts[name] += 1
        return self._counts[name]

    def nbytes(self, is_small: bool) -> int:
        return SMALL_NBYTES if is_small else LARGE_NBYTES

    # -- who comes and goes

    def add_host(self, workers: int | None = None) -> Host:
        profile = self.profile
        host = Host(self, self.count("hosts"), profile.nthreads, profile.workers if workers is None else workers)
        self.hosts[host.address] = host
        return host

    def add_client(self) -> Client:
        number = self.count("clients")
        hosts = [*self.hosts.values(), None]
        client = Client(self, f"c{number}", hosts[number % len(hosts)])
        self.clients[client.id] = client
        return client

    @property
    def workers(self) -> list[Worker]:
        """All workers that are there."""
        return [worker for host in self.hosts.values() for worker in host.workers.values()]

    # -- what happens, and what it may cause

    def left(self, worker: Worker) -> None:
        """The scheduler parts with a worker. What it was sent may be charged for that, and its actors are lost."""
        known = self.scheduler.state.workers.get(worker.address)
        if known is not None:
            self.oracle.deaths.update(run.task.key for run in known.runs.values() if run.task is not None)
        self.oracle.cause("ActorLostError", *worker.actor_keys)

    def lost(self, host: Host, objects: Mapping[ObjectId, bytes]) -> None:
        """The scheduler can't have objects from a host any more: those that no other host has may be lost for good."""
        others = [other.store for other in self.hosts.values() if other is not host and other.is_connected]
        for object_id, value in objects.items():
            if not any(object_id in store for store in others):
                self.oracle.lost_value(value)
                # Once the scheduler is another one, it does not know what small results are, and so no handles.
                self.oracle.lost_handle(value, self.actors)

    def unreadable(self, key: Any) -> None:
        """Somebody could not read a result, though it should be there."""
        self.oracle.cause("ObjectLostError", key)

    def client_ended(self, client: Client) -> None:
        self.clients.pop(client.id, None)
        for host in self.hosts.values():
            host.do(host.client_left, client.id)

    # -- the end

    def heal(self) -> None:
        """See to it that there is somebody to go on: a client, a host, and a worker at each host."""
        self.pace = HURRY
        if not self.clients:
            self.add_client()
        if not self.hosts:
            self.add_host()
        for host in self.hosts.values():
            host.is_apart = False
            if not host.places:
                host.add_place()

    def replace_barred(self) -> None:
        """Other hosts come in the place of those whose workers a client has retired without having them closed."""
        for worker in list(self.scheduler.state.workers.values()):
            host = self.hosts.get(worker.host.address)
            if worker.retiring and host is not None:
                host.die()
                self.add_host(workers=2)

    def unsettled(self) -> str:
        """What has not come to its end yet, in words; nothing if everything has."""
        state = self.scheduler.state
        for host in self.hosts.values():
            if not host.is_connected or host.address not in state.hosts:
                return f"{host.address} has not joined"
        if self.scheduler.is_recovering:
            return "the scheduler waits for those that come back"
        missing = [client for client in state.clients if client not in self.scheduler.peers]
        if missing:
            return f"{missing[0]} has not come back"
        for worker in self.workers:
            if worker.keys:
                return f"{worker.address} is at {worker.keys[:3]}"
        for client in self.clients.values():
            pending = [key for key, known in client.table.items() if known.status == "pending"]
            if pending:
                task = state.tasks.get(pending[0])
                return f"{len(pending)} keys of {client.id} are pending, such as {pending[0]!r}: {task!r}"
            if client.asked:
                number = next(iter(client.asked))
                return f"request {number} of {client.id}: {self.scheduler.coordination.open.get((client.id, number))}"
        active = next((task for task in state.tasks.values() if task.state in _UNSETTLED), None)
        if active is not None:
            return f"{active!r}"
        return "follow-ups" if state.life.follow_up.has_more else ""
