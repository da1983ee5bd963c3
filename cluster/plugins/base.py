"""What a plugin is: the base classes of those that users write."""

from __future__ import annotations

from typing import Any


class WorkerPlugin:
    """Runs on each worker, from its start to its end, also on those that come later or start again.

    A subclass overrides what it needs. `setup` and `teardown` may be coroutine functions. A worker gets no task before
    the `setup` of all plugins is over that were registered before it came. A plugin that has a ``name`` replaces one
    of the same name that is there.

    Examples
    --------
    >>> from holdfast import WorkerPlugin, get_worker
    >>> class Counter(WorkerPlugin):
    ...     name = "counter"
    ...     def setup(self, worker):
    ...         self.count = 0
    ...     def transition(self, key, start, finish, **kwargs):
    ...         self.count += finish == "memory"
    >>> client.register_plugin(Counter())
    {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
    >>> client.submit(pow, 2, 3, pure=False).result()
    8
    >>> sum(client.run(lambda dask_worker: dask_worker.plugins["counter"].count).values())
    1
    >>> client.unregister_worker_plugin("counter")
    {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
    """

    def setup(self, worker: Any) -> Any:
        """The plugin is there from now on.

        Parameters
        ----------
        worker : Worker
            Has ``name``, ``address``, ``nthreads``, ``local_directory``, ``plugins``, ...

        Examples
        --------
        >>> from holdfast import WorkerPlugin
        >>> WorkerPlugin().setup(worker=None)
        """

    def teardown(self, worker: Any) -> Any:
        """The plugin was unregistered or replaced, or the worker closes.

        Parameters
        ----------
        worker : Worker

        Examples
        --------
        >>> from holdfast import WorkerPlugin
        >>> WorkerPlugin().teardown(worker=None)
        """

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """A task goes from one state to another, in the thread that runs it: it must not take long.

        Parameters
        ----------
        key : key
        start, finish : str
            ``"ready"`` to ``"executing"``, and ``"executing"`` to ``"memory"``, ``"error"`` or ``"missing"`` (it could
            not read what it depends on).
        **kwargs
            Nothing yet.

        Examples
        --------
        >>> from holdfast import WorkerPlugin
        >>> WorkerPlugin().transition("x-1", "ready", "executing")
        """
