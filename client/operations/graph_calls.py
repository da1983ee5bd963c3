"""`Client.get`, `Client.compute` and `Client.persist`: dask's graphs and collections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.client.core.core import ClientBase
from holdfast.client.futures.future import check_in_one
from holdfast.client.operations import collections as dask_collections
from holdfast.client.packing import options
from holdfast.client.raising import hide_own_frames


class DaskFace(ClientBase):
    """dask's scheduler, and what its users call."""

    def get(
        self,
        dsk: Any,
        keys: Any,
        restrictions: Mapping[Any, Any] | None = None,
        loose_restrictions: Any = None,
        resources: Mapping[Any, Any] | None = None,
        sync: bool = True,
        asynchronous: bool | None = None,
        direct: bool | None = None,
        retries: int | None = None,
        priority: float = 0,
        fifo_timeout: Any = None,
        workers: Any = None,
        allow_other_workers: bool | None = None,
        writable: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Compute a dask graph. This is what dask calls when this client is its scheduler.

        Parameters
        ----------
        dsk : dict, HighLevelGraph or Expr
        keys : key, or nested list of keys
            What to compute of it. A key of the graph that a future of this client holds stands for that one's result.
        restrictions : dict, optional
            For keys the workers that may run them.
        loose_restrictions : list of keys, optional
            Keys for which ``restrictions`` are only preferences.
        resources : dict, optional
            What all tasks need, ``{"GPU": 1}``, or some of them, ``{key: {"GPU": 1}}``.
        sync : bool
            Whether to wait and return the values, or to return futures.
        retries : int, optional
            How often a task is run again when it fails.
        priority : float
            Higher ones run first.
        workers, allow_other_workers
            As for `submit`, for the tasks that ``keys`` name.
        writable : bool, optional
            As for `Future.result`, if ``sync``. dask passes it on: ``x.compute(writable=False)``.
        asynchronous, direct, fifo_timeout, **kwargs
            Taken for compatibility; dask passes what it was given for other schedulers.

        Returns
        -------
        Values, or futures, nested like ``keys``.

        Raises
        ------
        ValueError
            A key is not in the graph.
        TypeError
            A task can't be pickled; names it.
        Exception
            What a task raised, if ``sync``.

        Examples
        --------
        >>> client.get({"x": (sum, [1, 2]), "y": (pow, "x", 2)}, ["x", "y"])  # doctest: +SKIP
        [3, 9]
        """
        outputs = list(dask_collections.result_keys(keys))
        whole = [(None, outputs)]
        of_outputs: dict[Any, dict[str, Any]] = {}

        def choose(name: str, choices: Mapping[Any, Any]) -> None:
            for key, value in choices.items():
                of_outputs.setdefault(key, {})[name] = value

        common = options.options_of(priority=priority, retries=retries)
        if resources and not all(isinstance(value, Mapping) for value in resources.values()):
            common = {**common, **options.options_of(resources=resources)}
        else:
            choose("resources", resources or {})
        choose("workers", options.chosen(workers, whole, nested=False))
        choose("workers", restrictions or {})
        for key in of_outputs:
            if allow_other_workers or loose_restrictions is True or key in (loose_restrictions or ()):
                of_outputs[key]["allow_other_workers"] = True
        futures = dask_collections.submit_graph(
            self,  # type: ignore[arg-type]
            dsk,
            outputs,
            common=common,
            of_outputs={key: options.options_of(**chosen) for key, chosen in of_outputs.items()},
        )
        packed = dask_collections.repack(keys, futures)
        if not sync:
            return packed
        try:
            return self._gather(packed, writable=writable)  # type: ignore[attr-defined]
        except BaseException as error:
            hide_own_frames(error)
            raise

    def compute(
        self,
        collections: Any,
        sync: bool = False,
        optimize_graph: bool = True,
        workers: Any = None,
        allow_other_workers: Any = False,
        resources: Any = None,
        retries: int | None = None,
        priority: float = 0,
        fifo_timeout: Any = None,
        traverse: bool = True,
        writable: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Compute dask collections in the background, each to one value.

        Parameters
        ----------
        collections : dask collection, or list of them
            Other objects in the list are returned as they are.
        sync : bool
            Whether to wait and return the values.
        optimize_graph : bool
            Whether dask optimizes the graphs first.
        workers : str, list or dict
            Workers that may compute the results; what these need may be computed anywhere. A dictionary chooses for
            each collection: ``{x: "alice", (y, z): ["bob", "carol"]}``.
        allow_other_workers : bool or list
            Whether ``workers`` are only preferences; for all collections, or for those in the list.
        resources : dict
            What the results need: ``{"GPU": 1}``, or ``{x: {"GPU": 1}}``.
        retries : int, optional
            How often a task is run again when it fails.
        priority : float
            Higher ones run first.
        fifo_timeout
            Taken for compatibility.
        traverse : bool
            Whether to look for collections in nested containers.
        writable : bool, optional
            As for `Future.result`, if ``sync``.
        **kwargs
            Taken for compatibility.

        Returns
        -------
        Future, or list of them if a list was given. Values if ``sync``.

        Raises
        ------
        TypeError
            A task can't be pickled; names it.

        Examples
        --------
        >>> future = client.compute(dask.array.ones((1000, 1000)).sum())  # doctest: +SKIP
        >>> future.result()  # doctest: +SKIP
        1000000.0
        """
        check_in_one("compute", sync)
        check_in_one("compute", optimize_graph)
        futures = dask_collections.compute(
            self,  # type: ignore[arg-type]
            collections,
            optimize_graph=optimize_graph,
            traverse=traverse,
            workers=workers,
            allow_other_workers=allow_other_workers,
            resources=resources,
            common=options.options_of(priority=priority, retries=retries),
        )
        if not sync:
            return futures
        try:
            return self._gather(futures, writable=writable)  # type: ignore[attr-defined]
        except BaseException as error:
            hide_own_frames(error)
            raise

    def persist(
        self,
        collections: Any,
        optimize_graph: bool = True,
        workers: Any = None,
        allow_other_workers: Any = None,
        resources: Any = None,
        retries: int | None = None,
        priority: float = 0,
        fifo_timeout: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Compute dask collections in the background and keep their parts in the cluster.

        Parameters
        ----------
        collections : dask collection, or list of them
        optimize_graph, workers, allow_other_workers, resources, retries, priority, fifo_timeout
            As for `compute`.
        **kwargs
            Taken for compatibility.

        Returns
        -------
        The same collection, or list of collections, made of futures. It returns at once; the parts stay in the stores
        as long as the collection, or one that was made of it, is there.

        Raises
        ------
        TypeError
            It is not a dask collection, or a task can't be pickled.

        Examples
        --------
        >>> x = client.persist(dask.array.ones((1000, 1000), chunks=100))  # doctest: +SKIP
        >>> x.sum().compute()  # doctest: +SKIP
        1000000.0
        """
        check_in_one("persist", optimize_graph)
        return dask_collections.persist(
            self,  # type: ignore[arg-type]
            collections,
            optimize_graph=optimize_graph,
            workers=workers,
            allow_other_workers=allow_other_workers,
            resources=resources,
            common=options.options_of(priority=priority, retries=retries),
        )
