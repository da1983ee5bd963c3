"""Locks: of each name there is one place, and a client may ask for the places of several names at once."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.cluster.protocol.requests import ACQUIRE_LOCKS, IS_LOCKED, RELEASE_LOCKS
from holdfast.cluster.scheduler.parts.leases import LeasePart, Line
from holdfast.cluster.scheduler.parts.part import Shared
from holdfast.cluster.scheduler.parts.waits import Refusal
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.names import Key


class Locks(LeasePart):
    """Grants locks."""

    name = "locks"
    moves_no_task = True
    noun = "locks"
    waited_for = "the lock"

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.requests = {
            ACQUIRE_LOCKS: self._acquire,
            RELEASE_LOCKS: self._release,
            IS_LOCKED: self._is_locked,
        }

    def _acquire(
        self,
        client: Client,
        request: int,
        names: Sequence[Key],
        lease: int,
        count: int | None = None,
        timeout: float | None = None,
    ) -> None:
        needed = len(names) if count is None else count
        if not 0 < needed <= len(names) or (len(names) > 1 and len(set(names)) < len(names)):
            text = f"{needed} of {len(names)} locks were asked for: name as many as are needed, and each once"
            raise Refusal("ValueError", text)
        lines = [self.lines.get(name) or self._begin(name) for name in names]
        self.ask(client, request, lease, lines, needed, timeout)

    def _begin(self, name: Key) -> Line:
        line = self.lines[name] = Line(name, 1)
        return line

    def _release(self, client: Client, request: int, lease: int) -> None:
        self.give_back(client, lease)

    def _is_locked(self, client: Client, request: int, name: Key) -> None:
        line = self.lines.get(name)
        self.answer(client, request, line is not None and bool(line.taken))
