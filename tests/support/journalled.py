"""A cluster whose scheduler keeps a journal, dies, and is replaced by another one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from holdfast.cluster.journal import batches
from holdfast.cluster.journal.tables import Tables
from holdfast.cluster.scheduler.machine.validation import CheckedState
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do
from holdfast.cluster.scheduler.tasks.decisions import Decisions
from tests.support.scheduler_harness import QUIET, Cluster


class Journalled(Cluster):
    """A cluster whose scheduler keeps a journal, and may be replaced by another one."""

    def __init__(self, hosts: int = 0, workers: int = 0, nthreads: int = 1, **options: Any) -> None:
        self.journal: list[bytes] = []  # the payloads of its batches
        self.epoch = 1
        self.options = {"patience_seconds": 0.0, **options}
        #: Every request that ever was, and when.
        self.asked_for: dict[tuple[str, int], tuple[float, tuple[str, dict[str, Any]]]] = {}
        self.incarnations: dict[str, int | None] = {}
        self.actors: dict[str, dict[int, str]] = {}  # what workers have, by number
        self.calls: dict[str, list[tuple[Any, ...]]] = {}  # what they were sent and have not answered
        self.taken: dict[tuple[str, int, str], int] = {}  # the highest number of a call, by worker, actor and client
        self.said_calls: dict[tuple[str, int], tuple[int, tuple[Any, ...]]] = {}  # by clients: actor and keys
        self.called: list[tuple[str, tuple[Any, ...]]] = []  # what clients have heard of calls
        self.said_before: list[events.Event] = []  # by workers, which no scheduler has heard
        #: Of results that are in stores, and that no scheduler has heard of: the task, and keys of futures inside.
        self.unheard_of: dict[bytes, tuple[int, list[Any] | None]] = {}
        super().__init__(hosts, workers, nthreads, decisions=Decisions(True), **options)

    def handle(self, event: events.Event) -> list[Any]:
        if isinstance(event, events.WorkerJoined):
            self.incarnations[event.address] = event.incarnation
        try:
            return super().handle(event)
        finally:
            self._write()

    def _write(self) -> None:
        if batch := self.state.decisions.take():
            self.journal.append(batches.packer().pack(batch))

    def _apply(self, instruction: to_do.Instruction) -> None:
        super()._apply(instruction)
        if isinstance(instruction, to_do.RunCalls):
            for entry in instruction.items:
                line = instruction.peer, entry[1], entry[2]
                if entry[0] > self.taken.get(line, 0):  # else it has that already
                    self.taken[line] = entry[0]
                    self.calls.setdefault(instruction.peer, []).append(entry)
        elif isinstance(instruction, to_do.ReportCalled):
            self.called += [(instruction.peer, entry) for entry in instruction.items]
        elif isinstance(instruction, to_do.DropActors):
            for number in instruction.items:
                self.actors.get(instruction.peer, {}).pop(number, None)

    def request(self, client: str, number: int, asked: tuple[str, dict[str, Any]]) -> None:
        self.asked_for[client, number] = self.now, asked
        super().request(client, number, asked)

    def make_actor(self, key: Any, name: str = "Counter") -> int:
        """The run of a task makes an actor."""
        worker, entry = self.startable_entry(key)
        self.actors.setdefault(worker, {})[entry[1]] = name
        self.handle(events.ActorsMade(worker, [(entry[1], name)]))
        return entry[1]

    def call(self, client: str, request: int, actor: int, keys: Iterable[Any] = ()) -> None:
        """A client calls a method."""
        self.handle(self.said_call(client, request, actor, keys))

    def said_call(self, client: str, request: int, actor: int, keys: Iterable[Any] = ()) -> events.CallsSent:
        """What a client says that calls a method."""
        self.said_calls[client, request] = actor, tuple(keys)
        return events.CallsSent(client, [(request, actor, "add", b"arguments", tuple(keys))])

    def answer_calls(self) -> int:
        """Workers do what they were called for; how many calls that were."""
        count = 0
        for worker, entries in list(self.calls.items()):
            self.calls[worker] = []
            for number, *_ in entries:
                count += 1
                self.handle(events.CallsDone(worker, [(number, True, b"result", None, "", ())]))
        return count

    # -- the scheduler dies

    def die_at(self, event: events.Event, **how: Any) -> None:
        """The scheduler dies when it has handled an event and written that down, and nothing has left it."""
        self.state.handle(event, self.now)
        self._write()
        self.restart(**how)

    def die_before(self, event: events.Event, **how: Any) -> None:
        """It dies when it has handled an event, and nothing of that is in the journal: its end is torn."""
        self.state.handle(event, self.now)
        torn = batches.packer().pack(self.state.decisions.take())
        self.restart(torn=torn, **how)

    def restart(
        self,
        *,
        lost_hosts: Collection[str] = (),
        lost_workers: Collection[str] = (),
        unheard: Iterable[tuple[str, int]] = (),
        unheard_calls: Iterable[tuple[str, int]] = (),
        torn: bytes = b"",
        is_damaged: bool = False,
        now: float | None = None,
    ) -> None:
        """The scheduler dies, and another one takes its place; hosts and workers come back to it, but for these.

        Clients come back as well. They pose again what has no answer, and what was answered, but not heard. The clock
        of the other one may say something else.
        """
        before = self.state
        serials = {object_id: task.serial for object_id, task in _results(before).items()}
        small = {object_id: task.inline for object_id, task in _results(before).items() if task.inline is not None}
        workers = {worker.address: worker for worker in before.workers.values()}
        unheard = set(unheard)
        unanswered = [self._asked_again(key) for key in self.asked_for if key in self.open or key in unheard]
        self.now = self.now if now is None else now
        dropped = self._drop_what_was_told()
        self.state = CheckedState(**{**self.options, "decisions": Decisions(True)})
        self.epoch += 1
        self.state.recover(self.tables(torn), self.epoch, is_damaged=is_damaged)
        self.open.clear()
        for address in [host for host in self.stores if host in before.hosts]:
            if address in lost_hosts:
                self._forget_host(address)
                continue
            self.handle(events.HostJoined(address, before.hosts[address].description))
            objects = [
                {
                    "id": object_id,
                    "nbytes": self.nbytes.get(object_id, 10),
                    "type": "bytes",
                    "label": serials.get(object_id) or self.unheard_of.get(object_id, (None,))[0],
                    "owner": None,
                    **({"contains": self.unheard_of[object_id][1]} if object_id in self.unheard_of else {}),
                }
                for object_id in sorted(self.stores[address])
                if object_id not in small
            ]
            self.handle(events.ObjectsReported(address, objects))
            self.handle(events.HostReady(address))
        for address, worker in workers.items():
            if worker.host.address in lost_hosts or address in lost_workers:
                self.runs.pop(address, None), self.dropped.pop(address, None)
                self.actors.pop(address, None), self.calls.pop(address, None)
                continue
            name = address.rpartition(":")[2]
            self.handle(
                events.WorkerJoined(
                    address, name, worker.host.address, worker.nthreads, worker.resources, worker.incarnation
                )
            )
            for said in [said for said in self.said_before if said.worker == address]:
                self.handle(said)
            kept = [
                (serials[object_id], object_id, len(inline), "bytes", inline)
                for object_id, inline in small.items()
                if object_id in self.stores[worker.host.address]
            ]
            runs = [
                (run_id, _serial_of(before, run_id), run_id in self.begun, run_id in self.blocked)
                for run_id in self.runs[address]
            ]
            self.handle(events.RunsKept(address, runs, kept))
        self.said_before.clear()
        self.handle(events.Recovered())
        self.catch_up()
        for address, run_id in dropped:
            if address in self.runs:
                self._miss_those_behind(address, run_id)
        heard = {(client, entry[0]) for client, entry in self.called} - set(unheard_calls)
        self._rejoin(unanswered, [call for call in self.said_calls if call not in heard])

    def _asked_again(self, key: tuple[str, int]) -> events.Requested:
        at, (operation, arguments) = self.asked_for[key]
        if arguments.get("timeout") is not None:
            arguments = {**arguments, "timeout": max(0.0, arguments["timeout"] - (self.now - at))}
        return events.Requested(*key, operation, arguments)

    def _rejoin(self, unanswered: Iterable[events.Requested], calls: Collection[tuple[str, int]]) -> None:
        for client in [client for client in self.clients if client in self.state.clients]:
            keys = [key for key, state in self.clients[client].items() if state != "cancelled"]
            numbers = [number for of, number in calls if of == client]
            self.handle(events.ClientRejoined(client, keys[:1], is_last=False))
            self.handle(events.ClientRejoined(client, keys[1:], calls=numbers))
            for number in numbers:
                self.call(client, number, *self.said_calls[client, number])
        self.catch_up()
        for asked in unanswered:
            if asked.client in self.state.clients and asked.operation not in QUIET:
                self.open[asked.client, asked.request] = None
                self.handle(asked)

    def _drop_what_was_told(self) -> list[tuple[str, int]]:
        """Workers and nodes have done what they were told, and nobody hears their answers."""
        self.asked.clear()
        self.told.clear()
        self.copying.clear()
        self.errands.clear()
        self.killing.clear()
        dropped = []
        for address, run_ids in self.dropped.items():
            told = [run_id for run_id in run_ids if run_id not in self.begun and run_id in self.runs[address]]
            dropped += [(address, run_id) for run_id in told]
            for run_id in told:
                del self.runs[address][run_id]
            run_ids.clear()
        return dropped

    def tables(self, torn: bytes = b"") -> Tables:
        """What the journal says; at its end there is the beginning of one batch more."""
        number = 0
        data = batches.pack_heading(number, batches.Heading(batches.FORMAT, "cluster", self.epoch, None))
        for payload in self.journal:
            number += 1
            data += batches.prefix_of(number, payload) + payload
        if torn:
            data += (batches.prefix_of(number + 1, torn) + torn)[:-1]
        tables = Tables()
        view = memoryview(data)
        _, first = batches.read_heading(view)
        for found in batches.scan(view, first.end):
            if isinstance(found, batches.Batch):
                tables.apply(found.records)
            else:
                assert found.torn
        tables.sweep()
        return tables


def _results(state: CheckedState) -> dict[bytes, Any]:
    return {task.object_id: task for task in state.tasks.values() if task.object_id is not None} | {
        task.object_id: task for task in state.life.generations.earlier if task.object_id is not None
    }


def _serial_of(state: CheckedState, run_id: int) -> int:
    for worker in state.workers.values():
        if run_id in worker.runs:
            task = worker.runs[run_id].task
            return 0 if task is None else task.serial
    return 0
