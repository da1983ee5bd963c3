"""Variables of the environment, on workers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from holdfast.cluster.plugins.base import WorkerPlugin


class Environ(WorkerPlugin):
    """Sets variables of the environment on every worker, before its first task.

    A library that reads a variable only when it is imported has been imported by then if Holdfast needs it, as numpy;
    give such variables to 'holdfast start' or to the cluster in its own environment.

    It is a plugin of workers, so those that there are have the variables at once, and need not start anew. Registered
    with `Client.register_nanny_plugin`, it gives them instead to the worker processes that start later, from their
    beginning: before what they preload, and before what they import.

    Parameters
    ----------
    environ : dict, optional
        The variables; None for a value takes the variable away.

    Examples
    --------
    >>> import os
    >>> from holdfast import Environ
    >>> client.register_plugin(Environ({"A_NAME_OF_MINE": "1"}))
    {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
    >>> client.submit(os.getenv, "A_NAME_OF_MINE").result()
    '1'
    """

    name = "environ"

    def __init__(self, environ: Mapping[str, object] | None = None) -> None:
        self.environ = {str(name): None if value is None else str(value) for name, value in (environ or {}).items()}

    def setup(self, worker: Any) -> None:
        """Set them, on a worker or for the workers of a nanny."""
        if hasattr(worker, "env"):
            worker.env.update(self.environ)
            return
        for name, value in self.environ.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def teardown(self, worker: Any) -> None:
        """Let later workers of a nanny have what they would have had. A worker keeps its variables."""
        if hasattr(worker, "env"):
            for name in self.environ:
                worker.env.pop(name, None)
