"""Functions as they are sent: pickled, and named by the digest of their pickle.

A function that is pickled by reference, as the name under which a worker imports it, is pickled once. One that is
pickled by value (it is defined in ``__main__`` or inside another one) takes along what it refers to, to any depth: the
globals of its nested code, the functions that it calls, the contents of what they name. Nothing short of pickling it
tells whether some of that has changed, so it is pickled for every call of `Client.submit` or `Client.map`.

Most such functions are plain, though: all that they refer to is modules and what can be imported, which travels by
name. Then its code, and what its names mean now, tell everything, and the pickle is remembered with these.

Large data that a function takes along, in its closure or in the object that it is a method of, is stored by itself
(`constants.py`).
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

from dask.utils import funcname

from holdfast.client.packing.constants import REFUSALS, Constants
from holdfast.client.packing.futures import FutureLike, Own
from holdfast.client.packing.keys import TOKEN_NBYTES

_ABSENT = object()
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
        Keys of the futures that it holds in its closure, and of its data that is stored.
    stored : tuple of Future
        Of that data, and of those in its closure that another client holds.
    """

    __slots__ = ("blob", "dependencies", "digest", "name", "stored")

    def __init__(
        self, name: str, blob: bytes, dependencies: tuple[Any, ...], stored: tuple[FutureLike, ...] = ()
    ) -> None:
        self.name = name
        self.blob = blob
        self.digest = blake2b(blob, digest_size=TOKEN_NBYTES).digest()
        self.dependencies = dependencies
        self.stored = stored


class FunctionCache:
    """Pickles functions, and remembers what it can of the pickles. Any thread may use it."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], Function, _Meaning]] = {}

    def get(self, function: Callable[..., Any], own: Own, constants: Constants | None = None) -> Function:
        """The function, pickled.

        Parameters
        ----------
        function
            What is called.
        own
            Called with every future in its closure.
        constants
            Where large data of it goes. None: that stays in the pickle.

        Raises
        ------
        TypeError
            It can't be called, or can't be pickled; names it and says why.
        HoldfastError, TimeoutError
            Its data can't be stored.
        ValueError, CancelledError
            A future in its closure is of another cluster, or was cancelled or released.
        """
        entry = self._entries.get(id(function))
        if entry is not None and entry[0]() is function and entry[2].holds(function):
            return entry[1]
        if not callable(function):
            raise TypeError(f"the first argument must be something that can be called, not {function!r}")
        packed = _pack(function, constants or Constants(_nowhere), own)
        meaning = None if packed.dependencies else _Meaning.of(function)
        if meaning is not None:
            identity, entries = id(function), self._entries
            if len(entries) >= _MAX_REMEMBERED:
                entries.pop(next(iter(entries)), None)
            reference = weakref.ref(function, lambda _: entries.pop(identity, None))
            entries[identity] = (reference, packed, meaning)
        return packed


def _nowhere(value: Any) -> None:
    """There is no store."""


def _pack(function: Callable[..., Any], constants: Constants, own: Own) -> Function:
    # Lone surrogates can't be sent, and the name becomes part of keys.
    name = funcname(function)[:_MAX_NAME_LENGTH].encode(errors="replace").decode()
    try:
        packed = constants.pack(function)
    except REFUSALS:
        raise
    except Exception as error:
        raise TypeError(f"the function {name} can't be pickled, so it can't be sent to a worker: {error}") from error
    adopted = [mine for future in packed.inside if (mine := own(future)) is not future]
    keys = dict.fromkeys([future.key for future in (*packed.inside, *packed.stored)])
    return Function(name, packed.data, tuple(keys), (*packed.stored, *adopted))


def _is_importable(function: Any) -> bool:
    """Whether it is pickled by reference: a worker finds it under its name, and so does this process now."""
    if not isinstance(function, _BY_NAME) or function.__module__ == "__main__":
        return False
    module = sys.modules.get(function.__module__ or "")
    return module is not None and getattr(module, function.__qualname__, None) is function


class _Meaning:
    """All that the pickle of a function depends on.

    Parameters
    ----------
    code :
        Of a plain function; None if it is pickled by reference.
    names, values :
        What its code may look up among its globals, and what it finds there.
    """

    __slots__ = ("code", "names", "values")

    def __init__(self, code: types.CodeType | None, names: tuple[str, ...], values: tuple[Any, ...]) -> None:
        self.code = code
        self.names = names
        self.values = values

    @classmethod
    def of(cls, function: Any) -> _Meaning | None:
        """None if it can't be told without pickling the function."""
        if _is_importable(function):
            return cls(None, (), ())
        if not _is_bare(function):
            return None
        names = tuple(dict.fromkeys(_names(function.__code__)))
        values = tuple([function.__globals__.get(name, _ABSENT) for name in names])
        if all(v is _ABSENT or v is function or _is_importable(v) or _is_module(v) for v in values):
            # Not the function itself, which would keep it alive.
            return cls(function.__code__, names, tuple([_ABSENT if v is function else v for v in values]))
        return None

    def holds(self, function: Any) -> bool:
        """Whether it is still the same."""
        if self.code is None:
            return _is_importable(function)
        if function.__code__ is not self.code or not _is_bare(function):
            return False
        now = function.__globals__.get
        for name, value in zip(self.names, self.values, strict=True):
            found = now(name, _ABSENT)
            if found is not value and found is not function:
                return False
        return True


def _is_bare(function: Any) -> bool:
    """Whether it is a function that takes nothing along but its code and its globals."""
    return type(function) is types.FunctionType and not (
        function.__closure__ or function.__defaults__ or function.__kwdefaults__ or function.__dict__
    )


def _names(code: types.CodeType) -> Iterator[str]:
    """The names of globals that the code may look up, in nested code too. (Names of attributes are among them.)"""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_module(value: Any) -> bool:
    """Whether it is a module that a worker imports by its name."""
    return type(value) is types.ModuleType and value.__name__ != "__main__" and sys.modules.get(value.__name__) is value
