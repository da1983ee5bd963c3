"""The connection of a node agent to the scheduler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from holdfast.cluster.comm.connection import Connection, connect
from holdfast.cluster.comm.messages import pieces
from holdfast.cluster.errors import ProtocolError

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 30.0


class SchedulerLink:
    """Speaks for the node agent.

    Parameters
    ----------
    address:
        The scheduler's.
    token:
        The cluster's.
    on_delete:
        Called with the object ids that the scheduler wants forgotten.
    on_report:
        Called when the scheduler wants to know at once how this host is; answers with `heartbeat`.
    on_end:
        Called once, with None when the scheduler asked this host to close and with a reason when it is gone.
    """

    def __init__(
        self,
        address: str,
        *,
        token: bytes,
        on_delete: Callable[[Iterable[bytes]], None],
        on_report: Callable[[], None],
        on_end: Callable[[str | None], None],
    ) -> None:
        self._address = address
        self._token = token
        self._on_delete = on_delete
        self._on_report = on_report
        self._on_end = on_end
        self._connection: Connection | None = None
        self._ended = False

    async def connect(self, info: dict[str, Any]) -> None:
        """Register this host; raises `ConnectError` when that can't be done."""
        self._connection = await connect(
            self._address, token=self._token, role="node", info=info, timeout=CONNECT_TIMEOUT_SECONDS
        )
        self._connection.start(self._on_batch, self._on_lost)

    def copied(self, object_id: bytes) -> None:
        """This host's store has a copy of an object now."""
        self._send("copied", [object_id])

    def exited(self, worker_address: str, reason: str) -> None:
        """A worker's process has ended."""
        self._send("exited", worker_address, reason)

    def left(self, name: str, object_ids: list[Any]) -> None:
        """A process that used this host's store has gone, and has put these objects there."""
        for message in pieces(("left", object_ids, name)):
            self._send(*message)

    def heartbeat(self, report: dict[str, Any]) -> None:
        self._send("heartbeat", report)

    def close(self) -> None:
        """Leave, after what was said so far."""
        self._ended = True
        if self._connection is not None:
            self._connection.close()

    def _send(self, *message: Any) -> None:
        if self._connection is not None:
            self._connection.send(message)

    def _on_batch(self, batch: tuple[Any, ...]) -> None:
        for message in batch:
            match message:
                case ("delete", object_ids):
                    self._on_delete(object_ids)
                case ("report",):
                    self._on_report()
                case ("close",):
                    self._end(None)
                case _:
                    raise ProtocolError(f"the scheduler sent a node agent an unknown message {message[0]!r}")

    def _on_lost(self, error: Exception | None) -> None:
        self._end(f"the connection to the scheduler was lost{f' ({error})' if error else ''}")

    def _end(self, reason: str | None) -> None:
        if not self._ended:
            self._ended = True
            self._on_end(reason)
