"""What is said of a value that is published, for people and other programs: its type, its shape, what it needs."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.cluster import versions
from holdfast.objectstore.codecs.flat import type_name_of

#: So many columns, variables and the like are named.
_MAX_NAMED = 200
_MAX_TEXT_LENGTH = 200
#: Of a container, so many items are looked at.
_MAX_LOOKED_AT = 100


def describe(value: Any, *, has_futures: bool) -> dict[str, Any]:
    """What a value is: plain data. Looks at no data, and computes nothing.

    Parameters
    ----------
    has_futures
        Whether there are futures in it.

    Examples
    --------
    >>> import dask.array as da
    >>> found = describe(da.ones((10, 4), chunks=5), has_futures=False)
    >>> found["kind"], found["type"], found["shape"], found["npartitions"]
    ('recipe', 'dask.Array', [10, 4], 2)
    """
    about: dict[str, Any] = {"kind": _kind(value, has_futures), "type": type_name_of(value)}
    for name, of in _FIELDS.items():
        try:
            found = of(value)
        except Exception:  # a method of the value's class, which may raise anything
            continue
        if found is not None:
            about[name] = found
    about["versions"] = _versions(value)
    about["user"] = _user()
    about["host"] = socket.gethostname()
    about["published"] = time.time()
    return about


def _kind(value: Any, has_futures: bool) -> str:
    if has_futures:
        return "persisted"
    return "recipe" if any(_is_lazy(item) for item in (value, *_items(value))) else "values"


def _is_lazy(value: Any) -> bool:
    return not isinstance(value, type) and getattr(value, "__dask_graph__", None) is not None


def _items(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple, set, frozenset)):
        return []
    return [item for item, _ in zip(value, range(_MAX_LOOKED_AT), strict=False)]


def _shape(value: Any) -> list[int | None] | None:
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple):
        return None
    return [int(n) if isinstance(n, int) or hasattr(n, "__index__") else None for n in shape]


def _dtype(value: Any) -> str | None:
    dtype = getattr(value, "dtype", None)
    return None if dtype is None else str(dtype)[:_MAX_TEXT_LENGTH]


def _columns(value: Any) -> dict[str, str] | None:
    dtypes = getattr(value, "dtypes", None)
    return None if dtypes is None or not hasattr(dtypes, "items") else _named(dtypes.items())


def _schema(value: Any) -> dict[str, str] | None:
    schema = getattr(value, "schema", None)
    names, types = getattr(schema, "names", None), getattr(schema, "types", None)
    return None if names is None or types is None else _named(zip(names, types, strict=True))


def _npartitions(value: Any) -> int | None:
    found = getattr(value, "npartitions", None)
    return found if isinstance(found, int) else None


def _nbytes(value: Any) -> int | None:
    found = getattr(value, "nbytes", None)
    return int(found) if isinstance(found, (int, float)) and found == found else None


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, (list, tuple, dict, set, frozenset, str, bytes)) else None


def _named(items: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    return {
        str(name)[:_MAX_TEXT_LENGTH]: str(kind)[:_MAX_TEXT_LENGTH]
        for (name, kind), _ in zip(items, range(_MAX_NAMED), strict=False)
    }


_FIELDS = {
    "shape": _shape,
    "dtype": _dtype,
    "columns": _columns,
    "schema": _schema,
    "npartitions": _npartitions,
    "nbytes_in_memory": _nbytes,
    "length": _length,
}


def _versions(value: Any) -> dict[str, str]:
    """Of Python, of what values are made with, and of the packages of its classes."""
    roots: dict[str, None] = {}
    for item in (value, *_items(value)):
        for kind in (*type(item).__mro__, type(getattr(item, "_meta", None))):
            roots[kind.__module__.partition(".")[0]] = None
    found = versions.versions_of(root for root in roots if root not in ("builtins", "__main__", "holdfast"))
    return {name: version for name, version in found.items() if version is not None}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # it has no name
        return ""


def _versions_here(names: Iterable[str]) -> dict[str, str | None]:
    return versions.versions_of(name for name in names if name not in versions.own())


def lacking(about: Mapping[str, Any]) -> list[str]:
    """What is missing here, or is another version here, of what a dataset was made with: as words, the gravest first.

    Examples
    --------
    >>> lacking({"versions": {"nosuchpackage": "1.2"}})
    ['nosuchpackage 1.2 (not installed here)']
    """
    made_with = about.get("versions")
    if not isinstance(made_with, Mapping):
        return []
    here = _versions_here(made_with)
    missing = [f"{name} {version} (not installed here)" for name, version in made_with.items() if here[name] is None]
    other = [
        f"{name} {version} ({here[name]} here)"
        for name, version in made_with.items()
        if here[name] is not None and here[name] != version
    ]
    return missing + other


def is_grave(about: Mapping[str, Any]) -> bool:
    """Whether it is likely that a dataset can't be used here: a package is missing, or Python is another one."""
    made_with = about.get("versions")
    if not isinstance(made_with, Mapping):
        return False
    here = _versions_here(made_with)
    python = made_with.get("python")
    return any(here[name] is None for name in made_with) or (
        python is not None and versions.minor(python) != versions.minor(here["python"])
    )
