"""``holdfast memory``."""

from __future__ import annotations

import json
from typing import Any

import click

from holdfast.cluster import protocol
from holdfast.cluster.cli.find import address_option, ask_cluster
from holdfast.cluster.tables import MISSING, count, format_duration, share, shorten, size, table, terminal_width

KEY_WIDTH = 48
NAME_WIDTH = 30


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option(
    "--limit", type=click.IntRange(0), default=30, show_default=True, help="How many objects are shown; 0: all."
)
@address_option
def memory(as_json: bool, limit: int, address: str | None) -> None:
    """Show the objects of a cluster, the largest first.

    For each object: its size, its key, what made it (owner), what keeps it alive (holders), which hosts' stores have
    it, and how old it is.

    \b
    Examples:
      holdfast memory
      holdfast memory --limit 0 --json
    """
    report = ask_cluster(address, protocol.requests.MEMORY)
    click.echo(json.dumps(report, default=str) if as_json else render(report, limit, terminal_width()))


def render(report: dict[str, Any], limit: int = 30, width: int | None = None) -> str:
    """A memory report for people, in lines of ``width`` characters if that is given."""
    objects = sorted(report.get("objects") or [], key=lambda o: o.get("nbytes") or 0, reverse=True)
    stores = report.get("stores") or {}
    # A cluster lists a part of very many objects, and says how many there are.
    number = report.get("count", len(objects))
    total = report.get("nbytes", sum(o.get("nbytes") or 0 for o in objects))
    lines = [f"{count(number, 'object')}, {size(total)}"]
    if stores:
        rows = [[node, share((s or {}).get("used"), (s or {}).get("capacity"))] for node, s in stores.items()]
        lines += ["", table(["store", "used"], rows, width=width)]
    for node, store in stores.items():
        spilled = (store or {}).get("spilled_nbytes")
        if spilled:
            lines.append(f"  {size(spilled)} of {node} is on disk")
        unseen = (store or {}).get("deleted_but_pinned_nbytes")
        if unseen:
            readers = _few((store or {}).get("deleted_but_pinned_by"))
            lines.append(f"  {size(unseen)} of {node} is deleted, and still read by {readers}")
    if objects:
        shown = objects[:limit] if limit else objects
        rows = [
            [
                size(o.get("nbytes")),
                shorten(_key(o.get("key")), KEY_WIDTH),
                o.get("type") or MISSING,
                shorten(str(o.get("owner") or MISSING), NAME_WIDTH),
                _few(o.get("holders")),
                _few(o.get("where")),
                format_duration(o.get("age")),
            ]
            for o in shown
        ]
        header = ["size", "key", "type", "owner", "holders", "where", "age"]
        lines += ["", table(header, rows, right=(0, 6), width=width)]
        if len(shown) < number:
            left = size(total - sum(o.get("nbytes") or 0 for o in shown))
            lines.append(f"  … and {count(number - len(shown), 'smaller object')} of {left} together (--limit)")
    return "\n".join(lines)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(tuple(key) if isinstance(key, list | tuple) else key)


def _few(names: Any, most: int = 2) -> str:
    if not names:
        return MISSING
    names = [shorten(str(name), NAME_WIDTH) for name in names]
    return ", ".join(names[:most]) + (f" +{len(names) - most}" if len(names) > most else "")
