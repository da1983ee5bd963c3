"""Actors: objects that live on one worker, and the calls of their methods.

Theory of operation
-------------------
An actor is made by a run of a task, whose result is a *handle*: small, and read like any result. The number of the run
names the actor. The actor lives as long as the result of its task is needed: a client that has a handle or a future
holds the task's key, and so does all else that holds keys. When the task is let go of, the worker is told to drop the
actor, after its last call.

Calls pass through here, from the client to the worker that has the actor, and what they come to passes back. The order
of the calls is that of the connections. Both connections are taken up again when they break (`comm/resume.py`), so each
call reaches its actor once. What is kept of a call is whose it is, and not its arguments.

A call whose arguments are futures waits here until these have results, and later calls of its client to this actor wait
behind it, in a *line*. The calls of other clients pass. A call holds what it depends on until it is done. If the worker
can't read a dependency, it says so, and begins no later call of that client to this actor before the call has come once
more; so the order stays.

====================================  ================================================================================
what happens                          what becomes of the calls
====================================  ================================================================================
the worker is gone                    all of them fail with an `ActorLostError`, and so does the actor's task: it is
                                      not run again, since its state is lost. So do later calls, as long as a handle
                                      is there
the client is gone                    those that have not begun never do
a dependency has failed               the call fails with that error
no handle is left                     those that are under way come to their end, and then the actor is dropped
another scheduler takes over          each is said again by its client, and goes to the worker with the number that it
                                      had: the worker takes each number once. What calls have given is noted, and told
                                      again
====================================  ================================================================================

Invariants
----------
1. An actor is what its task's result contains (`Holding.contents`), unless the task was let go of: then it is *ending*,
   and has calls.
2. Its worker is there, or else the actor is *lost*, and has no calls.
3. ``worker.actors`` counts those that live there.
4. A call in a line was not sent. The first call of a line waits for something.
5. The client of each call is there, and has at most `MAX_CALLS` calls to one actor.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

from holdfast.cluster.errors import ActorLostError, CancelledError, ProtocolError
from holdfast.cluster.journal import records
from holdfast.cluster.journal.tables import Held
from holdfast.cluster.protocol.limits import MAX_CALLS
from holdfast.cluster.scheduler.parts.actor_model import Actor, Arguments, Call
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.holders import Client, Contents
from holdfast.cluster.scheduler.tasks.instructions import (
    CalledEntry,
    DeleteObjects,
    DropActors,
    DropCalls,
    ReportCalled,
    RunCalls,
)
from holdfast.cluster.scheduler.tasks.model import Holder, Host, Task, TaskError, Worker
from holdfast.cluster.scheduler.tasks.names import Key, ObjectId, Payload
from holdfast.cluster.scheduler.tasks.reports import dependency_entry, place_of
from holdfast.cluster.scheduler.tasks.stored_errors import pickled, task_error

#: So many calls of a client are known at most that have been answered.
MAX_CALLED = 1_000

_Stored = tuple[ObjectId, int, str]
#: Of a stored result: its key, object, bytes and hosts.
_Place = tuple[Key, ObjectId, int, Sequence[str]]


class Actors(Part):
    """Knows the actors, and passes calls on.

    Parameters
    ----------
    shared
        What all parts work with.
    could_not_read
        ``could_not_read(task, object_id)``: an object could not be read though it should be there; gives why its reader
        should give up, if it should.
    """

    name = "actors"

    def __init__(self, shared: Shared, could_not_read: Callable[[Task, ObjectId], TaskError | None]) -> None:
        super().__init__(shared)
        self.events = {
            events.ActorsMade: self._actors_made,
            events.CallsSent: self._calls_sent,
            events.CallsDone: self._calls_done,
            events.CallsMissing: self._calls_missing,
        }
        self._could_not_read = could_not_read
        self._actors: dict[int, Actor] = {}
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)
        self._to_look_at: dict[Call, None] = {}
        self._unposed: dict[tuple[str, int], Call] = {}  # by client and request
        self._called: dict[str, dict[int, CalledEntry]] = {}  # by client and request, what was noted
        self._is_recovering = False  # the workers are not back

    def holders(self) -> Iterable[Holder]:
        return [call.arguments for call in self._calls.values() if call.arguments is not None]

    def of(self, worker: Worker) -> list[Actor]:
        """The actors that live on a worker."""
        return [actor for actor in self._actors.values() if actor.worker is worker and not actor.lost]

    def unanswered(self, client: str, requests: Iterable[int]) -> list[int]:
        """Those of a client's calls that are not known here: the scheduler has failed before it took them."""
        known = {call.request for call in self._calls.values() if call.client == client}
        return [request for request in requests if request not in known]

    # -- actors come and go

    def _actors_made(self, event: events.ActorsMade) -> None:
        worker = self.shared.workers.get(event.worker)
        if worker is None:
            return
        for number, name in event.actors:
            run = worker.runs.get(number)
            task = None if run is None else run.task
            if run is None or task is None or number in self._actors:
                # The task is not needed any more, or is to run elsewhere: then that one's actor counts.
                if run is not None:
                    run.late = None
                self.shared.instructions.add(DropActors, worker.address, number)
            else:
                self.made(worker, number, name, task)

    def made(self, worker: Worker, number: int, name: str, task: Task) -> None:
        """A run of a task has made an actor."""
        contents = self.shared.life.holding.contents
        before = contents.get(task)
        if isinstance(before, Actor):
            self._replace(before)
        actor = self._actors[number] = contents[task] = Actor(self, number, name, task, worker)
        worker.actors += 1
        if before is not None:
            for held in list(before.holds):
                self.shared.life.holding.hold(actor, held)
            self.shared.life.holding.let_go(before)
        if type(before) is Contents:
            self.shared.life.decisions.note(records.remove_of("contents", task.serial))
        self._note(actor)

    def knows(self, number: int) -> bool:
        """Whether there is an actor of this number."""
        return number in self._actors

    def _replace(self, actor: Actor) -> None:
        """An actor whose task makes another one: its handle is no result of the task."""
        run = actor.worker.runs.get(actor.number)
        if run is not None:
            run.late = None
        if not actor.lost:
            self._fail_all(actor, f"{actor.title} was made anew")
            self._drop(actor)
        del self._actors[actor.number]

    def let_go(self, actor: Actor) -> None:
        """The task of an actor is not needed any more."""
        if actor.lost:
            del self._actors[actor.number]
            return
        actor.is_ending = True
        self._end_if_done(actor)

    def _end_if_done(self, actor: Actor) -> None:
        if not actor.calls:
            if not actor.lost:
                self._drop(actor)
            del self._actors[actor.number]

    def _drop(self, actor: Actor) -> None:
        actor.worker.actors -= 1
        self.shared.instructions.add(DropActors, actor.worker.address, actor.number)

    def worker_joined(self, worker: Worker) -> None:
        for actor in self._actors.values():
            before = actor.worker
            if actor.lost and before.address == worker.address and before.incarnation == worker.incarnation:
                self.shared.instructions.add(DropActors, worker.address, actor.number)  # it was away for too long

    def worker_left(self, worker: Worker) -> None:
        for actor in self.of(worker):
            task = actor.task
            text = f"{actor.title} is lost with its worker {worker.name!r} at {worker.address} ({worker.reason})"
            actor.lost = text
            worker.actors -= 1
            if not actor.is_ending:
                self._note(actor)
            self._fail_all(actor, text)
            if actor.is_ending:
                continue  # it was forgotten with its last call
            if task.state == "memory":
                self.shared.life.give_up_result(task, task_error(task.key, ActorLostError(text)))
            elif task.state != "erred":  # its result was not there yet: the run has gone, and there may be another one
                self._note_gone(actor)
                del self._actors[actor.number]
                del self.shared.life.holding.contents[task]
                self.shared.life.holding.let_go(actor)

    def _note(self, actor: Actor) -> None:
        where = actor.worker.name, actor.worker.address, actor.worker.incarnation
        value = actor.number, actor.name, *where, actor.lost
        held = [task.serial for task in actor.holds]
        self.shared.life.decisions.note(records.put_of(self.name, actor.task.serial, value, held))

    def _note_gone(self, actor: Actor) -> None:
        self.shared.life.decisions.note(records.remove_of(self.name, actor.task.serial))

    def client_left(self, client: Client) -> None:
        self._called.pop(client.id, None)
        for actor in list(self._actors.values()):
            calls = actor.calls.get(client.id)
            if calls is None:
                continue
            line = actor.lines.get(client.id, ())
            for call in list(calls.values()):
                if call not in line:
                    self.shared.instructions.add(DropCalls, actor.worker.address, call.number)
                self._forget(call)

    # -- calls

    def _calls_sent(self, event: events.CallsSent) -> None:
        client = self.shared.clients[event.client]
        for request, number, method, payload, keys in event.calls:
            if self._was_posed(client, request, payload):
                continue
            actor = self._actors.get(number)
            if actor is None or actor.lost or actor.is_ending:
                text = actor.lost if actor is not None else ""
                text = text or f"there is no actor {number} any more: all handles of it were let go of"
                self._tell_of_failure(client.id, request, task_error("", ActorLostError(text)))
                continue
            calls = actor.calls.get(client.id)
            if calls is None:
                calls = actor.calls[client.id] = {}
            elif len(calls) >= MAX_CALLS:
                raise ProtocolError(f"call: {MAX_CALLS:,} calls of this client to {actor.title} are under way already")
            call = Call(next(self._numbers), actor, client.id, request, method)
            calls[call.number] = self._calls[call.number] = call
            if keys and not self._hold(call, keys):
                continue
            self._note_call(call)
            self._pass_on(call, payload)

    def _pass_on(self, call: Call, payload: Payload | None) -> None:
        """Send a call, or have it stand in line."""
        actor = call.actor
        if call.arguments is None and call.client not in actor.lines:
            entry = (call.number, actor.number, call.client, call.method, payload, ())
            self.shared.instructions.add(RunCalls, actor.worker.address, entry)
            return
        call.payload = payload
        actor.lines.setdefault(call.client, deque()).append(call)
        self._advance(actor, call.client)

    def _note_call(self, call: Call) -> None:
        key = "call", call.client, call.request
        if self.shared.life.decisions.is_kept:
            held = [call.actor.task, *(() if call.arguments is None else call.arguments.tasks)]
            value = call.number, call.actor.number, call.method
            self.shared.life.decisions.note(records.put(self.name, key, value, [task.serial for task in held]))

    def _was_posed(self, client: Client, request: int, payload: Payload | None) -> bool:
        """Whether an earlier scheduler has taken a call. Then it goes on from there."""
        if not self._called and not self._unposed:
            return False
        called = self._called.get(client.id, {}).get(request)
        call = self._unposed.pop((client.id, request), None)
        if called is not None:
            keys = list(called[5]) if called[3] is None else [*called[5], called[3][0]]
            self.shared.life.want(client, keys)
            self.shared.instructions.add(ReportCalled, client.id, called)
        elif call is not None:
            call.is_posed = True
            self._pass_on(call, payload)
        return called is not None or call is not None

    def rejoined(self, client: Client, requests: Iterable[int]) -> None:
        """A client that is back has these calls without an answer; it knows those of all others."""
        awaited = set(requests)
        called = self._called.get(client.id, {})
        for request in [request for request in called if request not in awaited]:
            self._forget_called(client.id, request)
        for (id, request), call in list(self._unposed.items()):
            if id == client.id and request not in awaited:
                self._forget(call)

    def heard(self, client: str, requests: Iterable[int]) -> None:
        """A client knows what these calls have given."""
        called = self._called.get(client, {})
        for request in [request for request in requests if request in called]:
            self._forget_called(client, request)

    def keys_given(self, client: Client) -> set[Key]:
        """The keys of what was given for calls of a client, who may not have heard of it."""
        found: set[Key] = set()
        for called in self._called.get(client.id, {}).values():
            found.update(called[5])
            if called[3] is not None:
                found.add(called[3][0])
        return found

    def _hold(self, call: Call, keys: Sequence[Key]) -> bool:
        """Have a call hold what it depends on. False, and the call has failed, if something of that is unknown."""
        life = self.shared.life
        tasks = []
        for key in dict.fromkeys(keys):
            task = life.generations.tasks.get(key)
            if task is None:
                text = f"{call.actor.name}.{call.method} depends on {key!r:.200}, which was cancelled or released"
                self._fail(call, task_error("", CancelledError(text)))
                return False
            tasks.append(task)
        arguments = call.arguments = Arguments(call, tuple(tasks))
        for task in tasks:
            if task.state == "erred":
                life.renew(task)
            life.holding.hold(arguments, task)
            if task.state == "released":
                life.activate(task)
        return True

    def look_at(self, call: Call) -> None:
        """Something that a call depends on has a result, or has failed: see to it when the event is handled."""
        if call.client in call.actor.lines:
            self._to_look_at[call] = None
            self.ask_to_follow_up()

    def follow_up(self) -> None:
        while self._to_look_at:
            call = next(iter(self._to_look_at))
            del self._to_look_at[call]
            if call.number in self._calls:
                self._advance(call.actor, call.client)

    def _advance(self, actor: Actor, client: str) -> None:
        """Send those of a line that wait for nothing, up to the first that does."""
        while line := actor.lines.get(client):
            call = line[0]
            tasks = () if call.arguments is None else call.arguments.tasks
            failed = next((task.error for task in tasks if task.error is not None), None)
            if failed is not None:
                self._fail(call, failed)
                continue
            if any(task.state != "memory" for task in tasks):
                return
            self._leave_line(call)
            durable = self.shared.life.results.durable
            dependencies = [dependency_entry(task, actor.worker.host, durable) for task in tasks]
            entry = (call.number, actor.number, client, call.method, call.payload, dependencies)
            self.shared.instructions.add(RunCalls, actor.worker.address, entry)

    def _leave_line(self, call: Call) -> None:
        lines = call.actor.lines
        line = lines.get(call.client)
        if line is not None and call in line:
            line.remove(call)
            if not line:
                del lines[call.client]

    # -- what calls come to

    def _calls_done(self, event: events.CallsDone) -> None:
        worker = self.shared.workers.get(event.worker)
        if worker is None:
            return
        for number, ok, value, stored, text, keys in event.results:
            call = self._calls.get(number)
            if call is None or call.actor.worker is not worker:
                if stored is not None:
                    self.shared.instructions.add(DeleteObjects, worker.host.address, stored[0])
                continue
            place = None if stored is None else self._keep(call, stored)
            if keys:
                self._contains(call, place, keys)
            self._tell(call.client, (call.request, ok, value, place, text, keys))
            self._forget(call)

    def _contains(self, call: Call, place: _Place | None, keys: Sequence[Key]) -> None:
        """There are futures in what a call has given: its client holds them, and so does the object, if it is one."""
        life = self.shared.life
        life.want(self.shared.clients[call.client], keys)
        if place is not None:
            inside = [task for key in keys if (task := life.generations.tasks.get(key)) is not None]
            life.holding.contain(life.generations.tasks[place[0]], inside)

    def _keep(self, call: Call, stored: _Stored) -> _Place:
        """What a call has given is data that its client holds from now on, like data that it has stored itself."""
        object_id, nbytes, type_name = stored
        life, client = self.shared.life, self.shared.clients[call.client]
        host = call.actor.worker.host
        key = f"{call.actor.name}.{call.method}-{object_id.hex()}"
        if key in life.generations.tasks or life.results.get(object_id) is not None:
            raise ProtocolError("calls-done: an object that is there already")
        task = life.create(key, None, client.origin())
        life.restore(task, host, object_id, nbytes, None, type_name)
        life.brought(task, object_id, nbytes, type_name, None)
        life.holding.hold(client, task)
        return (key, object_id, nbytes, (host.address,))

    def _calls_missing(self, event: events.CallsMissing) -> None:
        for number, key, object_id in event.calls:
            call = self._calls.get(number)
            if call is None or call.arguments is None or call.actor.worker.address != event.worker:
                continue
            actor = call.actor
            dependency = next((task for task in call.arguments.tasks if task.key == key), None)
            error = None if dependency is None else self._could_not_read(dependency, object_id)
            if error is not None:
                self.shared.instructions.add(DropCalls, actor.worker.address, number)
                self._fail(call, error)
            else:
                actor.lines.setdefault(call.client, deque()).appendleft(call)
                self._advance(actor, call.client)

    def _fail_all(self, actor: Actor, text: str) -> None:
        error = task_error("", ActorLostError(text))
        for calls in list(actor.calls.values()):
            for call in list(calls.values()):
                self._fail(call, error)

    def _fail(self, call: Call, error: TaskError) -> None:
        self._tell_of_failure(call.client, call.request, error)
        self._forget(call)

    def _tell_of_failure(self, client: str, request: int, error: TaskError) -> None:
        blob = pickled(error)
        if blob is None:
            self._tell(client, (request, False, None, (None, *place_of(error)), error.text, ()))
        else:
            self._tell(client, (request, False, blob, None, error.text, ()))

    def _tell(self, client: str, entry: CalledEntry) -> None:
        self.shared.instructions.add(ReportCalled, client, entry)
        decisions = self.shared.life.decisions
        if decisions.is_kept:
            of_client = self._called.setdefault(client, {})
            of_client[entry[0]] = entry
            decisions.note(records.put_for("called", client, entry[0], entry))
            if len(of_client) > MAX_CALLED:
                self._forget_called(client, next(iter(of_client)))

    def _forget_called(self, client: str, request: int) -> None:
        of_client = self._called[client]
        del of_client[request]
        if not of_client:
            del self._called[client]
        self.shared.life.decisions.note(records.remove_for("called", client, request))

    def _forget(self, call: Call) -> None:
        """A call is over."""
        del self._calls[call.number]
        if not call.is_posed:
            del self._unposed[call.client, call.request]
        self.note_gone(("call", call.client, call.request))
        actor = call.actor
        calls = actor.calls[call.client]
        del calls[call.number]
        if not calls:
            del actor.calls[call.client]
        if actor.lines:
            self._leave_line(call)
        if call.arguments is not None:
            self.shared.life.holding.let_go(call.arguments)
        if actor.is_ending:
            self._end_if_done(actor)

    # -- the rest

    def number_from(self, number: int) -> None:
        """Calls have higher numbers than this from now on."""
        self._numbers = itertools.count(number + 1)

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        self._is_recovering = True
        life = self.shared.life
        contents = life.holding.contents
        for serial, entry in entries.items():
            if type(serial) is int:
                number, name, worker_name, address, incarnation, lost = entry.value
                task = tasks[serial]
                worker = _absent(worker_name, address, incarnation)
                actor = self._actors[number] = contents[task] = Actor(self, number, name, task, worker)
                actor.lost = lost
                for inner in entry.holds:
                    life.holding.hold(actor, tasks[inner])
        for key, entry in entries.items():
            if type(key) is tuple:
                _, client, request = key
                call_number, actor_number, method = entry.value
                actor = self._actors[actor_number]
                call = self._calls[call_number] = Call(call_number, actor, client, request, method)
                call.is_posed = False
                self._unposed[client, request] = call
                actor.calls.setdefault(client, {})[call_number] = call
                _, *arguments = entry.holds
                if arguments:
                    held = tuple([tasks[serial] for serial in arguments])
                    call.arguments = Arguments(call, held)
                    for task in held:
                        life.holding.hold(call.arguments, task)

    def recover_called(self, client: str, called: Mapping[int, CalledEntry]) -> None:
        """Take up what calls of a client have given."""
        if called:
            self._called[client] = dict(called)

    def come_back(self, runs: Container[int]) -> None:
        """Those whose workers are back live on; the others are lost, and their tasks are not run again.

        To be called when tasks have their results, and nothing else is begun. These runs go on.
        """
        self._is_recovering = False
        life = self.shared.life
        for actor in [actor for actor in self._actors.values() if not actor.lost]:
            task, before = actor.task, actor.worker
            worker = self.shared.workers.get(before.address)
            if worker is not None and worker.incarnation == before.incarnation:
                actor.worker = worker
                worker.actors += 1
                text = actor.loss
            else:
                text = actor.lost = (
                    f"{actor.title} is lost with its worker {before.name!r} at {before.address}, which was gone when "
                    "the scheduler was started again"
                )
                self._note(actor)
                self._fail_all(actor, text)
            if task.state == "memory" and actor.lost:
                life.give_up_result(task, task_error(task.key, ActorLostError(text)))
            elif task.state == "released" and task.is_needed and (actor.lost or actor.number not in runs):
                life.fail(task, task_error(task.key, ActorLostError(text)))

    def check(self) -> None:
        contents = self.shared.life.holding.contents
        assert not self._to_look_at
        if self._is_recovering:
            return
        for number, actor in self._actors.items():
            assert actor.number == number
            assert actor.is_ending or contents.get(actor.task) is actor  # 1
            assert not actor.is_ending or (actor.calls and not actor.lost)
            if actor.lost:  # 2
                assert not actor.calls
                assert actor.task.state != "memory", f"{actor!r} is lost, and {actor.task!r}"
            else:
                assert self.shared.workers.get(actor.worker.address) is actor.worker
            for client, calls in actor.calls.items():
                assert client in self.shared.clients  # 5
                assert 0 < len(calls) <= MAX_CALLS
                for call_number, call in calls.items():
                    assert self._calls[call_number] is call
                    assert (call.number, call.client, call.actor) == (call_number, client, actor)
            for client, line in actor.lines.items():  # 4
                assert line
                assert all(actor.calls[client][call.number] is call for call in line)
                first = line[0].arguments
                assert first is not None
                assert any(task.state != "memory" for task in first.tasks)
                assert all(task.error is None for task in first.tasks)
        for task, each in contents.items():
            if isinstance(each, Actor):
                assert self._actors.get(each.number) is each
                assert each.task is task
        assert len(self._calls) == sum(len(calls) for actor in self._actors.values() for calls in actor.calls.values())
        for worker in self.shared.workers.values():  # 3
            assert worker.actors == len(self.of(worker))


def _absent(name: str, address: str, incarnation: int | None) -> Worker:
    """A worker that an earlier scheduler had."""
    worker = Worker(address, name, Host(address.rpartition("/")[0], {}), 0, {})
    worker.incarnation = incarnation
    return worker
