"""A function that is called on each worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.cluster.plugins.base import WorkerPlugin


class SetupCallback(WorkerPlugin):
    """Calls a function on each worker: what `Client.register_worker_callbacks` registers."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def setup(self, worker: Any) -> Any:
        """Call it."""
        return worker.call(self._function)
