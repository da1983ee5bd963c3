"""Options of tasks: how `Client.submit`, `Client.compute` and `dask.annotate` say them, and how they are sent."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from dask.base import is_dask_collection

from holdfast.client.packing.dask_internals import flatten
from holdfast.client.packing.keys import MAX_INTEGER, check_text, wire_key
from holdfast.cluster.durations import seconds
from holdfast.cluster.protocol.limits import MAX_NAMED

NAMES = ("priority", "retries", "workers", "allow_other_workers", "resources", "writable", "run_timeout")
Options = dict[str, Any]
_NONE: Options = {}
#: Of a resource; more is a mistake, and infinity as well.
MAX_AMOUNT = 1e18
#: Of the time of a run; for a longer one there's no need to say any.
MAX_SECONDS = 1e9


def options_of(
    priority: float | None = None,
    retries: float | None = None,
    workers: Any = None,
    allow_other_workers: bool | None = None,
    resources: Mapping[str, float] | None = None,
    writable: bool | None = None,
    run_timeout: float | str | None = None,
    actor: bool | None = None,
) -> Options:
    """Options as messages carry them; only those that say something.

    Raises
    ------
    TypeError, ValueError
        One of them is not what it should be; names it.

    Examples
    --------
    >>> options_of(priority=10, workers="alice")
    {'priority': 10.0, 'workers': ['alice']}
    """
    if workers is None and not (priority or retries or resources or writable or actor) and run_timeout is None:
        return _NONE
    options: Options = {}
    if priority:
        options["priority"] = _checked("priority", float, priority, "a number")
        if math.isnan(options["priority"]):
            raise ValueError("priority is a number, not nan")
    if retries:
        whole = int(retries) if isinstance(retries, float) and retries.is_integer() else retries
        options["retries"] = _checked("retries", operator.index, whole, "an integer")
        if options["retries"] < 0:
            raise ValueError(f"retries can't be negative: {retries}")
        if options["retries"] > MAX_INTEGER:
            raise ValueError("retries is too large a number")
    if workers is not None and (names := names_of_workers(workers)):
        options["workers"] = names
        if allow_other_workers:
            options["allow_other_workers"] = True
    if resources:
        if not isinstance(resources, Mapping):
            raise TypeError(f"resources is a dictionary such as {{'GPU': 1}}, not {resources!r}")
        if len(resources) > MAX_NAMED:
            raise ValueError(f"{len(resources):,} resources are more than can be named: up to {MAX_NAMED:,}")
        options["resources"] = {str(name): _amount(str(name), amount) for name, amount in resources.items()}
    if writable:
        if writable is not True:
            raise TypeError(f"writable is True or False, not {writable!r}")
        options["writable"] = True
    if run_timeout is not None:
        options["run_timeout"] = _run_timeout(run_timeout)
    if actor:
        if actor is not True:
            raise TypeError(f"actor is True or False, not {actor!r}")
        options["actor"] = options["writable"] = True  # what it is made of is its own to change
    return options


def _run_timeout(limit: float | str) -> float:
    if isinstance(limit, bool) or not isinstance(limit, (int, float, str)):
        raise TypeError(f"run_timeout is a number of seconds, or text such as '10 s', not {limit!r}")
    found = seconds(limit)
    if found is None or not 0 < found <= MAX_SECONDS:
        raise ValueError(f"run_timeout is a time above zero, and not {limit!r}; None is no limit")
    return float(found)


def _amount(name: str, amount: Any) -> float:
    check_text("the resource", name)
    checked: float = _checked(f"resources[{name!r}]", float, amount, "a number")
    if not 0 <= checked <= MAX_AMOUNT:
        raise ValueError(f"resources[{name!r}] is how much a task takes of it, not {amount!r}")
    return checked


def _checked(name: str, convert: Callable[[Any], Any], value: Any, what: str) -> Any:
    try:
        return convert(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {what}, not {value!r}") from None
    except OverflowError:
        raise ValueError(f"{name} is too large a number") from None


def names_of_workers(workers: Any) -> list[str]:
    """One worker or several, by name or address; also ``(host, port)`` pairs."""
    if isinstance(workers, (str, int)):
        workers = (workers,)
    if not isinstance(workers, Iterable):
        raise TypeError(f"workers is a name or an address, or a list of these, not {workers!r}")
    names = [f"{w[0]}:{w[1]}" if isinstance(w, tuple) and len(w) == 2 else w for w in workers]
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(
                f"workers have names and addresses, which are text, and {name!r} is none: Client.scheduler_info()"
                "['workers'] tells them"
            )
    if len(names) > MAX_NAMED:
        raise ValueError(f"{len(names):,} workers are more than can be named: up to {MAX_NAMED:,}")
    for name in names:
        check_text("the worker", name)
    return names


def from_annotations(annotations: Mapping[str, Any]) -> Options:
    """Options out of annotations, which may hold others' too, and functions of the key (`Called`)."""
    return options_of(**{name: value for name, value in annotations.items() if name in NAMES and not callable(value)})


