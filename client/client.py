"""`Client`: what a user holds of a cluster."""

from __future__ import annotations

from typing import Any

from holdfast.client import defaults
from holdfast.client.futures.future import seconds
from holdfast.client.operations import datasets
from holdfast.client.operations.collections import futures_of
from holdfast.client.operations.datasets import Datasets
from holdfast.client.operations.graph_calls import DaskFace
from holdfast.client.operations.results import Results
from holdfast.client.operations.submit import Calls
from holdfast.client.packing.keys import MAX_INTEGER
from holdfast.client.packing.options import names_of_workers
from holdfast.cluster import protocol
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.notebook import card
from holdfast.cluster.protocol.shapes import in_slices
from holdfast.objectstore.sizes import format_size

#: Keys that are asked about with one request, and how much they may take.
MAX_ASKED = 10_000
MAX_ASKED_NBYTES = 16 << 20
#: The scheduler answers for itself; this is for one that does not.
_GRACE_SECONDS = 10.0
#: Longer is for ever.
_LONGEST_WAIT_SECONDS = 1e8


class Client(Calls, Results, DaskFace):
    """A connection to a cluster: submit work, read results, compute dask collections, share datasets.

    Without an address, also in ``HOLDFAST_ADDRESS`` and in dask's configuration (``scheduler-address``), or with
    keywords that configure one, it starts a cluster on this machine, and closes it with itself.

    An open client is dask's default scheduler, so that ``x.compute()`` runs on the cluster. All methods may be called
    from any thread.

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
    **cluster_options
        For the `LocalCluster` that it starts, when there is no address: ``n_workers``, ``threads_per_worker``, ...
        Keywords of dask's own `Client` that ask for what is so anyway, such as ``asynchronous=False``, are taken.

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
    >>> with Client(n_workers=2) as client:  # doctest: +SKIP
    ...     futures = client.map(pow, [1, 2, 3], [2, 2, 2])
    ...     client.gather(futures)
    [1, 4, 9]
    """

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
        >>> Client.current() is client  # doctest: +SKIP
        True
        """
        return defaults.client_of_this_process()

    # -- datasets

    def publish_dataset(self, *args: Any, name: str | None = None, override: bool = False, **kwargs: Any) -> None:
        """Give collections or futures a name in the cluster; they stay when this client is gone.

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
        >>> client.publish_dataset(flights=frame.persist())  # doctest: +SKIP
        >>> client.publish_dataset(frame, name="flights", override=True)  # doctest: +SKIP
        """
        if bool(args) == bool(kwargs):
            raise ValueError("publish one dataset with name=, or several by keyword: publish_dataset(flights=frame)")
        if args:
            if name is None:
                raise ValueError("a dataset needs a name: publish_dataset(frame, name='flights')")
            named = {name: args[0] if len(args) == 1 else list(args)}
        else:
            if name is not None:
                raise ValueError("name= is for a dataset that is given without one")
            named = kwargs
        datasets.publish(self, named, override)

    def list_datasets(self) -> tuple[str, ...]:
        """The names of all published datasets.

        Examples
        --------
        >>> client.list_datasets()  # doctest: +SKIP
        ('flights',)
        """
        return tuple(self._request(protocol.requests.LIST_DATASETS))

    def get_dataset(self, name: str, default: Any = datasets.NO_DEFAULT) -> Any:
        """A published dataset: the same collection, on futures of this client.

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
        >>> client.get_dataset("flights").delay.mean().compute()  # doctest: +SKIP
        """
        return datasets.get(self, name, default)

    def unpublish_dataset(self, name: str) -> None:
        """Take a dataset's name away. Its data goes when nobody else holds it.

        Parameters
        ----------
        name : str

        Raises
        ------
        DatasetNotFoundError
            There is none of this name.

        Examples
        --------
        >>> client.unpublish_dataset("flights")  # doctest: +SKIP
        """
        datasets.check_name(name)
        self._request(protocol.requests.UNPUBLISH, name=name)

    @property
    def datasets(self) -> Datasets:
        """The published datasets, as a mapping by name."""
        return Datasets(self)

    # -- what there is

    def who_has(self, futures: Any = None) -> dict[Any, list[str]]:
        """The hosts that have each result.

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
        >>> client.who_has(future)  # doctest: +SKIP
        {'sum-c4ca...': ['tcp://127.0.0.1:40123']}
        """
        if futures is None:
            answers = [self._request(protocol.requests.WHO_HAS, keys=None)]
        else:
            keys = [future.key for future in futures_of(futures)]
            answers = [
                self._request(protocol.requests.WHO_HAS, keys=part)
                for part in in_slices(keys, MAX_ASKED, MAX_ASKED_NBYTES)
            ]
        return {key: list(dict.fromkeys(nodes)) for answer in answers for key, nodes in answer.items()}

    def has_what(self, workers: Any = None) -> dict[str, list[Any]]:
        """The keys whose results each host has.

        Parameters
        ----------
        workers : str or list of str, optional
            Hosts, or workers of them. Default: all.

        Returns
        -------
        dict
            For each node address the keys.
        """
        nodes = None if workers is None else names_of_workers(workers)
        return {
            node: list(dict.fromkeys(keys))
            for node, keys in self._request(protocol.requests.HAS_WHAT, nodes=nodes).items()
        }

    def nthreads(self, workers: Any = None) -> dict[str, int]:
        """The number of threads of each worker.

        Parameters
        ----------
        workers : str or list of str, optional
            Default: all.

        Returns
        -------
        dict
            By the workers' addresses.
        """
        return dict(
            self._request(protocol.requests.NTHREADS, workers=None if workers is None else names_of_workers(workers))
        )

    ncores = nthreads

    def scheduler_info(self) -> dict[str, Any]:
        """What the scheduler knows of itself and of its workers.

        Returns
        -------
        dict
            With ``"address"``, ``"workers"``: for each worker's address a dictionary of what it is, and ``"places"``:
            for each address that a worker process has or is to have its ``"state"``, ``"running"``, ``"starting"`` or
            ``"down"``, how many have died there (``"deaths"``), how the last one did (``"last_death"``) and how many
            seconds ago (``"last_death_seconds"``). A place is known a few seconds after its host has joined.
        """
        return dict(self._request(protocol.requests.INFO))

    def wait_for_workers(self, n_workers: int = 1, timeout: float | str | None = None) -> None:
        """Wait until there are so many workers.

        Parameters
        ----------
        n_workers : int
        timeout : float or str, optional
            In seconds, or as text such as ``"1 min"``.

        Raises
        ------
        TimeoutError
            There were not enough in time; says how many there are and how to start more.
        """
        if isinstance(n_workers, bool) or not isinstance(n_workers, int) or not 0 <= n_workers <= MAX_INTEGER:
            raise ValueError(f"n_workers is a number of workers, not {n_workers!r:.100}")
        limit = seconds(timeout)
        if limit is not None:
            if limit != limit:
                raise ValueError("the timeout is a number of seconds, not nan")
            limit = max(0.0, min(limit, _LONGEST_WAIT_SECONDS))
        wait = None if limit is None else limit + _GRACE_SECONDS
        self._request(protocol.requests.WAIT_FOR_WORKERS, _timeout=wait, n=n_workers, timeout=limit)

    # -- ending

    def shutdown(self) -> None:
        """Stop the whole cluster, for everybody, and close this client."""
        try:
            self._request(protocol.requests.SHUTDOWN, _timeout=_GRACE_SECONDS)
        except ConnectError:
            if self._resources.inherited or (not self.closed and self._session.ended is None):
                raise
        self.close()
        if self.cluster is not None:
            self.cluster.close()

    def __repr__(self) -> str:
        state = self._state_in_words()
        if state is not None:
            return f"<Client: {self.scheduler_address}, {state}>"
        return f"<Client: {self.scheduler_address}, hosts: {len(self._session.nodes)}, threads: {self._nthreads()}>"

    def _repr_html_(self) -> str:
        state = self._state_in_words()
        rows: dict[str, Any] = {
            "scheduler": self.scheduler_address,
            "name": self.name or None,
            "state": state or "connected",
        }
        if state is None:
            nodes = self._session.nodes.values()
            store = sum(node.get("capacity") or 0 for node in nodes)
            rows |= {"hosts": len(nodes), "threads": self._nthreads(), "object stores": format_size(store)}
        return card("Client", rows)

    def _state_in_words(self) -> str | None:
        """Why it can't be used, None if it can."""
        if self.closed:
            return "closed"
        ended = self._session.ended
        return None if ended is None else str(ended)

    def _nthreads(self) -> int:
        return sum(node.get("nthreads") or 0 for node in self._session.nodes.values())
