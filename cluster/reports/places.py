"""How the states of an object in a store are called in reports."""

from __future__ import annotations

#: Of all others it isn't known.
PLACES = {
    "sealed": "in memory",
    "moving": "in memory",
    "spilling": "in memory, on its way to disk",
    "spilled": "on disk",
}
