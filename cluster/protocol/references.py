"""The references inside an object, as its store has them: packed keys, which mean nothing to the store.

The scheduler's journal knows what objects contain. What is here is for those that a scheduler has not heard of before
it ended: their hosts tell the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

#: So much is kept of an object's references.
MAX_REFERENCES_NBYTES = 4 << 10
#: Stands for more than that.
TOO_MANY: bytes = msgpack.packb(None)


def pack(keys: Sequence[Any]) -> bytes:
    """Keys as a store keeps them, or that they are too many. Without keys empty.

    Examples
    --------
    >>> unpack(pack(["a", ("b", 1)])), unpack(pack([])), unpack(pack(["k" * 5_000]))
    (['a', ('b', 1)], [], None)
    """
    if not keys:
        return b""
    packed: bytes = msgpack.packb(list(keys), unicode_errors="surrogatepass")
    return packed if len(packed) <= MAX_REFERENCES_NBYTES else TOO_MANY


def unpack(packed: bytes) -> list[Any] | None:
    """The inverse of `pack`: None if they were too many, or are none at all."""
    if not packed:
        return []
    try:
        keys = msgpack.unpackb(packed, use_list=False, unicode_errors="surrogatepass")
    except Exception:  # msgpack raises a dozen unrelated types for malformed input
        return None
    return list(keys) if type(keys) is tuple else None
