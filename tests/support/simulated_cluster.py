"""Graphs run on pretended hosts in pretended time, around the scheduler's state machine: what happens where and when.

Unlike `scheduler_harness`, where a test says what each worker does next, workers here do what real ones do: they run
what they are sent in order, with as many threads as they have, bring over what another host has, and answer
after a while. How long a task takes and how large its result is, the test says.

Clients ask and are answered; agents say how they are, how a worker has ended, and bring copies; workers and hosts are
lost and come. Everything takes a while in pretended time, and comes in the same order in each run.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.cluster.protocol.errands import RUN, VERSIONS
from holdfast.cluster.protocol.requests import REQUESTS
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.machine.validation import CheckedState
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do
from holdfast.cluster.scheduler.watching import reading

LATENCY_SECONDS = 0.0002
RESTART_SECONDS = 1.2
TRANSFER_NBYTES_PER_SECOND = 1e9
MB = 1_000_000
_FUNCTION = b"f" * 16
#: The operations of requests that have no answer.
QUIET = {request.operation for request in REQUESTS if request.quiet}

#: ``{key: keys that it reads}``, each after those that it reads, in order of priority.
Graph = Mapping[Any, Iterable[Any]]


class Answered(NamedTuple):
    """A request that was answered, ``seconds`` after it was handled."""

    client: str
    number: int
    operation: str
    seconds: float
    ok: bool
    value: Any


class SimulatedCluster:
    """A cluster of hosts that are all alike, with one client at first.

    Parameters
    ----------
    hosts, workers
        How many, and how many workers each of them has.
    seconds, nbytes
        How long a task takes, and how large its result is, by key.

    Attributes
    ----------
    now
        Seconds since the beginning.
    ran_on
        The worker on which each task ran last.
    finished_at
        When each task had finished last.
    moved_nbytes
        What was brought from one host to another.
    peak_nbytes
        The most that any host's store had at a time.
    peak_roots
        The most results of tasks without dependencies that there were at a time.
    recalled
        Runs that were taken back from their workers.
    asked
        The requests, by client and number: when each was handled, and what it was.
    answers
        The answers in the order in which they left the scheduler.
    silent
        The hosts whose agents say nothing when they are asked.
    closed_hosts
        The hosts that were told to close.
    """

    def __init__(
        self,
        hosts: int = 1,
        workers: int = 2,
        *,
        nthreads: int = 1,
        seconds: Callable[[Any], float] = lambda key: 0.001,
        nbytes: Callable[[Any], int] = lambda key: MB,
        capacity: int = 1 << 40,
        validate: bool = True,
        **options: Any,
    ) -> None:
        self.state = (CheckedState if validate else SchedulerState)(**options)
        self.now = 0.0
        self.asked: dict[tuple[str, int], tuple[float, str]] = {}
        self.answers: list[Answered] = []
        self.silent: set[str] = set()
        self.closed_hosts: list[str] = []
        self.ran_on: dict[Any, str] = {}
        self.finished_at: dict[Any, float] = {}
        self.moved_nbytes = 0
        self.peak_nbytes = 0
        self.peak_roots = 0
        self.recalled = 0
        self._seconds = seconds
        self._nbytes = nbytes
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        self._hosts: dict[str, _Host] = {}
        self._workers: dict[str, _Worker] = {}
        self._keys: dict[bytes, Any] = {}  # by object
        self._roots: set[bytes] = set()  # objects of tasks that read nothing
        self._wakes_at: float | None = None
        self._nthreads = nthreads
        self._capacity = capacity
        for _ in range(hosts):
            host = self.add_host()
            for _ in range(workers):
                self.add_worker(host)
        self.add_client("client")

    # -- peers that come and go

    def add_host(self) -> str:
        name = f"host{len(self._hosts)}"
        host = _Host(f"tcp://{name}:1")
        self._hosts[host.address] = host
        self._handle(events.HostJoined(host.address, {"hostname": name, "capacity": self._capacity}))
        self._handle(events.HostReady(host.address))
        return host.address

    def lose_host(self, address: str) -> None:
        """A host is gone from one moment to the next, and its workers with it."""
        self._hosts[address].objects.clear()
        for worker in self._workers.values():
            if worker.host.address == address:
                worker.lost = True
        self._handle(events.HostLeft(address, "lost"))

    def add_worker(self, host: str) -> str:
        number = sum(worker.host.address == host for worker in self._workers.values())
        worker = _Worker(self, f"{host}/{number}", self._hosts[host], self._nthreads)
        self._workers[worker.address] = worker
        name = f"{self.state.hosts[host].description['hostname']}-{number}"
        self._handle(events.WorkerJoined(worker.address, name, host, self._nthreads, {}))
        return worker.address

    def lose_worker(self, address: str, *, parts: bool = True, is_noticed: bool = True) -> None:
        """A worker dies: its connection ends, unless somebody keeps it open; its agent notices, unless it can't."""
        worker = self._workers[address]
        worker.lost = True
        worker.is_noticed = is_noticed
        if parts:
            self.tell(events.WorkerParted(address, "its connection closed"))
        if is_noticed:
            self.later(2 * LATENCY_SECONDS, lambda: self._say_how_it_ended(worker))

    def _say_how_it_ended(self, worker: _Worker) -> None:
        if worker.host.address in self.state.hosts and worker.is_noticed:
            self._handle(events.WorkerExited(worker.host.address, worker.address, "killed by signal 9", []))

    def _end_workers(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            worker = self._workers[address]
            if worker.host.address in self.state.hosts and not worker.lost:
                self.lose_worker(address)

    def _restart_workers(self, addresses: Iterable[str]) -> None:
        self._end_workers(addresses)
        for address in addresses:
            self.later(RESTART_SECONDS, lambda address=address: self._start_again(address))

    def _start_again(self, address: str) -> None:
        host = self._workers[address].host
        if host.address in self.state.hosts and address not in self.state.workers:
            self._workers[address] = _Worker(self, address, host, self._nthreads)
            name = f"{self.state.hosts[host.address].description['hostname']}-{address.rpartition('/')[2]}"
            self._handle(events.WorkerJoined(address, name, host.address, self._nthreads, {}))

    def _check_saved(self, address: str) -> None:
        """What a host has that is told to close is somewhere else."""
        for task in self.state.hosts[address].objects:
            others = [self._hosts[host.address] for host in task.where if host.address != address]
            assert any(task.object_id in other.objects for other in others), f"{task!r} would be lost"

    def _close_host(self, address: str) -> None:
        if address in self.state.hosts:
            self.closed_hosts.append(address)
            self.lose_host(address)

    def is_lost(self, worker: str) -> bool:
        """Whether a worker has died, though the scheduler may not know."""
        return self._workers[worker].lost

    def add_client(self, name: str) -> None:
        self._handle(events.ClientJoined(name, name))
        self._handle(events.FunctionsSent(name, [(_FUNCTION, b"pickle")]))

    def lose_client(self, name: str) -> None:
        self._handle(events.ClientLeft(name))

    # -- what clients say

    def run(self, graph: Graph, wants: Iterable[Any] = (), **options: Any) -> None:
        """Run a graph to its end, for a client that holds what it ``wants``, or the last of it."""
        self.submit(graph, wants, **options)
        self.work()

    def submit(self, graph: Graph, wants: Iterable[Any] = (), *, client: str = "client", **options: Any) -> None:
        tasks = [(key, _FUNCTION, b"args", tuple(dependencies)) for key, dependencies in graph.items()]
        self._handle(events.TasksSubmitted(client, tasks, list(wants) or [tasks[-1][0]], options))

    def scatter(self, key: Any, host: str, *, client: str = "client") -> None:
        object_id = next(self._numbers).to_bytes(16, "big")
        self._keys[object_id] = key
        self._store(self._hosts[host], object_id)
        entry = (key, object_id, self._nbytes(key), "bytes", host, None)
        self._handle(events.ObjectsScattered(client, [entry]))

    def release(self, *keys: Any, client: str = "client") -> None:
        self._handle(events.KeysReleased(client, keys))

    def cancel(self, keys: Sequence[Any], kill: int, *, client: str = "client") -> None:
        self._handle(events.KeysCancelled(client, keys, False, kill))

    def ask(self, asked: tuple[str, dict[str, Any]], *, client: str = "client") -> int:
        """Ask the scheduler for something (a `Request` of the protocol with its arguments); the number of it."""
        operation, arguments = asked
        if operation in QUIET:
            self._handle(events.Requested(client, 0, operation, arguments))
            return 0
        number = next(self._numbers)
        self.asked[client, number] = self.now, operation
        self._handle(events.Requested(client, number, operation, arguments))
        return number

    def answer_of(self, client: str, number: int) -> Answered | None:
        """How a request was answered, if it was."""
        return next((each for each in self.answers if (each.client, each.number) == (client, number)), None)

    def work(self, until: float = float("inf")) -> None:
        """Let time pass until then, or until nothing happens any more."""
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, what = heapq.heappop(self._agenda)
            what()

    # -- for the workers

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + seconds, next(self._numbers), what))

    def tell(self, event: events.Event) -> None:
        """Send the scheduler a message."""
        self.later(LATENCY_SECONDS, lambda: self._handle(event))

    def fetch(self, host: _Host, object_id: bytes) -> float:
        """Have an object brought to a host; the seconds until it's there."""
        nbytes = self._nbytes(self._keys[object_id])
        arrives = host.arrivals.get(object_id)
        if arrives is None:
            self.moved_nbytes += nbytes
            arrives = host.arrivals[object_id] = self.now + LATENCY_SECONDS + nbytes / TRANSFER_NBYTES_PER_SECOND
            self.later(arrives - self.now, lambda: self._arrived(host, object_id))
        return max(0.0, arrives - self.now)

    def _arrived(self, host: _Host, object_id: bytes) -> None:
        self._store(host, object_id)
        self.tell(events.ObjectsFound(host.address, [object_id]))

    def duration(self, key: Any) -> float:
        return self._seconds(key)

    def finished(self, worker: _Worker, entry: to_do.RunEntry, seconds: float) -> bytes:
        """A worker has made a result."""
        key, run_id = entry[:2]
        object_id = next(self._numbers).to_bytes(16, "big")
        self._keys[object_id] = key
        if not entry[4]:
            self._roots.add(object_id)
        self._store(worker.host, object_id)
        self.ran_on[key] = worker.address
        self.finished_at[key] = self.now
        result = (entry[6], run_id, object_id, self._nbytes(key), None, "bytes", seconds)
        self.tell(events.TasksFinished(worker.address, [result]))
        return object_id

    def _store(self, host: _Host, object_id: bytes) -> None:
        host.objects.add(object_id)
        host.nbytes += self._nbytes(self._keys[object_id])
        self.peak_nbytes = max(self.peak_nbytes, host.nbytes)
        alive = set().union(*(h.objects for h in self._hosts.values()))
        self.peak_roots = max(self.peak_roots, len(alive & self._roots))

    # -- the scheduler

    def _handle(self, event: events.Event) -> None:
        for instruction in self.state.handle(event, self.now):
            peer = instruction.peer
            if isinstance(instruction, to_do.RunTasks):
                self._send(self._workers[peer].take, instruction.items)
            elif isinstance(instruction, to_do.DropRuns):
                self.recalled += len(instruction.items)
                self._send(self._workers[peer].drop, instruction.items)
            elif isinstance(instruction, to_do.Reply):
                self._answered(instruction)
            elif isinstance(instruction, to_do.Answer):
                around = reading.Surroundings(
                    dict,
                    dict,
                    lambda client: (None, False),
                    list,
                    lambda peer: {},
                    lambda start, stop: {},
                    lambda keys: iter(()),
                )
                self._read(reading.answer(self.state, around, *instruction), instruction.peer)
            elif isinstance(instruction, to_do.AskForReport):
                self.later(2 * LATENCY_SECONDS, lambda host=peer: self._report(host))
            elif isinstance(instruction, to_do.AskForExit):
                worker = self._workers[instruction.worker]
                self.later(2 * LATENCY_SECONDS, lambda worker=worker: self._say_how_it_ended(worker))
            elif isinstance(instruction, to_do.RemoveWorkers):
                self._send(self._end_workers, instruction.items)
            elif isinstance(instruction, to_do.RestartWorkers):
                self._send(self._restart_workers, instruction.items)
            elif isinstance(instruction, to_do.CloseNode):
                self._check_saved(peer)
                self._send(self._close_host, peer)
            elif isinstance(instruction, to_do.Disconnect):
                self.tell(events.WorkerParted(peer, "it was told to"))
            elif isinstance(instruction, to_do.SendErrand):
                self.later(2 * LATENCY_SECONDS, lambda errand=instruction: self._answer_errand(errand))
            elif isinstance(instruction, to_do.CopyObjects):
                self._send(self._bring, [(peer, object_id) for object_id, _ in instruction.items])
            elif isinstance(instruction, to_do.ForgetObjects):
                self._send(self._hosts[peer].delete, [(i, self._nbytes(self._keys[i])) for i in instruction.items])
                self.later(
                    2 * LATENCY_SECONDS, lambda i=instruction: self.tell(events.ObjectsForgotten(i.peer, i.items))
                )
            elif isinstance(instruction, to_do.DeleteObjects | to_do.DiscardResults):
                peer = self._workers[peer].host.address if peer in self._workers else peer
                self._send(self._hosts[peer].delete, [(i, self._nbytes(self._keys[i])) for i in instruction.items])
        deadline = self.state.next_deadline
        if deadline is not None and (self._wakes_at is None or deadline < self._wakes_at):
            self._wakes_at = deadline
            self.later(max(0.0, deadline - self.now), lambda: self._time_passed(deadline))

    def _answered(self, reply: to_do.Reply) -> None:
        asked_at, operation = self.asked[reply.peer, reply.request]
        assert self.answer_of(reply.peer, reply.request) is None, "it was answered already"
        assert reply.peer in self.state.clients, "nobody is there any more"
        self.answers.append(Answered(reply.peer, reply.request, operation, self.now - asked_at, reply.ok, reply.value))

    def _read(self, steps: Generator[to_do.ReplyPart | None, None, to_do.Reply], client: str) -> None:
        """Make a step of an answer, and the next one after what else happens now."""
        if client not in self.state.clients:
            return
        try:
            next(steps)
        except StopIteration as end:
            self._answered(end.value)
        else:
            self.later(0.0, lambda: self._read(steps, client))

    def _report(self, host: str) -> None:
        if host in self.state.hosts and host not in self.silent:
            self._handle(events.HostReported(host, {"store": {"used": self._hosts[host].nbytes}}))

    def _answer_errand(self, errand: to_do.SendErrand) -> None:
        """A worker answers with a value, with an object, or never, by the number of the errand; a host with a value."""
        if errand.peer in self._hosts:
            self.tell(events.ErrandDone(errand.peer, errand.number, True, {"failed": ()}))
            return
        worker = self._workers[errand.peer]
        if worker.lost:
            return
        if errand.operation == RUN.operation:
            assert not self.state.workers[errand.peer].preparing, "it lacks the plugins that a function may use"
            self.tell(events.ErrandDone(errand.peer, errand.number, True, {"result": b"x"}))
            return
        if errand.operation != VERSIONS.operation:
            self.tell(events.ErrandDone(errand.peer, errand.number, True, {"failed": ()}))
            return
        if errand.number % 5 == 0:
            return
        if errand.number % 3:
            self.tell(events.ErrandDone(errand.peer, errand.number, True, {"host": {}, "packages": {}}))
            return
        object_id = next(self._numbers).to_bytes(16, "big")
        self._keys[object_id] = ("errand", errand.number)
        self._store(worker.host, object_id)
        self.tell(events.ErrandStored(errand.peer, errand.number, object_id, MB, "ndarray"))

    def _bring(self, items: list[tuple[str, bytes]]) -> None:
        for host, object_id in items:
            if any(object_id in other.objects for other in self._hosts.values()):
                self.fetch(self._hosts[host], object_id)
            else:
                self.tell(events.CopiesFailed(host, [(object_id, "nobody has it")]))

    def _send(self, to: Callable[[Any], None], items: Any) -> None:
        self.later(LATENCY_SECONDS, lambda: to(items))

    def _time_passed(self, deadline: float) -> None:
        if deadline == self._wakes_at:  # else an earlier one has come in between
            self._wakes_at = None
            self._handle(events.TimePassed())


