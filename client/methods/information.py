"""What there is in the cluster: hosts, workers, and where results lie."""

from __future__ import annotations

from typing import Any

from holdfast.client.methods.face import Face
from holdfast.client.operations import information
from holdfast.cluster.durations import seconds


class InformationMethods(Face):
    """The methods of a client that ask what there is, and wait until there is enough."""

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
        return self._run(information.who_has(self._core, futures))

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
        return self._run(information.has_what(self._core, workers))

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
        return self._run(information.scheduler_info(self._core))

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
        return self._run(information.wait_for_workers(self._core, n_workers, seconds(timeout)))
