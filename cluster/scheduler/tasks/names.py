"""What things are called in the scheduler."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeAlias

Key: TypeAlias = Hashable
ObjectId: TypeAlias = bytes
Digest: TypeAlias = bytes
#: A pickle, which the scheduler never looks into.
Payload: TypeAlias = bytes | memoryview


def name_of(written: Any) -> Key:
    """A name out of a snapshot that may have come from a file: a tuple in it has become a list."""
    return tuple(map(name_of, written)) if isinstance(written, list) else written
