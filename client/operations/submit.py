"""`Client.submit` and `Client.map`: functions applied to arguments."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import blake2b
from typing import Any

from dask.base import get_annotations

from holdfast.client.core.core import ClientBase
from holdfast.client.core.key_table import KeyState, KeyTable
from holdfast.client.futures.future import Future
from holdfast.client.packing import options as task_options
from holdfast.client.packing.arguments import Packer
from holdfast.client.packing.constants import Constants
from holdfast.client.packing.foreign import check_ends
from holdfast.client.packing.functions import Function
from holdfast.client.packing.keys import TOKEN_NBYTES, check_together, random_token, wire_key
from holdfast.cluster import protocol
from holdfast.cluster.comm.frames import raw

#: Calls of a map that are packed before they are sent.
MAP_BATCH = 1_000
#: Calls of one map; more are taken for an iterable without an end.
MAX_MAPPED = 10_000_000
#: A keyword argument of a map from this size on is stored once instead of being sent with every call.
MAP_KWARG_NBYTES = 16 * 1024

#: Iterables that run no code of a user's between two values.
_RUN_NO_CODE = frozenset({list, tuple, range, str, bytes, set, frozenset, dict, itertools.repeat})

_Task = tuple[Any, bytes, Any, list[Any]]


class Calls(ClientBase):
    """Submitting calls."""

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
        >>> total = client.submit(sum, [1, 2, 3])  # doctest: +SKIP
        >>> client.submit(pow, total, 2).result()  # doctest: +SKIP
        36
        """
        constants = self._constants()
        function = self._functions.get(func, constants)
        chosen = key is not None
        if chosen:
            key = wire_key(key)
            if key in self._table.states:
                self._table.settle_all()
                known = self._borrow(key)
                if known is not None:
                    self._compare(known, function, func, args, kwargs)
                    return known
        options, called = self._options(priority, retries, workers, allow_other_workers, resources, writable)
        call = Packer(function.name, func, self._own, constants).pack(args, kwargs)
        digest = _Digests(function, self._table)(call.payload, call.dependencies) if chosen or pure else b""
        if not chosen:
            key = f"{function.name}-{digest.hex() if pure else random_token()}"
        dependencies = _dependencies(function, call.dependencies)
        check_together(f"the task {key!r:.80}", dependencies)
        task = (key, function.digest, raw(call.payload), dependencies)
        stored = (*call.stored, *function.stored)
        return self._submit([task], [stored], function, options, called, [digest] if chosen else None)[0]

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
        >>> client.gather(client.map(pow, [1, 2, 3], [2, 2, 2]))  # doctest: +SKIP
        [1, 4, 9]
        """
        if not iterables:
            raise TypeError("map needs at least one iterable")
        check_ends(iterables, "what the function is mapped over")
        constants = self._constants()
        function = self._functions.get(func, constants)
        options, called = self._options(priority, retries, workers, allow_other_workers, resources, writable)
        prefix, keys = function.name, None
        if isinstance(key, str):
            prefix = wire_key(key)
            wire_key(f"{prefix}-{random_token()}")  # as long as the keys will be
        elif key is not None:
            self._table.settle_all()
            keys = iter([wire_key(one) for one in key]) if isinstance(key, Collection) else map(wire_key, key)
        kept = function.stored
        if kwargs:
            shared = Packer(function.name, func, self._own, self._constants(MAP_KWARG_NBYTES))
            kwargs, stored_kwargs = shared.store_large(kwargs)
            kept = (*kept, *stored_kwargs)
        packer = Packer(function.name, func, self._own, constants)
        futures: list[Future] = []
        calls = zip(*iterables, strict=False)
        runs_code = not _RUN_NO_CODE.issuperset(map(type, iterables))
        digest_of = _Digests(function, self._table)
        while True:
            tasks: list[_Task] = []
            digests: list[bytes] = []  # of those whose keys were chosen
            stored = []
            for args in itertools.islice(calls, batch_size or MAP_BATCH):
                if runs_code:
                    constants.forget()
                data, dependencies, held = packer.pack(args, kwargs)
                if keys is not None:
                    name = next(keys, None)
                    if name is None:
                        raise ValueError("map got fewer keys than calls")
                    digests.append(digest_of(data, dependencies))
                else:
                    name = f"{prefix}-{digest_of(data, dependencies).hex() if pure else random_token()}"
                dependencies = _dependencies(function, dependencies)
                check_together(f"the task {name!r:.80}", dependencies)
                tasks.append((name, function.digest, raw(data), dependencies))
                stored.append((*held, *kept) if kept or held else ())
            if not tasks:
                return futures
            if len(futures) + len(tasks) > MAX_MAPPED:
                raise ValueError(
                    f"map has been given more than {MAX_MAPPED:,} calls: does an iterable have no end? What was "
                    "submitted is cancelled; map parts of it, as itertools.islice takes them"
                )
            futures += self._submit(tasks, stored, function, options, called, None if keys is None else digests)

    def _options(
        self,
        priority: float,
        retries: int | None,
        workers: Any,
        allow_other_workers: bool,
        resources: Any,
        writable: bool,
    ) -> tuple[task_options.Options, task_options.Called | None]:
        """Those of all calls, and what says those of each, if something does."""
        options = task_options.options_of(priority, retries, workers, allow_other_workers, resources, writable)
        annotations = get_annotations()
        if not annotations:
            return options, None
        called = task_options.Called(annotations, options)
        return {**task_options.from_annotations(annotations), **options}, called or None

    def _submit(
        self,
        tasks: list[_Task],
        stored: list[tuple[Any, ...]],
        function: Function,
        options: task_options.Options,
        called: task_options.Called | None,
        digests: list[bytes] | None,
    ) -> list[Future]:
        """Send those of the tasks whose keys this client does not hold yet; the futures of all.

        ``digests``: of the calls, if a user chose their keys.
        """
        if called is not None:
            options = {**options, "per_key": {task[0]: called.of(task[0]) for task in tasks}}
        table, session = self._table, self._session
        futures: list[Future] = []
        make = Future._of
        with table.lock, table.beginning() as begun:
            session.check_open()
            state_of = table.state_of
            unknown: list[_Task] = []
            for task, keeps in zip(tasks, stored, strict=True):
                state, new = state_of(task[0])
                if new:
                    begun.append(state)
                    unknown.append(task)
                    if keeps:
                        state.keeps = keeps
                futures.append(make(state, self))  # type: ignore[arg-type]
            others = [] if digests is None else _note_calls(futures, begun, digests)
            if unknown:
                self._send_functions((function,))
                session.leave(protocol.client.SUBMIT(unknown, None, options))
                begun.clear()
                self._forget_functions((function,))
        if unknown:
            session.hurry()
        if others:
            _warn_of_another(function, others, stacklevel=4)
        return futures

    def _compare(
        self, known: Future, function: Function, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Warn if what a key is held for is another call than this one, as far as that can be told cheaply."""
        try:
            call = Packer(function.name, func, self._own, Constants(_too_large)).pack(args, kwargs)
        except Exception:  # it isn't sent, so it need not be fit for that
            return
        if _Digests(function, self._table)(call.payload, call.dependencies) != self._table.meaning_of(known.key):
            _warn_of_another(function, [known.key], stacklevel=4)


