"""What is large, and how large something is before it is pickled."""

from __future__ import annotations

import sys
import types
from typing import Any

#: What is larger, pickled, is stored by itself.
LARGE_NBYTES = 32 << 10
#: What tells its size before it is pickled.
_SIZED_MODULES = frozenset({"numpy", "pyarrow", "pandas", "polars"})
LENGTH_IS_SIZE = frozenset({str, bytes, bytearray})


def size_hint(value: Any) -> int:
    """The size of the data of an array, a frame, a text or the like, without pickling it; 0 if it can't be told."""
    kind = type(value)
    if kind in LENGTH_IS_SIZE:
        return len(value)
    if kind.__module__.partition(".")[0] not in _SIZED_MODULES or issubclass(kind, type):
        return 0
    if issubclass(kind, getattr(sys.modules.get("pandas"), "DataFrame", types.NoneType)):
        return int(sum(block.values.nbytes for block in value._mgr.blocks)) + int(value.index.nbytes)
    if kind.__module__.startswith("polars") and hasattr(value, "estimated_size"):
        return int(value.estimated_size())
    nbytes = getattr(value, "nbytes", 0)
    return nbytes if isinstance(nbytes, int) else 0
