"""``holdfast datasets``: what is published, durable or not, in a cluster or in a place."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import click

from holdfast.cluster import protocol
from holdfast.cluster.cli.find import address_option, ask_cluster
from holdfast.cluster.tables import MISSING, count, format_duration, shorten, size, table, terminal_width
from holdfast.objectstore.durable import objects
from holdfast.objectstore.durable.catalogue import Catalogue, Found
from holdfast.objectstore.durable.manifest import DatasetEntry, Name
from holdfast.objectstore.durable.opening import default_place, id_of, normal_url, open_place
from holdfast.objectstore.durable.place import Place
from holdfast.objectstore.durable.sweeping import Process, enter_writer, leave_writer, sweep, writers
from holdfast.objectstore.errors import DurableError

NAME_WIDTH = 40
TYPE_WIDTH = 24

_place_option = click.option(
    "--place",
    metavar="PLACE",
    help="A directory or URL with durable datasets, which is read without a cluster. Default: HOLDFAST_DURABLE, or "
    "~/.local/state/holdfast/durable.",
)


@click.group()
def datasets() -> None:
    """List, describe, export and remove published datasets.

    'list' and 'describe' ask a cluster. With --place they read a place for durable datasets, and so do all others,
    which need no cluster.

    \b
    Examples:
      holdfast datasets list
      holdfast datasets list --place s3://bucket/published
      holdfast datasets describe flights
      holdfast datasets export flights s3://bucket/published
      holdfast datasets remove flights --place /data/published
      holdfast datasets sweep
    """


@datasets.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@_place_option
@address_option
def list_(as_json: bool, place: str | None, address: str | None) -> None:
    """Show what is published: its name, kind, type and size, where it is durable, and who has published it.

    A 'recipe' is computed when it is used, 'persisted' has results of the cluster, 'values' is data.
    """
    found = _described(place, address)
    click.echo(json.dumps(found, default=str) if as_json else render(found, terminal_width()))


@datasets.command()
@click.argument("name")
@_place_option
@address_option
def describe(name: str, place: str | None, address: str | None) -> None:
    """Show all that is known of a dataset, as JSON."""
    for entry in _described(place, address):
        if _text(entry["name"]) == name:
            click.echo(json.dumps(entry, indent=2, default=str))
            return
    raise click.ClickException(f"there is no dataset {name!r}")


@datasets.command()
@click.argument("name")
@click.argument("target")
@_place_option
def export(name: str, target: str, place: str | None) -> None:
    """Copy a durable dataset to another place, TARGET: a directory or a URL. Its files are checked on the way."""
    source, catalogue = _open(place)
    found = _find(catalogue, name)
    to = open_place(normal_url(target))
    id_of(to, create=True)
    publication = secrets.token_hex(16)
    enter_writer(to, publication, Process.own())
    try:
        copied = _copy(source, to, catalogue, found.dataset)
        Catalogue(to).publish(publication, [found.dataset])
    finally:
        leave_writer(to, publication)
    click.echo(f"Copied {name} to {to.url}: {count(copied[0], 'file')}, {size(copied[1])}.")


@datasets.command()
@click.argument("name")
@_place_option
def remove(name: str, place: str | None) -> None:
    """Remove a durable dataset from its place. Clusters that have loaded it can't read the rest of it any more."""
    opened, catalogue = _open(place)
    found = _find(catalogue, name)
    publication = secrets.token_hex(16)
    enter_writer(opened, publication, Process.own())
    try:
        catalogue.publish(publication, [], [found.dataset.name])
    finally:
        leave_writer(opened, publication)
    click.echo(f"Removed {name} from {opened.url}.")
    _sweep(opened, ())


@datasets.command("sweep")
@click.option(
    "--abandon",
    multiple=True,
    metavar="ID",
    help="A publication that is over, though it is entered still: its process was on another host, and has died.",
)
@_place_option
def sweep_(abandon: tuple[str, ...], place: str | None) -> None:
    """Delete the files of a place that no dataset refers to. Nothing is deleted while somebody publishes there."""
    opened, _ = _open(place)
    _sweep(opened, abandon)


