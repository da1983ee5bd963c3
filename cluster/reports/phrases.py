"""Clients and other holders in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.cluster.protocol.holders import HOLDERS
from holdfast.cluster.tables import format_duration

#: A client that has said nothing for less is not told to be silent: it may just be computing.
SILENT_SECONDS = 60.0


def identity(about: Mapping[str, Any]) -> str:
    """``ada@host, process 123``, as far as it is known.

    Examples
    --------
    >>> identity({"user": "ada", "hostname": "alpha", "pid": 123})
    'ada@alpha, process 123'
    """
    place = "@".join([about[name] for name in ("user", "hostname") if about.get(name)])
    process = f"process {about['pid']}" if about.get("pid") else ""
    return ", ".join(filter(None, (place, process)))


def holder(one: Mapping[str, Any]) -> str:
    """What keeps an object, with all that is known of it.

    Examples
    --------
    >>> holder({"kind": "client", "name": "etl", "user": "ada", "hostname": "alpha", "pid": 7, "silent_seconds": 300.0})
    'the client etl (ada@alpha, process 7, silent for 5 min)'
    >>> holder({"kind": "dataset", "name": "'flights'"})
    "the dataset 'flights'"
    """
    known = [identity(one)]
    if one.get("cut_off"):
        known.append("its connection is broken")
    elif (silent := one.get("silent_seconds")) is not None and silent >= SILENT_SECONDS:
        known.append(f"silent for {format_duration(silent)}")
    text = ", ".join(filter(None, known))
    kind = HOLDERS.get(one["kind"])
    named = f"the {one['kind']} {one['name']}" if kind is None else kind.words.format(one["name"])
    return f"{named}{text and f' ({text})'}"


def short(one: Mapping[str, Any]) -> str:
    """What keeps an object, by kind and name."""
    return f"{one.get('kind', '')} {one.get('name', '')}".strip()


def few(names: Sequence[str], most: int = 5) -> str:
    """``a, b and c``; of more than so many the first.

    Examples
    --------
    >>> few(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    shown = list(names)
    if len(shown) > most:
        shown = [*shown[:most], f"{len(shown) - most:,} more"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1]))) if shown else ""


def plain_key(key: Any) -> Any:
    """A key as JSON has it: a text, or what a tuple of dask's looks like."""
    return key if isinstance(key, str) else str(key)
