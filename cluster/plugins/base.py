"""What a plugin is: the base classes of those that users write."""

from __future__ import annotations

from typing import Any

#: How long the `setup` of a plugin is waited for that says nothing of it.
SETUP_SECONDS = 300.0


class WorkerPlugin:
    """Runs on each worker, from its start to its end, also on those that come later or start again.

    A subclass overrides what it needs. `setup` and `teardown` may be coroutine functions. A worker gets no task before
    the `setup` of all plugins is over that were registered before it came. A plugin that has a ``name`` replaces one
    of the same name that is there.

    Attributes
    ----------
    setup_timeout : float or None
        For how many seconds `setup` is waited for; None: for ever. Whoever registers the plugin gets a `TimeoutError`
        then, which says at which line `setup` stands. A worker that has just come gets tasks then. If `setup` ends
        later, the plugin is there from then on.

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

    setup_timeout: float | None = SETUP_SECONDS

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
            ``"ready"`` to ``"executing"``, and ``"executing"`` to ``"memory"``, ``"error"``, ``"rescheduled"`` (it has
            raised `Reschedule`) or ``"missing"`` (it could not read what it depends on).
        **kwargs
            Nothing yet. ``worker.state.tasks[key]``, of the worker that `setup` was given, has the ``exception`` and
            the ``traceback`` of a task that goes to ``"error"``, and the ``nbytes`` and ``type`` of a result.

        Examples
        --------
        >>> from holdfast import WorkerPlugin
        >>> WorkerPlugin().transition("x-1", "ready", "executing")
        """


class NannyPlugin:
    """Runs once on each host, from its start to its end, in a process beside the host's agent: also on later hosts.

    A subclass overrides what it needs. `setup` and `teardown` may be coroutine functions. A host's workers get no task
    before the `setup` of all plugins is over that were registered before the host came. A host whose workers run in
    its agent's process (``processes=False``) has them as well, but its workers have the environment of that process,
    and don't start anew.

    Attributes
    ----------
    restart : bool
        Whether the worker processes of the host start anew after `setup`.
    setup_timeout : float or None
        As of `WorkerPlugin`.

    Examples
    --------
    >>> from holdfast import NannyPlugin
    >>> class Scratch(NannyPlugin):
    ...     name = "scratch"
    ...     def setup(self, nanny):
    ...         nanny.env["SCRATCH"] = nanny.local_directory
    >>> client.register_plugin(Scratch())
    {'tcp://...': {'status': 'OK'}}
    >>> client.unregister_worker_plugin("scratch", nanny=True)
    {'tcp://...': {'status': 'OK'}}
    """

    restart: bool = False
    setup_timeout: float | None = SETUP_SECONDS

    def setup(self, nanny: Any) -> Any:
        """The plugin is there from now on.

        Parameters
        ----------
        nanny : NannyView
            Has ``name``, ``address``, ``scheduler_address``, ``local_directory``, ``plugins``, ``client``,
            ``log_event``, and ``env``: variables of the environment of the worker processes that start from now on.

        Examples
        --------
        >>> from holdfast import NannyPlugin
        >>> NannyPlugin().setup(nanny=None)
        """

    def teardown(self, nanny: Any) -> Any:
        """The plugin was unregistered or replaced, or the host closes.

        Parameters
        ----------
        nanny : NannyView

        Examples
        --------
        >>> from holdfast import NannyPlugin
        >>> NannyPlugin().teardown(nanny=None)
        """


