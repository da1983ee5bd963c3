"""What lies in the object stores of a cluster, and why: what `Client.memory` and ``holdfast memory`` show."""

from __future__ import annotations

import html
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.cluster.protocol.requests.looking import GROUPINGS
from holdfast.cluster.reports import phrases, suspicions
from holdfast.cluster.reports.places import PLACES
from holdfast.cluster.tables import MISSING, count, format_duration, share, shorten, size, table

if TYPE_CHECKING:
    import pandas

#: What objects are grouped by where nobody says it.
GROUPED_BY = ("owner", "holder", "dataset", "collection", "prefix", "line")
#: Of each kind of groups, and of the objects, so many are shown.
GROUPS_SHOWN = 5
OBJECTS_SHOWN = 10
#: A cell of a table has so many characters at most, and an object so many of its holders and places in one.
_CELL_WIDTH = 60
_FEW = 2
#: The columns of a table of objects, and in which order they go where the lines are too narrow for all of them.
_COLUMNS = ("size", "key", "type", "owner", "line", "holders", "where", "age")
_DISPENSABLE = ("type", "where", "owner", "line")
_COLUMN_WIDTH = 14


class Group(NamedTuple):
    """Objects that have something in common.

    Attributes
    ----------
    objects : int
        How many there are.
    nbytes : int
        Their sizes added up, in bytes.
    oldest, newest : float
        For how many seconds the first and the last of them is there.
    """

    objects: int
    nbytes: int
    oldest: float
    newest: float


