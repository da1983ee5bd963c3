"""What a publication says: the datasets that it publishes, and the names that it removes. Written as JSON.

A *manifest* is small. The keys of a dataset are in *tables*, which are objects of the place: each lists up to
`TABLE_ENTRIES` keys with the objects of their results. The bytes of the dataset itself, from which a client makes the
collection again, are an object too.

Names and keys are texts, numbers, bytes and tuples of these. In JSON a tuple is a list, and ``{"bytes": hex}`` and
``{"float": text}`` stand for what JSON has no word for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.objectstore.errors import DurableError

#: The version of all that lies in a place.
FORMAT = 1
TABLE_ENTRIES = 1_000

#: Of a dataset or an object: a text, a number, bytes, or a tuple of these.
Name = Any


class Part(NamedTuple):
    """An object that a manifest names: its SHA-256 and its size in bytes."""

    digest: str
    nbytes: int


class DatasetEntry(NamedTuple):
    """A dataset of a manifest.

    Attributes
    ----------
    name
        Its name.
    about
        What is known of it, for people and programs: plain data.
    recipe
        The bytes that a client makes the dataset of.
    tables
        Its keys, with the objects of their results.
    nkeys, nbytes
        How many keys, and the bytes of all of their objects together.
    """

    name: Name
    about: Mapping[str, Any]
    recipe: Part
    tables: tuple[Part, ...]
    nkeys: int
    nbytes: int


class Manifest(NamedTuple):
    """A publication.

    Attributes
    ----------
    publication
        Its id.
    number
        It is above those of all publications that there were before; of one number, the greater id comes later.
    datasets
        What it publishes.
    removes
        The names that mean nothing from then on.
    """

    publication: str
    number: int
    datasets: tuple[DatasetEntry, ...]
    removes: tuple[Name, ...]

    def names(self) -> list[Name]:
        """All names that it says something about."""
        return [*(dataset.name for dataset in self.datasets), *self.removes]


class TableEntry(NamedTuple):
    """A key of a dataset, and the object of its result.

    Attributes
    ----------
    key
        The key.
    digest, nbytes, checksum
        Of the object (`objects.Stored`).
    type_name
        Of its value, for people.
    inside
        The keys of the futures that it contains.
    """

    key: Name
    digest: str
    nbytes: int
    checksum: int
    type_name: str
    inside: tuple[Name, ...]


def dump_manifest(manifest: Manifest) -> bytes:
    """The bytes of a manifest's file."""
    return _dump(
        {
            "format": FORMAT,
            "publication": manifest.publication,
            "number": manifest.number,
            "datasets": [
                {
                    "name": to_json(dataset.name),
                    "about": dict(dataset.about),
                    "recipe": dataset.recipe,
                    "tables": dataset.tables,
                    "keys": dataset.nkeys,
                    "nbytes": dataset.nbytes,
                }
                for dataset in manifest.datasets
            ],
            "removes": [to_json(name) for name in manifest.removes],
        }
    )


def load_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in a file; ``where`` names it. Raises `DurableError` if it can't be read."""
    found = _load(data, where)
    try:
        return Manifest(
            str(found["publication"]),
            int(found["number"]),
            tuple(
                DatasetEntry(
                    from_json(each["name"]),
                    dict(each["about"]),
                    _part(each["recipe"]),
                    tuple(_part(part) for part in each["tables"]),
                    int(each["keys"]),
                    int(each["nbytes"]),
                )
                for each in found["datasets"]
            ),
            tuple(from_json(name) for name in found["removes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DurableError(f"{where} is no manifest: {type(error).__name__}: {error}") from error


def dump_table(entries: Sequence[TableEntry]) -> bytes:
    """The bytes of a table."""
    rows = [
        [to_json(key), digest, nbytes, f"{checksum:016x}", type_name, [to_json(other) for other in inside]]
        for key, digest, nbytes, checksum, type_name, inside in entries
    ]
    return _dump({"format": FORMAT, "entries": rows})


def load_table(data: bytes, where: str) -> list[TableEntry]:
    """The entries of a table; ``where`` names it. Raises `DurableError` if it can't be read."""
    found = _load(data, where)
    try:
        return [
            TableEntry(
                from_json(key),
                str(digest),
                int(nbytes),
                int(checksum, 16),
                str(type_name),
                tuple(from_json(other) for other in inside),
            )
            for key, digest, nbytes, checksum, type_name, inside in found["entries"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DurableError(f"{where} is no table: {type(error).__name__}: {error}") from error


def to_json(name: Name) -> Any:
    """A name or key, of what JSON can say.

    Examples
    --------
    >>> to_json(("x", 0, b"a")), from_json(to_json(("x", 0, b"a")))
    (['x', 0, {'bytes': '61'}], ('x', 0, b'a'))
    """
    if isinstance(name, tuple):
        return [to_json(item) for item in name]
    if isinstance(name, bytes):
        return {"bytes": name.hex()}
    if isinstance(name, float) and not math.isfinite(name):
        return {"float": repr(name)}
    return name


def from_json(name: Any) -> Name:
    """The inverse of `to_json`."""
    if isinstance(name, list):
        return tuple(from_json(item) for item in name)
    if isinstance(name, dict):
        ((kind, text),) = name.items()
        return bytes.fromhex(text) if kind == "bytes" else float(text)
    if name is None or isinstance(name, str | int | float):
        return name
    raise ValueError(f"{name!r:.100} is no name")


def _part(found: Sequence[Any]) -> Part:
    digest, nbytes = found
    return Part(str(digest), int(nbytes))


def _dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode()


def _load(data: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
        version = found["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DurableError(f"{where} is damaged: {error}") from error
    check_format(version, where)
    return dict(found)


def check_format(version: Any, where: str) -> None:
    """Raise a `DurableError` if this version of Holdfast can't read what lies there."""
    if version != FORMAT:
        raise DurableError(
            f"{where} has the version {version!r:.20} of the format, and this Holdfast reads {FORMAT}: update Holdfast"
        )
