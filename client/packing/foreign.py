"""What means something in this process only, or to another library only, and so can't be part of a task.

Pickled, such things would arrive as something else, without a word: a future of another library would never be the
value that it stands for, and what is written to a copy of this process's memory would be lost.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import count, cycle, repeat
from typing import Any

from holdfast.client.packing.dask_internals import DataNode, GraphNode, TaskRef, execute_subgraph
from holdfast.client.packing.futures import is_future_class

#: Futures that stand for no task's result, of other libraries and of actors' calls, by module and name: what they are,
#: and how their value is had.
_FUTURES = {
    ("holdfast.client.actors.actor_future", "ActorFuture"): ("the future of an actor's call", "give its result()"),
    ("concurrent.futures._base", "Future"): ("a future of concurrent.futures", "give its result()"),
    ("_asyncio", "Future"): ("a future of asyncio", "await it, and give its result"),
    ("asyncio.futures", "Future"): ("a future of asyncio", "await it, and give its result"),
    ("builtins", "coroutine"): ("a coroutine", "await it, and give its result"),
    ("multiprocessing.pool", "ApplyResult"): ("a result of a multiprocessing.Pool", "give what get() returns"),
    ("distributed.client", "Future"): ("a future of dask's distributed", "give its result()"),
    ("distributed.actor", "BaseActorFuture"): ("a future of dask's distributed", "give its result()"),
    ("ray._raylet", "ObjectRef"): ("an object of Ray's", "give what ray.get() returns for it"),
}
#: Stores of zarr whose chunks lie in this process's memory, of any version of zarr.
_MEMORY_STORES = frozenset({"MemoryStore", "GpuMemoryStore", "ManagedMemoryStore"})


def _foreign_future(kind: type) -> tuple[str, str] | None:
    if is_future_class(kind):
        return None
    for base in kind.__mro__:
        found = _FUTURES.get((base.__module__, base.__qualname__))
        if found is not None:
            return found
    return None


#: What objects of a type are and what to give instead, if they are futures of another library; else None.
foreign_future: Callable[[type], tuple[str, str] | None] = functools.lru_cache(1024)(_foreign_future)


def check_no_foreign_future(value: Any, where: str) -> None:
    """Raise a TypeError that names ``where`` if ``value`` is a future of another library."""
    found = foreign_future(type(value))
    if found is not None:
        raise TypeError(f"{where} is {found[0]}, which is nothing for this client: {found[1]}")


def check_ends(iterables: Iterable[Any], what: str) -> None:
    """Raise a ValueError if the shortest of these is known to have no end."""
    if all(map(_is_endless, iterables)):
        raise ValueError(f"{what} has no end: take a part of it, as itertools.islice does")


def _is_endless(iterable: Any) -> bool:
    if isinstance(iterable, repeat):
        try:
            iterable.__length_hint__()
        except TypeError:
            return True
    return isinstance(iterable, (count, cycle))


def check_targets(nodes: Mapping[Any, GraphNode]) -> None:
    """Raise a RuntimeError if a graph has `dask.array.store` write into memory of this process.

    Each task would write into a copy of its own.
    """
    core = sys.modules.get("dask.array.core")
    if core is None:  # then there is no array in it
        return
    stores = getattr(core, "load_store_chunk", None)
    seen: set[Any] = set()
    for key, node in nodes.items():
        name = key[0] if type(key) is tuple and key else key
        if name in seen:  # another part of the same array, which has the same target
            continue
        seen.add(name)
        target = _target_of(node, stores)
        if type(target) is TaskRef:
            target = nodes.get(target.key)
        if isinstance(target, DataNode):
            target = target.value
        if target is not None and (words := _in_this_process(target)):
            raise RuntimeError(
                f"the target of store, {words}, lies in the memory of this process, where the workers can't write: "
                "store into a zarr array in a directory, or into an object that opens a file in its __setitem__; or "
                "compute the array, and copy the result"
            )


def _target_of(node: GraphNode, stores: Any) -> Any:
    """The second argument of the call of ``stores`` that a node is, or has in it; None if there is none."""
    func = getattr(node, "func", None)
    if func is None:
        return None
    if func is stores:
        arguments: tuple[Any, ...] = node.args  # type: ignore[attr-defined]
        return arguments[1] if len(arguments) > 1 else None
    if func is not execute_subgraph:
        return None
    inner, _, inkeys, *given = node.args  # type: ignore[attr-defined]
    for part in inner.values():
        target = _target_of(part, stores)
        if type(target) is TaskRef:
            return given[list(inkeys).index(target.key)] if target.key in inkeys else inner.get(target.key)
        if target is not None:
            return target
    return None


def _in_this_process(target: Any) -> str:
    """What a target is, in words, if it can be seen that pickling would copy it; else nothing."""
    store = getattr(target, "store", None)
    if type(target).__module__.partition(".")[0] == "zarr" and store is not None:
        return "a zarr array whose store is in memory" if _is_memory_store(store) else ""
    try:
        memoryview(target).release()
    except (TypeError, ValueError, BufferError):
        return ""
    return f"a {type(target).__module__.partition('.')[0]}.{type(target).__qualname__}"


def _is_memory_store(store: Any) -> bool:
    for _ in range(8):  # of stores that wrap others
        if isinstance(store, dict) or any(base.__name__ in _MEMORY_STORES for base in type(store).__mro__):
            return True
        protocol = getattr(getattr(store, "fs", None), "protocol", ())
        if protocol == "memory" or "memory" in protocol:
            return True
        inner = getattr(store, "_mutable_mapping", None)
        store = getattr(store, "_store", None) if inner is None else inner
        if store is None:
            return False
    return False
