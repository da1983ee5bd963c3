"""Which client is meant when none is named, as dask sees it.

The client that was opened last as a default, and is open still, is the current one of its process and dask's default
scheduler. When it is closed, the one before it is again; when none is left, dask's configuration is what it was before
the first. An asynchronous client that is left open is closed when its event loop ends in order
(`holdfast.client.operations.closing`). A loop that ends otherwise does not say so, so that is noticed when a default is
looked for.

Programs write ``Client()`` as a statement, and compute collections then. So the default is kept, though nothing else
refers to it, until it is closed or another client is the default. Those that were the default before it are not kept:
one that nothing else refers to is garbage, and ends as such (`holdfast.client.core.core`).
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterator
from typing import Any

import dask.config
from dask.base import named_schedulers

from holdfast.client.core.core import Core
from holdfast.client.core.registry import registry
from holdfast.cluster.dask_config import SCHEDULER_NAMES

#: Where a cluster is that commands and clients use which are told of none.
ADDRESS_VARIABLE = "HOLDFAST_ADDRESS"
_ADDRESS = "scheduler-address"
_SCHEDULER = "scheduler"
#: What dask decides by whether its own distributed is there: without it frames are shuffled through files, which other
#: hosts don't see; with it frames and arrays are, by "p2p", which is a part of it.
_METHODS = ("dataframe.shuffle.method", "array.rechunk.method")
_TASKS = "tasks"
_NOT_OURS = (None, "p2p")
_ABSENT = object()

#: What dask's configuration was before the first default, and what dask's names for its own scheduler meant.
_before: dict[str, Any] = {}
_named_before: dict[str, Any] = {}


def current(*, allow_global: bool = True) -> Core:
    """The core of the client that is meant when none is named: the chosen one, in a task the worker's own, the default.

    Raises
    ------
    ValueError
        There is none.
    """
    core = registry.chosen.get()
    if core is not None:
        return core
    task = registry.running_task()
    if task is not None:
        return task.core()
    with registry.lock:
        forget_ended()
        if registry.default is not None and allow_global:
            return registry.default
    if not allow_global:
        raise ValueError("no client is the current one here: use 'with client.as_current():'")
    if registry.runs_tasks():
        raise ValueError(
            "this thread runs no task, so it has no client: call get_client() in the thread of the task, and hand the "
            "client that it gives to the threads which the task starts"
        )
    raise ValueError("there is no client in this process: connect one first, with holdfast.Client(address)")


@contextlib.contextmanager
def chosen(core: Core) -> Iterator[None]:
    """Within it a core is the current one of this thread or coroutine, and dask's default scheduler."""
    outer = registry.chosen.set(core)
    try:
        if registry.running_task() is not None:  # there dask asks for the current client anyway
            yield
        else:
            with dask.config.set({_SCHEDULER: core.client}):
                yield
    finally:
        registry.chosen.reset(outer)


def opened(core: Core, set_as_default: bool) -> None:
    """A client is open; from now on the default, if it is to be."""
    with registry.lock:
        registry.open.add(core)
        registry.known.add(core)
        if registry.running_task() is not None:
            registry.opened_in_tasks.add(core)
        if not set_as_default:
            return
        forget_ended()
        if registry.default is None:
            _before.clear()
            _before.update({name: dask.config.get(name, _ABSENT) for name in (_SCHEDULER, *_METHODS)})
            chosen = _core_of(_before[_SCHEDULER])
            if chosen is not None and chosen.closed:  # 'with dask.config.set(...)' has brought it back as it ended
                _before[_SCHEDULER] = _ABSENT
            for name in SCHEDULER_NAMES:
                _named_before[name] = named_schedulers.get(name)
                named_schedulers[name] = named
        else:
            there = [each for each in registry.earlier_defaults if each() is not None]
            registry.earlier_defaults = [*there, weakref.ref(registry.default)]
        registry.default = core
        dask.config.set({_SCHEDULER: core.client})
        for name in _METHODS:
            if dask.config.get(name, None) in _NOT_OURS:
                dask.config.set({name: _TASKS})


def closed(core: Core) -> None:
    """A client is no longer open. Twice is no error."""
    with registry.lock:
        registry.open.discard(core)
        _forget(core)
        forget_ended()


def forget_ended() -> None:
    """No client whose event loop is closed is a default: it can do nothing any more, and nothing will close it."""
    with registry.lock:
        while registry.default is not None and registry.default.driver.is_over:
            _forget(registry.default)


def _forget(core: Core) -> None:
    """A client is no default any longer."""
    if core is registry.default:
        registry.default = _earlier_default()
        _be_no_longer_dasks(core)
    else:
        registry.earlier_defaults = [each for each in registry.earlier_defaults if each() is not core]


def _earlier_default() -> Core | None:
    """The latest of those that were the default before, and that are there still."""
    while registry.earlier_defaults:
        core = registry.earlier_defaults.pop()()
        if core is not None and not core.closed:
            return core
    return None


def _be_no_longer_dasks(core: Core) -> None:
    now = registry.default
    if _core_of(dask.config.get(_SCHEDULER, None)) is core:  # else the user has chosen another one meanwhile
        _restore(_SCHEDULER, _before[_SCHEDULER] if now is None else now.client)
    if now is not None:
        return
    for name in SCHEDULER_NAMES:
        if named_schedulers.get(name) is named:
            meant = _named_before[name]
            if meant is None:
                del named_schedulers[name]
            else:  # the process of a worker, where a task has opened a client
                named_schedulers[name] = meant
    for name in _METHODS:
        before = _before[name]
        if (before is _ABSENT or before in _NOT_OURS) and dask.config.get(name, None) == _TASKS:
            _restore(name, before)


def _core_of(scheduler: Any) -> Core | None:
    """The core of a client that is dask's scheduler; None if that is something else."""
    core: Core | None = getattr(scheduler, "_core_or_none", None)
    return core


class _Current:
    """The current client as dask's scheduler: what dask's names for its own distributed scheduler mean here."""

    def __call__(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        """Compute a graph.

        Raises
        ------
        ValueError
            There is no client.
        RuntimeError
            It is an asynchronous one.
        """
        core = current()
        check_gives_values(core)
        return core.client.get(dsk, keys, **kwargs)

    @property
    def persist(self) -> Any:
        """The client's method. dask asks for it: else it would bring all that it persists into this process."""
        try:
            return current().client.persist
        except ValueError as error:
            raise AttributeError(str(error)) from None


#: ``compute(scheduler="distributed")``.
named = _Current()


def check_gives_values(core: Core) -> None:
    """Raise if a call of dask, which is to give values, would block the event loop of an asynchronous client."""
    if core.driver.gives_awaitables:
        raise RuntimeError(
            "this would block the event loop of an asynchronous client: write 'await client.compute(collection)'"
        )


def _restore(name: str, value: Any) -> None:
    if value is not _ABSENT:
        dask.config.set({name: value})
        return
    *outer, last = name.split(".")
    settings = dask.config.config
    for part in outer:
        settings = settings.get(part, {})
    settings.pop(last, None)


def default_address() -> tuple[str | None, str]:
    """The address of a client that is given none, and where it is from; None: it starts a cluster of its own."""
    variable = os.environ.get(ADDRESS_VARIABLE)
    if variable:
        return variable, f"the environment variable {ADDRESS_VARIABLE}"
    configured = dask.config.get(_ADDRESS, None)
    return (str(configured), f"dask's configuration, {_ADDRESS!r}") if configured else (None, "")
