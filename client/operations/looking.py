"""What lies in a cluster, and why tasks are in their states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from dask.base import is_dask_collection

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.client.operations.information import MAX_ASKED, MAX_ASKED_NBYTES, keys_named
from holdfast.cluster import protocol
from holdfast.cluster.protocol.requests.looking import MAX_OBJECTS_LISTED
from holdfast.cluster.protocol.shapes import in_slices
from holdfast.cluster.reports import asking
from holdfast.cluster.reports.asking import Questions
from holdfast.cluster.reports.explanation import Explanation
from holdfast.cluster.reports.memory import MemoryReport, groupings
from holdfast.objectstore import ObjectID

T = TypeVar("T")


def memory(core: Core, by: str | Sequence[str] | None, limit: int) -> Operation[MemoryReport]:
    """See `Client.memory`."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise ValueError(f"limit is a number of objects, not {limit!r:.100}")
    return (yield from _answers(core, asking.looking_at_memory(groupings(by), min(limit, MAX_OBJECTS_LISTED))))


def _answers(core: Core, questions: Questions[T]) -> Operation[T]:
    """Ask questions, one after the other."""
    answer: Any = None
    error: Exception | None = None
    while True:
        try:
            request, arguments = questions.send(answer) if error is None else questions.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result
        error = None
        try:
            answer = yield Ask(core.session, request, None, **arguments)
        except Exception as refused:
            error = refused


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
    if isinstance(future, (list, set, frozenset, dict, Iterator)) or is_dask_collection(future):
        raise TypeError(
            f"explain takes one future or key, and not what has several, such as {future!r:.100}: "
            "futures_of() lists the futures in it"
        )
    (key,) = [future.hex()] if isinstance(future, ObjectID) else keys_named([future])
    return (yield from _answers(core, asking.explaining(key)))
