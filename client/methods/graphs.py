"""dask's graphs and collections: `Client.get`, `Client.compute` and `Client.persist`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.client.actors.making import as_actor
from holdfast.client.core.core import Core
from holdfast.client.core.registry import core_here
from holdfast.client.defaults import check_gives_values
from holdfast.client.methods.face import Face
from holdfast.client.operations import gathering, graphs
from holdfast.client.packing.checks import check_in_one, warn_without_effect
from holdfast.client.packing.options import options_of
from holdfast.client.raising import hides_own_frames


class GraphMethods(Face):
    """The methods of a client that compute what dask has made."""

    @hides_own_frames
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
        actors: Any = None,
        workers: Any = None,
        allow_other_workers: bool | None = None,
        writable: bool | None = None,
        run_timeout: float | str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Compute a dask graph. This is what dask calls when this client is its scheduler.
        In an asynchronous client: await it.

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
        actors : bool or dict, optional
            Whether what ``keys`` name stays on its worker as an actor, as for `submit`; or of which keys that holds,
            ``{key: True}``.
        writable : bool, optional
            As for `Future.result`, if ``sync``. dask passes it on: ``x.compute(writable=False)``.
        direct, fifo_timeout
            Have no effect, as a warning says: see `gather` and `submit`.
        run_timeout : float or str, optional
            How long a run of a task may take, each for itself, as for `submit`.
        asynchronous, **kwargs
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
        >>> client.get({"x": (sum, [1, 2]), "y": (pow, "x", 2)}, ["x", "y"])
        [3, 9]
        """
        _warn_without_effect(fifo_timeout, direct)
        core = core_here(self._core)
        if core is not self._core and sync:
            check_gives_values(core)
        futures = graphs.get(
            core,
            dsk,
            keys,
            restrictions=restrictions,
            loose_restrictions=loose_restrictions,
            resources=resources,
            workers=workers,
            allow_other_workers=allow_other_workers,
            actors=actors,
            as_actor=as_actor,
            common=options_of(priority=priority, retries=retries, run_timeout=run_timeout),
        )
        return _values(core, futures, writable) if sync else futures

    @hides_own_frames
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
        actors: Any = None,
        traverse: bool = True,
        writable: bool | None = None,
        run_timeout: float | str | None = None,
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
            Has no effect, as for `submit`.
        actors : bool or dict, optional
            Whether the results stay on their workers as actors, as for `submit`; or of which collections or keys that
            holds, ``{x: True}``.
        traverse : bool
            Whether to look for collections in nested containers.
        writable : bool, optional
            As for `Future.result`, if ``sync``.
        run_timeout : float or str, optional
            How long a run of a task may take, each for itself, as for `submit`.
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
        >>> import dask.array as da
        >>> future = client.compute(da.ones((1000, 1000)).sum())
        >>> float(future.result())
        1000000.0
        """
        check_in_one("compute", sync)
        check_in_one("compute", optimize_graph)
        _warn_without_effect(fifo_timeout)
        core = self._core
        futures = graphs.compute(
            core,
            collections,
            optimize_graph=optimize_graph,
            traverse=traverse,
            workers=workers,
            allow_other_workers=allow_other_workers,
            resources=resources,
            actors=actors,
            as_actor=as_actor,
            common=options_of(priority=priority, retries=retries, run_timeout=run_timeout),
        )
        return _values(core, futures, writable) if sync else futures

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
        actors: Any = None,
        run_timeout: float | str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Compute dask collections in the background and keep their parts in the cluster.

        Parameters
        ----------
        collections : dask collection, or list of them
            A container with collections in it, as a dictionary, may stand in the place of a collection.
        optimize_graph, workers, allow_other_workers, resources, retries, priority, fifo_timeout, actors,
        run_timeout
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
        >>> import dask.array as da
        >>> x = client.persist(da.ones((1000, 1000), chunks=100))
        >>> float(x.sum().compute())
        1000000.0
        """
        check_in_one("persist", optimize_graph)
        _warn_without_effect(fifo_timeout)
        return graphs.persist(
            self._core,
            collections,
            optimize_graph=optimize_graph,
            workers=workers,
            allow_other_workers=allow_other_workers,
            resources=resources,
            actors=actors,
            as_actor=as_actor,
            common=options_of(priority=priority, retries=retries, run_timeout=run_timeout),
        )


def _values(core: Core, futures: Any, writable: bool | None) -> Any:
    """The results of futures that a call has just made for them."""
    return core.driver.run(gathering.gather(core, futures, writable=writable))


def _warn_without_effect(fifo_timeout: Any, direct: bool | None = None) -> None:
    if fifo_timeout is not None:
        warn_without_effect("fifo_timeout", fifo_timeout)
    if direct is False:
        warn_without_effect("direct", direct)
