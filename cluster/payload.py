"""What travels inside a task: functions and arguments, as bytes that the scheduler never looks into.

A client writes payloads and a worker reads them, so what both must agree on stands here. Futures among the
arguments are written as `Reference`; reading a payload inside `resolving(values)` puts the values in their place
while it is unpickled, however deep they stand, without walking the arguments.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from holdfast.cluster.protocol.limits import INLINE_LIMIT_NBYTES
from holdfast.objectstore.by_value import ByValuePickler

__all__ = [
    "INLINE_LIMIT_NBYTES",
    "Item",
    "Reference",
    "dumps",
    "loads",
    "resolving",
]

_context = threading.local()


def dumps(value: Any) -> bytes:
    """Pickle ``value``, with cloudpickle where pickle can't or would refer to this process's ``__main__``.

    Raises
    ------
    Exception
        Whatever pickling raised: `pickle.PicklingError`, `TypeError`, an error of the object's own, …
    """
    try:
        data = pickle.dumps(value, protocol=5)
        if b"__main__" not in data:
            return data
    except Exception:  # pickle raises any type; what really can't be pickled raises again below
        pass
    by_value = io.BytesIO()
    ByValuePickler(by_value, protocol=5).dump(value)
    return by_value.getvalue()


class Reference:
    """Stands in a payload for the value of ``key``."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __reduce__(self) -> tuple[Any, tuple[Any]]:
        return _resolve, (self.key,)

    def __repr__(self) -> str:
        return f"Reference({self.key!r})"


class Item:
    """Stands in a payload for one item of the value of ``key``: what it has at ``item``."""

    __slots__ = ("item", "key")

    def __init__(self, key: Any, item: Any) -> None:
        self.key = key
        self.item = item

    def __reduce__(self) -> tuple[Any, tuple[Any, Any]]:
        return _resolve_item, (self.key, self.item)

    def __repr__(self) -> str:
        return f"Item({self.key!r}, {self.item!r})"


#: ``item_of(key, item)``: one item of the value of ``key``.
ItemOf = Callable[[Any, Any], Any]


def _resolve(key: Any) -> Any:
    values = getattr(_context, "values", None)
    return Reference(key) if values is None else values[key]


def _resolve_item(key: Any, item: Any) -> Any:
    values = getattr(_context, "values", None)
    if values is None:
        return Item(key, item)
    item_of: ItemOf | None = _context.item_of
    return values[key][item] if item_of is None else item_of(key, item)


@contextlib.contextmanager
def resolving(values: Mapping[Any, Any], item_of: ItemOf | None = None) -> Iterator[None]:
    """Within it, in this thread, references unpickle to ``values[key]``, and items to items of these."""
    outer = getattr(_context, "values", None), getattr(_context, "item_of", None)
    _context.values, _context.item_of = values, item_of
    try:
        yield
    finally:
        _context.values, _context.item_of = outer


def loads(payload: bytes | memoryview, values: Mapping[Any, Any] | None = None, item_of: ItemOf | None = None) -> Any:
    """Unpickle a payload, with values in the place of its references.

    Parameters
    ----------
    payload
        What `dumps` made.
    values
        The values by key; without any, references stay what they are.
    item_of
        Gives an item without all of the value that it's an item of. By default that is taken from ``values``.
    """
    if not values:
        return pickle.loads(payload)
    with resolving(values, item_of):
        return pickle.loads(payload)
