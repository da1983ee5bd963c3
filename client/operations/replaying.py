"""Running a task of the cluster here, with what it had: `Client.recreate_error_locally`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

from holdfast.client.core.core import Core
from holdfast.client.core.key_state import ERROR
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Elsewhere, Operation
from holdfast.client.futures.collections import futures_of
from holdfast.client.futures.future import Future
from holdfast.client.futures.reading import read, ready
from holdfast.client.raising import raise_in_operation
from holdfast.cluster import protocol
from holdfast.cluster.errors import ObjectLostError
from holdfast.cluster.protocol import payloads


class Components(NamedTuple):
    """What the task that has failed consists of; what it reads is named by key.

    Attributes
    ----------
    function : callable
    args : tuple
    kwargs : dict
        The arguments, with keys in the place of results.
    dependencies : list
        The keys of the results that it reads.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dependencies: list[Any]


def components_of_error(core: Core, future: Any) -> Operation[Components]:
    """See `Client.get_futures_error`."""
    recipe = yield from _recipe(core, future, blamed=True)
    dependencies = list(recipe["dependencies"])
    names = {key: key for key in dependencies}
    given = payloads.loads(recipe["payload"], names)
    if recipe["function"] is None:
        return Components(given.func, tuple(given.args), dict(given.kwargs), dependencies)
    args, kwargs = given
    return Components(payloads.loads(recipe["function"], names), args, kwargs, dependencies)


def recreate(core: Core, future: Any, *, blamed: bool) -> Operation[Any]:
    """See `Client.recreate_error_locally` and `Client.recreate_task_locally`."""
    recipe = yield from _recipe(core, future, blamed=blamed)
    values = {}
    for key in recipe["dependencies"]:
        held = Future._wanted(key, core)
        values[key] = yield from read(core, held._state, None, None, held)
    given = payloads.loads(recipe["payload"], values)
    if recipe["function"] is None:
        call: Callable[[], Any] = partial(given, values)
    else:
        args, kwargs = given
        call = partial(payloads.loads(recipe["function"], values), *args, **kwargs)
    try:
        result = call()
    except StopIteration as error:
        raise_in_operation(error)
    if inspect.iscoroutine(result):
        result = yield Elsewhere(partial(_to_its_end, result))
    return result


def _to_its_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # a blocking client in a coroutine of somebody's
        return pool.submit(asyncio.run, coroutine).result()


def _recipe(core: Core, future: Any, *, blamed: bool) -> Operation[dict[str, Any]]:
    """How the task is computed that a future stands for, or the one that it has failed for."""
    futures = [future] if isinstance(future, Future) else futures_of(future)
    if not futures:
        raise ValueError(f"there is no future in {future!r:.100}")
    for each in futures:
        each._check_held()
        yield from ready(each._core, (each._state,))
    failed = [each for each in futures if each.status == ERROR]
    if blamed and not failed:
        raise ValueError(f"none of these has failed: {', '.join(repr(each.key) for each in futures[:5])}")
    key = (failed if blamed else futures)[0].key
    recipe = yield Ask(core.session, protocol.requests.RECIPE, key=key, blamed=blamed)
    if recipe is None:
        raise ObjectLostError(f"{key!r:.200} can't be run here: it is data that a client has stored, or forgotten")
    return dict(recipe)
