"""Calls that take one item of a dependency: whether the rest of it is read is then the store's affair.

A shuffle consists of such calls for the greater part: each piece of each split partition is taken out of a dictionary
of them all (``objectstore/codecs/mapping.py``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

_NODE_NBYTES_MAX = 2048
_GETITEM = b"getitem"
_SOURCES = ("TaskRef", "Reference")  # by name: dask isn't imported for this


def item_taken(function: Any, payload: bytes | memoryview, load: Callable[[], Any]) -> tuple[Any] | None:
    """The key, in a tuple, of the item that is all that a call takes of its only dependency; None for other calls.

    Parameters
    ----------
    function
        What is called; None for a node of a dask graph.
    payload
        Its arguments, or the node.
    load
        Unpickles the payload, with references in the place of what they refer to.
    """
    if function is operator.getitem:
        call = load()
        if type(call) is not tuple:
            return None  # it is stored, and to be read itself
        args, kwargs = call
    elif function is None and len(payload) <= _NODE_NBYTES_MAX and _GETITEM in bytes(payload):
        node = load()
        if getattr(node, "func", None) is not operator.getitem:
            return None
        args, kwargs = node.args, node.kwargs
    else:
        return None
    is_one = len(args) == 2 and not kwargs and type(args[0]).__name__ in _SOURCES
    return (args[1],) if is_one and type(args[1]) in (int, str, tuple) else None
