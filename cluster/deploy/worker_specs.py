"""What the specification of a worker says: a mapping with a class, its options, and perhaps a group.

One entry of a specification can make several workers, as a job with several processes does. Then its ``"group"`` has
what is added to the name of the entry for each of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any


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
