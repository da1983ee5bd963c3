"""Keys: the names of computations.

A pure call has a key made of what is sent for it anyway, so the same call made twice is one computation. Any other call
gets a random one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

TOKEN_NBYTES = 16
_ATOMS = frozenset({str, int, float, bytes, bool, type(None)})


def content_token(*parts: bytes | bytearray | memoryview) -> str:
    """32 hexadecimal digits that stand for these bytes."""
    digest = blake2b(digest_size=TOKEN_NBYTES)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def random_token() -> str:
    """32 hexadecimal digits that were never used before."""
    return os.urandom(TOKEN_NBYTES).hex()


def wire_key(key: Any) -> Any:
    """The key as messages carry it: equal to the one given, made of builtin types only.

    Raises
    ------
    TypeError
        It can't be a key.

    Examples
    --------
    >>> import numpy as np
    >>> wire_key(("x", np.int64(3)))
    ('x', 3)
    """
    kind = type(key)
    if kind is str:
        return key
    if kind is tuple:
        for part in key:
            if type(part) not in _ATOMS:
                return tuple([wire_key(part) for part in key])
        return key
    if kind in _ATOMS:
        return key
    if isinstance(key, tuple):
        return tuple(wire_key(part) for part in key)
    builtins: tuple[Callable[[Any], Any], ...] = (str, bytes, int, float)
    for builtin in builtins:
        if isinstance(key, builtin):  # type: ignore[arg-type]
            return builtin(key)
    item = getattr(key, "item", None)  # numpy's scalars
    if item is not None:
        value = item()
        if type(value) in _ATOMS:
            return value
    raise TypeError(f"{key!r} can't be a key: a key is a string, a number, or a tuple of these, not a {kind.__name__}")