def _too_large(value: Any) -> Future | None:
    raise ValueError("an argument that would have to be stored to be compared")


def _note_calls(futures: list[Future], begun: list[KeyState], digests: list[bytes]) -> list[Any]:
    """Note what the keys were chosen for that are new; those keys that are held for something else."""
    new = set(begun)
    others = []
    for future, digest in zip(futures, digests, strict=True):
        state = future._state
        if state in new:
            state.call = digest
        elif state.call != digest:
            others.append(state.key)
    return others


def _warn_of_another(function: Function, keys: list[Any], stacklevel: int) -> None:
    first = f"the key {keys[0]!r:.100} is" if len(keys) == 1 else f"{len(keys):,} keys, {keys[0]!r:.100} the first, are"
    warnings.warn(
        f"{first} held by futures of this client for another call than this one of {function.name}, and stands for "
        "the result of that: release those futures first, or choose another key",
        stacklevel=stacklevel,
    )


def _dependencies(function: Function, dependencies: list[Any]) -> list[Any]:
    if not function.dependencies:
        return dependencies
    return list(dict.fromkeys((*dependencies, *function.dependencies)))


class _Digests:
    """What stands for calls of one function: a hash of what is sent for them anyway, and of what its keys mean."""

    def __init__(self, function: Function, table: KeyTable) -> None:
        self._base = blake2b(function.digest, digest_size=TOKEN_NBYTES)
        for key in function.dependencies:
            self._base.update(table.meaning_of(key))
        self._meaning_of = table.meaning_of

    def __call__(self, data: bytes, dependencies: Iterable[Any]) -> bytes:
        digest = self._base.copy()
        digest.update(data)
        for key in dependencies:
            digest.update(self._meaning_of(key))
        return digest.digest()
