"""Plugins, and what comes to workers in the same way: files and functions that set them up."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from holdfast.client.drivers.kinds import takes_its_kind
from holdfast.client.methods.face import Face
from holdfast.client.operations import plugins
from holdfast.client.raising import hides_own_frames
from holdfast.cluster.plugins.base import NannyPlugin, SchedulerPlugin, WorkerPlugin
from holdfast.cluster.plugins.callbacks import SetupCallback
from holdfast.cluster.plugins.files import UploadFile


class PluginMethods(Face):
    """The methods of a client that register plugins."""

    @hides_own_frames
    def register_plugin(self, plugin: Any, name: str | None = None, idempotent: bool = False) -> Any:
        """Have a plugin run in the cluster from now on, also where somebody comes later.
        In an asynchronous client: await it.

        Parameters
        ----------
        plugin : WorkerPlugin, NannyPlugin or SchedulerPlugin
            Its base class says where it runs. It is pickled.
        name : str, optional
            A plugin replaces the one of this name. Default: its ``name``; without one, a name of its own.
        idempotent : bool
            Whether nothing is done if there is a plugin of this name.

        Returns
        -------
        dict
            ``{"status": "OK"}`` for each address where it has been set up; that of the process beside the scheduler is
            ``"assistant"``.

        Raises
        ------
        Exception
            What its ``setup`` raises, with its traceback. It stays registered, for those that come later.
        TypeError
            It is no plugin, or can't be pickled.
        ValueError
            There are too many plugins, or they take too much; says what there may be.

        Examples
        --------
        >>> from holdfast import WorkerPlugin
        >>> class Greeter(WorkerPlugin):
        ...     name = "greeter"
        ...     def setup(self, worker):
        ...         self.greeting = f"hello from {worker.name}"
        >>> client.register_plugin(Greeter())
        {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
        >>> client.run(lambda dask_worker: dask_worker.plugins["greeter"].greeting)
        {'tcp://...': 'hello from ...', 'tcp://...': 'hello from ...'}
        >>> client.unregister_worker_plugin("greeter")
        {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
        """
        if isinstance(plugin, WorkerPlugin):
            kind = "worker"
        elif isinstance(plugin, NannyPlugin):
            kind = "nanny"
        elif isinstance(plugin, SchedulerPlugin):
            kind = "scheduler"
        else:
            raise TypeError(
                f"a plugin is an object of a class below WorkerPlugin, NannyPlugin or SchedulerPlugin, and "
                f"{plugin!r:.200} is none: its base class says where it runs"
            )
        return self._run(plugins.register(self._core, kind, plugin, name, idempotent))

    @hides_own_frames
    def register_worker_plugin(self, plugin: Any = None, name: str | None = None, nanny: bool | None = None) -> Any:
        """Have a plugin run on each worker, also on those that come later. In an asynchronous client: await it.

        As `register_plugin`, and takes any object with a ``setup``, ``teardown`` or ``transition``.

        Parameters
        ----------
        plugin : WorkerPlugin
        name : str, optional
            As for `register_plugin`.
        nanny : bool, optional
            Whether it is for hosts: `register_nanny_plugin`. Default: whether it is a `NannyPlugin`.

        Returns
        -------
        dict
            As of `register_plugin`.

        Raises
        ------
        Exception
            As of `register_plugin`.

        Examples
        --------
        >>> class Marker:
        ...     def setup(self, worker):
        ...         worker.marked = True
        >>> client.register_worker_plugin(Marker(), name="marker")
        {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
        >>> client.unregister_worker_plugin("marker")
        {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
        """
        if isinstance(plugin, NannyPlugin) if nanny is None else nanny:
            return self.register_nanny_plugin(plugin, name)
        _check_is_one("worker", plugin, "setup", "teardown", "transition")
        return self._run(plugins.register(self._core, "worker", plugin, name, False))

    @hides_own_frames
    def unregister_worker_plugin(self, name: str, nanny: bool | None = None) -> Any:
        """Take a plugin of workers down, and forget it. In an asynchronous client: await it.

        Parameters
        ----------
        name : str
        nanny : bool, optional
            Whether it is one of hosts.

        Returns
        -------
        dict
            ``{"status": "OK"}`` for each address where it was.

        Raises
        ------
        ValueError
            There is none of this name; lists those that there are.
        Exception
            What its ``teardown`` raises.

        Examples
        --------
        >>> from holdfast import WorkerPlugin
        >>> client.register_plugin(WorkerPlugin(), name="idle")
        {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
        >>> client.unregister_worker_plugin("idle")
        {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
        """
        return self._run(plugins.unregister(self._core, "nanny" if nanny else "worker", name))

    @hides_own_frames
    def register_nanny_plugin(self, plugin: Any, name: str | None = None, idempotent: bool = False) -> Any:
        """Have a plugin run once on each host, also on those that come later. In an asynchronous client: await it.

        As `register_plugin`, and takes any object with a ``setup`` or ``teardown``. It runs in a process beside the
        host's agent, which is that of ``run(..., nanny=True)``. `unregister_worker_plugin` with ``nanny=True`` takes
        it down.

        Parameters
        ----------
        plugin : NannyPlugin
            If its ``restart`` is true, the worker processes of each host start anew when it has been set up there.
        name : str, optional
        idempotent : bool
            As for `register_plugin`.

        Returns
        -------
        dict
            As of `register_plugin`, by the addresses of the hosts.

        Raises
        ------
        Exception
            As of `register_plugin`.

        Examples
        --------
        >>> from holdfast import NannyPlugin
        >>> client.register_nanny_plugin(NannyPlugin(), name="idle")
        {'tcp://...': {'status': 'OK'}}
        >>> client.unregister_worker_plugin("idle", nanny=True)
        {'tcp://...': {'status': 'OK'}}
        """
        _check_is_one("node", plugin, "setup", "teardown")
        return self._run(plugins.register(self._core, "nanny", plugin, name, idempotent))

    @hides_own_frames
    def register_scheduler_plugin(self, plugin: Any, name: str | None = None, idempotent: bool = False) -> Any:
        """Have a plugin run beside the scheduler, in the process of `run_on_scheduler`.
        In an asynchronous client: await it.

        Parameters
        ----------
        plugin : SchedulerPlugin
        name : str, optional
        idempotent : bool
            As for `register_plugin`.

        Returns
        -------
        dict
            As of `register_plugin`.

        Raises
        ------
        Exception
            What its ``start`` raises, with its traceback.

        Examples
        --------
        >>> from holdfast import SchedulerPlugin
        >>> client.register_scheduler_plugin(SchedulerPlugin(), name="idle")
        {'assistant': {'status': 'OK'}}
        >>> client.unregister_scheduler_plugin("idle")
        {'assistant': {'status': 'OK'}}
        """
        _check_is_one("scheduler", plugin, "start", "close", "transition")
        return self._run(plugins.register(self._core, "scheduler", plugin, name, idempotent))

    @hides_own_frames
    def unregister_scheduler_plugin(self, name: str) -> Any:
        """Close a plugin of the scheduler, and forget it. In an asynchronous client: await it.

        Parameters
        ----------
        name : str

        Returns
        -------
        dict
            ``{"status": "OK"}`` for where it was.

        Raises
        ------
        ValueError
            There is none of this name; lists those that there are.
        Exception
            What its ``close`` raises.

        Examples
        --------
        >>> from holdfast import SchedulerPlugin
        >>> client.register_plugin(SchedulerPlugin(), name="idle")
        {'assistant': {'status': 'OK'}}
        >>> client.unregister_scheduler_plugin("idle")
        {'assistant': {'status': 'OK'}}
        """
        return self._run(plugins.unregister(self._core, "scheduler", name))

    @hides_own_frames
    def register_worker_callbacks(self, setup: Callable[..., Any] | None = None) -> Any:
        """Have a function called on each worker, now and on those that come later. In an asynchronous client: await it.

        Parameters
        ----------
        setup : callable
            If it has a parameter ``dask_worker``, it gets the worker. Several are called in the order in which they
            were registered.

        Returns
        -------
        dict
            As of `register_plugin`.

        Raises
        ------
        Exception
            What the function raises, with its traceback.

        Examples
        --------
        >>> def prepare(dask_worker):
        ...     dask_worker.is_prepared = True
        >>> client.register_worker_callbacks(prepare)
        {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
        """
        if not callable(setup):
            raise TypeError(f"setup is a function, not {setup!r:.200}")
        return self._run(plugins.register(self._core, "worker", SetupCallback(setup), None, False))

    @hides_own_frames
    @takes_its_kind
    def upload_file(self, filename: str | os.PathLike[str], load: bool = True) -> Any:
        """Have a file on each worker, also on those that come later, and import it there.
        In an asynchronous client: await it.

        Parameters
        ----------
        filename : str or path
            A ``.py`` file, a ``.zip``, ``.egg`` or ``.whl`` archive, or any other file. Uploading a file of the same
            name again replaces it, and reloads its modules.
        load : bool
            Whether to import it.

        Returns
        -------
        dict
            As of `register_plugin`.

        Raises
        ------
        OSError
            The file can't be read.
        Exception
            What importing it raises.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "functions_of_mine.py")
        >>> path.write_text("def double(x): return 2 * x")
        27
        >>> client.upload_file(path)
        {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
        >>> client.submit(lambda: __import__("functions_of_mine").double(4)).result()
        8
        """
        return self.register_plugin(UploadFile(filename, load))


def _check_is_one(kind: str, plugin: Any, *methods: str) -> None:
    """Raise a `TypeError` if an object has none of the methods of such a plugin."""
    if isinstance(plugin, type) or not any(hasattr(plugin, method) for method in methods):
        *first, last = methods
        raise TypeError(f"a {kind} plugin is an object with a {', '.join(first)} or {last}, not {plugin!r:.200}")
