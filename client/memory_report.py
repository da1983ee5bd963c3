"""What lies in the object stores of a cluster, and why: what `Client.memory` gives."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.cluster.tables import MISSING, count, format_duration, share, shorten, size, table

if TYPE_CHECKING:
    import pandas

#: Of each kind of groups, so many are shown.
GROUPS_SHOWN = 5
OBJECTS_SHOWN = 10
_NAME_WIDTH = 60
_TITLES = {"prefix": "prefix", "owner": "owner", "client": "held by", "dataset": "dataset"}
_COLUMNS = ("key", "nbytes", "type", "owner", "holders", "where", "age", "object_id")


class Group(NamedTuple):
    """Objects that have something in common.

    Attributes
    ----------
    objects : int
        How many there are.
    nbytes : int
        Their sizes added up, in bytes.
    """

    objects: int
    nbytes: int


class MemoryReport:
    """The objects of a cluster, and what holds them, at one moment.

    Attributes
    ----------
    count, nbytes : int
        How many objects there are, and their size in bytes.
    objects : list of dict
        The largest of them, 10,000 at most: ``"key"``, ``"nbytes"``, ``"type"``, ``"owner"`` (the client or task that
        brought it), ``"holders"`` (what keeps it alive, in words), ``"where"`` (addresses of hosts), ``"age"`` in
        seconds, ``"object_id"``.
    stores : dict
        By the address of each host, the figures of its store: ``"capacity"``, ``"used"``, ``"spilled_nbytes"``, …
    by_prefix, by_owner, by_client, by_dataset : dict of str to Group
        The objects by the prefix of their keys, by what brought them, and by what holds them: clients (and queues,
        variables and the like), and datasets. An object with several holders counts for each. The largest come first,
        1,000 at most of each kind.

    Examples
    --------
    >>> import numpy as np
    >>> future = client.scatter(np.zeros(1_000_000))
    >>> report = client.memory()
    >>> report.by_prefix["numpy.ndarray"]
    Group(objects=1, nbytes=8000...)
    >>> report.to_frame().sort_values("nbytes").iloc[-1]["type"]
    'numpy.ndarray'
    """

    def __init__(self, report: Mapping[str, Any]) -> None:
        self.count: int = report["count"]
        self.nbytes: int = report["nbytes"]
        self.objects: list[dict[str, Any]] = sorted(report["objects"], key=lambda o: o["nbytes"], reverse=True)
        self.stores: dict[str, Any] = dict(report["stores"])
        groups = {
            kind: {name: Group(*figures) for name, figures in of_kind.items()}
            for kind, of_kind in report["groups"].items()
        }
        self.by_prefix: dict[str, Group] = groups["prefix"]
        self.by_owner: dict[str, Group] = groups["owner"]
        self.by_client: dict[str, Group] = groups["client"]
        self.by_dataset: dict[str, Group] = groups["dataset"]

    def __len__(self) -> int:
        return self.count

    def to_frame(self) -> pandas.DataFrame:
        """The objects as a dataframe, the largest first."""
        import pandas  # takes a while to import, and most reports are looked at

        rows = [[each[name] for name in _COLUMNS] for each in self.objects]
        return pandas.DataFrame(rows, columns=list(_COLUMNS))

    def _groups(self) -> list[tuple[str, dict[str, Group]]]:
        return [
            (_TITLES["prefix"], self.by_prefix),
            (_TITLES["owner"], self.by_owner),
            (_TITLES["client"], self.by_client),
            (_TITLES["dataset"], self.by_dataset),
        ]

    def __repr__(self) -> str:
        parts = [f"{count(self.count, 'object')}, {size(self.nbytes)}"]
        if self.stores:
            rows = [[node, share(*map((store or {}).get, ("used", "capacity")))] for node, store in self.stores.items()]
            parts.append(table(["store", "used"], rows))
        if self.objects:
            header = ["size", "key", "type", "owner", "holders", "age"]
            parts.append(table(header, list(map(_row, self.objects[:OBJECTS_SHOWN])), right=(0, 5)))
        for title, groups in self._groups():
            if groups:
                parts.append(table(["size", "objects", title], _rows(groups), right=(0, 1)))
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        head = f"<strong>{count(self.count, 'object')}, {size(self.nbytes)}</strong>"
        tables = [_html_table(["size", "objects", title], _rows(groups)) for title, groups in self._groups() if groups]
        if self.objects:
            rows = list(map(_row, self.objects[:OBJECTS_SHOWN]))
            tables.append(_html_table(["size", "key", "type", "owner", "holders", "age"], rows))
        return f"<div>{head}{''.join(tables)}</div>"


def _row(each: Mapping[str, Any]) -> list[str]:
    return [
        size(each["nbytes"]),
        shorten(str(each["key"]), _NAME_WIDTH),
        each["type"] or MISSING,
        shorten(each["owner"] or MISSING, _NAME_WIDTH),
        shorten(", ".join(each["holders"]) or MISSING, _NAME_WIDTH),
        format_duration(each["age"]),
    ]


def _rows(groups: Mapping[str, Group]) -> list[list[str]]:
    rows = [
        [size(group.nbytes), f"{group.objects:,}", shorten(name, _NAME_WIDTH)]
        for name, group in list(groups.items())[:GROUPS_SHOWN]
    ]
    if len(groups) > GROUPS_SHOWN:
        rest = list(groups.values())[GROUPS_SHOWN:]
        rows.append([size(sum(g.nbytes for g in rest)), f"{sum(g.objects for g in rest):,}", f"… {len(rest):,} more"])
    return rows


def _html_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{html.escape(title)}</th>" for title in header)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
