"""dask's collections as graphs: what is held already, what is restricted, and what there is to compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask.base import is_dask_collection

from holdfast.client.core.core import Core
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import borrow
from holdfast.client.packing import options as task_options
from holdfast.client.packing.dask_internals import collections_to_expr, flatten
from holdfast.client.packing.graphs import nodes_of


def normalized(core: Core, collection: Any) -> Any:
    """See `Client.normalize_collection`."""
    _check_collection(collection)
    core.table.settle_all()  # a key of futures that are gone is one to be computed
    given: Mapping[Any, Any] = collection.__dask_graph__()
    nodes = nodes_of(given)
    outputs = list(flatten(collection.__dask_keys__()))
    needed: dict[Any, Any] = {}
    ahead = list(outputs)
    while ahead:
        key = ahead.pop()
        if key in needed:
            continue
        held = borrow(core, key)
        if held is not None:
            needed[key] = held
        elif key in nodes:
            needed[key] = nodes[key]
            ahead.extend(nodes[key].dependencies)
        elif isinstance(given.get(key), Future):
            needed[key] = given[key]  # of another client
    if not any(isinstance(node, Future) for node in needed.values()):
        return collection
    rebuild, state = collection.__dask_postpersist__()
    return rebuild(needed, *state)


def graph_of(collections: Any, optimize_graph: bool = True) -> dict[Any, Any]:
    """See `Client.collections_to_dsk`."""
    given = _listed(collections)
    return dict(collections_to_expr(given, optimize_graph).optimize().__dask_graph__())


def restrictions(collections: Any, workers: Any, allow_other_workers: Any) -> tuple[dict[Any, list[str]], list[Any]]:
    """See `Client.get_restrictions`."""
    outputs = [(each, list(flatten(each.__dask_keys__()))) for each in _listed(collections)]
    names = task_options.chosen(workers, outputs, nested=False)
    loose = task_options.loose(allow_other_workers, outputs)
    return (
        {key: task_options.names_of_workers(named) for key, named in names.items()},
        [key for key in names if loose.get(key)],
    )


def _listed(collections: Any) -> list[Any]:
    given = [collections] if is_dask_collection(collections) else list(collections)
    for each in given:
        _check_collection(each)
    return given


def _check_collection(value: Any) -> None:
    if not is_dask_collection(value):
        raise TypeError(f"this takes dask collections, and a {type(value).__name__} is none: {value!r:.100}")
