"""Functions that are applied to arguments: `Client.submit` and `Client.map`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holdfast.client.actors.making import as_actor, is_actor
from holdfast.client.futures.future import Future
from holdfast.client.methods.face import Face
from holdfast.client.operations.queues import is_queue
from holdfast.client.operations.submit import map_calls, map_queues, submit
from holdfast.client.packing.checks import warn_without_effect
from holdfast.client.packing.options import options_of


class CallMethods(Face):
    """The methods of a client that submit calls of functions."""

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
        actor: bool = False,
        actors: bool = False,
        pure: bool | None = None,
        writable: bool = False,
        run_timeout: float | str | None = None,
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
            a client holds a future of a key, the key stands for that result; a key that no client holds is free.
        workers : str or list of str, optional
            Workers or hosts that may run it, by name or address. Default: any.
        resources : dict, optional
            What it needs of its worker's resources, such as ``{"GPU": 1}``.
        retries : int, optional
            How often it is run again when it fails.
        priority : float
            Higher ones run first; among equals, what was submitted first.
        fifo_timeout
            Has no effect, as a warning says: priorities always follow the order of submission.
        allow_other_workers : bool
            Whether ``workers`` is only a preference.
        actor : bool
            Whether what ``func`` makes, usually an instance of the class that it is, stays on the worker as an actor.
            The result is an `Actor` then, a handle. ``workers`` and ``resources`` choose where it is made, which is
            where few actors are, if that is free; it keeps no resources. ``retries`` is how often ``func`` is called
            again when it fails.
        actors : bool
            The same as ``actor``.
        pure : bool, optional
            Whether the same call gives the same result. If so, calls that are the same are one computation as long as
            a client holds a future of it. ``pure=False`` computes anew every time. Default: true, but not for actors.
        writable : bool
            Whether ``func`` writes into its arguments. It gets views of large results that are its own then: pages are
            copied as it writes to them, and no other task sees what it has written. Without, it shares memory that
            can't be written. A call that fails or dies for that is run once more as if ``writable=True`` had been said,
            as are all further calls of the function: say it where a call has effects that must not happen twice.
        run_timeout : float or str, optional
            How long a run may take, in seconds or as text such as ``"10 s"``, from when a worker begins with it. The
            time in which it waits for tasks that it has submitted doesn't count. A run that takes longer is ended with
            the process of its worker, which another one replaces at once, and the task fails with a TimeoutError that
            names it, after ``retries`` further runs. What the process ran besides is run again. Under
            ``processes=False`` the run goes on to its end, and its result is dropped.

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
        if fifo_timeout is not None:
            warn_without_effect("fifo_timeout", fifo_timeout)
        makes_actor = (actor or actors) and is_actor(actor, actors)
        return submit(
            self._core,
            as_actor(func) if makes_actor else func,
            args,
            kwargs,
            key=key,
            pure=not makes_actor if pure is None else pure,
            options=options_of(
                priority, retries, workers, allow_other_workers, resources, writable, run_timeout, makes_actor
            ),
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
        actor: bool = False,
        actors: bool = False,
        pure: bool | None = None,
        writable: bool = False,
        run_timeout: float | str | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Have ``func`` applied to the items of iterables, as `map` does.

        Much faster than a loop over `submit`.

        Parameters
        ----------
        func : callable
        *iterables : iterable, or queue.Queue
            Of arguments, which may be futures; up to the end of the shortest, which must have one. What is put into
            queues is submitted as it comes.
        key : str or list of str, optional
            The beginning of the keys, or all of them.
        workers, retries, resources, priority, allow_other_workers, fifo_timeout, actor, actors, pure, writable,
        run_timeout
            As for `submit`, for each call.
        batch_size : int, optional
            How many calls are sent at once.
        **kwargs
            Further arguments of each call. Large ones are put into the object store once.

        Returns
        -------
        list of Future
            Of queues a `queue.Queue` of futures. Its ``get`` raises what went wrong when an item was submitted.

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
        if fifo_timeout is not None:
            warn_without_effect("fifo_timeout", fifo_timeout)
        makes_actors = (actor or actors) and is_actor(actor, actors)
        if makes_actors:
            func = as_actor(func)
        pure = not makes_actors if pure is None else pure
        options = options_of(
            priority, retries, workers, allow_other_workers, resources, writable, run_timeout, makes_actors
        )
        if any(map(is_queue, iterables)):
            return map_queues(self._core, func, iterables, kwargs, key=key, pure=pure, options=options)
        return map_calls(
            self._core,
            func,
            iterables,
            kwargs,
            key=key,
            pure=pure,
            batch_size=batch_size,
            options=options,
        )
