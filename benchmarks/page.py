"""The generated part of ``docs/performance.md``, between two marks; the rest of the page is written by hand."""

from __future__ import annotations

from pathlib import Path

PERFORMANCE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def replace_section(path: Path, name: str, text: str) -> None:
    """Puts ``text`` between the marks of the section ``name``.

    Raises
    ------
    ValueError
        If the page hasn't both of the marks, in their order.

    Examples
    --------
    The marks are lines of their own::

        <!-- bench-store: made by the benchmark, don't edit -->
        <!-- end of bench-store -->
    """
    page = path.read_text()
    begin, end = f"<!-- {name}: made by the benchmark, don't edit -->\n", f"<!-- end of {name} -->\n"
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{path} needs the lines {begin.strip()!r} and {end.strip()!r} around what is generated")
    path.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}")
