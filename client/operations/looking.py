"""What lies in a cluster, and why tasks are in their states."""

from __future__ import annotations

from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.client.explanation import Explanation
from holdfast.client.memory_report import MemoryReport
from holdfast.client.operations.errands import have_done
from holdfast.client.operations.information import MAX_ASKED, MAX_ASKED_NBYTES, keys_named
from holdfast.cluster import protocol
from holdfast.cluster.protocol.errands import OBJECT_HERE
from holdfast.cluster.protocol.shapes import in_slices

#: How long the hosts that have an object may take to say how it lies there.
PLACES_SECONDS = 3.0


def memory(core: Core) -> Operation[MemoryReport]:
    """See `Client.memory`."""
    return MemoryReport((yield Ask(core.session, protocol.requests.MEMORY)))


def story(core: Core, keys: tuple[Any, ...], on_error: str) -> Operation[list[tuple[Any, ...]]]:
    """See `Client.story`."""
    if on_error not in ("raise", "ignore"):
        raise ValueError(f"on_error={on_error!r:.100} is unknown: it is 'raise' or 'ignore'")
    named: dict[Any, None] = {}
    for each in keys:
        named.update(dict.fromkeys(keys_named(each)))
    moves = []
    for part in list(in_slices(list(named), MAX_ASKED, MAX_ASKED_NBYTES)) or [[]]:  # to ask makes it remembered
        answer = yield Ask(core.session, protocol.requests.STORY, keys=part)
        moves += answer["moves"]
    return [("scheduler", *move) for move in sorted(moves, key=_at)]


def _at(move: tuple[Any, ...]) -> float:
    at: float = move[-1]
    return at


def explain(core: Core, future: Any) -> Operation[Explanation]:
    """See `Client.explain`."""
    (key,) = keys_named([future])
    figures = yield Ask(core.session, protocol.requests.EXPLAIN, key=key)
    places: dict[str, Any] = {}
    if figures is not None and figures["where"]:
        nodes = [host["node"] for host in figures["where"]]
        try:
            outcomes = yield from have_done(core, OBJECT_HERE, nodes, PLACES_SECONDS, object_id=figures["object_id"])
        except ValueError:  # one of them has just left
            outcomes = {}
        places = {node: outcome.value for node, outcome in outcomes.items() if outcome.error is None}
    return Explanation(key, figures, places)
