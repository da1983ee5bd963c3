"""``holdfast state``: the directory in which the scheduler writes down what it decides."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from holdfast.cluster.cli.find import address_option, state_directory_here
from holdfast.cluster.journal.directory import backup as copy
from holdfast.cluster.journal.inspection import inspect as look_into
from holdfast.cluster.tables import count, size, table, terminal_width

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
_path = click.argument("path", required=False, type=click.Path(path_type=Path))


@click.group()
def state() -> None:
    """Inspect, verify and back up the state directory of a cluster.

    In it the scheduler writes down what it decides, its journal, so that another scheduler can go on if it dies. The
    directory may be in use, and damaged: the commands only read it. Without PATH they look at that of the cluster that
    runs on this host, or of --address if several do.

    \b
    Examples:
      holdfast state inspect
      holdfast state verify ~/.local/state/holdfast/state/127.0.0.1-8786
      holdfast state backup ~/.local/state/holdfast/state/127.0.0.1-8786 /backup/state
    """


@state.command()
@_path
@_json_option
@address_option
def inspect(path: Path | None, as_json: bool, address: str | None) -> None:
    """Show whose state it is, its files, and what they come to."""
    found = look_into(path or state_directory_here(address))
    click.echo(json.dumps(found) if as_json else render(found, terminal_width()))


@state.command()
@_path
@_json_option
@address_option
def verify(path: Path | None, as_json: bool, address: str | None) -> None:
    """Read all of it, and say what is damaged. The exit code is 1 if something is.

    A scheduler starts with a damaged journal, too. It goes on with what can be read, sets the rest aside, and deletes
    no object that the journal can't account for.
    """
    found = look_into(path or state_directory_here(address))
    if as_json:
        click.echo(json.dumps({name: found[name] for name in ("directory", "batches", "damage", "torn")}))
    else:
        click.echo("\n".join(_health(found)))
    sys.exit(1 if found["damage"] else 0)


@state.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@_json_option
def backup(path: Path, target: Path, as_json: bool) -> None:
    """Copy it to TARGET, a directory that is not there yet: all of it or nothing.

    'holdfast start --head --state-directory TARGET' goes on from the copy. Never let two schedulers go on from the same
    state: each of them believes that it has the cluster.
    """
    nbytes = copy(path, target)
    if as_json:
        click.echo(json.dumps({"directory": str(path), "target": str(target), "nbytes": nbytes}))
    else:
        click.echo(f"Copied {path} to {target}: {size(nbytes)}.")


def render(found: dict[str, Any], width: int | None = None) -> str:
    """What `inspect` shows of a state directory, in lines of ``width`` characters if that is given."""
    process = found["process"]
    used = "no scheduler has it" if process is None else f"scheduler {process} has it"
    lines = [
        f"State of cluster {found['cluster'] or '?'} in {found['directory']}: {used}",
        f"{count(found['epoch'], 'scheduler')} so far, {count(found['batches'], 'event')}",
        "",
        table(
            ["file", "size", "kind"],
            [[file["name"], size(file["nbytes"]), "summary" if file["summary"] else "log"] for file in found["files"]],
            right=(1,),
            width=width,
        ),
        "",
        f"{count(found['tasks'], 'task')}, {count(found['clients'], 'client')} with {count(found['holds'], 'future')}",
    ]
    lines += [f"  {table_}: {number:,}" for table_, number in found["entries"].items()]
    lines += ["", *_health(found)]
    return "\n".join(lines)


def _health(found: dict[str, Any]) -> list[str]:
    lines = []
    if found["damage"]:
        lines += ["Damaged:", *(f"  {each}" for each in found["damage"])]
    else:
        lines.append(f"Whole: {count(found['batches'], 'event')} in {count(len(found['files']), 'file')}.")
    if found["torn"]:
        lines += ["Not written to the end, which costs nothing:", *(f"  {each}" for each in found["torn"])]
    if found["aside"]:
        nbytes = sum(kept["nbytes"] for kept in found["aside"])
        lines.append(f"Set aside: {count(len(found['aside']), 'file')}, {size(nbytes)}, in {found['directory']}/aside.")
    return lines
