"""Questions whose answer needs fresh figures: every node is asked how it is, and answers before the client is answered.

A node that is busy or stopped keeps no client waiting: after `REPORT_SECONDS` the client is answered with what that
node said last. The answer itself is long and only reads the state, so it isn't made here: the instruction `Answer` says
that it is time for it (`watching`).
"""

from __future__ import annotations

from typing import Any

from holdfast.cluster.protocol.requests import MEMORY, STATUS
from holdfast.cluster.protocol.requests.looking import GROUPINGS
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.waits import QUICK_SECONDS, Refusal, Wait, WaitOwner
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.instructions import Answer, AskForReport
from holdfast.cluster.scheduler.tasks.model import Host

#: How long nodes get to say how they are, before a request is answered with what they said last.
REPORT_SECONDS = QUICK_SECONDS


class Inquiry(Wait):
    """A question that waits for the reports of these hosts."""

    __slots__ = ("arguments", "hosts", "operation")

    kind = "inquiry"

    def __init__(
        self, part: Inquiries, client: str, request: int, due: float, operation: str, arguments: dict[str, Any]
    ) -> None:
        super().__init__(part, client, request, due)
        self.operation = operation
        self.arguments = arguments
        self.hosts: dict[Host, None] = {}

    def describe(self) -> str:
        return f"'{self.operation}', from {len(self.hosts):,} hosts"


class Inquiries(Part, WaitOwner):
    """Answers `status` and `memory`."""

    name = "inquiries"

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.requests = {STATUS: self._status, MEMORY: self._memory}
        self._inquiries: dict[Inquiry, None] = {}

    def _status(self, client: Client, request: int) -> None:
        self._inquire(client, request, STATUS.operation, {})

    def _memory(self, client: Client, request: int, **arguments: Any) -> None:
        for name in arguments.get("by", ()):
            if name not in GROUPINGS:
                raise Refusal(
                    "ValueError", f"by={name!r:.100} is unknown: objects are grouped by {', '.join(GROUPINGS)}"
                )
        self._inquire(client, request, MEMORY.operation, arguments)

    def _inquire(self, client: Client, request: int, operation: str, arguments: dict[str, Any]) -> None:
        self.shared.waits.demand_room(client.id)
        self._begin(Inquiry(self, client.id, request, self.shared.now + REPORT_SECONDS, operation, arguments))

    def _begin(self, inquiry: Inquiry) -> None:
        self._inquiries[inquiry] = None
        self.shared.waits.begin(inquiry)
        for host in self.shared.hosts.values():
            inquiry.hosts[host] = None
            self.shared.instructions.put(AskForReport(host.address))
        if not inquiry.hosts:
            self._conclude(inquiry)

    def host_reported(self, host: Host) -> None:
        for inquiry in list(self._inquiries):
            inquiry.hosts.pop(host, None)
            if not inquiry.hosts:
                self._conclude(inquiry)

    def host_left(self, host: Host) -> None:
        self.host_reported(host)

    def _conclude(self, inquiry: Inquiry) -> None:
        self.shared.waits.end(inquiry)
        self.shared.instructions.put(Answer(inquiry.client, inquiry.request, inquiry.operation, inquiry.arguments))

    def expired(self, wait: Wait) -> None:
        assert isinstance(wait, Inquiry)
        self._conclude(wait)

    def forget(self, wait: Wait) -> None:
        assert isinstance(wait, Inquiry)
        del self._inquiries[wait]

    def check(self) -> None:
        assert set(self._inquiries) == {wait for wait in self.shared.waits if isinstance(wait, Inquiry)}
        for inquiry in self._inquiries:
            assert inquiry.hosts, f"{inquiry!r} waits for no host"
            for host in inquiry.hosts:
                assert self.shared.hosts.get(host.address) is host
