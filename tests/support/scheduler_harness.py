"""A cluster around the state machine without any I/O: workers, stores and clients as plain data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

from holdfast.cluster.naming import id_of_tasks
from holdfast.cluster.protocol import requests
from holdfast.cluster.protocol.answers import merged
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.machine.validation import CheckedState
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do
from holdfast.cluster.scheduler.watching import reading

FUNCTION = b"f" * 16
Value = bytes
SMALL, LARGE = 10, 10_000_000
#: The operations of requests that have no answer, and the number that they have here.
QUIET = {request.operation for request in requests.REQUESTS if request.quiet}
QUIETLY = -1


#: Those of requests that move no task.
LIGHT = {request.operation for request in SchedulerState().light_requests}


class Cluster:
    """Applies events to a validating state machine and its instructions to pretended processes.

    Objects have values: of a task the payload with the values of what its run has read, of scattered data the object.
    """

    def __init__(
        self, hosts: int = 0, workers: int = 0, nthreads: int = 1, *, validate: bool = True, **options: Any
    ) -> None:
        self.now = 0.0
        state = CheckedState if validate else SchedulerState
        self.state = state(**{"patience_seconds": 0.0, **options})
        self.stores: dict[str, set[bytes]] = {}
        self.forgot: list[events.ObjectsForgotten] = []  # what hosts are about to say
        self.away: dict[str, set[bytes]] = {}  # of hosts that the scheduler has given up, but that live
        self.nbytes: dict[bytes, int] = {}
        self.values: dict[bytes, Value] = {}  # of every object that ever was
        self._results: dict[int, Value] = {}  # of every run
        self.runs: dict[str, dict[int, to_do.RunEntry]] = {}
        self.dropped: dict[str, list[int]] = {}
        self.begun: set[int] = set()  # runs that workers' ledgers have
        self.blocked: set[int] = set()  # runs that wait for others
        self.holding: set[int] = set()  # runs that were told that they hold resources
        self.timed: set[int] = set()  # runs whose workers are to say when they begin
        self.killing: list[to_do.KillRuns] = []  # what nodes are to end
        self.granted: set[int] = set()  # and those of them that have them again
        self.asked: list[to_do.RevokeRuns] = []  # of nodes, and not answered yet
        self.copying: list[tuple[str, bytes]] = []  # what hosts were told to bring
        self.in_files: set[bytes] = set()  # of these, what they were told to bring from a file
        self.told: list[to_do.TellRevoked] = []  # what workers have not confirmed yet
        self.clients: dict[str, dict[Any, str]] = {}  # what each client was last told of each key
        self.read: dict[str, dict[Any, bytes]] = {}  # and which object it was told to read last
        self.forgotten: dict[str, list[bytes]] = {}
        self.warnings: dict[str, list[str]] = {}
        self.logged: list[str] = []
        self.replies: list[to_do.Reply] = []
        self.open: dict[tuple[str, int], None] = {}  # requests that have no answer yet: client and number
        self.reports: list[str] = []  # hosts that were asked how they are, and have not said so yet
        self.exits: list[tuple[str, str]] = []  # hosts that were asked how a worker has ended, and which
        self.errands: list[to_do.SendErrand] = []  # that nobody has answered yet
        self.outcomes: dict[tuple[str, int], dict[str, Any]] = {}  # of the errands of a request, by address
        self.disconnected: list[str] = []
        self.ending: list[tuple[str, bool]] = []  # workers whose nodes were told to end them, and whether again
        self.closing: list[str] = []  # hosts that were told to close
        self.nodes: dict[str, set[str]] = {}  # whose stores a client may use, if it was told
        self.departing: dict[str, bool] = {}  # workers of which there is one sign, and whether that explains it
        self.reasons: dict[Any, str] = {}
        self.silences: dict[str, tuple[float | None, bool]] = {}  # for how long clients have said nothing
        self._ids = itertools.count(1)
        for h in range(hosts):
            self.add_host()
            for _ in range(workers):
                self.add_worker(f"tcp://host{h}:1", nthreads)

    # -- events

    def handle(self, event: events.Event) -> list[to_do.Instruction]:
        done = None
        if isinstance(event, events.Requested) and event.operation in LIGHT:  # as the server does
            done = self.state.answer(event, self.now)
            event = events.TimePassed() if done is None else event
        if done is None:
            done = self.state.handle(event, self.now)
        for instruction in done:
            self._apply(instruction)
        while self.forgot:
            self.state.handle(self.forgot.pop(), self.now)
        waits = list(self.state.waits)
        assert {(wait.client, wait.request) for wait in waits} == set(self.open), "what is not answered waits"
        if isinstance(event, events.TimePassed):
            assert all(wait.due is not None and wait.due > self.now for wait in waits), "a wait has no end"
        return done

    def catch_up(self) -> int:
        """See to everything that events have left over; in how many pieces."""
        count = 0
        while self.state.life.follow_up.has_more:
            assert self.state.next_deadline == self.now, "nobody would go on with it"
            self.handle(events.TimePassed())
            count += 1
        return count

    def _apply(self, instruction: to_do.Instruction) -> None:
        peer = instruction.peer
        if peer in self.departing and not isinstance(instruction, to_do.Disconnect):
            return  # nobody hears it
        if isinstance(instruction, to_do.RunTasks):
            for entry in instruction.items:
                assert all(isinstance(d[1], bytes) or d[1] in self.runs[peer] for d in entry[4]), "behind nothing"
                self.runs[peer][entry[1]] = entry
        elif isinstance(instruction, to_do.TellHolding):
            self.holding.update(instruction.items)
        elif isinstance(instruction, to_do.GrantResources):
            self.granted.update(instruction.items)
        elif isinstance(instruction, to_do.Warn):
            self.warnings.setdefault(peer, []).append(instruction.text)
        elif isinstance(instruction, to_do.Log):
            self.logged.append(instruction.text)
        elif isinstance(instruction, to_do.ForgetFunctions):
            self.forgotten.setdefault(peer, []).extend(instruction.items)
        elif isinstance(instruction, to_do.DropRuns):
            self.dropped[peer] += instruction.items
        elif isinstance(instruction, to_do.RevokeRuns):
            self.asked.append(instruction)
        elif isinstance(instruction, to_do.KillRuns):
            self.killing.append(instruction)
        elif isinstance(instruction, to_do.TellTimed):
            self.timed.update(instruction.items)
        elif isinstance(instruction, to_do.TellRevoked):
            self.told.append(instruction)
        elif isinstance(instruction, to_do.DeleteObjects):
            self.stores[peer] -= set(instruction.items)
        elif isinstance(instruction, to_do.ForgetObjects):
            self.stores[peer] -= set(instruction.items)
            self.forgot.append(events.ObjectsForgotten(peer, instruction.items))
        elif isinstance(instruction, to_do.CopyObjects):
            self.copying += [(peer, object_id) for object_id, sources in instruction.items]
            assert all(peer not in sources for _, sources in instruction.items)
            self.in_files.update(
                object_id for object_id, sources in instruction.items if sources[0].startswith("durable:")
            )
        elif isinstance(instruction, to_do.DiscardResults):
            self.stores[peer.rpartition("/")[0]] -= set(instruction.items)
        elif isinstance(instruction, to_do.ReportMemory):
            self.clients[peer].update({entry[0]: "memory" for entry in instruction.items})
            self.read[peer].update({entry[0]: entry[1] for entry in instruction.items})
        elif isinstance(instruction, to_do.ReportErred):
            self.clients[peer].update({entry[0]: "erred" for entry in instruction.items})
            self.reasons.update({entry[0]: entry[2] for entry in instruction.items})
        elif isinstance(instruction, to_do.ReportPending):
            self.clients[peer].update(dict.fromkeys(instruction.items, "pending"))
        elif isinstance(instruction, to_do.ReportCancelled):
            self.clients[peer].update(dict.fromkeys(instruction.items, "cancelled"))
            self.reasons.update(dict.fromkeys(instruction.items, instruction.reason))
        elif isinstance(instruction, to_do.Reply):
            if instruction.request != QUIETLY:
                del self.open[peer, instruction.request]  # else there is no such request, or it was answered already
            self.replies.append(instruction)
        elif isinstance(instruction, to_do.Answer):
            self._apply(self._read(instruction))
        elif isinstance(instruction, to_do.AskForReport):
            self.reports.append(peer)
        elif isinstance(instruction, to_do.AskForExit):
            self.exits.append((peer, instruction.worker))
        elif isinstance(instruction, to_do.SendErrand):
            self.errands.append(instruction)
        elif isinstance(instruction, to_do.TellOutcome):
            assert (peer, instruction.request) in self.open, "the answer has ended already"
            outcomes = self.outcomes.setdefault((peer, instruction.request), {})
            assert instruction.address not in outcomes, "it has come to something already"
            outcomes[instruction.address] = instruction.outcome
        elif isinstance(instruction, to_do.RemoveWorkers):
            self.ending += [(address, False) for address in instruction.items]
        elif isinstance(instruction, to_do.RestartWorkers):
            self.ending += [(address, True) for address in instruction.items]
        elif isinstance(instruction, to_do.CloseNode):
            self.closing.append(peer)
        elif isinstance(instruction, to_do.TellNodes):
            known = self.nodes.setdefault(peer, set(self.state.hosts))
            known |= {description["address"] for description in instruction.more}
            known -= set(instruction.fewer)
        elif isinstance(instruction, to_do.Disconnect):
            self.disconnected.append(peer)

    def _read(self, instruction: to_do.Answer) -> to_do.Reply:
        """Read an answer from the state, step by step, and put it together."""
        around = reading.Surroundings(
            dict,
            dict,
            lambda client: self.silences.get(client, (None, False)),
            list,
            lambda peer: {},
            lambda start, stop: {},
            lambda keys: iter(()),
        )
        steps = reading.answer(self.state, around, *instruction)
        fragments = []
        while True:
            try:
                part = next(steps)
            except StopIteration as end:
                reply: to_do.Reply = end.value
                return reply._replace(value=merged([*fragments, reply.value]))
            if part is not None:
                fragments.append(part.fragment)

    def add_host(self, capacity: int = 100 * LARGE, places: int = 0, resources: dict[str, float] | None = None) -> str:
        name = f"host{len(self.stores)}"
        address = f"tcp://{name}:1"
        self.stores[address] = set()
        description: dict[str, Any] = {"hostname": name, "capacity": capacity}
        description: dict[str, Any] = {
            "address": address,
            "hostname": name,
            "capacity": capacity,
            "resources": resources,
        }
        description["incarnation"] = address
        description["places"] = [(f"{address}/place{n}", f"{name}-place{n}", 1, resources or {}) for n in range(places)]
        self.handle(events.HostJoined(address, description))
        self.handle(events.HostReady(address))
        return address

    def cut_off_host(self, address: str, *, may_live: bool = True) -> None:
        """The scheduler hears nothing of a host any more and gives it up; it keeps what it has."""
        kept = set(self.stores[address])
        self._forget_host(address)
        self.away[address] = kept
        self.handle(events.HostLeft(address, "its connection ended", may_live))

    def join_again(self, address: str, piece: int = 500) -> None:
        """A host that was cut off says what it has, in pieces, and is ready."""
        for _ in self.begin_to_join_again(address, piece):
            pass

    def begin_to_join_again(self, address: str, piece: int = 500) -> Iterator[None]:
        """The same, event by event."""
        self.stores[address] = self.away.pop(address)
        description = {"address": address, "hostname": address, "capacity": 100 * LARGE, "incarnation": address}
        self.handle(events.HostJoined(address, description))
        objects = [
            {"id": object_id, "nbytes": self.nbytes.get(object_id, LARGE), "type": "bytes"}
            for object_id in sorted(self.stores[address])
        ]
        for start in range(0, len(objects), piece):
            yield
            self.handle(events.ObjectsReported(address, objects[start : start + piece]))
        yield
        self.handle(events.HostReady(address))

    def remove_host(self, address: str) -> None:
        self._forget_host(address)
        self.handle(events.HostLeft(address, "killed"))

    def _forget_host(self, address: str) -> None:
        self.departing = {worker: sign for worker, sign in self.departing.items() if not worker.startswith(address)}
        for worker in [w for w in self.runs if w.startswith(f"{address}/")]:
            del self.runs[worker], self.dropped[worker]
            self.clients.pop(id_of_tasks(worker), None)
        self.stores[address] = set()

    def add_worker(
        self,
        host: str,
        nthreads: int = 1,
        resources: dict[str, float] | None = None,
        *,
        address: str | None = None,
    ) -> str:
        address = address or f"{host}/{next(self._ids)}"
        self.departing.pop(address, None)  # of the process before
        self.runs[address] = {}
        self.dropped[address] = []
        name = address.rpartition(":")[2]
        self.handle(events.WorkerJoined(address, name, host, nthreads, resources or {}, next(self._ids)))
        return address

    def remove_worker(
        self,
        address: str,
        running: Sequence[Any] | None = None,
        crashed: Any = None,
        *,
        fault: bool = False,
        asked: bool = False,
        parted_first: bool = False,
    ) -> None:
        """A worker dies; its node knows which keys its threads had taken last, or nothing."""
        run_ids = None if running is None else [self.entry(key)[1][1] for key in running]
        crashed = None if crashed is None else self.entry(crashed)[1][1]
        del self.runs[address], self.dropped[address]
        signs: list[events.Event] = [
            self.exited(address, run_ids, crashed, fault, asked),
            events.WorkerParted(address, "its connection closed"),
        ]
        for sign in reversed(signs) if parted_first else signs:
            self.handle(sign)
        self.clients.pop(id_of_tasks(address), None)

    def lose_worker(self, address: str, *, is_explained: bool) -> None:
        """One of the two signs that a worker is gone: its node says how it has ended, or its connection has ended."""
        del self.runs[address], self.dropped[address]
        self.departing[address] = is_explained
        self._give_sign(address, is_explained=is_explained)

    def give_second_sign(self, address: str) -> None:
        """The other one."""
        self._give_sign(address, is_explained=not self.departing.pop(address))

    def exited(self, address: str, *how: Any) -> events.WorkerExited:
        """What the node of a worker says when its process has ended."""
        worker = self.state.workers.get(address)
        exited = events.WorkerExited(address.rpartition("/")[0], address, "killed by signal 9", *how)
        return exited._replace(incarnation=None if worker is None else worker.incarnation)

    def _give_sign(self, address: str, *, is_explained: bool) -> None:
        if is_explained:
            self.handle(self.exited(address))
        else:
            self.handle(events.WorkerParted(address, "its connection closed"))

    def add_client(self, name: str = "client") -> str:
        self.clients[name] = {}
        self.read[name] = {}
        self.handle(events.ClientJoined(name, name))
        self.handle(events.FunctionsSent(name, [(FUNCTION, b"pickle")]))
        return name

    def remove_client(self, name: str) -> None:
        self.open = {key: None for key in self.open if key[0] != name}
        self.handle(events.ClientLeft(name))
        del self.clients[name], self.read[name]

    def submit(
        self,
        client: str,
        graph: dict[Any, Sequence[Any]],
        wants: Sequence[Any] | None = None,
        payload: bytes = b"args",
        **options: Any,
    ) -> None:
        tasks = [(key, FUNCTION, payload, tuple(dependencies)) for key, dependencies in graph.items()]
        for key in graph if wants is None else wants:
            self.clients[client][key] = "pending"
        self.handle(events.TasksSubmitted(client, tasks, wants, options))

    def release(self, client: str, *keys: Any) -> None:
        for key in keys:
            self.clients[client].pop(key, None)
        self.handle(events.KeysReleased(client, keys))

    def scatter(self, client: str, key: Any, host: str, inline: bytes | None = None, *, chosen: bool = False) -> bytes:
        object_id = self.new_object()
        self.values[object_id] = object_id
        nbytes = SMALL if inline is not None else LARGE
        self.nbytes[object_id] = nbytes
        (self.stores if host in self.state.hosts else self.away)[host].add(object_id)
        self.clients[client][key] = "pending"
        self.handle(events.ObjectsScattered(client, [(key, object_id, nbytes, "bytes", host, inline)], chosen))
        return object_id

    def request(self, client: str, number: int, asked: tuple[str, dict[str, Any]]) -> None:
        """A client asks for something; ``asked`` is a `Request` of the protocol with its arguments."""
        assert (client, number) not in self.open
        if asked[0] not in QUIET:
            self.open[client, number] = None
        self.handle(events.Requested(client, number, *asked))

    def tell(self, client: str, asked: tuple[str, dict[str, Any]]) -> None:
        """A client says something that has no answer unless it is refused."""
        assert asked[0] in QUIET
        self.request(client, QUIETLY, asked)

    def new_number(self) -> int:
        """A number for a request that none has had."""
        return next(self._ids)

    def answer_of(self, client: str, number: int) -> to_do.Reply | None:
        """What a request was answered, if it was."""
        return next((reply for reply in self.replies if reply[:2] == (client, number)), None)

    def report(self, host: str, **report: Any) -> None:
        """A host says how it is."""
        self.reports = [other for other in self.reports if other != host]
        self.handle(events.HostReported(host, report))

    def publish(
        self, client: str, number: int, name: str, keys: Sequence[Any], *, data: bytes = b"data", override: bool = False
    ) -> None:
        self.request(client, number, requests.PUBLISH(datasets=[(name, data, list(keys), {})], override=override))

    def unpublish(self, client: str, number: int, name: str) -> None:
        self.request(client, number, requests.UNPUBLISH(name=name))

    def get_dataset(self, client: str, number: int, name: str) -> None:
        self.request(client, number, requests.GET_DATASET(name=name))

    def new_object(self) -> bytes:
        return next(self._ids).to_bytes(16, "big")

    # -- workers

    @property
    def running(self) -> dict[Any, str]:
        """The keys that workers have, and where; those that they were told to drop count too."""
        return {entry[0]: worker for worker, runs in self.runs.items() for entry in runs.values()}

    @property
    def startable(self) -> list[Any]:
        """Those of them that wait for no other run, nor for word of what was revoked."""
        return [entry[0] for _, entry in self._startable()]

    def startable_entry(self, key: Any) -> tuple[str, to_do.RunEntry]:
        """The first of these that is of a key, and its worker."""
        return next((worker, entry) for worker, entry in self._startable() if entry[0] == key)

    def _startable(self) -> Iterator[tuple[str, to_do.RunEntry]]:
        waiting = {instruction.peer for instruction in self.told}
        for worker, runs in self.runs.items():
            for entry in runs.values():
                if (
                    entry[1] not in self.blocked
                    and not any(d[1] in runs for d in entry[4])
                    and (worker not in waiting or entry[1] in self.begun)
                ):
                    yield worker, entry

    # -- tasks that submit tasks

    def submit_in(self, parent: Any, graph: dict[Any, Sequence[Any]], **options: Any) -> str:
        """A task that runs submits others; the client that it does that by."""
        worker, entry = self.entry(parent)
        client = id_of_tasks(worker)
        if client not in self.state.clients:
            self.clients[client], self.read[client] = {}, {}
            self.handle(events.ClientJoined(client, "tasks", worker))
            self.handle(events.FunctionsSent(client, [(FUNCTION, b"pickle")]))
        self.submit(client, graph, parent=entry[1], **options)
        return client

    def block(self, key: Any) -> None:
        """A task waits for others, and its worker says so."""
        worker, entry = self.startable_entry(key)
        self.begun.add(entry[1])
        self.blocked.add(entry[1])
        self.handle(events.RunsBlocked(worker, [entry[1]]))

    def reclaim(self, key: Any) -> bool:
        """The wait of a task is over, and it wants its resources back; whether it has them."""
        worker, entry = self.entry(key)
        self.granted.discard(entry[1])
        self.handle(events.ResourcesReclaimed(worker, [entry[1]]))
        return entry[1] in self.granted

    def unblock(self, key: Any) -> None:
        """A task goes on."""
        worker, entry = self.entry(key)
        assert entry[1] not in self.holding or entry[1] in self.granted
        self.granted.discard(entry[1])
        self.blocked.discard(entry[1])
        self.handle(events.RunsReturned(worker, [entry[1]]))

    def begin(self, key: Any) -> None:
        """The worker writes into its ledger that it has begun this, and says so if it is to."""
        worker, entry = self.startable_entry(key)
        self.begun.add(entry[1])
        if entry[1] in self.timed:
            self.timed.discard(entry[1])
            self.handle(events.RunsBegun(worker, [entry[1]]))

    def see(self, worker: str, condition: str, seconds: float = 0.0) -> None:
        """The worker's node says what it is doing."""
        host = worker.rpartition("/")[0]
        vitals = {"condition": condition, "seconds": seconds}
        self.handle(events.HostReported(host, {"workers": {worker: vitals}}))

    def answer_revocations(self) -> None:
        """Nodes revoke the runs that they were asked for and that have not begun."""
        asked, self.asked = self.asked, []
        for host, worker, incarnation, run_ids in asked:
            runs = self.runs.get(worker, {})
            begun = [run_id for run_id in run_ids if run_id in self.begun or run_id not in runs]
            revoked = [run_id for run_id in run_ids if run_id not in begun]
            for run_id in revoked:
                del runs[run_id]
            number = next(self._ids) if revoked else 0
            self.handle(events.RunsRevoked(host, worker, incarnation, number, revoked, begun))

    def answer_kills(self) -> list[str]:
        """Nodes end the workers that are at what they are to end, and revoke the rest; returns those that are gone."""
        killing, self.killing = self.killing, []
        gone = []
        for host, worker, incarnation, run_ids, _ in killing:
            if worker not in self.runs:
                continue
            if any(run_id in self.runs[worker] and run_id in self.begun for run_id in run_ids):
                self.remove_worker(worker, [], asked=True)
                gone.append(worker)
            else:
                self.asked.append(to_do.RevokeRuns(host, worker, incarnation, run_ids))
        self.answer_revocations()
        return gone

    def confirm_revocations(self) -> None:
        """Workers confirm what they were told of."""
        told, self.told = self.told, []
        for worker, number, run_ids in told:
            if worker in self.runs:
                self.handle(events.RevocationConfirmed(worker, number))
                for run_id in run_ids:
                    self._miss_those_behind(worker, run_id)

    def entry(self, key: Any) -> tuple[str, to_do.RunEntry]:
        return next((w, e) for w, runs in self.runs.items() for e in runs.values() if e[0] == key)

    def finish(
        self,
        key: Any,
        *,
        nbytes: int = LARGE,
        inline: bytes | None = None,
        seconds: float = 0.001,
        inside: Sequence[Any] = (),
    ) -> bytes:
        """A run has a result, with futures of keys inside; its object."""
        worker, entry = self.startable_entry(key)
        if inside:
            self.handle(events.FuturesInside(worker, [(entry[1], inside)]))
        object_id = self.new_object()
        read = [self.values[d[1]] if isinstance(d[1], bytes) else self._results[d[1]] for d in entry[4]]
        self.values[object_id] = self._results[entry[1]] = value_of(entry[3], read)
        del self.runs[worker][entry[1]]
        self.nbytes[object_id] = nbytes
        self.stores[worker.rpartition("/")[0]].add(object_id)
        result = (entry[6], entry[1], object_id, nbytes, inline, "bytes", seconds)
        self.handle(events.TasksFinished(worker, [result]))
        return object_id

    def err(self, key: Any, text: str = "it failed", inside: Sequence[Any] = ()) -> None:
        worker, entry = self.startable_entry(key)
        if inside:
            self.handle(events.FuturesInside(worker, [(entry[1], inside)]))
        del self.runs[worker][entry[1]]
        self.handle(events.TasksErred(worker, [(entry[6], entry[1], b"exception", text, 0.001)]))
        self._miss_those_behind(worker, entry[1])

    def reschedule(self, key: Any) -> str:
        """A run ends with the wish for another one; where it was."""
        worker, entry = self.startable_entry(key)
        del self.runs[worker][entry[1]]
        self.handle(events.RunsRescheduled(worker, [(entry[6], entry[1])]))
        self._miss_those_behind(worker, entry[1])
        return worker

    def miss(self, key: Any, position: int = 0) -> None:
        """The worker can't read a dependency."""
        worker, entry = self.startable_entry(key)
        dependency_key, object_id, _, _ = entry[4][position]
        if not isinstance(object_id, bytes):
            object_id = b""  # a result that the worker does not remember
        del self.runs[worker][entry[1]]
        self.handle(events.DependenciesMissing(worker, [(entry[6], entry[1], dependency_key, object_id)]))
        self._miss_those_behind(worker, entry[1])

    def _miss_those_behind(self, worker: str, run_id: int) -> None:
        """A run has ended without a result: the worker says so of those that are lined up behind it."""
        for behind in list(self.runs[worker].values()):
            keys = [dependency[0] for dependency in behind[4] if dependency[1] == run_id]
            if keys and self.runs[worker].pop(behind[1], None):
                self.handle(events.DependenciesMissing(worker, [(behind[6], behind[1], keys[0], b"")]))
                self._miss_those_behind(worker, behind[1])

    def copy(self, key: Any, host: str) -> None:
        """The host's node fetched the key's object."""
        object_id = self.state.tasks[key].object_id
        assert object_id is not None
        self.stores[host].add(object_id)
        self.handle(events.ObjectsFound(host, [object_id]))

    def bring_copies(self, *, reason: str | None = None) -> int:
        """Hosts bring what they were told to bring, or can't, for a reason; how much that was."""
        copying, self.copying = self.copying, []
        for host, object_id in copying:
            if host not in self.state.hosts:
                continue
            is_there = object_id in self.in_files or any(object_id in store for store in self.stores.values())
            if reason is None and is_there:
                self.stores[host].add(object_id)
                self.handle(events.ObjectsFound(host, [object_id]))
            else:
                self.handle(events.CopiesFailed(host, [(object_id, reason or "nobody has it")]))
        return len(copying)

    def drop_all(self) -> None:
        """Workers acknowledge the runs that they were told to drop and have not begun."""
        for worker in list(self.dropped):
            told = [run_id for run_id in self.dropped[worker] if run_id not in self.begun]
            run_ids = [run_id for run_id in told if self.runs[worker].pop(run_id, None)]
            self.dropped[worker].clear()
            if run_ids:
                self.handle(events.RunsDropped(worker, run_ids))
            for run_id in run_ids:
                self._miss_those_behind(worker, run_id)

    def run_all(self, *, limit: int = 10_000) -> None:
        """Finish everything that can be finished."""
        for _ in range(limit):
            self.drop_all()
            self.answer_revocations()
            self.confirm_revocations()
            keys = self.startable
            if not keys:
                return
            self.finish(keys[0])
        raise AssertionError("work does not end")


def value_of(payload: bytes, read: Sequence[Value]) -> Value:
    """What a task makes of what it reads."""
    return blake2b(b"".join([payload, b":", *read]), digest_size=16).digest()


def pass_time(cluster: Cluster, seconds: float) -> None:
    """Let so much time pass at once."""
    cluster.now += seconds
    cluster.handle(events.TimePassed())


def pass_time_in_steps(cluster: Cluster, seconds: float) -> None:
    """Let so much time pass, and stop at each deadline on the way."""
    end = cluster.now + seconds
    while (due := cluster.state.next_deadline) is not None and due <= end:
        cluster.now = max(cluster.now, due)
        cluster.handle(events.TimePassed())
    cluster.now = end
