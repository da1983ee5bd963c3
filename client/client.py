"""`Client`: what a user holds of a cluster.

Here is how a client begins and ends, and what it is. What is done with it stands by topic in `holdfast.client.methods`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

from holdfast.client import defaults
from holdfast.client.core.core import Callbacks, Core
from holdfast.client.core.resources import Resources
from holdfast.client.drivers.asynchronous import AsynchronousDriver, run_here
from holdfast.client.drivers.blocking import BlockingDriver
from holdfast.client.drivers.effects import Driver, Operation
from holdfast.client.futures.callbacks import LoopCallbacks, ThreadCallbacks
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import held_by, holders_of
from holdfast.client.methods.calls import CallMethods
from holdfast.client.methods.collections import CollectionMethods
from holdfast.client.methods.datasets import DatasetMethods
from holdfast.client.methods.diagnostics import DiagnosticMethods
from holdfast.client.methods.executor import ExecutorMethods
from holdfast.client.methods.graphs import GraphMethods
from holdfast.client.methods.information import InformationMethods
from holdfast.client.methods.kernels import KernelMethods
from holdfast.client.methods.looking import LookingMethods
from holdfast.client.methods.loops import LoopMethods
from holdfast.client.methods.moving import MovingMethods
from holdfast.client.methods.objects import ObjectMethods
from holdfast.client.methods.plugins import PluginMethods
from holdfast.client.methods.records import RecordMethods
from holdfast.client.methods.replaying import ReplayMethods
from holdfast.client.methods.restarting import RestartMethods
from holdfast.client.methods.results import ResultMethods
from holdfast.client.methods.running import RunningMethods
from holdfast.client.methods.scheduler_file import SchedulerFileMethods
from holdfast.client.methods.versions import VersionMethods
from holdfast.client.operations import closing, information, opening
from holdfast.cluster.durations import seconds
from holdfast.cluster.notebook import card
from holdfast.cluster.protocol.message import Request
from holdfast.objectstore import Store
from holdfast.objectstore.sizes import format_size


class ClusterScheduler(NamedTuple):
    """The scheduler of a cluster, as its clients name it.

    Examples
    --------
    >>> client.scheduler
    ClusterScheduler(address='tcp://...')
    """

    #: ``tcp://host:port``.
    address: str


class Client(
    CallMethods,
    PluginMethods,
    ResultMethods,
    RunningMethods,
    VersionMethods,
    GraphMethods,
    CollectionMethods,
    DatasetMethods,
    DiagnosticMethods,
    ExecutorMethods,
    InformationMethods,
    LookingMethods,
    KernelMethods,
    LoopMethods,
    MovingMethods,
    ObjectMethods,
    RecordMethods,
    ReplayMethods,
    RestartMethods,
    SchedulerFileMethods,
):
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
    loop
        Has no effect, as a warning says: a blocking client has a loop of its own, an asynchronous one takes that which
        is running.
    timeout : float or str
        How long to try to connect, in seconds or as text such as ``"5 s"``.
    set_as_default : bool
        Whether it becomes the current client and dask's default scheduler. As long as it is that, it is kept: a program
        may write ``Client()`` as a statement. Any other client ends when neither it nor a future of it is referred to.
    scheduler_file : path, optional
        A file that says where the scheduler is: `write_scheduler_file`, ``holdfast start --scheduler-file`` and
        `Scheduler` write one. It is waited for, as long as the scheduler itself.
    security : bool or object, optional
        Refused: connections are not encrypted. For a cluster that the client starts for itself there is a warning, as
        of `LocalCluster`, since nobody beyond this machine can reach that.
    asynchronous : bool
        Whether it belongs to the running event loop; then it is opened by ``await`` or ``async with``.
    name : str, optional
        For logs and messages.
    token : bytes or str, optional
        The cluster's token. Default: that of the cluster object, or this user's (``HOLDFAST_TOKEN``, the token file).
    attach : bool
        Whether to use the object store of this host, if it has one, to read results in place. Without, everything is
        read over the network, as on a host without a store.
    writable : bool
        Whether results are the caller's own to change; see `Future.result`. Each call that reads can choose for itself.
    **cluster_options
        For the `LocalCluster` that it starts, when there is no address: ``n_workers``, ``threads_per_worker``, ...
        Keywords of dask's own `Client` that ask for what is so anyway, such as ``connection_limit=512``, are taken.

    Attributes
    ----------
    id : str
        ``Client-...``, as others see it: its type, its name if it has one, and a number.
    scheduler_address : str
        ``tcp://host:port``.
    cluster : LocalCluster or None
        The cluster object that it was given or started.

    Raises
    ------
    ConnectError
        There is no answer at the address; says what was tried, and for how long.
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
        loop: Any = None,
        timeout: float | str = 10,
        set_as_default: bool = True,
        scheduler_file: str | os.PathLike[str] | None = None,
        security: Any = None,
        asynchronous: bool | None = False,
        name: str | None = None,
        *,
        token: bytes | str | None = None,
        attach: bool = True,
        writable: bool = True,
        **cluster_options: Any,
    ) -> None:
        self._asynchronous = bool(asynchronous)
        self._is_opening = False
        self._wanted = opening.wanted(
            address,
            scheduler_file=scheduler_file,
            timeout=timeout,
            set_as_default=set_as_default,
            name=name,
            token=token,
            attach=attach,
            writable=writable,
            loop=loop,
            security=security,
            cluster_options=cluster_options,
            type_name=type(self).__name__,
        )
        if not self._asynchronous:
            driver = BlockingDriver(run_here)
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

    # -- what it is

    @property
    def id(self) -> str:
        """``Client-...``, as others see it: its type, its name if it has one, and a number.

        Examples
        --------
        >>> client.id
        'Client-...'
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
    def scheduler(self) -> ClusterScheduler:
        """The scheduler, of which a client has the address: ``client.scheduler.address``.

        Examples
        --------
        >>> client.scheduler.address == client.scheduler_address
        True
        """
        return ClusterScheduler(self._core.scheduler_address)

    @property
    def scheduler_file(self) -> str | None:
        """The file by which it has found the scheduler; None if it was given the address otherwise.

        Examples
        --------
        >>> client.scheduler_file is None
        True
        """
        return self._core.scheduler_file

    @property
    def status(self) -> str:
        """``"newly-created"``, ``"running"`` or ``"closed"``. A client whose connection is lost is running still.

        Examples
        --------
        >>> client.status
        'running'
        """
        if self._core_or_none is None:
            return "newly-created"
        return "closed" if self.closed else "running"

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
        """Whether its methods give awaitables, called in this thread.

        Those of a blocking client do so in a coroutine that `sync` runs, and only there.

        Examples
        --------
        >>> client.asynchronous
        False
        """
        core = self._core_or_none
        return self._asynchronous if core is None else core.driver.gives_awaitables

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

    @property
    def futures(self) -> dict[Any, Future]:
        """The keys that this client holds, each with a future of it.

        Examples
        --------
        >>> total = client.submit(sum, [1, 2], key="total")
        >>> "total" in client.futures
        True
        """
        return held_by(self._core)

    @property
    def refcount(self) -> dict[Any, int]:
        """How many futures hold each key in this client: with the last one of them it lets go of the result.

        Examples
        --------
        >>> total = client.submit(sum, [1, 2], key="total")
        >>> again = client.submit(sum, [1, 2], key="total")
        >>> client.refcount["total"]
        2
        """
        return holders_of(self._core)

    @classmethod
    def current(cls, allow_global: bool = True) -> Client:
        """The client of the innermost `as_current`; else inside a task the worker's own; else the one that was opened
        last as a default and is open.

        Parameters
        ----------
        allow_global : bool
            Whether the default may be meant.

        Raises
        ------
        ValueError
            There is none; says what to do.

        Examples
        --------
        >>> Client.current() is client
        True
        """
        client: Client = defaults.current(allow_global=allow_global).client
        return client

    @contextlib.contextmanager
    def as_current(self) -> Iterator[Self]:
        """Within it this is the current client of this thread, or of this coroutine, and dask's default scheduler.

        `Client.current`, `get_client` and all that is called without a client use it. dask's configuration is one for
        the process: two threads that compute collections of two clusters choose with ``x.compute(scheduler=client)``.

        Examples
        --------
        >>> with Client(client.scheduler_address, set_as_default=False) as other, other.as_current():
        ...     Client.current() is other
        True
        """
        core = self._core
        with defaults.chosen(core):
            yield self

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

    def start(self, **kwargs: Any) -> Any:
        """This client, open: a blocking one is so from the beginning. In an asynchronous client: await it.

        Parameters
        ----------
        **kwargs
            Taken for compatibility.

        Raises
        ------
        ConnectError
            The client is closed, or could not connect.

        Examples
        --------
        >>> client.start() is client
        True
        """
        if self._core_or_none is None:
            return self._open()
        return self._run(opening.opened(self._core, self))

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
        if self._core_or_none is None:
            return _nothing()  # it was never opened
        return self._run(closing.close(self._core, seconds(timeout)))

    def shutdown(self) -> Any:
        """Stop the whole cluster, for all its clients, and close this one. In an asynchronous client: await it.

        Examples
        --------
        >>> whole = Client(n_workers=1, set_as_default=False)
        >>> whole.shutdown()
        >>> whole.closed
        True
        """
        return self._run(closing.shutdown(self._core))

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

    def _request(self, request: Request, /, _timeout: float | None = None, **arguments: Any) -> Any:
        """What the scheduler answers to a request of its protocol."""
        return self._run(information.ask(self._core, request, _timeout, arguments))

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


async def _nothing() -> None:
    pass
