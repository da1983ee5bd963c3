"""Where a result lies."""

from __future__ import annotations

from typing import NamedTuple


class Location(NamedTuple):
    """Where a result can be read."""

    object_id: bytes
    nbytes: int
    inline: bytes | None
    nodes: tuple[str, ...]
