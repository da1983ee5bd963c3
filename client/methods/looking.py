"""What lies in a cluster, and why tasks are in their states."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from holdfast.client.actors.actor import Actor
from holdfast.client.methods.face import Face
from holdfast.client.operations import dumping, looking
from holdfast.cluster.protocol.requests.looking import OBJECTS_LISTED


class LookingMethods(Face):
    """The methods of a client that explain what there is."""

    def memory(self, by: str | Sequence[str] | None = None, *, limit: int = OBJECTS_LISTED) -> Any:
        """What lies in the object stores, what holds it, and what may be there for nobody.
        In an asynchronous client: await it.

        Parameters
        ----------
        by : str or list of str, optional
            What all objects are grouped by: ``"owner"``, the name of the client that has brought them; ``"holder"``,
            what keeps them; ``"dataset"``; ``"collection"``, the name that the keys of a dask collection have in
            common; ``"prefix"``, the name of what their tasks do; ``"line"``, the line of code that has brought them;
            ``"type"``; ``"host"``. Default: all but the last two.
        limit : int
            So many objects are told in detail, the largest first; 10,000 at most.

        Returns
        -------
        MemoryReport
            Shows itself as tables; has the objects, the groups, and the suspicions as attributes.
            ``holdfast memory`` shows the same. An object is suspected only for a reason, which is told: that only
            clients keep it that have said nothing for ten minutes and wait for nothing, say, or that only objects keep
            it that keep each other.

        Raises
        ------
        TypeError
            ``by`` is no text, and no list of texts.
        ValueError
            Objects can't be grouped by that, or the limit is no number.

        Examples
        --------
        >>> import numpy as np
        >>> future = client.scatter(np.zeros(1_000_000), hash=False)
        >>> report = client.memory()
        >>> report.nbytes > 8_000_000
        True
        >>> [o["owner"] for o in report.objects if o["key"] == future.key] == [client.name or client.id]
        True
        """
        return self._run(looking.memory(self._core, by, limit))

    def explain(self, future: Any) -> Any:
        """Why a future is in its state, and what keeps its result. In an asynchronous client: await it.

        Parameters
        ----------
        future : Future, Actor, key or ObjectID
            An object's id may also be given as it prints. Of a key that is unknown the explanation has some that may
            be meant: those that begin with it, such as the keys of a collection with its name.

        Returns
        -------
        Explanation
            Shows itself in sentences: what the task waits for and why it has no worker, for how long it runs and where
            it is, or how large its result is and in which stores that lies, in memory or on disk, what looks at it
            there, what keeps it alive, and which line of code has brought it. Of an actor it says where that lives, and
            how many of its calls have no answer. All of it is in the attributes too. ``holdfast explain`` shows the
            same.

        Raises
        ------
        TypeError
            It is a list, a collection or the like, which has several futures, or can't be a key.

        Examples
        --------
        >>> import operator
        >>> future = client.submit(operator.truediv, 1, 0)
        >>> _ = future.exception()
        >>> client.explain(future)
        <Explanation: truediv-... erred>
          It failed: ZeroDivisionError: division by zero
          It is kept by the client ...
          It was brought by ..., by the line <doctest ...>:1 in <module>.
        """
        return self._run(looking.explain(self._core, future.key if isinstance(future, Actor) else future))

    def story(self, *keys_or_stimuli: Any, on_error: str = "raise") -> Any:
        """What has become of tasks: how they moved from state to state. In an asynchronous client: await it.

        The scheduler remembers moves from the first time on that it is asked, the last 100,000, since that costs it
        some microseconds for each task. So call it once before what you want to know about.

        Parameters
        ----------
        *keys_or_stimuli : Future, key, or list of these
            Of which tasks.
        on_error : "raise" or "ignore"
            Without effect: only the scheduler is asked, and no worker can fail at it.

        Returns
        -------
        list of tuple
            ``("scheduler", key, before, after, where, time)`` for each move, the oldest first: the states
            (``before`` is None of a task that has come to be), the address of the worker that runs it then or of the
            host that has its result, and the time in seconds since 1970.

        Examples
        --------
        >>> client.story("any")
        []
        >>> future = client.submit(pow, 2, 5)
        >>> _ = future.result()
        >>> [after for _, _, _, after, *_ in client.story(future)]
        ['released', 'ready', 'processing', 'memory']
        """
        return self._run(looking.story(self._core, keys_or_stimuli, on_error))

    def dump_cluster_state(
        self,
        filename: str = "holdfast-cluster-dump",
        write_from_scheduler: bool | None = None,
        exclude: Collection[str] = ("run_spec",),
        format: str = "msgpack",
        **storage_options: Any,
    ) -> Any:
        """Write all that the cluster knows of itself into a file: for reports of faults. Asynchronous client: await it.

        Parameters
        ----------
        filename : str or path
            A file, or a URL that fsspec can write to, such as ``"s3://bucket/dump"``. ``.msgpack.gz`` or ``.yaml`` is
            added, and directories that are missing are made.
        write_from_scheduler : bool, optional
            ``True`` is refused: the client writes, also to URLs.
        exclude : list of str
            Fields to leave out, wherever they are: by default what tasks were submitted as (``"run_spec"``).
            ``"events"`` and ``"logs"`` are large sometimes.
        format : "msgpack" or "yaml"
        **storage_options
            For fsspec, of a URL.

        Raises
        ------
        ValueError
            The format is unknown, or the scheduler is to write.
        TypeError
            There are options, and no URL.

        Examples
        --------
        >>> import gzip, msgpack, os, tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     client.dump_cluster_state(os.path.join(directory, "dump"))
        ...     with gzip.open(os.path.join(directory, "dump.msgpack.gz")) as file:
        ...         sorted(msgpack.unpack(file))
        ['scheduler', 'versions', 'workers']
        """
        return self._run(
            dumping.dump_cluster_state(self._core, filename, write_from_scheduler, exclude, format, storage_options)
        )
