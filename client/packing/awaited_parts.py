"""Coroutine functions inside of a node of a dask graph.

A task whose function gives a coroutine is run to its end by the worker (`holdfast.cluster.worker.coroutines`). But dask
fuses nodes into one, and a node may have others for its arguments. There what a part gives goes straight to the next
one, which can do nothing with a coroutine. So these functions are replaced by some that run it to its end.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from holdfast.client.packing.dask_internals import Task, execute_subgraph


class Awaited:
    """Calls a coroutine function in a task, and gives what its coroutine gives.

    Parameters
    ----------
    function
        The coroutine function.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from holdfast.cluster.worker import coroutines  # only a task comes here, whose process has it

        return coroutines.run(self.function(*args, **kwargs))


def with_awaited_parts(node: Any) -> Any:
    """A node in which the coroutine functions of its parts are `Awaited`; the node itself if there is none."""
    if not isinstance(node, Task):
        return node
    args, kwargs = list(node.args), {name: _part(value) for name, value in node.kwargs.items()}
    if node.func is execute_subgraph:
        parts = {key: _part(part) for key, part in args[0].items()}
        if any(parts[key] is not part for key, part in args[0].items()):
            args[0] = parts
    else:
        args = [_part(value) for value in args]
    before, after = (*node.args, *node.kwargs.values()), (*args, *kwargs.values())
    if all(new is old for new, old in zip(after, before, strict=True)):
        return node
    new = copy.copy(node)
    new.args, new.kwargs, new._token = tuple(args), kwargs, None
    return new


def _part(value: Any) -> Any:
    new = with_awaited_parts(value)
    if isinstance(value, Task) and _is_coroutine_function(value.func):
        new = copy.copy(new)
        new.func, new._token = Awaited(value.func), None
    return new


def _is_coroutine_function(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