class SchedulerPlugin:
    """Runs beside the scheduler, in its assistant process, and hears of what happens in it.

    A subclass overrides what it needs, and hears of nothing else. What it is told has happened a moment ago, and comes
    in a thread of its own: one that is slow keeps nothing waiting, and misses changes if it is far too slow. ``start``
    and ``close`` may be coroutine functions, and so may the others.

    Attributes
    ----------
    setup_timeout : float or None
        For how many seconds `start` is waited for, as of `WorkerPlugin`.

    Examples
    --------
    >>> from holdfast import SchedulerPlugin
    >>> class Welcome(SchedulerPlugin):
    ...     name = "welcome"
    ...     def add_client(self, scheduler, client):
    ...         scheduler.log_event("welcome", client)
    >>> client.register_plugin(Welcome())
    {'assistant': {'status': 'OK'}}
    >>> client.unregister_scheduler_plugin("welcome")
    {'assistant': {'status': 'OK'}}
    """

    setup_timeout: float | None = SETUP_SECONDS

    def start(self, scheduler: Any) -> Any:
        """The plugin is there from now on.

        Parameters
        ----------
        scheduler : SchedulerView
            Has ``workers``, ``tasks``, ``clients``, ``address``, ``id``, ``log_event``, ``client``, ...

        Examples
        --------
        >>> from holdfast import SchedulerPlugin
        >>> SchedulerPlugin().start(scheduler=None)
        """

    def close(self) -> Any:
        """The plugin was unregistered or replaced, or the scheduler closes.

        Examples
        --------
        >>> from holdfast import SchedulerPlugin
        >>> SchedulerPlugin().close()
        """

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> Any:
        """A task has gone from one state to another.

        Parameters
        ----------
        key : key
        start, finish : str
            States; a task that has come to be was ``"released"``.
        *args, **kwargs
            ``stimulus_id``: the same for all that one event in the scheduler has brought about. Every hook that takes
            it gets it.

        Examples
        --------
        >>> from holdfast import SchedulerPlugin
        >>> SchedulerPlugin().transition("x-1", "released", "waiting")
        """

    def update_graph(self, scheduler: Any, **kwargs: Any) -> Any:
        """A client has submitted tasks. A large graph comes in several pieces.

        Parameters
        ----------
        scheduler : SchedulerView
        **kwargs
            ``client``, its id; ``keys``, the set of those whose results it wants; ``tasks``, the list of all their
            keys; ``dependencies``, a set of keys for each of them; ``priority``, a tuple for each of them that is there
            still; and ``annotations``, by name and key: ``retries``, ``workers``, ``resources``, ... as far as they
            were said, and none of names of your own. A method that takes some of these by name gets no others.

        Examples
        --------
        >>> from holdfast import SchedulerPlugin
        >>> SchedulerPlugin().update_graph(None, client="client-1", keys={"x"}, tasks=["x"], dependencies={"x": set()})
        """

    def restart(self, scheduler: Any) -> Any:
        """A client restarts all workers: `Client.restart`. All keys that clients held are cancelled.

        Parameters
        ----------
        scheduler : SchedulerView

        Examples
        --------
        >>> from holdfast import SchedulerPlugin
        >>> SchedulerPlugin().restart(None)
        """

    def log_event(self, topic: str, msg: Any) -> Any:
        """An event was logged: by a client, a task or a plugin, or by the scheduler.

        Parameters
        ----------
        topic : str
            An event of several topics is told once for each of them.
        msg
            The event.

        Examples
        --------
        >>> from holdfast import SchedulerPlugin
        >>> SchedulerPlugin().log_event("losses", 0.25)
        """

    def add_worker(self, scheduler: Any, worker: str) -> Any:
        """A worker has come.

        Parameters
        ----------
        scheduler : SchedulerView
        worker : str
            Its address.

        Examples
        --------
        >>> from holdfast import SchedulerPlugin
        >>> SchedulerPlugin().add_worker(None, "tcp://10.0.0.1:40123/0")
        """

    def remove_worker(self, scheduler: Any, worker: str, **kwargs: Any) -> Any:
        """A worker is gone.

        Parameters
        ----------
        scheduler : SchedulerView
        worker : str
            Its address.
        **kwargs
            As of `transition`.

        Examples
        --------
        >>> from holdfast import SchedulerPlugin
        >>> SchedulerPlugin().remove_worker(None, "tcp://10.0.0.1:40123/0")
        """

    def add_client(self, scheduler: Any, client: str) -> Any:
        """A client has come.

        Parameters
        ----------
        scheduler : SchedulerView
        client : str
            Its id.

        Examples
        --------
        >>> from holdfast import SchedulerPlugin
        >>> SchedulerPlugin().add_client(None, "client-1")
        """

    def remove_client(self, scheduler: Any, client: str) -> Any:
        """A client is gone.

        Parameters
        ----------
        scheduler : SchedulerView
        client : str
            Its id.

        Examples
        --------
        >>> from holdfast import SchedulerPlugin
        >>> SchedulerPlugin().remove_client(None, "client-1")
        """
