"""`Client.submit` and `Client.map`: functions applied to arguments. They never wait in an asynchronous client."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Collection, Iterable
from functools import partial
from hashlib import blake2b
from typing import Any

from dask.base import get_annotations

from holdfast.client.core.core import Core
from holdfast.client.core.key_state import KeyState
from holdfast.client.core.key_table import KeyTable
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import borrow, own
from holdfast.client.operations.queues import fed_by
from holdfast.client.operations.storing import constants as constants_of
from holdfast.client.packing import options as task_options
from holdfast.client.packing.arguments import Packer
from holdfast.client.packing.constants import Constants
from holdfast.client.packing.foreign import check_ends
from holdfast.client.packing.functions import Function
from holdfast.client.packing.keys import TOKEN_NBYTES, check_together, random_token, wire_key
from holdfast.cluster import protocol
from holdfast.cluster.call_sites import call_site
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


def submit(
    core: Core,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    key: Any,
    pure: bool,
    options: task_options.Options,
) -> Future:
    """See `Client.submit`."""
    where = call_site()
    mine = partial(own, core)
    constants = constants_of(core)
    function = core.functions.get(func, mine, constants)
    chosen = key is not None
    if chosen:
        key = wire_key(key)
        if key in core.table.states:
            core.table.settle_all()
            known = borrow(core, key)
            if known is not None:
                _compare(core, known, function, func, args, kwargs)
                return known
    options, called = _options(core, options)
    call = Packer(function.name, func, mine, constants).pack(args, kwargs)
    digest = _Digests(function, core.table)(call.payload, call.dependencies) if chosen or pure else b""
    if not chosen:
        key = f"{function.name}-{digest.hex() if pure else random_token()}"
    dependencies = _dependencies(function, call.dependencies)
    check_together(f"the task {key!r:.80}", dependencies)
    task = (key, function.digest, raw(call.payload), dependencies)
    stored = (*call.stored, *function.stored)
    return _submit(core, [task], [stored], function, options, called, [digest] if chosen else None, where)[0]


def map_calls(
    core: Core,
    func: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    kwargs: dict[str, Any],
    *,
    key: Any,
    pure: bool,
    batch_size: int | None,
    options: task_options.Options,
    where: str | None = None,
) -> list[Future]:
    """See `Client.map`. ``where``: the line of the user's code, if that is not what calls."""
    where = call_site() if where is None else where
    mine = partial(own, core)
    if not iterables:
        raise TypeError("map needs at least one iterable")
    check_ends(iterables, "what the function is mapped over")
    constants = constants_of(core)
    function = core.functions.get(func, mine, constants)
    options, called = _options(core, options)
    prefix, keys = function.name, None
    if isinstance(key, str):
        prefix = wire_key(key)
        wire_key(f"{prefix}-{random_token()}")  # as long as the keys will be
    elif key is not None:
        core.table.settle_all()
        keys = iter([wire_key(one) for one in key]) if isinstance(key, Collection) else map(wire_key, key)
    kept = function.stored
    if kwargs:
        shared = Packer(function.name, func, mine, constants_of(core, MAP_KWARG_NBYTES))
        kwargs, stored_kwargs = shared.store_large(kwargs)
        kept = (*kept, *stored_kwargs)
    packer = Packer(function.name, func, mine, constants)
    futures: list[Future] = []
    calls = zip(*iterables, strict=False)
    runs_code = not _RUN_NO_CODE.issuperset(map(type, iterables))
    digest_of = _Digests(function, core.table)
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
        futures += _submit(core, tasks, stored, function, options, called, None if keys is None else digests, where)


def map_queues(
    core: Core,
    func: Callable[..., Any],
    queues: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    key: Any,
    pure: bool,
    options: task_options.Options,
) -> Any:
    """A queue of futures; see `Client.map`."""
    if key is not None and not isinstance(key, str):
        raise TypeError(f"the keys of what comes out of a queue begin with a text, and {key!r:.100} is none")
    core.functions.get(func, partial(own, core), constants_of(core))  # it is refused here rather than with each item

    where = call_site()

    def submitted(core: Core, items: tuple[Any, ...]) -> list[Future]:
        one = [[item] for item in items]
        return map_calls(
            core, func, tuple(one), kwargs, key=key, pure=pure, batch_size=None, options=options, where=where
        )

    return fed_by(core, queues, submitted)


def _options(core: Core, options: task_options.Options) -> tuple[task_options.Options, task_options.Called | None]:
    """The options of all calls, and what says the options of each call, if something does."""
    annotations = get_annotations()
    if options or annotations:  # another worker, say, than what a future that is gone was computed on
        core.table.settle_all()
    if not annotations:
        return options, None
    called = task_options.Called(annotations, options)
    return {**task_options.from_annotations(annotations), **options}, called or None


def _submit(
    core: Core,
    tasks: list[_Task],
    stored: list[tuple[Any, ...]],
    function: Function,
    options: task_options.Options,
    called: task_options.Called | None,
    digests: list[bytes] | None,
    where: str,
) -> list[Future]:
    """Send those of the tasks whose keys this client does not hold yet; the futures of all.

    ``digests``: of the calls, if a user chose their keys. ``where``: the line of the user's code.
    """
    if called is not None:
        options = {**options, "per_key": {key: called.of(key) for key, _, _, _ in tasks}}
    if (parent := core.driver.parent) is not None:
        options = {**options, "parent": parent}
    table, session = core.table, core.session
    futures: list[Future] = []
    make = Future._of
    with table.lock, table.beginning() as begun:
        session.check_open()
        state_of = table.state_of
        unknown: list[_Task] = []
        for task, keeps in zip(tasks, stored, strict=True):
            key, _, _, _ = task
            state, new = state_of(key)
            if new:
                begun.append(state)
                unknown.append(task)
                if keeps:
                    state.keeps = keeps
            futures.append(make(state, core))
        others = [] if digests is None else _note_calls(futures, begun, digests)
        if unknown:
            core.sent.send((function,))
            session.enqueue(protocol.client.SUBMIT(unknown, None, options, where))
            begun.commit()
            core.sent.forget((function,))
    if unknown:
        session.flush()
    if others:
        _warn_of_another(function, others, stacklevel=5)
    return futures


def _compare(
    core: Core, known: Future, function: Function, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Warn if what a key is held for is another call than this one, as far as that can be told cheaply."""
    try:
        call = Packer(function.name, func, partial(own, core), Constants(_too_large)).pack(args, kwargs)
    except Exception:  # it isn't sent, so it need not be fit for that
        return
    if _Digests(function, core.table)(call.payload, call.dependencies) != core.table.meaning_of(known.key):
        _warn_of_another(function, [known.key], stacklevel=5)


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
