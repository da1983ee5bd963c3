"""What a node agent does beside all else: the handler of each errand (`cluster/protocol/errands.py`).

A handler runs in a thread of its own. What it needs of the agent's it asks for in the agent's loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from holdfast.cluster.errands.threads import Handlers
from holdfast.cluster.processes import kept_logs
from holdfast.cluster.protocol.errands import NODE_LOGS, OBJECT_HERE, OBJECTS_HERE
from holdfast.cluster.protocol.limits import MAX_NAME_LENGTH
from holdfast.objectstore import ObjectID

#: Of the processes that look at an object, so many are named.
MAX_READERS = 20


def handlers(describe: Callable[[ObjectID], dict[str, Any] | None], durable: Handlers) -> Handlers:
    """What is done about each.

    Parameters
    ----------
    describe
        Says what the store has of an object, in any thread.
    durable
        What is done about those of durable datasets.
    """

    def states(object_ids: Sequence[bytes]) -> list[str]:
        described = [describe(ObjectID(object_id)) for object_id in object_ids]
        return ["" if each is None else str(each["state"]) for each in described]

    return {
        NODE_LOGS: _logs,
        OBJECT_HERE: lambda object_id: _object(describe(ObjectID(object_id))),
        OBJECTS_HERE: states,
        **durable,
    }


def _object(description: dict[str, Any] | None) -> dict[str, Any] | None:
    if description is None:
        return None
    readers = [str(name)[:MAX_NAME_LENGTH] for name in description["pinned_by"][:MAX_READERS]]
    return {name: description[name] for name in ("state", "age", "pins")} | {"readers": readers}


def _logs(n: int | None = None) -> list[tuple[str, str]]:
    return kept_logs.newest(n, "holdfast.cluster.node")
