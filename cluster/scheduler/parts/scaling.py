"""Has hosts keep more workers, or fewer."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.cluster.protocol.requests import ADD_WORKERS, REMOVE_WORKERS
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.waits import Refusal
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.instructions import AddWorkers, RemoveWorkers


class Scaling(Part):
    """Answers `add-workers` and `remove-workers`. The host says by itself which workers it keeps (`machine.hosts`)."""

    name = "scaling"

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.requests = {ADD_WORKERS: self._add_workers, REMOVE_WORKERS: self._remove_workers}

    def _add_workers(self, client: Client, request: int, node: str, indices: Sequence[int]) -> None:
        self._check(node)
        if indices:
            self.shared.instructions.put(AddWorkers(node, list(indices)))
        self.answer(client, request, None)

    def _remove_workers(self, client: Client, request: int, node: str, workers: Sequence[str]) -> None:
        self._check(node)
        if workers:
            self.shared.instructions.put(RemoveWorkers(node, list(workers)))
        self.answer(client, request, None)

    def _check(self, node: str) -> None:
        if node not in self.shared.hosts:
            raise Refusal("ValueError", f"there is no host {node}, which was to have other workers")
