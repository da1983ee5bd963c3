"""What clients want: results of tasks that they describe, of data that they have stored, of keys that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.journal import records
from holdfast.cluster.scheduler.machine.missing import Missing
from holdfast.cluster.scheduler.machine.submit_options import NO_OPTIONS, SubmitOptions
from holdfast.cluster.scheduler.parts.bringing import Bringing
from holdfast.cluster.scheduler.parts.copies import Copies
from holdfast.cluster.scheduler.parts.expectations import Expectations
from holdfast.cluster.scheduler.parts.kills import Kills
from holdfast.cluster.scheduler.parts.part import EventHandlers, Shared
from holdfast.cluster.scheduler.placing.lending import submitted_in
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.cancelling import Cancellation
from holdfast.cluster.scheduler.tasks.generations import is_below
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.instructions import DeleteObjects, ReportErred, ReportKept, ReportPending
from holdfast.cluster.scheduler.tasks.model import Host, Task
from holdfast.cluster.scheduler.tasks.names import Key
from holdfast.cluster.scheduler.tasks.reports import raised_of

#: The table of what clients cancel, one thing each.
CANCELLING = "cancelling"


class Orders:
    """Takes what clients say about tasks and data.

    Parameters
    ----------
    shared
        The tables.
    copies
        Sees to second copies of data.
    expectations
        Knows which keys clients expect.
    missing
        Takes results that could not be read.
    kills
        Ends runs of what is cancelled.
    bringing
        Has hosts bring what lies in files only.
    """

    def __init__(
        self,
        shared: Shared,
        copies: Copies,
        expectations: Expectations,
        missing: Missing,
        kills: Kills,
        bringing: Bringing,
    ) -> None:
        self.events: EventHandlers = {
            events.TasksSubmitted: self._tasks_submitted,
            events.ObjectsScattered: self._objects_scattered,
            events.ReferencesFound: self._references_found,
            events.KeysWanted: self._keys_wanted,
            events.KeysRetried: self._keys_retried,
            events.KeysReleased: self._keys_released,
            events.KeysCancelled: self._keys_cancelled,
            events.ResultsMissing: self._results_missing,
        }
        self._hosts = shared.hosts
        self._clients = shared.clients
        self._instructions = shared.instructions
        self._placement = shared.placement
        self._life = shared.life
        self._copies = copies
        self._expectations = expectations
        self._expected = expectations.table
        self._missing = missing
        self._kills = kills
        self._bringing = bringing

    def _tasks_submitted(self, event: events.TasksSubmitted) -> None:
        client = self._clients[event.client]
        life = self._life
        tasks = life.generations.tasks
        options = event.options
        if options:
            per_key = options.get("per_key")
            shared = chosen = SubmitOptions.read(options, self._placement)
            parent = _submitting_task(client, options)
            origin = client.origin(event.call_site, None if parent is None else parent.key)
        else:  # as most have none
            per_key = parent = None
            shared = chosen = NO_OPTIONS
            origin = client.origin(event.call_site)
        unknown: list[tuple[Task, Key]] = []
        specified: list[Task] = []
        submitted: list[Task] = []
        frees = False
        try:
            for key, digest, payload, dependency_keys in event.tasks:
                task = tasks.get(key)
                is_held = False
                if task is not None:
                    if life.generations.is_specified_by(task, digest, payload, dependency_keys):
                        submitted.append(task)
                        continue
                    is_held = life.holding.is_held(task)
                    if is_held and (task.payload is not None or task.state == "memory"):
                        self._instructions.add(ReportKept, client.id, key)
                        submitted.append(task)
                        continue
                if digest is not None and digest not in life.functions.table:
                    raise ProtocolError(f"task {key!r:.200} names a function that was never sent")
                if dependency_keys and key in dependency_keys:
                    raise ProtocolError(f"task {key!r:.200} depends on itself")
                if per_key:
                    chosen = (
                        SubmitOptions.read({**options, **per_key[key]}, self._placement) if key in per_key else shared
                    )
                if not is_held:
                    if task is not None:
                        life.generations.free_key(task)
                        frees = True
                    task = life.create(key, digest, origin)
                specified.append(task)
                submitted.append(task)
                dependencies = []
                for dependency_key in dependency_keys:
                    dependency = tasks.get(dependency_key)
                    if dependency is None:
                        unknown.append((task, dependency_key))
                    else:
                        dependencies.append(dependency)
                if task.dependents and is_below(task, dependencies):
                    raise ProtocolError(f"task {key!r:.200} depends on itself, by way of others")
                chosen.give_to(task, life)
                if parent is not None:
                    life.parents[task] = parent.run_id
                    submitted_in(task, parent)
                life.specify(task, digest, payload, dependencies)
            if unknown:
                life.incomplete.update(unknown)
            if life.decisions.is_kept and specified:
                serials = _serials(submitted, specified)
                life.decisions.note(records.tasks(origin.as_plain(), serials, event.tasks, options))
                for task, missing in _by_task(unknown).items():
                    life.decisions.note(records.put_of("incomplete", task.serial, missing))
            if event.wants is None:
                if frees:  # maybe the key of one that came before in this very event
                    submitted = [tasks[task.key] for task in submitted]
                for task in submitted:
                    life.begin(client, task)
            else:
                life.want(client, event.wants)
            for task, dependency_key in unknown:
                life.fail_unknown_dependency(task, dependency_key)
            if self._expected:
                self._expectations.meet([key for key, _, _, _ in event.tasks])
        finally:
            life.settle(specified)

    def _objects_scattered(self, event: events.ObjectsScattered) -> None:
        client = self._clients[event.client]
        for position, (key, object_id, nbytes, type_name, address, inline) in enumerate(event.objects):
            host = self._hosts.get(address)
            task = self._life.generations.tasks.get(key)
            owner = self._life.results.get(object_id)
            if owner is not None and owner is not task:
                raise ProtocolError(f"scattered[{position}].object_id is that of another key")
            if task is not None and event.chosen and owner is None and not self._life.holding.is_held(task):
                self._life.generations.free_key(task)
                task = None
            if task is None:
                task = self._life.create(key, None, client.origin(event.call_site))
            self._life.holding.hold(client, task)
            if task.state == "memory":
                if object_id == task.object_id and host is not None:
                    self._life.results.add_copy(task, host)
                    self._copies.copied(task)
                elif object_id != task.object_id:
                    self._delete_from(host, object_id)
                    if event.chosen and (inline is None or inline != task.inline):
                        self._instructions.add(ReportKept, client.id, key)
                self._life.reports.tell(client, task)
                continue
            if task.payload is not None:
                self._delete_from(host, object_id)
                self._instructions.add(ReportKept, client.id, key)
                if task.state == "released":
                    self._life.activate(task)
                self._instructions.add(ReportPending, client.id, key)
                self._life.reports.tell(client, task)
                continue
            was_lost = task.error is not None and task.error.is_loss
            if task.error is not None and not was_lost:
                self._delete_from(host, object_id)
                self._life.reports.tell(client, task)
            elif host is not None or inline is not None:
                self._life.restore(task, host, object_id, nbytes, inline, type_name)
                self._life.brought(task, object_id, nbytes, type_name, inline if host is None else None)
                self._copies.look_at(task)
                if was_lost:
                    self._life.run_again([task])
            else:
                self._life.lost.add(task, object_id)  # it comes with the host, if that comes back
                self._life.brought(task, object_id, nbytes, type_name, None)
                if task.state == "released":
                    text = f"{key!r} was put into the store of {address}, and that host has left"
                    self._life.await_or_fail(task, text)
                elif was_lost:
                    self._life.reports.tell(client, task)
                if task.state != "erred":
                    self._life.reports.pending(task)
        if self._expected:
            self._expectations.meet([key for key, _, _, _, _, _ in event.objects])

    def _references_found(self, event: events.ReferencesFound) -> None:
        client = self._clients[event.client]
        tasks = self._life.generations.tasks
        for key, contained in event.objects:
            task = tasks.get(key)
            if task is not None and client in task.holders:  # else it was cancelled meanwhile
                others = [other for inner in contained if (other := tasks.get(inner)) is not None]
                self._life.holding.contain(task, others)
                self._copies.contained(task, others)

    def _keys_wanted(self, event: events.KeysWanted) -> None:
        self._life.want(self._clients[event.client], event.keys)

    def _keys_retried(self, event: events.KeysRetried) -> None:
        client = self._clients[event.client]
        failed = []
        for key in event.keys:
            task = self._life.generations.tasks.get(key)
            if task is None:
                self._instructions.cancelled(client.id, key, "it was cancelled or released before")
            elif task.error is not None and not task.error.is_lasting:
                failed.append(task)
            else:
                self._life.reports.tell(client, task)
        self._life.retry(failed)

    def _keys_released(self, event: events.KeysReleased) -> None:
        client = self._clients[event.client]
        for key in event.keys:
            task = self._life.generations.tasks.get(key)
            if task is not None:
                self._life.holding.unhold(client, task)
            elif self._expected:
                self._expectations.forget(client, key)

    def _keys_cancelled(self, event: events.KeysCancelled) -> None:
        client = self._clients[event.client]
        found = []
        for key in event.keys:
            task = self._life.generations.tasks.get(key)
            if task is not None:
                found.append(task)
            elif self._expected:
                self._expectations.forget(client, key)
        self._cancel(client, found, force=event.force, kill=event.kill, reason=event.reason)

    def _cancel(self, client: Client, tasks: Sequence[Task], *, force: bool, kill: int | None, reason: str) -> None:
        """Begin a cancellation. It is in the journal until it is done: the client has said it, and says it no more.

        There is one of a client at a time, since what the client says next waits for it.
        """
        decisions = self._life.decisions
        decisions.note(
            records.put_for(CANCELLING, client.id, 0, ([task.serial for task in tasks], force, kill, reason))
        )
        self._life.follow_up.begin(
            Cancellation(
                self._life.holding,
                tasks,
                client,
                force=force,
                reason=reason,
                on_end=None if kill is None else lambda running: self._kills.cancelled(client, running, kill),
                on_done=lambda: decisions.note(records.remove_for(CANCELLING, client.id, 0)),
            )
        )

    def go_on_cancelling(self, client: str, cancelling: Sequence[Any], tasks: Mapping[int, Task]) -> None:
        """Do the rest of what an earlier scheduler was cancelling for a client, if that is there still.

        Parameters
        ----------
        client
            Its id.
        cancelling
            What is noted of that.
        tasks
            The tasks, by serial.
        """
        if (holder := self._clients.get(client)) is not None:
            serials, force, kill, reason = cancelling
            found = [tasks[serial] for serial in serials if serial in tasks]
            self._cancel(holder, found, force=force, kill=kill, reason=reason)

    def _results_missing(self, event: events.ResultsMissing) -> None:
        client = self._clients[event.client]
        for key, object_id, node in event.results:
            task = self._life.generations.tasks.get(key)
            if task is None:
                self._instructions.cancelled(client.id, key, "it was cancelled or released before")
                continue
            if task.object_id == object_id and task.where and all(host.address != node for host in task.where):
                self._life.reports.tell(client, task)  # it has moved since the client was told where it is
                continue
            if task.object_id == object_id and not task.where and task in self._life.results.durable:
                self._bringing.bring(client, task)
                continue
            error = self._missing.could_not_read(task, object_id)
            if error is not None:
                self._instructions.add(ReportErred, client.id, (key, raised_of(error), error.text))
            elif task.state == "memory":
                self._life.reports.tell(client, task)

    def _delete_from(self, host: Host | None, object_id: bytes) -> None:
        if host is not None:
            host.deleted.append(object_id)
            self._instructions.add(DeleteObjects, host.address, object_id)


def _serials(submitted: Sequence[Task], specified: Sequence[Task]) -> int | list[int]:
    """Of each task that a client has submitted: its serial, or zero if it is as it was. If the others follow the first
    one, that of the first one."""
    first = specified[0].serial
    if len(specified) == len(submitted) and specified[-1].serial - first == len(specified) - 1:
        return first
    new = set(specified)
    return [task.serial if task in new else 0 for task in submitted]


def _by_task(unknown: Sequence[tuple[Task, Key]]) -> dict[Task, list[Key]]:
    """The keys by task, of what tasks depend on and nobody knows."""
    found: dict[Task, list[Key]] = {}
    for task, key in unknown:
        found.setdefault(task, []).append(key)
    return found


def _submitting_task(client: Client, options: dict[str, Any]) -> Task | None:
    """The task in which a client submits something, if the client is that of a worker's tasks."""
    if client.worker is None:
        return None
    run = client.worker.runs.get(options.get("parent", 0))
    return None if run is None else run.task
