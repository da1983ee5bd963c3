"""What the specification of a worker says: a mapping with a class, its options, and perhaps a group.

One entry of a specification can make several workers, as a job with several processes does. Then its ``"group"`` has
what is added to the name of the entry for each of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.objectstore.sizes import parse_size

#: The options of a worker that say how many threads and how much memory it has, by the names that classes give them.
THREADS = ("nthreads", "ncores", "threads", "cores")
MEMORY = ("memory_limit", "memory")


def class_of(spec: Mapping[str, Any]) -> Any:
    """The class of a specification.

    Raises
    ------
    TypeError, ImportError, AttributeError
        It has none.

    Examples
    --------
    >>> class_of({"cls": "collections.OrderedDict"})
    <class 'collections.OrderedDict'>
    """
    if not isinstance(spec, Mapping) or "cls" not in spec:
        raise TypeError(f"a specification has a class under 'cls', as in {{'cls': Worker}}, and {spec!r:.200} has none")
    made = spec["cls"]
    if not isinstance(made, str):
        return made
    module, _, name = made.rpartition(".")
    if not module:
        raise ImportError(f"a class is given by its module and its name, as 'holdfast.Worker', not {made!r:.200}")
    return getattr(importlib.import_module(module), name)


def options_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The options with which the class is called."""
    return dict(spec.get("options") or {})


def nthreads_of(spec: Mapping[str, Any]) -> int | None:
    """How many threads the options say that each worker has.

    Examples
    --------
    >>> nthreads_of({"cls": list, "options": {"cores": 4}})
    4
    """
    nthreads = _first(options_of(spec), THREADS)
    return None if nthreads is None else int(nthreads)


def memory_of(spec: Mapping[str, Any]) -> int | None:
    """How many bytes of memory the options say that each worker has.

    Examples
    --------
    >>> memory_of({"cls": list, "options": {"memory": "2 GB"}})
    2000000000
    """
    memory = _first(options_of(spec), MEMORY)
    return None if memory in (None, "auto") else parse_size(memory, least=0)


def _first(options: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((options[name] for name in names if options.get(name) is not None), None)


def workers_of(name: Any, spec: Any) -> set[Any]:
    """The names of the workers of one entry, as a user knows them: that of the entry, if it makes only one.

    Examples
    --------
    >>> workers_of(0, {"cls": list}), sorted(workers_of(1, {"cls": list, "group": ["-0", "-1"]}))
    ({0}, ['1-0', '1-1'])
    """
    group = spec.get("group") if isinstance(spec, Mapping) else None
    return {name} if group is None else {f"{name}{suffix}" for suffix in group}


def called(name: Any, spec: Any) -> set[str]:
    """The names of the workers of one entry, as the scheduler knows them: as text."""
    return {str(worker) for worker in workers_of(name, spec)}


def entries_of(specs: Mapping[Any, Any]) -> dict[str, Any]:
    """By the name of each worker, as text, the name of its entry."""
    return {worker: name for name, spec in specs.items() for worker in called(name, spec)}


def all_workers(names: Iterable[Any], *specs: Mapping[Any, Any]) -> set[Any]:
    """The names of the workers of entries, each of which is in one of these specifications, or makes one worker."""
    found: set[Any] = set()
    for name in names:
        spec = next((each[name] for each in specs if name in each), None)
        found |= workers_of(name, spec)
    return found
