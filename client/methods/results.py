"""Results: reading them, storing values like them, and letting them be."""

from __future__ import annotations

from typing import Any, Literal

from holdfast.client.core.cancelling import manner_of
from holdfast.client.futures.collections import futures_of
from holdfast.client.futures.future import Future
from holdfast.client.methods.face import Face
from holdfast.client.operations import cancelling, gathering, retrying, scattering
from holdfast.client.packing.checks import check_in_one, warn_without_effect
from holdfast.client.raising import hides_own_frames
from holdfast.cluster.durations import seconds


class ResultMethods(Face):
    """The methods of a client that read results, store values, and cancel."""

    def futures_of(self, futures: Any) -> list[Future]:
        """The futures of this client in a collection, or in a nested container of collections and futures.

        Parameters
        ----------
        futures : dask collection, Future, or container of these

        Raises
        ------
        CancelledError
            One of them was cancelled.
        TypeError
            Something in it is a future of another library.

        Examples
        --------
        >>> import dask.array as da
        >>> x = da.ones(10, chunks=5).persist()
        >>> len(client.futures_of(x))
        2
        """
        return futures_of(futures, self)

    @hides_own_frames
    def gather(
        self,
        futures: Any,
        errors: Literal["raise", "skip"] = "raise",
        direct: bool | None = None,
        asynchronous: bool | None = None,
        *,
        writable: bool | None = None,
    ) -> Any:
        """Wait for futures and read their results. In an asynchronous client: await it.

        Parameters
        ----------
        futures : Future, or nested list, tuple, set, dict, iterator or queue.Queue of futures
            Also of other clients of the same cluster.
        errors : {"raise", "skip"}
            Whether a task that failed raises, or its future is left out of what is returned. A result that is there
            and can't be unpickled here raises in any case.
        direct
            False has no effect, as a warning says: results never pass through the scheduler, unless they are small.
        asynchronous : bool, optional
            Taken for compatibility, with the value of `Client.asynchronous`.
        writable : bool, optional
            As for `Future.result`.

        Returns
        -------
        What was given, with results in the place of futures. Of an iterator an iterator, which reads as it goes. Of a
        queue a queue, into which the results go in the order of the futures, and whose ``get`` raises what a task
        raised. A future that is there twice has one result.

        Raises
        ------
        ValueError
            A future is of another cluster, or ``asynchronous`` is not what the client is here.
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
        if direct is False:
            warn_without_effect("direct", direct)
        self._check_kind(asynchronous)
        return self._run(gathering.gather(self._core, futures, errors, writable))

    def scatter(
        self,
        data: Any,
        workers: Any = None,
        broadcast: bool | int = False,
        direct: bool | None = None,
        hash: bool = True,
        timeout: float | str | None = None,
        asynchronous: bool | None = None,
    ) -> Any:
        """Put values into the object store. In an asynchronous client: await it.

        Parameters
        ----------
        data : list, tuple, namedtuple, set, frozenset, dict, range, iterator, queue.Queue, or object
            Containers are taken apart: each item becomes an object. The keys of a dictionary are the futures' keys.
            What is put into a queue is stored as it comes, and its future goes into a queue. What is of another class
            derived from these becomes one object. Futures inside an object live as long as it.
        workers : str or list of str, optional
            Workers or hosts in whose stores it goes, by turns. Default: this host's, if it has a store; else all.
        broadcast : bool or int
            Whether everything is to lie on all hosts, or on how many. It is sent to one, and spreads from there as a
            tree (`replicate`).
        direct
            False has no effect, as a warning says: values never pass through the scheduler, unless they are small.
        hash : bool
            Whether to name values by their content, so that the same one is stored once. Otherwise by chance. A class
            that is registered with dask's ``normalize_token``, or has a method ``__dask_tokenize__``, says by that
            which of its values are the same.
        timeout : float or str, optional
            How long to wait for a host and for room in its store.
        asynchronous : bool, optional
            Taken for compatibility, with the value of `Client.asynchronous`.

        Returns
        -------
        Futures, in a container of the type of ``data``.

        Raises
        ------
        StoreFullError
            There is no room; says what there is and which clients hold it.
        TimeoutError
            No host with a store came in time.
        NoWorkerError
            ``workers`` names one that is not there.
        NotCopiedError
            Another host could not have a copy of what is broadcast; says why.
        ValueError
            A key of the dictionary is in use by a future of this client with another value, or ``asynchronous`` is not
            what the client is here.

        Examples
        --------
        >>> import numpy as np
        >>> future = client.scatter(np.arange(1_000_000))
        >>> int(client.submit(np.sum, future).result())
        499999500000
        """
        if direct is False:
            warn_without_effect("direct", direct)
        self._check_kind(asynchronous)
        return self._run(scattering.scatter(self._core, data, workers, broadcast, hash, seconds(timeout)))

    def retry(self, futures: Any, asynchronous: bool | None = None) -> Any:
        """Compute futures again that have failed, and what they have failed for. In an asynchronous client: await it.

        All that depends on these, and has failed with them, is computed again too; also for other clients that hold it.
        What has not failed is left alone. When this returns, none of them has its old error any more.

        Parameters
        ----------
        futures : Future, dask collection, or container of these
            Also of other clients of this process.
        asynchronous
            Taken for compatibility.

        Raises
        ------
        CancelledError
            One of them was cancelled or released.
        ConnectError
            The connection with the scheduler is gone.

        Examples
        --------
        >>> import os, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> future = client.submit(os.listdir, f"{folder}/new")
        >>> future.exception()
        FileNotFoundError(2, 'No such file or directory')
        >>> os.mkdir(f"{folder}/new")
        >>> client.retry(future)
        >>> future.result()
        []
        """
        check_in_one("retry", asynchronous)
        return self._run(retrying.retry(self._core, futures))

    def cancel(
        self,
        futures: Any,
        asynchronous: bool | None = None,
        force: bool = False,
        reason: str | None = None,
        msg: str | None = None,
        *,
        kill: bool = False,
    ) -> Any:
        """Don't compute futures that are not done, forget those that are, and whatever depends on them.
        In an asynchronous client: await it.

        A task that waits for a worker, or in the queue of one, never runs. A task that is running runs to its end, one
        that is a coroutine too, and its result is dropped, unless ``kill`` ends it. What other clients hold stays,
        without ``force``; a future of another client in this process is cancelled as by that one.

        Parameters
        ----------
        futures : Future, dask collection, or container of these
        asynchronous
            Taken for compatibility.
        force : bool
            Whether to cancel them for other clients, too.
        reason, msg : str, optional
            Why, for the error that waiting for one of them raises, here and in other clients.
        kill : bool
            Whether to end what is running and not needed any more: these futures, what depends on them, and what is
            computed for them only. A run is ended with the process of its worker, and what that has started; another
            process takes its place in milliseconds. All else that the process was running is run again elsewhere, and
            counts for no task as a death; actors in it are lost. What those runs have submitted is cancelled like
            them, but goes on to its end where it runs in another process. When this returns, the processes have ended.

        Raises
        ------
        RuntimeError
            With ``kill``: a run can't be ended, since its worker shares its process with others (``processes=False``,
            or the task that calls this). Everything is cancelled all the same, and the run goes on to its end.
        TimeoutError
            With ``kill``: the host of a worker has not answered. Everything is cancelled all the same.

        Examples
        --------
        >>> import time
        >>> future = client.submit(time.sleep, 1)
        >>> client.cancel(future)
        >>> future.cancelled()
        True
        """
        for option in (asynchronous, force, reason, msg):
            check_in_one("cancel", option)
        return self._run(cancelling.cancel(self._core, futures, manner_of(force, kill, reason, msg)))
