"""What a cluster does and has done: stacks, logs, profiles, records of tasks."""

from __future__ import annotations

import logging
from typing import Any

from holdfast.client.methods.face import Face
from holdfast.client.operations import diagnostics


class DiagnosticMethods(Face):
    """The methods of a client that look at what goes on in the processes of a cluster.

    A worker that can't answer within ten seconds, as one in a long call into C that keeps the interpreter to itself, is
    warned of, and left out.
    """

    def call_stack(self, futures: Any = None, keys: Any = None) -> Any:
        """Where the tasks are that run now, those too that wait for others. In an asynchronous client: await it.

        Parameters
        ----------
        futures : Future, dask collection, or container of these, optional
            Of which tasks. Default: of all.
        keys : list, optional
            The same, by keys.

        Returns
        -------
        dict
            By the addresses of workers and by keys: the frames of the task, each as a text, the outermost first.
            Workers that run none of the tasks are left out.

        Examples
        --------
        >>> client.call_stack()
        {}
        """
        return self._run(diagnostics.call_stack(self._core, futures, keys))

    def get_scheduler_logs(self, n: int | None = None) -> Any:
        """The last lines of the scheduler's log. In an asynchronous client: await it.

        Parameters
        ----------
        n : int, optional
            How many. Default: all that are kept, 10,000 lines of 4 MiB at most.

        Returns
        -------
        tuple of (str, str)
            The level and the text of each line, the newest first.

        Examples
        --------
        >>> client.get_scheduler_logs(n=5)
        (...)
        """
        return self._run(diagnostics.scheduler_logs(self._core, n))

    def get_worker_logs(self, n: int | None = None, workers: Any = None, nanny: bool = False) -> Any:
        """The last lines of the logs of workers, what tasks log included. In an asynchronous client: await it.

        What tasks print is in the files of ``holdfast logs``.

        Parameters
        ----------
        n : int, optional
            How many of each. Default: all that are kept, 10,000 lines of 4 MiB at most.
        workers : str or list of str, optional
            Default: all.
        nanny : bool
            Whether the lines of the node agents are meant, which start the workers: by the addresses of nodes.

        Returns
        -------
        dict
            For each address the level and the text of each line, the newest first.

        Examples
        --------
        >>> def task():
        ...     import logging
        ...     logging.getLogger("mine").warning("something is odd")
        >>> client.submit(task).result()
        >>> [text for lines in client.get_worker_logs().values() for level, text in lines if "odd" in text]
        ['... WARNING ...mine: something is odd']
        """
        return self._run(diagnostics.worker_logs(self._core, n, workers, nanny))

    def forward_logging(self, logger_name: str | None = None, level: int | str = logging.INFO) -> Any:
        """Log here what is logged on the workers, those too that join later. In an asynchronous client: await it.

        A record comes to the logger of the same name in this process, if that takes its level. What the workers have
        logged before is in `get_worker_logs`.

        Parameters
        ----------
        logger_name : str, optional
            Which logger on the workers, with those below it. Default: all.
        level : int or str
            From which level on. The logger there takes this level while it is forwarded, if it had a higher one.

        Examples
        --------
        >>> client.forward_logging("mine", level="INFO")
        >>> client.unforward_logging("mine")
        """
        return self._run(diagnostics.forward_logging(self._core, logger_name, level))

    def unforward_logging(self, logger_name: str | None = None) -> Any:
        """Undo `forward_logging`. In an asynchronous client: await it.

        Parameters
        ----------
        logger_name : str, optional

        Raises
        ------
        ValueError
            It is not forwarded.

        Examples
        --------
        >>> client.forward_logging()
        >>> client.unforward_logging()
        """
        return self._run(diagnostics.unforward_logging(self._core, logger_name))

    def profile(
        self,
        key: str | None = None,
        start: float | str | None = None,
        stop: float | str | None = None,
        workers: Any = None,
        merge_workers: bool = True,
        plot: bool | str = False,
        filename: str | None = None,
        server: bool = False,
        scheduler: bool = False,
    ) -> Any:
        """In which functions tasks spend their time. In an asynchronous client: await it.

        A thread of each worker looks at the others 50 times a second while tasks run, and counts where they are. So
        functions are found that take long, and not those that are called often. What was seen is kept for some minutes
        at least. A worker begins with it when it is asked for the first time, since it costs half a hundredth of a
        processor: so call it once before the computation. Where ``HOLDFAST_PROFILE_INTERVAL`` is in the environment of
        the workers, they begin at once, and look every so many seconds.

        Parameters
        ----------
        key : str, optional
            The prefix of the tasks' keys, such as ``"inc"``. Default: all tasks.
        start, stop : float or str, optional
            Between which times: in seconds since 1970, or as text for so long ago, such as ``"10 s"``.
        workers : str or list of str, optional
            Default: all.
        merge_workers : bool
            Whether the workers are added up. ``False``: a dictionary by their addresses.
        plot : bool or "save"
            Whether to give a figure of bokeh's too; ``"save"`` writes it to ``holdfast-profile.html``, or ``filename``.
        filename : str, optional
            Write a figure into this file. Directories that are missing are made.
        server : bool
            Look at the event loops of the workers instead; they are looked at from the first time on that it is asked.
        scheduler : bool
            The same for the scheduler's.

        Returns
        -------
        dict or (dict, Figure)
            A tree: how often a function was seen (``"count"``), which (``"description"``), and the same of what it has
            called (``"children"``).

        Raises
        ------
        ImportError
            A plot needs bokeh: ``pip install holdfast[plots]``.

        Examples
        --------
        >>> client.profile()["identifier"]
        'root'
        """
        return self._run(
            diagnostics.profile(self._core, key, start, stop, workers, merge_workers, plot, filename, server, scheduler)
        )

    def get_task_stream(
        self,
        start: float | str | None = None,
        stop: float | str | None = None,
        count: int | None = None,
        plot: bool | str = False,
        filename: str = "task-stream.html",
        bokeh_resources: Any = None,
    ) -> Any:
        """What each task took, and where and when it ran. In an asynchronous client: await it.

        Workers record that from the first time on that it is asked for, the last 20,000 tasks of each. So call it once
        before the computation, or use `get_task_stream`, the function, as a context.

        Parameters
        ----------
        start, stop : float or str, optional
            Of tasks that ran between these times: in seconds since 1970, or as text for so long ago: ``"10 s"``.
        count : int, optional
            How many, the last ones. Without effect if ``start`` and ``stop`` are given.
        plot : bool or "save"
            Whether to give a figure of bokeh's too; ``"save"`` writes it into a file.
        filename : str
            The file. Directories that are missing are made.
        bokeh_resources : bokeh.resources.Resources, optional
            Where the file has bokeh's scripts from.

        Returns
        -------
        tuple of dict, or (tuple of dict, Figure)
            For each task, in the order in which they ended: ``"key"``, ``"worker"``, ``"thread"``, ``"status"``
            (``"OK"`` or ``"error"``), ``"nbytes"``, ``"type"``, and ``"startstops"``: when it read its arguments
            (``"deserialize"``), ran (``"compute"``), and stored its result (``"store"``).

        Raises
        ------
        ImportError
            A plot needs bokeh: ``pip install holdfast[plots]``.

        Examples
        --------
        >>> client.get_task_stream()
        ()
        >>> client.submit(pow, 2, 3).result()
        8
        >>> [(record["key"], record["status"]) for record in client.get_task_stream()]
        [('pow-...', 'OK')]
        """
        return self._run(diagnostics.task_stream(self._core, start, stop, count, plot, filename, bokeh_resources))