def _sweep(place: Place, abandon: tuple[str, ...]) -> None:
    nfiles = nbytes = 0
    while True:
        swept = sweep(place, abandon=abandon)
        nfiles, nbytes = nfiles + swept.nobjects, nbytes + swept.nbytes
        if swept.is_over or swept.held_up_by:
            break
    if not swept.held_up_by:
        click.echo(f"Deleted {count(nfiles, 'file')} that no dataset refers to: {size(nbytes)}.")
        return
    click.echo("Nothing was deleted, since somebody publishes there:")
    for publication, (process, since) in writers(place).items():
        who = "unknown" if process is None else f"{process.user} on {process.host}, process {process.pid}"
        click.echo(f"  {publication}  {who}, for {format_duration(time.time() - since)}")
    click.echo("If one of these is over, say so: holdfast datasets sweep --abandon ID")


def _copy(source: Place, to: Place, catalogue: Catalogue, dataset: DatasetEntry) -> tuple[int, int]:
    """Copy all objects of a dataset; how many files, and how many bytes."""
    parts = {part.digest: part.nbytes for part in (dataset.recipe, *dataset.tables)}
    parts.update((entry.digest, entry.nbytes) for entry in catalogue.entries(dataset))
    for digest, nbytes in parts.items():
        name = objects.name_of(digest)
        if source.size(name) != nbytes:
            raise DurableError(f"{name} of {source.url} is not there any more, or damaged: nothing was exported")
        (stored,) = objects.put(to, [lambda name=name: source.chunks(name)])  # type: ignore[misc]
        if stored.digest != digest:
            raise DurableError(f"{name} of {source.url} is damaged: nothing was exported")
    return len(parts), sum(parts.values())


def _open(place: str | None) -> tuple[Place, Catalogue]:
    url = default_place() if place is None else normal_url(place)
    if url is None:
        raise click.UsageError("this user has no home: name a place with --place")
    opened = open_place(url)
    if id_of(opened) is None:
        raise click.ClickException(f"{url} is no place for durable datasets: none was published there")
    return opened, Catalogue(opened)


def _find(catalogue: Catalogue, name: str) -> Found:
    found = [each for each in catalogue.datasets() if _text(each.dataset.name) == name]
    if not found:
        there = ", ".join(_text(each.dataset.name) for each in catalogue.datasets()) or "none"
        raise click.ClickException(f"there is no dataset {name!r}; there are: {there}")
    return found[0]


def _described(place: str | None, address: str | None) -> list[dict[str, Any]]:
    if place is None:
        return [{"name": name, **about} for name, about in ask_cluster(address, protocol.requests.DESCRIBE_DATASETS)]
    opened, catalogue = _open(place)
    return [
        {"name": d.name, **d.about, "keys": d.nkeys, "nbytes": d.nbytes, "durable": opened.url}
        for _, d in catalogue.datasets()
    ]


def render(found: list[dict[str, Any]], width: int | None = None) -> str:
    """Datasets for people, in lines of ``width`` characters if that is given."""
    total = sum(each.get("nbytes") or 0 for each in found)
    lines = [f"{count(len(found), 'dataset')}, {size(total)}"]
    if found:
        rows = [
            [
                shorten(_text(each["name"]), NAME_WIDTH),
                each.get("kind") or MISSING,
                shorten(str(each.get("type") or MISSING), TYPE_WIDTH),
                size(each.get("nbytes")),
                each.get("durable") or MISSING,
                str(each.get("user") or each.get("publisher") or MISSING),
                str(each.get("host") or MISSING),
                _age(each.get("published")),
            ]
            for each in found
        ]
        header = ["name", "kind", "type", "size", "durable", "by", "from", "age"]
        lines += ["", table(header, rows, right=(3, 7), width=width)]
    return "\n".join(lines)


def _age(published: Any) -> str:
    return format_duration(max(0.0, time.time() - published)) if isinstance(published, (int, float)) else MISSING


def _text(name: Name) -> str:
    return name if isinstance(name, str) else str(tuple(name) if isinstance(name, list) else name)
