"""Which Python, and which versions of libraries, a process has."""

from __future__ import annotations

import functools
import importlib.metadata
import locale
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import holdfast
from holdfast.cluster.tables import table

#: Those that processes of a cluster exchange values of, or that decide how values are exchanged.
PACKAGES = ("dask", "msgpack", "cloudpickle", "tornado", "numpy", "pandas", "pyarrow")
#: Those that the scheduler and others must have alike.
EXCHANGED = ("python", "holdfast", "msgpack")


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
    further = {name: _version(name) for name in packages}
    return {**own(), **further}


@functools.cache
def own() -> dict[str, str | None]:
    """The versions of Python and of `PACKAGES`. Not to be changed."""
    return {
        "python": platform.python_version(),
        "holdfast": holdfast.__version__,
        **{name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    """What an imported module says of itself, which costs nothing; or else what the installed distribution says."""
    module = sys.modules.get(name)
    said = getattr(module, "__version__", None) or getattr(module, "version", None)
    if isinstance(said, str):
        return said
    try:
        return importlib.metadata.version(name)
    except Exception:  # there is none, a name that none can have, or a broken installation
        return None


def minor(version: str | None) -> str:
    """Of ``"3.11.7"`` the ``"3.11"``, which says whether two Pythons can read each other's functions."""
    return ".".join((version or "").split(".")[:2])


def refusal(role: str, theirs: Mapping[str, str | None]) -> str | None:
    """Why a client or worker with these versions can't be part of this process's cluster; None if it can.

    Examples
    --------
    >>> refusal("worker", {"python": "2.7.18"})
    "the worker runs Python 2.7.18 and the scheduler Python 3...: they can't read each other's functions. ..."
    """
    here, there = own()["python"], theirs.get("python")
    if there is None or minor(there) == minor(here):
        return None
    return (
        f"the {role} runs Python {there} and the scheduler Python {here}: they can't read each other's functions. Use "
        f"Python {minor(here)} for all of them"
    )


def differences(
    client: Mapping[str, str | None],
    scheduler: Mapping[str, str | None],
    workers: Mapping[str, Mapping[str, str | None]],
) -> str | None:
    """A table of the packages of which the processes of a cluster have several versions; None if there are none.

    The scheduler counts for `EXCHANGED` only: it reads no values, and may lack what these need.

    Examples
    --------
    >>> print(differences({"numpy": "2.0"}, {"numpy": None}, {"tcp://a:1/0": {"numpy": "1.26"}}))
    package  client  scheduler  workers
    numpy    2.0     None       1.26
    """
    rows = []
    for name in dict.fromkeys([*client, *(each for versions in workers.values() for each in versions)]):
        of_workers = sorted({str(versions.get(name)) for versions in workers.values()})
        compared = {str(client.get(name)), *of_workers}
        if name in EXCHANGED:
            compared.add(str(scheduler.get(name)))
        if len(compared) > 1:
            rows.append((name, str(client.get(name)), str(scheduler.get(name)), ", ".join(of_workers) or "-"))
    if not rows:
        return None
    return table(("package", "client", "scheduler", "workers"), rows)


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
