"""`Client`: what a user holds of a cluster.

Its methods are described here, and done in `holdfast.client.operations`: each is one operation, which the client's
driver takes to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from holdfast.client import defaults
from holdfast.client.core.core import Callbacks, Core
from holdfast.client.core.registry import core_here
from holdfast.client.core.resources import Resources
from holdfast.client.datasets import Datasets
from holdfast.client.drivers.asynchronous import AsynchronousDriver
from holdfast.client.drivers.blocking import BlockingDriver
from holdfast.client.drivers.effects import Driver, Operation
from holdfast.client.futures.callbacks import LoopCallbacks, ThreadCallbacks
from holdfast.client.futures.future import Future
from holdfast.client.operations import (
    cancelling,
    closing,
    datasets,
    gathering,
    graphs,
    information,
    opening,
    scattering,
)
from holdfast.client.operations.submit import map_calls, submit
from holdfast.client.packing.checks import check_in_one, seconds
from holdfast.client.packing.options import options_of
from holdfast.client.raising import hide_own_frames
from holdfast.cluster.notebook import card
from holdfast.cluster.protocol.message import Request
from holdfast.objectstore import Store
from holdfast.objectstore.sizes import format_size


class Client:
    """A connection to a cluster: submit work, read results, compute dask collections, share datasets.

    Without an address, also in ``HOLDFAST_ADDRESS`` and in dask's configuration (``scheduler-address``), or with
    keywords that configure one, it starts a cluster on this machine, and closes it with itself.

    An open client is dask's default scheduler, so that ``x.compute()`` runs on the cluster. All methods may be called
    from any thread.

    With ``asynchronous=True`` it belongs to the running event loop, asyncio's, uvloop's or tornado's, and has no thread
    of its own: ``client = await Client(address, asynchronous=True)``. What gives futures or collections (`submit`,
    `map`, `compute`, `persist`) is called there as in any client, and never waits; all other methods are awaited. One
    that is left open is closed when `asyncio.run` ends.

    Parameters
    ----------
    address : str or cluster, optional
        The scheduler's, ``"HOST:PORT"`` or ``"tcp://HOST:PORT"``, or a `LocalCluster`. Default: that of
        ``HOLDFAST_ADDRESS``, or of dask's configuration.
    timeout : float or str
        How long to try to connect, in seconds or as text such as ``"5 s"``.
    set_as_default : bool
        Whether it becomes the current client and dask's default scheduler.
    name : str, optional
        For logs and messages.
    token : bytes or str, optional
        The cluster's token. Default: that of the cluster object, or this user's (``HOLDFAST_TOKEN``, the token file).
    attach : bool
        Whether to use the object store of this host, if it has one, to read results in place. Without, everything is
        read over the network, as on a host without a store.
    writable : bool
        Whether results are the caller's own to change; see `Future.result`. Each call that reads can choose for itself.
    asynchronous : bool
        Whether it belongs to the running event loop; then it is opened by ``await`` or ``async with``.
    **cluster_options
        For the `LocalCluster` that it starts, when there is no address: ``n_workers``, ``threads_per_worker``, ...
        Keywords of dask's own `Client` that ask for what is so anyway, such as ``connection_limit=512``, are taken.

    Attributes
    ----------
    id : str
        ``client-...``, as others see it.
    scheduler_address : str
        ``tcp://host:port``.
    cluster : LocalCluster or None
        The cluster object that it was given or started.

    Raises
    ------
    ConnectError
        Nobody answers at the address; says what was tried, and for how long.
    AuthenticationError
        There is no token, or it is not the cluster's.
    VersionMismatchError
        The cluster runs another version of Holdfast.
    TypeError
        A keyword is not known, or asks for something that there is not; says what to use instead.

    Examples
    --------
    >>> from holdfast import Client
    >>> with Client(n_workers=2) as client:
    ...     futures = client.map(pow, [1, 2, 3], [2, 2, 2])
    ...     client.gather(futures)
    [1, 4, 9]

    An asynchronous client on the loop of its caller:

    >>> import asyncio
    >>> async def main():
    ...     async with Client(n_workers=2, asynchronous=True) as client:
    ...         return await client.submit(pow, 3, 2)
    >>> asyncio.run(main())
    9
    """

    def __init__(
        self,
        address: Any = None,
        *,
        timeout: float | str = 10,
        set_as_default: bool = True,
        name: str | None = None,
        token: bytes | str | None = None,
        attach: bool = True,
        writable: bool = True,
        asynchronous: bool | None = False,
        **cluster_options: Any,
    ) -> None:
        self._core_or_none: Core | None = None
        self._asynchronous = bool(asynchronous)
        self._is_opening = False
        self._wanted = opening.wanted(
            address,
            timeout=timeout,
            set_as_default=set_as_default,
            name=name,
            token=token,
            attach=attach,
            writable=writable,
            cluster_options=cluster_options,
        )
        if not self._asynchronous:
            driver = BlockingDriver()
            callbacks = ThreadCallbacks()
            resources = Resources(driver)
            resources.others.append(callbacks.close)
            driver.run(self._opening(driver, resources, callbacks))

    def _opening(self, driver: Driver, resources: Resources, callbacks: Callbacks) -> Operation[Self]:
        core = yield from opening.open_core(self._wanted, driver, resources, callbacks, type(self)._of_core)
        self._belong_to(core)
        defaults.opened(core, self._wanted.set_as_default)
        if driver.asynchronous:
            yield from closing.close_with_loop(core)
        return self

    def _belong_to(self, core: Core) -> None:
        self._core_or_none = core
        core.belongs_to(self)

    @classmethod
    def _of_core(cls, core: Core) -> Self:
        """Another client of a core: the face of that, whose own one is gone."""
        self = cls.__new__(cls)
        self._asynchronous = core.driver.asynchronous
        self._belong_to(core)
        return self

    @property
    def _core(self) -> Core:
        core = self._core_or_none
        if core is None:
            raise RuntimeError("an asynchronous client is opened by 'await client', or by 'async with client'")
        return core

    # -- what it is

    @property
    def id(self) -> str:
        """``client-...``, as others see it.

        Examples
        --------
        >>> client.id
        'client-...'
        """
        return self._core.id

    @property
    def name(self) -> str:
        """For logs and messages.

        Examples
        --------
        >>> Client(client.scheduler_address, name="etl", set_as_default=False).name
        'etl'
        """
        return self._wanted.name if self._core_or_none is None else self._core.name

    @property
    def scheduler_address(self) -> str:
        """``tcp://host:port``.

        Examples
        --------
        >>> client.scheduler_address
        'tcp://...'
        """
        return self._core.scheduler_address

    @property
    def cluster(self) -> Any:
        """The cluster object that it was given or started; None without one.

        Examples
        --------
        >>> client.cluster.scheduler_address == client.scheduler_address
        True
        """
        return self._core.cluster

    @property
    def asynchronous(self) -> bool:
        """Whether its methods give awaitables.

        Examples
        --------
        >>> client.asynchronous
        False
        """
        return self._asynchronous

    @classmethod
    def current(cls, allow_global: bool = True) -> Client:
        """The client that was opened last as a default and is open; inside a task, the worker's own.

        Parameters
        ----------
        allow_global : bool
            Taken for compatibility.

        Raises
        ------
        ValueError
            There is none.

        Examples
        --------
        >>> Client.current() is client
        True
        """
        client: Client = defaults.current().client
        return client

    # -- its end

    @property
    def closed(self) -> bool:
        """Whether it was closed. (Its connection may be lost without that; then every call says so.)

        Examples
        --------
        >>> client.closed
        False
        """
        return self._core_or_none is not None and self._core_or_none.closed

    def close(self, timeout: float | str | None = None) -> Any:
        """Close this client, and the cluster if it started one. Futures that are pending are cancelled.
        In an asynchronous client: await it.

        Results that were read stay valid. Open clients close by themselves when the process ends; twice is no error.
        In a fork of the process that opened it this does nothing.

        Parameters
        ----------
        timeout : float or str, optional
            How long to wait for the end of the connection, in seconds or as text such as ``"10 s"``.

        Examples
        --------
        >>> other = Client(client.scheduler_address, set_as_default=False)
        >>> other.close()
        >>> other.closed
        True
        """
        return self._core.driver.run(closing.close(self._core, seconds(timeout)))

    def shutdown(self) -> Any:
        """Stop the whole cluster, for everybody, and close this client. In an asynchronous client: await it.

        Examples
        --------
        >>> whole = Client(n_workers=1, set_as_default=False)
        >>> whole.shutdown()
        >>> whole.closed
        True
        """
        return self._core.driver.run(closing.shutdown(self._core))

    def __enter__(self) -> Self:
        if self._asynchronous:
            raise TypeError("an asynchronous client is opened with 'async with Client(...)', not with 'with'")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _open(self) -> Self:
        if not self._asynchronous:
            raise TypeError("this client is a blocking one and open already: Client(..., asynchronous=True) is awaited")
        if self._core_or_none is None:
            if self._is_opening:
                raise RuntimeError("this client is being opened already: await it once")
            self._is_opening = True
            try:
                driver = AsynchronousDriver()
                await driver.run(self._opening(driver, Resources(driver), LoopCallbacks(driver.loop)))
            finally:
                self._is_opening = False
        return self

    def __reduce__(self) -> Any:
        raise TypeError("a Client can't be pickled: it is one process's connection. Connect another one there")

    # -- calls

    def submit(
        self,
        func: Callable[..., Any],
        *args: Any,
        key: Any = None,
        workers: Any = None,
        resources: Mapping[str, float] | None = None,
        retries: int | None = None,
        priority: float = 0,
        fifo_timeout: Any = None,
        allow_other_workers: bool = False,
        pure: bool = True,
        writable: bool = False,
        **kwargs: Any,
    ) -> Future:
        """Have ``func(*args, **kwargs)`` computed by a worker.

        Parameters
        ----------
        func : callable
        *args, **kwargs
            Its arguments. Futures among them stand for their values, also inside lists, tuples, sets, dictionaries,
            and the fields of namedtuples, dataclasses and attrs' classes. One inside another object stays a future.
            Data of more than 32 KiB among them, and in what ``func`` closes over, is put into the object store.
        key : str or tuple, optional
            The name of the computation. Default: made of the function's name and what is called with what. As long as
            somebody holds a future of a key, the key stands for that result; a key that nobody holds is free.
        workers : str or list of str, optional
            Workers or hosts that may run it, by name or address. Default: any.
        resources : dict, optional
            What it needs of its worker's resources, such as ``{"GPU": 1}``.
        retries : int, optional
            How often it is run again when it fails.
        priority : float
            Higher ones run first; among equals, what was submitted first.
        fifo_timeout
            Taken for compatibility. Priorities always follow the order of submission.
        allow_other_workers : bool
            Whether ``workers`` is only a preference.
        pure : bool
            Whether the same call gives the same result. If so, calls that are the same are one computation as long as
            somebody holds a future of it. ``pure=False`` computes anew every time.
        writable : bool
            Whether ``func`` writes into its arguments. It gets views of large results that are its own then: pages are
            copied as it writes to them, and nobody else sees what it has written. Without, it shares memory that can't
            be written. A call that fails or dies for that is run once more as if ``writable=True`` had been said, as
            are all further calls of the function: say it where a call has effects that must not happen twice.

        Returns
        -------
        Future

        Warns
        -----
        UserWarning
            A future of this client holds ``key`` for another call: that one's future is returned.

        Raises
        ------
        TypeError
            The function or an argument can't be pickled; names it. Nothing was sent.
        ValueError, CancelledError
            A future among the arguments is of another cluster, or was cancelled or released.
        ConnectError
            The connection with the scheduler is gone.

        Examples
        --------
        >>> total = client.submit(sum, [1, 2, 3])
        >>> client.submit(pow, total, 2).result()
        36
        """
        return submit(
            self._core,
            func,
            args,
            kwargs,
            key=key,
            pure=pure,
            options=options_of(priority, retries, workers, allow_other_workers, resources, writable),
        )

    def map(
        self,
        func: Callable[..., Any],
        *iterables: Iterable[Any],
        key: Any = None,
        workers: Any = None,
        retries: int | None = None,
        resources: Mapping[str, float] | None = None,
        priority: float = 0,
        allow_other_workers: bool = False,
        fifo_timeout: Any = None,
        pure: bool = True,
        writable: bool = False,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[Future]:
        """Have ``func`` applied to the items of iterables, as `map` does.

        Much faster than a loop over `submit`.

        Parameters
        ----------
        func : callable
        *iterables : iterable
            Of arguments, which may be futures; up to the end of the shortest, which must have one.
        key : str or list of str, optional
            The beginning of the keys, or all of them.
        workers, retries, resources, priority, allow_other_workers, fifo_timeout, pure, writable
            As for `submit`, for each call.
        batch_size : int, optional
            How many calls are sent at once.
        **kwargs
            Further arguments of each call. Large ones are put into the object store once.

        Returns
        -------
        list of Future

        Raises
        ------
        TypeError, ValueError, CancelledError, ConnectError
            As for `submit`; and a ValueError if all the iterables are known to have no end, or none has ended after
            ten million calls.

        Examples
        --------
        >>> client.gather(client.map(pow, [1, 2, 3], [2, 2, 2]))
        [1, 4, 9]
        """
        return map_calls(
            self._core,
            func,
            iterables,
            kwargs,
            key=key,
            pure=pure,
            batch_size=batch_size,
            options=options_of(priority, retries, workers, allow_other_workers, resources, writable),
        )

    # -- results

    def gather(
        self,
        futures: Any,
        errors: Literal["raise", "skip"] = "raise",
        direct: bool | None = None,
        *,
        writable: bool | None = None,
    ) -> Any:
        """Wait for futures and read their results. In an asynchronous client: await it.

        Parameters
        ----------
        futures : Future, or nested list, tuple, set, dict or iterator of futures
            Also of other clients of the same cluster.
        errors : {"raise", "skip"}
            Whether a task that failed raises, or its future is left out of what is returned. A result that is there
            and can't be unpickled here raises in any case.
        direct
            Taken for compatibility. Results never pass through the scheduler, unless they are small.
        writable : bool, optional
            As for `Future.result`.

        Returns
        -------
        What was given, with results in the place of futures. Of an iterator an iterator, which reads as it goes. A
        future that is there twice has one result.

        Raises
        ------
        ValueError
            A future is of another cluster.
        UnreadableError
            A result can't be unpickled here; names its key, its class, and where it lies.
        Exception
            As `Future.result`, for the first future that failed.

        Examples
        --------
        >>> client.gather({"a": client.submit(sum, [1, 2]), "b": [client.submit(len, "abc")]})
        {'a': 3, 'b': [3]}
        """
        check_in_one("gather", errors)
        check_in_one("gather", direct)
        try:
            return self._core.driver.run(gathering.gather(self._core, futures, errors, writable))
        except BaseException as error:
            hide_own_frames(error)
            raise

    def scatter(
        self,
        data: Any,
        workers: Any = None,
        broadcast: bool = False,
        direct: bool | None = None,
        hash: bool = True,
        timeout: float | str | None = None,
    ) -> Any:
        """Put values into the object store. In an asynchronous client: await it.

        Parameters
        ----------
        data : list, tuple, set, frozenset, dict, range, iterator, or object
            Containers are taken apart: each item becomes an object. The keys of a dictionary are the futures' keys.
            What is of a class derived from these becomes one object. Futures inside an object live as long as it.
        workers : str or list of str, optional
            Workers or hosts in whose stores it goes, by turns. Default: this host's, if it has a store; else all.
        broadcast : bool
            Whether to put everything into every store.
        direct
            Taken for compatibility. Nothing passes through the scheduler.
        hash : bool
            Whether to name values by their content, so that the same one is stored once. Otherwise by chance.
        timeout : float or str, optional
            How long to wait for a host and for room in its store.

        Returns
        -------
        Futures, in a container of the type of ``data``.

        Raises
        ------
        StoreFullError
            There is no room; says what there is and who holds it.
        TimeoutError
            No host with a store came in time.
        NoWorkerError
            ``workers`` names one that is not there.
        ValueError
            A key of the dictionary is in use by a future of this client with another value.

        Examples
        --------
        >>> import numpy as np
        >>> future = client.scatter(np.arange(1_000_000))
        >>> int(client.submit(np.sum, future).result())
        499999500000
        """
        return self._core.driver.run(scattering.scatter(self._core, data, workers, broadcast, hash, seconds(timeout)))

    def cancel(self, futures: Any, asynchronous: bool | None = None, force: bool = False) -> Any:
        """Don't compute futures that are not done, forget those that are, and whatever depends on them.
        In an asynchronous client: await it.

        A task that is running runs to its end; its result is dropped. What other clients hold stays, without ``force``;
        a future of another client in this process is cancelled as by that one.

        Parameters
        ----------
        futures : Future, dask collection, or container of these
        asynchronous
            Taken for compatibility.
        force : bool
            Whether to cancel them for other clients, too.

        Examples
        --------
        >>> import time
        >>> future = client.submit(time.sleep, 1)
        >>> client.cancel(future)
        >>> future.cancelled()
        True
        """
        check_in_one("cancel", asynchronous)
        return self._core.driver.run(cancelling.cancel(self._core, futures, force))

    # -- dask's graphs and collections

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
        >>> client.get({"x": (sum, [1, 2]), "y": (pow, "x", 2)}, ["x", "y"])
        [3, 9]
        """
        core = core_here(self._core)
        futures = graphs.get(
            core,
            dsk,
            keys,
            restrictions=restrictions,
            loose_restrictions=loose_restrictions,
            resources=resources,
            workers=workers,
            allow_other_workers=allow_other_workers,
            common=options_of(priority=priority, retries=retries),
        )
        if not sync:
            return futures
        try:
            return core.driver.run(gathering.gather(core, futures, writable=writable))
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
        >>> import dask.array as da
        >>> future = client.compute(da.ones((1000, 1000)).sum())
        >>> float(future.result())
        1000000.0
        """
        check_in_one("compute", sync)
        check_in_one("compute", optimize_graph)
        core = self._core
        futures = graphs.compute(
            core,
            collections,
            optimize_graph=optimize_graph,
            traverse=traverse,
            workers=workers,
            allow_other_workers=allow_other_workers,
            resources=resources,
            common=options_of(priority=priority, retries=retries),
        )
        if not sync:
            return futures
        try:
            return core.driver.run(gathering.gather(core, futures, writable=writable))
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
        >>> import dask.array as da
        >>> x = client.persist(da.ones((1000, 1000), chunks=100))
        >>> float(x.sum().compute())
        1000000.0
        """
        check_in_one("persist", optimize_graph)
        return graphs.persist(
            self._core,
            collections,
            optimize_graph=optimize_graph,
            workers=workers,
            allow_other_workers=allow_other_workers,
            resources=resources,
            common=options_of(priority=priority, retries=retries),
        )

    # -- datasets

    def publish_dataset(self, *args: Any, name: str | None = None, override: bool = False, **kwargs: Any) -> Any:
        """Give collections or futures a name in the cluster; they stay when this client is gone.
        In an asynchronous client: await it.

        A collection that was not persisted is published as a recipe: getting it works, and computing it starts from
        scratch. Data that is large goes into the object store, and every process that gets the dataset reads it in
        place. Several datasets are published together or, if one can't be, none of them.

        Parameters
        ----------
        *args
            A dataset, published as ``name``. Several are published as one list.
        name : str, optional
        override : bool
            Whether it may replace a dataset of this name.
        **kwargs
            Datasets by their names.

        Raises
        ------
        DatasetExistsError
            A name is taken.
        TypeError
            It can't be pickled.
        ValueError
            A name is too long, or there are too many datasets; says how many there may be.
        StoreFullError
            There is no room for its data; says what there is and who holds it.

        Examples
        --------
        >>> import dask.array as da
        >>> x = da.arange(10, chunks=5)
        >>> client.publish_dataset(numbers=x.persist())
        >>> client.publish_dataset(x + 1, name="numbers", override=True)
        """
        named = datasets.named(args, name, kwargs)
        return self._core.driver.run(datasets.publish(self._core, named, override))

    def list_datasets(self) -> Any:
        """The names of all published datasets. In an asynchronous client: await it.

        Examples
        --------
        >>> client.publish_dataset(flights=[1, 2, 3])
        >>> client.list_datasets()
        ('flights',)
        """
        return self._core.driver.run(datasets.names(self._core))

    def get_dataset(self, name: str, default: Any = datasets.NO_DEFAULT) -> Any:
        """A published dataset: the same collection, on futures of this client. In an asynchronous client: await it.

        Parameters
        ----------
        name : str
        default : object, optional
            What to return if there is none of this name.

        Raises
        ------
        DatasetNotFoundError
            There is none of this name; lists those that there are.
        UnreadableError
            It can't be unpickled here; says why.

        Examples
        --------
        >>> import dask.array as da
        >>> client.publish_dataset(numbers=da.arange(10, chunks=5).persist())
        >>> int(client.get_dataset("numbers").sum().compute())
        45
        """
        return self._core.driver.run(datasets.get(self._core, name, default))

    def unpublish_dataset(self, name: str) -> Any:
        """Take a dataset's name away. Its data goes when nobody else holds it. In an asynchronous client: await it.

        Parameters
        ----------
        name : str

        Raises
        ------
        DatasetNotFoundError
            There is none of this name.

        Examples
        --------
        >>> client.publish_dataset(flights=[1, 2, 3])
        >>> client.unpublish_dataset("flights")
        >>> client.list_datasets()
        ()
        """
        return self._core.driver.run(datasets.unpublish(self._core, name))

    @property
    def datasets(self) -> Datasets:
        """The published datasets, as a mapping by name.

        Examples
        --------
        >>> client.datasets["primes"] = [2, 3, 5]
        >>> client.datasets["primes"]
        [2, 3, 5]
        """
        return Datasets(self)

    # -- what there is

    def who_has(self, futures: Any = None) -> Any:
        """The hosts that have each result. In an asynchronous client: await it.

        Parameters
        ----------
        futures : Future, dask collection, or container of these, optional
            Default: everything in the cluster.

        Returns
        -------
        dict
            For each key the addresses of nodes.

        Examples
        --------
        >>> import numpy as np
        >>> client.who_has(client.scatter(np.arange(1_000_000)))
        {'numpy.ndarray-...': ['tcp://...']}
        """
        return self._core.driver.run(information.who_has(self._core, futures))

    def has_what(self, workers: Any = None) -> Any:
        """The keys whose results each host has. In an asynchronous client: await it.

        Parameters
        ----------
        workers : str or list of str, optional
            Hosts, or workers of them. Default: all.

        Returns
        -------
        dict
            For each node address the keys.

        Examples
        --------
        >>> import numpy as np
        >>> future = client.scatter(np.arange(1_000_000), hash=False)
        >>> any(future.key in keys for keys in client.has_what().values())
        True
        """
        return self._core.driver.run(information.has_what(self._core, workers))

    def nthreads(self, workers: Any = None) -> Any:
        """The number of threads of each worker. In an asynchronous client: await it.

        Parameters
        ----------
        workers : str or list of str, optional
            Default: all.

        Returns
        -------
        dict
            By the workers' addresses.

        Examples
        --------
        >>> client.nthreads()
        {'tcp://...': 1, 'tcp://...': 1}
        """
        return self._core.driver.run(information.nthreads(self._core, workers))

    ncores = nthreads

    def scheduler_info(self) -> Any:
        """What the scheduler knows of itself and of its workers. In an asynchronous client: await it.

        Returns
        -------
        dict
            With ``"address"``, ``"workers"``: for each worker's address a dictionary of what it is, and ``"places"``:
            for each address that a worker process has or is to have its ``"state"``, ``"running"``, ``"starting"`` or
            ``"down"``, how many have died there (``"deaths"``), how the last one did (``"last_death"``) and how many
            seconds ago (``"last_death_seconds"``). A place is known a few seconds after its host has joined.

        Examples
        --------
        >>> len(client.scheduler_info()["workers"])
        2
        """
        return self._core.driver.run(information.scheduler_info(self._core))

    def wait_for_workers(self, n_workers: int = 1, timeout: float | str | None = None) -> Any:
        """Wait until there are so many workers. In an asynchronous client: await it.

        Parameters
        ----------
        n_workers : int
        timeout : float or str, optional
            In seconds, or as text such as ``"1 min"``.

        Raises
        ------
        TimeoutError
            There were not enough in time; says how many there are and how to start more.

        Examples
        --------
        >>> client.wait_for_workers(2, timeout="10 s")
        """
        return self._core.driver.run(information.wait_for_workers(self._core, n_workers, seconds(timeout)))

    @property
    def store(self) -> Store | None:
        """The object store of this host, attached to; None on a host without one, or with ``attach=False``.

        Examples
        --------
        >>> import numpy as np
        >>> array = client.submit(np.ones, 1_000_000).result(writable=False)
        >>> client.store.address_in_arena(array.__array_interface__["data"][0])
        True
        """
        local = self._core.stores.local
        return None if local is None else local[0]

    def _request(self, request: Request, /, _timeout: float | None = None, **arguments: Any) -> Any:
        """What the scheduler answers to a request of its protocol."""
        return self._core.driver.run(information.ask(self._core, request, _timeout, arguments))

    # -- how it is shown

    def __repr__(self) -> str:
        state = self._state_in_words()
        if state is not None:
            where = "" if self._core_or_none is None else f"{self.scheduler_address}, "
            return f"<Client: {where}{state}>"
        return (
            f"<Client: {self.scheduler_address}, hosts: {len(self._core.session.nodes)}, threads: {self._nthreads()}>"
        )

    def _repr_html_(self) -> str:
        state = self._state_in_words()
        rows: dict[str, Any] = {
            "scheduler": None if self._core_or_none is None else self.scheduler_address,
            "name": self.name or None,
            "state": state or "connected",
        }
        if state is None:
            nodes = self._core.session.nodes.values()
            store = sum(node.get("capacity") or 0 for node in nodes)
            rows |= {"hosts": len(nodes), "threads": self._nthreads(), "object stores": format_size(store)}
        return card("Client", rows)

    def _state_in_words(self) -> str | None:
        """Why it can't be used, None if it can."""
        if self._core_or_none is None:
            return "not open"
        if self.closed:
            return "closed"
        ended = self._core.session.ended
        return None if ended is None else str(ended)

    def _nthreads(self) -> int:
        return sum(node.get("nthreads") or 0 for node in self._core.session.nodes.values())


def get_client() -> Client:
    """The client to use here: inside a task that of its worker, else the one that was opened last as a default.

    The tasks of a worker share a client, which uses the worker's connection and store. A task that waits by it, in
    `Future.result`, `Client.gather` or ``x.compute()``, lends its place to other tasks, and goes on when there is a
    place again. So tasks may wait for tasks that they have submitted, on a cluster of any size.

    Returns
    -------
    Client

    Raises
    ------
    ValueError
        There is none.

    Examples
    --------
    >>> from holdfast import get_client
    >>> def fibonacci(n):
    ...     if n < 2:
    ...         return n
    ...     client = get_client()
    ...     return sum(client.gather([client.submit(fibonacci, n - 1), client.submit(fibonacci, n - 2)]))
    >>> client.submit(fibonacci, 10).result()
    55
    """
    return Client.current()
