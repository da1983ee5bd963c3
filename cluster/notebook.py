"""How things of ours look in a notebook: a title and a small table, without scripts or styles of their own."""

from __future__ import annotations

import html
from collections.abc import Mapping

#: Longer texts are cut: a key can have megabytes.
TEXT_LENGTH_MAX = 200


def card(title: str, rows: Mapping[str, object]) -> str:
    """HTML for a title and what belongs to it, by name. What is None is left out.

    Examples
    --------
    >>> card("Future", {"key": "a<b"})
    '<div><strong>Future</strong><table><tr><th>key</th><td>a&lt;b</td></tr></table></div>'
    """
    lines = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{_text(value)}</td></tr>"
        for name, value in rows.items()
        if value is not None
    )
    return f"<div><strong>{html.escape(title)}</strong><table>{lines}</table></div>"


def _text(value: object) -> str:
    text = str(value)
    if len(text) > TEXT_LENGTH_MAX:
        text = f"{text[: TEXT_LENGTH_MAX - 1]}…"
    return html.escape(text)
