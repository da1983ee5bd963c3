"""What is said of a value that is published, for people and other programs: its type, its shape, what it needs."""

from __future__ import annotations

import functools
import getpass
import importlib.metadata
import socket
import sys
import time
import types
from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.cluster import versions
from holdfast.objectstore.codecs.flat import type_name_of

#: So many columns, variables and the like are named.
_MAX_NAMED = 200
_MAX_TEXT_LENGTH = 200


class Parts:
    """What a value is made of, as its parts are pickled.

    Attributes
    ----------
    packages
        The packages of their classes and functions.
    is_lazy
        Whether a collection is among them that is not computed.
    """

    def __init__(self) -> None:
        self.packages: dict[str, None] = {}
        self.is_lazy = False

    def __call__(self, part: Any) -> None:
        """Another part."""
        kind = part if isinstance(part, (type, types.FunctionType, types.BuiltinFunctionType)) else type(part)
        module = kind.__module__
        if isinstance(module, str):
            self.packages[module.partition(".")[0]] = None
        if not self.is_lazy and hasattr(kind, "__dask_graph__") and kind is type(part):
            # Others, such as those of xarray, wrap dask's, or data.
            self.is_lazy = module.startswith("dask.")


def describe(value: Any, parts: Parts, *, has_futures: bool) -> dict[str, Any]:
    """What a value is: plain data. Looks at no data, and computes nothing.

    Parameters
    ----------
    parts
        What it is made of.
    has_futures
        Whether there are futures in it.

    Examples
    --------
    >>> import dask.array as da
    >>> value, parts = da.ones((10, 4), chunks=5), Parts()
    >>> parts(value)
    >>> found = describe(value, parts, has_futures=False)
    >>> found["kind"], found["type"], found["shape"], found["npartitions"]
    ('recipe', 'dask.Array', [10, 4], 2)
    """
    kind = "persisted" if has_futures else "recipe" if parts.is_lazy else "values"
    about: dict[str, Any] = {"kind": kind, "type": type_name_of(value)}
    for name, of in _FIELDS.items():
        try:
            found = of(value)
        except Exception:  # a method of the value's class, which may raise anything
            continue
        if found is not None:
            about[name] = found
    about["versions"] = _versions(value, parts)
    about["user"] = _user()
    about["host"] = socket.gethostname()
    about["published"] = time.time()
    return about


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


def _versions(value: Any, parts: Parts) -> dict[str, str]:
    """Of Python, of what values are made with, and of the packages of its parts and of its partitions."""
    roots = dict(parts.packages)
    for kind in (*type(value).__mro__, *type(getattr(value, "_meta", None)).__mro__):
        roots[kind.__module__.partition(".")[0]] = None
    further = [root for root in roots if root not in sys.stdlib_module_names and root not in ("__main__", "holdfast")]
    return {name: version for name, version in _installed(further).items() if version is not None}


def _installed(packages: Iterable[str]) -> dict[str, str | None]:
    """The versions of Python, and of these packages, by what is imported: iris is of scitools-iris."""
    found = versions.versions_of(name for name in packages if name not in versions.own())
    for name, version in found.items():
        if version is None and name in _distributions():
            found[name] = importlib.metadata.version(_distributions()[name][0])
    return found


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """By what is imported of them, which takes a while to find out."""
    return importlib.metadata.packages_distributions()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # it has no name
        return ""


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
    here = _installed(made_with)
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
    here = _installed(made_with)
    python = made_with.get("python")
    return any(here[name] is None for name in made_with) or (
        python is not None and versions.minor(python) != versions.minor(here["python"])
    )
