"""Text that is shown again and again in the same place."""

from __future__ import annotations

import shutil
import sys

import click

_HOME, _CLEAR_LINE, _CLEAR_BELOW, _CLEAR = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"


class Screen:
    """The terminal, whose contents each text replaces. What isn't a terminal gets the texts one after the other.

    Lines that don't fit are cut, and so is what has more lines than there are, so that the beginning stays in sight.
    """

    def __init__(self) -> None:
        self._is_clear = False

    def show(self, text: str) -> None:
        """Show a text in place of the one before."""
        if not sys.stdout.isatty():
            click.echo(text + "\n")
            return
        columns, rows = shutil.get_terminal_size()
        lines = text.splitlines()
        if len(lines) >= rows:
            lines = [*lines[: max(1, rows - 2)], f"… {len(lines) - rows + 2} more lines"]
        begin = _HOME if self._is_clear else _CLEAR + _HOME
        self._is_clear = True
        # One write, over what was there: a screen that is cleared first flickers.
        click.echo(begin + "".join(f"{line[:columns]}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_BELOW, nl=False)
