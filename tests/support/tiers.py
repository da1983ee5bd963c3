"""Which tests are of the fast tier: those that start no process, no server and no cluster.

Nobody lists them. What a test may start shows in the names that its code uses: its own, that of its fixtures, and that
of the functions and classes of the tests that those use in turn. A test is fast when none of the names in `STARTERS`
can be reached, and when it isn't marked as ``long``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
OURS = (REPOSITORY / "tests", REPOSITORY / "benchmarks")

#: What begins a process, a server or a cluster.
STARTERS = {
    *("Client", "Listener", "LocalCluster", "NodeAgent", "Scheduler", "ScriptedScheduler", "StoreServer", "Worker"),
    *("fork", "forkpty", "multiprocessing", "Popen", "posix_spawn", "subprocess", "system"),
}


def is_fast(item: pytest.Item) -> bool:
    """Whether a test starts nothing, and isn't long without that."""
    if item.get_closest_marker("long"):
        return False
    functions = [item.function] if isinstance(item, pytest.Function) else []
    for definitions in item._fixtureinfo.name2fixturedefs.values():
        functions += [definition.func for definition in definitions]
    return not any(STARTERS & reached(inspect.unwrap(function)) for function in functions)


@functools.cache
def reached(root: Any) -> frozenset[str]:
    """The names that a function uses, and that the functions and classes of ours that it uses use in turn."""
    found: set[str] = set()
    seen: set[Any] = set()
    waiting = [root]
    while waiting:
        for function in _functions(waiting.pop()):
            if function not in seen:
                seen.add(function)
                names = set(_names(function.__code__))
                found |= names
                waiting += _values(names, function.__globals__)
    return frozenset(found)


def _values(names: set[str], place: dict[str, Any]) -> Iterator[Any]:
    """What of ours the names mean there; attributes of our modules among them."""
    for name in names:
        value = inspect.unwrap(place.get(name))
        if isinstance(value, ModuleType) and _is_ours(value):
            yield from _values(names, {k: v for k, v in vars(value).items() if not isinstance(v, ModuleType)})
        elif isinstance(value, FunctionType | type) and _is_ours(value):
            yield value


def _is_ours(value: Any) -> bool:
    try:
        return any(Path(inspect.getfile(value)).is_relative_to(place) for place in OURS)
    except (TypeError, OSError):
        return False


def _functions(value: Any) -> Iterator[FunctionType]:
    """A function itself, or all those of a class and of its bases of ours."""
    if isinstance(value, FunctionType):
        yield value
    elif isinstance(value, type):
        for kind in value.__mro__:
            if _is_ours(kind):
                for member in vars(kind).values():
                    member = getattr(member, "__func__", getattr(member, "fget", member))
                    if isinstance(member := inspect.unwrap(member), FunctionType):
                        yield member


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
