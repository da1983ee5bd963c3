"""Keys that clients name before there are tasks of them: a client holds each as soon as somebody submits it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from holdfast.cluster.journal.tables import Held
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Task
from holdfast.cluster.scheduler.tasks.names import Key

#: How many keys without a task one client may name.
MAX_EXPECTED = 10_000


class Expectations(Part):
    """Knows which client expects which key.

    Attributes
    ----------
    table : dict
        By key that there is no task of: the clients that expect it.
    """

    name: ClassVar[str] = "expectations"

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.events = {events.KeysExpected: self._expect}
        self.table: dict[Key, dict[Client, None]] = {}
        self._counts: dict[Client, int] = {}

    def _expect(self, event: events.KeysExpected) -> None:
        client = self.shared.clients[event.client]
        life = self.shared.life
        for key in event.keys:
            task = life.generations.tasks.get(key)
            if task is not None:
                life.begin(client, task)
            else:
                self.expect(client, key)

    def expect(self, client: Client, key: Key) -> bool:
        """A client expects a key that there is no task of. False, and it is told so, if it expects too many."""
        if client in self.table.get(key, ()):
            return True
        if self._counts.get(client, 0) < MAX_EXPECTED:
            self._add(client, key)
            self.note((client.id, key), None)
            return True
        text = f"nobody has submitted it, and no more than {MAX_EXPECTED:,} such keys of a client are awaited"
        self.shared.instructions.cancelled(client.id, key, text)
        return False

    def _add(self, client: Client, key: Key) -> None:
        self.table.setdefault(key, {})[client] = None
        self._counts[client] = self._counts.get(client, 0) + 1

    def meet(self, keys: Iterable[Key]) -> None:
        """There are tasks of these keys now, but for those that were forgotten at once."""
        life = self.shared.life
        for key in keys:
            clients = self.table.get(key)
            task = None if clients is None else life.generations.tasks.get(key)
            if task is not None:
                for client in list(clients or ()):
                    self.forget(client, key)
                    life.begin(client, task)

    def forget(self, client: Client, key: Key) -> None:
        """A client expects a key no longer; no error if it did not."""
        clients = self.table.get(key)
        if clients is None or client not in clients:
            return
        del clients[client]
        self.note_gone((client.id, key))
        if not clients:
            del self.table[key]
        self._counts[client] -= 1
        if not self._counts[client]:
            del self._counts[client]

    def client_left(self, client: Client) -> None:
        if client in self._counts:
            for key in [key for key, clients in self.table.items() if client in clients]:
                self.forget(client, key)

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        for client, key in entries:
            self._add(self.shared.clients[client], key)

    def is_expected(self, client: Client, key: Key) -> bool:
        """Whether a client expects a key."""
        return client in self.table.get(key, ())

    def check(self) -> None:
        counted: dict[Client, int] = {}
        for key, clients in self.table.items():
            assert clients
            assert key not in self.shared.life.generations.tasks, f"{key!r} is there, and still expected"
            for client in clients:
                assert self.shared.clients.get(client.id) is client
                counted[client] = counted.get(client, 0) + 1
        assert counted == self._counts
        assert all(count <= MAX_EXPECTED for count in counted.values())
