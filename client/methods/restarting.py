"""New processes in the places of workers."""

from __future__ import annotations

from typing import Any

from holdfast.client.drivers.kinds import takes_its_kind
from holdfast.client.methods.face import Face
from holdfast.client.operations import restarting
from holdfast.cluster.durations import seconds


class RestartMethods(Face):
    """The methods of a client that restart workers."""

    @takes_its_kind
    def restart(self, timeout: float | str | None = None, wait_for_workers: bool = True) -> Any:
        """Begin anew: new processes for all workers, and nothing is left of what clients have submitted or scattered.
        In an asynchronous client: await it.

        Every future of every client is cancelled, and its data goes. What runs ends with its process, and is charged
        for nothing. Published datasets stay, with their data: it lies in the hosts' stores, which live on. So do
        futures in queues and variables. What of all these has no result yet is computed by the new processes.

        Parameters
        ----------
        timeout : float or str, optional
            How long it may take, in seconds or as text. Default: 60 s.
        wait_for_workers : bool
            Whether to wait until the new workers are there, or only until the old ones are gone.

        Returns
        -------
        Client
            This one.

        Raises
        ------
        TimeoutError
            Some workers have not ended, or are not there again, in time; names them. All else is done.
        RuntimeError
            A task calls it, which would end itself.

        Examples
        --------
        >>> whole = Client(n_workers=1, set_as_default=False)
        >>> future = whole.submit(abs, -1)
        >>> whole.restart() is whole
        True
        >>> future.cancelled()
        True
        >>> whole.close()
        """
        return self._run(restarting.restart(self._core, seconds(timeout), wait_for_workers))

    def restart_workers(self, workers: Any, timeout: float | str | None = None, raise_for_error: bool = True) -> Any:
        """Have new processes take the places of workers. In an asynchronous client: await it.

        What they run runs again elsewhere, or there, and is charged for nothing. Results stay, in the hosts' stores.

        Parameters
        ----------
        workers : str or list of str
            By address or name, or hosts, which means all of their workers.
        timeout : float or str, optional
            How long to wait for the new ones, in seconds or as text. Default: 60 s.
        raise_for_error : bool
            Whether it is an error if one is not there in time.

        Returns
        -------
        dict
            For the address of each worker ``"OK"``, ``"timed out"``, or ``"removed"`` if its host has
            gone, or it was scaled away meanwhile.

        Raises
        ------
        TimeoutError
            One is not there in time, with ``raise_for_error``; names those that aren't.
        NoWorkerError
            One of the names means no worker; says which there are.
        RuntimeError
            A task names its own worker.

        Examples
        --------
        >>> client.restart_workers(list(client.nthreads())[:1])
        {'tcp://...': 'OK'}
        """
        return self._run(restarting.restart_workers(self._core, workers, seconds(timeout), raise_for_error))
