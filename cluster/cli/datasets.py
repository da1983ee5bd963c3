"""``holdfast datasets``: what is published, durable or not, in a cluster or in a place."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import click

from holdfast.cluster import protocol
from holdfast.cluster.cli.find import NoClusterError, address_option, ask_cluster
from holdfast.cluster.protocol.message import Request
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
    help="A directory or URL with durable datasets, which is used without a cluster.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.group()
def datasets() -> None:
    """List, describe, export and remove published datasets.

    They are those of a cluster, or with --place those of a place for durable datasets, which needs no cluster.

    \b
    Examples:
      holdfast datasets list
      holdfast datasets describe flights
      holdfast datasets export flights s3://bucket/published
      holdfast datasets remove flights
      holdfast datasets list --place s3://bucket/published
      holdfast datasets sweep --place /data/published
    """


@datasets.command("list")
@_json_option
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
@_json_option
@_place_option
@address_option
def describe(name: str, as_json: bool, place: str | None, address: str | None) -> None:
    """Show all that is known of a dataset: what it is, where it lies, who has published it, and what it needs."""
    entry = _entry(_described(place, address), name)
    click.echo(json.dumps(entry, indent=2, default=str) if as_json else render_one(entry))


@datasets.command()
@click.argument("name")
@click.argument("target")
@_place_option
@address_option
def export(name: str, target: str, place: str | None, address: str | None) -> None:
    """Copy a durable dataset to another place, TARGET: a directory or a URL. Its files are checked on the way."""
    if place is None:
        place = _entry(_described(None, address), name)["durable"]
        if place is None:
            raise click.ClickException(
                f"{name!r} is not durable, so it has no files to copy. Have a client publish it there: "
                f"publish_dataset(client.get_dataset({name!r}), name={name!r}, override=True, durable={target!r})"
            )
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
@address_option
def remove(name: str, place: str | None, address: str | None) -> None:
    """Take a dataset's name away. What is durable is removed from its place, too.

    With --place it is removed there, and clusters that have loaded it can't read the rest of it any more.
    """
    if place is None:
        entry = _entry(_described(None, address), name)
        _ask(address, protocol.requests.UNPUBLISH, name=entry["name"])
        also = "" if entry["durable"] is None else f", and from {entry['durable']}"
        click.echo(f"Removed {name} from the cluster{also}.")
        return
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
@click.option(
    "--place",
    metavar="PLACE",
    help="The place. Default: HOLDFAST_DURABLE, or ~/.local/state/holdfast/durable.",
)
def sweep_(abandon: tuple[str, ...], place: str | None) -> None:
    """Delete the files of a place that no dataset refers to. Nothing is deleted while somebody publishes there."""
    url = place or default_place()
    if url is None:
        raise click.UsageError("this user has no home: name a place with --place")
    opened, _ = _open(url)
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


def _open(place: str) -> tuple[Place, Catalogue]:
    url = normal_url(place)
    opened = open_place(url)
    if id_of(opened) is None:
        raise click.ClickException(f"{url} is no place for durable datasets: none was published there")
    return opened, Catalogue(opened)


def _find(catalogue: Catalogue, name: str) -> Found:
    found = catalogue.datasets()
    names = [each.dataset.name for each in found]
    return found[_index(names, name)]


def _entry(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return found[_index([entry["name"] for entry in found], name)]


def _index(names: list[Name], name: str) -> int:
    texts = list(map(_text, names))
    if name not in texts:
        raise click.ClickException(f"there is no dataset {name!r}; there are: {', '.join(texts) or 'none'}")
    return texts.index(name)


def _described(place: str | None, address: str | None) -> list[dict[str, Any]]:
    if place is None:
        return [{"name": name, **about} for name, about in _ask(address, protocol.requests.DESCRIBE_DATASETS)]
    opened, catalogue = _open(place)
    return [
        {"name": d.name, **d.about, "keys": d.nkeys, "nbytes": d.recipe.nbytes + d.nbytes, "durable": opened.url}
        for _, d in catalogue.datasets()
    ]


def _ask(address: str | None, request: Request, **arguments: Any) -> Any:
    try:
        return ask_cluster(address, request, **arguments)
    except NoClusterError as error:
        raise click.ClickException(f"{error}. --place uses a place for durable datasets without one") from None


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


def render_one(entry: dict[str, Any]) -> str:
    """A dataset for people."""
    said = {
        "name": _text(entry["name"]),
        "kind": entry.get("kind"),
        "type": entry.get("type"),
        "shape": _list(["?" if n is None else f"{n:,}" for n in entry.get("shape") or ()], " × "),
        "dtype": entry.get("dtype"),
        "length": entry.get("length"),
        "partitions": entry.get("npartitions"),
        "columns": _pairs(entry.get("columns") or entry.get("schema")),
        "results": f"{entry.get('keys') or 0:,}, {size(entry.get('nbytes'))}",
        "unfinished": entry.get("unfinished") or None,
        "durable": entry.get("durable"),
        "copies": entry.get("copies"),
        "published": f"{_age(entry.get('published'))} ago, by {entry.get('user') or entry.get('publisher') or MISSING} "
        f"on {entry.get('host') or MISSING}",
        "made with": _pairs(entry.get("versions")),
    }
    width = max(map(len, said))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in said.items() if text)


def _pairs(found: Any) -> str:
    return _list([f"{name} {text}" for name, text in found.items()], ", ") if isinstance(found, dict) else ""


def _list(texts: list[str], separator: str) -> str:
    return separator.join(texts)


def _age(published: Any) -> str:
    return format_duration(max(0.0, time.time() - published)) if isinstance(published, (int, float)) else MISSING


def _text(name: Name) -> str:
    return name if isinstance(name, str) else str(tuple(name) if isinstance(name, list) else name)
