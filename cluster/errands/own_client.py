"""The client of a process that does errands beside another one: it is opened when it is first needed."""

from __future__ import annotations

import threading
from typing import Any


class OwnClient:
    """A client of the cluster, which is this process's default.

    Parameters
    ----------
    address, token
        The scheduler's, and the cluster's.
    name
        The client's.
    """

    def __init__(self, address: str, token: bytes, name: str) -> None:
        self._address = address
        self._token = token
        self._name = name
        self._lock = threading.Lock()
        self._client: Any = None

    def __call__(self) -> Any:
        """The client. In any thread."""
        with self._lock:
            if self._client is None:
                from holdfast.client import Client  # it builds on the cluster

                self._client = Client(self._address, token=self._token, name=self._name)
            return self._client
