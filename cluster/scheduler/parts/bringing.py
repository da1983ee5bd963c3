"""Results that lie in files only, for clients that can't read these: a host brings each into its store, and they read
it there.

A client on a host with a store needs none of this, unless the file can't be read: then it learns here why.
"""

from __future__ import annotations

from holdfast.cluster.errors import ObjectLostError
from holdfast.cluster.scheduler.parts.carrying import Carrying, Order, Subject
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.instructions import ReportErred
from holdfast.cluster.scheduler.tasks.model import Host, Task
from holdfast.cluster.scheduler.tasks.reports import raised_of
from holdfast.cluster.scheduler.tasks.stored_errors import task_error


class _Wish(Order):
    """A result that clients wait for."""

    def __init__(self, part: Bringing, task: Task) -> None:
        self.part = part
        self.task = task
        self.clients: dict[str, None] = {}
        self.tried: dict[Host, str] = {}

    def arrived(self, subject: Subject, host: Host) -> None:
        self.part.arrived(self)

    def failed(self, subject: Subject, host: Host, reason: str) -> None:
        self.tried[host] = reason
        self.part.try_another(self)


class Bringing(Part):
    """Has hosts bring what clients can't read themselves.

    Parameters
    ----------
    shared
        What all parts work with.
    carrying
        Has it brought.
    """

    name = "bringing"

    def __init__(self, shared: Shared, carrying: Carrying) -> None:
        super().__init__(shared)
        self._carrying = carrying
        self._wishes: dict[Task, _Wish] = {}

    def bring(self, client: Client, task: Task) -> None:
        """A client could not read a result that no host has: it is told of it when a host has it."""
        wish = self._wishes.get(task)
        if wish is None:
            wish = self._wishes[task] = _Wish(self, task)
            wish.clients[client.id] = None
            self.try_another(wish)
        else:
            wish.clients[client.id] = None

    def arrived(self, wish: _Wish) -> None:
        """A host has a result."""
        del self._wishes[wish.task]
        for client in self._holders(wish):
            self.shared.life.reports.tell(client, wish.task)

    def try_another(self, wish: _Wish) -> None:
        """Have a host bring a result that has not tried it yet."""
        task = wish.task
        if task.state != "memory" or task.where:
            self.arrived(wish)
            return
        able = [
            host
            for host in self.shared.hosts.values()
            if host.is_ready and not host.leaving and host not in wish.tried and task.nbytes <= host.capacity
        ]
        if able:
            self._carrying.bring(wish, task, max(able, key=self._carrying.room_in))
            return
        del self._wishes[task]
        why = next(reversed(wish.tried.values()), "there is no host that has room for it")
        text = f"{task.key!r:.200} could not be read from where it is durable: {why}"
        error = task_error(task.key, ObjectLostError(text))
        for client in self._holders(wish):
            self.shared.instructions.add(ReportErred, client.id, (task.key, raised_of(error), error.text))

    def _holders(self, wish: _Wish) -> list[Client]:
        clients = [self.shared.clients[id] for id in wish.clients if id in self.shared.clients]
        return [client for client in clients if client in wish.task.holders]

    def check(self) -> None:
        for task, wish in self._wishes.items():
            assert wish.task is task
            assert self._carrying.outstanding(wish) == 1
