"""`Client.gather`, `Client.scatter` and `Client.cancel`: values in and out of the cluster, and what is not wanted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from holdfast.client.core.core import ClientBase
from holdfast.client.futures.future import Future, check_in_one, seconds
from holdfast.client.operations.collections import futures_of
from holdfast.client.packing.arguments import collecting
from holdfast.client.packing.foreign import check_ends, check_no_foreign_future
from holdfast.client.packing.keys import check_together, random_token, wire_key
from holdfast.client.packing.options import names_of_workers
from holdfast.client.raising import hide_own_frames
from holdfast.client.stores.reading import gather
from holdfast.cluster.errors import CancelledError, ConnectError
from holdfast.objectstore import Encoded, encode

#: How long `scatter` waits for a first host.
SCATTER_TIMEOUT_SECONDS = 30.0


class Results(ClientBase):
    """Values in and out."""

    def gather(
        self,
        futures: Any,
        errors: Literal["raise", "skip"] = "raise",
        direct: bool | None = None,
        *,
        writable: bool | None = None,
    ) -> Any:
        """Wait for futures and read their results.

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
        >>> client.gather({"a": client.submit(sum, [1, 2]), "b": [client.submit(len, "abc")]})  # doctest: +SKIP
        {'a': 3, 'b': [3]}
        """
        check_in_one("gather", errors)
        check_in_one("gather", direct)
        try:
            return self._gather(futures, errors, writable)
        except BaseException as error:
            hide_own_frames(error)
            raise

    def _gather(self, futures: Any, errors: str = "raise", writable: bool | None = None) -> Any:
        return gather(self._reader, futures, errors, self._gathered, writable)

    def _gathered(self, future: Future) -> Future:
        if future._client is not self:
            return self._adopted(future)
        future._check_held()
        return future

    def scatter(
        self,
        data: Any,
        workers: Any = None,
        broadcast: bool = False,
        direct: bool | None = None,
        hash: bool = True,
        timeout: float | str | None = None,
    ) -> Any:
        """Put values into the object store.

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
        >>> future = client.scatter(numpy.arange(1_000_000))  # doctest: +SKIP
        >>> client.submit(numpy.sum, future).result()  # doctest: +SKIP
        499999500000
        """
        check_in_one("scatter", workers)
        if isinstance(data, Iterator):
            check_ends((data,), "what is scattered")
        limit = seconds(timeout)
        deadline = None if limit is None else time.monotonic() + limit
        self._session.check_open()
        if not self._stores.any_node:
            self._stores.wait_for_node(SCATTER_TIMEOUT_SECONDS if limit is None else limit)
        names = None if workers is None else names_of_workers(workers)

        def one(value: Any, key: Any = None) -> Future:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            return self._scatter_one(value, key, names, broadcast, hash, left)

        with self._stores.batch():
            kind = type(data)
            if kind is dict:
                return {key: one(value, wire_key(key)) for key, value in data.items()}
            if kind in (list, tuple, set, frozenset):
                return kind([one(value) for value in data])
            if isinstance(data, range):
                return [one(value) for value in data]
            if isinstance(data, Iterator):
                return iter([one(value) for value in data])
            return one(data)

    def _scatter_one(
        self,
        value: Any,
        key: Any,
        workers: Sequence[str] | None,
        everywhere: bool,
        hashed: bool,
        timeout: float | None,
    ) -> Future:
        check_no_foreign_future(value, "something that is to be scattered")
        stores = self._stores
        try:
            with collecting() as inside:
                encoded = stores.encode(value)
            # What lies in the store already is encoded in another way, to stay there. Names go by one encoding.
            with collecting():
                plain = encode(value) if (in_store := stores.shares(encoded)) else encoded
        except CancelledError:  # a released future inside it
            raise
        except Exception as error:  # pickling runs a user's code, which may raise anything
            raise TypeError(f"a {type(value).__name__} can't be pickled, so it can't be scattered: {error}") from error
        own = [self._own(future) for future in inside]
        check_together(f"a {type(value).__name__} that is scattered", [future.key for future in own])
        place = None
        chosen = key is not None
        if chosen:
            held = self._held_content(key, plain, timeout)
            if held is not None and not everywhere:
                return held
        elif not hashed or inside:  # a future's name doesn't tell for which value it stands
            key = f"{encoded.type_name}-{random_token()}"
        else:
            if not in_store and stores.hashes_in_place(encoded, stores.targets(workers)):
                place = stores.write(encoded, None, workers, everywhere=everywhere, timeout=timeout)
            key = f"{encoded.type_name}-{stores.content_token(plain, place)}"
            known = self._borrow(key)
            if known is not None and known.done() and not everywhere:
                if place is not None:
                    stores.forget(place)
                return known
        if place is None:
            place = stores.write(encoded, str(key), workers, everywhere=everywhere, timeout=timeout)
        return self._scattered(key, place, encoded.type_name, own, chosen=chosen)

    def _held_content(self, key: Any, encoded: Encoded, timeout: float | None) -> Future | None:
        """A future of a key that a user chose, if this client holds it with this content; None if it does not."""
        if key in self._table.states:
            self._table.settle_all()  # of futures that are gone already
        held = self._borrow(key)
        if held is None:
            return None
        other = encode(held.result(timeout, writable=False))
        if other.nbytes != encoded.nbytes or other.to_bytes() != encoded.to_bytes():
            raise ValueError(
                f"the key {key!r} is in use by a future of this client, {held!r}, with another value: scatter under "
                "another key, or release that future first"
            )
        return held

    def cancel(self, futures: Any, asynchronous: bool | None = None, force: bool = False) -> None:
        """Don't compute futures that are not done, forget those that are, and whatever depends on them.

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
        >>> future = client.submit(time.sleep, 3600)  # doctest: +SKIP
        >>> client.cancel(future)  # doctest: +SKIP
        >>> future.cancelled()  # doctest: +SKIP
        True
        """
        check_in_one("cancel", asynchronous)
        check_in_one("cancel", force)
        if isinstance(futures, Future):
            found = [futures]
        else:
            try:
                found = futures_of(list(futures) if isinstance(futures, Iterator) else futures)
            except CancelledError:
                found = futures_of(futures, skip_cancelled=True)
        of_clients: dict[ClientBase, list[Future]] = {}
        for future in found:
            future._check_held()
            of_clients.setdefault(future._client, []).append(future)
        for client, its in of_clients.items():
            if client is self or client._session.ended is None:
                try:
                    client._cancel([future._state for future in its], force)
                except ConnectError:
                    if client is self or not (client.closed or client._session.ended):
                        raise  # another one has ended just now, and holds nothing any more