class Called:
    """Annotations that say what holds for a key when they are called with it, as `dask.annotate` takes them.

    Parameters
    ----------
    annotations:
        May hold others' too.
    chosen:
        Options that the user has chosen for all keys: their annotations don't count.
    """

    def __init__(self, annotations: Mapping[str, Any], chosen: Container[str]) -> None:
        self._functions = {
            name: value
            for name, value in annotations.items()
            if name in NAMES and callable(value) and name not in chosen
        }

    def __bool__(self) -> bool:
        return bool(self._functions)

    def of(self, key: Any) -> Options:
        """The options of a key."""
        return options_of(**{name: function(key) for name, function in self._functions.items()})


def per_key(annotations: Mapping[str, Mapping[Any, Any]]) -> dict[Any, Options]:
    """``{annotation: {key: value}}``, as dask collects them, to ``{key: options}``."""
    of_keys: dict[Any, dict[str, Any]] = {}
    for name in NAMES:
        for key, value in annotations.get(name, {}).items():
            of_keys.setdefault(wire_key(key), {})[name] = value
    found = {key: from_annotations(values) for key, values in of_keys.items()}
    return {key: options for key, options in found.items() if options}


def chosen(choice: Any, collections: list[tuple[Any, list[Any]]], *, nested: bool) -> dict[Any, Any]:
    """What a choice for collections, such as ``workers=``, means for each of their output keys.

    Parameters
    ----------
    choice:
        One value for all, or a dictionary of values whose keys are collections, tuples of collections, or keys.
    collections:
        Each collection with its output keys.
    nested:
        Whether the value itself is a dictionary (``resources``).
    """
    outputs = [key for _, keys in collections for key in keys]
    if choice is None:
        return {}
    if not isinstance(choice, Mapping) or (nested and not all(isinstance(v, Mapping) for v in choice.values())):
        return dict.fromkeys(outputs, choice)
    found = {}
    for named, value in choice.items():
        whole = named if isinstance(named, tuple) and any(map(is_dask_collection, named)) else (named,)
        for part in whole:
            if not is_dask_collection(part):
                found[part] = value
                continue
            names = set(flatten(part.__dask_keys__()))
            for collection, keys in collections:
                if collection is part or names.intersection(keys) or names == _names(collection):
                    found.update(dict.fromkeys(keys, value))
    return found


def _names(collection: Any) -> set[Any]:
    return set(flatten(collection.__dask_keys__()))


def loose(choice: Any, collections: list[tuple[Any, list[Any]]]) -> dict[Any, bool]:
    """``allow_other_workers`` for each output key: True for all, or a list of collections."""
    if choice is None or isinstance(choice, bool):
        return dict.fromkeys([key for _, keys in collections for key in keys], bool(choice))
    return chosen({(item,) if is_dask_collection(item) else item: True for item in choice}, collections, nested=False)
