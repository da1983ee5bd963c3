"""What a node agent does beside all else: the handler of each errand (`cluster/protocol/errands.py`).

A handler runs in a thread of its own. What it needs of the agent's it asks for in the agent's loop.
"""

from __future__ import annotations

from holdfast.cluster.errands.threads import Handlers
from holdfast.cluster.processes import kept_logs
from holdfast.cluster.protocol.errands import NODE_LOGS


def handlers() -> Handlers:
    """What is done about each."""
    return {NODE_LOGS: _logs}


def _logs(n: int | None = None) -> list[tuple[str, str]]:
    return kept_logs.newest(n, "holdfast.cluster.node")
