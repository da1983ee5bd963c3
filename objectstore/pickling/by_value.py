"""What a pickle can only name is pickled by value: whatever a script defined in ``__main__``, a lambda, a local class.

cloudpickle does that for functions and classes. Other things are pickled by their name as well, though what they are
made of could be sent, and some that a script has about refuse to be pickled. `REDUCERS` has those, by type:

==============================  ===============================================================
functions with a cache          the function in it, which gets an empty cache there
generic functions and methods   their functions by class (`functools.singledispatch`), without their caches
`functools.cached_property`     its function, without the lock that it has before Python 3.12
`typing.NewType`, `ParamSpec`,  what they were made with
`TypeVarTuple`, ``type X = …``
`dataclasses.MISSING`           by name: there is one
an object of a class of         the object; there is one of it in each process, as there is here
``__main__`` that is pickled
by its name
==============================  ===============================================================

What others can import is pickled by its name, as ever. A reducer that is given something which refers to itself, as a
recursive function with a cache does, needs no care: the pickler notices.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import typing
import weakref
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import cloudpickle

#: What newer versions of cloudpickle write for the name of a file.
_NO_FILE = "<dynamic-code>"
_override = cloudpickle.Pickler.reducer_override
#: Of a class that doesn't say itself how its objects are pickled.
_REDUCE: Any = object.__reduce__
_REDUCE_EX: Any = object.__reduce_ex__
_Reduced = tuple[Any, ...]


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, with the reducers of this module."""

    def reducer_override(self, value: Any) -> Any:
        """What a value is pickled as; ``NotImplemented`` leaves that to the reducers by type."""
        kind = type(value)
        if kind is FunctionType:
            if value.__code__ is _GENERIC_CODE and not is_importable(value):
                return _reduce_generic(value)
        elif (
            (kind.__reduce__ is not _REDUCE or kind.__reduce_ex__ is not _REDUCE_EX)
            and getattr(value, "__module__", None) == "__main__"
            and kind not in self.dispatch_table
        ):
            reduced = value.__reduce_ex__(5)
            return _reduce_named(value, reduced) if isinstance(reduced, str) else reduced
        return _override(self, value)


def is_importable(value: Any) -> bool:
    """Whether others find the very same thing under its name, in a module that is pickled by name."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return False
    by_value = cloudpickle.list_registry_pickle_by_value()
    if by_value and any(module == known or module.startswith(f"{known}.") for known in by_value):
        return False
    return found_in(sys.modules.get(module), name) is value


def found_in(module: Any, qualified_name: str) -> Any:
    """What has this name in a module; None if nothing has."""
    found = module
    for part in qualified_name.split("."):
        found = getattr(found, part, None)
    return found


def _reduce_code(code: CodeType) -> _Reduced:
    """What cloudpickle makes of code, with the name of its file: a traceback finds the source by that."""
    make, arguments, *rest = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return (make, tuple(code.co_filename if a == _NO_FILE else a for a in arguments), *rest)


# -- functions


def _reduce_cached(function: Any) -> Any:
    if is_importable(function):
        return function.__reduce__()
    parameters = function.cache_parameters()
    return _cached, (function.__wrapped__, parameters["maxsize"], parameters["typed"]), function.__dict__


def _cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


#: The code of what `functools.singledispatch` gives.
_GENERIC_CODE = functools.singledispatch(lambda _: None).__code__  # type: ignore[attr-defined]
_GENERIC_ATTRIBUTES = frozenset({"register", "dispatch", "registry", "_clear_cache"})


def _reduce_generic(function: Any) -> _Reduced:
    attributes = {name: value for name, value in vars(function).items() if name not in _GENERIC_ATTRIBUTES}
    attributes |= {name: getattr(function, name) for name in ("__module__", "__name__", "__qualname__", "__doc__")}
    others = {cls: registered for cls, registered in function.registry.items() if cls is not object}
    return _generic, (function.registry[object],), (others, attributes), None, None, _set_generic


def _generic(function: Callable[..., Any]) -> Any:
    return functools.singledispatch(function)


def _set_generic(function: Any, state: tuple[dict[type, Any], dict[str, Any]]) -> None:
    others, attributes = state
    for cls, registered in others.items():
        function.register(cls, registered)
    for name, value in attributes.items():
        setattr(function, name, value)


def _reduce_cached_property(cached: Any) -> _Reduced:
    state = {name: value for name, value in vars(cached).items() if name not in ("func", "lock")}
    return functools.cached_property, (cached.func,), state


def _reduce_generic_method(method: Any) -> _Reduced:
    state = {name: v for name, v in vars(method).items() if not isinstance(v, weakref.WeakKeyDictionary)}
    return functools.singledispatchmethod, (method.func,), state


# -- types, and what else is declared


def _reduce_declared(make: Callable[[Any], _Reduced]) -> Callable[[Any], Any]:
    """A reducer of what is pickled by its name where it can be imported, and as ``make`` says where it can't."""
    return lambda value: value.__reduce__() if is_importable(value) else make(value)


