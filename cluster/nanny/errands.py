"""What the nanny does: the handler of each errand (`cluster/protocol/errands.py`)."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

from holdfast import objectstore
from holdfast.cluster.errands.calls import Called, Calls
from holdfast.cluster.errands.own_client import OwnClient
from holdfast.cluster.errands.threads import Handlers
from holdfast.cluster.nanny.plugins import NannyPlugins
from holdfast.cluster.nanny.view import Environment, NannyView
from holdfast.cluster.protocol.errands import (
    RESULT_NBYTES,
    RUN_ON_NANNY,
    SET_UP_NANNY_PLUGINS,
    TAKE_DOWN_NANNY_PLUGIN,
)
from holdfast.cluster.protocol.nanny import ENVIRONMENT
from holdfast.cluster.worker.errands import Values, put_result
from holdfast.objectstore import Store


class NannyErrands:
    """Does the errands of a nanny.

    Parameters
    ----------
    scheduler_address, address
        Of the scheduler, and of the node.
    name
        The host's, for people.
    store_socket
        Of the host's store. The nanny attaches to it when it is first needed.
    token
        The cluster's.
    send
        Sends the agent a message, in any thread.
    """

    def __init__(
        self,
        scheduler_address: str,
        address: str,
        name: str,
        *,
        store_socket: str,
        token: bytes,
        send: Callable[[tuple[Any, ...]], None],
    ) -> None:
        self._name = f"the nanny of {name}"
        self._client = OwnClient(scheduler_address, token, self._name)
        self._store_socket = store_socket
        self._lock = threading.Lock()
        self._store: Store | None = None
        self.view = NannyView(
            scheduler_address,
            address,
            name,
            local_directory=os.path.dirname(store_socket),
            env=Environment(lambda variables: send(ENVIRONMENT(variables))),
            client=self._client,
        )
        self.calls = Calls(
            self._name,
            {"dask_worker": self.view, "dask_nanny": self.view},
            encode=lambda value: self.store.encode(value),
            store=lambda encoded: put_result(self.store, encoded),
            inside=contextlib.nullcontext,
            name="holdfast-errand-nanny",
            inline_nbytes=RESULT_NBYTES,
        )
        self.plugins = NannyPlugins(self.view, self.calls, self._values)

    def handlers(self) -> Handlers:
        """What is done about each."""
        return {
            RUN_ON_NANNY: self._run,
            SET_UP_NANNY_PLUGINS: self.plugins.set_up_on_host,
            TAKE_DOWN_NANNY_PLUGIN: self.plugins.take_down,
        }

    @property
    def store(self) -> Store:
        """The store of the host."""
        with self._lock:
            if self._store is None:
                self._store = objectstore.connect(self._store_socket, name=self._name)
            return self._store

    def close(self) -> None:
        """Take the plugins down, and end what runs."""
        self.plugins.close()
        self.calls.close()

    def _run(self, call: bytes | memoryview, dependencies: Any = (), waits: bool = True) -> Called:
        return self.calls.call(call, self._values(dependencies), waits=waits)

    def _values(self, dependencies: Any) -> Values | None:
        return Values(self.store, dependencies, private=True) if dependencies else None
