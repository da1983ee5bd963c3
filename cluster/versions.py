"""Which Python, and which versions of libraries, a process has."""

from __future__ import annotations

import importlib.metadata
import locale
import os
import platform
import sys
from collections.abc import Iterable
from typing import Any

import holdfast

#: Those that processes of a cluster exchange values of, or that decide how values are exchanged.
PACKAGES = ("dask", "msgpack", "cloudpickle", "tornado", "numpy", "pandas", "pyarrow")


def describe(packages: Iterable[str] = ()) -> dict[str, Any]:
    """What this process is: its ``"host"``, and the versions of its ``"packages"``.

    Parameters
    ----------
    packages
        Names of further packages. A package that there is not has the version None.
    """
    return {"host": _host(), "packages": versions_of(packages)}


def versions_of(packages: Iterable[str] = ()) -> dict[str, str | None]:
    """The versions of Python, of `PACKAGES` and of these."""
    return {
        "python": platform.python_version(),
        "holdfast": holdfast.__version__,
        **{name: _version(name) for name in (*PACKAGES, *packages)},
    }


def _version(name: str) -> str | None:
    """Of an installed distribution, or else what a module that can be found says of itself."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = getattr(sys.modules.get(name), "__version__", None)
        return version if isinstance(version, str) else None
    except Exception:  # a name that none can have, or a broken installation
        return None


def _host() -> dict[str, Any]:
    system, _, release, _, machine, processor = platform.uname()
    language = ".".join(filter(None, locale.getlocale())) or "None"
    return {
        "python": platform.python_version(),
        "python-bits": 64 if sys.maxsize > 1 << 32 else 32,
        "OS": system,
        "OS-release": release,
        "machine": machine,
        "processor": processor,
        "byteorder": sys.byteorder,
        "LC_ALL": os.environ.get("LC_ALL", "None"),
        "LANG": os.environ.get("LANG", language),
    }
