"""Events: flags with a name that are set or not, and the clients that wait until one is set.

A flag that is not set takes no room here, so no client has to say that it does not need an event any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.cluster.journal.tables import Held
from holdfast.cluster.protocol.limits import MAX_EVENTS
from holdfast.cluster.protocol.requests import CLEAR_EVENT, IS_EVENT_SET, SET_EVENT, STOP_WAITING, WAIT_FOR_EVENT
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.waits import NO_END, Refusal, Wait, WaitOwner
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Task
from holdfast.cluster.scheduler.tasks.names import Key


class EventWait(Wait):
    """A client that waits until an event is set, and calls that by a number."""

    __slots__ = ("name", "number")

    kind = "event"

    def __init__(self, part: Events, client: str, request: int, due: float, name: Key, number: int) -> None:
        super().__init__(part, client, request, due)
        self.name = name
        self.number = number

    def describe(self) -> str:
        return f"the event {self.name!r:.200}"


class Events(Part, WaitOwner):
    """Keeps events.

    Attributes
    ----------
    are_set
        The names of those that are set.
    """

    name = "events"
    moves_no_task = True

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.requests = {
            SET_EVENT: self._set,
            CLEAR_EVENT: self._clear,
            IS_EVENT_SET: self._is_set,
            WAIT_FOR_EVENT: self._wait,
            STOP_WAITING: self._stop_waiting,
        }
        self.are_set: dict[Key, None] = {}
        self._waits: dict[Key, dict[EventWait, None]] = {}
        self._by_number: dict[tuple[str, int], EventWait] = {}

    def _set(self, client: Client, request: int, name: Key) -> None:
        if name not in self.are_set:
            if len(self.are_set) >= MAX_EVENTS:
                raise Refusal("RuntimeError", f"{MAX_EVENTS:,} events are set, and no more may be: clear some")
            self.are_set[name] = None
            self.note(name, None)
        for wait in list(self._waits.get(name, ())):
            self.shared.waits.answer(wait, True)
        self.answer(client, request, None)

    def _clear(self, client: Client, request: int, name: Key) -> None:
        if name in self.are_set:
            del self.are_set[name]
            self.note_gone(name)
        self.answer(client, request, None)

    def _is_set(self, client: Client, request: int, name: Key) -> None:
        self.answer(client, request, name in self.are_set)

    def _wait(self, client: Client, request: int, name: Key, wait: int, timeout: float | None = None) -> None:
        if name in self.are_set or (timeout is not None and timeout <= 0):
            self.answer(client, request, name in self.are_set)
            return
        self.shared.waits.demand_room(client.id)
        if (client.id, wait) in self._by_number:
            raise Refusal("ProtocolError", f"this client has a wait {wait} already")
        due = NO_END if timeout is None else self.shared.now + timeout
        self._begin(EventWait(self, client.id, request, due, name, wait))

    def _begin(self, wait: EventWait) -> None:
        self._waits.setdefault(wait.name, {})[wait] = None
        self._by_number[wait.client, wait.number] = wait
        self.shared.waits.begin(wait)

    def _stop_waiting(self, client: Client, request: int, wait: int) -> None:
        known = self._by_number.get((client.id, wait))
        if known is not None:
            self.expired(known)  # an answer that nobody reads

    def expired(self, wait: Wait) -> None:
        self.shared.waits.answer(wait, False)

    def forget(self, wait: Wait) -> None:
        assert isinstance(wait, EventWait)
        waits = self._waits[wait.name]
        del waits[wait], self._by_number[wait.client, wait.number]
        if not waits:
            del self._waits[wait.name]

    # -- the rest

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        self.are_set = dict.fromkeys(entries)

    def check(self) -> None:
        waiting = [wait for waits in self._waits.values() for wait in waits]
        assert set(waiting) == {wait for wait in self.shared.waits if wait.part is self}
        assert set(self._by_number.values()) == set(waiting)
        for name, waits in self._waits.items():
            assert waits
            assert name not in self.are_set, "it has what it waits for"
            assert all(wait.name == name for wait in waits)
