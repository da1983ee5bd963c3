"""What things are called in the scheduler."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeAlias

Key: TypeAlias = Hashable
ObjectId: TypeAlias = bytes
Digest: TypeAlias = bytes
#: A pickle, which the scheduler never looks into.
Payload: TypeAlias = bytes | memoryview
