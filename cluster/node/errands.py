"""What a node agent does beside all else: the handler of each errand (`cluster/protocol/errands.py`).

A handler runs in a thread of its own. What it needs of the agent's it asks for in the agent's loop.
"""

from __future__ import annotations

from holdfast.cluster.errands.threads import Handlers


def handlers() -> Handlers:
    """What is done about each."""
    return {}