class _Host:
    def __init__(self, address: str) -> None:
        self.address = address
        self.objects: set[bytes] = set()
        self.arrivals: dict[bytes, float] = {}
        self.nbytes = 0

    def delete(self, items: list[tuple[bytes, int]]) -> None:
        for object_id, nbytes in items:
            if object_id in self.objects:
                self.objects.remove(object_id)
                self.nbytes -= nbytes


class _Worker:
    """Runs what it is sent, in order."""

    def __init__(self, cluster: SimulatedCluster, address: str, host: _Host, nthreads: int) -> None:
        self.address = address
        self.host = host
        self._cluster = cluster
        self.lost = False
        self.is_noticed = True
        self._idle = nthreads
        self._queue: list[to_do.RunEntry] = []
        self._results: dict[int, bytes] = {}

    def take(self, entries: list[to_do.RunEntry]) -> None:
        if self.lost:
            return
        self._queue += entries
        self._start()

    def drop(self, run_ids: list[int]) -> None:
        if self.lost:
            return
        dropped = [entry[1] for entry in self._queue if entry[1] in run_ids]
        self._queue = [entry for entry in self._queue if entry[1] not in dropped]
        if dropped:
            self._cluster.tell(events.RunsDropped(self.address, dropped))

    def _start(self) -> None:
        while self._idle:
            entry = next((e for e in self._queue if all(self._there(d[1]) for d in e[4])), None)
            if entry is None:
                return
            self._queue.remove(entry)
            self._idle -= 1
            wait = 0.0
            for _, object_id, _, sources in entry[4]:
                if sources and object_id not in self.host.objects:
                    wait = max(wait, self._cluster.fetch(self.host, object_id))
            seconds = self._cluster.duration(entry[0])
            self._cluster.later(wait + seconds, lambda e=entry, s=wait + seconds: self._end(e, s))

    def _there(self, dependency: Any) -> bool:
        return isinstance(dependency, bytes) or dependency in self._results

    def _end(self, entry: to_do.RunEntry, seconds: float) -> None:
        if self.lost:
            return
        self._idle += 1
        self._results[entry[1]] = self._cluster.finished(self, entry, seconds)
        self._start()
