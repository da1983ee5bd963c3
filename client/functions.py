"""Functions as they are sent: pickled, and named by the digest of their pickle.

A function that is pickled by reference, as the name under which a worker imports it, is pickled once. One that is
pickled by value (it is defined in ``__main__`` or inside another one) takes along what it refers to, to any depth: the
globals of its nested code, the functions that it calls, the contents of what they name. Nothing short of pickling it
tells whether some of that has changed, so it is pickled for every call of `Client.submit` or `Client.map`.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from dask.utils import funcname

from holdfast.client.arguments import collecting
from holdfast.client.keys import TOKEN_NBYTES
from holdfast.cluster import payload

#: What is pickled by reference, where it can be imported.
_BY_NAME = (types.FunctionType, types.BuiltinFunctionType, type)
_MAX_REMEMBERED = 1000
_MAX_NAME_LENGTH = 50


class Function:
    """A function ready to be sent.

    Attributes
    ----------
    name : str
        For keys and for people.
    digest : bytes
        16 bytes that stand for ``blob`` in messages.
    blob : bytes
        Its pickle.
    dependencies : tuple
        Keys of the futures that it holds in its closure.
    """

    __slots__ = ("blob", "dependencies", "digest", "name")

    def __init__(self, name: str, blob: bytes, dependencies: tuple[Any, ...]) -> None:
        self.name = name
        self.blob = blob
        self.digest = blake2b(blob, digest_size=TOKEN_NBYTES).digest()
        self.dependencies = dependencies


class FunctionCache:
    """Pickles functions, and remembers the pickles of those that can be imported. Any thread may use it."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], Function]] = {}

    def get(self, function: Callable[..., Any]) -> Function:
        """The function, pickled.

        Raises
        ------
        TypeError
            It can't be called, or can't be pickled; names it and says why.
        """
        entry = self._entries.get(id(function))
        if entry is not None and entry[0]() is function and _is_importable(function):
            return entry[1]
        if not callable(function):
            raise TypeError(f"the first argument must be something that can be called, not {function!r}")
        packed = _pack(function)
        if _is_importable(function):
            identity, entries = id(function), self._entries
            if len(entries) >= _MAX_REMEMBERED:
                entries.pop(next(iter(entries)), None)
            reference = weakref.ref(function, lambda _: entries.pop(identity, None))
            entries[identity] = (reference, packed)
        return packed


def _pack(function: Callable[..., Any]) -> Function:
    # Lone surrogates can't be sent, and the name becomes part of keys.
    name = funcname(function)[:_MAX_NAME_LENGTH].encode(errors="replace").decode()
    try:
        with collecting() as found:
            blob = payload.dumps(function)
    except Exception as error:
        raise TypeError(f"the function {name} can't be pickled, so it can't be sent to a worker: {error}") from error
    return Function(name, blob, tuple(dict.fromkeys(future.key for future in found)))


def _is_importable(function: Any) -> bool:
    """Whether it is pickled by reference: a worker finds it under its name, and so does this process now."""
    if not isinstance(function, _BY_NAME) or function.__module__ == "__main__":
        return False
    module = sys.modules.get(function.__module__ or "")
    return module is not None and getattr(module, function.__qualname__, None) is function
