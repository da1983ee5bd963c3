"""Cancelling what has not begun, and only that: `concurrent.futures` promises that what runs runs to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from holdfast.cluster.protocol.requests import CANCEL_UNSTARTED
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.tasks.cancelling import Cancellation
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.names import Key


class Unstarted(Part):
    """Cancels tasks that no worker has."""

    name: ClassVar[str] = "unstarted"

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.requests = {CANCEL_UNSTARTED: self._cancel}

    def _cancel(self, client: Client, request: int, keys: Sequence[Key]) -> None:
        tasks = self.shared.life.generations.tasks
        found = []
        for key in keys:
            task = tasks.get(key)
            if task is not None and client in task.holders and task.state not in ("processing", "memory", "erred"):
                found.append(task)
        life = self.shared.life
        life.follow_up.begin(Cancellation(life.holding, found, client, force=False, reason=""))
        self.answer(client, request, [task.key for task in found])
