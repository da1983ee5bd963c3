"""Where data lies, and which workers go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.client.drivers.kinds import takes_its_kind
from holdfast.client.methods.face import Face
from holdfast.client.operations import moving
from holdfast.cluster.durations import seconds


class MovingMethods(Face):
    """The methods of a client that move data between hosts, and let workers go."""

    @takes_its_kind
    def replicate(
        self,
        futures: Any,
        n: int | None = None,
        workers: Any = None,
        branching_factor: int = 2,
        *,
        timeout: float | str | None = None,
    ) -> Any:
        """Have results lie on several hosts. In an asynchronous client: await it.

        A host has one store, which all of its workers read in place. So ``n`` counts hosts, and on one host there is
        nothing to replicate. It waits for the futures, and until the copies are there. What comes later than this call
        gets no copies: hosts that join, and results that are made again.

        Parameters
        ----------
        futures : Future, dask collection, or container of these
        n : int, optional
            On how many hosts. Default: all. Copies beyond ``n`` are forgotten, but not those that a published dataset
            wants, or that tasks read now. Of results of at most 2 KiB the scheduler has a copy, too.
        workers : str or list of str, optional
            The hosts, by their names or by those of their workers: of these ``n`` are to have copies. Default: all.
        branching_factor : int
            To how many others a host gives a result at a time: what goes to many hosts spreads as a tree.
        timeout : float or str, optional
            How long the copying may take, in seconds or as text. Default: 5 min.

        Raises
        ------
        NotCopiedError
            There are fewer copies than wanted; names the results, and says why.
        NoWorkerError
            ``workers`` names one that is not there.
        TimeoutError
            It has taken too long; the copies that were made stay.
        Exception
            That of a task that failed.

        Examples
        --------
        >>> import numpy as np
        >>> future = client.scatter(np.arange(1_000_000), hash=False)
        >>> client.replicate([future])
        >>> client.replicate(future, n=1)
        >>> len(client.who_has(future)[future.key])
        1
        """
        return self._run(moving.replicate(self._core, futures, n, workers, branching_factor, seconds(timeout)))

    @takes_its_kind
    def rebalance(self, futures: Any = None, workers: Any = None, *, timeout: float | str | None = None) -> Any:
        """Even out how full the stores of hosts are. In an asynchronous client: await it.

        Results move from the fuller stores to the emptier ones, until all are about equally full, in parts of their
        capacity. Each is copied first, and forgotten where it was when the copy is there. So a host that dies in the
        middle takes nothing with it that was to move. What tasks read now stays, and so do small results.

        Parameters
        ----------
        futures : Future, dask collection, or container of these, optional
            What may move. It is waited for. Default: everything.
        workers : str or list of str, optional
            The hosts, by their names or by those of their workers. Default: all.
        timeout : float or str, optional
            How long it may take, in seconds or as text. Default: 5 min.

        Raises
        ------
        NotCopiedError
            Some results could not be moved, and stay where they are; says why.
        NoWorkerError
            ``workers`` names one that is not there.
        TimeoutError
            It has taken too long; says how much has moved.

        Examples
        --------
        >>> client.rebalance()
        """
        return self._run(moving.rebalance(self._core, futures, workers, seconds(timeout)))

    @takes_its_kind
    def retire_workers(
        self,
        workers: Any = None,
        close_workers: bool = True,
        remove: bool = True,
        *,
        names: Any = None,
        close_hosts: bool = True,
        grace: float | str | None = None,
        timeout: float | str | None = None,
        n: int | None = None,
        target: int | None = None,
        minimum: int | None = None,
        memory_ratio: float | None = None,
        key: Callable[[dict[str, Any]], Any] | str | None = None,
    ) -> Any:
        """Let workers go without losing anything. In an asynchronous client: await it.

        They get nothing new to run; what they run ends, and what they have not begun runs elsewhere. A host whose last
        workers they are goes with them, store and all. Before that, whatever only that host has is copied to other
        hosts. If something can't be, nothing is closed, and the workers go on as before.

        Parameters
        ----------
        workers : str or list of str, optional
            Workers by address or name, or hosts, which means all of their workers. Default: those that
            `workers_to_close` chooses by ``n``, ``target``, ``minimum``, ``memory_ratio`` and ``key``.
        close_workers : bool
            Whether they end. If not, they stay, and take no tasks any more. A task that names only such workers fails
            as if they were gone, after a warning. `restart_workers` begins them anew.
        remove : bool
            Whether to wait until they have ended.
        names : str or list of str, optional
            Another word for ``workers``.
        close_hosts : bool
            Whether a host goes with its last worker. If not, it stays with its store, and nothing has to move.
        grace : float or str, optional
            How long tasks that run get to end, in seconds or as text; then they run elsewhere once more, and are
            charged for nothing. Default: 30 s.
        timeout : float or str, optional
            How long all of it may take. Default: 5 min.

        Returns
        -------
        dict
            For the address of each worker that goes, what it is: ``"name"``, ``"host"``, ``"node"``, ``"nthreads"``.

        Raises
        ------
        NotCopiedError
            Data can't be moved to another host; names it, and says why. Nothing was closed.
        TimeoutError
            It has taken too long; says what is left. Nothing was closed, unless it says that workers were told to end.
        NoWorkerError
            One of the names means no worker; says which there are.
        ValueError
            Workers are named twice, or are being retired already.
        RuntimeError
            A task retires the worker that it runs on.

        Examples
        --------
        >>> whole = Client(n_workers=2, threads_per_worker=1, set_as_default=False)
        >>> len(whole.retire_workers(n=1)), len(whole.nthreads())
        (1, 1)
        >>> whole.close()
        """
        return self._run(
            moving.retire(
                self._core,
                workers,
                names,
                close_workers=close_workers,
                remove=remove,
                close_hosts=close_hosts,
                grace=seconds(grace),
                timeout=seconds(timeout),
                choice={"n": n, "target": target, "minimum": minimum, "memory_ratio": memory_ratio, "key": key},
            )
        )

    def workers_to_close(
        self,
        n: int | None = None,
        target: int | None = None,
        minimum: int | None = None,
        memory_ratio: float | None = None,
        key: Callable[[dict[str, Any]], Any] | str | None = None,
    ) -> Any:
        """The workers that it costs least to close. In an asynchronous client: await it.

        Idle ones come first, those of a host whose store has least before others, and the workers of one host one after
        the other: when its last worker goes, its data has to move.

        Parameters
        ----------
        n : int, optional
            So many, busy or not. Default: as many idle ones as leave enough memory.
        target : int, optional
            As many as leave so many workers.
        minimum : int, optional
            So many stay at least.
        memory_ratio : float, optional
            The hosts that stay have stores for so many times the bytes that there are. Default: 2, if neither ``n``
            nor ``target`` is given.
        key : callable or str, optional
            ``key(worker)`` gives the group of a worker, which is described as in `scheduler_info`, with its
            ``"address"``; or the name of such a field. The workers of a group go together or stay.

        Returns
        -------
        list of str
            Addresses.

        Examples
        --------
        >>> len(client.workers_to_close(n=1))
        1
        >>> client.workers_to_close(n=1, key="host")
        []
        """
        return self._run(moving.to_close(self._core, n, target, minimum, memory_ratio, key))
