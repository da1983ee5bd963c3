"""What ``__main__`` is in a worker: the names of the scripts whose functions it has.

A script's functions and classes come to a worker by value, as ones of the module ``__main__``. Here that is another
module, and whatever is pickled by name, there or in a process that a task starts, is looked up in it. So in a worker
it's a `MainModule`, which finds what arrived.

Processes that tasks start with `multiprocessing`, directly or in a pool, are sent functions and classes of scripts by
value too: one that was spawned has no such module, and one that was forked long ago may know no such name. In a fork
of a process that has the thing, the name is enough: it is that very thing there, with the global variables that an
initializer of the pool may have set. This module imports little, since a spawned process imports it.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.reduction import ForkingPickler
from types import FunctionType, ModuleType
from typing import Any

from holdfast.objectstore.pickling import importing
from holdfast.objectstore.pickling.by_value import REDUCERS, ByValuePickler

#: By digest, the functions of tasks that are here now.
Known = Callable[[], Mapping[bytes, Callable[..., Any]]]

_known: Known | None = None


def take_over(known: Known) -> None:
    """From now on ``__main__`` has what the known functions have of it. For a process that runs tasks only."""
    global _known
    _known = known
    sys.modules["__main__"] = MainModule(sys.modules["__main__"])
    _send_by_value()


class MainModule(ModuleType):
    """Finds the functions and classes of scripts that are in this process.

    Parameters
    ----------
    replaced
        The module that was ``__main__``; kept, since its code runs.
    """

    def __init__(self, replaced: ModuleType) -> None:
        super().__init__("__main__")
        self._replaced = replaced

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for function in reversed(list(_known().values() if _known is not None else ())):
                for variables in _namespaces(function):
                    if name in variables and _is_of_script(variables[name]):
                        return variables[name]
            for cls in reversed(list(_classes())):
                if cls.__module__ == "__main__" and cls.__qualname__ == name:
                    return cls
        raise AttributeError(
            f"no function or class {name!r} of a script's __main__ has come to this process; what is in a module is "
            "found everywhere"
        )


def _is_of_script(value: Any) -> bool:
    return getattr(value, "__module__", None) == "__main__"


def _namespaces(function: Any) -> Iterator[dict[str, Any]]:
    """The global variables of a function, of those that it wraps, or of the methods of a class."""
    todo, seen = [function], set()
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, FunctionType):
            yield {value.__name__: value, **value.__globals__}
        elif isinstance(value, type):
            todo += (
                [part for part in vars(value).values() if not isinstance(part, type)] if _is_of_script(value) else []
            )
        elif not _is_of_script(value) and not isinstance(value, functools.partial):
            continue
        elif not hasattr(value, "__wrapped__"):
            todo.append(type(value))
        todo += [getattr(value, name) for name in ("__wrapped__", "__func__", "func") if hasattr(value, name)]


def _classes() -> Iterator[type]:
    """All classes, those that were made last at the end of their base's."""
    todo = [object]
    seen: set[type] = set()
    while todo:
        cls = todo.pop()
        if cls not in seen:
            seen.add(cls)
            yield cls
            todo += type.__subclasses__(cls)


# -- for the processes that tasks start


def _send_by_value() -> None:
    """Have `multiprocessing` send what is defined in ``__main__`` by value."""
    ForkingPickler.reducer_override = _reduce  # type: ignore[method-assign, assignment]


def _reduce(pickler: ForkingPickler, value: Any) -> Any:
    if not isinstance(value, (FunctionType, type)) and type(value) not in REDUCERS:
        return NotImplemented
    if not _is_of_script(value):
        return NotImplemented
    file = io.BytesIO()
    ByValuePickler(file, protocol=5).dump(value)
    return _load, (*_place_of(value), file.getvalue())


def _place_of(value: Any) -> tuple[bytes, str]:
    """Which function of a task has it among its global variables, and under which name."""
    name = getattr(value, "__name__", "")
    for digest, function in _known().items() if _known is not None else ():
        if any(variables.get(name) is value for variables in _namespaces(function)):
            return digest, name
    return b"", name


def _load(digest: bytes, name: str, blob: bytes) -> Any:
    if _known is None:
        _send_by_value()  # what this process answers
    elif (function := _known().get(digest)) is not None:
        for variables in _namespaces(function):
            if name in variables:
                return variables[name]
    return importing.loads(blob)
