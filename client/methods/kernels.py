"""IPython kernels in the processes of the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.client.methods.face import Face
from holdfast.client.operations import kernels
from holdfast.client.raising import hides_own_frames


class KernelMethods(Face):
    """The methods of a client that start IPython kernels."""

    @hides_own_frames
    def start_ipython_workers(
        self,
        workers: Any = None,
        magic_names: Any = False,
        qtconsole: bool = False,
        qtconsole_args: Sequence[str] | None = None,
    ) -> Any:
        """Start an IPython kernel in each worker, to look into it. In an asynchronous client: await it.

        In a kernel ``worker`` is the worker. It needs ipykernel where the workers are (``holdfast[ipython]``).

        Parameters
        ----------
        workers : str or list of str, optional
            As for `run`. Default: all.
        magic_names : str or list of str, optional
            In IPython: names of magics, one for each worker, that run a line there. A star stands for a number.
        qtconsole : bool
            Whether to open a Qt console for each.
        qtconsole_args : list of str, optional
            Further arguments of it.

        Returns
        -------
        dict
            For each worker's address what a Jupyter client needs to connect.

        Raises
        ------
        ImportError
            There is no ipykernel on a worker; says how to get it.
        RuntimeError
            The workers share a process, or there are ``magic_names`` outside of IPython.
        ValueError
            There are not as many ``magic_names`` as workers.

        Examples
        --------
        >>> info = client.start_ipython_workers()
        >>> sorted(info) == sorted(client.nthreads())
        True
        """
        return self._run(kernels.start_on_workers(self._core, workers, magic_names, qtconsole, qtconsole_args))

    @hides_own_frames
    def start_ipython_scheduler(
        self,
        magic_name: str | None = "scheduler_if_ipython",
        qtconsole: bool = False,
        qtconsole_args: Sequence[str] | None = None,
    ) -> Any:
        """Start an IPython kernel beside the scheduler, to look at it. In an asynchronous client: await it.

        It runs in the process of `run_on_scheduler`, and ``scheduler`` is the view of the scheduler there.

        Parameters
        ----------
        magic_name : str, optional
            The name of a magic that runs a line there. Default: ``%scheduler``, in IPython.
        qtconsole, qtconsole_args
            As for `start_ipython_workers`.

        Returns
        -------
        dict
            What a Jupyter client needs to connect.

        Raises
        ------
        ImportError
            There is no ipykernel where the scheduler is; says how to get it.
        RuntimeError
            There is a ``magic_name`` outside of IPython.

        Examples
        --------
        >>> info = client.start_ipython_scheduler()
        >>> info["ip"]
        '127.0.0.1'
        """
        return self._run(kernels.start_on_scheduler(self._core, magic_name, qtconsole, qtconsole_args))
