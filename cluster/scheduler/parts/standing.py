"""Standing errands: what workers do for a client as long as it is there, those too that come later.

The client has the workers that there are do an errand, and leaves the same with the scheduler. A worker that joins is
sent it. When the client withdraws it or leaves, all workers are sent what undoes it. What these errands come to,
nobody waits for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.journal.tables import Held
from holdfast.cluster.protocol.errands import STANDING, Errand
from holdfast.cluster.protocol.requests import STAND, WITHDRAW
from holdfast.cluster.scheduler.parts.errands import Errands, Outcome, Reporting
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.waits import Refusal
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Task, Worker

#: How many a client has at most.
MAX_OF_CLIENT = 100

_BY_NAME = {errand.operation: errand for errand in STANDING}


class _Standing(NamedTuple):
    errand: Errand
    arguments: Mapping[str, Any]
    undo: Mapping[str, Any]


class Standing(Part):
    """Sends standing errands to workers that join."""

    name = "standing"

    def __init__(self, shared: Shared, errands: Errands) -> None:
        super().__init__(shared)
        self.requests = {STAND: self._stand, WITHDRAW: self._withdraw}
        self._errands = errands
        self._of: dict[str, dict[str, _Standing]] = {}  # by client and name
        self._nobody = Reporting(_nothing)

    def _stand(
        self,
        client: Client,
        request: int,
        name: str,
        operation: str,
        arguments: Mapping[str, Any],
        undo: Mapping[str, Any],
    ) -> None:
        errand = _BY_NAME.get(operation)
        if errand is None:
            raise Refusal("ValueError", f"{operation!r:.80} is no errand that can stand")
        try:
            errand.arguments.check(arguments, operation)
            errand.arguments.check(undo, operation)
        except ProtocolError as error:
            raise Refusal("ProtocolError", str(error)) from None
        standing = self._of.get(client.id, {})
        if name not in standing and len(standing) >= MAX_OF_CLIENT:
            raise Refusal("ValueError", f"this client has {MAX_OF_CLIENT} standing errands: withdraw some")
        self._of.setdefault(client.id, standing)[name] = _Standing(errand, arguments, undo)
        self.note((client.id, name), (operation, dict(arguments), dict(undo)))
        self.answer(client, request, None)

    def _withdraw(self, client: Client, request: int, name: str) -> None:
        standing = self._of.get(client.id, {})
        withdrawn = standing.pop(name, None)
        if not standing:
            self._of.pop(client.id, None)
        if withdrawn is not None:
            self.note_gone((client.id, name))
            self._undo(withdrawn)
        self.answer(client, request, None)

    def _undo(self, standing: _Standing) -> None:
        self._errands.send(self._nobody, standing.errand, standing.undo, list(self.shared.workers))

    def worker_joined(self, worker: Worker) -> None:
        for of_client in self._of.values():
            for standing in of_client.values():
                self._errands.send(self._nobody, standing.errand, standing.arguments, [worker.address])

    def client_left(self, client: Client) -> None:
        for name, standing in self._of.pop(client.id, {}).items():
            self.note_gone((client.id, name))
            self._undo(standing)

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        for (client, name), entry in entries.items():
            operation, arguments, undo = entry.value
            self._of.setdefault(client, {})[name] = _Standing(_BY_NAME[operation], arguments, undo)

    def check(self) -> None:
        for client, standing in self._of.items():
            assert client in self.shared.clients
            assert 0 < len(standing) <= MAX_OF_CLIENT


def _nothing(address: str, outcome: Outcome) -> None:
    pass
