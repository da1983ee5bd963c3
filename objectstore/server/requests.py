"""What the requests of clients do: for each op of the protocol, the call of the core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from holdfast.objectstore.core.core import LIST_PAGE, StoreCore
from holdfast.objectstore.server.client_connection import ClientConnection
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.protocol import Op, Status

Handlers = Mapping[Op, Callable[..., None]]


class RequestHandlers:
    """The handlers of all requests: each is called with the connection and the checked fields of the request.

    Parameters
    ----------
    core : StoreCore
        What decides.
    stats : callable
        Gives the store's figures.
    headroom : callable
        Gives where the next large objects will lie, and whether pages are being made there.

    Attributes
    ----------
    handlers : mapping
        By op.
    """

    def __init__(
        self,
        core: StoreCore,
        *,
        stats: Callable[[], dict[str, Any]],
        headroom: Callable[[], tuple[list[tuple[int, int]], bool]],
    ) -> None:
        self._core = core
        self._stats = stats
        self._headroom = headroom
        self.handlers: Handlers = {
            Op.ATTACH: self._attach,
            Op.SEAL: lambda connection, items: core.seal(connection.client, items),
            Op.SHARE: lambda connection, *fields: core.share(connection.client, *fields),
            Op.LEASE: lambda connection, *fields: core.lease(connection.client, *fields),
            Op.CREATE: lambda connection, *fields: core.create(connection.client, *fields),
            Op.ABORT: self._abort,
            Op.GET: lambda connection, *fields: core.get(connection.client, *fields),
            Op.UNPIN: lambda connection, object_ids: core.unpin(connection.client, object_ids),
            Op.LAST_UNPIN: lambda connection, slots: core.last_unpins(slots),
            Op.CONTAINS: lambda connection, *fields: core.ask(connection.client, *fields),
            Op.DELETE: self._delete,
            Op.STATS: self._give_stats,
            Op.LIST: self._list,
            Op.HEADROOM: self._give_headroom,
        }

    def _attach(self, connection: ClientConnection, name: str) -> None:
        if name:
            connection.name = name
            self._core.rename(connection.client, name)

    def _abort(self, connection: ClientConnection, offsets: list[int]) -> None:
        for offset in offsets:
            self._core.abort(connection.client, offset)

    def _delete(self, connection: ClientConnection, request: int, object_ids: list[ObjectID]) -> None:
        self._core.delete(object_ids)
        connection.send(request, Status.OK)

    def _give_stats(self, connection: ClientConnection, request: int) -> None:
        connection.send(request, Status.OK, self._stats())

    def _list(self, connection: ClientConnection, request: int, start: int) -> None:
        page = self._core.describe(start, LIST_PAGE)
        connection.send(request, Status.OK, page, len(page) == LIST_PAGE)

    def _give_headroom(self, connection: ClientConnection, request: int) -> None:
        connection.send(request, Status.OK, *self._headroom())