def _reduce_new_type(new_type: Any) -> _Reduced:
    return object.__new__, (type(new_type),), dict(vars(new_type))


def _reduce_param_spec(spec: Any) -> _Reduced:
    return _param_spec, (spec.__name__, spec.__bound__, spec.__covariant__, spec.__contravariant__)


def _param_spec(name: str, bound: Any, covariant: bool, contravariant: bool) -> Any:
    return typing.ParamSpec(name, bound=bound, covariant=covariant, contravariant=contravariant)


def _reduce_alias(alias: Any) -> _Reduced:
    return _alias, (alias.__name__, alias.__value__, alias.__type_params__)


def _alias(name: str, value: Any, parameters: tuple[Any, ...]) -> Any:
    return typing.TypeAliasType(name, value, type_params=parameters)  # type: ignore[attr-defined]


# -- objects that there is one of


def _reduce_named(value: Any, name: str) -> _Reduced:
    """Of an object that is pickled by a name that it has in ``__main__``."""
    return _named, (type(value), name, object.__getstate__(value))


_objects: weakref.WeakKeyDictionary[type, dict[str, Any]] = weakref.WeakKeyDictionary()


def _named(kind: type, name: str, state: Any) -> Any:
    """The object of this name: of this process's own ``__main__``, or else one that is made once."""
    here = found_in(sys.modules.get("__main__"), name)
    if type(here) is kind:
        return here
    made = _objects.setdefault(kind, {})
    if name not in made:
        value: Any = object.__new__(kind)
        attributes, slots = state if isinstance(state, tuple) else (state, None)
        for attribute, content in {**(attributes or {}), **(slots or {})}.items():
            object.__setattr__(value, attribute, content)
        made.setdefault(name, value)
    return made[name]


REDUCERS: dict[type, Callable[[Any], Any]] = {
    CodeType: _reduce_code,
    type(functools.lru_cache(_named)): _reduce_cached,
    functools.cached_property: _reduce_cached_property,
    functools.singledispatchmethod: _reduce_generic_method,
    typing.NewType: _reduce_declared(_reduce_new_type),
    typing.ParamSpec: _reduce_declared(_reduce_param_spec),
    typing.TypeVarTuple: _reduce_declared(lambda variables: (typing.TypeVarTuple, (variables.__name__,))),
    type(dataclasses.MISSING): lambda _: "MISSING",
    type(dataclasses.KW_ONLY): lambda _: "KW_ONLY",
}
if hasattr(typing, "TypeAliasType"):  # since Python 3.12
    REDUCERS[typing.TypeAliasType] = _reduce_declared(_reduce_alias)
ByValuePickler.dispatch_table = cloudpickle.Pickler.dispatch_table.new_child(REDUCERS)