class MemoryReport:
    """The objects of a cluster, what holds them, and what may be there for nobody, at one moment.

    Attributes
    ----------
    count, nbytes : int
        How many objects there are, and their size in bytes.
    objects : list of dict
        The largest of them: ``"key"``, ``"nbytes"``, ``"type"``, ``"object_id"``; ``"owner"``, ``"user"``,
        ``"hostname"``, ``"pid"`` and ``"client"``: what has brought it; ``"call_site"``: the line of code that has;
        ``"task"``: the task in which that was, or None; ``"holders"``: what keeps it alive, by ``"kind"`` and
        ``"name"``, the first of ``"n_holders"``; ``"places"``: the ``"node"``, the ``"name"`` of the host and the
        ``"state"`` of each copy (``"in memory"`` or ``"on disk"``); ``"age"`` in seconds.
    stores : dict
        By the address of each host, the figures of its store: ``"capacity"``, ``"used"``, ``"spilled_nbytes"``, …
    hosts : dict of str to str
        The names of the hosts, by address.
    groups : dict of str to dict of str to Group
        All objects, grouped by each thing that was asked for. The largest groups come first, 1,000 at most.
    left_out : dict of str to (int, int)
        How many objects, and how many bytes, are in further groups, by kind.
    suspects : list of dict
        What may be there for nobody: the ``"suspicion"``, how many ``"objects"`` and ``"nbytes"``, the ``"holders"``,
        the ``"call_site"``, some ``"keys"``, and the ``"text"`` that says why.

    Examples
    --------
    >>> import numpy as np
    >>> future = client.scatter(np.zeros(1_000_000))
    >>> report = client.memory(by="prefix")
    >>> report.by_prefix["numpy.ndarray"].objects
    1
    >>> report.to_frame().sort_values("nbytes").iloc[-1]["type"]
    'numpy.ndarray'
    """

    def __init__(self, report: Mapping[str, Any], states: Mapping[tuple[str, str], str]) -> None:
        self.count: int = report["count"]
        self.nbytes: int = report["nbytes"]
        self.stores: dict[str, Any] = dict(report["stores"])
        self.hosts: dict[str, str] = dict(report["hosts"])
        self.objects = [self._object(each, states) for each in report["objects"]]
        self.groups = {
            kind: {name: Group(*figures) for name, figures in of_kind.items()}
            for kind, of_kind in report["groups"].items()
        }
        self.left_out = {kind: tuple(figures) for kind, figures in report["left_out"].items()}
        self.suspects = [{**each, "text": suspicions.in_words(each)} for each in report["suspects"]]

    def _object(self, told: Mapping[str, Any], states: Mapping[tuple[str, str], str]) -> dict[str, Any]:
        places = [
            {
                "node": node,
                "name": self.hosts.get(node, ""),
                "state": PLACES.get(states.get((node, told["object_id"]), ""), "unknown"),
            }
            for node in told["where"]
        ]
        return {**{name: value for name, value in told.items() if name != "where"}, "places": places}

    def _grouped(self, kind: str) -> dict[str, Group]:
        if kind not in self.groups:
            raise AttributeError(f"the objects were not grouped by {kind}: ask for it with client.memory(by={kind!r})")
        return self.groups[kind]

    @property
    def by_owner(self) -> dict[str, Group]:
        """The objects by what has brought them: the names of clients.

        Examples
        --------
        >>> client.memory(by="owner").by_owner
        {...}
        """
        return self._grouped("owner")

    @property
    def by_holder(self) -> dict[str, Group]:
        """The objects by what keeps them, such as ``"client etl"``. One with several holders counts for each.

        Examples
        --------
        >>> client.memory(by="holder").by_holder
        {...}
        """
        return self._grouped("holder")

    @property
    def by_dataset(self) -> dict[str, Group]:
        """The objects of each dataset.

        Examples
        --------
        >>> client.memory(by="dataset").by_dataset
        {...}
        """
        return self._grouped("dataset")

    @property
    def by_collection(self) -> dict[str, Group]:
        """The objects of each dask collection, by the name that its keys have in common.

        Examples
        --------
        >>> client.memory(by="collection").by_collection
        {...}
        """
        return self._grouped("collection")

    @property
    def by_prefix(self) -> dict[str, Group]:
        """The objects by the prefix of their keys: the name of what their tasks do.

        Examples
        --------
        >>> client.memory(by="prefix").by_prefix
        {...}
        """
        return self._grouped("prefix")

    @property
    def by_line(self) -> dict[str, Group]:
        """The objects by the line of a user's code that has brought them.

        Examples
        --------
        >>> client.memory(by="line").by_line
        {...}
        """
        return self._grouped("line")

    def __len__(self) -> int:
        return self.count

    def to_frame(self) -> pandas.DataFrame:
        """The objects as a dataframe, the largest first.

        Examples
        --------
        >>> list(client.memory().to_frame().columns)
        ['key', 'nbytes', 'type', 'owner', 'call_site', 'holders', 'places', 'age', 'object_id']
        """
        import pandas  # takes a while to import, and most reports are looked at

        columns = ["key", "nbytes", "type", "owner", "call_site", "holders", "places", "age", "object_id"]
        rows = [[each.get(name) for name in columns] for each in self.objects]
        return pandas.DataFrame(rows, columns=columns)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data, as ``holdfast memory --json`` prints it.

        Examples
        --------
        >>> sorted(client.memory().as_dict())
        ['count', 'groups', 'hosts', 'left_out', 'nbytes', 'objects', 'stores', 'suspects']
        """
        return {
            "count": self.count,
            "nbytes": self.nbytes,
            "objects": [{**each, "key": phrases.plain_key(each["key"])} for each in self.objects],
            "groups": {
                kind: {name: group._asdict() for name, group in groups.items()} for kind, groups in self.groups.items()
            },
            "left_out": {kind: {"objects": n, "nbytes": nbytes} for kind, (n, nbytes) in self.left_out.items()},
            "suspects": [
                {**each, "keys": list(map(phrases.plain_key, each.get("keys", ())))} for each in self.suspects
            ],
            "stores": self.stores,
            "hosts": self.hosts,
        }

    def render(
        self, *, width: int | None = None, objects: int | None = OBJECTS_SHOWN, groups: int | None = GROUPS_SHOWN
    ) -> str:
        """The report for people.

        Parameters
        ----------
        width : int, optional
            How many characters a line may have.
        objects, groups : int, optional
            How many objects, and how many groups of each kind, are shown; None: all that are here.

        Examples
        --------
        >>> client.memory().render(width=80).splitlines()[0]
        '... object..., ...'
        """
        parts = [f"{count(self.count, 'object')}, {size(self.nbytes)}", *self._stores(width)]
        if self.objects and objects != 0:
            parts.append(self._table_of_objects(self.objects[:objects], width))
        for kind in self.groups:
            if rows := self._rows_of_groups(kind, groups):
                parts.append(table(_group_header(kind), rows, right=(0, 1, 2), width=width))
        if self.suspects:
            lines = [_wrapped(each["text"], width) for each in self.suspects]
            parts.append("\n".join(["Is this still wanted?", *lines]))
        return "\n\n".join(parts)

    def _stores(self, width: int | None) -> list[str]:
        if not self.stores:
            return []
        rows = [[self._named(node), *_store(store or {})] for node, store in self.stores.items()]
        return [table(["store", "used", "on disk"], rows, right=(2,), width=width)]

    def _named(self, node: str) -> str:
        name = self.hosts.get(node)
        return f"{name} ({node})" if name else node

    def _table_of_objects(self, objects: Sequence[Mapping[str, Any]], width: int | None) -> str:
        columns = _columns_in(width)
        rows = [[_CELLS[column](each) for column in columns] for each in objects]
        right = [index for index, column in enumerate(columns) if column in ("size", "age")]
        text = table(columns, rows, right=right, width=width)
        if len(objects) < self.count:
            rest = size(self.nbytes - sum(each["nbytes"] for each in objects))
            text += f"\n  … and {count(self.count - len(objects), 'smaller object')} of {rest} together"
        return text

    def _rows_of_groups(self, kind: str, most: int | None) -> list[list[str]]:
        groups = self.groups[kind]
        shown = list(groups.items())[:most]
        rows = [
            [size(group.nbytes), f"{group.objects:,}", format_duration(group.oldest), shorten(name, 2 * _CELL_WIDTH)]
            for name, group in shown
        ]
        objects, nbytes = self.left_out.get(kind, (0, 0))
        others = list(groups.values())[len(shown) :]
        objects += sum(group.objects for group in others)
        if objects:
            nbytes += sum(group.nbytes for group in others)
            rows.append([size(nbytes), f"{objects:,}", "", f"… {len(others):,} more" if others else "… others"])
        return rows

    def __repr__(self) -> str:
        return self.render()

    def _repr_html_(self) -> str:
        head = f"<strong>{count(self.count, 'object')}, {size(self.nbytes)}</strong>"
        tables = []
        for kind in self.groups:
            if rows := self._rows_of_groups(kind, GROUPS_SHOWN):
                tables.append(_html_table(_group_header(kind), rows))
        if self.objects:
            rows = [[_CELLS[column](each) for column in _COLUMNS] for each in self.objects[:OBJECTS_SHOWN]]
            tables.append(_html_table(_COLUMNS, rows))
        suspects = "".join(f"<li>{html.escape(each['text'])}</li>" for each in self.suspects)
        return f"<div>{head}{''.join(tables)}{suspects and f'<ul>{suspects}</ul>'}</div>"


def _store(store: Mapping[str, Any]) -> list[str]:
    spilled = store.get("spilled_nbytes")
    return [share(store.get("used"), store.get("capacity")), size(spilled) if spilled else MISSING]


def _columns_in(width: int | None) -> list[str]:
    """The columns that have room in lines of so many characters."""
    columns = list(_COLUMNS)
    for column in _DISPENSABLE:
        if width is None or len(columns) * _COLUMN_WIDTH <= width:
            break
        columns.remove(column)
    return columns


def _of_list(names: Sequence[str], number: int) -> str:
    if not names:
        return MISSING
    shown = ", ".join(shorten(name, _CELL_WIDTH) for name in names[:_FEW])
    return f"{shown} +{number - _FEW:,}" if number > _FEW else shown


def _place(place: Mapping[str, Any]) -> str:
    name = place["name"] or place["node"]
    return f"{name} (disk)" if place["state"] == "on disk" else str(name)


_CELLS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "size": lambda each: size(each["nbytes"]),
    "key": lambda each: shorten(str(each["key"]), _CELL_WIDTH),
    "type": lambda each: each["type"] or MISSING,
    "owner": lambda each: shorten(each["owner"] or MISSING, _CELL_WIDTH),
    "line": lambda each: shorten(os.path.basename(each.get("call_site") or MISSING), _CELL_WIDTH),
    "holders": lambda each: _of_list([phrases.short(holder) for holder in each["holders"]], each["n_holders"]),
    "where": lambda each: _of_list([_place(place) for place in each["places"]], len(each["places"])),
    "age": lambda each: format_duration(each["age"]),
}
assert tuple(_CELLS) == _COLUMNS


def _group_header(kind: str) -> tuple[str, str, str, str]:
    return ("size", "objects", "oldest", {"holder": "held by"}.get(kind, kind))


def _wrapped(text: str, width: int | None) -> str:
    return textwrap.fill(text, max(40, width or 120), initial_indent="  * ", subsequent_indent="    ")


def _html_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{html.escape(title)}</th>" for title in header)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def groupings(by: str | Sequence[str] | None) -> tuple[str, ...]:
    """What objects are to be grouped by.

    Raises
    ------
    TypeError
        It is no text, and no list of texts.
    ValueError
        They can't be grouped by something of that.
    """
    if by is None:
        return GROUPED_BY
    if not isinstance(by, Iterable):
        raise TypeError(f"by is a text such as 'line', or a list of texts, not {by!r:.100}")
    names = (by,) if isinstance(by, str) else tuple(by)
    for name in names:
        if name not in GROUPINGS:
            raise ValueError(f"by={name!r:.100} is unknown: objects are grouped by {', '.join(GROUPINGS)}")
    return tuple(dict.fromkeys(names))
