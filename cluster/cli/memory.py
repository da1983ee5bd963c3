"""``holdfast memory``."""

from __future__ import annotations

import json

import click

from holdfast.cluster.cli.find import address_option, answers_of_cluster
from holdfast.cluster.protocol.requests.looking import GROUPINGS, MAX_OBJECTS_LISTED
from holdfast.cluster.reports.asking import looking_at_memory
from holdfast.cluster.reports.memory import GROUPED_BY
from holdfast.cluster.tables import terminal_width


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option(
    "--by", multiple=True, type=click.Choice(GROUPINGS), help="Show groups of all objects instead. May be given again."
)
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=30,
    show_default=True,
    help=f"How many objects or groups are shown; 0: all, of objects up to {MAX_OBJECTS_LISTED:,}.",
)
@address_option
def memory(as_json: bool, by: tuple[str, ...], limit: int, address: str | None) -> None:
    """Show the objects of a cluster, and what may be there for nobody.

    The largest comes first. For each object: its size, its key, its type, which client has brought it (owner) by which
    line of code, what keeps it alive (holders), which hosts' stores have it, in memory or on disk, and how old it is. A
    terminal that is narrow shows fewer columns; a file or a program gets all of them. 'holdfast explain KEY' tells more
    of one object.

    \b
    Examples:
      holdfast memory
      holdfast memory --by line --by owner
      holdfast memory --limit 0 --json
    """
    shown = limit or MAX_OBJECTS_LISTED
    objects = 0 if by and not as_json else shown
    report = answers_of_cluster(address, looking_at_memory(by or (GROUPED_BY if as_json else ()), objects))
    if as_json:
        click.echo(json.dumps(report.as_dict(), default=str))
    else:
        click.echo(report.render(width=terminal_width(), objects=objects, groups=limit or None))
