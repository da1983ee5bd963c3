"""Where a store puts what doesn't fit, when no place is named: on a disk.

A temporary directory is often memory (tmpfs) today. What is moved there frees no memory, it counts twice while it is
copied, and the control group that ran out of it ends with a process killed. So such a place is used only if the user
names it. What may lie there counts as memory then: as much as the store holds.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from holdfast.objectstore.system.mounts import memory_kind


class SpillLocation(NamedTuple):
    """A directory for directories of spilled objects; None if there is none, for the ``reason``."""

    path: str | None
    reason: str = ""


def default_location() -> SpillLocation:
    """The first of the usual places that can be written to and is on a disk."""
    refused = []
    for path in _usual():
        if not os.path.isdir(path) or not os.access(path, os.W_OK | os.X_OK):
            refused.append(f"{path} isn't there, or can't be written to")
        elif kind := memory_kind(path):
            refused.append(f"{path} is memory ({kind})")
        else:
            return SpillLocation(path)
    return SpillLocation(None, f"there is no place on a disk: {', '.join(refused)}; name a spill directory")


def _usual() -> list[str]:
    home = os.path.expanduser("~")  # which may be "~", if it is not known
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    usual = [os.environ.get("TMPDIR"), "/tmp", "/var/tmp", caches]
    return list(dict.fromkeys(path for path in usual if path and os.path.isabs(path)))
