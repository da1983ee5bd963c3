"""The questions behind a report. A client asks them over its session, a command over a connection of its own.

Each function here is a generator that yields requests with their arguments, and is sent the answers.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from holdfast.cluster.protocol.errands import OBJECT_HERE, OBJECTS_HERE, TASK_HERE, Errand
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.requests import ERRAND, EXPLAIN, MEMORY
from holdfast.cluster.reports.explanation import Explanation
from holdfast.cluster.reports.memory import GROUPED_BY, MemoryReport
from holdfast.objectstore.errors import HoldfastError

T = TypeVar("T")
Questions: TypeAlias = Generator[tuple[Request, dict[str, Any]], Any, T]

#: How long hosts and workers may take to say what only they know.
SECONDS = 3.0
#: Of so many of the largest objects the hosts are asked whether they are in memory.
MAX_PLACED = 1_000


def explaining(key: Any) -> Questions[Explanation]:
    """Everything about a key, or about an object by its id in hexadecimal digits."""
    figures = yield EXPLAIN, {"key": key}
    places: dict[str, Any] = {}
    running: Mapping[str, Any] | None = None
    if figures.get("where"):
        nodes = [host["node"] for host in figures["where"]]
        places = yield from _told(OBJECT_HERE, nodes, object_id=figures["object_id"])
    if figures.get("run") is not None:
        address = figures["run"]["worker"]
        running = (yield from _told(TASK_HERE, [address], key=figures["key"])).get(address)
    return Explanation(key, figures, places, running)


def looking_at_memory(by: Sequence[str] = GROUPED_BY, limit: int | None = None) -> Questions[MemoryReport]:
    """What lies in the stores, in groups by these; the largest objects in detail, so many of them."""
    report = yield MEMORY, {"by": list(by), "limit": limit}
    objects = sorted(report["objects"], key=lambda each: each["nbytes"], reverse=True)[:limit]
    placed = [each for each in objects if each["where"]][:MAX_PLACED]
    states: dict[tuple[str, str], str] = {}
    if placed:
        ids = [each["object_id"] for each in placed]
        nodes = list(dict.fromkeys(node for each in placed for node in each["where"]))
        told = yield from _told(OBJECTS_HERE, nodes, object_ids=list(map(bytes.fromhex, ids)))
        states = {(node, id): state for node, found in told.items() for id, state in zip(ids, found, strict=True)}
    return MemoryReport({**report, "objects": objects}, states)


def _told(errand: Errand, names: Sequence[str], **arguments: Any) -> Questions[dict[str, Any]]:
    """What workers or hosts say, by their addresses. Those that have just left, or are slow, say nothing."""
    operation, said = errand(**arguments)
    try:
        answers = yield ERRAND, {"operation": operation, "arguments": said, "names": names, "timeout": SECONDS}
    except (ValueError, HoldfastError):
        return {}
    return {address: answer["value"] for address, answer in answers.items() if "value" in answer}
