"""The futures that a collection stands on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dask.base import is_dask_collection

from holdfast.client.core.key_state import CANCELLED, LOST
from holdfast.client.futures.errors import error_of
from holdfast.client.futures.future import Future
from holdfast.client.packing.checks import check_in_one
from holdfast.client.packing.dask_internals import Alias, Expr
from holdfast.client.packing.foreign import check_no_foreign_future

_CONTAINERS = (list, tuple, set, frozenset)


def futures_of(o: Any, client: Any = None, *, skip_cancelled: bool = False) -> list[Future]:
    """The futures in a collection, or in a nested container of collections and futures.

    Parameters
    ----------
    o : dask collection, Future, or container of these
    client : Client, optional
        Only its futures.
    skip_cancelled : bool
        Whether to leave out those that were cancelled instead of raising.

    Returns
    -------
    list of Future
        Each once.

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
    >>> len(futures_of(x))
    2
    """
    check_in_one("futures_of", client)
    found: dict[Future, None] = {}
    stack = [o]
    while stack:
        item = stack.pop()
        if isinstance(item, Future):
            found[item] = None
        elif isinstance(item, (*_CONTAINERS,)):
            stack.extend(reversed(list(item)))
        elif isinstance(item, Mapping):
            stack.extend(reversed(list(item.values())))
        elif is_dask_collection(item):
            stack.extend(reversed(list(_values_of(item))))
        else:
            check_no_foreign_future(item, "something whose futures are looked for")
    futures = [future for future in found if client is None or future.client is client]
    if skip_cancelled:
        return [future for future in futures if future.status not in (CANCELLED, LOST)]
    for future in futures:
        if future.status in (CANCELLED, LOST):
            future._check_held()
            raise error_of(future._state)
    return futures


def listed(futures: Any, call: str) -> Any:
    """What a call was given of futures, as `futures_of` takes it.

    Raises
    ------
    TypeError
        It is nothing that has futures; ``call`` is named.
    """
    if isinstance(futures, (Future, Mapping, *_CONTAINERS)) or is_dask_collection(futures):
        return futures
    if not isinstance(futures, Iterable) or isinstance(futures, str | bytes):
        check_no_foreign_future(futures, f"what {call} is given")
        raise TypeError(
            f"{call} takes futures, or what has futures in it, not {futures!r:.100}: Future(key) is the one of a key"
        )
    return list(futures)


def _values_of(collection: Any) -> Iterator[Any]:
    """What stands at the top of a collection's graph, aliases left aside."""
    expr = getattr(collection, "expr", None)
    if isinstance(expr, Expr):
        # The graph of an expression is that of its optimized form, which may have other futures culled from it.
        for part in expr.walk():
            yield from (operand for operand in part.operands if isinstance(operand, Future))
            layer = part.operand("layer") if "layer" in part._parameters else None
            if isinstance(layer, Mapping):
                yield from layer.values()
            dsk = part.operand("dsk") if "dsk" in part._parameters else None
            if isinstance(dsk, Mapping):
                yield from dsk.values()
        return
    yield from (value for value in collection.__dask_graph__().values() if not isinstance(value, Alias))
