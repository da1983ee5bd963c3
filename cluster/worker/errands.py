"""What a worker does beside its tasks: the handler of each errand (`cluster/protocol/errands.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.cluster import versions
from holdfast.cluster.errands.threads import Handlers
from holdfast.cluster.protocol.errands import VERSIONS


def handlers() -> Handlers:
    """What is done about each."""
    return {VERSIONS: _versions}


def _versions(packages: Sequence[str] = ()) -> dict[str, Any]:
    return versions.describe(packages)
