"""Clients, and the functions that they have sent."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.journal import records
from holdfast.cluster.scheduler.machine.objects import Objects
from holdfast.cluster.scheduler.parts.actors import Actors
from holdfast.cluster.scheduler.parts.expectations import Expectations
from holdfast.cluster.scheduler.parts.part import EventHandlers, Part, Shared
from holdfast.cluster.scheduler.placing.unrunnable import Unrunnable
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.feed import Joined, Left
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Task


class Clients:
    """Lets clients come and go.

    Parameters
    ----------
    shared
        The tables.
    parts
        Are told that a client has come or left.
    unrunnable
        Forgets what a client was told.
    objects
        Knows what clients have put into stores and not told of.
    actors, expectations
        Know what clients wait for.
    """

    def __init__(
        self,
        shared: Shared,
        parts: Sequence[Part],
        unrunnable: Unrunnable,
        objects: Objects,
        actors: Actors,
        expectations: Expectations,
    ) -> None:
        self.events: EventHandlers = {
            events.ClientJoined: self._client_joined,
            events.ClientRejoined: self._client_rejoined,
            events.ClientLeft: self._client_left,
            events.FunctionsSent: self._functions_sent,
            events.FunctionsForgotten: self._functions_forgotten,
        }
        self._shared = shared
        self._clients = shared.clients
        self._instructions = shared.instructions
        self._life = shared.life
        self._feed = shared.feed
        self._parts = parts
        self._unrunnable = unrunnable
        self._objects = objects
        self._actors = actors
        self._expectations = expectations
        self._unsaid: dict[str, dict[Task, None]] = {}  # what clients hold that are back, and have not said yet

    def _client_joined(self, event: events.ClientJoined) -> None:
        if event.client in self._clients:
            raise ProtocolError(f"there is a client {event.client} already")
        worker = None
        if event.worker is not None and (worker := self._shared.workers.get(event.worker)) is None:
            raise ProtocolError(f"the tasks of {event.worker} can't be a client, since there is no such worker")
        client = self._clients[event.client] = Client(event.client, event.name, worker, event.about)
        if event.rejoins:
            self._shared.replies.await_client(client.id)
        its = None if worker is None else (worker.address, worker.incarnation)
        self._life.decisions.note(records.joined(client.id, client.name, client.about, its))
        if self._feed.is_heard:
            self._feed.tell(Joined("client", event.client, event.name))
        for part in self._parts:
            part.client_joined(client)

    def _client_rejoined(self, event: events.ClientRejoined) -> None:
        """A client of an earlier scheduler is back: it is to hold what it believes that it holds, as far as it does."""
        client = self._clients[event.client]
        tasks = self._life.generations.tasks
        unsaid = self._unsaid.get(client.id)
        if unsaid is None:
            unsaid = self._unsaid[client.id] = dict.fromkeys(client.holds)
        for key in event.keys:
            task = tasks.get(key)
            if task is not None and client in task.holders:
                unsaid.pop(task, None)
                self._life.reports.state(client, task)
            elif not self._expectations.is_expected(client, key):
                text = "it was cancelled or released before, or lost when the scheduler was started again"
                self._instructions.cancelled(client.id, key, text)
        if event.is_last:
            del self._unsaid[client.id]
            self._actors.rejoined(client, event.calls)
            self._shared.replies.rejoined(client.id)
            given = self._actors.keys_given(client)
            for task in unsaid:
                if task.key not in given:
                    self._life.holding.unhold(client, task)

    def _client_left(self, event: events.ClientLeft) -> None:
        self.remove(event.client)

    def remove(self, id: str) -> None:
        """A client has left; no error if there is none."""
        client = self._clients.pop(id, None)
        if client is None:
            return
        if self._feed.is_heard:
            self._feed.tell(Left("client", client.id, ""))
        client.leave()
        self._unsaid.pop(id, None)
        self._unrunnable.client_left(client.id)
        self._shared.waits.client_left(client.id)
        self._shared.replies.client_left(client.id)
        for part in self._parts:
            part.client_left(client)
        self._life.holding.let_go(client)
        self._life.functions.forgotten(client, list(client.functions))
        self._life.decisions.note(records.left(client.id))
        self._objects.owner_left(client.id)

    def _functions_sent(self, event: events.FunctionsSent) -> None:
        self._life.functions.sent(self._clients[event.client], event.functions)

    def _functions_forgotten(self, event: events.FunctionsForgotten) -> None:
        self._life.functions.forgotten(self._clients[event.client], event.digests)
