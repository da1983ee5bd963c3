"""What hosts say about the objects in their stores.

What the scheduler has not heard of is deleted, unless it was put there by a client or worker that may be about to tell
of it. Such an object is *unclaimed* until all has been read that its owner had sent, which is when the owner has left
here too. A worker's objects become known to be unclaimed when its node says that it has left the store; a client's also
when their host joins with them. What it had before it was given up is none of that, nor what it was told to delete just
before: the word may not have reached it (`tasks/lost.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from holdfast.cluster.scheduler.parts.carrying import Carrying
from holdfast.cluster.scheduler.parts.copies import Copies
from holdfast.cluster.scheduler.parts.part import EventHandlers, Shared
from holdfast.cluster.scheduler.placing.revocation import Revocation
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.instructions import DeleteObjects
from holdfast.cluster.scheduler.tasks.model import Host, Task
from holdfast.cluster.scheduler.tasks.names import ObjectId


class Objects:
    """Enters what hosts have, and has the rest deleted.

    Parameters
    ----------
    shared
        The tables.
    copies
        Sees to second copies of data.
    carrying
        Waits for copies that hosts were told to bring.
    revocation
        Learns which workers are gone.
    """

    def __init__(self, shared: Shared, copies: Copies, carrying: Carrying, revocation: Revocation) -> None:
        self.events: EventHandlers = {
            events.ObjectsReported: self._objects_reported,
            events.ObjectsFound: self._objects_found,
            events.ObjectsForgotten: self._objects_forgotten,
            events.OwnerLeft: self._owner_left,
        }
        self._hosts = shared.hosts
        self._workers = shared.workers
        self._clients = shared.clients
        self._instructions = shared.instructions
        self._life = shared.life
        self._copies = copies
        self._carrying = carrying
        self._revocation = revocation
        self._unclaimed: dict[str, list[tuple[Host, list[ObjectId]]]] = {}  # by owner
        #: Takes what hosts have, while the machine is being brought back.
        self.on_reported: Callable[[Host, Sequence[Mapping[str, Any]]], None] | None = None

    def _objects_reported(self, event: events.ObjectsReported) -> None:
        host = self._hosts.get(event.host)
        if host is None:
            return
        if self.on_reported is not None:
            self.on_reported(host, event.objects)
            return
        life = self._life
        unclaimed: dict[str, list[ObjectId]] = {}
        for description in event.objects:
            object_id, owner = description["id"], description.get("owner")
            if self._enter(host, object_id):
                continue
            if owner is not None and owner in self._clients and object_id not in life.lost:
                unclaimed.setdefault(owner, []).append(object_id)
                continue
            task = self._claim(object_id, description.get("label", 0))
            if task is not None:
                self._restore(task, host, object_id, description["nbytes"], description.get("type") or "")
            else:
                self._instructions.add(DeleteObjects, host.address, object_id)
        for owner, object_ids in unclaimed.items():
            self.leave_unclaimed(owner, host, object_ids)

    def leave_unclaimed(self, owner: str, host: Host, object_ids: list[ObjectId]) -> None:
        """A host has objects of a client that may be about to tell of them."""
        self._unclaimed.setdefault(owner, []).append((host, object_ids))

    def _objects_found(self, event: events.ObjectsFound) -> None:
        host = self._hosts.get(event.host)
        if host is not None:
            self._found(host, [i for i in event.object_ids if i not in host.forgetting])

    def _objects_forgotten(self, event: events.ObjectsForgotten) -> None:
        host = self._hosts.get(event.host)
        if host is not None:
            for object_id in event.object_ids:
                host.forgetting[object_id] -= 1
                if host.forgetting[object_id] <= 0:
                    del host.forgetting[object_id]

    def _found(self, host: Host, object_ids: Iterable[ObjectId]) -> None:
        for object_id in object_ids:
            if not self._enter(host, object_id):
                # It may be a copy that was made just before the host was gone that had the only other one.
                task = self._claim(object_id)
                if task is not None:
                    self._restore(task, host, object_id, task.nbytes, task.type_name)
                else:
                    self._instructions.add(DeleteObjects, host.address, object_id)
            self._carrying.found(host, object_id)

    def _claim(self, object_id: ObjectId, label: int = 0) -> Task | None:
        """The task that has lost this object and still has a use for it."""
        task = self._life.lost.claim(object_id) or self._life.lost.claim_label(label)
        return task if task is not None and task.is_needed and (task.error is None or task.error.is_loss) else None

    def _restore(self, task: Task, host: Host, object_id: ObjectId, nbytes: int, type_name: str) -> None:
        """A host has what a task had lost."""
        self._life.restore(task, host, object_id, nbytes, None, type_name)
        self._copies.look_at(task)
        if host.is_ready:
            self._life.run_again([task])
        else:
            host.restored.append(task)

    def _enter(self, host: Host, object_id: ObjectId) -> bool:
        """A host has an object. Whether it is the result of a task, or the error of one."""
        task = self._life.results.get(object_id)
        if task is not None:
            self._life.results.add_copy(task, host)
            self._copies.copied(task)
            return True
        error = self._life.errors.get(object_id)
        if error is not None:
            self._life.errors.add_copy(error, host)
            return True
        return False

    def _owner_left(self, event: events.OwnerLeft) -> None:
        host = self._hosts.get(event.host)
        if host is None:
            return
        owner = event.name
        for worker in host.workers:
            if worker.name == event.name and worker.incarnation == event.incarnation:
                self._revocation.gone(worker)
                owner = worker.address
        objects = self._life.results.table
        object_ids = [description["id"] for description in event.objects]
        unheard_of = [i for i in object_ids if (task := objects.get(i)) is None or host not in task.where]
        self._unclaimed.setdefault(owner, []).append((host, unheard_of))
        if owner not in self._workers and owner not in self._clients:
            self.owner_left(owner)

    def owner_left(self, owner: str) -> None:
        """All has been read that a worker or a client had sent: what it has not told of will not be told of."""
        for host, object_ids in self._unclaimed.pop(owner, ()):
            if self._hosts.get(host.address) is not host:
                continue
            for object_id in object_ids:
                task = self._life.results.get(object_id)
                if task is None:
                    self._found(host, [object_id])
                elif host not in task.where:  # it may be on its way that this host is to delete its copy
                    self._instructions.add(DeleteObjects, host.address, object_id)

    def host_left(self, host: Host) -> None:
        """A host is gone, and will say what it has, if it comes back."""
        for owner, entries in list(self._unclaimed.items()):
            entries[:] = [entry for entry in entries if entry[0] is not host]
            if not entries:
                del self._unclaimed[owner]
