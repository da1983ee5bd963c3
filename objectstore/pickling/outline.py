"""What a pickle is of, told without what it is made of: for messages about pickles that can't be unpickled.

The pickle is read with a stand-in for each class and function that it names, so nothing is imported and no code of
any user's runs.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import Any

#: A larger pickle is left alone: reading it takes long, and memory.
MAX_NBYTES = 4 << 20

#: Where the name of a function stands among the arguments that code is made of.
_NAME_OF_CODE = 12
_MAKERS_OF_CLASSES = ("_make_skeleton_class", "_make_skeleton_enum")
#: These make what is pickled by value, or by a way of its own; the name of the class is among their arguments.
_MAKERS = ("cloudpickle.", "copyreg.", "copy_reg.", "holdfast.objectstore.", "builtins.getattr")


def name_in(data: bytes | memoryview, buffers: Iterable[Any] = ()) -> str:
    """The name of the class, or of the function or class itself, that a pickle is of; empty if it can't be told.

    Examples
    --------
    >>> import fractions, pickle
    >>> name_in(pickle.dumps(fractions.Fraction(1, 2)))
    'fractions.Fraction'
    """
    if len(data) > MAX_NBYTES:
        return ""
    try:
        return _name_of(_NameReader(io.BytesIO(data), buffers=buffers).load())
    except Exception:  # a damaged pickle, or one that does with its classes what a stand-in can't
        return ""


class _NameReader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _class(name, module)

    def persistent_load(self, pid: Any) -> Any:
        return None


class _StandIn:
    """An object of a class that is named in a pickle, or what a function that is named there has returned."""

    given: tuple[Any, ...] = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls.__qualname__ in _MAKERS_OF_CLASSES:
            return _class(args[1], "__main__")
        self = super().__new__(cls)
        self.given = args
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _ignore(self, *args: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = _ignore

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return type(self)(*args)


def _class(name: str, module: str) -> type:
    return type(name, (_StandIn,), {"__module__": module, "__qualname__": name})


def _name_of(value: Any) -> str:
    is_class = isinstance(value, type)
    kind = value if is_class else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    if is_class or not isinstance(value, _StandIn) or not name.startswith(_MAKERS):
        return name
    given = value.given
    if kind.__qualname__ == "_make_function":
        return str(given[0].given[_NAME_OF_CODE])
    return next((found for each in given if (found := _name_of(each)) and "." in found), "")
