"""The requests that only read the state, and how each is answered.

An answer about tasks is made in steps, which the client's inbox takes one by one (`introspection`); the others are made
at once. What isn't in the state, such as the scheduler's own address, is asked of the `Surroundings`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias

from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.requests import ADAPTIVE_TARGET, HAS_WHAT, INFO, MEMORY, NTHREADS, STATUS, WHO_HAS
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.instructions import Reply, ReplyPart
from holdfast.cluster.scheduler.watching import introspection, scaling


class Surroundings(NamedTuple):
    """What the server knows, and the state doesn't: functions that tell it."""

    #: The scheduler's description of itself.
    describe: Callable[[], dict[str, Any]]
    #: How many seconds ago each host said something.
    silences: Callable[[], dict[str, float]]
    #: The hosts that were given up.
    absent: Callable[[], list[dict[str, Any]]]


#: ``reader(state, surroundings, **arguments)``: the answer, or the steps that make it.
Reader: TypeAlias = Callable[..., Any]

READERS: dict[Request, Reader] = {
    WHO_HAS: lambda state, _, keys=None: introspection.who_has(state, keys),
    HAS_WHAT: lambda state, _, nodes=None: introspection.has_what(state, nodes),
    NTHREADS: lambda state, _, workers=None: introspection.nthreads(state, workers),
    INFO: lambda state, around: introspection.info(state, around.describe()),
    STATUS: lambda state, around: introspection.status(state, around.describe(), around.silences(), around.absent()),
    MEMORY: lambda state, _: introspection.memory(state),
    ADAPTIVE_TARGET: lambda state, _, **arguments: scaling.adaptive_target(state, **arguments),
}
_READERS = {request.operation: reader for request, reader in READERS.items()}


def answer(
    state: SchedulerState,
    surroundings: Surroundings,
    client: str,
    request: int,
    operation: str,
    arguments: dict[str, Any],
) -> Generator[ReplyPart | None, None, Reply]:
    """Answer a request step by step: yields what is to be sent, or None, once for each step but the last."""
    steps = _READERS[operation](state, surroundings, **arguments)
    if isinstance(steps, Generator):
        while True:
            try:
                fragment = next(steps)
            except StopIteration as end:
                steps = end.value
                break
            yield None if fragment is None else ReplyPart(client, request, fragment)
    return Reply(client, request, True, steps)
