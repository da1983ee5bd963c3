"""What an operation needs of a client, and what a future refers to.

A `Core` is put together where a client is opened (`holdfast.client.operations.opening`): from a session, a way to the
stores, and a driver. A client is a face of it. So is one inside of tasks, over a worker's connection and store
(`transport.py`). A core that is garbage, because neither its client nor a future of it is there any more, is closed by
its finalizer; so nothing that lives longer may refer to it.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol

from holdfast.client.core.resources import Resources
from holdfast.client.core.sent_functions import SentFunctions
from holdfast.client.core.session import Session
from holdfast.client.drivers.effects import Driver
from holdfast.client.packing.functions import FunctionCache
from holdfast.client.stores.access import StoreAccess
from holdfast.cluster.collecting import process


class Callbacks(Protocol):
    """Calls callbacks of futures, one after the other."""

    def call(self, callback: Callable[[Any], object], argument: Any) -> None:
        """Soon. In any thread, also under a lock."""


class Core:
    """One client's identity, and what it works with.

    Parameters
    ----------
    id, name
        The client's.
    scheduler_address
        ``tcp://host:port``.
    session, stores, driver, callbacks
        See there.
    writable
        Whether results are the caller's own to change, where a call doesn't say.
    make_client
        Makes a client that is the face of this core, when that is asked for and the one that there was is gone.
    resources
        What is closed with this client. None: nothing, as inside of tasks, where all of it is the worker's.

    Attributes
    ----------
    table : KeyTable
        The keys that it holds: the session's.
    functions : FunctionCache
    sent : SentFunctions
    borrowers : set of Core
        Those of other clients that hold keys of this one.
    told_turn : int
        What was posted in it, and before, the scheduler is known to have heard.
    """

    def __init__(
        self,
        *,
        id: str,
        name: str,
        scheduler_address: str,
        session: Session,
        stores: StoreAccess,
        driver: Driver,
        callbacks: Callbacks,
        make_client: Callable[[Core], Any],
        writable: bool = True,
        resources: Resources | None = None,
    ) -> None:
        self.id = id
        self.name = name
        self.scheduler_address = scheduler_address
        self.session = session
        self.table = session.table
        self.stores = stores
        self.driver = driver
        self.callbacks = callbacks
        self.writable = writable
        self.resources = resources
        self.functions = FunctionCache()
        self.sent = SentFunctions(session)
        #: The cluster object that the client was given, or has started.
        self.cluster: Any = None
        #: The file that says where the scheduler is, if it was found by one.
        self.scheduler_file: str | None = None
        self.borrowers: weakref.WeakSet[Core] = weakref.WeakSet()
        self.told_turn = 0
        #: Futures of what was put (`Client.put`), by object, until it is freed.
        self.kept: dict[bytes, Any] = {}
        #: Closes the resources of one that is garbage.
        self.finalizer: weakref.finalize[Any, Any] | None = None
        #: Ends with the loop of an asynchronous client that is left open, and closes it then.
        self.end_of_loop: AsyncGenerator[None] | None = None
        self._make_client = make_client
        process.has_futures = True
        self._client: weakref.ref[Any] | None = None

    @property
    def closed(self) -> bool:
        """Whether it was closed. Its connection may be lost without that; then every call says so."""
        return self.resources is not None and self.resources.closed

    @property
    def client(self) -> Any:
        """The client whose core this is."""
        client = None if self._client is None else self._client()
        return self._make_client(self) if client is None else client

    def belongs_to(self, client: Any) -> None:
        """From now on this is the client."""
        self._client = weakref.ref(client)

    def shares_cluster(self, other: Core) -> bool:
        """Whether both are connected with the same cluster."""
        known = self.session.scheduler.get("id")
        return known is not None and known == other.session.scheduler.get("id")

    def leave_to_parent(self) -> None:
        """In a forked child: whatever is asked of the client raises, nothing of it is closed. Takes no lock."""
        if self.resources is not None:
            self.resources.inherited = True
        self.session.leave_to_parent()
        self.stores.leave_to_parent()
