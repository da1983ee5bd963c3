"""``holdfast explain``."""

from __future__ import annotations

import ast
import json
from typing import Any

import click

from holdfast.cluster.cli.find import address_option, answers_of_cluster
from holdfast.cluster.reports.asking import explaining
from holdfast.cluster.reports.explanation import Explanation
from holdfast.cluster.tables import terminal_width


@click.command()
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@address_option
def explain(key: str, as_json: bool, address: str | None) -> None:
    """Show why a task is in its state, and what keeps its result.

    Also where the result lies, and which line of code has brought the task. KEY is the key of a task, as 'holdfast
    memory' and futures show it, or the id of an object. Of a key whose middle was cut out to fit into a line, and of
    one that is only the beginning, the keys are shown that may be meant.

    \b
    Examples:
      holdfast explain inc-1e297fc27658d7b67b3a758f16bcf47a
      holdfast explain "('random_sample-5a3d', 3, 0)"
      holdfast explain inc- --json
    """
    found = answers_of_cluster(address, explaining(_key(key)))
    if not found.is_known and len(found.near) == 1:
        found = answers_of_cluster(address, explaining(found.near[0]))
    click.echo(json.dumps(found.as_dict(), default=str) if as_json else _shown(found))
    if not found.is_known:
        raise click.exceptions.Exit(1)


def _key(text: str) -> Any:
    """The key that a text means: a tuple, if it looks like one."""
    if text.startswith("("):
        try:
            key = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return text
        return key if isinstance(key, tuple) else text
    return text


def _shown(found: Explanation) -> str:
    return found.render(width=terminal_width())
