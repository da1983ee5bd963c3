"""Tables and quantities for people."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any

from holdfast.objectstore.sizes import format_size

MISSING = "-"
#: A column that is cut to fit into a terminal keeps so many characters.
NARROWEST = 10
_GAP = "  "


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Sequence[int] = (),
    width: int | None = None,
) -> str:
    """Columns of text as wide as they need to be; those in ``right`` are aligned to the right.

    If ``width`` is given, the widest of the other columns are narrowed until lines have so many characters, and what is
    in them is cut in its middle; no column gets narrower than its header or `NARROWEST`.
    """
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    if width is not None:
        narrowest = [max(NARROWEST, len(title)) for title in header]
        _narrow(widths, [n for n in range(len(header)) if n not in right], narrowest, width - len(_GAP) * len(header))
    lines = []
    for row in cells:
        parts = [
            cell.rjust(width) if column in right else shorten(cell, width).ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((_GAP + _GAP.join(parts)).rstrip())
    return "\n".join(lines)


def _narrow(widths: list[int], columns: Sequence[int], narrowest: Sequence[int], total: int) -> None:
    """Take from the widest of the columns, as long as there is one to take from, until all have ``total`` together."""
    for _ in range(sum(widths) - total):
        wide = [column for column in columns if widths[column] > narrowest[column]]
        if not wide:
            return
        widths[max(wide, key=widths.__getitem__)] -= 1


def terminal_width() -> int | None:
    """How many characters fit into a line of the terminal; None if what is printed goes to a file or a program."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def size(nbytes: Any) -> str:
    """A size, or a dash where there is none."""
    return format_size(nbytes) if isinstance(nbytes, int | float) else MISSING


def share(part: Any, whole: Any) -> str:
    """``1.2 GB of 7.2 GB (17 %)``."""
    if not isinstance(whole, int | float) or not whole:
        return size(part)
    if not isinstance(part, int | float):
        return f"{MISSING} of {format_size(whole)}"
    return f"{format_size(part)} of {format_size(whole)} ({100 * part / whole:.0f} %)"


def percent(value: Any) -> str:
    return f"{value:.0f} %" if isinstance(value, int | float) else MISSING


def format_duration(seconds: Any) -> str:
    """``12 s``, ``5 min``, ``3.4 h``, ``2.0 days``."""
    if not isinstance(seconds, int | float):
        return MISSING
    if seconds < 120:
        return f"{max(0, seconds):.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def count(number: int, noun: str) -> str:
    """``1 host``, ``2 hosts``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shorten(text: str, width: int) -> str:
    """Cut the middle out of what is longer than ``width``."""
    if len(text) <= width:
        return text
    head = (width - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
