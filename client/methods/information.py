"""What there is in the cluster: hosts, workers, and where results lie."""

from __future__ import annotations

from typing import Any

from holdfast.client.drivers.kinds import takes_its_kind
from holdfast.client.methods.face import Face
from holdfast.client.operations import information
from holdfast.cluster.durations import seconds


class InformationMethods(Face):
    """The methods of a client that ask what there is, and wait until there is enough."""

    @takes_its_kind
    def who_has(self, futures: Any = None, by: str = "host") -> Any:
        """The hosts that have each result. In an asynchronous client: await it.

        Parameters
        ----------
        futures : Future, dask collection, or container of these, optional
            Default: everything in the cluster.
        by : "host" or "worker"
            A result lies in the store of a host, where all of the host's workers read it in place. ``"worker"`` names
            these workers.

        Returns
        -------
        dict
            For each key the addresses of nodes, or of workers.

        Raises
        ------
        ValueError
            ``by`` is neither.

        Examples
        --------
        >>> import numpy as np
        >>> client.who_has(client.scatter(np.arange(1_000_000)))
        {'numpy.ndarray-...': ['tcp://...']}
        """
        return self._run(information.who_has(self._core, futures, by))

    @takes_its_kind
    def has_what(self, workers: Any = None, by: str = "host") -> Any:
        """The keys whose results each host has. In an asynchronous client: await it.

        Parameters
        ----------
        workers : str or list of str, optional
            Hosts, or workers of them. Default: all.
        by : "host" or "worker"
            ``"worker"`` says for each worker which results it reads in place: all that its host has.

        Returns
        -------
        dict
            For each address of a node, or of a worker, the keys.

        Raises
        ------
        ValueError
            ``by`` is neither.

        Examples
        --------
        >>> import numpy as np
        >>> future = client.scatter(np.arange(1_000_000), hash=False)
        >>> any(future.key in keys for keys in client.has_what().values())
        True
        """
        return self._run(information.has_what(self._core, workers, by))

    @takes_its_kind
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
        return self._run(information.nthreads(self._core, workers))

    ncores = nthreads

    def processing(self, workers: Any = None) -> Any:
        """The tasks that each worker has been sent and has not finished. In an asynchronous client: await it.

        Parameters
        ----------
        workers : str or list of str, optional
            Default: all.

        Returns
        -------
        dict
            For each worker's address a tuple of keys, in the order in which the worker was sent them.

        Examples
        --------
        >>> client.processing()
        {'tcp://...': (), 'tcp://...': ()}
        """
        return self._run(information.processing(self._core, workers))

    @takes_its_kind
    def nbytes(self, keys: Any = None, summary: bool = True) -> Any:
        """How large results are, as they lie in the stores. In an asynchronous client: await it.

        Parameters
        ----------
        keys : list, optional
            Keys or futures. Those without a result are left out. Default: all that there are.
        summary : bool
            Whether the sizes of keys that begin alike are added up. ``False``: each key stands for itself.

        Returns
        -------
        dict
            Bytes by prefix, such as ``"inc"``, or by key.

        Examples
        --------
        >>> import numpy as np
        >>> future = client.submit(np.ones, 1000)
        >>> _ = future.result()
        >>> client.nbytes([future])
        {'ones': 8...}
        """
        return self._run(information.nbytes(self._core, keys, summary))

    def get_task_prefix_states(self) -> Any:
        """How many tasks that do the same are in which state. In an asynchronous client: await it.

        Returns
        -------
        dict
            For each prefix of keys the number of tasks by state: ``"released"``, ``"waiting"`` (for others),
            ``"no-worker"``, ``"ready"`` (dask says ``"queued"``), ``"processing"``, ``"memory"``, ``"lost"`` (waits for
            its host to come back), ``"erred"``. States without a task are left out.

        Examples
        --------
        >>> futures = client.map(abs, range(10))
        >>> _ = client.gather(futures)
        >>> client.get_task_prefix_states()["abs"]
        {'memory': 10}
        """
        return self._run(information.prefix_states(self._core))

    @property
    def dashboard_link(self) -> str:
        """The address of the cluster's dashboard; empty, since there is none.

        It is a text in any case, as of a cluster of dask's without bokeh: so what shows it, opens it or looks whether
        there is one goes on.

        Examples
        --------
        >>> client.dashboard_link
        ''
        """
        return ""

    @takes_its_kind
    def scheduler_info(self, n_workers: int = -1) -> Any:
        """What the scheduler knows of itself and of its workers. In an asynchronous client: await it.

        Parameters
        ----------
        n_workers : int
            Of how many workers, the ones that came first. -1: of all.

        Returns
        -------
        dict
            With ``"address"``, ``"n_workers"`` and ``"total_threads"`` of the whole cluster, ``"workers"``: for each
            worker's address a dictionary of what it is (``"name"``, ``"host"``, ``"pid"``, ``"nthreads"``,
            ``"memory_limit"`` in bytes, ``"resources"``, and ``"metrics"``: its ``"memory"`` in bytes, ``"cpu"`` in
            percent of one processor, how many tasks it has, and the ``"store"`` of its host), and ``"places"``:
            for each address that a worker process has or is to have its ``"state"``, ``"running"``, ``"starting"`` or
            ``"down"``, how many have died there (``"deaths"``), how the last one did (``"last_death"``) and how many
            seconds ago (``"last_death_seconds"``). What a host measures is known a few seconds after it has joined.

        Examples
        --------
        >>> len(client.scheduler_info()["workers"])
        2
        """
        return self._run(information.scheduler_info(self._core, n_workers))

    def wait_for_workers(self, n_workers: int = 1, timeout: float | str | None = None) -> Any:
        """Wait until there are so many workers. In an asynchronous client: await it.

        Parameters
        ----------
        n_workers : int
        timeout : float or str, optional
            In seconds, or as text such as ``"1 minute"``.

        Raises
        ------
        TimeoutError
            There were not enough in time; says how many there are and how to start more.

        Examples
        --------
        >>> client.wait_for_workers(2, timeout="10 s")
        """
        return self._run(information.wait_for_workers(self._core, n_workers, seconds(timeout)))
