"""Futures in the fields of objects: which of them the function that gets the object is to see as values.

A list or a dictionary among the arguments is made anew around its references (`arguments.py`). An object with fields is
not: a copy would have to know how its class is made. It's pickled as its class says, with references in the place of
these futures, so the worker makes it with their values. Looking for them costs something, and most calls have none.
So they are looked for only where pickling came across futures at all.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import ItemsView, Iterable, Iterator, ValuesView
from typing import Any

from holdfast.client.packing.futures import is_future

_CONTAINERS = (list, tuple, set, frozenset, deque, ItemsView, ValuesView)


def futures_in_fields(values: Iterable[Any]) -> dict[int, Any]:
    """The futures that stand for values: in namedtuples, dataclasses, attrs' classes, containers of any class, their
    views, and iterators.

    Those in other attributes of other objects are the business of these objects' classes.

    Returns
    -------
    dict
        Futures by their identity.
    """
    found: dict[int, Any] = {}
    seen: dict[int, Any] = {}
    stack = list(values)
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value  # kept, so that nothing else gets its identity meanwhile
        if is_future(value):
            found[id(value)] = value
        else:
            stack.extend(_parts(value))
    return found


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, _CONTAINERS):
        yield from value
    elif isinstance(value, Iterator) and type(value).__module__ == "builtins":
        yield value.__reduce__()  # what is left of it, which looking at it would take away
    elif isinstance(value, dict):
        yield from value.values()
    for name in _field_names(type(value)):
        if hasattr(value, name):  # one that isn't set by `__init__` may not be there
            yield getattr(value, name)


def _field_names(kind: type) -> list[str]:
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return [attribute.name for attribute in getattr(kind, "__attrs_attrs__", ())]
