"""Objects by their ids: whose result one is."""

from __future__ import annotations

from holdfast.cluster.protocol.requests import FIND_OBJECT
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.waits import Refusal
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.names import ObjectId


class Finding(Part):
    """Answers `find-object`."""

    name = "finding"

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.requests = {FIND_OBJECT: self._find}

    def _find(self, client: Client, request: int, object_id: ObjectId) -> None:
        life = self.shared.life
        task = life.results.get(bytes(object_id))
        if task is None or life.generations.tasks.get(task.key) is not task:
            raise Refusal("LookupError", f"there is no object {bytes(object_id).hex()}: it was freed, or never put")
        self.shared.replies.leave_out(client.id, request)
        self.answer(client, request, {"key": task.key})
        life.want(client, [task.key])
