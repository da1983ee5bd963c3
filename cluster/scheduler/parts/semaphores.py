"""Semaphores: of each name there are so many places. There is one from when it is opened until it is closed."""

from __future__ import annotations

from holdfast.cluster.protocol.limits import MAX_SEMAPHORES
from holdfast.cluster.protocol.requests import (
    ACQUIRE_SEMAPHORE,
    CLOSE_SEMAPHORE,
    OPEN_SEMAPHORE,
    RELEASE_SEMAPHORE,
    SEMAPHORE_VALUE,
)
from holdfast.cluster.scheduler.parts.leases import LeasePart, Line
from holdfast.cluster.scheduler.parts.part import Shared
from holdfast.cluster.scheduler.parts.waits import Refusal
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.names import Key


class Semaphores(LeasePart):
    """Grants leases of semaphores."""

    name = "semaphores"
    moves_no_task = True
    noun = "leases of semaphores"
    waited_for = "a lease of the semaphore"

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.requests = {
            OPEN_SEMAPHORE: self._open,
            ACQUIRE_SEMAPHORE: self._acquire,
            RELEASE_SEMAPHORE: self._release,
            SEMAPHORE_VALUE: self._value,
            CLOSE_SEMAPHORE: self._close,
        }

    def _open(self, client: Client, request: int, name: Key, max_leases: int) -> None:
        self._opened(name, max_leases)
        self.answer(client, request, None)

    def _opened(self, name: Key, max_leases: int) -> Line:
        line = self.lines.get(name)
        if line is None:
            if len(self.lines) >= MAX_SEMAPHORES:
                text = f"there are {MAX_SEMAPHORES:,} semaphores, and no more may be: close some"
                raise Refusal("RuntimeError", text)
            line = self.open_line(name, max_leases)
        elif line.size != max_leases:
            text = f"Inconsistent max leases: {max_leases}, expected: {line.size} (as the semaphore {name!r} has)"
            raise Refusal("ValueError", text)
        return line

    def _acquire(
        self,
        client: Client,
        request: int,
        name: Key,
        lease: int,
        timeout: float | None = None,
        max_leases: int | None = None,
    ) -> None:
        line = self.lines.get(name) if max_leases is None else self._opened(name, max_leases)
        if line is None:
            raise Refusal("RuntimeError", f"there is no semaphore {name!r}: it was closed, or never opened here")
        self.ask(client, request, lease, [line], 1, timeout)

    def _release(self, client: Client, request: int, lease: int) -> None:
        self.give_back(client, lease)

    def _value(self, client: Client, request: int, name: Key) -> None:
        line = self.lines.get(name)
        self.answer(client, request, 0 if line is None else len(line.taken))

    def _close(self, client: Client, request: int, name: Key) -> None:
        line = self.lines.get(name)
        taken = 0
        if line is not None:
            taken = self.close_line(line, "RuntimeError", f"the semaphore {name!r} was closed")
        self.answer(client, request, taken)
