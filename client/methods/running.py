"""Functions that run where others are: on workers, beside the scheduler, beside the agents of hosts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.client.methods.face import Face
from holdfast.client.operations import running
from holdfast.client.raising import hides_own_frames


class RunningMethods(Face):
    """The methods of a client that call functions outside of tasks."""

    @hides_own_frames
    def run(
        self,
        function: Callable[..., Any],
        *args: Any,
        workers: Any = None,
        wait: bool = True,
        nanny: bool = False,
        on_error: str = "raise",
        **kwargs: Any,
    ) -> Any:
        """Call a function on all workers now, beside their tasks. In an asynchronous client: await it.

        The function waits for no task, and no task waits for it: it has a thread of its own. It is for side effects
        and for looking, and not for work: nothing runs it again when its worker dies. Where a worker process is just
        being replaced by another one (`restart`, ``cancel(kill=True)``, a ``run_timeout``), the function runs in the
        other one, after the plugins have been set up there.

        Parameters
        ----------
        function : callable
            If it has a parameter ``dask_worker``, it gets the worker. What a coroutine function returns is awaited, in
            a loop for such functions.
        *args, **kwargs
            Its arguments. Large ones go through the object store.
        workers : str or list of str, optional
            Those on which it runs, by names or addresses; a host stands for all of its workers. Default: all.
        wait : bool
            Whether to wait for it. Without, this returns None when it has begun, what it returns is lost, and what it
            raises is in the worker's log.
        nanny : bool
            Whether it runs once on each of their hosts instead, in a process beside the host's agent, where node
            plugins are too (`NannyPlugin`). ``dask_worker`` is then a view of the host, with ``address``, ``name``,
            ``env``, ``plugins``, ... What it returns stands for each of these workers of the host.
        on_error : {"raise", "return", "ignore"}
            What becomes of an error: it is raised, it stands among the results, or it is left out.

        Returns
        -------
        dict
            What it has returned, by the workers' addresses.

        Raises
        ------
        Exception
            What the function raises, with its traceback; or a `ConnectError` if a worker leaves meanwhile, or if the
            scheduler is started again before a worker has answered. The function may have been called there then, and
            is not called a second time.
        ValueError
            A name is none of the cluster's; lists those that there are.
        TypeError
            The function or an argument can't be pickled.

        Examples
        --------
        >>> import os
        >>> client.run(os.getpid)
        {'tcp://...': ..., 'tcp://...': ...}
        >>> def threads_of(dask_worker):
        ...     return dask_worker.nthreads
        >>> set(client.run(threads_of).values())
        {1}
        """
        there = running.run_on_nannies if nanny else running.run_on_workers
        return self._run(there(self._core, function, args, kwargs, workers=workers, wait=wait, on_error=on_error))

    @hides_own_frames
    def run_coroutine(
        self,
        function: Callable[..., Any],
        *args: Any,
        workers: Any = None,
        wait: bool = True,
        nanny: bool = False,
        on_error: str = "raise",
        **kwargs: Any,
    ) -> Any:
        """`run`, under the name that it once had for coroutine functions. In an asynchronous client: await it.

        Parameters
        ----------
        function : callable
        *args, **kwargs
            Its arguments.
        workers, wait, nanny, on_error
            As for `run`.

        Returns
        -------
        dict
            What it has returned, by the workers' addresses.

        Raises
        ------
        Exception
            As of `run`.

        Examples
        --------
        >>> async def address(dask_worker):
        ...     return dask_worker.address
        >>> client.run_coroutine(address)
        {'tcp://...': 'tcp://...', 'tcp://...': 'tcp://...'}
        """
        return self.run(function, *args, workers=workers, wait=wait, nanny=nanny, on_error=on_error, **kwargs)

    @hides_own_frames
    def run_on_scheduler(self, function: Callable[..., Any], *args: Any, wait: bool = True, **kwargs: Any) -> Any:
        """Call a function beside the scheduler, for looking at it. In an asynchronous client: await it.

        The scheduler itself never runs what users have written. The function runs in a process of its own on the
        scheduler's machine, which is started for that when it is first needed, and stays.

        Parameters
        ----------
        function : callable
            If it has a parameter ``dask_scheduler``, it gets a view of the scheduler, with ``tasks``, ``workers``,
            ``clients``, ``address``, ``id``, ``get_events``, ``log_event`` and a ``client``. It is read-only: each look
            asks the scheduler. What a coroutine function returns is awaited.
        *args, **kwargs
            Its arguments. Large ones go through the object store.
        wait : bool
            Whether to wait for it. Without, this returns None when it has begun.

        Returns
        -------
        object
            What the function returns, up to 16 MiB.

        Raises
        ------
        Exception
            What the function raises, with its traceback.
        ConnectError
            The process has ended meanwhile. The next call starts another one.
        TypeError
            The function or an argument can't be pickled.

        Examples
        --------
        >>> def number_of_workers(dask_scheduler):
        ...     return len(dask_scheduler.workers)
        >>> client.run_on_scheduler(number_of_workers)
        2
        """
        return self._run(running.run_on_scheduler(self._core, function, args, kwargs, wait))

    def _list_tasks(self) -> Any:
        return self._run(running.list_tasks(self._core))

    def _list_clients(self) -> Any:
        return self._run(running.list_clients(self._core))
