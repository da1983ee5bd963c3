"""How a scheduler goes on where another one has ended.

It fills its tables from the journal (`rebuild`), and then waits for those that know the rest: hosts say which objects
they have, workers which runs. Until then nothing is begun, and clients are not heard. When all are back, or have had
their time (`conclude`), the machine goes on as always:

==================================================  =================================================================
a task …                                            … becomes
==================================================  =================================================================
is needed, and a host has its result                "memory"
is needed, and a worker has a run of it             "processing"
is needed, and has failed                           "erred"
is needed, else                                     "waiting" or "ready", as if it had just been submitted; data that no
                                                    host has is awaited as after the loss of a host
is needed by none                                   forgotten
==================================================  =================================================================

A task is needed if a holder holds it, or if one that is needed reads it and has no result. So what a graph has computed
is not computed again, and of what is lost no more than what something needs.

An object belongs to a task by its label, the serial with which its run was sent; what a client has brought, by its id,
which the journal has. An object that belongs to no task that is needed is deleted; not so if the journal is damaged:
then it may belong to something that the journal has lost. It is left where it is, and counted (`Recovery.unaccounted`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from holdfast.cluster.journal import records
from holdfast.cluster.journal.tables import Client as ClientEntry
from holdfast.cluster.journal.tables import Specification, Tables
from holdfast.cluster.protocol.durable_copies import DurableCopy
from holdfast.cluster.scheduler.machine.clients import Clients
from holdfast.cluster.scheduler.machine.late_contents import LateContents
from holdfast.cluster.scheduler.machine.objects import Objects
from holdfast.cluster.scheduler.machine.submit_options import NO_OPTIONS, SubmitOptions
from holdfast.cluster.scheduler.parts.actors import Actors
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.functions import Function
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.instructions import DeleteObjects, DiscardResults, DropActors, DropRuns
from holdfast.cluster.scheduler.tasks.model import Host, Task, TaskError, Worker
from holdfast.cluster.scheduler.tasks.names import Key, ObjectId, Payload
from holdfast.cluster.scheduler.tasks.origins import Origin

#: What workers say about runs.
OF_RUNS: tuple[type, ...] = (
    events.FuturesInside,
    events.TasksFinished,
    events.TasksErred,
    events.DependenciesMissing,
    events.RunsRescheduled,
    events.RunsDropped,
    events.RunsBegun,
    events.RunsBlocked,
    events.ResourcesReclaimed,
    events.RunsReturned,
    events.RevocationConfirmed,
    events.ActorsMade,
    events.CallsDone,
    events.CallsMissing,
)

#: What hosts say of objects of which it is known when all are back whose they are.
OF_HOSTS: tuple[type, ...] = (events.ObjectsFound, events.OwnerLeft)


class _Result:
    """The result of a task, as hosts and workers have said it."""

    __slots__ = ("file", "hosts", "inline", "maker", "nbytes", "object_id", "type_name")

    def __init__(self, object_id: ObjectId, nbytes: int, type_name: str, inline: Payload | None) -> None:
        self.object_id = object_id
        self.nbytes = nbytes
        self.type_name = type_name
        self.inline = inline
        self.hosts: dict[Host, None] = {}
        self.maker: Worker | None = None  # of a small one, which it may keep for itself at first
        self.file: DurableCopy | None = None  # where it lies as a file


class _Inside:
    """What the outcome of a run contains, as its worker has said it."""

    __slots__ = ("keys", "messages", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.keys: list[Key] = []
        self.messages = 0

    def add(self, keys: Iterable[Key]) -> None:
        self.keys += keys
        self.messages += 1


class Recovery:
    """A machine that is being brought back.

    Parameters
    ----------
    shared
        Its tables, which are empty.
    objects
        Knows what clients have put into stores and not told of.
    clients
        Lets those go whose workers are not back.
    actors
        Learns which actors runs have made.
    late_contents
        Learns which outcomes contain what only clients can tell of, which are heard when all are back.
    parts
        Take up what they have noted.
    tables
        What the journal says.
    is_damaged
        Whether the journal may have lost something.

    Attributes
    ----------
    expected
        The hosts that the earlier scheduler had, by address: what they had said of themselves.
    unaccounted
        The objects that belong to nothing and are left where they are.
    later
        What workers have said of the runs that they have, which is to be handled when all are back.
    cancelling
        What clients were cancelling, by client (`Orders.go_on_cancelling`).
    tasks
        The tasks of the journal, by serial.
    """

    def __init__(
        self,
        shared: Shared,
        objects: Objects,
        clients: Clients,
        actors: Actors,
        late_contents: LateContents,
        parts: Sequence[Part],
        tables: Tables,
        *,
        is_damaged: bool = False,
    ) -> None:
        self.unaccounted = 0
        self.later: list[Any] = []
        self.cancelling: dict[str, Sequence[Any]] = {}
        self._objects = objects
        self._clients = clients
        self._actors = actors
        self._late_contents = late_contents
        self._parts = parts
        self._of_workers: dict[str, tuple[Client, int | None]] = {}  # those of tasks, by the worker
        self._shared = shared
        self._life = shared.life
        self._is_damaged = is_damaged
        self.expected = {address: host.value for address, host in tables.entries.get("hosts", {}).items()}
        self._heard: set[str] = set()  # the workers that have said which runs they have; only asked for membership
        self.tasks: dict[int, Task] = {}
        self._data: dict[ObjectId, Task] = {}  # what clients have brought, by the object
        self._results: dict[Task, _Result] = {}
        self._strays: list[tuple[Host, ObjectId, str | None]] = []  # with the owner
        self._runs: list[tuple[Worker, int, Task | None, bool, bool]] = []  # with whether it has begun, and waits
        self._ended: dict[int, Task] = {}  # by the number of the run, those that workers have ended meanwhile
        self._errors: dict[Task, tuple[Worker, Payload | tuple[ObjectId, int], str]] = {}
        self._inside: dict[int, _Inside] = {}  # what the outcomes of these runs contain
        self._references: dict[ObjectId, Sequence[Key]] = {}  # what objects contain, as their hosts say
        self._made: list[tuple[Worker, int, str]] = []  # actors, with the number and the name
        self._let_go_of = tables.let_go_of
        self._forgotten_actors = [entry.value for entry in tables.forgotten.get("actors", {}).values()]
        self._rebuild(tables)

    # -- from the journal

    def _rebuild(self, tables: Tables) -> None:
        life = self._life
        life.decisions.is_kept, is_kept = False, life.decisions.is_kept  # the journal has all of this
        try:
            for digest, function in tables.entries.get("functions", {}).items():
                life.functions.table[digest] = Function(function.value)
            for serial, specification in sorted(tables.tasks.items()):
                self._create(serial, specification)
            incomplete = tables.entries_of_tasks.get("incomplete", {})
            for serial, specification in tables.tasks.items():
                missing = incomplete[serial].value if serial in incomplete else ()
                self._specify(self.tasks[serial], specification, missing)
            for id, client in tables.clients.items():
                self._enter_client(id, client)
            self._enter_errors(tables)
            for part in self._parts:
                noted = {**tables.entries.get(part.name, {}), **tables.entries_of_tasks.get(part.name, {})}
                part.recover(noted, self.tasks)
            for serial, entry in tables.entries_of_tasks.get("contents", {}).items():
                inside = [self.tasks[inner] for inner in entry.holds if inner in self.tasks]
                life.holding.contain(self.tasks[serial], inside)
            for serial, entry in tables.entries_of_tasks.get("charges", {}).items():
                task = self.tasks[serial]
                task.retries, task.failures, task.isolation, task.suspected = entry.value
            for serial, entry in tables.entries_of_tasks.get("files", {}).items():
                copy, object_id, nbytes, type_name = entry.value
                result = self._results[self.tasks[serial]] = _Result(object_id, nbytes, type_name, None)
                result.file = DurableCopy(*copy)
        finally:
            life.decisions.is_kept = is_kept
        life.last_serial = tables.last_serial
        self._shared.instructions.take()  # those that would be told are not there yet

    def _create(self, serial: int, specification: Specification) -> None:
        life = self._life
        earlier = life.generations.tasks.get(specification.key)
        if earlier is not None:
            life.generations.free_key(earlier)
        life.last_serial = serial - 1
        origin = Origin(*specification.origin)
        self.tasks[serial] = life.create(specification.key, specification.digest, origin)

    def _specify(self, task: Task, specification: Specification, missing: Sequence[Key]) -> None:
        if specification.data is not None:
            object_id, nbytes, type_name, inline = specification.data
            self._data[object_id] = task
            self._life.lost.add(task, object_id)
            if inline is not None:
                self._results[task] = _Result(object_id, nbytes, type_name, inline)
            return
        options = specification.options
        if options:
            own = (options.get("per_key") or {}).get(specification.key)
            chosen = SubmitOptions.read({**options, **own} if own else options, self._shared.placement)
            if parent := options.get("parent"):
                self._life.parents[task] = parent
        else:
            chosen = NO_OPTIONS
        chosen.give_to(task, self._life)
        dependencies = [self.tasks[serial] for serial in specification.dependencies]
        if missing:  # what these keys meant before was forgotten when the task came
            dependencies = [dependency for dependency in dependencies if dependency.key not in missing]
        self._life.specify(task, specification.digest, specification.payload, dependencies)
        self._life.incomplete.update((task, key) for key in missing)

    def _enter_client(self, id: str, noted: ClientEntry) -> None:
        client = self._shared.clients[id] = Client(id, noted.name, None, noted.about)
        if noted.worker is not None:
            address, incarnation = noted.worker
            self._of_workers[address] = client, incarnation
        for digest in noted.entries.get("functions", {}):
            client.functions[digest] = None
            self._life.functions.table[digest].clients += 1
        self._shared.replies.recover(id, noted.entries.get("replies", {}))
        self._actors.recover_called(id, noted.entries.get("called", {}))
        for cancelling in noted.entries.get("cancelling", {}).values():
            self.cancelling[id] = cancelling
        for serial in noted.holds:
            if serial in self.tasks:
                self._life.holding.hold(client, self.tasks[serial])

    def _enter_errors(self, tables: Tables) -> None:
        errors = {}
        for number, entry in tables.entries.get("errors", {}).items():
            errors[number] = error = TaskError.of(entry.value)
            error.number = number
            self._life.errors.last_number = max(self._life.errors.last_number, number)
            if error.object_id is not None:
                self._life.errors.table[error.object_id] = error
            if entry.holds:
                self._life.errors.contain(error, [self.tasks[inner] for inner in entry.holds if inner in self.tasks])
        for serial, failed in tables.entries_of_tasks.get("failed", {}).items():
            self._life.fail(self.tasks[serial], errors[failed.value])

    # -- from those that have the rest

    def reported(self, host: Host, objects: Sequence[Mapping[str, Any]]) -> None:
        """A host says what it has."""
        for description in objects:
            object_id = description["id"]
            error = self._life.errors.get(object_id)
            if error is not None:
                self._life.errors.add_copy(error, host)
                continue
            task = self._data.get(object_id) or self.tasks.get(description.get("label") or 0)
            if task is None:
                self._strays.append((host, object_id, description.get("owner")))
                continue
            inside = description.get("contains", ())
            if inside is None and task not in self._life.holding.contents:
                self._strays.append((host, object_id, None))  # nobody knows what it contains: it is made again
                continue
            if inside:
                self._references[object_id] = inside
            self._found(task, host, object_id, description["nbytes"], description.get("type") or "", None)

    def kept(
        self,
        worker: Worker,
        runs: Iterable[tuple[int, int, bool, bool]],
        results: Iterable[tuple[int, ObjectId, int, str, Payload]],
    ) -> None:
        """A worker says what it has (`events.RunsKept`); it has said before what it has ended."""
        self._heard.add(worker.address)
        client, incarnation = self._of_workers.get(worker.address, (None, None))
        if client is not None and incarnation == worker.incarnation:
            client.worker = worker
        for serial, object_id, nbytes, type_name, inline in results:
            task = self.tasks.get(serial)
            if task is None:
                self._shared.instructions.add(DiscardResults, worker.address, object_id)
            else:
                self._found(task, worker.host, object_id, nbytes, type_name, inline, worker)
        self._runs += [
            (worker, run_id, self.tasks.get(serial), is_begun, is_blocked)
            for run_id, serial, is_begun, is_blocked in runs
        ]

    def put_off(self, event: Any) -> None:
        """A host says something about objects (`OF_HOSTS`), beside what it has."""
        self.later.append(event)

    def said(self, event: Any) -> None:
        """A worker says something about its runs (`OF_RUNS`): those that the earlier scheduler has sent."""
        worker = self._shared.workers.get(event.worker)
        if worker is None:
            return
        if worker.address in self._heard or isinstance(event, events.CallsDone | events.CallsMissing):
            self.later.append(event)
        elif isinstance(event, events.TasksFinished):
            for serial, run_id, object_id, nbytes, inline, type_name, _ in event.results:
                self._finished(worker, serial, run_id, object_id, nbytes, inline, type_name)
        elif isinstance(event, events.TasksErred):
            for number, run_id, raised, text, _ in event.errors:
                task = self._task(number)
                if task is not None:
                    self._ended[run_id] = task
                    self._errors[task] = worker, raised, text
        elif isinstance(event, events.FuturesInside):
            for run_id, keys in event.runs:
                self._inside.setdefault(run_id, _Inside(worker)).add(keys)
        elif isinstance(event, events.ActorsMade):
            self._made += [(worker, number, name) for number, name in event.actors]
        # What else it has said of runs before, it says once more with those that it has.

    def _task(self, serial: Any) -> Task | None:
        return self.tasks.get(serial) if type(serial) is int else None

    def _finished(
        self,
        worker: Worker,
        serial: Any,
        run_id: int,
        object_id: ObjectId,
        nbytes: int,
        inline: Payload | None,
        type_name: str,
    ) -> None:
        task = self._task(serial)
        if task is not None:
            self._ended[run_id] = task
            self._found(task, worker.host, object_id, nbytes, type_name, inline, None if inline is None else worker)
        elif inline is not None:
            self._shared.instructions.add(DiscardResults, worker.address, object_id)
        else:
            self._strays.append((worker.host, object_id, None))

    def _found(
        self,
        task: Task,
        host: Host,
        object_id: ObjectId,
        nbytes: int,
        type_name: str,
        inline: Payload | None,
        maker: Worker | None = None,
    ) -> None:
        result = self._results.get(task)
        if result is None:
            result = self._results[task] = _Result(object_id, nbytes, type_name, inline)
        if result.object_id == object_id:
            result.hosts[host] = None
            result.inline = result.inline or inline
            result.maker = result.maker or maker
        else:  # the task was run twice
            self._strays.append((host, object_id, None))
            if maker is not None:
                self._discard(maker, object_id)

    def _discard(self, maker: Worker, object_id: ObjectId) -> None:
        """A small result that nobody wants goes from its worker, if that has it still."""
        if self._shared.workers.get(maker.address) is maker:
            self._shared.instructions.add(DiscardResults, maker.address, object_id)

    @property
    def awaited(self) -> list[str]:
        """Those that are to come back still: hosts, and the workers of hosts that have come."""
        hosts = self._shared.hosts
        found = []
        for address in self.expected:
            host = hosts.get(address)
            if host is None or not host.is_ready:
                found.append(address)
            else:
                found += [place.address for place in host.places if place.address not in self._heard]
        return found

    # -- and on

    def conclude(self) -> None:
        """All that come back are back: begin what is to be done."""
        life = self._life
        missing = [address for address in self.expected if address not in self._shared.hosts]
        for address in missing:
            life.decisions.note(records.remove("hosts", address))
        if missing:  # they may have what they were to delete
            for object_id in self._let_go_of:
                life.lost.remember(object_id)
        self._forget_those_that_left()
        needed = self._needed()
        again: list[Task] = []
        for task in needed:
            result = self._results.pop(task, None)
            if result is None:
                continue
            was_lost = task.error is not None and task.error.is_loss
            if task.state != "released" and not was_lost:
                self._strays += [(host, result.object_id, None) for host in result.hosts]
            else:
                if result.file is not None:
                    life.results.durable[task] = result.file
                hosts = iter(result.hosts)
                life.restore(task, next(hosts, None), result.object_id, result.nbytes, result.inline, result.type_name)
                task.maker = result.maker
                for host in hosts:
                    life.results.add_copy(task, host)
                if was_lost:
                    again.append(task)
        self._actors.come_back({run_id for _, run_id, *_ in self._runs})
        self._enter_contents()
        self._take_errors(needed)
        for result in self._results.values():
            self._strays += [(host, result.object_id, None) for host in result.hosts]
            if result.maker is not None:
                self._discard(result.maker, result.object_id)
        for task in needed:
            if missing and task.state == "released":
                life.lost.may_be_found(task)
            if task.state == "released":  # and all that it needs is active: the runs of these are looked for next
                life.activate(task)
        after = self.later
        self.later = []
        self._take_up_runs()
        self.later += after
        self._take_up_actors()
        for address, (client, _) in self._of_workers.items():
            worker = self._shared.workers.get(address)
            if worker is None or client.worker is not worker:
                self._clients.remove(client.id)
        for part in self._parts:
            part.recovered()
        life.run_again(again)
        life.settle(self.tasks.values())
        self._see_to_strays()

    def _forget_those_that_left(self) -> None:
        """What hosts have said that are gone again, and workers."""
        hosts = self._shared.hosts
        for task, result in list(self._results.items()):
            result.hosts = {host: None for host in result.hosts if hosts.get(host.address) is host}
            if not (result.hosts or result.file is not None or result.inline is not None):
                del self._results[task]
        self._strays = [stray for stray in self._strays if hosts.get(stray[0].address) is stray[0]]
        for task, (worker, *_) in list(self._errors.items()):
            if not self._is_there(worker):
                del self._errors[task]
        for run_id, inside in list(self._inside.items()):
            if self._is_there(inside.worker) or self._knows_all(inside):
                continue
            # What it contains went with the worker: it is made again.
            del self._inside[run_id]
            ended = self._ended.pop(run_id, None)
            if ended is not None and ended in self._results:
                result = self._results.pop(ended)
                self._strays += [(host, result.object_id, None) for host in result.hosts]

    def _is_there(self, worker: Worker) -> bool:
        return self._shared.workers.get(worker.address) is worker

    def _needed(self) -> list[Task]:
        """The tasks that are needed; each after those that it needs."""
        found: dict[Task, None] = {}
        for root in self.tasks.values():
            if not root.holders:
                continue
            stack = [(root, False)]
            while stack:
                task, is_left = stack.pop()
                if is_left:
                    found[task] = None
                elif task not in found:
                    stack.append((task, True))
                    if task not in self._results and task.state == "released":
                        stack += [(dependency, False) for dependency in task.dependencies if dependency not in found]
        return list(found)

    def _enter_contents(self) -> None:
        """What objects contain of which the earlier scheduler had not heard."""
        life = self._life
        for object_id, keys in self._references.items():
            task = life.results.get(object_id)
            if task is not None and task not in life.holding.contents:
                life.holding.contain(task, self._named(keys))
        for run_id, inside in self._inside.items():
            task = self._ended.get(run_id)
            if task is None:
                continue
            if task.state == "memory":
                life.holding.contain_now(task, self._named(inside.keys))
            if not self._knows_all(inside):
                self._late_contents.expect(run_id, task, inside.messages)

    def _knows_all(self, inside: _Inside) -> bool:
        """Whether all is known that an outcome contains. What is not may have been submitted just before."""
        return all(key in self._life.generations.tasks for key in inside.keys)

    def _named(self, keys: Iterable[Key]) -> list[Task]:
        tasks = self._life.generations.tasks
        return [task for key in keys if (task := tasks.get(key)) is not None]

    def _take_errors(self, needed: Sequence[Task]) -> None:
        """What has failed while there was no scheduler."""
        life = self._life
        inside = {self._ended[run_id]: inside.keys for run_id, inside in self._inside.items() if run_id in self._ended}
        for task in needed:
            if task not in self._errors or task.state != "released":
                continue
            worker, raised, text = self._errors.pop(task)
            if task.retries:
                life.retry_run(task)
                if isinstance(raised, tuple):
                    self._strays.append((worker.host, raised[0], None))
                continue
            if isinstance(raised, tuple):
                error = life.errors.add(task.key, worker.host, *raised, text)
            else:
                error = TaskError(task.key, raised, text)
            if task in inside:
                life.errors.contain(error, self._named(inside[task]))
            life.fail(task, error)

    def _take_up_runs(self) -> None:
        for worker, run_id, task, is_begun, is_blocked in self._runs:
            if self._shared.workers.get(worker.address) is not worker:
                continue
            if task is None or task.state not in ("ready", "waiting"):
                self._shared.instructions.add(DropRuns, worker.address, run_id)
                continue
            self._life.take_up(task, worker, run_id)
            if is_begun:
                self.later.append(events.RunsBegun(worker.address, [run_id]))
            if is_blocked:
                self.later.append(events.RunsBlocked(worker.address, [run_id]))

    def _take_up_actors(self) -> None:
        """Those of which the earlier scheduler had not heard; workers may not have heard that others are to go."""
        for number, _, _, address, incarnation, _ in self._forgotten_actors:
            worker = self._shared.workers.get(address)
            if worker is not None and worker.incarnation == incarnation:
                self._shared.instructions.add(DropActors, address, number)
        for worker, number, name in self._made:
            run = worker.runs.get(number)
            task = self._ended.get(number) if run is None else run.task
            if self._shared.workers.get(worker.address) is not worker or self._actors.knows(number):
                continue
            if task is None or task.state not in ("memory", "processing"):
                self._shared.instructions.add(DropActors, worker.address, number)
            else:
                self._actors.made(worker, number, name, task)

    def _see_to_strays(self) -> None:
        if self._is_damaged:
            self.unaccounted += len(self._strays)
            return
        for host, object_id, owner in self._strays:
            if owner is not None and owner in self._shared.clients and object_id not in self._let_go_of:
                self._objects.leave_unclaimed(owner, host, [object_id])
            elif self._life.results.get(object_id) is None and self._life.errors.get(object_id) is None:
                self._shared.instructions.add(DeleteObjects, host.address, object_id)
