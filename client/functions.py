"""Functions as they are sent: pickled once, named by the digest of their pickle.

Pickling a function costs far more than calling it, so the pickle is remembered for as long as the function lives. A
function that is pickled by value (it is defined in ``__main__`` or inside another one) takes what it refers to along;
when one of these names has been bound anew in the meantime, it is pickled again.
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

#: Only these are remembered: they can't change under an unchanged identity, but for the names that they refer to.
_REMEMBERED = (types.FunctionType, types.BuiltinFunctionType, type)
_MAX_REMEMBERED = 1000
_MAX_NAME_LENGTH = 50
_EMPTY_CELL = object()


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
    """Pickles functions and remembers the pickles. Any thread may use it."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], Function, tuple[Any, ...]]] = {}

    def get(self, function: Callable[..., Any]) -> Function:
        """The function, pickled.

        Raises
        ------
        TypeError
            It can't be called, or can't be pickled; names it and says why.
        """
        entry = self._entries.get(id(function))
        if entry is not None and entry[0]() is function and _same(entry[2], _surroundings(function)):
            return entry[1]
        if not callable(function):
            raise TypeError(f"the first argument must be something that can be called, not {function!r}")
        packed = _pack(function)
        if isinstance(function, _REMEMBERED):
            identity, entries = id(function), self._entries
            if len(entries) >= _MAX_REMEMBERED:  # an entry may refer to its own function and never end by itself
                entries.pop(next(iter(entries)), None)
            reference = weakref.ref(function, lambda _: entries.pop(identity, None))
            entries[identity] = (reference, packed, _surroundings(function))
        return packed


def _pack(function: Callable[..., Any]) -> Function:
    name = funcname(function)[:_MAX_NAME_LENGTH]
    try:
        with collecting() as found:
            blob = payload.dumps(function)
    except Exception as error:
        raise TypeError(f"the function {name} can't be pickled, so it can't be sent to a worker: {error}") from error
    return Function(name, blob, tuple(dict.fromkeys(future.key for future in found)))


def _surroundings(function: Any) -> tuple[Any, ...]:
    """What a function pickled by value takes along and can be bound anew: code, defaults, closure, global names."""
    if type(function) is not types.FunctionType or _is_importable(function):
        return ()
    code, names = function.__code__, function.__globals__
    return (
        code,
        function.__defaults__,
        function.__kwdefaults__,
        *[names.get(name) for name in code.co_names],
        *[_content(cell) for cell in function.__closure__ or ()],
    )


def _is_importable(function: types.FunctionType) -> bool:
    module = sys.modules.get(function.__module__ or "")
    return (
        module is not None
        and function.__module__ != "__main__"
        and getattr(module, function.__qualname__, None) is function
    )


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY_CELL


def _same(old: tuple[Any, ...], new: tuple[Any, ...]) -> bool:
    return len(old) == len(new) and all(map(_is, old, new))


def _is(one: Any, other: Any) -> bool:
    return one is other
